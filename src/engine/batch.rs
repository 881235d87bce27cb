//! A batch job: a query over tables alone, whose result replaces its sink or the partitions that it touches.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, execute_stream};
use futures::StreamExt as _;

use super::commit_info::CommitInfo;
use super::session::{QuerySession, SessionParts, StandIns};
use super::side::SideTables;
use super::upkeep::Upkeep;
use super::write::{Gate, Written, judge, watched, write_all};
use super::{Deps, side};
use crate::clock::Stopwatch;
use crate::contract::{ContractEnforcer, Divided};
use crate::error::{Error, Result};
use crate::observe::{Durations, Progress, Records, Rows, SinkProgress, check_conservation};
use crate::pipeline::{Pipeline, QuerySpec, SinkFormat, SinkSpec};
use crate::sink::{Add, Created, DeltaSink, Litter, Owner, ParquetFile, SinkCommit};

/// Runs `spec` once and commits its result. Running it again gives the same table.
///
/// # Errors
/// `Violated` when a row breaks the contract, `Unavailable` when the store fails.
pub(crate) async fn run(deps: &Deps, pipeline: &Arc<Pipeline>, spec: &QuerySpec) -> Result<()> {
    let watch = Stopwatch::start();
    let clock = deps.clock.now();
    let sink_spec = super::sink_of(pipeline, spec)?;
    if sink_spec.format == SinkFormat::Parquet {
        return to_parquet(deps, pipeline, spec, sink_spec, clock, watch).await;
    }
    let Staged { mut sink, adds, rows, lookups, models, sides, .. } =
        stage(deps, pipeline, spec, clock, &StandIns::new()).await?;
    let info = CommitInfo {
        batch: None,
        trigger: None,
        clock,
        sources: Vec::new(),
        lost: Vec::new(),
        lookups: &lookups,
        models: &models,
        side: Vec::new(),
        records: Records::default(),
        rows,
    };
    let info = info.of(pipeline, &spec.name);
    let commit = SinkCommit { adds, txns: Vec::new(), attempt: deps.clock.new_id(), info };
    sink.add_columns().await?;
    let version = if sink.exists() {
        sink.replace(commit).await?.version
    } else {
        match sink.create(commit.clone()).await? {
            Created::Ours(committed) => committed.version,
            Created::Another => {
                let attempt = deps.clock.new_id();
                sink.replace(SinkCommit { attempt, ..commit }).await?.version
            }
        }
    };
    let mut upkeep = Upkeep::new(deps, sink.owner().clone(), sink_spec);
    upkeep.begin(&mut sink, &sides).await;
    tell(deps, pipeline, sink_spec, clock, watch, (version as i64, rows));
    upkeep.finish().await;
    Ok(())
}

/// The result of a batch job in files that no version names yet.
#[derive(Debug)]
pub struct Staged {
    /// The table that they are for, as it was before the job ran.
    pub sink: DeltaSink,
    /// The files.
    pub adds: Vec<Add>,
    /// What became of the rows.
    pub rows: Rows,
    /// Name and version of each table that was read.
    pub lookups: Vec<(String, String)>,
    /// Name and SHA-256 of each model.
    pub models: Vec<(String, String)>,
    /// Takes the files away, as long as nothing names them.
    pub litter: Litter,
    sides: Arc<SideTables>,
}

/// Runs a batch job into files beside its table, which stays as it is. Sinks that it reads are those of `stand_ins`,
/// where there is one. What does not fit into memory is run once more, sorted on disk.
///
/// # Errors
/// `Violated` when a row breaks the contract, `Unavailable` when the store fails; the files are taken away then.
pub async fn stage(
    deps: &Deps,
    pipeline: &Arc<Pipeline>,
    spec: &QuerySpec,
    clock: DateTime<Utc>,
    stand_ins: &StandIns,
) -> Result<Staged> {
    let parts = SessionParts::of_query(pipeline, spec, true).over(stand_ins);
    let staged = match try_stage(deps, pipeline, spec, clock, parts.clone().hashing()).await {
        Err(error) if error.is_exhausted() => {
            let name = &spec.name;
            deps.observer.note(&format!("query {name}: it does not fit into memory, and is sorted on disk: slower"));
            try_stage(deps, pipeline, spec, clock, parts).await
        }
        staged => staged,
    };
    staged.map_err(|error| error.within(format!("query {}", spec.name)))
}

async fn try_stage(
    deps: &Deps,
    pipeline: &Arc<Pipeline>,
    spec: &QuerySpec,
    clock: DateTime<Utc>,
    parts: SessionParts,
) -> Result<Staged> {
    let sink_spec = super::sink_of(pipeline, spec)?;
    let owner = Owner::new(&pipeline.name, &spec.name);
    let sides = Arc::new(side::of_query(deps, pipeline, spec, sink_spec, owner.clone()));
    deps.storage.prove_put_if_absent(&sink_spec.location, deps.clock.new_id()).await?;
    let sink = DeltaSink::open(sink_spec, owner, &deps.storage, Arc::clone(&deps.clock)).await?;
    let session = QuerySession::new(deps, pipeline, parts).await?;
    session.announce_models(&sink, &spec.name, deps.observer.as_ref()).await?;
    let state = session.state(clock)?;
    let enforcer = Arc::new(ContractEnforcer::new(&sink_spec.contract, sink.table_checks(), &state)?);
    let logical = watched(pipeline.plan_query(spec, &state).await?, sink_spec)?;
    let plan = state.create_physical_plan(&logical).await?;
    let litter = Litter::default();
    let sink_of_gate = Arc::new(sink_spec.clone());
    let gate = Gate { enforcer, sink: sink_of_gate, sides: Arc::clone(&sides), clock, litter: litter.clone() };
    let counted = match write(deps, &plan, &session, &gate, &sink).await {
        Ok((adds, written)) => written.rows(&adds, None).and_then(|rows| {
            check_conservation(Records::default(), rows)?;
            Ok((adds, rows))
        }),
        Err(error) => Err(error),
    };
    match counted {
        Ok((adds, rows)) => {
            let (lookups, models) = (session.lookup_versions(), session.model_versions());
            Ok(Staged { sink, adds, rows, lookups, models, litter, sides })
        }
        Err(error) => {
            litter.remove().await;
            Err(error)
        }
    }
}

/// Tells of a job that is done.
fn tell(
    deps: &Deps,
    pipeline: &Pipeline,
    sink: &SinkSpec,
    clock: DateTime<Utc>,
    watch: Stopwatch,
    (version, rows): (i64, Rows),
) {
    let millis = watch.elapsed().as_secs_f64() * 1000.0;
    deps.observer.progress(&Progress {
        name: sink.name.clone(),
        pipeline: pipeline.name.clone(),
        timestamp: clock,
        batch_id: 0,
        version,
        num_input_rows: 0,
        input_rows_per_second: 0.0,
        processed_rows_per_second: 0.0,
        duration_ms: Durations { add_batch: millis, trigger_execution: millis, ..Durations::default() },
        lag: 0,
        records: Records::default(),
        rows,
        sources: Vec::new(),
        sink: SinkProgress { description: sink.location.clone(), num_output_rows: rows.written },
    });
}

/// Runs `spec` once into a Parquet file of its own, which then takes the place of the one that is there.
async fn to_parquet(
    deps: &Deps,
    pipeline: &Arc<Pipeline>,
    spec: &QuerySpec,
    sink: &SinkSpec,
    clock: DateTime<Utc>,
    watch: Stopwatch,
) -> Result<()> {
    let session = QuerySession::new(deps, pipeline, SessionParts::of_query(pipeline, spec, true)).await?;
    let state = session.state(clock)?;
    let enforcer = ContractEnforcer::new(&sink.contract, &[], &state)?;
    let logical = watched(pipeline.plan_query(spec, &state).await?, sink)?;
    let plan = state.create_physical_plan(&logical).await?;
    let within = |error: Error| error.within(format!("query {}", spec.name));
    let mut file = ParquetFile::create(sink, &deps.storage, &deps.memory, deps.clock.new_id()).map_err(within)?;
    let filled = fill(&mut file, plan, &session, &enforcer, sink).await;
    let rows = match filled {
        Ok(rows) => rows,
        Err(error) => {
            file.abandon().await;
            return Err(within(error));
        }
    };
    check_conservation(Records::default(), rows)?;
    file.finish().await.map_err(within)?;
    tell(deps, pipeline, sink, clock, watch, (0, rows));
    Ok(())
}

/// What a plan gives, into a file.
async fn fill(
    file: &mut ParquetFile,
    plan: Arc<dyn ExecutionPlan>,
    session: &QuerySession,
    enforcer: &ContractEnforcer,
    sink: &SinkSpec,
) -> Result<Rows> {
    let mut stream = execute_stream(plan, session.task_context())?;
    let mut rows = Rows::default();
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        rows.produced += batch.num_rows() as u64;
        let Divided { kept, broken } = judge(enforcer, sink, batch)?;
        rows.dropped += broken.map_or(0, |broken| broken.rows.num_rows() as u64);
        rows.written += kept.num_rows() as u64;
        file.write(&kept).await?;
    }
    Ok(rows)
}

/// Writes what a plan gives to files, closed.
async fn write(
    deps: &Deps,
    plan: &Arc<dyn ExecutionPlan>,
    session: &QuerySession,
    gate: &Gate,
    sink: &DeltaSink,
) -> Result<(Vec<Add>, Written)> {
    let files = (0..plan.output_partitioning().partition_count())
        .map(|_| sink.writer(&deps.memory).noting(&gate.litter))
        .collect();
    let mut written = write_all(plan, &session.task_context(), gate, files).await?;
    Ok((written.close().await?, written))
}
