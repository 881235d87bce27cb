//! What the hub tells all its subscribers at once.

use std::sync::Arc;

use tokio::sync::watch;

use crate::subscribe::ending::Ending;

/// What subscribers look at when they are woken.
#[derive(Debug, Clone, Default)]
pub(super) struct Signal {
    /// How often subscriptions were ended. One that began before the last time has ended.
    pub(super) epoch: u64,
    /// Why they ended the last time.
    pub(super) ending: Option<Arc<Ending>>,
    /// No new ones begin.
    pub(super) is_draining: bool,
}

/// Wakes subscribers.
#[derive(Debug)]
pub(super) struct Bell(watch::Sender<Signal>);

impl Bell {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(Signal::default()))
    }

    /// There is more in the ring.
    pub(super) fn ring(&self) {
        self.0.send_modify(|_| {});
    }

    /// All subscriptions end.
    pub(super) fn end(&self, ending: Ending, for_good: bool) {
        self.0.send_modify(|signal| {
            signal.epoch += 1;
            signal.ending = Some(Arc::new(ending));
            signal.is_draining |= for_good;
        });
    }

    pub(super) fn listen(&self) -> watch::Receiver<Signal> {
        self.0.subscribe()
    }

    pub(super) fn is_draining(&self) -> bool {
        self.0.borrow().is_draining
    }
}
