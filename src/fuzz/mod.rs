//! Bytes that no honest peer would send, for the tests of every decoder that reads what comes over a network.
//!
//! A [`Target`] takes inputs: first those of `tests/corpus/<target>`, which were found once, then such as `make`
//! throws. None may make it panic, take more memory than its length makes plausible, or take long. Random bytes
//! don't get deep, so most inputs are good ones with a few changes ([`Dice::damage`]).
//!
//! A round is known by its seed. In the tests it is a few thousand rounds, always the same; `scripts/fuzz` plays
//! others for as long as there is time. What fails is printed, and written to `target/fuzz/<target>`, from
//! where it is to be copied into the corpus.

mod memory;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

/// How long all rounds of a target may take in the tests, however many are left.
const TEST_TIME: Duration = Duration::from_secs(5);
/// How long one input may take, on a machine that does other things as well.
const INPUT_TIME: Duration = Duration::from_secs(10);

/// What is given hostile bytes.
pub(crate) struct Target {
    /// The folder of its corpus.
    pub(crate) name: &'static str,
    /// How many rounds there are in the tests.
    pub(crate) rounds: u64,
    /// Memory that any input may cost.
    pub(crate) bytes_base: usize,
    /// And how much more for each of its bytes.
    pub(crate) bytes_per_byte: usize,
}

/// What a target is given.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    /// What it is meant as; part of a file's name.
    pub(crate) of: String,
    /// Its bytes.
    pub(crate) bytes: Bytes,
}

impl Input {
    pub(crate) fn new(of: impl Into<String>, bytes: impl Into<Bytes>) -> Self {
        let (of, bytes) = (of.into(), bytes.into());
        Self { of, bytes }
    }
}

impl Target {
    /// Examines the corpus, and then one made input after the other.
    pub(crate) fn hunt(&self, make: impl Fn(&mut Dice) -> Input, examine: impl Fn(&Input)) {
        for input in self.corpus() {
            self.examine(0, &input, &examine);
        }
        let rounds = Rounds::wanted(self.rounds);
        let mut played = 0;
        while rounds.go_on(played) {
            let seed = rounds.first + played;
            let input = make(&mut Dice::new(seed));
            self.examine(seed, &input, &examine);
            played += 1;
        }
        println!("{}: {played} inputs", self.name);
    }

    fn examine(&self, seed: u64, input: &Input, examine: &impl Fn(&Input)) {
        let found = Found {
            target: self,
            seed,
            input,
        };
        let began = Instant::now();
        let ((), peak) = memory::peak_of(seed, || examine(input));
        let most = self.bytes_base + self.bytes_per_byte * input.bytes.len();
        let length = input.bytes.len();
        assert!(
            peak <= most,
            "{peak} bytes of memory for {length} bytes of {}",
            input.of
        );
        let took = began.elapsed();
        assert!(
            took < INPUT_TIME,
            "{took:?} for {length} bytes of {}",
            input.of
        );
        drop(found);
    }

    /// What was found once, by name. The part before `--` says what it is meant as.
    fn corpus(&self) -> Vec<Input> {
        let folder = manifest().join("tests/corpus").join(self.name);
        let files = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = files.map(|file| file.path()).collect();
        files.sort();
        let input = |file: &PathBuf| {
            let name = file
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let of = name.split("--").next().unwrap_or_default().to_owned();
            Input::new(of, fs::read(file).expect("a file of the corpus"))
        };
        files.iter().map(input).collect()
    }
}

/// The outcome of a piece of work, and how many bytes of memory it took at its peak.
pub(crate) fn memory_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    memory::peak_of(0, work)
}

fn manifest() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Keeps an input that makes a target fail.
struct Found<'a> {
    target: &'a Target,
    seed: u64,
    input: &'a Input,
}

impl Drop for Found<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let (name, of, seed) = (self.target.name, &self.input.of, self.seed);
        let folder = manifest().join("target/fuzz").join(name);
        let file = folder.join(format!("{of}--{seed}"));
        let _ = fs::create_dir_all(folder).and_then(|()| fs::write(&file, &self.input.bytes));
        println!(
            "{name}: TWINLOG_FUZZ_SEED={seed}, kept in {}",
            file.display()
        );
    }
}

/// Which rounds are played.
struct Rounds {
    first: u64,
    most: u64,
    until: Instant,
}

impl Rounds {
    /// So many, if the environment doesn't say otherwise.
    fn wanted(usually: u64) -> Self {
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        let now = Instant::now();
        if let Some(seed) = number("TWINLOG_FUZZ_SEED") {
            return Self {
                first: seed,
                most: 1,
                until: now + TEST_TIME,
            };
        }
        match number("TWINLOG_FUZZ_SECONDS") {
            Some(seconds) => Self {
                first: rand::rng().next_u64() >> 1,
                most: u64::MAX,
                until: now + Duration::from_secs(seconds),
            },
            None => Self {
                first: 1,
                most: usually,
                until: now + TEST_TIME,
            },
        }
    }

    /// Whether another one is due, and which seed the first has.
    fn go_on(&self, played: u64) -> bool {
        played < self.most && (played == 0 || Instant::now() < self.until)
    }
}

/// Chance, the same for the same seed.
pub(crate) struct Dice(StdRng);

/// What numbers go wrong with.
const EXTREMES: [i64; 8] = [
    -1,
    0,
    1,
    i64::MAX,
    i64::MIN,
    i32::MAX as i64,
    i32::MIN as i64,
    1 << 24,
];

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// A number below `end`, which isn't 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end)
    }

    pub(crate) fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// Bytes that decoders go far with: as lengths they are short, as texts they are UTF-8.
    pub(crate) fn small_bytes(&mut self, count: usize) -> Vec<u8> {
        const SMALL: [u8; 10] = [0, 0, 0, 1, 1, 1, 2, 2, 3, 4];
        (0..count).map(|_| *self.one(&SMALL)).collect()
    }

    /// The bytes with one to four changes; now and then none.
    pub(crate) fn damage(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..self.below(5) {
            self.change(&mut bytes);
        }
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len() + 1);
        match self.below(9) {
            0 => bytes.truncate(at),
            1 => {
                let byte = *self.one(&[0, 1, 2, 0x7f, 0x80, 0x81, 0xff]);
                put(bytes, at, &[byte]);
            }
            2 => {
                let byte = self.bytes(1);
                put(bytes, at, &byte);
            }
            3 => {
                let value = self.extreme(bytes.len());
                let size = *self.one(&[2, 4, 8]);
                put(bytes, at, &value.to_be_bytes()[8 - size..]);
            }
            4 => {
                let varint = self.varint(bytes.len());
                put(bytes, at, &varint);
            }
            5 => {
                let varint = self.varint(bytes.len());
                bytes.splice(at..at, varint);
            }
            6 => {
                let until = at + self.below(bytes.len() - at + 1);
                let again = bytes[at..until].to_vec();
                bytes.splice(at..at, again);
            }
            7 => {
                let until = at + self.below(bytes.len() - at + 1);
                bytes.drain(at..until);
            }
            _ => {
                let most = *self.one(&[16, 1_000, 100_000]);
                let (byte, more) = (*self.one(&[0, 1, 2, 0xff]), self.below(most));
                bytes.resize(bytes.len() + more, byte);
            }
        }
    }

    fn extreme(&mut self, length: usize) -> i64 {
        let length = i64::try_from(length).unwrap_or(i64::MAX);
        match self.below(3) {
            0 => length + i64::try_from(self.below(5)).unwrap_or(0) - 2,
            _ => *self.one(&EXTREMES),
        }
    }

    /// As an unsigned varint, not always in its shortest form and sometimes too long.
    fn varint(&mut self, length: usize) -> Vec<u8> {
        match self.below(4) {
            0 => vec![0x80, 0x80, 0x80, 0x80, 0x0f],
            1 => vec![0xff, 0xff, 0xff, 0xff, 0x0f],
            2 => vec![0xff; 10],
            _ => {
                let mut rest = (length + 2).saturating_sub(self.below(5));
                let mut varint = Vec::new();
                while rest >= 0x80 {
                    varint.push((rest & 0x7f) as u8 | 0x80);
                    rest >>= 7;
                }
                varint.push(rest as u8);
                varint
            }
        }
    }
}

/// Overwrites what is there.
fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    let room = bytes.len().saturating_sub(at).min(what.len());
    bytes[at..at + room].copy_from_slice(&what[..room]);
}
