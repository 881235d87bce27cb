//! One planned micro-batch on its way to files: what it needs to run while its query commits the one before.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use datafusion::physical_plan::ExecutionPlanProperties;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::letter;
use super::position::Lost;
use super::query_plan::Executable;
use super::records::{Letters, RecordCounts};
use super::write::{Gate, Written, write_all};
use crate::clock::Stopwatch;
use crate::error::{Error, Result};
use crate::fault_point;
use crate::observe::{Durations, Records};
use crate::offsets::PartitionRange;
use crate::sink::{Litter, Owner, SideFiles, SinkWriter};

/// What one micro-batch takes from one topic.
#[derive(Debug)]
pub(crate) struct Share {
    /// The topic's name.
    pub(crate) topic: String,
    /// What is read.
    pub(crate) ranges: Vec<PartitionRange>,
    /// Where every partition stands after this micro-batch.
    pub(crate) next: BTreeMap<i32, i64>,
    /// What was due and is gone; it is passed over.
    pub(crate) lost: Vec<Lost>,
    /// The ends when it was planned.
    pub(crate) latest: BTreeMap<i32, i64>,
    /// What became of the records.
    pub(crate) counts: Arc<RecordCounts>,
}

/// The dead letters of a topic, as they are found.
#[derive(Debug)]
pub(crate) struct Post {
    /// The topic's name.
    pub(crate) topic: String,
    /// The table that keeps them.
    pub(crate) location: String,
    /// Ends when the topic was read.
    pub(crate) letters: mpsc::Receiver<Letters>,
}

/// A micro-batch that is planned: what it reads is fixed.
pub(crate) struct Planned {
    pub(crate) batch: i64,
    pub(crate) clock: DateTime<Utc>,
    pub(crate) shares: Vec<Share>,
    pub(crate) posts: Vec<Post>,
    /// Until it has run: a plan holds the hash tables of its joins.
    pub(crate) executable: Option<Executable>,
    pub(crate) used: Used,
    pub(crate) lag: u64,
    pub(crate) watch: Stopwatch,
    pub(crate) since_last: f64,
    pub(crate) durations: Durations,
}

/// What a micro-batch uses besides its topics.
pub(crate) struct Used {
    /// Name and version of each lookup.
    pub(crate) lookups: Vec<(String, String)>,
    /// Name and SHA-256 of each model.
    pub(crate) models: Vec<(String, String)>,
}

/// What a micro-batch reads: the topic by its place in the query, and a range of it.
pub(crate) type Read = Vec<(usize, PartitionRange)>;

/// A micro-batch that has run: its rows are in files that are still open, its dead letters in files that are closed.
pub(crate) struct Ran {
    pub(crate) planned: Planned,
    pub(crate) written: Written,
    pub(crate) letters: Vec<SideFiles>,
    /// All of these files.
    pub(crate) litter: Litter,
}

/// Runs a planned micro-batch up to its open files; holds nothing that the next one changes.
pub(crate) struct Runner {
    pub(crate) gate: Gate,
    pub(crate) writers: Vec<SinkWriter>,
    pub(crate) owner: Owner,
}

/// What a micro-batch took, for the case that it fails.
pub(crate) struct Taken {
    pub(crate) read: Read,
    pub(crate) clock: DateTime<Utc>,
    /// What was passed over, topic by topic.
    pub(crate) lost: Vec<Vec<Lost>>,
    /// What became of the records, topic by topic.
    pub(crate) counts: Vec<Arc<RecordCounts>>,
}

impl Planned {
    /// The streams in which its plan runs.
    pub(crate) fn streams(&self) -> usize {
        self.executable.as_ref().map_or(0, |(plan, _)| plan.output_partitioning().partition_count())
    }

    /// What it takes.
    pub(crate) fn taken(&self) -> Taken {
        let of =
            |(index, share): (usize, &Share)| share.ranges.iter().map(move |range| (index, *range)).collect::<Read>();
        Taken {
            read: self.shares.iter().enumerate().flat_map(of).collect(),
            clock: self.clock,
            lost: self.shares.iter().map(|share| share.lost.clone()).collect(),
            counts: self.shares.iter().map(|share| Arc::clone(&share.counts)).collect(),
        }
    }
}

impl Ran {
    /// Gives it up: what it wrote goes.
    pub(crate) async fn abandon(self) {
        self.written.abort().await;
        self.litter.remove().await;
    }
}

impl Runner {
    /// Reads, decodes, runs, checks and writes.
    ///
    /// # Errors
    /// `Violated` for a record or row that is not as promised, or too many dead letters; `Unavailable` when broker or
    /// store fail.
    pub(crate) async fn run(self, planned: Planned) -> Result<Ran> {
        let litter = self.gate.litter.clone();
        let ran = self.run_noting(planned).await;
        if ran.is_err() {
            litter.remove().await;
        }
        ran
    }

    async fn run_noting(self, mut planned: Planned) -> Result<Ran> {
        let watch = Stopwatch::start();
        let mut writing = JoinSet::new();
        for post in std::mem::take(&mut planned.posts) {
            writing.spawn(write_letters(post, self.gate.clone(), self.owner.clone()));
        }
        let within = |e: Error| e.within(format!("query {}", self.owner.query));
        let writers = self.writers.into_iter().map(|writer| writer.noting(&self.gate.litter)).collect();
        let written = match planned.executable.take() {
            None => Err(Error::unavailable("a micro-batch was run twice; run again")),
            Some((plan, context)) => write_all(&plan, &context, &self.gate, writers).await,
        };
        planned.shares.iter().for_each(|share| share.counts.close());
        let letters = all_written(writing).await;
        // Whoever cannot post a dead letter fails too: the writer of dead letters knows why.
        let letters = letters.map_err(within)?;
        let written = written.map_err(within)?;
        for share in &planned.shares {
            share.counts.check_limit(&share.topic).map_err(within)?;
        }
        planned.durations.add_batch = watch.elapsed().as_secs_f64() * 1000.0;
        Ok(Ran { planned, written, letters, litter: self.gate.litter })
    }
}

async fn all_written(mut writing: JoinSet<Result<Option<SideFiles>>>) -> Result<Vec<SideFiles>> {
    let mut side = Vec::new();
    let mut failed: Option<Error> = None;
    while let Some(done) = writing.join_next().await {
        let stopped = |e| Error::unavailable(format!("the writer of dead letters failed: {e}; run again"));
        match done.map_err(stopped).flatten() {
            Ok(files) => side.extend(files),
            Err(error) => _ = failed.get_or_insert(error),
        }
    }
    failed.map_or(Ok(side), Err)
}

/// Writes dead letters to files that no version names yet; `None` when there was no letter.
async fn write_letters(mut post: Post, gate: Gate, owner: Owner) -> Result<Option<SideFiles>> {
    let mut writer: Option<SinkWriter> = None;
    while let Some(letters) = post.letters.recv().await {
        let rows = letter::rows(&owner, &post.topic, &letters, gate.clock, None)?;
        let writer = match &mut writer {
            Some(writer) => writer,
            None => writer.insert(gate.side_writer(&post.location).await?),
        };
        fault_point::pass("letters.write").await?;
        writer.write(&rows).await?;
    }
    match writer {
        Some(writer) => {
            fault_point::pass("letters.close").await?;
            Ok(Some(SideFiles::new(&letter::table(&post.location), writer.close().await?)))
        }
        None => Ok(None),
    }
}

impl Share {
    /// The records of several shares.
    pub(crate) fn records(shares: &[Share]) -> Records {
        let mut records = Records::default();
        shares.iter().for_each(|share| records.add(share.counts.totals()));
        records
    }
}
