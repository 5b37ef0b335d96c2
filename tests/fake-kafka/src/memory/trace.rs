//! What happened: a number that any difference changes, and the last of it in words.

use std::collections::VecDeque;
use std::fmt;

use kafka_protocol::messages::ApiKey;

/// So many lines are kept.
const LINES: usize = 400;
const HEAD_BYTES: usize = 12;

/// What went over the network, and what else the world did.
#[derive(Clone, Default)]
pub struct Trace {
    hash: u64,
    events: u64,
    lines: VecDeque<(i64, String)>,
}

impl Trace {
    /// The same for two runs exactly if the same bytes arrived at the same times.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many things happened.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The last `count` of them, oldest first, with the world's time.
    pub fn last(&self, count: usize) -> Vec<String> {
        let skipped = self.lines.len().saturating_sub(count);
        let line = |(at_us, text): &(i64, String)| {
            let (s, us) = (at_us.div_euclid(1_000_000), at_us.rem_euclid(1_000_000));
            format!("{s:>5}.{us:06}  {text}")
        };
        self.lines.iter().skip(skipped).map(line).collect()
    }

    /// Bytes arrived somewhere.
    pub(super) fn note(&mut self, at_us: i64, link: u64, bytes: &[u8]) {
        self.mix(at_us.cast_unsigned());
        self.mix(link);
        self.mix(u64::from(crc32c::crc32c(bytes)));
        self.events += 1;
    }

    /// Something happened, in words.
    pub(crate) fn tell(&mut self, at_us: i64, text: impl FnOnce() -> String) {
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        self.lines.push_back((at_us, text()));
    }

    /// Something happened that counts for the number too.
    pub(crate) fn happened(&mut self, at_us: i64, text: String) {
        self.note(at_us, u64::MAX, text.as_bytes());
        self.tell(at_us, || text);
    }

    fn mix(&mut self, value: u64) {
        self.hash = (self.hash ^ value)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29);
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} events, hash {:016x}", self.events, self.hash)
    }
}

/// Finds where frames begin in a stream.
#[derive(Default)]
pub(super) struct Frames {
    head: Vec<u8>,
    left: usize,
}

/// The name of an API.
pub(super) fn api(key: i16) -> String {
    ApiKey::try_from(key).map_or_else(|()| format!("API {key}"), |key| format!("{key:?}"))
}

/// The begin of a frame: its length, then a request's or an answer's header.
pub(super) struct Frame([u8; HEAD_BYTES]);

impl Frames {
    /// The frames whose begin is in these bytes.
    pub(super) fn take(&mut self, mut bytes: &[u8]) -> Vec<Frame> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            if self.left > 0 {
                let passed = self.left.min(bytes.len());
                self.left -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            let taken = (HEAD_BYTES - self.head.len()).min(bytes.len());
            self.head.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            // An answer may be shorter than a request's header.
            let length = self
                .head
                .first_chunk::<4>()
                .map(|it| u32::from_be_bytes(*it) as usize);
            let Some(length) = length else { break };
            let wanted = HEAD_BYTES.min(4 + length);
            if self.head.len() < wanted {
                continue;
            }
            let over = self.head.len() - wanted;
            if over > 0 {
                // The next frame has begun already.
                let rest = self.head.split_off(wanted);
                found.extend(self.found());
                found.extend(self.take(&rest));
                continue;
            }
            self.left = (4 + length).saturating_sub(HEAD_BYTES);
            found.extend(self.found());
        }
        found
    }

    fn found(&mut self) -> Option<Frame> {
        let mut head = [0; HEAD_BYTES];
        let length = self.head.len().min(HEAD_BYTES);
        head[..length].copy_from_slice(&self.head[..length]);
        self.head.clear();
        Some(Frame(head))
    }
}

impl Frame {
    fn number(&self, at: usize, bytes: usize) -> i32 {
        let bytes = &self.0[at..at + bytes];
        bytes
            .iter()
            .fold(0, |sum, byte| (sum << 8) | i32::from(*byte))
    }

    /// What a request asks.
    pub(super) fn api(&self) -> i16 {
        i16::try_from(self.number(4, 2)).unwrap_or(-1)
    }

    /// All of the frame.
    pub(super) fn bytes(&self) -> u64 {
        4 + u64::from(self.number(0, 4).unsigned_abs())
    }

    pub(super) fn request_number(&self) -> i32 {
        self.number(8, 4)
    }

    pub(super) fn answer_number(&self) -> i32 {
        self.number(4, 4)
    }

    pub(super) fn as_request(&self) -> String {
        format!(
            "{} v{} #{}, {} bytes",
            api(self.api()),
            self.number(6, 2),
            self.request_number(),
            self.number(0, 4)
        )
    }

    pub(super) fn as_answer(&self) -> String {
        format!(
            "answer #{}, {} bytes",
            self.answer_number(),
            self.number(0, 4)
        )
    }
}
