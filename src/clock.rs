//! Time and randomness. They are arguments everywhere else (`clippy.toml` bans the calls), so that the same recording
//! with the same clock gives the same rows.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use uuid::Uuid;

/// Where the time of day and the identity of an attempt come from.
pub trait Clock: fmt::Debug + Send + Sync {
    /// The time of day. A micro-batch reads it once, when it is planned.
    fn now(&self) -> DateTime<Utc>;

    /// A new identity, never given out before: the id of an attempt to commit.
    fn new_id(&self) -> Uuid;
}

/// The machine's clock and random source.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the one place that reads the time")]
    fn now(&self) -> DateTime<Utc> {
        DateTime::<Utc>::from(std::time::SystemTime::now())
    }

    #[allow(clippy::disallowed_methods, reason = "this is the one place that draws random ids")]
    fn new_id(&self) -> Uuid {
        Uuid::new_v4()
    }
}

/// A clock that stands still: for replay and tests.
#[derive(Debug, Clone, Copy)]
pub struct FixedClock(pub DateTime<Utc>);

impl Clock for FixedClock {
    fn now(&self) -> DateTime<Utc> {
        self.0
    }

    fn new_id(&self) -> Uuid {
        SystemClock.new_id()
    }
}

/// A clock that stands still until it is set.
#[derive(Debug, Default)]
pub struct SetClock(Mutex<DateTime<Utc>>);

impl SetClock {
    /// It is `time` from here on.
    pub fn set(&self, time: DateTime<Utc>) {
        *self.0.lock() = time;
    }

    /// It is `by` later from here on.
    pub fn advance(&self, by: Duration) {
        *self.0.lock() += by;
    }
}

impl Clock for SetClock {
    fn now(&self) -> DateTime<Utc> {
        *self.0.lock()
    }

    fn new_id(&self) -> Uuid {
        SystemClock.new_id()
    }
}

/// The machine's clock behind the trait.
pub fn system() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

/// Measures how long something took; monotonic, for deadlines and durations only, never for rows.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    #[allow(clippy::disallowed_methods, reason = "this is the one place that reads the time")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The time since the start.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_clock_stands_still_but_ids_differ() {
        let clock = FixedClock(DateTime::UNIX_EPOCH);
        assert_eq!(clock.now(), clock.now());
        assert_ne!(clock.new_id(), clock.new_id());
    }
}
