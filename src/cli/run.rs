//! `flumen run`: a pipeline continuously, or to the end of its topics.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::output::Printer;
use super::{Globals, Inputs, load};
use crate::engine::{self, RunOptions, Stopper};
use crate::error::{Error, Result};
use crate::observe::Observer;

/// `flumen run FILE`.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The pipeline file
    file: PathBuf,
    /// Read up to the end offsets of the moment it starts, run batch jobs and checks, then exit
    #[arg(long)]
    available_now: bool,
    /// Only this query (a query is named after its sink)
    #[arg(long, value_name = "NAME")]
    query: Option<String>,
    #[command(flatten)]
    inputs: Inputs,
}

impl Run {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        let environment = load::environment(&load::root(globals)?, &self.inputs);
        let pipeline = load::pipeline(&environment, &self.file).await?;
        let patience = self.available_now.then_some(pipeline.settings.broker_timeout);
        let printer = Arc::new(Printer::new(globals.output));
        let deps = load::deps(&pipeline, Arc::clone(&printer) as Arc<dyn Observer>, patience)?;
        let (stopper, stop) = engine::stopper();
        let options = RunOptions { available_now: self.available_now, query: self.query, closes: false };
        let result = tokio::select! {
            result = engine::run(pipeline, options, deps, stop) => result,
            killed = stop_on_signals(stopper) => killed,
        };
        printer.finish();
        result
    }
}

/// The first signal asks for a stop, the second ends the run at once.
pub(crate) async fn stop_on_signals(stopper: Stopper) -> Result<()> {
    signal().await?;
    stopper.stop();
    signal().await?;
    Err(Error::unavailable("stopped at once by a second signal; running it again is safe"))
}

/// Waits for SIGTERM or Ctrl-C.
#[cfg(unix)]
pub(super) async fn signal() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).map_err(|e| Error::unavailable(format!("cannot listen for signals: {e}")));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Waits for Ctrl-C.
#[cfg(not(unix))]
pub(super) async fn signal() -> Result<()> {
    tokio::signal::ctrl_c().await.map_err(|e| Error::unavailable(format!("cannot listen for Ctrl-C: {e}")))
}
