//! Waiting for a store that fails: told once when it begins and once when it is over, with growing pauses.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::{is_passing, is_refusal};
use crate::clock::Stopwatch;
use crate::error::{Error, ErrorKind};

/// The pause after a failure; each further one is twice as long, up to [`LAST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LAST_PAUSE: Duration = Duration::from_secs(10);

/// How one query waits for the stores of its tables.
pub struct Absence {
    who: String,
    /// `None`: for ever.
    limit: Option<Duration>,
    away: Mutex<Option<Away>>,
    /// Whether the stores have worked before.
    worked: AtomicBool,
}

/// A store does not work.
struct Away {
    since: Stopwatch,
    /// The pauses made so far.
    waited: Duration,
    pause: Duration,
}

impl fmt::Debug for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Absence").field("who", &self.who).finish_non_exhaustive()
    }
}

impl Absence {
    /// `who` waits, up to `limit` from the first failure after a success on.
    pub fn new(who: impl Into<String>, limit: Option<Duration>) -> Self {
        Self { who: who.into(), limit, away: Mutex::new(None), worked: AtomicBool::new(false) }
    }

    /// How long to wait before the next try; `None` when `error` is nothing to wait for, or the limit is over. The
    /// first failure since the last success is told.
    pub fn failed(&self, error: &Error) -> Option<Duration> {
        if !is_passing(error) {
            return None;
        }
        let mut away = self.away.lock();
        let is_first = away.is_none();
        let now =
            away.get_or_insert_with(|| Away { since: Stopwatch::start(), waited: Duration::ZERO, pause: FIRST_PAUSE });
        if self.limit.is_some_and(|limit| now.since.elapsed().max(now.waited) >= limit) {
            return None;
        }
        let pause = now.pause;
        now.waited += pause;
        now.pause = (pause * 2).min(LAST_PAUSE);
        if is_first {
            tracing::warn!("{}: waiting, it goes on by itself when that is mended: {error}", self.who);
        } else {
            tracing::debug!("{}: still waiting: {error}", self.who);
        }
        Some(pause)
    }

    /// The stores work. The first success since a failure is told.
    pub fn back(&self) {
        self.worked.store(true, Ordering::Relaxed);
        if let Some(away) = self.away.lock().take() {
            tracing::warn!("{}: the store works again after {:.1} s", self.who, away.since.elapsed().as_secs_f64());
        }
    }

    /// The error that ends the waiting, with how long it took. A store that no longer lets us in is one that fails: it
    /// is worth another start.
    pub fn told(&self, error: Error) -> Error {
        if self.worked.load(Ordering::Relaxed) && is_refusal(&error) {
            return error.of_kind(ErrorKind::Unavailable);
        }
        match (self.limit, &*self.away.lock()) {
            (Some(limit), Some(_)) if is_passing(&error) => error.within(format!(
                "{}: the store did not work for {:.1} s (flumen.store_timeout)",
                self.who,
                limit.as_secs_f64()
            )),
            _ => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Error {
        Error::unavailable("no space").caused_by(std::io::Error::from(std::io::ErrorKind::StorageFull))
    }

    #[test]
    fn pauses_grow_until_it_works_again() {
        let absence = Absence::new("query q", None);
        let pauses: Vec<_> = (0..8).filter_map(|_| absence.failed(&full())).map(|pause| pause.as_millis()).collect();
        assert_eq!(pauses, [200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
        absence.back();
        assert_eq!(absence.failed(&full()), Some(FIRST_PAUSE));
    }

    #[test]
    fn a_limit_ends_it_and_other_errors_are_not_waited_for() {
        let absence = Absence::new("query q", Some(Duration::from_millis(500)));
        assert_eq!(absence.failed(&Error::unavailable("another writer was faster")), None);
        let pauses = (0..8).map_while(|_| absence.failed(&full())).count();
        assert_eq!(pauses, 2, "0.2 s and 0.4 s");
        let told = absence.told(full());
        assert!(told.message().contains("0.5 s (flumen.store_timeout): no space"), "{told}");
        assert_eq!(Absence::new("query q", Some(Duration::ZERO)).failed(&full()), None);
    }

    #[test]
    fn a_store_that_lets_us_in_no_longer_is_worth_another_start() {
        let forbidden = || Error::invalid("no").caused_by(std::io::Error::from(std::io::ErrorKind::PermissionDenied));
        let absence = Absence::new("query q", None);
        assert_eq!(absence.told(forbidden()).kind(), ErrorKind::Invalid);
        absence.back();
        assert_eq!(absence.told(forbidden()).kind(), ErrorKind::Unavailable);
        assert_eq!(absence.told(Error::invalid("another table")).kind(), ErrorKind::Invalid);
    }
}
