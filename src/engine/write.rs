//! A plan's rows, checked and written: one task and one writer for each of the plan's partitions.

use std::sync::Arc;

use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use futures::StreamExt;
use tokio::task::JoinSet;

use crate::contract::{ContractEnforcer, Violation};
use crate::error::{Error, Result};
use crate::sink::{Add, SinkWriter};

/// Runs each partition of `plan` into the writer of its number. Gives the writers and how many rows the plan produced.
///
/// # Errors
/// The first error of any partition, after the files of all of them were abandoned.
pub(crate) async fn write_all(
    plan: &Arc<dyn ExecutionPlan>,
    context: &Arc<TaskContext>,
    enforcer: &Arc<ContractEnforcer>,
    files: Vec<SinkWriter>,
) -> Result<(Vec<SinkWriter>, u64)> {
    let mut tasks: JoinSet<Result<(SinkWriter, u64)>> = JoinSet::new();
    for (partition, writer) in files.into_iter().enumerate() {
        let (plan, context, enforcer) = (Arc::clone(plan), Arc::clone(context), Arc::clone(enforcer));
        tasks.spawn(write_partition(plan, partition, context, enforcer, writer));
    }
    let mut writers = Vec::new();
    let mut produced = 0;
    let mut failed: Option<Error> = None;
    while let Some(done) = tasks.join_next().await {
        let error = match done {
            Ok(Ok((writer, rows))) => {
                writers.push(writer);
                produced += rows;
                continue;
            }
            Ok(Err(error)) => error,
            Err(stopped) => Error::unavailable(format!("a task of the plan failed: {stopped}; run again")),
        };
        failed.get_or_insert(error);
        tasks.abort_all();
    }
    let Some(error) = failed else { return Ok((writers, produced)) };
    for writer in writers {
        writer.abort().await;
    }
    Err(error)
}

async fn write_partition(
    plan: Arc<dyn ExecutionPlan>,
    partition: usize,
    context: Arc<TaskContext>,
    enforcer: Arc<ContractEnforcer>,
    mut writer: SinkWriter,
) -> Result<(SinkWriter, u64)> {
    match drain(plan.as_ref(), partition, context, &enforcer, &mut writer).await {
        Ok(rows) => Ok((writer, rows)),
        Err(error) => {
            writer.abort().await;
            Err(error)
        }
    }
}

async fn drain(
    plan: &dyn ExecutionPlan,
    partition: usize,
    context: Arc<TaskContext>,
    enforcer: &ContractEnforcer,
    writer: &mut SinkWriter,
) -> Result<u64> {
    let mut stream = plan.execute(partition, context)?;
    let mut rows = 0;
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        rows += batch.num_rows() as u64;
        let batch = enforcer.enforce(batch).map_err(violated)?;
        writer.write(&batch).await?;
    }
    Ok(rows)
}

/// The error of a row that breaks the contract.
pub(crate) fn violated(violation: Violation) -> Error {
    Error::violated(format!(
        "{violation}; nothing of this micro-batch was committed. Mend the data or the query, then run again"
    ))
    .caused_by(violation)
}

/// Closes files: what the commit adds.
///
/// # Errors
/// `Unavailable` when the store fails.
pub(crate) async fn close(writers: Vec<SinkWriter>) -> Result<Vec<Add>> {
    let mut tasks = JoinSet::new();
    for writer in writers {
        tasks.spawn(writer.close());
    }
    let mut adds = Vec::new();
    while let Some(done) = tasks.join_next().await {
        adds.extend(done.map_err(|e| Error::unavailable(format!("a writer failed: {e}; run again")))??);
    }
    Ok(adds)
}
