//! A run: every streaming query in a loop of its own until its end or a stop, then batch jobs and checks.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};

use super::alert::Alerts;
use super::query::{Ends, StreamingQuery};
use super::runner::{Planned, Ran, Taken};
use super::{Deps, Stop, batch, checks};
use crate::clock::Stopwatch;
use crate::error::{Error, Result};
use crate::pipeline::{Pipeline, QueryKind, QuerySpec};
use crate::sink::Litter;
use crate::storage::Absence;

/// How long a query with `trigger = '0 seconds'` waits before it asks again for new records.
const IDLE_POLL: Duration = Duration::from_millis(10);

/// What to run.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// Up to the end offsets of the moment it started, then batch jobs and checks, then return.
    pub available_now: bool,
    /// Only this query.
    pub query: Option<String>,
    /// Also what only a close of books writes, when the file was given a date: for tables of one's own.
    pub closes: bool,
}

/// Runs a pipeline: continuously until `stop`, or with `available_now` to the ends of its topics.
///
/// # Errors
/// The first error of any query; the other queries are stopped, each after the micro-batch under way.
pub async fn run(pipeline: Arc<Pipeline>, options: RunOptions, deps: Deps, stop: Stop) -> Result<()> {
    let chosen = chosen(&pipeline, &options)?;
    let url = pipeline.settings.alert_url.as_ref();
    let alerts = Alerts::new(&pipeline.name, url, Arc::clone(&deps.clock), Arc::clone(&deps.observer));
    let result = run_chosen(&pipeline, &options, &chosen, deps, stop, &alerts).await;
    alerts.finish().await;
    result
}

/// Runs these streaming queries of a pipeline to the ends of their topics at the moment it starts.
///
/// # Errors
/// As [`run`].
pub async fn land(pipeline: Arc<Pipeline>, queries: &[QuerySpec], deps: Deps, stop: Stop) -> Result<()> {
    let url = pipeline.settings.alert_url.as_ref();
    // That another instance does the same is no alarm: there may be several.
    let alerts = Alerts::without_fences(&pipeline.name, url, Arc::clone(&deps.clock), Arc::clone(&deps.observer));
    let result = run_streaming(&pipeline, true, queries, &deps, stop, &alerts).await;
    alerts.finish().await;
    result
}

/// Runs the streaming queries of a pipeline continuously until `stop`, and leaves batch jobs and checks aside.
///
/// # Errors
/// As [`run`].
pub async fn follow(pipeline: Arc<Pipeline>, deps: Deps, stop: Stop) -> Result<()> {
    let alerts = Alerts::new(&pipeline.name, None, Arc::clone(&deps.clock), Arc::clone(&deps.observer));
    let result = run_streaming(&pipeline, false, &pipeline.queries, &deps, stop, &alerts).await;
    alerts.finish().await;
    result
}

/// Runs the batch jobs and the checks of a pipeline once, as a bounded run does at its end; those of a close of books
/// only when there is a date.
///
/// # Errors
/// The first error of a batch job, or all checks that are broken.
pub async fn conclude(pipeline: &Arc<Pipeline>, deps: &Deps) -> Result<()> {
    if pipeline.is_closing() && pipeline.day.is_none() {
        return Ok(());
    }
    let alerts = Alerts::new(&pipeline.name, None, Arc::clone(&deps.clock), Arc::clone(&deps.observer));
    let result = run_at_end(pipeline, &pipeline.queries, true, deps, &alerts).await;
    alerts.finish().await;
    result
}

/// The batch jobs among these queries, then the checks.
async fn run_at_end(
    pipeline: &Arc<Pipeline>,
    chosen: &[QuerySpec],
    with_checks: bool,
    deps: &Deps,
    alerts: &Alerts,
) -> Result<()> {
    for spec in chosen.iter().filter(|q| q.kind == QueryKind::Batch) {
        batch::run(deps, pipeline, spec).await.inspect_err(|error| alerts.error(&spec.name, error))?;
    }
    if with_checks {
        checks::run(deps, pipeline).await.inspect_err(|error| alerts.error("", error))?;
    }
    Ok(())
}

async fn run_chosen(
    pipeline: &Arc<Pipeline>,
    options: &RunOptions,
    chosen: &[QuerySpec],
    deps: Deps,
    stop: Stop,
    alerts: &Alerts,
) -> Result<()> {
    run_streaming(pipeline, options.available_now, chosen, &deps, stop.clone(), alerts).await?;
    if stop.requested() || !options.available_now || is_aside(pipeline, options) {
        return Ok(());
    }
    run_at_end(pipeline, chosen, options.query.is_none(), &deps, alerts).await
}

/// Each streaming query in a loop of its own.
async fn run_streaming(
    pipeline: &Arc<Pipeline>,
    bounded: bool,
    chosen: &[QuerySpec],
    deps: &Deps,
    stop: Stop,
    alerts: &Alerts,
) -> Result<()> {
    let (internal, inner_stop) = super::stopper();
    let mut tasks: JoinSet<Result<()>> = JoinSet::new();
    for spec in chosen.iter().filter(|q| q.kind == QueryKind::Streaming) {
        let (deps, pipeline, spec, alerts) = (deps.clone(), Arc::clone(pipeline), spec.clone(), alerts.clone());
        let (outer, inner) = (stop.clone(), inner_stop.clone());
        tasks.spawn(async move {
            let name = spec.name.clone();
            let streamed = stream((deps, alerts.clone()), pipeline, spec, bounded, [outer, inner]).await;
            streamed.inspect_err(|error| alerts.error(&name, error))
        });
    }
    let mut first: Option<Error> = None;
    while let Some(done) = tasks.join_next().await {
        let error = match done {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error,
            Err(failed) => Error::unavailable(format!("pipeline {}: a query failed: {failed}", pipeline.name)),
        };
        internal.stop();
        first.get_or_insert(error);
    }
    first.map_or(Ok(()), Err)
}

/// Whether batch jobs and checks are left to a close of books.
fn is_aside(pipeline: &Pipeline, options: &RunOptions) -> bool {
    pipeline.is_closing() && !(options.closes && pipeline.day.is_some())
}

fn chosen(pipeline: &Pipeline, options: &RunOptions) -> Result<Vec<QuerySpec>> {
    let mut chosen = super::chosen_queries(pipeline, options.query.as_deref())?;
    if is_aside(pipeline, options) {
        chosen.retain(|query| query.kind == QueryKind::Streaming);
        if let (Some(query), true) = (&options.query, chosen.is_empty()) {
            return Err(Error::invalid(format!(
                "pipeline {}: {query} is written by a close of books only: `flumen close {} --date DATE`",
                pipeline.name,
                pipeline.file.display()
            )));
        }
        return Ok(chosen);
    }
    let batch = chosen.iter().find(|q| q.kind == QueryKind::Batch);
    match batch {
        Some(batch) if !options.available_now => Err(Error::invalid(format!(
            "pipeline {}: query {} reads no topic: it is a batch job, which a continuous run cannot hold. Run it with \
             `--available-now`",
            pipeline.name, batch.name
        ))),
        _ => Ok(chosen),
    }
}

/// One query until its end or a stop; after a stop the micro-batch under way has `grace` to be committed.
async fn stream(
    (deps, alerts): (Deps, Alerts),
    pipeline: Arc<Pipeline>,
    spec: QuerySpec,
    bounded: bool,
    stops: [Stop; 2],
) -> Result<()> {
    let grace = pipeline.settings.grace;
    let [mut outer, mut inner] = stops.clone();
    let deadline = async move {
        tokio::select! {
            () = outer.wait() => {}
            () = inner.wait() => {}
        }
        tokio::time::sleep(grace).await;
    };
    let observer = Arc::clone(&deps.observer);
    let name = spec.name.clone();
    tokio::select! {
        result = drive((deps, alerts), pipeline, spec, bounded, stops) => result,
        () = deadline => {
            observer.note(&format!(
                "query {name}: the micro-batch under way was abandoned after `grace`; nothing is lost"
            ));
            Ok(())
        }
    }
}

/// A micro-batch that runs while the one before is committed. Dropping it abandons it.
struct Running {
    task: JoinHandle<Result<Ran>>,
    litter: Litter,
}

impl Running {
    fn start(query: &StreamingQuery, planned: Planned) -> Self {
        let runner = query.runner(&planned);
        let litter = runner.gate.litter.clone();
        Self { task: tokio::spawn(runner.run(planned)), litter }
    }

    async fn finish(mut self) -> Result<Ran> {
        match (&mut self.task).await {
            Ok(result) => result,
            Err(failed) => Err(Error::unavailable(format!("a micro-batch failed: {failed}; run again"))),
        }
    }

    /// Ends it; what it wrote goes.
    async fn abandon(mut self) {
        self.task.abort();
        match (&mut self.task).await {
            Ok(Ok(ran)) => ran.abandon().await,
            _ => self.litter.remove().await,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Micro-batch after micro-batch. When a store of a table fails in a way that passes, or another writer gave the table
/// new constraints, all that was not committed is planned and run again, from what the log then says. That no commit
/// may arrive later is certain by then: one whose fate is unclear is put again and again until the log answers, and the
/// run ends when it does not.
async fn drive(
    (deps, alerts): (Deps, Alerts),
    pipeline: Arc<Pipeline>,
    spec: QuerySpec,
    bounded: bool,
    stops: [Stop; 2],
) -> Result<()> {
    let limit = bounded.then_some(pipeline.settings.store_timeout);
    let absence = Arc::new(Absence::new(format!("query {}", spec.name), limit));
    let deps = Deps { storage: deps.storage.with_absence(&absence), ..deps };
    let [mut outer, mut inner] = stops.clone();
    let mut ends = None;
    loop {
        let open = || StreamingQuery::open(deps.clone(), alerts.clone(), Arc::clone(&pipeline), &spec);
        let trigger = if bounded { Duration::ZERO } else { pipeline.settings.trigger };
        let Err(error) = micro_batches(open, trigger, bounded.then_some(&mut ends), &absence, stops.clone()).await
        else {
            return Ok(());
        };
        if error.is_redefined() {
            tracing::warn!(
                "query {}: its table has other constraints now, and its rows are held against them",
                spec.name
            );
            continue;
        }
        let Some(pause) = absence.failed(&error) else { return Err(absence.told(error)) };
        outer_sleep(&mut outer, &mut inner, pause).await;
        if outer.requested() || inner.requested() {
            return Ok(());
        }
    }
}

/// Up to a failure, a stop, or `ends` (of a bounded run: those of the moment it started).
async fn micro_batches<F: Future<Output = Result<StreamingQuery>>>(
    open: impl Fn() -> F,
    trigger: Duration,
    mut ends: Option<&mut Option<Ends>>,
    absence: &Absence,
    stops: [Stop; 2],
) -> Result<()> {
    let [mut outer, mut inner] = stops;
    let mut query = tokio::select! {
        query = open() => query?,
        () = outer.wait() => return Ok(()),
        () = inner.wait() => return Ok(()),
    };
    if let Some(ends @ None) = ends.as_deref_mut() {
        *ends = Some(query.ends().await?);
    }
    let until = ends.as_deref().and_then(Option::as_ref);
    let mut ran: Option<Ran> = None;
    let mut last = None::<Stopwatch>;
    loop {
        let stopping = outer.requested() || inner.requested();
        if !stopping && until.is_none() {
            query.name_open_transactions().await?;
        }
        let wait = last.map_or(Duration::ZERO, |last| trigger.saturating_sub(last.elapsed()));
        let planned = if stopping || !wait.is_zero() { None } else { plan(&mut query, until, &mut ran).await? };
        if planned.is_some() {
            last = Some(Stopwatch::start());
        }
        let idle = planned.is_none();
        let mut running = planned.map(|planned| {
            let taken = planned.taken();
            (Running::start(&query, planned), taken)
        });
        let committed = ran.is_some();
        if let Some(ran) = ran.take() {
            commit(&mut query, ran, &mut running).await?;
        }
        if let Some((running, taken)) = running {
            match running.finish().await {
                Ok(done) => ran = Some(query.learn(done)),
                Err(error) if error.is_exhausted() => {
                    let pause = query.shrink(taken, error)?;
                    outer_sleep(&mut outer, &mut inner, pause).await;
                    last = None;
                }
                // The log lost them while they were read. What was committed stands in the table.
                Err(error) if query.passes_over(&error) => {
                    // What it holds is held once only.
                    drop(query);
                    query = open().await?;
                }
                Err(error) => return Err(query.with_culprit(error, taken.read, taken.clock).await),
            }
        }
        // What failed while the one before was committed may be of the same absence: it is not over yet.
        if committed || (idle && !stopping) {
            absence.back();
        }
        if idle && (stopping || until.is_some()) {
            if !stopping {
                finish_upkeep(&mut query, &mut outer, &mut inner).await;
            }
            tracing::debug!(query = query.name(), "ended");
            return Ok(());
        } else if idle && !committed {
            outer_sleep(&mut outer, &mut inner, if wait.is_zero() { trigger.max(IDLE_POLL) } else { wait }).await;
        }
    }
}

/// Lets upkeep come to its end, unless a stop comes first.
async fn finish_upkeep(query: &mut StreamingQuery, outer: &mut Stop, inner: &mut Stop) {
    tokio::select! {
        () = query.finish_upkeep() => {}
        () = outer.wait() => {}
        () = inner.wait() => {}
    }
}

/// Plans the next micro-batch. When that fails, the one before is given up: it was not committed.
async fn plan(query: &mut StreamingQuery, until: Option<&Ends>, ran: &mut Option<Ran>) -> Result<Option<Planned>> {
    let planned = query.plan(until).await;
    if planned.is_err()
        && let Some(ran) = ran.take()
    {
        ran.abandon().await;
    }
    planned
}

/// Commits a micro-batch. When that fails, the next one is given up: it begins where this one ended.
async fn commit(query: &mut StreamingQuery, ran: Ran, running: &mut Option<(Running, Taken)>) -> Result<()> {
    let litter = ran.litter.clone();
    let Err(error) = query.commit(ran).await else { return Ok(()) };
    litter.remove().await;
    if let Some((running, _)) = running.take() {
        running.abandon().await;
    }
    Err(error)
}

async fn outer_sleep(outer: &mut Stop, inner: &mut Stop, duration: Duration) {
    tokio::select! {
        () = outer.sleep(duration) => {}
        () = inner.wait() => {}
    }
}
