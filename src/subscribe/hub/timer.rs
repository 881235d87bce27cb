//! Whether a time is over, by the runtime's clock: nobody reads the time of day.

use std::pin::Pin;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::time::{Sleep, sleep};

/// A time that began when it was made.
#[derive(Debug)]
pub(super) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    pub(super) fn new(time: Duration) -> Self {
        let mut timer = Self(Some(Box::pin(sleep(time))));
        // It runs from the first time that it is looked at.
        timer.is_over();
        timer
    }

    pub(super) fn is_over(&mut self) -> bool {
        if self.0.as_mut().is_some_and(|sleep| sleep.now_or_never().is_some()) {
            self.0 = None;
        }
        self.0.is_none()
    }
}

#[cfg(test)]
#[cfg(feature = "faults")]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_over_when_its_time_is() {
        let mut timer = Timer::new(Duration::from_millis(50));
        assert!(!timer.is_over());
        sleep(Duration::from_millis(40)).await;
        assert!(!timer.is_over());
        sleep(Duration::from_millis(11)).await;
        assert!(timer.is_over() && timer.is_over());
    }
}
