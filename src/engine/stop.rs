//! A request to stop, seen by every loop.

use std::time::Duration;

use tokio::sync::watch;

/// Asks the loops that hold its [`Stop`] to finish the micro-batch under way and return.
#[derive(Debug, Clone)]
pub struct Stopper(watch::Sender<bool>);

/// Learns that a stop was asked for. Every loop has its own copy.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

/// A stopper and what it stops.
pub fn stopper() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    /// Asks for the stop; asking again changes nothing.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Whether a stop was asked for.
    pub fn requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns when a stop is asked for, never when the stopper is gone without asking.
    pub async fn wait(&mut self) {
        if self.0.wait_for(|&stop| stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits for `duration` or a stop, whichever comes first.
    pub async fn sleep(&mut self, duration: Duration) {
        tokio::select! {
            () = self.wait() => {}
            () = tokio::time::sleep(duration) => {}
        }
    }
}
