//! What a run prints: a live line on a terminal, plain lines otherwise, or one JSON object a line.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::json::LineDelimitedWriter;
use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;

use super::Format;
use crate::clock::Stopwatch;
use crate::error::{Error, Result};
use crate::observe::{Observer, Progress, grouped};

/// How often a live line is drawn anew.
const REDRAW: Duration = Duration::from_millis(200);

/// Prints each micro-batch in the form that was asked for.
pub(crate) struct Printer {
    form: Form,
}

enum Form {
    Json,
    Lines,
    Live { bar: ProgressBar, totals: Mutex<Totals>, watch: Stopwatch },
}

#[derive(Default)]
struct Totals {
    records: u64,
    rows: u64,
}

impl Printer {
    /// A printer for stdout; the live line goes to the terminal of stderr.
    pub(crate) fn new(format: Format) -> Self {
        let live = io::stdout().is_terminal() && io::stderr().is_terminal();
        let form = match format {
            Format::Json => Form::Json,
            Format::Text if live => {
                let bar = ProgressBar::new_spinner();
                bar.set_style(ProgressStyle::default_spinner());
                bar.enable_steady_tick(REDRAW);
                Form::Live { bar, totals: Mutex::default(), watch: Stopwatch::start() }
            }
            Format::Text => Form::Lines,
        };
        Self { form }
    }

    /// Takes the live line away; what it counted stays.
    pub(crate) fn finish(&self) {
        if let Form::Live { bar, totals, watch } = &self.form {
            bar.finish_and_clear();
            let totals = totals.lock();
            let (records, rows) = (grouped(totals.records), grouped(totals.rows));
            print_line(&format!("{records} records, {rows} rows in {:.1} s", watch.elapsed().as_secs_f64()));
        }
    }
}

/// How far a work of known size is: a live line on a terminal, nothing otherwise.
pub(crate) struct Meter {
    bar: ProgressBar,
    /// Draws until it is dropped.
    drawer: Option<tokio::task::JoinHandle<()>>,
}

impl Meter {
    /// Asks `state` again and again for the parts of `all` that are done, and the records among them.
    pub(crate) fn start<S: Send + Sync + 'static>(
        format: Format,
        all: u64,
        state: Arc<S>,
        done: impl Fn(&S) -> (u64, u64) + Send + 'static,
    ) -> Self {
        let bar = ProgressBar::new(all);
        if format == Format::Json || !io::stderr().is_terminal() {
            return Self { bar, drawer: None };
        }
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent}%  {msg}  ETA {eta}") {
            bar.set_style(style);
        }
        let (line, watch) = (bar.clone(), Stopwatch::start());
        let drawer = tokio::spawn(async move {
            loop {
                let (parts, records) = done(&state);
                let rate = records as f64 / watch.elapsed().as_secs_f64().max(1e-3);
                line.set_position(parts);
                line.set_message(format!("{} records  {} records/s", grouped(records), grouped(rate as u64)));
                tokio::time::sleep(REDRAW).await;
            }
        });
        Self { bar, drawer: Some(drawer) }
    }

    /// Takes the line away.
    pub(crate) fn finish(self) {
        if let Some(drawer) = self.drawer {
            drawer.abort();
            self.bar.finish_and_clear();
        }
    }
}

impl Observer for Printer {
    fn progress(&self, progress: &Progress) {
        match &self.form {
            Form::Json => match serde_json::to_string(progress) {
                Ok(line) => print_line(&line),
                Err(error) => tracing::error!(%error, "a progress record does not print"),
            },
            Form::Lines => print_line(&progress.to_string()),
            Form::Live { bar, totals, watch } => {
                let mut totals = totals.lock();
                totals.records += progress.records.read;
                totals.rows += progress.rows.written;
                let rate = totals.records as f64 / watch.elapsed().as_secs_f64().max(1e-3);
                let eta = (progress.lag as f64 / rate.max(1.0)).ceil() as u64;
                bar.set_message(format!(
                    "{}  v{}  {} records  {} rows  {} records/s  lag {}  ETA {eta} s",
                    progress.name,
                    progress.version,
                    grouped(totals.records),
                    grouped(totals.rows),
                    grouped(rate as u64),
                    grouped(progress.lag),
                ));
            }
        }
    }

    fn note(&self, text: &str) {
        match &self.form {
            Form::Live { bar, .. } => bar.suspend(|| print_told(text)),
            _ => print_told(text),
        }
    }
}

/// One line on stdout. A reader that has gone away is not an error of ours.
pub(crate) fn print_line(line: &str) {
    let mut stdout = io::stdout().lock();
    drop(writeln!(stdout, "{line}").and_then(|()| stdout.flush()));
}

/// The same, unless what failed is that the reader has gone away: that is not an error of ours.
pub(crate) fn unless_gone(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// What Arrow writes to stdout. A reader that has gone away is not an error of ours.
///
/// # Errors
/// `Unavailable` when a row cannot be written as `form`.
pub(crate) fn print_rows(form: &str, write: impl FnOnce(io::StdoutLock<'_>) -> Result<(), ArrowError>) -> Result<()> {
    let written = match write(io::stdout().lock()) {
        Err(ArrowError::IoError(_, error)) => unless_gone(Err(error)).map_err(ArrowError::from),
        written => written,
    };
    written.map_err(|e| Error::unavailable(format!("the rows do not print as {form}: {e}")))
}

/// Rows as JSON on stdout, one object a line.
///
/// # Errors
/// `Unavailable` when a row cannot be written as JSON.
pub(crate) fn print_json_rows(batches: &[&RecordBatch]) -> Result<()> {
    print_rows("JSON", |stdout| {
        let mut writer = LineDelimitedWriter::new(stdout);
        writer.write_batches(batches)?;
        writer.finish()
    })
}

/// One line on stderr, for people. A reader that has gone away is not an error of ours.
pub(crate) fn print_told(line: &str) {
    drop(writeln!(io::stderr().lock(), "{line}"));
}

/// `value` as one line of JSON on stdout.
///
/// # Errors
/// `Unavailable` when it cannot be written as JSON.
pub(crate) fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let line = serde_json::to_string(value).map_err(|e| Error::unavailable(format!("does not print as JSON: {e}")))?;
    print_line(&line);
    Ok(())
}
