//! `flumen replay`: a pipeline over recordings, without a broker.

use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use clap::Args;

use super::difference::rows_that_differ;
use super::output::{Printer, print_json, print_line, print_told};
use super::run::stop_on_signals;
use super::{Format, Globals, Inputs, load, pair};
use crate::clock::FixedClock;
use crate::engine::{self, Deps, OpenTopic, RunOptions};
use crate::error::{Error, Result};
use crate::observe::{Observer, grouped};
use crate::pipeline::{Environment, Pipeline};
use crate::replay::{Again, Like, Recordings, Remaking, Replay};
use crate::storage::Storage;

/// `flumen replay FILE --recording TOPIC=DIR --into DIR`.
#[derive(Debug, Args)]
pub(crate) struct ReplayVerb {
    /// The pipeline file
    file: PathBuf,
    /// The recording of a topic; one for each topic that the file reads
    #[arg(long = "recording", value_name = "TOPIC=DIR", value_parser = pair)]
    recordings: Vec<(String, String)>,
    /// The directory of the tables, by their names in the file; it has to be empty
    #[arg(long, value_name = "DIR", required_unless_present = "like")]
    into: Option<PathBuf>,
    /// Make a commit of a run again, or each of several, and compare the rows: the same records (of recordings, or of
    /// the topic itself), clock and versions of lookups; TABLE is one that the file writes
    #[arg(long, value_name = "TABLE@VERSION|TABLE@FROM..TO",
          conflicts_with_all = ["batch_rows", "cuts", "clock"])]
    like: Option<Like>,
    /// With --like: rows that are shown of each kind of difference
    #[arg(long, value_name = "N", default_value_t = 20, requires = "like")]
    samples: usize,
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
        environment.tables = self.tables.iter().cloned().collect();
        let pipeline = load::pipeline(&environment, &self.file).await?;
        let dirs = self.recordings.iter().map(|(topic, dir)| (topic.clone(), environment.resolve(dir)));
        let recordings = Recordings::open(&dirs.collect::<Vec<_>>())?;
        if let Some(like) = &self.like {
            return self.again(globals, &environment, &pipeline, recordings, like).await;
        }
        let into = self.into.unwrap_or_default();
        let replay = Replay {
            into: environment.resolve(&into.to_string_lossy()),
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
        let options = RunOptions { available_now: true, query: None, closes: true };
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

impl ReplayVerb {
    /// Commits of a run, made again.
    async fn again(
        &self,
        globals: &Globals,
        environment: &Environment,
        pipeline: &Pipeline,
        recordings: Recordings,
        like: &Like,
    ) -> Result<()> {
        let topics: Arc<dyn OpenTopic> = if self.recordings.is_empty() {
            Arc::new(load::FromKafka)
        } else {
            recordings.check(pipeline)?;
            Arc::new(recordings)
        };
        let replaced: Vec<String> = self.tables.iter().map(|(name, _)| name.clone()).collect();
        let remaking = Remaking {
            pipeline,
            replaced: &replaced,
            topics,
            live: self.recordings.is_empty(),
            samples: self.samples,
            storage: Storage::new(),
        };
        let no_room = |error: std::io::Error| Error::unavailable("there is no room for tables").caused_by(error);
        let scratch = tempfile::tempdir().map_err(no_room)?;
        let into = self.into.as_ref().map(|into| environment.resolve(&into.to_string_lossy()));
        let (mut made, mut differ) = (0, 0);
        for version in like.from..=like.to {
            let dir = into.as_deref().unwrap_or(scratch.path()).join(format!("{}@{version}", like.table));
            if dir.exists() {
                let text = format!("--into: {} is there already; name another directory", dir.display());
                return Err(Error::invalid(text));
            }
            let again = remaking.again(&like.table, version, &dir).await?;
            if into.is_none() && dir.exists() {
                std::fs::remove_dir_all(&dir).map_err(no_room)?;
            }
            made += u64::from(again.skipped.is_none());
            differ += u64::from(!again.is_same());
            match globals.output {
                Format::Json => print_json(&again)?,
                Format::Text => print_line(&told(&again)),
            }
        }
        match (made, differ) {
            (0, _) => Err(Error::invalid(format!("--like {like}: none of it is a micro-batch; name others"))),
            (_, 0) => Ok(()),
            (made, differ) => {
                Err(Error::violated(format!("{differ} of {made} commits are not what their records come to now")))
            }
        }
    }
}

/// A commit that was made again, for people.
fn told(again: &Again) -> String {
    let name = format!("{}@{}", again.table, again.version);
    if let Some(why) = &again.skipped {
        return format!("{name}: not made again: {why}");
    }
    let records = grouped(again.records);
    let Some(difference) = &again.difference else { return name };
    let counts = difference.rows;
    if again.is_same() {
        return format!("{name}: {records} records, {} rows, the same", grouped(counts.left));
    }
    let mut lines = vec![format!(
        "{name}: {records} records; {} rows then, {} now, {} of them the same",
        grouped(counts.left),
        grouped(counts.right),
        grouped(counts.common)
    )];
    lines.extend(again.counts.iter().map(|count| format!("  {count}")));
    lines.extend(again.notes.iter().map(|note| format!("  {note}")));
    lines.extend(rows_that_differ(&difference.samples).map(|rows| format!("[then → now]\n{rows}")));
    lines.join("\n")
}

/// A time of day in an argument.
pub(crate) fn time(text: &str) -> Result<DateTime<Utc>, String> {
    let time = DateTime::parse_from_rfc3339(text).map(|time| time.with_timezone(&Utc));
    time.map_err(|_| format!("`{text}` is no time; write it as 2026-01-31T08:00:00Z (RFC 3339)"))
}
