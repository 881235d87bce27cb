//! What was published under which `idempotency-key` before this process: the topics say it themselves.
//!
//! Each record that came with a key carries in a header what the gateway remembers of it. A gateway that starts reads
//! the records of the window from its topics, and so knows the keys of the one that ran before it, however that ended.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};

use super::idempotency::Remembered;
use super::publish::Placed;
use crate::clock::Stopwatch;
use crate::error::{Error, Result};
use crate::kafka::{KafkaClient, KafkaConfig, is_temporary};

/// What a record with a key carries: the hash of the key with its scope and the hash of the message as it was sent.
pub(super) const HEADER: &str = "flumen-idempotency";
/// How long one record is waited for.
const POLL: Duration = Duration::from_millis(100);

/// Reads what records of `topics` from `since` on say of their keys. Topics that are not there have none.
///
/// # Errors
/// `Unavailable` when the brokers are away for longer than `patience`.
pub async fn recall(
    config: &KafkaConfig,
    topics: &[String],
    since: DateTime<Utc>,
    patience: Duration,
) -> Result<Vec<Remembered>> {
    let client = KafkaClient::new(config.clone(), Some(patience))?;
    let there = client.topics().await?;
    let mut remembered = Vec::new();
    for topic in topics.iter().filter(|topic| there.contains(topic)) {
        let starts = client.offsets_at(topic, since).await?;
        let mut left: BTreeMap<i32, (i64, i64)> = BTreeMap::new();
        for bounds in client.bounds(topic).await? {
            let start = starts.get(&bounds.partition).copied().unwrap_or(bounds.high);
            if start < bounds.high {
                left.insert(bounds.partition, (start, bounds.high));
            }
        }
        if left.is_empty() {
            continue;
        }
        let (config, topic) = (config.clone(), topic.clone());
        let read = tokio::task::spawn_blocking(move || read(&config, &topic, left, patience));
        let read = read.await.map_err(|error| Error::unavailable(format!("reading the topics failed: {error}")))?;
        remembered.extend(read?);
    }
    Ok(remembered)
}

/// Reads ranges of partitions: from an offset up to another one.
fn read(
    config: &KafkaConfig,
    topic: &str,
    mut left: BTreeMap<i32, (i64, i64)>,
    patience: Duration,
) -> Result<Vec<Remembered>> {
    let failed = |error: KafkaError| {
        Error::unavailable(format!("topic {topic}: its idempotency keys could not be read; start the gateway again"))
            .caused_by(error)
    };
    let consumer: BaseConsumer = config.reader().create().map_err(|error| config.refused(&error))?;
    let mut assigned = TopicPartitionList::new();
    for (partition, (start, _)) in &left {
        assigned.add_partition_offset(topic, *partition, Offset::Offset(*start)).map_err(failed)?;
    }
    consumer.assign(&assigned).map_err(failed)?;
    let mut remembered = Vec::new();
    let mut quiet = Stopwatch::start();
    while !left.is_empty() {
        let next = match consumer.poll(POLL) {
            Some(Ok(record)) => {
                remembered.extend(of(&record));
                Some((record.partition(), record.offset() + 1))
            }
            // What ends a range may be no record: the end of a transaction.
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                left.remove(&partition);
                continue;
            }
            Some(Err(error)) if error.rdkafka_error_code().is_some_and(is_temporary) => None,
            Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OffsetOutOfRange))) => {
                return Err(failed(KafkaError::MessageConsumption(RDKafkaErrorCode::OffsetOutOfRange)));
            }
            Some(Err(error)) => return Err(failed(error)),
            None => None,
        };
        match next {
            Some((partition, next)) => {
                quiet = Stopwatch::start();
                if left.get(&partition).is_some_and(|(_, end)| next >= *end) {
                    left.remove(&partition);
                }
            }
            None if quiet.elapsed() >= patience => {
                return Err(failed(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut)));
            }
            None => {}
        }
    }
    Ok(remembered)
}

/// What a record says of its key.
fn of(record: &BorrowedMessage<'_>) -> Option<Remembered> {
    let header = record.headers()?.iter().find(|header| header.key == HEADER)?;
    let at = record.timestamp().to_millis().and_then(DateTime::from_timestamp_millis)?;
    let placed = Placed { partition: record.partition(), offset: record.offset() };
    Remembered::read(header.value?, placed, at)
}
