//! The checks of a file: bare `SELECT`s that must return no rows, after the queries of a bounded run.

use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;

use super::Deps;
use super::session::{QuerySession, SessionParts, StandIns};
use crate::error::{Alarm, Error, Result};
use crate::pipeline::{CheckSpec, Pipeline};

/// Rows of a broken check that are shown.
const SHOWN: usize = 10;

/// Runs every check, each on a fresh reading of its tables.
///
/// # Errors
/// `Violated` with the rows of each check that returned any.
pub(crate) async fn run(deps: &Deps, pipeline: &Pipeline) -> Result<()> {
    let broken = broken_checks(deps, pipeline, &StandIns::new()).await?;
    if broken.is_empty() {
        return Ok(());
    }
    Err(Error::violated(format!(
        "{}\nThe tables are committed as they are. Mend the data or the query that made these rows, then run again",
        broken.join("\n")
    ))
    .alarming(Alarm::ContractBroken))
}

/// What each check says that returns any rows, the first of them shown. Sinks that they read are those of `stand_ins`,
/// where there is one.
///
/// # Errors
/// What reading the tables returns.
pub async fn broken_checks(deps: &Deps, pipeline: &Pipeline, stand_ins: &StandIns) -> Result<Vec<String>> {
    let mut broken = Vec::new();
    for check in &pipeline.checks {
        broken.extend(rows_of(deps, pipeline, check, stand_ins).await?);
    }
    Ok(broken)
}

async fn rows_of(deps: &Deps, pipeline: &Pipeline, check: &CheckSpec, stand_ins: &StandIns) -> Result<Option<String>> {
    let tables = check.sources.iter().chain(&check.lookups).cloned().collect();
    let parts = SessionParts::everything(pipeline).only(&tables).over(stand_ins);
    let session = QuerySession::new(deps, pipeline, parts).await?;
    let state = session.state(deps.clock.now())?;
    let logical = pipeline.plan_check(check, &state).await?;
    let (_, batches) = session.collect(&state, &logical).await?;
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    if rows == 0 {
        return Ok(None);
    }
    let mut left = SHOWN;
    let shown: Vec<RecordBatch> = batches
        .iter()
        .map(|batch| {
            let take = batch.num_rows().min(left);
            left -= take;
            batch.slice(0, take)
        })
        .collect();
    let table = pretty_format_batches(&shown).map_err(|e| Error::unavailable(e.to_string()))?;
    Ok(Some(format!(
        "{}:{}: this check must return no rows and returned {rows}, the first {} of them:\n{table}",
        pipeline.file.display(),
        check.line,
        rows.min(SHOWN)
    )))
}
