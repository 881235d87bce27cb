//! Places at which a test makes the process fail, by name.
//!
//! A case of a pipeline (`flumen test`) has a run end at one of [`KILL_POINTS`], as if the machine had lost its power:
//! see [`Snare`]. The rest exists with the cargo feature `faults` only, which no release has:
//! `FLUMEN_FAULT=NAME:HIT:ACTION` fails at the HIT-th time that the point NAME is passed, once: `abort` ends the
//! process at once, `kill` has it killed by the signal 9, `error` makes the step fail, `away` makes it fail as a store
//! does that is away for a moment, `delay` holds it up. `FLUMEN_FAULT_MARK` names a file that is written then, so that
//! a test knows of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The points of a micro-batch, in the order in which it passes them.
pub const KILL_POINTS: &[&str] = &[
    "plan",
    "fetch",
    "decode",
    "execute",
    "write",
    "letters.write",
    "quarantine.write",
    "close",
    "letters.close",
    "quarantine.close",
    "commit.before",
    "put.before",
    "put.after",
    "commit.after",
    "side.before",
    "side.after",
];

/// Whether a snare is laid anywhere: all that a run asks that nobody tests.
static LAID: AtomicBool = AtomicBool::new(false);
static SNARE: Mutex<Option<Arc<Trap>>> = Mutex::new(None);

#[derive(Debug)]
struct Trap {
    point: String,
    sprung: AtomicBool,
    told: Notify,
}

/// A point that holds for ever whoever passes it first. There is one in the process at a time.
#[derive(Debug)]
pub struct Snare(Arc<Trap>);

impl Snare {
    /// Lays it at a point.
    pub fn lay(point: &str) -> Self {
        let trap = Arc::new(Trap { point: point.to_owned(), sprung: AtomicBool::new(false), told: Notify::new() });
        *SNARE.lock() = Some(Arc::clone(&trap));
        LAID.store(true, Ordering::Release);
        Self(trap)
    }

    /// Waits until somebody is held.
    pub async fn sprung(&self) {
        self.0.told.notified().await;
    }
}

impl Drop for Snare {
    fn drop(&mut self) {
        LAID.store(false, Ordering::Release);
        *SNARE.lock() = None;
    }
}

async fn be_held(name: &'static str) {
    let trap = SNARE.lock().clone();
    if let Some(trap) = trap.filter(|trap| trap.point == name && !trap.sprung.swap(true, Ordering::AcqRel)) {
        trap.told.notify_one();
        std::future::pending::<()>().await;
    }
}

/// Passes a point.
///
/// # Errors
/// `Unavailable` when a fault was asked for here.
#[inline]
pub async fn pass(name: &'static str) -> crate::error::Result<()> {
    if LAID.load(Ordering::Acquire) {
        be_held(name).await;
    }
    #[cfg(feature = "faults")]
    armed::pass(name).await?;
    Ok(())
}

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
