//! Upkeep of a query's tables: what is due is done beside the micro-batches, and everything by `flumen maintain`.

use std::collections::BTreeSet;

use tokio::task::JoinHandle;

use super::side::{self, SideTables};
use super::{Deps, chosen_queries, sink_of};
use crate::error::Result;
use crate::observe::grouped;
use crate::pipeline::{Pipeline, SinkFormat, SinkSpec};
use crate::sink::{DeltaSink, Maintained, Maintainer, Owner, Round, TableUpkeep};
use crate::storage;

/// Upkeep beside the micro-batches of one query, in one task at a time. Dropping it ends the task: what it has not
/// committed is for the next round.
pub(crate) struct Upkeep {
    deps: Deps,
    owner: Owner,
    sink: SinkSpec,
    task: Option<JoinHandle<()>>,
}

impl Upkeep {
    /// For the query of `owner`.
    pub(crate) fn new(deps: &Deps, owner: Owner, sink: &SinkSpec) -> Self {
        Self { deps: deps.clone(), owner, sink: sink.clone(), task: None }
    }

    /// Begins what is due, unless some is still under way.
    pub(crate) async fn begin(&mut self, sink: &mut DeltaSink, sides: &SideTables) {
        if !self.sink.upkeep.auto || self.task.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        // The side tables have got what they are owed: that comes first after a commit.
        let upkeep = TableUpkeep::of_sink(&self.sink, sink.version().unwrap_or_default());
        let mut due = sides.due(&upkeep).await;
        if sink.is_upkeep_due(&upkeep.spec) {
            sink.note_upkeep();
            due.push(upkeep);
        }
        if !due.is_empty() {
            self.task = Some(tokio::spawn(rounds(self.deps.clone(), self.owner.clone(), due)));
        }
    }

    /// Waits for what is under way.
    pub(crate) async fn finish(&mut self) {
        if let Some(task) = &mut self.task
            && let Err(failed) = task.await
        {
            tracing::warn!(%failed, "upkeep ended early; the next round takes it up");
        }
        self.task = None;
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// One round of each table. An error is told and breaks nothing: the rows are there all the same.
async fn rounds(deps: Deps, owner: Owner, due: Vec<TableUpkeep>) {
    for upkeep in due {
        match round(&deps, &owner, upkeep, Round::Due).await {
            Ok(Some(done)) if done.is_any() => deps.observer.note(&in_words(&done)),
            Ok(_) => {}
            Err(error) => tracing::warn!(query = %owner.query, %error, "upkeep failed; the next round takes it up"),
        }
    }
}

async fn round(deps: &Deps, owner: &Owner, upkeep: TableUpkeep, round: Round) -> Result<Option<Maintained>> {
    let opened =
        Maintainer::open(upkeep, owner.clone(), &deps.storage, deps.clock.clone(), deps.memory.clone()).await?;
    match opened {
        Some(mut maintainer) => maintainer.round(round).await.map(Some),
        None => Ok(None),
    }
}

/// Does all that there is to do for the tables of a pipeline, or of one query of it: makes good what a crash left
/// owing, compacts, writes a checkpoint, cleans the log up, and vacuums. It may run beside the pipeline.
///
/// # Errors
/// `Invalid` when there is no such query or a table is not as declared; `Unavailable` when a store fails.
pub async fn maintain(deps: &Deps, pipeline: &Pipeline, query: Option<&str>) -> Result<Vec<Maintained>> {
    let mut done = Vec::new();
    let mut seen = BTreeSet::new();
    for query in chosen_queries(pipeline, query)? {
        let spec = sink_of(pipeline, &query)?;
        if spec.format == SinkFormat::Parquet {
            continue;
        }
        let owner = Owner::new(&pipeline.name, &query.name);
        let sink = DeltaSink::open(spec, owner.clone(), &deps.storage, deps.clock.clone()).await?;
        let sides = side::of_query(deps, pipeline, &query, spec, owner.clone());
        // Files that a commit gave a side table, and that it has not named yet, must not be taken for garbage.
        sides.roll_forward(&sink).await?;
        let upkeep = TableUpkeep::of_sink(spec, sink.version().unwrap_or_default());
        let tables = std::iter::once(upkeep.clone()).chain(sides.locations().map(|side| upkeep.of_side(side)));
        for table in tables {
            if seen.insert(storage::shown(&table.location)) {
                done.extend(round(deps, &owner, table, Round::Whole).await?);
            }
        }
    }
    Ok(done)
}

/// What was done, for people.
pub fn in_words(done: &Maintained) -> String {
    let mut parts = Vec::new();
    if done.files_compacted > 0 {
        let (before, after) = (grouped(done.files_compacted as u64), grouped(done.files_written as u64));
        parts.push(format!("{before} small files made {after}"));
    }
    if done.compactions_given_up > 0 {
        parts.push(format!("{} compactions given up: others changed the same files", done.compactions_given_up));
    }
    parts.extend(done.checkpoint.map(|version| format!("checkpoint of version {version}")));
    if done.log_files_removed > 0 {
        parts.push(format!("{} files of the log cleaned up", grouped(done.log_files_removed as u64)));
    }
    if done.files_vacuumed > 0 {
        parts.push(format!("{} files vacuumed", grouped(done.files_vacuumed as u64)));
    }
    if parts.is_empty() {
        parts.push("nothing to do".to_owned());
    }
    format!("query {}: upkeep of {} at version {}: {}", done.query, done.table, done.version, parts.join(", "))
}
