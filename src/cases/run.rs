//! One case, run: the pipeline follows its topics in the background, and the steps happen one after the other.
//!
//! The engine has a runtime of its own. `kill` holds it at a point and drops the whole runtime: nothing of the run
//! happens after that point, as when a machine loses its power. What comes next starts from the tables alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use chrono::DateTime;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::bind::{Act, Bound, Expectation, Table, parquet};
use super::update::Found;
use crate::clock::SetClock;
use crate::compare::{Difference, Question, TableRef, compare};
use crate::engine::{self, Deps, Stopper};
use crate::error::{Error, Result};
use crate::fault_point::Snare;
use crate::lookup::Lookup;
use crate::memory::Memory;
use crate::observe::{Observer, Progress};
use crate::pipeline::QueryKind;
use crate::source::memory::NewRecord;
use crate::storage::Storage;

/// How long a micro-batch of a case may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether tables are there.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// How long a store may take for what it was asked for before a kill.
const SETTLE: Duration = Duration::from_secs(5);
/// What comparing tables may hold, in bytes.
const COMPARE_BYTES: u64 = 256 << 20;

/// How a case ended.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// As it says.
    Pass,
    /// Tables or an error are not as it says.
    Fail(Vec<Failure>),
    /// It could not be seen: the run failed where nothing says so.
    Error(usize, String),
}

/// What is not as a case says.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The line that says it, from 1.
    pub line: usize,
    /// What is there instead.
    pub message: String,
    /// How the rows differ.
    pub difference: Option<Box<Difference>>,
}

impl Verdict {
    fn fail(line: usize, message: impl Into<String>) -> Self {
        Verdict::Fail(vec![Failure { line, message: message.into(), difference: None }])
    }
}

/// Runs a case; `samples` rows of each kind of difference are kept. With `look` what its tables hold is found too, for
/// an update of what the case expects, and differences end nothing.
pub(super) fn run(bound: &Bound, samples: usize, look: bool) -> (Verdict, Vec<Found>) {
    let mut stage = match Stage::new(bound, samples) {
        Ok(stage) => stage,
        Err(error) => return (Verdict::Error(bound.case.line, error.to_string()), Vec::new()),
    };
    let mut verdict = Verdict::Pass;
    let mut found = Vec::new();
    for act in &bound.acts {
        let looks = look && stage.failed.is_none();
        match looks.then(|| stage.look(act)).flatten() {
            Some((_, Ok(seen))) => {
                found.push(seen);
                continue;
            }
            Some((line, Err(error))) => {
                verdict = Verdict::Error(line, error.to_string());
                break;
            }
            None => {}
        }
        let looks = matches!(act, Act::Expect(_) | Act::Count { .. });
        // What tables hold is told of all of them, up to the next thing that happens.
        if !looks && matches!(verdict, Verdict::Fail(_)) {
            break;
        }
        verdict = match (verdict, stage.act(act)) {
            (Verdict::Fail(mut failures), Verdict::Fail(more)) => {
                failures.extend(more);
                Verdict::Fail(failures)
            }
            (failed @ Verdict::Fail(_), _) => failed,
            (_, next) => next,
        };
        if matches!(verdict, Verdict::Error(..)) {
            break;
        }
    }
    if matches!(verdict, Verdict::Pass) {
        if let Some((line, error)) = stage.failed.take() {
            verdict = Verdict::Error(line, error.to_string());
        } else if let Some((line, point)) = stage.kill.take() {
            verdict = Verdict::fail(line, format!("no push comes after it that could be killed at {point}"));
        }
    }
    stage.end();
    (verdict, found)
}

/// Where a case happens.
struct Stage<'b> {
    bound: &'b Bound,
    samples: usize,
    clock: Arc<SetClock>,
    /// Whether the case says what the time is.
    told: bool,
    /// The process of the pipeline.
    runtime: Option<Runtime>,
    following: Option<Following>,
    committed: Arc<Committed>,
    /// How the last push failed, and where it stands.
    failed: Option<(usize, Error)>,
    /// Where the next push ends.
    kill: Option<(usize, String)>,
}

/// The run in the background.
struct Following {
    task: JoinHandle<Result<()>>,
    stopper: Stopper,
}

/// How far queries are, by query, topic and partition.
#[derive(Debug, Default)]
struct Committed {
    ends: Mutex<BTreeMap<(String, String, i32), i64>>,
    more: Notify,
}

impl Committed {
    fn reaches(&self, query: &str, topic: &str, partition: i32, end: i64) {
        let mut ends = self.ends.lock();
        let known = ends.entry((query.to_owned(), topic.to_owned(), partition)).or_default();
        *known = end.max(*known);
    }
}

impl Observer for Committed {
    fn progress(&self, progress: &Progress) {
        for (topic, partitions) in progress.sources.iter().flat_map(|source| &source.end_offset) {
            for (partition, end) in partitions {
                self.reaches(&progress.name, topic, *partition, *end);
            }
        }
        self.more.notify_one();
    }

    fn note(&self, _text: &str) {}
}

/// How a push ended.
enum Pushed {
    Done,
    Failed(Error),
    Killed,
}

impl<'b> Stage<'b> {
    fn new(bound: &'b Bound, samples: usize) -> Result<Self> {
        let stage = Self {
            bound,
            samples,
            clock: Arc::default(),
            told: bound.case.clock.is_some(),
            runtime: Some(runtime()?),
            following: None,
            committed: Arc::default(),
            failed: None,
            kill: None,
        };
        if let Some(clock) = bound.case.clock {
            stage.clock.set(clock);
        }
        Ok(stage)
    }

    fn act(&mut self, act: &Act) -> Verdict {
        if let Some((line, error)) = &self.failed
            && !matches!(act, Act::Failed { .. })
        {
            return Verdict::Error(*line, error.to_string());
        }
        match act {
            Act::Push(line, records) => self.push(*line, records),
            Act::Restart => self.restart(),
            Act::Kill(line, point) => match self.kill.replace((*line, point.clone())) {
                Some((line, point)) => Verdict::fail(
                    line,
                    format!("no push comes between it and the next one that could be killed at {point}"),
                ),
                None => Verdict::Pass,
            },
            Act::Clock(time) => {
                self.told = true;
                self.clock.set(*time);
                Verdict::Pass
            }
            Act::Tables(files) => {
                let written = files.iter().try_for_each(|(path, text)| std::fs::write(path, text));
                written.map_or_else(|error| Verdict::Error(self.bound.case.line, error.to_string()), |()| Verdict::Pass)
            }
            Act::Expect(expected) => self.expect(expected),
            Act::Count { line, table, count, .. } => match self.rows(table) {
                Ok(rows) => {
                    let rows: usize = rows.iter().map(RecordBatch::num_rows).sum();
                    let text = || {
                        let is = counted(rows as u64);
                        format!("{} has {is}, and {count} expected{}", table.name, self.elsewhere(table))
                    };
                    if rows as u64 == *count { Verdict::Pass } else { Verdict::fail(*line, text()) }
                }
                Err(error) => Verdict::Error(*line, error.to_string()),
            },
            Act::Failed { line, kind, text } => {
                let Some((_, error)) = self.failed.take() else {
                    return Verdict::fail(*line, "nothing failed, and an error is expected");
                };
                let message = error.to_string();
                let is_kind = kind.as_ref().is_none_or(|kind| kind == error.kind().as_str());
                let is_text = text.as_ref().is_none_or(|text| message.contains(text));
                let told = || format!("the error is another one ({}): {message}", error.kind().as_str());
                if is_kind && is_text { Verdict::Pass } else { Verdict::fail(*line, told()) }
            }
        }
    }

    /// What a table holds, for a step that says what it has to hold.
    fn look(&self, act: &Act) -> Option<(usize, Result<Found>)> {
        let (line, table, node, rows) = match act {
            Act::Expect(expected) => (expected.line, &expected.table, &expected.node, Some(&**expected)),
            Act::Count { line, table, node, .. } => (*line, table, node, None),
            _ => return None,
        };
        Some((line, self.rows(table).and_then(|actual| Found::new(table, node, rows, actual))))
    }

    fn push(&mut self, line: usize, records: &[(String, i32, NewRecord)]) -> Verdict {
        let kill = self.kill.take();
        // Tables are made before anybody is held: it is the micro-batch that is killed.
        if kill.is_some()
            && let Err(error) = self.process().and_then(|()| self.await_tables())
        {
            return Verdict::Error(line, error.to_string());
        }
        let snare = kill.as_ref().map(|(_, point)| Snare::lay(point));
        if !self.told {
            let there = self.bound.topics.0.values().filter_map(|log| log.last_timestamp());
            let last = there.chain(records.iter().map(|(_, _, record)| record.timestamp)).max();
            self.clock.set(last.and_then(DateTime::from_timestamp_millis).unwrap_or_default());
        }
        // The run is reading all the while: clock and snare come first, and all records of a topic at once.
        for (topic, log) in &self.bound.topics.0 {
            let of = records.iter().filter(|(to, ..)| to == topic);
            log.append(of.map(|(_, partition, record)| (*partition, record.clone())));
        }
        let pushed = match self.process() {
            Ok(()) => self.wait(snare.as_ref()),
            Err(error) => Err(error),
        };
        match (pushed, kill) {
            (Err(error), _) => Verdict::Error(line, error.to_string()),
            (Ok(Pushed::Killed), _) => {
                self.following = None;
                if let Some(runtime) = self.runtime.take() {
                    // What a store was asked for already is done or not, as after a failure.
                    runtime.shutdown_timeout(SETTLE);
                }
                Verdict::Pass
            }
            (Ok(_), Some((line, point))) => {
                Verdict::fail(line, format!("the micro-batch was never at {point}, where it was to be killed"))
            }
            (Ok(Pushed::Failed(error)), None) => {
                self.stop();
                self.failed = Some((line, error));
                Verdict::Pass
            }
            (Ok(Pushed::Done), None) => Verdict::Pass,
        }
    }

    fn restart(&mut self) -> Verdict {
        self.stop();
        self.push(self.bound.case.line, &[])
    }

    fn deps(&self) -> Result<Deps> {
        Ok(Deps {
            storage: Storage::new(),
            clock: Arc::clone(&self.clock) as _,
            observer: Arc::clone(&self.committed) as _,
            memory: Memory::new(self.bound.pipeline.settings.memory_limit)?,
            topics: Arc::new(self.bound.topics.clone()),
            patience: Some(PATIENCE),
            cuts: None,
        })
    }

    /// A process that follows the topics, as one is needed.
    fn process(&mut self) -> Result<()> {
        if self.runtime.is_none() {
            self.runtime = Some(runtime()?);
        }
        if self.following.as_ref().is_some_and(|following| !following.task.is_finished()) {
            return Ok(());
        }
        let (deps, pipeline) = (self.deps()?, Arc::clone(&self.bound.pipeline));
        let Some(runtime) = &self.runtime else { return Ok(()) };
        if self.bound.dir.path().join("tables").exists() {
            // What the last process committed and did not tell.
            for query in runtime.block_on(engine::status(&deps, &pipeline))? {
                for topic in &query.topics {
                    let committed = topic.partitions.iter().filter_map(|p| Some((p.partition, p.committed?)));
                    committed.for_each(|(p, end)| self.committed.reaches(&query.query, &topic.topic, p, end));
                }
            }
        }
        if !follows(self.bound) {
            return Ok(());
        }
        let (stopper, stop) = engine::stopper();
        let task = runtime.spawn(engine::follow(pipeline, deps, stop));
        self.following = Some(Following { task, stopper });
        Ok(())
    }

    /// Whether the table of each query that follows a topic is there.
    fn are_made(&self) -> bool {
        let pipeline = &self.bound.pipeline;
        let queries = pipeline.queries.iter().filter(|query| query.kind == QueryKind::Streaming);
        queries
            .filter_map(|query| pipeline.sink(&query.name))
            .all(|sink| Path::new(&sink.location).join("_delta_log").join(format!("{:020}.json", 0)).is_file())
    }

    /// Until each table is there, or the run failed: the push tells how.
    fn await_tables(&mut self) -> Result<()> {
        let Some(runtime) = &self.runtime else { return Ok(()) };
        let ended = || self.following.as_ref().is_none_or(|following| following.task.is_finished());
        runtime.block_on(async {
            let made = async {
                while !self.are_made() && !ended() {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
            };
            let late = |_| Error::unavailable(format!("the tables were not made within {PATIENCE:?}"));
            tokio::time::timeout(PATIENCE, made).await.map_err(late)
        })
    }

    /// Whether each query has committed all that its topics hold.
    fn is_through(&self) -> bool {
        let pipeline = &self.bound.pipeline;
        if !self.are_made() {
            return false;
        }
        let committed = self.committed.ends.lock();
        pipeline.queries.iter().all(|query| {
            let sources = pipeline.sources.iter().filter(|source| query.sources.contains(&source.name));
            sources.filter_map(|source| self.bound.topics.0.get_key_value(&source.topic)).all(|(topic, log)| {
                log.ends().into_iter().all(|(partition, end)| {
                    let key = (query.name.clone(), topic.clone(), partition);
                    committed.get(&key).is_some_and(|committed| *committed >= end)
                })
            })
        })
    }

    /// Until everything is committed, or the run failed, or somebody was held.
    fn wait(&mut self, snare: Option<&Snare>) -> Result<Pushed> {
        let mut following = self.following.take();
        let Some(runtime) = &self.runtime else { return Err(Error::unavailable("a case has no process: report this")) };
        let mut ended = false;
        let pushed = runtime.block_on(async {
            let run = async {
                match &mut following {
                    Some(following) => (&mut following.task).await,
                    // Batch jobs alone.
                    None => std::future::pending().await,
                }
            };
            let through = async {
                while !self.is_through() {
                    // A table that is made tells nobody.
                    drop(tokio::time::timeout(LOOK_AGAIN, self.committed.more.notified()).await);
                }
                engine::conclude(&self.bound.pipeline, &self.deps()?).await
            };
            let killed = async {
                match snare {
                    Some(snare) => snare.sprung().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = killed => Ok(Pushed::Killed),
                run = run => {
                    ended = true;
                    match run {
                        Ok(Ok(())) => Err(Error::unavailable("the run ended by itself: report this")),
                        Ok(Err(error)) => Ok(Pushed::Failed(error)),
                        Err(failed) => Ok(Pushed::Failed(Error::unavailable(format!("the run failed: {failed}")))),
                    }
                }
                done = through => Ok(done.map_or_else(Pushed::Failed, |()| Pushed::Done)),
                () = tokio::time::sleep(PATIENCE) => {
                    Err(Error::unavailable(format!("the micro-batch was not done within {PATIENCE:?}")))
                }
            }
        });
        self.following = following.filter(|_| !ended);
        pushed
    }

    /// Stops the run, after the micro-batch under way.
    fn stop(&mut self) {
        if let (Some(following), Some(runtime)) = (self.following.take(), &self.runtime) {
            following.stopper.stop();
            drop(runtime.block_on(following.task));
        }
    }

    fn end(mut self) {
        self.stop();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// The rows of a table, none where it was never written.
    fn rows(&self, table: &Table) -> Result<Vec<RecordBatch>> {
        if !table.is_there() {
            return Ok(Vec::new());
        }
        wait_for(async {
            let state = SessionContext::new().state();
            let (_, rows) = Lookup::rows(&table.spec, None, &Storage::new(), &state).await?;
            rows.try_collect().await
        })
    }

    /// What lies beside a sink: where its rows may have gone.
    fn elsewhere(&self, table: &Table) -> String {
        let sides = ["_quarantine", "_dead_letters"].map(|side| format!("{}{side}", table.name));
        let pipeline = &self.bound.pipeline;
        let told = sides.iter().filter_map(|name| {
            let rows = self.rows(&Table::of(&engine::side_table(pipeline, name)?)).ok()?;
            let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
            (count > 0).then(|| format!("; {} in {name}", counted(count as u64)))
        });
        told.collect()
    }

    fn expect(&self, expected: &Expectation) -> Verdict {
        match self.difference(expected) {
            Ok(difference) if difference.is_none() => Verdict::Pass,
            Ok(difference) => {
                let counts = difference.rows;
                let message = format!(
                    "{} has {}, and {} expected: {} as it has to be{}",
                    expected.table.name,
                    counted(counts.right),
                    counts.left,
                    counts.common,
                    self.elsewhere(&expected.table)
                );
                let difference = Some(Box::new(difference));
                Verdict::Fail(vec![Failure { line: expected.line, message, difference }])
            }
            Err(error) => Verdict::Error(expected.line, error.to_string()),
        }
    }

    fn difference(&self, expected: &Expectation) -> Result<Difference> {
        let dir = self.bound.dir.path();
        let told = dir.join("expected.parquet");
        write(&told, &expected.rows)?;
        let there = match expected.table.is_there() {
            true => PathBuf::from(&expected.table.spec.location),
            false => {
                let empty = dir.join("empty.parquet");
                write(&empty, &RecordBatch::new_empty(Arc::clone(&expected.table.schema)))?;
                empty
            }
        };
        let [told, there] = [("expected", told), (&*expected.table.name, there)]
            .map(|(name, path)| TableRef::new(name, |_| path.to_string_lossy().into_owned()));
        let columns = expected.rows.schema().fields().iter().map(|field| field.name().clone()).collect();
        let question = Question {
            tolerance: expected.tolerance,
            samples: self.samples,
            columns: Some(columns),
            ..Question::default()
        };
        let (told, there) = (told?, there?);
        let mut difference = wait_for(async { compare(&told, &there, &question, &Memory::new(COMPARE_BYTES)?).await })?;
        if expected.more_rows {
            difference.rows.only_right = 0;
            difference.samples.retain(|row| row.left.is_some());
        }
        Ok(difference)
    }
}

fn counted(rows: u64) -> String {
    if rows == 1 { "1 row".to_owned() } else { format!("{rows} rows") }
}

fn runtime() -> Result<Runtime> {
    let built = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    built.map_err(|error| Error::unavailable("a case has no threads to run in").caused_by(error))
}

/// What comes of work in a runtime of its own.
pub(super) fn wait_for<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = runtime()?;
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    done
}

fn write(path: &Path, rows: &RecordBatch) -> Result<()> {
    let bytes = parquet(rows).map_err(|error| Error::unavailable("a case cannot write its rows").caused_by(error))?;
    std::fs::write(path, bytes).map_err(|error| Error::unavailable("a case has no room for its rows").caused_by(error))
}

/// Whether the pipeline has anything that follows a topic.
fn follows(bound: &Bound) -> bool {
    bound.pipeline.queries.iter().any(|query| query.kind == QueryKind::Streaming)
}

/// Whether it is killed at some point: such a case runs alone.
pub(super) fn is_killed(bound: &Bound) -> bool {
    bound.acts.iter().any(|act| matches!(act, Act::Kill(..)))
}
