//! A plan's rows, checked and written: one task and one writer for each of the plan's partitions.

use std::sync::Arc;

use arrow::array::RecordBatch;
use chrono::{DateTime, Utc};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use futures::StreamExt;
use tokio::task::JoinSet;

use super::quarantine;
use super::side::SideTables;
use super::topic::read_what_is_left;
use crate::clock;
use crate::contract::{Broken, ContractEnforcer, Divided, Violation, watch_casts};
use crate::error::{Alarm, Error, Result};
use crate::fault_point;
use crate::observe::Rows;
use crate::pipeline::{BROKEN_ROWS_FREE, OnViolation, SinkSpec};
use crate::sink::{Add, Litter, SideFiles, SinkWriter, rows_of};

/// What holds rows to the contract, and where those go that break it.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    /// Judges the rows.
    pub(crate) enforcer: Arc<ContractEnforcer>,
    /// The sink, which says what becomes of a row that breaks the contract.
    pub(crate) sink: Arc<SinkSpec>,
    /// Has the quarantine table.
    pub(crate) sides: Arc<SideTables>,
    /// The clock of the micro-batch.
    pub(crate) clock: DateTime<Utc>,
    /// What is written, until a commit may name it.
    pub(crate) litter: Litter,
}

impl Gate {
    /// A writer for the side table at `location`.
    ///
    /// # Errors
    /// As [`SideTables::writer`].
    pub(crate) async fn side_writer(&self, location: &str) -> Result<SinkWriter> {
        Ok(self.sides.writer(location).await?.noting(&self.litter))
    }
}

/// A plan's rows on their way to a commit.
#[derive(Debug)]
pub(crate) struct Written {
    /// The writers of the sink, still open.
    writers: Vec<SinkWriter>,
    /// Rows that the plan gave.
    pub(crate) produced: u64,
    /// Rows that broke the contract and were left out.
    pub(crate) dropped: u64,
    /// Rows that broke the contract and are kept apart.
    pub(crate) quarantined: u64,
    /// Their writers, still open.
    quarantine: Vec<SinkWriter>,
    /// What the first one of them broke.
    first: Option<String>,
}

/// Runs each partition of `plan` into the writer of its number, and reads its topics to their ends.
///
/// # Errors
/// The first error of any partition, after the files of all of them were abandoned.
pub(crate) async fn write_all(
    plan: &Arc<dyn ExecutionPlan>,
    context: &Arc<TaskContext>,
    gate: &Gate,
    files: Vec<SinkWriter>,
) -> Result<Written> {
    let mut tasks: JoinSet<Result<Written>> = JoinSet::new();
    for (partition, writer) in files.into_iter().enumerate() {
        let (plan, context, gate) = (Arc::clone(plan), Arc::clone(context), gate.clone());
        tasks.spawn(async move { Written::new(vec![writer]).drain(plan.as_ref(), partition, context, &gate).await });
    }
    let mut all = Written::new(Vec::new());
    let mut failed: Option<Error> = None;
    while let Some(done) = tasks.join_next().await {
        let error = match done {
            Ok(Ok(part)) => {
                all.add(part);
                continue;
            }
            Ok(Err(error)) => error,
            Err(stopped) => Error::unavailable(format!("a task of the plan failed: {stopped}; run again")),
        };
        failed.get_or_insert(error);
        tasks.abort_all();
    }
    let mut failed = failed.or_else(|| all.too_many(&gate.sink));
    if failed.is_none() {
        // A join with nothing to join asks for no record: broken ones have to be found all the same.
        failed = read_what_is_left(plan.as_ref()).await.err();
    }
    let Some(error) = failed else { return Ok(all) };
    all.abort().await;
    Err(error)
}

impl Written {
    fn new(writers: Vec<SinkWriter>) -> Self {
        Self { writers, produced: 0, dropped: 0, quarantined: 0, quarantine: Vec::new(), first: None }
    }

    fn add(&mut self, part: Written) {
        self.writers.extend(part.writers);
        self.produced += part.produced;
        self.dropped += part.dropped;
        self.quarantined += part.quarantined;
        self.quarantine.extend(part.quarantine);
        self.first = self.first.take().or(part.first);
    }

    /// Ends the uploads under way.
    pub(crate) async fn abort(self) {
        for writer in self.writers.into_iter().chain(self.quarantine) {
            writer.abort().await;
        }
    }

    /// Runs one partition into its one writer.
    async fn drain(
        mut self,
        plan: &dyn ExecutionPlan,
        partition: usize,
        context: Arc<TaskContext>,
        gate: &Gate,
    ) -> Result<Self> {
        match self.read(plan, partition, context, gate).await {
            Ok(()) => Ok(self),
            Err(error) => {
                self.abort().await;
                Err(error)
            }
        }
    }

    async fn read(
        &mut self,
        plan: &dyn ExecutionPlan,
        partition: usize,
        context: Arc<TaskContext>,
        gate: &Gate,
    ) -> Result<()> {
        let mut stream = plan.execute(partition, context)?;
        while let Some(batch) = stream.next().await {
            let batch = batch?;
            fault_point::pass("execute").await?;
            self.produced += batch.num_rows() as u64;
            let Divided { kept, broken } = judge(&gate.enforcer, &gate.sink, batch)?;
            if let Some(broken) = broken {
                self.set_apart(&broken, gate).await?;
            }
            if let Some(writer) = self.writers.first_mut() {
                fault_point::pass("write").await?;
                writer.write(&kept).await?;
            }
        }
        Ok(())
    }

    async fn set_apart(&mut self, broken: &Broken, gate: &Gate) -> Result<()> {
        let count = broken.rows.num_rows() as u64;
        if gate.sink.on_violation == OnViolation::Drop {
            self.dropped += count;
            return Ok(());
        }
        self.quarantined += count;
        self.first.get_or_insert_with(|| broken.violations.first().map(|names| names.join(", ")).unwrap_or_default());
        let writer = match self.quarantine.first_mut() {
            Some(writer) => writer,
            None => {
                self.quarantine.push(gate.side_writer(&quarantine::location(&gate.sink)).await?);
                &mut self.quarantine[0]
            }
        };
        fault_point::pass("quarantine.write").await?;
        writer.write(&quarantine::rows(&gate.sink, broken, gate.clock)?).await
    }

    /// The error of a micro-batch of which too much would go to the quarantine table.
    fn too_many(&self, sink: &SinkSpec) -> Option<Error> {
        let (count, of) = (self.quarantined, self.produced);
        if of <= BROKEN_ROWS_FREE || count as f64 <= sink.quarantine_limit * of as f64 {
            return None;
        }
        let error = Error::violated(format!(
            "{count} of {of} rows of a micro-batch break the contract of {}, and quarantine_limit is {}%; the first \
             one breaks {}. Nothing of this micro-batch was committed. Mend the data, the query or the contract, or \
             raise `quarantine_limit`, then run again",
            sink.name,
            sink.quarantine_limit * 100.0,
            self.first.as_deref().unwrap_or_default()
        ));
        Some(error.alarming(Alarm::LimitPassed))
    }

    /// What became of the rows, by the files that hold them.
    ///
    /// # Errors
    /// `Unavailable` when a file says nothing of its rows.
    pub(crate) fn rows(&self, adds: &[Add], quarantine: Option<&SideFiles>) -> Result<Rows> {
        let quarantined = quarantine.map_or(Ok(0), |files| rows_of(&files.add))?;
        Ok(Rows { produced: self.produced, written: rows_of(adds)?, quarantined, dropped: self.dropped })
    }

    /// Takes the sink's files, closed: what the commit adds.
    ///
    /// # Errors
    /// `Unavailable` when the store fails.
    pub(crate) async fn close(&mut self) -> Result<Vec<Add>> {
        close(std::mem::take(&mut self.writers)).await
    }

    /// Takes the files of the rows that were kept apart, closed; `None` when there is none.
    ///
    /// # Errors
    /// `Unavailable` when the store fails.
    pub(crate) async fn close_quarantine(&mut self, sink: &SinkSpec) -> Result<Option<SideFiles>> {
        let add = close(std::mem::take(&mut self.quarantine)).await?;
        if add.is_empty() {
            return Ok(None);
        }
        fault_point::pass("quarantine.close").await?;
        let table = quarantine::table(sink);
        SideFiles::new(&table, add).with_schema(&table).map(Some)
    }
}

/// The plan of a query so that a cast that fails breaks a row and not the micro-batch, where `sink` sets such rows
/// apart.
///
/// # Errors
/// None that the pipeline's check has not refused before.
pub(crate) fn watched(plan: LogicalPlan, sink: &SinkSpec) -> Result<LogicalPlan> {
    match sink.on_violation {
        OnViolation::Fail => Ok(plan),
        OnViolation::Drop | OnViolation::Quarantine => watch_casts(plan),
    }
}

/// The rows that keep the contract, and those that break it where `sink` does not end the run for them.
///
/// # Errors
/// `Violated` when a row breaks the contract and the run ends for that.
pub(crate) fn judge(enforcer: &ContractEnforcer, sink: &SinkSpec, rows: RecordBatch) -> Result<Divided> {
    match sink.on_violation {
        OnViolation::Fail => Ok(Divided { kept: enforcer.enforce(rows).map_err(violated)?, broken: None }),
        OnViolation::Drop | OnViolation::Quarantine => {
            enforcer.divide(rows).map_err(|e| Error::unavailable(format!("rows cannot be divided: {e}")))
        }
    }
}

/// The error of a row that breaks the contract.
pub(crate) fn violated(violation: Violation) -> Error {
    Error::violated(format!(
        "{violation}; nothing of this micro-batch was committed. Mend the data or the query, then run again"
    ))
    .caused_by(violation)
    .alarming(Alarm::ContractBroken)
}

/// A vacuum leaves files alone for a day at least; those of a micro-batch have to be named before.
const LONGEST_BATCH_MS: i64 = 12 * 60 * 60 * 1000;

/// Refuses files that nobody has named for so long that they may have been vacuumed. Their times are the machine's,
/// whatever the clock of the run is.
///
/// # Errors
/// `Unavailable` for a file of more than twelve hours.
pub(crate) fn refuse_old(adds: &[Add]) -> Result<()> {
    let now = clock::system().now();
    if adds.iter().all(|add| now.timestamp_millis() - add.modification_time < LONGEST_BATCH_MS) {
        return Ok(());
    }
    Err(Error::unavailable(
        "a micro-batch took longer than 12 hours, and what it wrote may have been vacuumed; nothing was committed. \
         Make it smaller (`max_rows`) and run it again",
    ))
}

/// Closes files, side by side.
async fn close(writers: Vec<SinkWriter>) -> Result<Vec<Add>> {
    let mut tasks = JoinSet::new();
    for writer in writers {
        tasks.spawn(writer.close());
    }
    let mut adds = Vec::new();
    let mut failed: Option<Error> = None;
    // All of them come to an end: a file that is still being written cannot be taken away.
    while let Some(done) = tasks.join_next().await {
        match done.map_err(|e| Error::unavailable(format!("a writer failed: {e}; run again"))).flatten() {
            Ok(more) => adds.extend(more),
            Err(error) => _ = failed.get_or_insert(error),
        }
    }
    failed.map_or(Ok(adds), Err)
}
