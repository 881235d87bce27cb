//! The signal that the gateway shuts down.

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;

/// Says that the gateway shuts down. Cheap to clone; whoever has a clone can say it.
#[derive(Debug, Clone)]
pub(super) struct Drain(watch::Sender<bool>);

impl Drain {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// It shuts down from here on.
    pub(super) fn start(&self) {
        self.0.send_replace(true);
    }

    /// Whether it shuts down.
    pub(super) fn is_on(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it shuts down.
    pub(super) fn signal(&self) -> BoxFuture<'static, ()> {
        let mut receiver = self.0.subscribe();
        // An error says that nobody is left who could say it: that is a shutdown too.
        async move { drop(receiver.wait_for(|is_on| *is_on).await) }.boxed()
    }
}
