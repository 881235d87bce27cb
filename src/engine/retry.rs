//! `dead-letters retry`: decodes open letters with today's schema and commits what succeeds, exactly once.
//!
//! It runs beside the stream. Its commit carries the number of the retry and no positions, so that it fences no stream
//! and no stream fences it; only another retry at the same moment does. The marks of what was committed are rows of the
//! table of dead letters: their files are written first, the sink's commit names them, and whoever comes next makes
//! them good after a crash. A mark holds the sink's version, so the commit lands at that version or is made anew.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use datafusion::physical_plan::ExecutionPlanProperties;
use futures::TryStreamExt;
use serde::Serialize;
use tokio::sync::mpsc;

use super::commit_info::CommitInfo;
use super::letter_box::{LetterBox, TopicLetters, collect};
use super::letter_log::LetterTopics;
use super::records::{Letters, RecordCounts};
use super::session::{QuerySession, SessionParts};
use super::topic::Slice;
use super::versions::Versions;
use super::write::{Gate, watched, write_all};
use super::{Deps, letter, selection};
use crate::contract::ContractEnforcer;
use crate::error::{Error, Result};
use crate::fault_point;
use crate::observe::{Records, Rows, check_conservation};
use crate::offsets::PartitionRange;
use crate::pipeline::{OnDecodeError, Pipeline, QueryKind, QuerySpec};
use crate::sink::{Add, Litter, SideCommit, SideFiles, SinkCommit};

/// Versions by others that a retry meets before it gives up.
const TRIES: u32 = 100;

/// What became of a query's open letters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Retried {
    /// The query.
    pub query: String,
    /// Letters that were decoded again.
    pub letters: u64,
    /// Letters that are in the sink now.
    pub committed: u64,
    /// Letters that still cannot be decoded.
    pub dead: u64,
    /// Rows that the letters gave the sink.
    pub rows: u64,
    /// Rows that broke the contract and are in the quarantine table.
    pub quarantined: u64,
    /// Rows that broke the contract and were left out.
    pub dropped: u64,
    /// The sink's version that holds them, the last one when there are several.
    pub version: Option<u64>,
}

/// Retries the open letters of a pipeline's queries, at most `at_once` in one commit.
///
/// # Errors
/// `Violated` when a row breaks the contract; `Fenced` when another retry was faster; `Unavailable` when the store
/// fails. What was committed before stays, and running it again is safe.
pub async fn retry_letters(
    deps: &Deps,
    pipeline: &Arc<Pipeline>,
    query: Option<&str>,
    at_once: u64,
) -> Result<Vec<Retried>> {
    let mut all = Vec::new();
    for query in super::chosen_queries(pipeline, query)? {
        if query.kind != QueryKind::Streaming {
            continue;
        }
        let Some(letters) = LetterBox::open(deps, pipeline, &query).await? else { continue };
        let mut retry = Retry::new(deps, pipeline, query, letters);
        let retried = retry.all(at_once).await;
        all.push(retried.map_err(|e| e.within(format!("query {}", retry.query.name)))?);
    }
    Ok(all)
}

struct Retry<'a> {
    deps: &'a Deps,
    /// The pipeline with every topic's bad records as letters: whatever it says, a retry names what is still bad.
    pipeline: Arc<Pipeline>,
    query: QuerySpec,
    letters: LetterBox,
    done: Retried,
}

/// Letters that were decoded and run: their rows are in files.
struct Run {
    adds: Vec<Add>,
    /// Rows that break the contract.
    quarantine: Option<SideFiles>,
    records: Records,
    rows: Rows,
    /// The letters that could be decoded, by topic.
    decoded: Vec<(String, Letters)>,
    lookups: Vec<(String, String)>,
    models: Vec<(String, String)>,
}

impl<'a> Retry<'a> {
    fn new(deps: &'a Deps, pipeline: &Pipeline, query: QuerySpec, letters: LetterBox) -> Self {
        let mut pipeline = pipeline.clone();
        for source in &mut pipeline.sources {
            source.on_decode_error = OnDecodeError::DeadLetter;
        }
        let name = query.name.clone();
        let done = Retried {
            query: name,
            letters: 0,
            committed: 0,
            dead: 0,
            rows: 0,
            quarantined: 0,
            dropped: 0,
            version: None,
        };
        Self { deps, pipeline: Arc::new(pipeline), query, letters, done }
    }

    async fn all(&mut self, at_once: u64) -> Result<Retried> {
        for location in self.letters.locations().to_vec() {
            let mut stream = self.letters.records(self.deps, &location).await?;
            let (mut waiting, mut count) = (TopicLetters::new(), 0);
            while let Some(rows) = stream.try_next().await? {
                let mut from = 0;
                while from < rows.num_rows() {
                    let part = rows.slice(from, (rows.num_rows() - from).min((at_once - count) as usize));
                    (from, count) = (from + part.num_rows(), count + part.num_rows() as u64);
                    collect(&part, &mut waiting)?;
                    if count == at_once {
                        self.some(&location, std::mem::take(&mut waiting)).await?;
                        count = 0;
                    }
                }
            }
            if count > 0 {
                self.some(&location, waiting).await?;
            }
        }
        Ok(self.done.clone())
    }

    /// Decodes, runs and commits these letters.
    async fn some(&mut self, location: &str, letters: TopicLetters) -> Result<()> {
        let clock = self.deps.clock.now();
        let run = self.run(letters, clock).await?;
        self.done.letters += run.records.read;
        self.done.dead += run.records.dead;
        if run.decoded.is_empty() {
            return Ok(());
        }
        for _ in 0..TRIES {
            if let Some(version) = self.commit(location, &run, clock).await? {
                self.done.committed += run.records.read - run.records.dead;
                self.done.rows += run.rows.written;
                self.done.quarantined += run.rows.quarantined;
                self.done.dropped += run.rows.dropped;
                self.done.version = Some(version);
                return Ok(());
            }
        }
        Err(Error::unavailable(format!("{TRIES} other versions came in between; run it again when it is quieter")))
    }

    async fn run(&self, letters: TopicLetters, clock: DateTime<Utc>) -> Result<Run> {
        let letters = Arc::new(letters);
        let deps = Deps { topics: Arc::new(LetterTopics(Arc::clone(&letters))), ..self.deps.clone() };
        let parts = SessionParts::of_query(&self.pipeline, &self.query, true);
        let session = QuerySession::new(&deps, &self.pipeline, parts).await?;
        let state = session.state(clock)?;
        let contract = &self.letters.sink.spec().contract;
        let enforcer = Arc::new(ContractEnforcer::new(contract, self.letters.sink.table_checks(), &state)?);
        let logical = watched(self.pipeline.plan_query(&self.query, &state).await?, self.letters.sink.spec())?;
        let optimized = state.optimize(&logical)?;
        let wanted = selection::used_fields(&optimized)?;
        let mut topics = BTreeSet::new();
        let (mut counts, mut posts) = (Vec::new(), Vec::new());
        for table in session.topics() {
            let versions = Versions { sink: &self.letters.sink, used: &wanted, accept: true };
            versions.warn(table.spec()).await?;
            let bounds = table.log(0)?.bounds().await?;
            let range = |b: &crate::offsets::PartitionBounds| PartitionRange {
                partition: b.partition,
                from: b.low,
                to: b.high,
            };
            // A letter that is still bad is one of those that are retried: they fit.
            let (posting, post) = RecordCounts::posting(1.0, u64::MAX);
            let posting = Arc::new(posting);
            table.prepare(Slice {
                ranges: bounds.iter().map(range).collect(),
                selection: wanted.clone(),
                is_shared: true,
                counts: Arc::clone(&posting),
                ..Slice::default()
            });
            if topics.insert(table.spec().topic.clone()) {
                counts.push(posting);
                posts.push((table.spec().topic.clone(), tokio::spawn(still_bad(post))));
            }
        }
        let plan = state.query_planner().create_physical_plan(&optimized, &state).await?;
        let writers =
            (0..plan.output_partitioning().partition_count()).map(|_| self.letters.sink.writer(&deps.memory)).collect();
        let gate = Gate {
            enforcer,
            sink: Arc::new(self.letters.sink.spec().clone()),
            sides: Arc::clone(&self.letters.sides),
            clock,
            // What a retry has written when it fails is for the vacuum: it is run again by hand.
            litter: Litter::default(),
        };
        let written = write_all(&plan, &session.task_context(), &gate, writers).await;
        counts.iter().for_each(|counts| counts.close());
        let mut decoded = Vec::new();
        for (topic, post) in posts {
            let bad = post.await.map_err(|e| Error::unavailable(format!("a retry failed: {e}; run it again")))?;
            decoded.extend(good(&letters, &topic, &bad).into_iter().map(|letters| (topic.clone(), letters)));
        }
        let mut written = written?;
        let adds = written.close().await?;
        let quarantine = written.close_quarantine(&gate.sink).await?;
        let mut records = Records::default();
        counts.iter().for_each(|counts| records.add(counts.totals()));
        let rows = written.rows(&adds, quarantine.as_ref())?;
        check_conservation(records, rows)?;
        let (lookups, models) = (session.lookup_versions(), session.model_versions());
        Ok(Run { adds, quarantine, records, rows, decoded, lookups, models })
    }

    /// Commits a run at the next version; `None` when that version is another writer's.
    async fn commit(&mut self, location: &str, run: &Run, clock: DateTime<Utc>) -> Result<Option<u64>> {
        let LetterBox { sink, sides, owner, .. } = &mut self.letters;
        let version = sink.version().map_or(0, |version| version + 1);
        let mut writer = sides.writer(location).await?;
        for (topic, letters) in &run.decoded {
            writer.write(&letter::rows(owner, topic, letters, clock, Some(version as i64))?).await?;
        }
        let marks = SideFiles::new(&letter::table(location), writer.close().await?);
        let side = SideFiles::merged([marks].into_iter().chain(run.quarantine.clone()));
        let number = sink.txn(&owner.retry()).unwrap_or(0) + 1;
        let info = CommitInfo {
            batch: None,
            trigger: None,
            clock,
            sources: Vec::new(),
            lost: Vec::new(),
            lookups: &run.lookups,
            models: &run.models,
            side: side.clone(),
            records: run.records,
            rows: run.rows,
        };
        let commit = SinkCommit {
            adds: run.adds.clone(),
            txns: vec![(owner.retry(), number)],
            attempt: self.deps.clock.new_id(),
            info: info.of(&self.pipeline, &self.query.name),
        };
        let attempt = commit.attempt;
        fault_point::pass("retry.before").await?;
        let Some(committed) = sink.commit_next(commit).await? else { return Ok(None) };
        fault_point::pass("retry.after").await?;
        let marker = owner.retry();
        sides.settle(&SideCommit { marker, number, attempt, side, positions: Vec::new() }).await?;
        Ok(Some(committed.version))
    }
}

/// The places of letters that still cannot be decoded.
async fn still_bad(mut post: mpsc::Receiver<Letters>) -> BTreeSet<(i32, i64)> {
    let mut bad = BTreeSet::new();
    while let Some(letters) = post.recv().await {
        bad.extend(letters.raw.offsets.iter().map(|&offset| (letters.raw.partition, offset)));
    }
    bad
}

/// The letters of a topic that are not `bad`.
fn good(letters: &TopicLetters, topic: &str, bad: &BTreeSet<(i32, i64)>) -> Vec<Letters> {
    let batches = letters.get(topic).map_or(&[][..], Vec::as_slice);
    let good = batches.iter().map(|batch| {
        let rows = (0..batch.len() as u32)
            .filter(|&row| !bad.contains(&(batch.partition, batch.offsets[row as usize])))
            .collect::<Vec<_>>();
        Letters { raw: batch.only(&rows), faults: Vec::new() }
    });
    good.filter(|letters| !letters.raw.is_empty()).collect()
}
