//! What was published under which `idempotency-key` before this process: the topics say it themselves.
//!
//! Each record that came with a key carries in a header what the gateway remembers of it. A gateway that starts reads
//! the records of the window from its topics, and so knows the keys of the one that ran before it, however that ended.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};

use super::idempotency::Remembered;
use super::publisher::Placed;
use crate::clock::Stopwatch;
use crate::error::{Error, Result};
use crate::kafka::{KafkaClient, KafkaConfig, is_temporary};

/// What a record with a key carries: the hash of the key with its scope and the hash of the message as it was sent.
pub(super) const HEADER: &str = "flumen-idempotency";
/// How long a topic that is not there is asked for again.
const NEW_TOPIC: Duration = Duration::from_secs(5);
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
    let mut remembered = Vec::new();
    for topic in present(&client, topics).await? {
        let starts = client.offsets_at(&topic, since).await?;
        let config = config.clone();
        let read = tokio::task::spawn_blocking(move || read(&config, &topic, starts, patience));
        let read = read.await.map_err(|error| Error::unavailable(format!("reading the topics failed: {error}")))?;
        remembered.extend(read?);
    }
    Ok(remembered)
}

/// The topics that are there. A broker that has just started denies those that it holds: it is asked for a while.
async fn present(client: &KafkaClient, topics: &[String]) -> Result<Vec<String>> {
    let watch = Stopwatch::start();
    loop {
        let there = client.topics().await?;
        let present: Vec<String> = topics.iter().filter(|topic| there.contains(topic)).cloned().collect();
        if present.len() == topics.len() || watch.elapsed() >= NEW_TOPIC {
            return Ok(present);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Reads partitions from an offset up to their ends.
fn read(config: &KafkaConfig, topic: &str, starts: BTreeMap<i32, i64>, patience: Duration) -> Result<Vec<Remembered>> {
    let failed = |error: KafkaError| {
        Error::unavailable(format!("topic {topic}: its idempotency keys could not be read; start the gateway again"))
            .caused_by(error)
    };
    // What somebody else's open transaction holds up is there, too.
    let reader = config.reader().set("isolation.level", "read_uncommitted").create();
    let consumer: BaseConsumer = reader.map_err(|error| config.refused(&error))?;
    let mut assigned = TopicPartitionList::new();
    for (partition, start) in &starts {
        assigned.add_partition_offset(topic, *partition, Offset::Offset(*start)).map_err(failed)?;
    }
    consumer.assign(&assigned).map_err(failed)?;
    let mut left: BTreeSet<i32> = starts.into_keys().collect();
    let mut remembered = Vec::new();
    let mut quiet = Stopwatch::start();
    while !left.is_empty() {
        match consumer.poll(POLL) {
            Some(Ok(record)) => {
                quiet = Stopwatch::start();
                remembered.extend(of(&record));
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => drop(left.remove(&partition)),
            Some(Err(error)) if !error.rdkafka_error_code().is_some_and(is_temporary) => return Err(failed(error)),
            _ if quiet.elapsed() >= patience => {
                return Err(failed(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut)));
            }
            _ => {}
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
