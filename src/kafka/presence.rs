//! Whether the brokers are there: one line when they go, one when they come back, however many calls fail meanwhile.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Stopwatch;

/// Who watches a cluster and has last seen it.
#[derive(Debug)]
pub struct Presence {
    /// What is watched, for the log lines: the brokers, and what they are asked for.
    what: String,
    /// Since when nothing was heard.
    away: Mutex<Option<Stopwatch>>,
}

impl Presence {
    /// `what` is there until [`Presence::gone`] says otherwise.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), away: Mutex::new(None) }
    }

    /// A call failed because of `reason`. The first one since the last success is logged.
    pub fn gone(&self, reason: &str) {
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        if away.is_none() {
            *away = Some(Stopwatch::start());
            tracing::warn!("{} is away ({reason}): waiting for it", self.what);
        }
    }

    /// A call succeeded. The first one since it went away is logged.
    pub fn back(&self) {
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(since) = away.take() {
            tracing::warn!("{} is back after {:.1} s", self.what, since.elapsed().as_secs_f64());
        }
    }

    /// How long it has been away; `None` while it is there.
    pub fn away_for(&self) -> Option<Duration> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Stopwatch::elapsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_away_from_the_first_failure_to_the_next_success() {
        let presence = Presence::new("broker b:1");
        assert_eq!(presence.away_for(), None);
        presence.gone("no route");
        let first = presence.away_for().unwrap();
        presence.gone("still no route");
        assert!(presence.away_for().unwrap() >= first);
        presence.back();
        assert_eq!(presence.away_for(), None);
    }
}
