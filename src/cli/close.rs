//! `flumen close`: a business day, sealed once.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::Args;
use serde::Serialize;

use super::output::{print_json, print_line, print_told};
use super::run::stop_on_signals;
use super::{Format, Globals, Inputs, load};
use crate::clock::FixedClock;
use crate::close::{Closed, Job, Outcome, page, text};
use crate::engine::{self, Deps};
use crate::error::{Error, Result};
use crate::observe::{Observer, Progress, grouped};
use crate::pipeline::{BusinessDay, Environment, Pipeline, units};

/// `flumen close FILE --date D`.
#[derive(Debug, Args)]
pub(crate) struct CloseVerb {
    /// The pipeline file, which says SET flumen.close_zone
    file: PathBuf,
    /// The business date, in the file's zone
    #[arg(long, value_name = "YYYY-MM-DD")]
    date: String,
    /// How long records of the day are waited for after its end
    #[arg(long, value_name = "DURATION", default_value = "2 hours", value_parser = units::duration)]
    lateness: Duration,
    /// Say what would be closed, and commit nothing
    #[arg(long)]
    dry_run: bool,
    /// Close a date anew that is closed
    #[arg(long, requires = "why")]
    reopen: bool,
    /// Why it is closed anew; it is kept with the closing
    #[arg(long, value_name = "TEXT", requires = "reopen")]
    why: Option<String>,
    /// Also write a report as a web page
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// What time it is (RFC 3339); otherwise that of the machine
    #[arg(long, value_name = "TIME", value_parser = super::replay::time)]
    clock: Option<DateTime<Utc>>,
    #[command(flatten)]
    inputs: Inputs,
}

/// What a scheduler reads.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    closed: &'a Closed,
    /// Rows that came too late for it.
    adjustments: u64,
    /// What does not add up: then nothing was closed.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    differences: &'a [String],
    /// Of a dry run only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
}

/// Says on stderr what the stream does: stdout is the closing's.
struct Aside(Format);

impl Observer for Aside {
    fn progress(&self, progress: &Progress) {
        if self.0 == Format::Text {
            print_told(&progress.to_string());
        }
    }

    fn note(&self, text: &str) {
        print_told(text);
    }
}

impl CloseVerb {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        let mut environment = load::environment(&load::root(globals)?, &self.inputs);
        if let Some(name) = ["date", "day_start", "day_end"].iter().find(|name| environment.params.contains_key(**name))
        {
            return Err(Error::invalid(format!("--param {name}: the close gives it; say --date and leave it out")));
        }
        environment.params.insert("date".to_owned(), self.date.clone());
        let pipeline = self.pipeline(&environment).await?;
        let day = pipeline.day.ok_or_else(|| self.without_zone())?;
        if self.why.as_ref().is_some_and(|why| why.trim().is_empty()) {
            return Err(Error::invalid("--why: say why the date is closed anew"));
        }
        let report = self.report.as_ref().map(|report| environment.resolve(&report.to_string_lossy()));
        let observer = Arc::new(Aside(globals.output)) as Arc<dyn Observer>;
        let patience = Some(pipeline.settings.broker_timeout);
        let deps = load::deps(&pipeline, observer, patience)?;
        let deps = match self.clock {
            Some(clock) => Deps { clock: Arc::new(FixedClock(clock)), ..deps },
            None => deps,
        };
        let (stopper, stop) = engine::stopper();
        let (lateness, dry_run) = (self.lateness, self.dry_run);
        let job = Job { pipeline, deps, day, lateness, dry_run, reopen: self.why.filter(|_| self.reopen), stop };
        let outcome = tokio::select! {
            outcome = job.close() => outcome?,
            killed = stop_on_signals(stopper) => return killed,
        };
        told(globals.output, &outcome, self.dry_run)?;
        if let Some(report) = report {
            let failed = |e| Error::unavailable(format!("--report {}: {e}", report.display()));
            std::fs::write(&report, page(&outcome)).map_err(failed)?;
        }
        match refusal(&outcome) {
            Some(text) => Err(Error::violated(text)),
            None => Ok(()),
        }
    }
}

/// What is told when a day does not add up.
fn refusal(outcome: &Outcome) -> Option<String> {
    let Outcome { closed, differences, .. } = outcome;
    (!differences.is_empty()).then(|| {
        format!(
            "{} does not add up:\n  {}\nNothing was committed. Find out where the difference comes from; mend the data \
             or the query, then close the day again",
            closed.date,
            differences.join("\n").replace('\n', "\n  ")
        )
    })
}

impl CloseVerb {
    /// The file with its date. One that has no zone has no such parameter, and that is what is told of it.
    async fn pipeline(&self, environment: &Environment) -> Result<Arc<Pipeline>> {
        if let Ok(pipeline) = load::load(environment, &self.file).await? {
            return Ok(Arc::new(pipeline));
        }
        let mut dateless = environment.clone();
        dateless.params.remove("date");
        match load::load(&dateless, &self.file).await? {
            Ok(pipeline) => match pipeline.settings.close_zone {
                Some(zone) => match BusinessDay::new(&self.date, &zone) {
                    Err(why) => Err(Error::invalid(format!("--date: {why}"))),
                    Ok(_) => load::pipeline(environment, &self.file).await,
                },
                None => Err(self.without_zone()),
            },
            Err(faults) => Err(faults.into()),
        }
    }

    fn without_zone(&self) -> Error {
        Error::invalid(format!(
            "{}: it has no zone for its days; write SET flumen.close_zone = 'America/New_York'",
            self.file.display()
        ))
    }
}

/// The closing on stdout, what is new on stderr.
fn told(format: Format, outcome: &Outcome, dry_run: bool) -> Result<()> {
    match format {
        Format::Json => {
            let Outcome { closed, adjustments, differences, .. } = outcome;
            print_json(&Line { closed, adjustments: *adjustments, differences, dry_run })?;
        }
        Format::Text if outcome.differences.is_empty() => print_line(&text(outcome)),
        Format::Text => {}
    }
    let open: Vec<_> = outcome.open.iter().map(|(day, rows)| format!("{day} ({rows})")).collect();
    if !open.is_empty() && !outcome.before {
        print_told(&format!("earlier days have rows and are not closed: {}", open.join(", ")));
    }
    if dry_run {
        print_told("a dry run: nothing was committed");
    }
    if outcome.before {
        print_told("it was closed before: nothing is changed");
    }
    if outcome.behind > 0 {
        print_told(&format!("{} records are not landed yet: a close lands them first", grouped(outcome.behind)));
    }
    for (date, rows) in &outcome.late {
        print_told(&format!("{} late rows of {date}, which is closed, are written to its adjustments", grouped(*rows)));
    }
    Ok(())
}
