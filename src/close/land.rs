//! Whether a day is complete, and its records in the landing table: by a stream that runs, or by one of our own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};

use super::Job;
use super::closed::CompleteBy;
use crate::clock::Stopwatch;
use crate::engine::{self, Deps};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::{QuerySpec, SinkSpec, SourceSpec};
use crate::sink::{DeltaSink, Owner, topic_hash};
use crate::source::{Log, TopicIdentity};
use crate::storage;

/// How often it is looked how far a stream of another process is.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// What another process's stream has to show itself, besides twice its trigger.
const SHOW: Duration = Duration::from_secs(1);
/// A wait of more than that is told.
const TOLD_OF: Duration = Duration::from_secs(5);
/// How often another instance may be in the way of our own stream.
const TRIES: u32 = 10;

/// A landing table, and the topic that fills it.
#[derive(Debug)]
pub struct Landing<'a> {
    /// The table.
    pub sink: &'a SinkSpec,
    /// The query that fills it.
    pub query: &'a QuerySpec,
    /// Its topic.
    pub source: &'a SourceSpec,
}

/// A landing table that has the records of a day.
#[derive(Debug)]
pub struct Landed {
    /// The table's name.
    pub table: String,
    /// Where it lies.
    pub place: String,
    /// The version that is read.
    pub version: u64,
    /// The topic.
    pub identity: TopicIdentity,
    /// How far it is, partition by partition.
    pub ends: BTreeMap<i32, i64>,
    /// Records that are not in it yet: of a dry run only.
    pub behind: u64,
}

impl Landed {
    /// Where it lies, without secrets.
    pub fn location(&self) -> String {
        storage::shown(&self.place)
    }
}

impl Job {
    /// The landing tables of the file.
    pub(super) fn landings(&self) -> Vec<Landing<'_>> {
        let sinks = self.pipeline.sinks.iter().filter(|sink| sink.landing.is_some());
        let landing = sinks.filter_map(|sink| {
            let query = self.pipeline.query(&sink.name)?;
            Some(Landing { sink, query, source: self.pipeline.source(query.sources.first()?)? })
        });
        landing.collect()
    }

    /// Asks the topics where they end.
    ///
    /// # Errors
    /// `Unavailable` when a broker stays away.
    pub(super) async fn ask(&self, landings: &[Landing<'_>]) -> Result<Vec<Asked>> {
        let mut asked = Vec::new();
        for landing in landings {
            asked.push(Asked::new(self.deps.topics.open(landing.source, self.deps.patience)?).await?);
        }
        Ok(asked)
    }

    /// Whether the day is over: it was late enough at `now`, before the topics were asked where they end, or each of
    /// their partitions says so.
    ///
    /// # Errors
    /// `Unavailable`, naming the partitions that are not there yet.
    pub(super) async fn complete(
        &self,
        now: DateTime<Utc>,
        landings: &[Landing<'_>],
        asked: &[Asked],
    ) -> Result<CompleteBy> {
        let deadline = self.day.end + self.lateness;
        if now >= deadline {
            return Ok(CompleteBy::Clock);
        }
        let mut missing = Vec::new();
        for (landing, asked) in landings.iter().zip(asked) {
            missing.extend(asked.missing(&landing.source.topic, deadline).await?);
        }
        if missing.is_empty() {
            return Ok(CompleteBy::Records);
        }
        let deadline = deadline.to_rfc3339_opts(SecondsFormat::Secs, true);
        Err(Error::unavailable(format!(
            "{} is not complete: {}. A day is closed when every partition has a record from {deadline} or later (the \
             day's end and --lateness), or when it is that late; run it again then",
            self.day.date,
            missing.join("; ")
        )))
    }

    /// Brings a landing table up to where its topic ended.
    ///
    /// # Errors
    /// What the stream returns; `Unavailable` when another instance is in the way again and again.
    pub(super) async fn land(&self, landing: &Landing<'_>, asked: &Asked) -> Result<Landed> {
        let mut tries = 0;
        loop {
            let sink = self.open_landing(landing).await?;
            let ends = sink.positions(&landing.source.topic);
            let behind = asked.behind(&ends);
            // What a stream refuses is refused: another topic of the name, or one that was cut off.
            let is_it = asked.is_it(&sink, &ends).await?;
            if self.dry_run && sink.exists() && !is_it {
                return Err(Error::invalid(format!(
                    "topic {} is not the one that table `{}` was filled from, or it was cut off: `flumen run` says \
                     more",
                    landing.source.topic,
                    sink.location()
                )));
            }
            if let (Some(version), true) = (sink.version(), is_it && (behind == 0 || self.dry_run)) {
                engine::settle(&self.deps, &self.pipeline, landing.query).await?;
                let table = landing.sink.name.clone();
                let identity = asked.identity.clone();
                let place = landing.sink.location.clone();
                return Ok(Landed { table, place, version, identity, ends, behind });
            }
            if self.dry_run {
                return Err(Error::unavailable(format!(
                    "table `{}` does not exist yet, and a dry run does not fill it: `flumen run {}` does",
                    sink.location(),
                    self.pipeline.file.display()
                )));
            }
            if is_it && !ends.is_empty() && self.another_lands(landing, &sink).await? {
                continue;
            }
            let queries = std::slice::from_ref(landing.query);
            let landed = engine::land(Arc::clone(&self.pipeline), queries, self.deps.clone(), self.stop.clone()).await;
            if self.stop.requested() {
                return Err(Error::unavailable("stopped before the day was closed; running it again is safe"));
            }
            match landed {
                Err(error) if error.kind() == ErrorKind::Fenced && tries < TRIES => {
                    tries += 1;
                    self.deps.observer.note(&format!("another instance fills {}: it is waited for", landing.sink.name));
                }
                Err(error) => return Err(error),
                Ok(()) if tries >= TRIES => {
                    return Err(Error::unavailable(format!(
                        "table `{}` does not get to where its topic ended; run it again",
                        sink.location()
                    )));
                }
                Ok(()) => tries += 1,
            }
        }
    }

    async fn open_landing(&self, landing: &Landing<'_>) -> Result<DeltaSink> {
        let owner = Owner::new(&self.pipeline.name, &landing.query.name);
        DeltaSink::open(landing.sink, owner, &self.deps.storage, Arc::clone(&self.deps.clock)).await
    }

    /// Whether a stream of another process goes on while it is watched: then our own would end it.
    async fn another_lands(&self, landing: &Landing<'_>, sink: &DeltaSink) -> Result<bool> {
        // Only a stream that goes on says how often it commits.
        let last = sink.last_written().await?.and_then(|last| last.flumen.get("trigger_ms")?.as_u64());
        let trigger = Duration::from_millis(last.unwrap_or(0));
        let window = (trigger * 2 + SHOW).min(self.pipeline.settings.broker_timeout.max(SHOW));
        if window > TOLD_OF {
            let seconds = window.as_secs();
            self.deps.observer.note(&format!("a stream may fill {}: it has {seconds} s to get on", landing.sink.name));
        }
        let watch = Stopwatch::start();
        while watch.elapsed() < window && !self.stop.requested() {
            tokio::time::sleep(LOOK_AGAIN).await;
            let now = self.open_landing(landing).await?;
            if now.positions(&landing.source.topic) != sink.positions(&landing.source.topic) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// What a topic said of itself.
#[derive(Debug)]
pub(super) struct Asked {
    log: Arc<dyn Log>,
    identity: TopicIdentity,
    /// The first offset of each partition that is kept, and its end.
    bounds: BTreeMap<i32, (i64, i64)>,
}

impl Asked {
    async fn new(log: Arc<dyn Log>) -> Result<Self> {
        let identity = log.identity().await?;
        let bounds = log.bounds().await?;
        let bounds = bounds.iter().map(|bounds| (bounds.partition, (bounds.low, bounds.high))).collect();
        Ok(Self { log, identity, bounds })
    }

    /// The partitions without a record from `deadline` or later.
    async fn missing(&self, topic: &str, deadline: DateTime<Utc>) -> Result<Vec<String>> {
        let firsts = self.log.offsets_at(deadline).await?;
        let lacks = |(partition, (_, end)): (&i32, &(i64, i64))| {
            let first = firsts.get(partition).copied().unwrap_or(*end);
            (first >= *end).then(|| format!("topic {topic} partition {partition} ends at offset {end}"))
        };
        Ok(self.bounds.iter().filter_map(lacks).collect())
    }

    /// Whether the table was filled from this topic, and from no more of it than there is now.
    async fn is_it(&self, sink: &DeltaSink, landed: &BTreeMap<i32, i64>) -> Result<bool> {
        let id = &self.identity;
        let then = sink.txn(&sink.owner().topic(&id.topic));
        if then.is_some_and(|then| then != topic_hash(&id.cluster_id, &id.topic_id)) {
            return Ok(false);
        }
        let is_beyond = |partition: &i32, high: i64| landed.get(partition).is_some_and(|end| *end > high);
        if !self.bounds.iter().any(|(partition, (_, high))| is_beyond(partition, *high)) {
            return Ok(true);
        }
        // A stream has gone on since the topic was asked, unless the topic was cut off.
        let now = self.log.bounds().await?;
        Ok(!now.iter().any(|bounds| is_beyond(&bounds.partition, bounds.high)))
    }

    /// How many offsets are not landed.
    fn behind(&self, landed: &BTreeMap<i32, i64>) -> u64 {
        let behind =
            |(partition, (low, high)): (&i32, &(i64, i64))| (high - landed.get(partition).unwrap_or(low)).max(0) as u64;
        self.bounds.iter().map(behind).sum()
    }
}

/// With a broker that is waited for so long at most.
pub(super) fn hurried(deps: &Deps, patience: Duration) -> Deps {
    Deps { patience: Some(deps.patience.map_or(patience, |p| p.min(patience))), ..deps.clone() }
}
