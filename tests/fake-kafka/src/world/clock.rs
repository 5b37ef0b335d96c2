//! What the simulator's thread believes about time and chance.
//!
//! Everything below (std, tokio, rand, uuid, a hash map's keys) asks the C library for the time, for
//! random bytes and for the number of processors. Here are those functions once more: the linker takes a program's own before the
//! library's. On a thread that simulates they answer from the world; on any other they ask the kernel.

use std::cell::Cell;

const NS_PER_US: i64 = 1_000;
const NS_PER_SECOND: i64 = 1_000_000_000;

/// When every world begins: 2026-01-15 08:00 UTC, in microseconds since 1970.
pub const EPOCH_US: i64 = 1_768_464_000_000_000;
/// What a monotonic clock says then: long before it nothing happened, so code may subtract from it.
const BOOTED_US: i64 = 1_000_000 * 1_000_000;

thread_local! {
    static SIMULATES: Cell<bool> = const { Cell::new(false) };
    static NOW_US: Cell<i64> = const { Cell::new(0) };
    static MONOTONIC_US: Cell<i64> = const { Cell::new(0) };
    static WALL_US: Cell<i64> = const { Cell::new(0) };
    static CHANCE: Cell<u64> = const { Cell::new(0) };
}

/// From here on this thread simulates. To be called once, at a thread's begin, before anything has
/// asked for randomness: a thread keeps the keys of its hash maps.
pub(super) fn simulate(seed: u64) {
    CHANCE.set(seed ^ 0x5851_f42d_4c95_7f2d);
    set(0, 0, 0);
    SIMULATES.set(true);
}

/// Whether this thread simulates.
pub fn simulates() -> bool {
    SIMULATES.get()
}

/// Sets all clocks: the world's, and how far those of the process that runs next are from it.
pub(super) fn set(now_us: i64, monotonic_lag_us: i64, wall_skew_us: i64) {
    NOW_US.set(now_us);
    MONOTONIC_US.set(BOOTED_US + now_us - monotonic_lag_us);
    WALL_US.set(EPOCH_US + now_us + wall_skew_us);
}

/// Microseconds since the world began.
pub fn now_us() -> i64 {
    NOW_US.get()
}

/// The brokers' wall clock, milliseconds since 1970.
pub fn broker_ms(now_us: i64) -> i64 {
    (EPOCH_US + now_us).div_euclid(1_000)
}

/// The next of a sequence that looks random (splitmix64).
pub(crate) fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn simulated_ns(clock: libc::clockid_t) -> Option<i64> {
    if !SIMULATES.get() {
        return None;
    }
    match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => Some(WALL_US.get() * NS_PER_US),
        libc::CLOCK_MONOTONIC
        | libc::CLOCK_MONOTONIC_RAW
        | libc::CLOCK_MONOTONIC_COARSE
        | libc::CLOCK_BOOTTIME => Some(MONOTONIC_US.get() * NS_PER_US),
        _ => None,
    }
}

/// The C library's function, for the whole program.
///
/// # Safety
/// As that one: `out` points to a `timespec` that may be written.
#[allow(unsafe_code)] // Its name and its signature are the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(
    clock: libc::clockid_t,
    out: *mut libc::timespec,
) -> libc::c_int {
    let Some(ns) = simulated_ns(clock) else {
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, out) } as libc::c_int;
    };
    let time = libc::timespec {
        tv_sec: ns.div_euclid(NS_PER_SECOND),
        tv_nsec: ns.rem_euclid(NS_PER_SECOND),
    };
    unsafe { out.write(time) };
    0
}

/// The C library's function, for the whole program.
///
/// # Safety
/// As that one: `buffer` points to `length` bytes that may be written.
#[allow(unsafe_code)] // Its name and its signature are the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(
    buffer: *mut libc::c_void,
    length: libc::size_t,
    flags: libc::c_uint,
) -> libc::ssize_t {
    if !SIMULATES.get() {
        return unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) }
            as libc::ssize_t;
    }
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
    let mut state = CHANCE.get();
    for chunk in bytes.chunks_mut(8) {
        let random = next_random(&mut state).to_le_bytes();
        chunk.copy_from_slice(&random[..chunk.len()]);
    }
    CHANCE.set(state);
    length.cast_signed()
}

/// The C library's function, for the whole program: a thread that simulates has one processor, so that
/// what goes by their number (the shards of a `DashMap`, and with them its order) is the same everywhere.
///
/// # Safety
/// As that one: `set` points to `bytes` bytes that may be written.
#[allow(unsafe_code)] // Its name and its signature are the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sched_getaffinity(
    process: libc::pid_t,
    bytes: libc::size_t,
    set: *mut libc::cpu_set_t,
) -> libc::c_int {
    if !SIMULATES.get() {
        let written = unsafe { libc::syscall(libc::SYS_sched_getaffinity, process, bytes, set) };
        return if written < 0 { -1 } else { 0 };
    }
    let set = unsafe { std::slice::from_raw_parts_mut(set.cast::<u8>(), bytes) };
    set.fill(0);
    if let Some(first) = set.first_mut() {
        *first = 1;
    }
    0
}

/// The C library's function, for the whole program.
///
/// # Safety
/// As that one: `buffer` points to `length` bytes that may be written.
#[allow(unsafe_code)] // Its name and its signature are the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getentropy(
    buffer: *mut libc::c_void,
    length: libc::size_t,
) -> libc::c_int {
    let written = unsafe { getrandom(buffer, length, 0) };
    if written.cast_unsigned() == length {
        0
    } else {
        -1
    }
}
