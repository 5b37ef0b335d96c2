//! How a partition of the source is written to, besides its rate. Pure.

/// A log that was seen to grow counts as written to, slowly at least, until nothing came for so long.
pub(super) const QUIET_AFTER_MS: i64 = 30_000;
/// What came at once is remembered for four pauses, and for as long again; never for less or more than this.
const HABIT_MS_MIN: i64 = 60_000;
const HABIT_MS_MAX: i64 = 600_000;
/// A mean isn't taken over less.
const MEAN_MS_MIN: i64 = 10_000;
const HOUR_MS: u64 = 3_600_000;

/// How a partition is written to, besides its rate: a rate is a mean, and who writes a batch every minute has hardly
/// any until the next one comes. Nothing is kept of one that is quiet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Habit {
    newer: Writes,
    older: Writes,
    /// What came at the last look.
    pub(super) came: i64,
}

/// What was seen of a partition in some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Writes {
    /// Since when, milliseconds since the epoch; 0 while there is none.
    since_ms: i64,
    /// Records that came in all.
    records: i64,
    /// The most that came from a look to the one after the next: what comes at once may lie on both sides of one.
    at_once: i64,
    /// The longest that nothing came in between.
    pause_ms: i64,
}

impl Writes {
    const NONE: Self = Self {
        since_ms: 0,
        records: 0,
        at_once: 0,
        pause_ms: 0,
    };

    /// What came first in a time that nobody knows; or, behind a pause that isn't too long, what came in that.
    fn begun(came: i64, at_once: i64, pause_ms: i64, now_ms: i64) -> Self {
        let is_known = (1..=HABIT_MS_MAX).contains(&pause_ms);
        let (pause_ms, records) = if is_known { (pause_ms, came) } else { (0, 0) };
        Self {
            since_ms: now_ms - pause_ms,
            records,
            at_once,
            pause_ms,
        }
    }
}

impl Habit {
    /// Nothing was seen of it.
    pub(super) const NONE: Self = Self {
        newer: Writes::NONE,
        older: Writes::NONE,
        came: 0,
    };

    /// What the process before had seen at most.
    pub(super) fn known(at_once: u64) -> Self {
        let older = Writes {
            at_once: i64::try_from(at_once).unwrap_or(i64::MAX),
            ..Writes::NONE
        };
        Self {
            older,
            ..Self::NONE
        }
    }

    /// So many records came, at `now_ms`, after such a pause.
    pub(super) fn noted(self, came: i64, pause_ms: i64, now_ms: i64) -> Self {
        let at_once = self.came.saturating_add(came);
        if self.newer.since_ms == 0 {
            let newer = Writes::begun(came, at_once, pause_ms, now_ms);
            return Self {
                newer,
                came,
                ..self
            };
        }
        let newer = Writes {
            since_ms: self.newer.since_ms,
            records: self.newer.records.saturating_add(came),
            at_once: self.newer.at_once.max(at_once),
            pause_ms: self.newer.pause_ms.max(pause_ms),
        };
        let noted = Self {
            newer,
            came,
            ..self
        };
        let kept_ms = (4 * noted.pause_ms()).clamp(HABIT_MS_MIN, HABIT_MS_MAX);
        if now_ms - newer.since_ms < kept_ms {
            return noted;
        }
        Self {
            newer: Writes {
                since_ms: now_ms,
                ..Writes::NONE
            },
            older: newer,
            came,
        }
    }

    /// The most that came in two looks.
    pub(super) fn at_once(&self) -> i64 {
        self.newer.at_once.max(self.older.at_once)
    }

    /// The longest that nothing came in between.
    fn pause_ms(&self) -> i64 {
        self.newer.pause_ms.max(self.older.pause_ms)
    }

    /// For how long nothing may come until it is quiet.
    pub(super) fn quiet_after_ms(&self) -> i64 {
        (2 * self.pause_ms()).clamp(QUIET_AFTER_MS, 2 * HABIT_MS_MAX)
    }

    /// What comes in an hour, from the first to the last time when something came, `last_ms`. What comes at once may have
    /// come once more in that time, had it begun a little earlier.
    pub(super) fn per_hour(&self, last_ms: i64) -> u64 {
        let since_ms = match self.older.since_ms {
            0 => self.newer.since_ms,
            since_ms => since_ms,
        };
        if since_ms == 0 || last_ms <= since_ms {
            return 0;
        }
        let records = self.older.records.saturating_add(self.newer.records);
        let records = records.saturating_add(self.at_once());
        let an_hour = u64::try_from(records).unwrap_or(0).saturating_mul(HOUR_MS);
        an_hour.div_ceil((last_ms - since_ms).max(MEAN_MS_MIN).unsigned_abs())
    }
}
