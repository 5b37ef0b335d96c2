//! tokio draws the seed of a runtime (which branch `select!` asks first, whom a `watch` wakes first) from
//! a counter that grows with every runtime of the process. So the hundredth run of a process would not
//! be the run of the same seed in a process of its own.
//!
//! `Builder::rng_seed` is there only under `--cfg tokio_unstable`, for which everything, the release too,
//! would have to be built another way. So the counter itself is set: it is found in the program's own
//! table of symbols.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Sets the counter, so that the runtime that is built next has the seed of this number.
///
/// # Panics
/// When the program has no table of symbols, or tokio's counter isn't in it: runs couldn't be repeated.
#[allow(unsafe_code)] // The address is that of a static of this type, which lives as long as the program.
pub(super) fn set(number: u32) {
    static COUNTERS: OnceLock<Vec<usize>> = OnceLock::new();
    let counters = COUNTERS.get_or_init(|| {
        let found = find().unwrap_or_default();
        assert!(
            !found.is_empty(),
            "tokio's counter of seeds isn't in the program's table of symbols (is it stripped, is it another tokio?): runs can't be repeated"
        );
        found
    });
    for address in counters {
        let counter = unsafe { &*(*address as *const AtomicU32) };
        counter.store(number, Ordering::Relaxed);
    }
}

/// Where the counters are: one for each tokio in the program.
fn find() -> Option<Vec<usize>> {
    let symbols = Symbols::read()?;
    // The program is loaded somewhere; how far from where it was linked to, a function of ours tells.
    let ours = super::clock::clock_gettime as *const () as usize;
    let (linked, _) = symbols.find(|name| name == "clock_gettime").next()?;
    let shift = ours.wrapping_sub(usize::try_from(linked).ok()?);
    let counters =
        symbols.find(|name| name.contains("5tokio4loom3std4rand") && name.contains("7COUNTER"));
    Some(
        counters
            .filter(|(_, bytes)| *bytes == 4)
            .filter_map(|(address, _)| Some(usize::try_from(address).ok()?.wrapping_add(shift)))
            .collect(),
    )
}

/// An ELF program's symbols.
struct Symbols {
    table: Vec<u8>,
    names: Vec<u8>,
}

const SYMBOL_BYTES: usize = 24;
const SECTION_BYTES: usize = 64;
const SYMTAB: u32 = 2;

impl Symbols {
    fn read() -> Option<Self> {
        let file = File::open("/proc/self/exe").ok()?;
        let head = read_at(&file, 0, 64)?;
        let sections = read_at(
            &file,
            number(&head, 40, 8)?,
            usize::try_from(number(&head, 60, 2)?).ok()? * SECTION_BYTES,
        )?;
        let section = |index: usize| sections.chunks_exact(SECTION_BYTES).nth(index);
        let table = sections
            .chunks_exact(SECTION_BYTES)
            .find(|section| number(section, 4, 4) == Some(u64::from(SYMTAB)))?;
        let names = section(usize::try_from(number(table, 40, 4)?).ok()?)?;
        Some(Self {
            table: content(&file, table)?,
            names: content(&file, names)?,
        })
    }

    /// Addresses and sizes of those with such a name.
    fn find<'a>(
        &'a self,
        is_wanted: impl Fn(&str) -> bool + 'a,
    ) -> impl Iterator<Item = (u64, u64)> + 'a {
        self.table
            .chunks_exact(SYMBOL_BYTES)
            .filter_map(move |symbol| {
                let start = usize::try_from(number(symbol, 0, 4)?).ok()?;
                let name = self.names.get(start..)?.split(|byte| *byte == 0).next()?;
                let address = number(symbol, 8, 8)?;
                (address != 0 && is_wanted(std::str::from_utf8(name).ok()?))
                    .then_some((address, number(symbol, 16, 8)?))
            })
    }
}

fn content(file: &File, section: &[u8]) -> Option<Vec<u8>> {
    read_at(
        file,
        number(section, 24, 8)?,
        usize::try_from(number(section, 32, 8)?).ok()?,
    )
}

fn read_at(file: &File, offset: u64, bytes: usize) -> Option<Vec<u8>> {
    let mut buffer = vec![0; bytes];
    file.read_exact_at(&mut buffer, offset).ok()?;
    Some(buffer)
}

/// A little-endian number of so many bytes.
fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + length)?;
    Some(
        bytes
            .iter()
            .rev()
            .fold(0, |sum, byte| (sum << 8) | u64::from(*byte)),
    )
}
