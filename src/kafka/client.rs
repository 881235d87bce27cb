//! A client that asks a cluster what it holds. It has no assignment, so its requests never queue up behind a fetch.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::{Offset, TopicPartitionList};

use super::refusal::{self, is_refusal};
use super::{KafkaConfig, Presence};
use crate::clock::Stopwatch;
use crate::error::{Error, Result};
use crate::offsets::PartitionBounds;

/// The time limit of a request's first attempt; each further one has twice the time, up to [`LAST_LIMIT`].
const FIRST_LIMIT: Duration = Duration::from_secs(2);
const LAST_LIMIT: Duration = Duration::from_secs(30);
/// The pause after a failed attempt; each further one is twice as long, up to [`LAST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// A failure is told when it lasts for so long: leaders move within less.
const AWAY: Duration = Duration::from_secs(1);
/// A topic made a moment ago may not have reached the broker that is asked: it is asked again for so long.
const NEW_PATIENCE: Duration = Duration::from_millis(500);
/// A broker that has just started denies the topics that it holds: one that was there is asked for so long.
pub const KNOWN_PATIENCE: Duration = Duration::from_secs(15);

/// Answers questions about a cluster. While the brokers are away it waits, up to `broker_timeout`.
#[derive(Clone)]
pub struct KafkaClient {
    shared: Arc<Shared>,
}

struct Shared {
    config: KafkaConfig,
    consumer: BaseConsumer<Watch>,
    /// Sees records of transactions that are still open; made when it is asked for.
    uncommitted: OnceLock<BaseConsumer<Watch>>,
    presence: Presence,
    broker_timeout: Option<Duration>,
    /// Whether the brokers have answered before.
    let_in: AtomicBool,
    /// Asked for once: a client never changes its cluster.
    cluster_id: OnceLock<String>,
    /// The topics that were there when they were asked for last.
    known: Mutex<BTreeSet<String>>,
}

/// Hears librdkafka's log lines and errors: the lines go on to tracing at debug, the errors are kept.
#[derive(Default)]
pub struct Watch {
    heard: Mutex<Heard>,
    lines: AtomicU64,
}

#[derive(Default)]
struct Heard {
    /// The brokers do not let us in: waiting does not help.
    refusal: Option<String>,
    /// The last reason why a connection failed.
    failure: Option<String>,
}

impl ClientContext for Watch {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.lines.fetch_add(1, Ordering::Relaxed);
        // A broker that hangs up is told in a line only: it may have been idle.
        if facility == "FAIL" {
            let reason = line.split_once("]: ").map_or(line, |(_thread, reason)| reason);
            self.heard.lock().unwrap_or_else(PoisonError::into_inner).failure = Some(reason.to_string());
        }
        tracing::debug!(target: "librdkafka", "{facility}: {line}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.lines.fetch_add(1, Ordering::Relaxed);
        self.hear(error.rdkafka_error_code().unwrap_or(Code::Unknown), reason);
    }
}

impl ConsumerContext for Watch {}

impl Watch {
    /// Takes note of an error that belongs to no single request.
    pub fn hear(&self, code: Code, reason: &str) {
        tracing::debug!(target: "librdkafka", "{code}: {reason}");
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if is_refusal(code, reason) {
            heard.refusal = Some(reason.to_string());
        } else if code != Code::AllBrokersDown || heard.failure.is_none() {
            heard.failure = Some(reason.to_string());
        }
    }

    /// Why the brokers do not let us in, if they said so since the last success.
    pub fn refusal(&self) -> Option<String> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).refusal.clone()
    }

    /// Why the last connection failed, if one did since the last success.
    pub fn failure(&self) -> Option<String> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).failure.clone()
    }

    /// All is well again.
    pub fn forget(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Heard::default();
    }
}

/// Whether an error goes away by itself: connections, elections, brokers that start.
pub fn is_temporary(code: Code) -> bool {
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::OperationTimedOut
            | Code::TimedOutQueue
            | Code::MessageTimedOut
            | Code::Resolve
            | Code::SSL
            | Code::NodeUpdate
            | Code::WaitingForCoordinator
            | Code::Retry
            | Code::State
            | Code::BrokerDestroy
            // A broker that is no longer among the cluster's, as one that was killed; the next attempt asks another.
            | Code::DestroyBroker
            | Code::UnknownBroker
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::RequestTimedOut
            | Code::BrokerNotAvailable
            | Code::ReplicaNotAvailable
            | Code::NetworkException
            | Code::CoordinatorLoadInProgress
            | Code::CoordinatorNotAvailable
            | Code::NotCoordinator
            | Code::NotController
            | Code::KafkaStorageError
            | Code::FencedLeaderEpoch
            | Code::UnknownLeaderEpoch
            | Code::OffsetNotAvailable
            | Code::ThrottlingQuotaExceeded
    )
}

/// Whether an error says that a topic or a partition is not there.
fn is_unknown(code: Code) -> bool {
    matches!(code, Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition)
}

impl KafkaClient {
    /// A client of the brokers that `config` names; nothing is sent yet. `broker_timeout`: how long a request waits for
    /// brokers that are away, `None` for ever.
    ///
    /// # Errors
    /// `Invalid` when librdkafka does not take the configuration (a CA file that is not there).
    pub fn new(config: KafkaConfig, broker_timeout: Option<Duration>) -> Result<Self> {
        let created = config.client().create_with_context::<_, BaseConsumer<Watch>>(Watch::default());
        let consumer = created.map_err(|error| config.refused(&error))?;
        let presence = Presence::new(format!("Kafka at {}", config.brokers()));
        Ok(Self {
            shared: Arc::new(Shared {
                config,
                consumer,
                uncommitted: OnceLock::new(),
                presence,
                broker_timeout,
                let_in: AtomicBool::new(false),
                cluster_id: OnceLock::new(),
                known: Mutex::default(),
            }),
        })
    }

    /// What it was made with.
    pub fn config(&self) -> &KafkaConfig {
        &self.shared.config
    }

    /// Whether the brokers are there: shared by all who talk to them, so that each change is logged once.
    pub fn presence(&self) -> &Presence {
        &self.shared.presence
    }

    /// The error of brokers that do not let us in.
    pub fn locked_out(&self, reason: &str) -> Error {
        self.shared.locked_out(reason)
    }

    /// The error of brokers that stayed away longer than `limit`.
    pub fn gave_up(&self, reason: &str, limit: Duration) -> Error {
        refusal::gave_up(&self.shared.config, reason, limit)
    }

    /// The brokers are away because of `reason`: tells it once.
    pub fn gone(&self, reason: &str) {
        self.shared.presence.gone(&refusal::in_words(&self.shared.config, reason));
    }

    /// How long a request waits for brokers that are away; `None` for ever.
    pub fn broker_timeout(&self) -> Option<Duration> {
        self.shared.broker_timeout
    }

    /// The cluster's topics, sorted.
    ///
    /// # Errors
    /// As [`KafkaClient::request`].
    pub async fn topics(&self) -> Result<Vec<String>> {
        self.request(|consumer, limit| {
            let metadata = consumer.fetch_metadata(None, limit)?;
            let mut topics: Vec<String> = metadata.topics().iter().map(|t| t.name().to_string()).collect();
            topics.sort();
            Ok(topics)
        })
        .await
    }

    /// The partitions of `topic`, ascending.
    ///
    /// # Errors
    /// `Unavailable` when the topic does not exist, with the names that look like it; else as [`KafkaClient::request`].
    pub async fn partitions(&self, topic: &str) -> Result<Vec<i32>> {
        self.about(topic, |_, _, partitions, _| Ok(partitions.to_vec())).await
    }

    /// What each partition of `topic` holds now, ordered by partition: one request to each leader for the beginnings
    /// and one for the ends (for `read_committed` the last stable offsets).
    ///
    /// # Errors
    /// As [`KafkaClient::partitions`].
    pub async fn bounds(&self, topic: &str) -> Result<Vec<PartitionBounds>> {
        self.about(topic, bounds).await
    }

    /// For each partition of `topic` that a transaction which is still open holds up: how many offsets are behind its
    /// last stable one.
    ///
    /// # Errors
    /// As [`KafkaClient::partitions`].
    pub async fn held(&self, topic: &str) -> Result<BTreeMap<i32, u64>> {
        let shared = Arc::clone(&self.shared);
        self.about(topic, move |consumer, topic, partitions, limit| {
            let stable = list_offsets(consumer, topic, partitions, Offset::End, limit)?;
            let sees_all = shared.uncommitted()?;
            // A client knows the leaders that it has asked for. Of one that is gone librdkafka says "unknown
            // partition", and does not ask again.
            if find_partitions(sees_all, topic, limit)?.is_none() {
                return Err(KafkaError::MetadataFetch(Code::UnknownTopicOrPartition));
            }
            let all = list_offsets(sees_all, topic, partitions, Offset::End, limit)?;
            let behind = |(partition, end): (i32, i64)| {
                let stable = stable.get(&partition)?;
                Some((partition, u64::try_from(end - stable).ok().filter(|behind| *behind > 0)?))
            };
            Ok(all.into_iter().filter_map(behind).collect())
        })
        .await
    }

    /// [`KafkaClient::bounds`] for a thread outside the runtime: one attempt, no waiting. `None` when the topic is not
    /// there.
    ///
    /// # Errors
    /// librdkafka's.
    pub fn bounds_now(&self, topic: &str, limit: Duration) -> KafkaResult<Option<Vec<PartitionBounds>>> {
        let consumer = &self.shared.consumer;
        match find_partitions(consumer, topic, limit)? {
            Some(partitions) => bounds(consumer, topic, &partitions, limit).map(Some),
            None => Ok(None),
        }
    }

    /// For each partition of `topic` the first offset whose record is of `time` or later; the end where there is none.
    /// Kafka also counts what is not read, the ends of transactions among it: they have the time of their writing.
    ///
    /// # Errors
    /// As [`KafkaClient::partitions`].
    pub async fn offsets_at(&self, topic: &str, time: DateTime<Utc>) -> Result<BTreeMap<i32, i64>> {
        // Negative numbers mean something else in this request.
        let millis = time.timestamp_millis().max(0);
        self.about(topic, move |consumer, topic, partitions, limit| {
            let ends = list_offsets(consumer, topic, partitions, Offset::End, limit)?;
            let mut found = list_offsets(consumer, topic, partitions, Offset::Offset(millis), limit)?;
            for (partition, offset) in &mut found {
                if *offset < 0 {
                    *offset = ends.get(partition).copied().unwrap_or(0);
                }
            }
            Ok(found)
        })
        .await
    }

    /// The cluster's id; empty when the brokers have none.
    ///
    /// # Errors
    /// As [`KafkaClient::request`].
    pub async fn cluster_id(&self) -> Result<String> {
        if let Some(id) = self.shared.cluster_id.get() {
            return Ok(id.clone());
        }
        let asked = self.request(|consumer, limit| match consumer.client().fetch_cluster_id(limit) {
            Some(id) => Ok(id),
            // It has none, or it is away: only then this fails.
            None => consumer.fetch_metadata(None, limit).map(|_| String::new()),
        });
        let id = asked.await?;
        Ok(self.shared.cluster_id.get_or_init(|| id).clone())
    }

    /// Asks the cluster, again and again while it is away: pauses and time limits double. One log line tells that it
    /// went away, one that it is back.
    ///
    /// # Errors
    /// `Invalid` when the brokers do not let us in, which is never waited for; `Unavailable` when they did so before,
    /// when `broker_timeout` has passed, or for any error that does not go away by itself.
    pub async fn request<T, F>(&self, ask: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&BaseConsumer<Watch>, Duration) -> KafkaResult<T> + Send + Sync + 'static,
    {
        let ask = Arc::new(ask);
        let waited = Stopwatch::start();
        let (mut limit, mut pause) = (FIRST_LIMIT, FIRST_PAUSE);
        loop {
            let (shared, ask) = (self.shared.clone(), ask.clone());
            let attempt = tokio::task::spawn_blocking(move || {
                let answer = ask(&shared.consumer, limit);
                shared.listen();
                answer
            });
            let answer =
                attempt.await.map_err(|error| Error::unavailable("a Kafka request stopped").caused_by(error))?;
            let error = match answer {
                Ok(answer) => {
                    self.shared.consumer.context().forget();
                    self.shared.presence.back();
                    self.shared.let_in.store(true, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(error) => error,
            };
            self.shared.wait_or_fail(&error, waited.elapsed())?;
            tokio::time::sleep(pause).await;
            (limit, pause) = ((limit * 2).min(LAST_LIMIT), (pause * 2).min(LAST_PAUSE));
        }
    }

    /// [`KafkaClient::request`] about a topic that has to exist.
    async fn about<T, F>(&self, topic: &str, ask: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&BaseConsumer<Watch>, &str, &[i32], Duration) -> KafkaResult<T> + Send + Sync + 'static,
    {
        let (name, ask) = (topic.to_string(), Arc::new(ask));
        let patience = if self.known().contains(topic) { KNOWN_PATIENCE } else { NEW_PATIENCE };
        let (asked, mut pause) = (Stopwatch::start(), FIRST_PAUSE);
        loop {
            let (name, ask) = (name.clone(), ask.clone());
            let answer = self.request(move |consumer, limit| {
                let Some(partitions) = find_partitions(consumer, &name, limit)? else { return Ok(None) };
                match ask(consumer, &name, &partitions, limit) {
                    // One broker names the partition, its leader does not know it (yet, or any more).
                    Err(error) if error.rdkafka_error_code().is_some_and(is_unknown) => Ok(None),
                    answer => answer.map(Some),
                }
            });
            if let Some(answer) = answer.await.map_err(|error| error.within(format!("topic {topic}")))? {
                self.known().insert(topic.to_string());
                return Ok(answer);
            }
            if asked.elapsed() >= patience {
                self.known().remove(topic);
                return Err(self.unknown_topic(topic).await);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.shared.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The error of a topic that does not exist, with the topics that look like it.
    pub async fn unknown_topic(&self, topic: &str) -> Error {
        let there = self.topics().await.unwrap_or_default();
        unknown_topic(topic, self.shared.config.brokers(), &there)
    }
}

/// The text of [`KafkaClient::unknown_topic`].
fn unknown_topic(topic: &str, brokers: &str, there: &[String]) -> Error {
    let mut near: Vec<(f64, &str)> = there
        .iter()
        .filter(|name| !name.starts_with("__"))
        .map(|name| (strsim::jaro_winkler(topic, name), name.as_str()))
        .filter(|(score, _)| *score > 0.75)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    let near: Vec<String> = near.iter().take(3).map(|(_, name)| format!("`{name}`")).collect();
    let remedy = match near.as_slice() {
        [] => "create it, or mend the table's LOCATION".to_string(),
        near => format!("did you mean {}? Else create it, or mend the table's LOCATION", near.join(" or ")),
    };
    Error::unavailable(format!("topic `{topic}` does not exist at {brokers}: {remedy}"))
}

impl Shared {
    /// The client that sees records of open transactions.
    fn uncommitted(&self) -> KafkaResult<&BaseConsumer<Watch>> {
        if let Some(known) = self.uncommitted.get() {
            return Ok(known);
        }
        let mut config = self.config.client();
        config.set("isolation.level", "read_uncommitted");
        let made = config.create_with_context::<_, BaseConsumer<Watch>>(Watch::default())?;
        Ok(self.uncommitted.get_or_init(|| made))
    }

    /// Serves librdkafka's log lines and errors.
    fn listen(&self) {
        let watch = self.consumer.context();
        loop {
            let before = watch.lines.load(Ordering::Relaxed);
            let event = self.consumer.poll(Duration::ZERO);
            if event.is_none() && watch.lines.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }

    fn locked_out(&self, reason: &str) -> Error {
        refusal::locked_out(&self.config, reason, self.let_in.load(Ordering::Relaxed))
    }

    /// Whether a failed request is worth another attempt.
    fn wait_or_fail(&self, error: &KafkaError, waited: Duration) -> Result<()> {
        let watch = self.consumer.context();
        let brokers = self.config.brokers();
        let code = error.rdkafka_error_code();
        let own = code.filter(|code| is_refusal(*code, "")).map(|code| code.to_string());
        if let Some(reason) = watch.refusal().or(own) {
            return Err(self.locked_out(&reason));
        }
        let reason = code.map_or_else(|| error.to_string(), |code| code.to_string());
        if !temporary(error) {
            let reason = self.config.redact(&reason);
            return Err(Error::unavailable(format!(
                "Kafka at {brokers} refused a request: {reason}. {}",
                remedy(code)
            )));
        }
        let reason = watch.failure().unwrap_or(reason);
        if waited >= AWAY {
            self.presence.gone(&refusal::in_words(&self.config, &reason));
        }
        match self.broker_timeout {
            Some(limit) if waited >= limit => Err(refusal::gave_up(&self.config, &reason, limit)),
            _ => Ok(()),
        }
    }
}

/// What to do about an error that stays.
fn remedy(code: Option<Code>) -> &'static str {
    match code {
        Some(Code::TopicAuthorizationFailed) => "Grant this user READ and DESCRIBE on the topic",
        Some(Code::ClusterAuthorizationFailed) => "Grant this user DESCRIBE on the cluster",
        _ => "Look at the broker's log, then run it again",
    }
}

fn temporary(error: &KafkaError) -> bool {
    error.rdkafka_error_code().is_some_and(is_temporary)
}

/// The partitions of `topic`, ascending; `None` when it does not exist.
fn find_partitions(consumer: &BaseConsumer<Watch>, topic: &str, limit: Duration) -> KafkaResult<Option<Vec<i32>>> {
    let metadata = consumer.fetch_metadata(Some(topic), limit)?;
    let Some(found) = metadata.topics().iter().find(|t| t.name() == topic) else { return Ok(None) };
    match found.error().map(Code::from) {
        None => {}
        Some(code) if is_unknown(code) || code == Code::InvalidTopic => return Ok(None),
        Some(code) => return Err(KafkaError::MetadataFetch(code)),
    }
    let mut partitions: Vec<i32> = found.partitions().iter().map(|p| p.id()).collect();
    partitions.sort_unstable();
    Ok(Some(partitions))
}

fn bounds(
    consumer: &BaseConsumer<Watch>,
    topic: &str,
    partitions: &[i32],
    limit: Duration,
) -> KafkaResult<Vec<PartitionBounds>> {
    // Beginnings first: both only grow, so low <= high.
    let lows = list_offsets(consumer, topic, partitions, Offset::Beginning, limit)?;
    let highs = list_offsets(consumer, topic, partitions, Offset::End, limit)?;
    let bounds = lows.iter().map(|(&partition, &low)| {
        let high = highs.get(&partition).copied().unwrap_or(low);
        PartitionBounds { partition, low, high: high.max(low) }
    });
    Ok(bounds.collect())
}

/// One ListOffsets request to each leader: librdkafka passes a logical offset on as the timestamp that means it.
fn list_offsets(
    consumer: &BaseConsumer<Watch>,
    topic: &str,
    partitions: &[i32],
    wanted: Offset,
    limit: Duration,
) -> KafkaResult<BTreeMap<i32, i64>> {
    if partitions.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for &partition in partitions {
        list.add_partition_offset(topic, partition, wanted)?;
    }
    let answer = consumer.offsets_for_times(list, limit)?;
    let mut offsets = BTreeMap::new();
    for element in answer.elements() {
        element.error()?;
        offsets.insert(element.partition(), element.offset().to_raw().unwrap_or(-1));
    }
    Ok(offsets)
}

impl fmt::Debug for KafkaClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaClient").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use rdkafka::mocking::MockCluster;

    fn client(brokers: &str, broker_timeout: Duration) -> KafkaClient {
        let config = KafkaConfig::new(brokers, &BTreeMap::new()).unwrap();
        KafkaClient::new(config, Some(broker_timeout)).unwrap()
    }

    #[tokio::test]
    async fn it_lists_topics_and_bounds() {
        let cluster = MockCluster::new(2).unwrap();
        cluster.create_topic("ad-impressions", 3, 1).unwrap();
        let client = client(&cluster.bootstrap_servers(), Duration::from_secs(20));
        assert_eq!(client.topics().await.unwrap(), ["ad-impressions"]);
        assert_eq!(client.partitions("ad-impressions").await.unwrap(), [0, 1, 2]);
        let empty = |partition| PartitionBounds { partition, low: 0, high: 0 };
        assert_eq!(client.bounds("ad-impressions").await.unwrap(), [empty(0), empty(1), empty(2)]);
    }

    #[tokio::test]
    async fn a_broker_that_comes_back_is_waited_for() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("t", 1, 1).unwrap();
        let client = client(&cluster.bootstrap_servers(), Duration::from_secs(60));
        cluster.broker_down(1).unwrap();
        let asked = tokio::spawn({
            let client = client.clone();
            async move { client.partitions("t").await }
        });
        while client.shared.presence.away_for().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        cluster.broker_up(1).unwrap();
        assert_eq!(asked.await.unwrap().unwrap(), [0]);
        assert_eq!(client.shared.presence.away_for(), None);
    }

    #[tokio::test]
    async fn a_broker_that_stays_away_is_an_error() {
        let client = client("127.0.0.1:1", Duration::from_millis(10));
        let error = client.bounds("t").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let message = error.to_string();
        assert!(message.contains("127.0.0.1:1") && message.contains("flumen.broker_timeout"), "{message}");
        assert!(message.contains("refused"), "{message}");
    }

    #[test]
    fn an_unknown_topic_is_named_with_its_neighbours() {
        let there = ["ad-impressions", "ad-impression", "orders", "__consumer_offsets"].map(String::from);
        let message = unknown_topic("ad-impresions", "b:1", &there).to_string();
        assert!(
            message.starts_with("topic `ad-impresions` does not exist at b:1: did you mean `ad-impression"),
            "{message}"
        );
        assert!(!message.contains("orders"));
        let message = unknown_topic("zzz", "b:1", &there).to_string();
        assert_eq!(message, "topic `zzz` does not exist at b:1: create it, or mend the table's LOCATION");
    }
}
