//! One streaming query: opened on its sink's positions, then micro-batch after micro-batch of plan, run and commit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::json;

use super::alert::Alerts;
use super::commit_info::CommitInfo;
use super::fit::Fit;
use super::held::HeldEnds;
use super::position::Lost;
use super::query_plan::{Executable, Plans, Shape};
use super::query_topic::Topic;
use super::records::RecordCounts;
use super::runner::{Planned, Post, Ran, Read, Runner, Share, Taken, Used};
use super::session::{QuerySession, SessionParts};
use super::side::{self, SideTables};
use super::topic::Slice;
use super::upkeep::Upkeep;
use super::versions::Versions;
use super::write::{Gate, refuse_old};
use super::{Deps, letter, position, selection};
use crate::clock::Stopwatch;
use crate::contract::ContractEnforcer;
use crate::error::{Alarm, Error, Result};
use crate::fault_point;
use crate::observe::{Durations, Progress, Records, Rows, SinkProgress, check_conservation};
use crate::offsets::{self, PartitionRange, Start};
use crate::pipeline::{DataLoss, OnDecodeError, Pipeline, QuerySpec, SchemaChange, SinkSpec};
use crate::sink::{Add, Created, DeltaSink, GONE, Litter, Owner, SideCommit, SideFiles, SinkCommit, topic_hash};
use crate::source::TopicIdentity;
use crate::storage;

/// A streaming query between its micro-batches.
pub(crate) struct StreamingQuery {
    deps: Deps,
    alerts: Alerts,
    pipeline: Arc<Pipeline>,
    sink_spec: Arc<SinkSpec>,
    sink: DeltaSink,
    topics: Vec<Topic>,
    sides: Arc<SideTables>,
    session: QuerySession,
    plans: Plans,
    enforcer: Arc<ContractEnforcer>,
    upkeep: Upkeep,
    held: HeldEnds,
    fit: Fit,
    /// The number of the last micro-batch that was planned.
    batch: i64,
    /// The last retry of dead letters whose marks are known to be made.
    retry: Option<i64>,
    last_start: Option<Stopwatch>,
}

/// What a commit contains besides positions.
struct Content {
    adds: Vec<Add>,
    side: Vec<SideFiles>,
    records: Records,
    rows: Rows,
}

/// The ends that a bounded run stops at: topic -> partition -> offset.
pub(crate) type Ends = BTreeMap<String, BTreeMap<i32, i64>>;

impl StreamingQuery {
    /// Opens sink and topics, finds the positions, and commits them when there are none yet.
    ///
    /// # Errors
    /// `Invalid` when the table is not as declared or belongs to somebody else, `Violated` for lost offsets or a topic
    /// that was made again, `Unavailable` when broker or store fail, `Fenced` when another instance was faster.
    pub(crate) async fn open(deps: Deps, alerts: Alerts, pipeline: Arc<Pipeline>, spec: &QuerySpec) -> Result<Self> {
        let sink_spec = Arc::new(super::sink_of(&pipeline, spec)?.clone());
        let owner = Owner::new(&pipeline.name, &spec.name);
        deps.storage.prove_put_if_absent(&sink_spec.location, deps.clock.new_id()).await?;
        let mut sink = DeltaSink::open(&sink_spec, owner.clone(), &deps.storage, Arc::clone(&deps.clock)).await?;
        let sides = Arc::new(side::of_query(&deps, &pipeline, spec, &sink_spec, owner));
        sides.roll_forward(&sink).await?;
        if !sink.exists()
            && let Err(former) = sides.refuse_former_life().await
        {
            sink.reload().await?;
            return Err(if sink.exists() { made_meanwhile(&sink) } else { former });
        }
        sink.add_columns().await?;
        let parts = SessionParts::of_query(&pipeline, spec, true);
        let session = QuerySession::new(&deps, &pipeline, parts).await?;
        let state = session.state(deps.clock.now())?;
        let plans = Plans::new(&pipeline, &sink_spec, &state).await?;
        let enforcer = ContractEnforcer::new(&sink_spec.contract, sink.table_checks(), &state)?;
        let mut query = Self {
            batch: sink.version().map_or(0, |v| v as i64),
            retry: sink.txn(&sink.owner().retry()),
            held: HeldEnds::new(),
            fit: Fit::new(deps.memory.clone()).with_cuts(deps.cuts),
            upkeep: Upkeep::new(&deps, sink.owner().clone(), &sink_spec),
            deps,
            alerts,
            sink_spec,
            sink,
            sides,
            topics: Vec::new(),
            session,
            plans,
            enforcer: Arc::new(enforcer),
            last_start: None,
            pipeline,
        };
        query.session.announce_models(&query.sink, &query.sink_spec.name, query.deps.observer.as_ref()).await?;
        query.find_positions().await?;
        Ok(query)
    }

    /// The query's name.
    pub(crate) fn name(&self) -> &str {
        &self.sink_spec.name
    }

    async fn find_positions(&mut self) -> Result<()> {
        let mut fresh = !self.sink.exists();
        let used = selection::used_fields(&self.session.state(self.deps.clock.now())?.optimize(self.plans.logical())?)?;
        for table in self.session.topics() {
            let log = table.log(0)?;
            let topic = table.spec().topic.clone();
            if let Some(known) = self.topics.iter_mut().find(|known| known.identity.topic == topic) {
                known.tables.push(table);
                continue;
            }
            let identity = log.identity().await?;
            let mut next = self.sink.positions(&topic);
            let mut lost = Vec::new();
            if next.is_empty() {
                self.sink.refuse_strangers(&topic)?;
                next = position::first(&topic, &table.spec().start, log.as_ref()).await?;
                fresh = true;
            } else if self.is_another_topic(&identity) {
                if table.spec().on_data_loss == DataLoss::Fail {
                    return Err(self.refuse_another_topic(&identity));
                }
                lost =
                    next.iter().map(|(&partition, &from)| Lost { partition, from, to: None, cut_off: false }).collect();
                next = position::first(&topic, &Start::Earliest, log.as_ref()).await?;
                self.tell_loss(&topic, "the topic was deleted and made again", &lost);
                fresh = true;
            }
            let versions = Versions {
                sink: &self.sink,
                used: &used,
                accept: self.pipeline.settings.schema_change == SchemaChange::Accept,
            };
            let schema = versions.compare(table.spec(), self.deps.observer.as_ref()).await?;
            self.topics.push(Topic { tables: vec![table], identity, next, lost, schema });
        }
        if fresh { self.commit_positions().await } else { Ok(()) }
    }

    /// The first commit carries no rows: it says where the query starts, so that `start` is resolved only once.
    async fn commit_positions(&mut self) -> Result<()> {
        let standing = |topic: &mut Topic| Share {
            topic: topic.identity.topic.clone(),
            ranges: Vec::new(),
            next: topic.next.clone(),
            lost: std::mem::take(&mut topic.lost),
            latest: topic.next.clone(),
            counts: Arc::default(),
        };
        let shares: Vec<Share> = self.topics.iter_mut().map(standing).collect();
        let nothing =
            Content { adds: Vec::new(), side: Vec::new(), records: Records::default(), rows: Rows::default() };
        let used = Used { lookups: Vec::new(), models: self.session.model_versions() };
        let commit = self.commit_of((self.batch, self.deps.clock.now()), &shares, &used, nothing);
        fault_point::pass("positions").await?;
        let committed = if self.sink.exists() {
            self.sink.commit(commit).await?
        } else {
            match self.sink.create(commit).await? {
                Created::Ours(committed) => committed,
                Created::Another => return Err(made_meanwhile(&self.sink)),
            }
        };
        self.deps.observer.note(&format!(
            "query {}: starts at {} in {} (version {})",
            self.sink_spec.name,
            self.describe_positions(),
            self.sink.location(),
            committed.version
        ));
        Ok(())
    }

    fn describe_positions(&self) -> String {
        let topics: Vec<String> = self
            .topics
            .iter()
            .map(|topic| {
                let offsets: Vec<String> = topic.next.iter().map(|(p, o)| format!("{p}:{o}")).collect();
                format!("{} {}", topic.identity.topic, offsets.join(","))
            })
            .collect();
        topics.join("; ")
    }

    /// Whether the topic is not the one that the table was filled from.
    fn is_another_topic(&self, identity: &TopicIdentity) -> bool {
        let then = self.sink.txn(&self.sink.owner().topic(&identity.topic));
        then.is_some_and(|then| then != topic_hash(&identity.cluster_id, &identity.topic_id))
    }

    /// Tells of lost offsets that are passed over.
    fn tell_loss(&self, topic: &str, why: &str, lost: &[Lost]) {
        let text = format!("topic {topic}: {why}, and it goes on without: {}", position::in_words(lost));
        self.deps.observer.note(&format!("query {}: {text}", self.sink_spec.name));
        self.alerts.raise(Alarm::OffsetsLost, &self.sink_spec.name, lost.len() as u64, &text);
    }

    fn refuse_another_topic(&self, identity: &TopicIdentity) -> Error {
        Error::violated(format!(
            "topic {} is not the topic that table {} was filled from: it was deleted and made again, or the brokers \
             are another cluster's. Positions do not carry over. To read the new topic from its beginning into the \
             same table, say 'on_data_loss' 'skip'; or give the pipeline another name (`SET flumen.pipeline`) or \
             delete the table",
            identity.topic,
            self.sink.location()
        ))
        .alarming(Alarm::OffsetsLost)
    }

    /// The ends of all topics now: where a bounded run stops.
    ///
    /// # Errors
    /// What the logs return.
    pub(crate) async fn ends(&self) -> Result<Ends> {
        let mut ends = Ends::new();
        for topic in &self.topics {
            let bounds = topic.log()?.bounds().await?;
            ends.insert(topic.identity.topic.clone(), bounds.iter().map(|b| (b.partition, b.high)).collect());
        }
        Ok(ends)
    }

    /// Names partitions that a transaction has held up for long.
    ///
    /// # Errors
    /// What the logs return.
    pub(crate) async fn name_open_transactions(&mut self) -> Result<()> {
        if !self.held.is_due() {
            return Ok(());
        }
        for topic in &self.topics {
            let ends = topic.log()?.held().await?;
            for told in self.held.note(&topic.identity.topic, &ends, &topic.next) {
                self.deps.observer.note(&format!("query {}: {told}", self.sink_spec.name));
            }
        }
        Ok(())
    }

    /// Plans the next micro-batch; `None` when there is nothing to read.
    ///
    /// # Errors
    /// `Violated` for lost offsets, `Unavailable` when broker or store fail.
    pub(crate) async fn plan(&mut self, until: Option<&Ends>) -> Result<Option<Planned>> {
        let watch = Stopwatch::start();
        let Some((shares, posts, lag)) = self.shares(until).await? else { return Ok(None) };
        fault_point::pass("plan").await?;
        let asked = watch.elapsed();
        let clock = self.deps.clock.now();
        if self.session.refresh(&self.sink_spec.name, self.deps.observer.as_ref()).await? {
            self.plans = Plans::new(&self.pipeline, &self.sink_spec, &self.session.state(clock)?).await?;
        }
        let shape = self.shape(shares.iter().flat_map(|share| &share.ranges));
        let used = Used { lookups: shape.lookups.clone(), models: self.session.model_versions() };
        let builds_lookups = shape.records.is_none();
        let slice = |share: &Share| Slice {
            ranges: share.ranges.clone(),
            counts: Arc::clone(&share.counts),
            record_bytes: (!builds_lookups).then(|| self.fit.record_bytes()),
            widest: self.fit.widest(shape.batch_rows),
            ..Slice::default()
        };
        let slices = shares.iter().map(slice).collect();
        let executable = Some(self.plan_over(slices, shape, clock).await?);
        for (topic, share) in self.topics.iter_mut().zip(&shares) {
            topic.next = share.next.clone();
        }
        self.batch += 1;
        let since_last = self.last_start.replace(watch).map_or(0.0, |last| last.elapsed().as_secs_f64());
        Ok(Some(Planned {
            batch: self.batch,
            clock,
            shares,
            posts,
            executable,
            used,
            lag,
            watch,
            since_last,
            durations: Durations {
                latest_offset: millis(asked),
                query_planning: millis(watch.elapsed().saturating_sub(asked)),
                ..Durations::default()
            },
        }))
    }

    /// What the next plan, over these ranges, is made for.
    fn shape<'r>(&self, ranges: impl Iterator<Item = &'r PartitionRange>) -> Shape {
        let configured = self.session.context().copied_config();
        let records = || ranges.map(|range| range.to.abs_diff(range.from)).sum::<u64>().max(1).ilog2();
        Shape {
            lookups: self.session.lookup_versions(),
            batch_rows: self.fit.batch_rows(configured.batch_size()),
            streams: self.fit.streams(configured.target_partitions()),
            records: (!self.fit.builds_lookups()).then(records),
        }
    }

    /// The plan over one slice of each topic, with what it runs in.
    async fn plan_over(&mut self, slices: Vec<Slice>, shape: Shape, clock: DateTime<Utc>) -> Result<Executable> {
        let plan = self.plans.of(shape, || self.session.state(clock))?;
        for (topic, slice) in self.topics.iter().zip(slices) {
            topic.prepare(plan.optimized(), &Slice { selection: plan.wanted().clone(), ..slice })?;
        }
        plan.next().await
    }

    /// What the next micro-batch takes of each topic, where the dead letters arrive, and how many records are left
    /// then; `None` when there is nothing to read.
    async fn shares(&mut self, until: Option<&Ends>) -> Result<Option<(Vec<Share>, Vec<Post>, u64)>> {
        let (mut shares, mut posts, mut lag) = (Vec::new(), Vec::new(), 0);
        let mut losses = Vec::new();
        for topic in &mut self.topics {
            let bounds = topic.log()?.bounds().await?;
            let name = &topic.identity.topic;
            let lost = position::reconcile(&mut topic.next, &bounds);
            if !lost.is_empty() {
                if topic.tables[0].spec().on_data_loss == DataLoss::Fail {
                    return Err(position::refuse(name, &lost));
                }
                topic.lost.extend(lost.iter().cloned());
                losses.push((name.clone(), lost));
            }
            let bounds = position::capped(bounds, until.and_then(|ends| ends.get(name)));
            let spec = topic.tables[0].spec();
            let max_rows = spec.max_rows.unwrap_or(self.pipeline.settings.max_rows);
            let ranges = offsets::plan(&topic.next, &bounds, self.fit.rows(max_rows));
            let mut next = topic.next.clone();
            next.extend(ranges.iter().map(|range| (range.partition, range.to)));
            let latest: BTreeMap<i32, i64> = bounds.iter().map(|b| (b.partition, b.high)).collect();
            lag += latest.iter().map(|(p, high)| (high - next.get(p).unwrap_or(high)).max(0) as u64).sum::<u64>();
            let mut counts = Arc::default();
            if spec.on_decode_error == OnDecodeError::DeadLetter {
                let planned = ranges.iter().map(|range| range.to.abs_diff(range.from)).sum();
                let (posting, letters) = RecordCounts::posting(spec.dead_letter_limit, planned);
                counts = Arc::new(posting);
                posts.push(Post { topic: name.clone(), location: letter::location(spec, &self.sink_spec), letters });
            }
            let lost = std::mem::take(&mut topic.lost);
            shares.push(Share { topic: name.clone(), ranges, next, lost, latest, counts });
        }
        for (topic, lost) in losses {
            self.tell_loss(&topic, "offsets are lost", &lost);
        }
        let nothing = shares.iter().all(|share| share.ranges.is_empty() && share.lost.is_empty());
        Ok((!nothing).then_some((shares, posts, lag)))
    }

    /// A plan that reads these ranges and counts nothing, with what it runs in.
    ///
    /// # Errors
    /// What planning returns.
    pub(crate) async fn probe(&mut self, read: &Read, clock: DateTime<Utc>) -> Result<Executable> {
        let ranges = |index| read.iter().filter(move |(of, _)| *of == index).map(|(_, range)| *range).collect();
        let slice = |index| Slice { ranges: ranges(index), ..Slice::default() };
        let slices = (0..self.topics.len()).map(slice).collect();
        self.plan_over(slices, self.shape(read.iter().map(|(_, range)| range)), clock).await
    }

    /// Makes the next micro-batch smaller after one that did not fit into memory, and takes back what that one took.
    /// Returns how long to wait before it.
    ///
    /// # Errors
    /// `error`, when it cannot be smaller.
    pub(crate) fn shrink(&mut self, taken: Taken, error: Error) -> Result<Duration> {
        let mut planned = vec![0; self.topics.len()];
        for (index, range) in &taken.read {
            planned[*index] += range.to.abs_diff(range.from);
            self.topics[*index].next.insert(range.partition, range.from);
        }
        for (topic, lost) in self.topics.iter_mut().zip(taken.lost) {
            topic.lost.extend(lost);
        }
        self.batch -= 1;
        self.plans.forget();
        let most = planned.into_iter().max().unwrap_or_default();
        let configured = self.session.context().copied_config().batch_size();
        match self.fit.failed(taken.counts.iter(), most, configured) {
            Some(how) => {
                let why = error.message().lines().next().unwrap_or_default();
                let told = format!("{}: {how}", why.trim_end_matches(". Raise it"));
                self.deps.observer.note(&told);
                Ok(self.fit.pause())
            }
            None => Err(error),
        }
    }

    /// Whether an error is about lost offsets that the topics' declarations pass over: the query has to be opened anew.
    /// That is told.
    pub(crate) fn passes_over(&self, error: &Error) -> bool {
        let skips = |topic: &Topic| topic.tables[0].spec().on_data_loss == DataLoss::Skip;
        let passes = error.alarm() == Some(Alarm::OffsetsLost) && self.topics.iter().all(skips);
        if passes {
            self.deps.observer.note(&format!("query {}: it goes on: {error}", self.sink_spec.name));
            self.alerts.raise(Alarm::OffsetsLost, &self.sink_spec.name, 1, &error.to_string());
        }
        passes
    }

    /// What holds rows to the contract.
    pub(crate) fn enforcer(&self) -> &ContractEnforcer {
        &self.enforcer
    }

    /// The name of the query's topic of that number.
    pub(crate) fn topic_name(&self, index: usize) -> &str {
        self.topics.get(index).map_or("", |topic| &topic.identity.topic)
    }

    /// What a task needs to run a planned micro-batch while this query commits the one before.
    pub(crate) fn runner(&self, planned: &Planned) -> Runner {
        Runner {
            gate: Gate {
                enforcer: Arc::clone(&self.enforcer),
                sink: Arc::clone(&self.sink_spec),
                sides: Arc::clone(&self.sides),
                clock: planned.clock,
                litter: Litter::default(),
            },
            writers: (0..planned.streams()).map(|_| self.sink.writer(&self.deps.memory)).collect(),
            owner: self.sink.owner().clone(),
        }
    }

    /// Notes how large the records of a micro-batch were that has run.
    pub(crate) fn learn(&mut self, ran: Ran) -> Ran {
        self.fit.ran(ran.planned.shares.iter().map(|share| &share.counts));
        ran
    }

    /// Closes the files of a micro-batch and commits it, then its side tables.
    ///
    /// # Errors
    /// `Fenced` when another instance has moved on, `Unavailable` when the store fails.
    pub(crate) async fn commit(&mut self, ran: Ran) -> Result<Progress> {
        let Ran { mut planned, mut written, letters, litter } = ran;
        let within = |e: Error| e.within(format!("query {}", self.sink_spec.name));
        let watch = Stopwatch::start();
        fault_point::pass("close").await?;
        let adds = written.close().await?;
        refuse_old(&adds).map_err(within)?;
        let quarantine = written.close_quarantine(&self.sink_spec).await?;
        planned.durations.close_files = millis(watch.elapsed());
        let records = Share::records(&planned.shares);
        let rows = written.rows(&adds, quarantine.as_ref())?;
        check_conservation(records, rows).map_err(within)?;
        let dead = letters.iter().map(|files| crate::sink::rows_of(&files.add)).sum::<Result<u64>>()?;
        letter::check_count(records, dead).map_err(within)?;
        let side = SideFiles::merged(letters.into_iter().chain(quarantine));
        let watch = Stopwatch::start();
        let content = Content { adds, side: side.clone(), records, rows };
        let commit = self.commit_of((planned.batch, planned.clock), &planned.shares, &planned.used, content);
        let owed = (!side.is_empty()).then(|| SideCommit {
            marker: self.sink.owner().side(),
            number: planned.batch,
            attempt: commit.attempt,
            side,
            positions: crate::sink::positions(self.sink.owner(), &commit.txns),
        });
        fault_point::pass("commit.before").await?;
        let committed = self.sink.commit(commit).await;
        if !committed.as_ref().is_err_and(storage::is_passing) {
            litter.keep();
        }
        let version = committed?.version as i64;
        fault_point::pass("commit.after").await?;
        planned.durations.wal_commit = millis(watch.elapsed());
        if let Some(owed) = owed {
            let watch = Stopwatch::start();
            self.sides.settle(&owed).await?;
            planned.durations.side_commit = millis(watch.elapsed());
        }
        let retry = self.sink.txn(&self.sink.owner().retry());
        if retry != self.retry {
            // A retry came in between; it may have ended before it made its marks.
            self.sides.roll_forward(&self.sink).await?;
            self.retry = retry;
        }
        fault_point::pass("publish").await?;
        planned.durations.trigger_execution = millis(planned.watch.elapsed());
        for (topic, share) in self.topics.iter().zip(&planned.shares) {
            topic.log()?.mirror(&share.next);
        }
        if rows.quarantined > 0 {
            let place = super::quarantine::location(&self.sink_spec);
            let message = format!("{} rows break the contract: look at {}", rows.quarantined, storage::shown(&place));
            self.alerts.raise(Alarm::Quarantined, &self.sink_spec.name, rows.quarantined, &message);
        }
        let progress = self.progress(&planned, version, records, rows);
        self.deps.observer.progress(&progress);
        self.upkeep.begin(&mut self.sink, &self.sides).await;
        Ok(progress)
    }

    /// Waits for upkeep that is under way, and for what has become due meanwhile.
    pub(crate) async fn finish_upkeep(&mut self) {
        self.upkeep.finish().await;
        self.upkeep.begin(&mut self.sink, &self.sides).await;
        self.upkeep.finish().await;
    }

    fn progress(&self, planned: &Planned, version: i64, records: Records, rows: Rows) -> Progress {
        let seconds = (planned.durations.trigger_execution / 1000.0).max(1e-6);
        let sources = self.topics.iter().zip(&planned.shares).map(|(topic, share)| topic.progress(share));
        let since_last = Some(planned.since_last).filter(|seconds| *seconds > 0.0);
        Progress {
            name: self.sink_spec.name.clone(),
            pipeline: self.pipeline.name.clone(),
            timestamp: planned.clock,
            batch_id: planned.batch,
            version,
            num_input_rows: records.read,
            input_rows_per_second: since_last.map_or(0.0, |seconds| records.read as f64 / seconds),
            processed_rows_per_second: records.read as f64 / seconds,
            duration_ms: planned.durations,
            lag: planned.lag,
            records,
            rows,
            sources: sources.collect(),
            sink: SinkProgress { description: self.sink_spec.location.clone(), num_output_rows: rows.written },
        }
    }

    fn commit_of(
        &self,
        (batch, clock): (i64, DateTime<Utc>),
        shares: &[Share],
        Used { lookups, models }: &Used,
        content: Content,
    ) -> SinkCommit {
        let Content { adds, side, records, rows } = content;
        let owner = self.sink.owner();
        let mut txns = Vec::new();
        let (mut sources, mut lost) = (Vec::new(), Vec::new());
        for (topic, share) in self.topics.iter().zip(shares) {
            let id = &topic.identity;
            txns.extend(share.next.iter().map(|(&p, &next)| (owner.position(&id.topic, p), next)));
            let is_gone = |lost: &&Lost| lost.to.is_none() && !share.next.contains_key(&lost.partition);
            txns.extend(share.lost.iter().filter(is_gone).map(|l| (owner.position(&id.topic, l.partition), GONE)));
            lost.extend(share.lost.iter().map(|lost| lost.committed(&id.topic)));
            txns.push((owner.topic(&id.topic), topic_hash(&id.cluster_id, &id.topic_id)));
            txns.extend(topic.schema.map(|hash| (owner.schema(&id.topic), hash)));
            sources.extend(share.ranges.iter().map(|range| {
                let (records, empty) = share.counts.of_partition(range.partition);
                json!({
                    "topic": id.topic, "topic_id": id.topic_id, "cluster_id": id.cluster_id,
                    "partition": range.partition, "from": range.from, "to": range.to,
                    "records": records, "null": empty,
                })
            }));
        }
        txns.extend(owner.side_marker(batch, !side.is_empty(), self.sink.txn(&owner.side())));
        // A bounded run does not wait for brokers for ever.
        let trigger = self.deps.patience.is_none().then_some(self.pipeline.settings.trigger);
        let info =
            CommitInfo { batch: Some(batch), trigger, clock, sources, lost, lookups, models, side, records, rows };
        let info = info.of(&self.pipeline, &self.sink_spec.name);
        SinkCommit { adds, txns, attempt: self.deps.clock.new_id(), info }
    }
}

/// The error of a table that was not there a moment ago.
fn made_meanwhile(sink: &DeltaSink) -> Error {
    Error::unavailable(format!("table {} was made by another writer at the same moment; run again", sink.location()))
}

fn millis(duration: std::time::Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
