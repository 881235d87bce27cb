//! Publishes made-up records to a broker, without the gateway.

use std::time::Duration;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

use super::cluster::producer_config;
use crate::clock::{Clock, Stopwatch, SystemClock};
use crate::error::{Error, Result};

/// Hears what became of each record: the first failure is kept.
#[derive(Default)]
struct Deliveries(Mutex<Option<KafkaError>>);

impl ClientContext for Deliveries {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, line: &str) {
        tracing::debug!(target: "librdkafka", "{facility}: {line}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", "{error}: {reason}");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.0.lock().get_or_insert_with(|| error.clone());
        }
    }
}

/// Made-up records, one after the other.
pub(crate) trait Records: Send {
    /// Key and value of record `number`, at its own place in time, or at `now`.
    fn encode(&mut self, number: u64, now: Option<DateTime<Utc>>, key: &mut Vec<u8>, value: &mut Vec<u8>);

    /// When the record that was made last was sent, in milliseconds since the epoch; `None`: when it is published.
    fn sent(&self) -> Option<i64> {
        None
    }
}

/// Publishes made-up records to a topic.
pub(crate) struct Publisher {
    producer: ThreadedProducer<Deliveries>,
    topic: String,
    records: u64,
    made_up: Box<dyn Records>,
    pace: Pace,
}

/// How fast records are published.
pub(crate) enum Pace {
    /// As fast as the broker takes them.
    Unbound,
    /// So many records a second; each is stamped with the time at which it is published.
    Rate(u32),
}

/// Records that are due are published together, so often.
const TICK: Duration = Duration::from_millis(2);

/// Makes the topic when it is not there.
///
/// # Errors
/// `Unavailable` when the brokers do not answer or refuse.
pub(crate) async fn make_topic(brokers: &str, topic: &str, partitions: i32) -> Result<()> {
    let failed = |why: String| {
        Error::unavailable(format!("topic {topic} at {brokers}: {why}; is the broker up, and may this user create it?"))
    };
    let admin: AdminClient<DefaultClientContext> =
        producer_config(brokers).create().map_err(|e| failed(e.to_string()))?;
    let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(10)));
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
    let made = admin.create_topics([&new], &options).await.map_err(|e| failed(e.to_string()))?;
    match made.first() {
        Some(Err((_, code))) if *code != RDKafkaErrorCode::TopicAlreadyExists => Err(failed(code.to_string())),
        _ => Ok(()),
    }
}

/// What was published.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Published {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

impl Publisher {
    /// A publisher.
    pub(crate) fn new(brokers: &str, topic: &str, records: u64, made_up: Box<dyn Records>, pace: Pace) -> Result<Self> {
        let producer = producer_config(brokers).create_with_context(Deliveries::default()).map_err(|e| {
            Error::invalid(format!("no producer for {brokers}: {e}; name brokers as HOST:PORT[,HOST:PORT]"))
        })?;
        Ok(Self { producer, topic: topic.to_owned(), records, made_up, pace })
    }

    /// Publishes all of them and waits until the broker has them. Blocks.
    pub(crate) fn publish(mut self) -> Result<Published> {
        let mut published = Published::default();
        let mut key = Vec::new();
        let mut value = Vec::new();
        let watch = Stopwatch::start();
        while published.records < self.records {
            let now = self.wait_for_turn(published.records, &watch);
            self.made_up.encode(published.records, now, &mut key, &mut value);
            let record = BaseRecord::to(&self.topic).key(key.as_slice()).payload(value.as_slice());
            let record = match self.made_up.sent() {
                Some(sent) => record.timestamp(sent),
                None => record,
            };
            match self.producer.send(record) {
                Ok(()) => {
                    published.records += 1;
                    published.bytes += value.len() as u64;
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    self.flush()?;
                }
                Err((error, _)) => return Err(self.failed(&error)),
            }
        }
        self.flush()?;
        Ok(published)
    }

    fn flush(&self) -> Result<()> {
        self.producer.flush(Duration::from_secs(60)).map_err(|e| self.failed(&e))?;
        match self.producer.context().0.lock().take() {
            Some(error) => Err(self.failed(&error)),
            None => Ok(()),
        }
    }

    fn failed(&self, error: &KafkaError) -> Error {
        Error::unavailable(format!("publishing to topic {}: {error}; is the broker up?", self.topic))
    }

    /// Waits until record `published` may go; the time to stamp it with, where it is not its own.
    fn wait_for_turn(&self, published: u64, watch: &Stopwatch) -> Option<DateTime<Utc>> {
        match &self.pace {
            Pace::Unbound => None,
            Pace::Rate(rate) => {
                while published as f64 >= watch.elapsed().as_secs_f64() * f64::from(*rate) {
                    std::thread::sleep(TICK);
                }
                Some(SystemClock.now())
            }
        }
    }
}
