//! How much memory a piece of work takes: every allocation of the thread is counted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write as _;

/// Nothing that is tried asks for so much at once. It isn't given, which ends the process, as on a machine that
/// hasn't it.
const AT_ONCE_MAX: usize = 1 << 30;

thread_local! {
    static NOW: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    /// The seed of what is tried.
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Runs the work; returns with its outcome how many bytes it had taken at its peak, beyond what there was.
pub(super) fn peak_of<T>(seed: u64, work: impl FnOnce() -> T) -> (T, usize) {
    let before = NOW.get();
    PEAK.set(before);
    SEED.set(Some(seed));
    let outcome = work();
    SEED.set(None);
    let peak = usize::try_from(PEAK.get() - before).unwrap_or(0);
    (outcome, peak)
}

fn note(bytes: isize) {
    // While a thread ends there is nobody to note for.
    let _ = NOW.try_with(|now| {
        now.set(now.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now.get())));
    });
}

/// Whether so much is too much; says whose it is, since the process ends with it.
fn is_too_much(bytes: usize) -> bool {
    let seed = SEED.try_with(Cell::get).ok().flatten();
    let Some(seed) = seed.filter(|_| bytes > AT_ONCE_MAX) else {
        return false;
    };
    let _ = writeln!(
        std::io::stderr(),
        "seed {seed} asks for {bytes} bytes at once"
    );
    true
}

fn signed(bytes: usize) -> isize {
    isize::try_from(bytes).unwrap_or(isize::MAX)
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

// It only counts, and hands on to the system's what it was asked for.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_too_much(layout.size()) {
            return std::ptr::null_mut();
        }
        note(signed(layout.size()));
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_too_much(layout.size()) {
            return std::ptr::null_mut();
        }
        note(signed(layout.size()));
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        note(-signed(layout.size()));
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        if is_too_much(bytes) {
            return std::ptr::null_mut();
        }
        note(signed(bytes) - signed(layout.size()));
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, bytes) }
    }
}
