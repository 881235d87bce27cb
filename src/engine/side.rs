//! The side tables of a query: opened when the first row goes there, kept open, and settled after each sink commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::{Deps, letter, quarantine};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::fault_point;
use crate::memory::Memory;
use crate::pipeline::{Pipeline, QuerySpec, SinkSpec};
use crate::sink::{DeltaSink, Owner, SideCommit, SideFiles, SinkWriter, TableUpkeep};
use crate::storage::{self, Storage};

/// The table beside a sink that somebody means by `<sink>_dead_letters` or `<sink>_quarantine`, under that name.
pub fn side_table(pipeline: &Pipeline, name: &str) -> Option<SinkSpec> {
    let table = pipeline.queries.iter().find_map(|query| {
        let sink = pipeline.sink(&query.name)?;
        let source = || pipeline.sources.iter().find(|source| query.sources.contains(&source.name));
        match name.strip_prefix(&query.name)? {
            "_dead_letters" => Some(letter::table(&letter::location(source()?, sink))),
            "_quarantine" => Some(quarantine::table(sink)),
            _ => None,
        }
    })?;
    Some(SinkSpec { name: name.to_owned(), ..table })
}

/// Gives the side tables of a query what its last commits still owe them.
///
/// # Errors
/// `Invalid` when a table is not as declared; `Unavailable` when a store fails.
pub async fn settle(deps: &Deps, pipeline: &Pipeline, query: &QuerySpec) -> Result<()> {
    let spec = super::sink_of(pipeline, query)?;
    let owner = Owner::new(&pipeline.name, &query.name);
    let sink = DeltaSink::open(spec, owner.clone(), &deps.storage, Arc::clone(&deps.clock)).await?;
    of_query(deps, pipeline, query, spec, owner).roll_forward(&sink).await
}

/// The side tables that a query may write.
pub(crate) fn of_query(
    deps: &Deps,
    pipeline: &Pipeline,
    query: &QuerySpec,
    sink: &SinkSpec,
    owner: Owner,
) -> SideTables {
    let sources = pipeline.sources.iter().filter(|source| query.sources.contains(&source.name));
    let letters = sources.map(|source| letter::table(&letter::location(source, sink)));
    // Also when rows are not quarantined now: a commit from before the file was changed may owe it some.
    SideTables::new(deps, owner, letters, quarantine::table(sink))
}

/// Opens and holds the side tables of one query.
#[derive(Debug)]
pub(crate) struct SideTables {
    storage: Storage,
    clock: Arc<dyn Clock>,
    memory: Memory,
    owner: Owner,
    /// What may be written, by its location without secrets.
    specs: BTreeMap<String, SinkSpec>,
    /// Those of them that hold dead letters. They are settled last.
    letters: Vec<String>,
    /// Those that are open. The lock is held while one is opened or committed: a micro-batch that runs waits for its
    /// writer while the one before is committed.
    open: Mutex<BTreeMap<String, DeltaSink>>,
}

impl SideTables {
    /// The side tables of `owner`'s query; nothing is opened yet.
    fn new(deps: &Deps, owner: Owner, letters: impl Iterator<Item = SinkSpec>, quarantine: SinkSpec) -> Self {
        let mut specs: BTreeMap<String, SinkSpec> =
            letters.map(|spec| (storage::shown(&spec.location), spec)).collect();
        let letters = specs.keys().cloned().collect();
        specs.insert(storage::shown(&quarantine.location), quarantine);
        let (storage, clock, memory) = (deps.storage.clone(), Arc::clone(&deps.clock), deps.memory.clone());
        Self { storage, clock, memory, owner, specs, letters, open: Mutex::default() }
    }

    /// A writer for the table at `location`.
    ///
    /// # Errors
    /// `Invalid` when the table there is another one; `Unavailable` when the store fails.
    pub(crate) async fn writer(&self, location: &str) -> Result<SinkWriter> {
        let mut open = self.open.lock().await;
        Ok(self.table(&mut open, location, None).await?.writer(&self.memory))
    }

    /// Where the side tables lie that the file declares, whether they exist or not.
    pub(crate) fn locations(&self) -> impl Iterator<Item = &str> {
        self.specs.values().map(|spec| spec.location.as_str())
    }

    /// The upkeep of those that it is due for, now under way. They are kept as the sink is.
    pub(crate) async fn due(&self, sink: &TableUpkeep) -> Vec<TableUpkeep> {
        let mut open = self.open.lock().await;
        let due = open.values_mut().filter(|table| table.is_upkeep_due(&sink.spec));
        let noted = due.map(|table| {
            table.note_upkeep();
            sink.of_side(&table.spec().location)
        });
        noted.collect()
    }

    /// Commits to each side table what a sink's commit owes it.
    ///
    /// # Errors
    /// As [`SideTables::writer`].
    pub(crate) async fn settle(&self, commit: &SideCommit) -> Result<()> {
        let mut open = self.open.lock().await;
        let is_letters = |files: &&SideFiles| self.letters.contains(&files.table);
        let (last, first): (Vec<_>, Vec<_>) = commit.side.iter().partition(is_letters);
        for files in first.into_iter().chain(last) {
            let known = files.spec()?;
            fault_point::pass("side.before").await?;
            self.table(&mut open, &files.table, known).await?.settle(commit, files).await?;
            fault_point::pass("side.after").await?;
        }
        Ok(())
    }

    /// Makes good what the last commits of `sink` still owe: the crash that came in between may be long ago.
    ///
    /// # Errors
    /// As [`SideTables::settle`], and `Violated` when the log no longer says what is owed.
    pub(crate) async fn roll_forward(&self, sink: &DeltaSink) -> Result<()> {
        for marker in [self.owner.side(), self.owner.retry()] {
            if self.is_settled(sink, &marker).await? {
                continue;
            }
            if let Some(commit) = sink.side_commit(&marker).await? {
                self.settle(&commit).await?;
            }
        }
        Ok(())
    }

    /// Refuses side tables of a former life of the sink: what they hold would be taken for what the new one has not.
    ///
    /// # Errors
    /// `Invalid`, naming the table.
    pub(crate) async fn refuse_former_life(&self) -> Result<()> {
        let mut open = self.open.lock().await;
        for location in self.specs.keys() {
            let table = self.table(&mut open, location, None).await?;
            if table.txns().any(|(id, _)| self.owner.is_fenced_by(id)) {
                return Err(Error::invalid(format!(
                    "{} begins anew, but {location} holds records or rows of a table that is gone; delete it too, or \
                     keep it and name another with 'dead_letters' or 'quarantine'",
                    self.owner
                )));
            }
        }
        Ok(())
    }

    /// Whether the one table of dead letters says itself that all is done, as it is settled last: then the log is not
    /// searched.
    async fn is_settled(&self, sink: &DeltaSink, marker: &str) -> Result<bool> {
        let Some(number) = sink.txn(marker).filter(|number| *number != 0) else { return Ok(true) };
        let [location] = &self.letters[..] else { return Ok(false) };
        let mut open = self.open.lock().await;
        let table = self.table(&mut open, location, None).await?;
        Ok(table.txn(marker).is_some_and(|known| known >= number))
    }

    /// The table at `location`; where the file does not declare it, it is as `known`.
    async fn table<'o>(
        &self,
        open: &'o mut BTreeMap<String, DeltaSink>,
        location: &str,
        known: Option<SinkSpec>,
    ) -> Result<&'o mut DeltaSink> {
        let location = storage::shown(location);
        if !open.contains_key(&location) {
            // A commit from before the file was changed may name a table that the file no longer does.
            let spec = self.specs.get(&location).cloned().or(known).unwrap_or_else(|| letter::table(&location));
            let mut table = DeltaSink::open(&spec, self.owner.clone(), &self.storage, Arc::clone(&self.clock)).await?;
            table.add_columns().await?;
            open.insert(location.clone(), table);
        }
        open.get_mut(&location).ok_or_else(|| Error::unavailable(format!("table {location} is gone")))
    }
}
