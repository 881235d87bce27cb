//! `flumen replay`: a pipeline over recordings, without a broker.

use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use clap::Args;

use super::output::{Printer, print_json, print_line, print_told};
use super::run::stop_on_signals;
use super::{Format, Globals, Inputs, load, pair};
use crate::clock::FixedClock;
use crate::engine::{self, Deps, RunOptions};
use crate::error::Result;
use crate::observe::{Observer, grouped};
use crate::replay::{Recordings, Replay};

/// `flumen replay FILE --recording TOPIC=DIR --into DIR`.
#[derive(Debug, Args)]
pub(crate) struct ReplayVerb {
    /// The pipeline file
    file: PathBuf,
    /// The recording of a topic; one for each topic that the file reads
    #[arg(long = "recording", value_name = "TOPIC=DIR", value_parser = pair)]
    recordings: Vec<(String, String)>,
    /// The directory of the tables, by their names in the file; it has to be empty
    #[arg(long, value_name = "DIR")]
    into: PathBuf,
    /// Records of a topic in a micro-batch at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    batch_rows: Option<u64>,
    /// Cut micro-batches by chance, in the same way for the same number: the tables must not change
    #[arg(long, value_name = "SEED")]
    cuts: Option<u64>,
    /// What now() is (RFC 3339); otherwise when the last record was sent
    #[arg(long, value_name = "TIME", value_parser = time)]
    clock: Option<DateTime<Utc>>,
    /// A lookup that lies elsewhere: a Delta table, or a CSV, JSON or Parquet file
    #[arg(long = "table", value_name = "NAME=PATH", value_parser = pair)]
    tables: Vec<(String, String)>,
    #[command(flatten)]
    inputs: Inputs,
}

impl ReplayVerb {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        let mut environment = load::environment(&load::root(globals)?, &self.inputs);
        environment.tables = self.tables.into_iter().collect();
        let pipeline = load::pipeline(&environment, &self.file).await?;
        let dirs = self.recordings.into_iter().map(|(topic, dir)| (topic, environment.resolve(&dir)));
        let recordings = Recordings::open(&dirs.collect::<Vec<_>>())?;
        let replay = Replay {
            into: environment.resolve(&self.into.to_string_lossy()),
            batch_rows: self.batch_rows,
            cuts: self.cuts,
            clock: self.clock,
        };
        let pipeline = Arc::new(replay.prepare(Arc::unwrap_or_clone(pipeline), &recordings)?);
        let printer = Arc::new(Printer::new(globals.output));
        let clock = replay.clock.or(recordings.last()).unwrap_or_else(|| {
            print_told("no record has a timestamp: now() is 1970-01-01; say --clock TIME");
            DateTime::UNIX_EPOCH
        });
        let deps = Deps {
            topics: Arc::new(recordings),
            clock: Arc::new(FixedClock(clock)),
            cuts: replay.cuts,
            ..load::deps(&pipeline, Arc::clone(&printer) as Arc<dyn Observer>, None)?
        };
        let (stopper, stop) = engine::stopper();
        let options = RunOptions { available_now: true, query: None };
        let result = tokio::select! {
            result = engine::run(Arc::clone(&pipeline), options, deps, stop) => result,
            killed = stop_on_signals(stopper) => killed,
        };
        printer.finish();
        result?;
        for outcome in replay.outcomes().await? {
            match globals.output {
                Format::Json => print_json(&outcome)?,
                Format::Text => print_line(&format!(
                    "{}: {} rows, sha256 {}; {}",
                    outcome.table,
                    grouped(outcome.rows),
                    outcome.sha256,
                    outcome.location
                )),
            }
        }
        Ok(())
    }
}

fn time(text: &str) -> Result<DateTime<Utc>, String> {
    let time = DateTime::parse_from_rfc3339(text).map(|time| time.with_timezone(&Utc));
    time.map_err(|_| format!("`{text}` is no time; write it as 2026-01-31T08:00:00Z (RFC 3339)"))
}
