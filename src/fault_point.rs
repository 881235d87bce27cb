//! Places at which a test makes the process fail, by name. They exist with the cargo feature `faults` only, which no
//! release has: without it a point is nothing.
//!
//! `FLUMEN_FAULT=NAME:HIT:ACTION` fails at the HIT-th time that the point NAME is passed, once: `abort` ends the
//! process at once, `kill` has it killed by the signal 9, `error` makes the step fail, `away` makes it fail as a store
//! does that is away for a moment, `delay` holds it up. `FLUMEN_FAULT_MARK` names a file that is written then, so that
//! a test knows of it.

/// Passes a point.
///
/// # Errors
/// `Unavailable` when a fault was asked for here.
#[cfg(not(feature = "faults"))]
#[inline(always)]
#[allow(clippy::unused_async, reason = "with the feature it waits")]
pub async fn pass(_name: &'static str) -> crate::error::Result<()> {
    Ok(())
}

#[cfg(feature = "faults")]
pub use armed::pass;

#[cfg(feature = "faults")]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use crate::error::{Error, Result};

    /// How long `delay` holds a step up.
    const DELAY: Duration = Duration::from_millis(150);

    struct Fault {
        name: String,
        hit: u64,
        action: String,
        passed: AtomicU64,
    }

    static FAULT: OnceLock<Option<Fault>> = OnceLock::new();

    fn from_environment() -> Option<Fault> {
        let text = std::env::var("FLUMEN_FAULT").ok()?;
        let mut parts = text.rsplitn(3, ':').map(str::to_string);
        let (action, hit, name) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
        Some(Fault { name, hit, action, passed: AtomicU64::new(0) })
    }

    /// Passes a point.
    ///
    /// # Errors
    /// `Unavailable` when a fault was asked for here.
    pub async fn pass(name: &'static str) -> Result<()> {
        let Some(fault) = FAULT.get_or_init(from_environment) else { return Ok(()) };
        if fault.name != name || fault.passed.fetch_add(1, Ordering::SeqCst) + 1 != fault.hit {
            return Ok(());
        }
        if let Ok(mark) = std::env::var("FLUMEN_FAULT_MARK") {
            std::fs::write(mark, name).map_err(|e| Error::unavailable(format!("no mark of a fault: {e}")))?;
        }
        match fault.action.as_str() {
            "abort" => std::process::abort(),
            "kill" => {
                let own = std::process::id().to_string();
                let killed = std::process::Command::new("kill").args(["-9", &own]).status();
                Err(Error::unavailable(format!("a fault was to kill the process: {killed:?}")))
            }
            "delay" => {
                tokio::time::sleep(DELAY).await;
                Ok(())
            }
            "away" => Err(Error::unavailable(format!("a fault was injected at {name}: the store is away"))
                .caused_by(std::io::Error::from(std::io::ErrorKind::ConnectionRefused))),
            _ => Err(Error::unavailable(format!("a fault was injected at {name}: run it again"))),
        }
    }
}
