//! A Kafka topic as a bounded log.
//!
//! Two clients: one that only asks ([`crate::kafka::KafkaClient`]), and one that fetches, on a thread of its own.
//! Partitions are assigned with numeric offsets; no consumer group owns anything.

mod delivery;
mod ffi;
mod lanes;
mod reader;

pub use ffi::may_be_there;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode as Code;
use tokio::sync::{mpsc, watch};

use self::reader::{Command, Read, Reader};
use super::{Log, RawStream, TopicIdentity, Wanted};
use crate::error::{Error, Result};
use crate::kafka::{KafkaClient, KafkaConfig, Watch};
use crate::offsets::{PartitionBounds, PartitionRange};

/// The batches that wait in a stream at most; with [`lanes`]' bound on a batch that is some MiB.
const STREAM_BATCHES: usize = 4;
/// The reads and mirrored positions that wait for the thread at most.
const COMMANDS: usize = 64;

/// How the ids of librdkafka's simulated clusters begin. They name no controller, so nobody there knows topic ids.
const SIMULATED: &str = "mockCluster";

/// A topic of a Kafka cluster.
#[derive(Debug)]
pub struct KafkaLog {
    client: KafkaClient,
    topic: String,
    /// The reading thread, started by the first read. The log owns it: dropping the log drops `Thread`'s senders, which
    /// interrupts a read and ends the thread. Dropping a stream ends only its read.
    thread: Mutex<Option<Thread>>,
}

#[derive(Debug)]
struct Thread {
    commands: mpsc::Sender<Command>,
    _stop: watch::Sender<()>,
}

impl KafkaLog {
    /// The log of `topic`; nothing is sent yet. `broker_timeout`: how long requests and reads wait for brokers that are
    /// away, `None` for ever.
    ///
    /// # Errors
    /// `Invalid` when librdkafka does not take the configuration.
    pub fn open(config: KafkaConfig, topic: &str, broker_timeout: Option<Duration>) -> Result<Self> {
        let client = KafkaClient::new(config, broker_timeout)?;
        Ok(Self { client, topic: topic.to_string(), thread: Mutex::new(None) })
    }

    /// Tells Kafka committed positions, for lag dashboards only: nothing reads them back. Does nothing unless
    /// `kafka.group.id` was given; does not wait, and a failure is only logged at debug.
    pub fn mirror(&self, offsets: &BTreeMap<i32, i64>) {
        if self.client.config().group().is_none() || offsets.is_empty() {
            return;
        }
        if let Err(error) = self.send(Command::Mirror(offsets.clone())) {
            tracing::debug!("topic {}: positions were not mirrored: {error}", self.topic);
        }
    }

    /// Gives the thread a command; starts it when it does not run.
    fn send(&self, command: Command) -> Result<()> {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        let mut command = command;
        if let Some(running) = thread.as_ref() {
            command = match running.commands.try_send(command) {
                Ok(()) => return Ok(()),
                Err(mpsc::error::TrySendError::Closed(command)) => command,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    return Err(Error::unavailable(format!(
                        "topic {}: {COMMANDS} reads wait already: finish or drop some of them first",
                        self.topic
                    )));
                }
            };
        }
        let started = thread.insert(self.start()?);
        let sent = started.commands.try_send(command);
        sent.map_err(|_| Error::unavailable(format!("topic {}: its thread stopped: run it again", self.topic)))
    }

    fn start(&self) -> Result<Thread> {
        let config = self.client.config();
        let (commands, to_do) = mpsc::channel(COMMANDS);
        let (stop, stopped) = watch::channel(());
        let unstarted =
            |error| Error::unavailable(format!("topic {}: no thread to read it", self.topic)).caused_by(error);
        let reader = Reader {
            topic: self.topic.clone(),
            client: self.client.clone(),
            consumer: ffi::Consumer::new(&config.reader()).map_err(|error| config.refused(&error))?,
            runtime: tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(unstarted)?,
            commands: to_do,
            stop: stopped,
            lanes: lanes::Lanes::default(),
            watch: Watch::default(),
        };
        std::thread::Builder::new().name("kafka-reader".into()).spawn(move || reader.run()).map_err(unstarted)?;
        Ok(Thread { commands, _stop: stop })
    }

    async fn topic_id(&self) -> Result<String> {
        let topic = self.topic.clone();
        let asked = self.client.request(move |consumer, limit| {
            let answer = ffi::topic_id(consumer.client(), &topic, limit);
            match answer.as_ref().err().and_then(rdkafka::error::KafkaError::rdkafka_error_code) {
                // A broker from before topic ids.
                Some(Code::UnsupportedFeature | Code::UnsupportedVersion) => Ok(String::new()),
                _ => answer.map(Option::unwrap_or_default),
            }
        });
        asked.await.map_err(|error| error.within(format!("topic {}", self.topic)))
    }
}

#[async_trait]
impl Log for KafkaLog {
    async fn identity(&self) -> Result<TopicIdentity> {
        // First of all: does it exist?
        self.client.partitions(&self.topic).await?;
        let cluster_id = self.client.cluster_id().await?;
        let topic_id = if cluster_id.starts_with(SIMULATED) { String::new() } else { self.topic_id().await? };
        Ok(TopicIdentity { topic: self.topic.clone(), topic_id, cluster_id })
    }

    async fn bounds(&self) -> Result<Vec<PartitionBounds>> {
        self.client.bounds(&self.topic).await
    }

    async fn held(&self) -> Result<BTreeMap<i32, u64>> {
        self.client.held(&self.topic).await
    }

    async fn offsets_at(&self, time: DateTime<Utc>) -> Result<BTreeMap<i32, i64>> {
        self.client.offsets_at(&self.topic, time).await
    }

    fn read(&self, ranges: &[PartitionRange], wanted: Wanted) -> Result<RawStream> {
        let ranges = super::check_ranges(&self.topic, ranges)?;
        let (batches, stream) = mpsc::channel(STREAM_BATCHES + 1);
        if ranges.is_empty() {
            return Ok(stream);
        }
        let Ok(last_word) = batches.clone().try_reserve_owned() else { return Ok(stream) };
        self.send(Command::Read(Read { ranges, wanted, batches, last_word }))?;
        Ok(stream)
    }

    /// What librdkafka fetches ahead, twice a fetch as it comes (packed and unpacked), and the lanes.
    fn read_bytes(&self) -> usize {
        self.client.config().fetch_bytes() + lanes::READ_BYTES
    }

    fn mirror(&self, positions: &BTreeMap<i32, i64>) {
        KafkaLog::mirror(self, positions);
    }
}
