//! The day as it would be: the batch jobs into files that nobody sees, their figures, and the checks of the file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use sha2::{Digest as _, Sha256};

use super::accounts::{Accounts, numbers};
use super::closed::{Closed, CompleteBy, FinalTable, Reconciled};
use super::land::{Landed, Landing};
use super::reconcile::Ground;
use super::staged::{StagedDate, date_value};
use super::tally::{Kept, drain};
use super::{Job, Known};
use crate::clock::Stopwatch;
use crate::content::RowsHash;
use crate::engine::{self, Staged, StandIn, StandIns};
use crate::error::{Error, Result};
use crate::fault_point;
use crate::lookup::Lookup;
use crate::pipeline::{LookupFormat, QueryKind, QuerySpec, SinkSpec};
use crate::sink::in_partition;
use crate::storage;

/// A day that adds up, and the files that have it.
pub(super) struct Prepared {
    pub(super) closed: Closed,
    /// In the order of the file.
    pub(super) staged: Vec<Staged>,
    /// What does not add up: then nothing may be sealed.
    pub(super) differences: Vec<String>,
    /// The number of each date's closing that it comes after.
    pub(super) after: BTreeMap<String, i64>,
}

/// Takes staged files away.
pub(super) async fn discard(staged: &[Staged]) {
    for staged in staged {
        staged.litter.remove().await;
    }
}

impl Job {
    /// What this closing has to account for.
    ///
    /// # Errors
    /// `Unavailable` when a store fails.
    pub(super) async fn grounds<'a>(
        &self,
        landings: &'a [Landing<'a>],
        landed: &'a [Landed],
        known: &Known,
    ) -> Result<Vec<Ground<'a>>> {
        let mut grounds = self.bare_grounds(landings, landed).await?;
        for ground in &mut grounds {
            let landed = ground.landed;
            let date = self.day.date.to_string();
            let accounts = Accounts::new(known, &date, landed, &ground.spec.time)?;
            self.find_ranges(ground, accounts).await?;
        }
        Ok(grounds)
    }

    /// The landing tables at their versions, and nothing else.
    ///
    /// # Errors
    /// `Unavailable` when a store fails.
    pub(super) async fn bare_grounds<'a>(
        &self,
        landings: &'a [Landing<'a>],
        landed: &'a [Landed],
    ) -> Result<Vec<Ground<'a>>> {
        let state = self.context()?.state();
        let mut grounds = Vec::new();
        for (landing, landed) in landings.iter().zip(landed) {
            let Some(spec) = &landing.sink.landing else { continue };
            let (lookup, deps) = (landing.sink.as_lookup(), &self.deps);
            let rows = Lookup::scanned(&lookup, landed.version, &deps.storage, &deps.memory, &state).await?;
            grounds.push(Ground {
                landing,
                spec,
                landed,
                rows,
                from: BTreeMap::new(),
                read: BTreeMap::new(),
                accounts: None,
            });
        }
        Ok(grounds)
    }

    /// The same with each Delta table that its jobs and checks look up at the version of now: all of them see one.
    ///
    /// # Errors
    /// `Invalid` when one is not there; `Unavailable` when a store fails.
    pub(super) async fn pinned(&self) -> Result<Job> {
        let mut pipeline = self.pipeline.as_ref().clone();
        let jobs = self.pipeline.queries.iter().filter(|query| query.kind == QueryKind::Batch);
        let read: BTreeSet<&String> = jobs
            .flat_map(|job| &job.lookups)
            .chain(self.pipeline.checks.iter().flat_map(|check| &check.lookups))
            .collect();
        let state = self.context()?.state();
        for lookup in pipeline.lookups.iter_mut().filter(|lookup| read.contains(&lookup.name)) {
            if lookup.format == LookupFormat::Delta && lookup.version.is_none() {
                lookup.version = Lookup::version_now(lookup, &self.deps.storage, &state).await?.parse().ok();
            }
        }
        Ok(Job { pipeline: Arc::new(pipeline), ..self.clone() })
    }

    /// Runs the jobs, and holds their results against the figures and the checks.
    ///
    /// # Errors
    /// `Violated` when a row breaks a contract or is of another date, `Unavailable` when a store fails; the files are
    /// taken away then.
    pub(super) async fn prepare(
        &self,
        finals: &[(&SinkSpec, &QuerySpec)],
        grounds: &[Ground<'_>],
        known: &Known,
        complete_by: CompleteBy,
    ) -> Result<Prepared> {
        let mut staged = Vec::new();
        match self.try_prepare(finals, grounds, &mut staged).await {
            Ok((tables, reconciled, differences)) => {
                let closed = self.closed(known, complete_by, &staged, tables, reconciled);
                Ok(Prepared { closed, staged, differences, after: numbers(known) })
            }
            Err(error) => {
                discard(&staged).await;
                Err(error)
            }
        }
    }

    async fn try_prepare(
        &self,
        finals: &[(&SinkSpec, &QuerySpec)],
        grounds: &[Ground<'_>],
        staged: &mut Vec<Staged>,
    ) -> Result<(Vec<FinalTable>, Vec<Reconciled>, Vec<String>)> {
        let mut stand_ins = StandIns::new();
        for ground in grounds {
            let stand_in = StandIn { provider: ground.rows.clone(), version: Some(ground.landed.version) };
            stand_ins.insert(ground.landed.table.clone(), stand_in);
        }
        let date = self.day.date.to_string();
        let (mut tables, mut reconciled, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
        for (sink, query) in finals {
            self.refuse_stopped()?;
            let watch = Stopwatch::start();
            let done = engine::stage(&self.deps, &self.pipeline, query, self.deps.clock.now(), &stand_ins).await?;
            staged.push(done);
            let Some(done) = staged.last() else { continue };
            tracing::debug!(table = sink.name, seconds = watch.elapsed().as_secs_f64(), "staged");
            fault_point::pass("close.stage").await?;
            self.refuse_other_dates(sink, done, &date)?;
            let files = StagedDate { sink, version: done.sink.version(), adds: &done.adds };
            let state = self.context()?.state();
            let stand_in = files.table(&self.deps, &state, &date_value(&date)?).await?;
            stand_ins.insert(sink.name.clone(), stand_in);
            let ground = grounds.iter().find(|ground| Some(&ground.landed.table) == sink.rows_of.as_ref());
            let (hash, kept) = self.read_back(&files, ground).await?;
            tracing::debug!(table = sink.name, seconds = watch.elapsed().as_secs_f64(), "read back");
            tables.push(FinalTable {
                table: sink.name.clone(),
                location: storage::shown(&sink.location),
                rows: hash.rows(),
                files: done.adds.len(),
                sha256: hash.sha256(&sink.contract.arrow_schema()),
            });
            if hash.rows() != done.rows.written {
                let (back, written) = (hash.rows(), done.rows.written);
                wrong.push(format!("{}: {written} rows were written, and {back} are read back", sink.name));
            }
            if let Some(ground) = ground {
                let (figures, differences) = self.reconcile(ground, sink, kept).await?;
                reconciled.push(figures);
                wrong.extend(differences);
                tracing::debug!(table = sink.name, seconds = watch.elapsed().as_secs_f64(), "reconciled");
            }
        }
        // Checks are about a day that adds up.
        if wrong.is_empty() {
            wrong = engine::broken_checks(&self.deps, &self.pipeline, &stand_ins).await?;
        }
        fault_point::pass("close.checked").await?;
        Ok((tables, reconciled, wrong))
    }

    /// Refuses rows of other dates: a close writes one.
    fn refuse_other_dates(&self, sink: &SinkSpec, staged: &Staged, date: &str) -> Result<()> {
        let column = sink.date_column().unwrap_or_default();
        let other = staged.adds.iter().find(|add| !in_partition(&add.partition_values, column, date));
        let Some(other) = other else { return Ok(()) };
        let found = other.partition_values.get(column).and_then(Option::as_deref).unwrap_or("NULL");
        Err(Error::violated(format!(
            "query {}: it gave rows of {column} = {found}, and {date} is being closed. Nothing was committed; write \
             $date into that column",
            sink.name
        )))
    }

    /// What the staged files say, read once: their hash, and which records are kept in them.
    async fn read_back(&self, files: &StagedDate<'_>, ground: Option<&Ground<'_>>) -> Result<(RowsHash, Kept)> {
        let rows = self.context()?.read_table(files.rows(&self.deps)?)?;
        let sums = ground.map(|ground| ground.spec.sums.clone());
        let step = move |(hash, kept): &mut (RowsHash, Kept), batch: &RecordBatch| {
            hash.add(batch)?;
            sums.as_ref().map_or(Ok(()), |sums| kept.add(batch, sums))
        };
        let (mut hash, mut kept) = (RowsHash::default(), Kept::default());
        for (some, more) in drain(rows, step).await? {
            hash.merge(&some);
            kept.merge(more);
        }
        Ok((hash, kept))
    }

    fn closed(
        &self,
        known: &Known,
        complete_by: CompleteBy,
        staged: &[Staged],
        tables: Vec<FinalTable>,
        reconciled: Vec<Reconciled>,
    ) -> Closed {
        let date = self.day.date.to_string();
        let before = known.get(&date).map(|closing| closing.closed.closing);
        let mut content = Sha256::new();
        for table in &tables {
            content.update(format!("{}\n{}\n", table.table, table.sha256));
        }
        Closed {
            job: self.pipeline.name.clone(),
            date,
            closing: before.unwrap_or(0) + 1,
            reopens: before,
            why: self.reopen.clone(),
            zone: super::zone_of(&self.pipeline).to_owned(),
            day_start: self.day.start,
            day_end: self.day.end,
            lateness_seconds: self.lateness.as_secs(),
            complete_by,
            closed_at: self.deps.clock.now(),
            content_sha256: hex::encode(content.finalize()),
            pipeline_sha256: self.pipeline.sha256.clone(),
            models: staged.iter().flat_map(|staged| staged.models.iter().cloned()).collect(),
            lookups: staged.iter().flat_map(|staged| staged.lookups.iter().cloned()).collect(),
            tables,
            reconciled,
            checks: self.pipeline.checks.len(),
        }
    }

    pub(super) fn refuse_stopped(&self) -> Result<()> {
        if self.stop.requested() {
            return Err(Error::unavailable("stopped before the day was closed; running it again is safe"));
        }
        Ok(())
    }
}
