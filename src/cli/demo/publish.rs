//! Publishes ad impressions, never further ahead of the reader than the broker keeps.

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use tokio::sync::watch;

use super::cluster::producer_config;
use super::impressions::Impressions;
use crate::error::{Error, Result};

/// Records that may be published and not yet read. The broker in this process keeps 5 MiB a partition; a record takes
/// at most 250 bytes, so even if all of these went to one partition nothing would be dropped.
const AHEAD: u64 = 15_000;

/// Publishes `records` impressions to a topic.
pub(crate) struct Publisher {
    producer: ThreadedProducer<DefaultProducerContext>,
    topic: String,
    records: u64,
    /// Records read and rows written so far, when somebody reads at the same time.
    read: Option<watch::Receiver<(u64, u64)>>,
}

/// What was published.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Published {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

impl Publisher {
    /// A publisher; with `read` it waits for the reader.
    pub(crate) fn new(
        brokers: &str,
        topic: &str,
        records: u64,
        read: Option<watch::Receiver<(u64, u64)>>,
    ) -> Result<Self> {
        let producer = producer_config(brokers).create().map_err(|e| {
            Error::invalid(format!("no producer for {brokers}: {e}; name brokers as HOST:PORT[,HOST:PORT]"))
        })?;
        Ok(Self { producer, topic: topic.to_owned(), records, read })
    }

    /// Publishes all of them and waits until the broker has them. Blocks.
    pub(crate) fn publish(mut self) -> Result<Published> {
        let mut impressions = Impressions::new(self.records);
        let mut published = Published::default();
        let mut key = Vec::new();
        let mut value = Vec::new();
        while published.records < self.records {
            self.wait_for_reader(published.records)?;
            impressions.encode(published.records, &mut key, &mut value);
            let record = BaseRecord::to(&self.topic).key(key.as_slice()).payload(value.as_slice());
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
        self.producer.flush(Duration::from_secs(60)).map_err(|e| self.failed(&e))
    }

    fn failed(&self, error: &KafkaError) -> Error {
        Error::unavailable(format!("publishing to topic {}: {error}; is the broker up?", self.topic))
    }

    fn wait_for_reader(&mut self, published: u64) -> Result<()> {
        let Some(read) = &mut self.read else { return Ok(()) };
        if published < read.borrow().0 + AHEAD {
            return Ok(());
        }
        self.producer
            .flush(Duration::from_secs(60))
            .map_err(|e| Error::unavailable(format!("publishing to topic {}: {e}; is the broker up?", self.topic)))?;
        let waited = futures::executor::block_on(read.wait_for(|(done, _)| published < done + AHEAD / 2));
        match waited {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::unavailable("the run ended while records were still being published")),
        }
    }
}
