//! Puts records into Kafka topics: one idempotent producer for all of them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use tokio::sync::oneshot;

use super::publisher::{Placed, PublishError, PublishErrorKind, Publisher, Record};
use crate::error::Result;
use crate::kafka::KafkaConfig;
use crate::source::kafka::may_be_there;

/// How long the end of the process waits for what is under way: the gateway has drained before.
const FLUSH: Duration = Duration::from_secs(1);

/// Publishes to the topics of one cluster.
pub struct KafkaPublisher {
    config: KafkaConfig,
    /// Made anew when it has failed for good.
    producer: Mutex<Arc<ThreadedProducer<Deliveries>>>,
}

/// What a record waits for.
type Told = oneshot::Sender<Result<Placed, PublishError>>;

/// Hears what became of each record.
#[derive(Debug, Default)]
struct Deliveries;

impl ClientContext for Deliveries {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, line: &str) {
        tracing::debug!(target: "librdkafka", "{facility}: {line}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", "{error}: {reason}");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Told>;

    fn delivery(&self, result: &DeliveryResult<'_>, told: Box<Told>) {
        let outcome = match result {
            Ok(message) => Ok(Placed { partition: message.partition(), offset: message.offset() }),
            Err((error, message)) => Err(failure(message.topic(), error, may_be_there(message))),
        };
        // Nobody waits any more: the record is where it is.
        drop(told.send(outcome));
    }
}

impl KafkaPublisher {
    /// A publisher to the brokers that `config` names; nothing is sent yet.
    ///
    /// # Errors
    /// `Invalid` when librdkafka does not take the configuration.
    pub fn new(config: KafkaConfig) -> Result<Self> {
        let producer = Mutex::new(Arc::new(producer(&config)?));
        Ok(Self { config, producer })
    }

    /// The producer; another one, when that has failed for good.
    fn producer(&self) -> Result<Arc<ThreadedProducer<Deliveries>>> {
        let mut current = self.producer.lock();
        if let Some((code, reason)) = current.client().fatal_error() {
            tracing::warn!("the Kafka producer failed for good ({code}: {reason}); a new one goes on");
            *current = Arc::new(producer(&self.config)?);
        }
        Ok(Arc::clone(&current))
    }

    /// Puts a record into the producer's queue.
    fn enqueue(&self, record: Record, told: Told) -> std::result::Result<(), PublishError> {
        let Record { topic, key, value, headers } = record;
        let producer = self
            .producer()
            .map_err(|error| PublishError { kind: PublishErrorKind::Away, message: error.message().to_owned() })?;
        let mut message = BaseRecord::<[u8], [u8], Box<Told>>::with_opaque_to(&topic, Box::new(told)).payload(&value);
        if let Some(key) = &key {
            message = message.key(key);
        }
        if !headers.is_empty() {
            let with = headers.iter().fold(OwnedHeaders::new_with_capacity(headers.len()), |all, (key, value)| {
                all.insert(Header { key, value: Some(&value[..]) })
            });
            message = message.headers(with);
        }
        producer.send(message).map_err(|(error, _)| failure(&topic, &error, false))
    }
}

fn producer(config: &KafkaConfig) -> Result<ThreadedProducer<Deliveries>> {
    config.producer().create_with_context(Deliveries).map_err(|error| config.refused(&error))
}

/// What is known of a record that was not acknowledged.
fn failure(topic: &str, error: &KafkaError, may_be_there: bool) -> PublishError {
    let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
    let (is_refused, message) = match code {
        Code::MessageSizeTooLarge | Code::InvalidMessageSize => {
            (true, format!("topic {topic} takes no record of this size; send a smaller message"))
        }
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => {
            (true, format!("the gateway may not write to topic {topic}; allow it to"))
        }
        Code::PolicyViolation | Code::InvalidRecord | Code::InvalidTopic | Code::InvalidTimestamp => {
            (true, format!("topic {topic} refuses the record: {code}"))
        }
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
            (false, format!("there is no topic {topic}; create it"))
        }
        Code::QueueFull => (false, "the gateway's queue to the brokers is full".to_owned()),
        Code::MessageTimedOut => (false, format!("the brokers of topic {topic} have not answered in time")),
        code => (false, format!("topic {topic}: {code}")),
    };
    let kind = match (may_be_there, is_refused) {
        (true, _) => PublishErrorKind::Uncertain,
        (false, true) => PublishErrorKind::Refused,
        (false, false) => PublishErrorKind::Away,
    };
    PublishError { kind, message }
}

#[async_trait]
impl Publisher for KafkaPublisher {
    async fn publish(&self, record: Record) -> std::result::Result<Placed, PublishError> {
        let (told, outcome) = oneshot::channel();
        self.enqueue(record, told)?;
        outcome.await.unwrap_or_else(|_| {
            let message = "the producer ended before the brokers answered".to_owned();
            Err(PublishError { kind: PublishErrorKind::Uncertain, message })
        })
    }
}

impl Drop for KafkaPublisher {
    fn drop(&mut self) {
        drop(self.producer.lock().flush(FLUSH));
    }
}

impl fmt::Debug for KafkaPublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaPublisher").field("config", &self.config).finish_non_exhaustive()
    }
}
