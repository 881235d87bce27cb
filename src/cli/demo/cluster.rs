//! A Kafka broker inside this process: librdkafka's mock cluster. It keeps 5 MiB a partition, and nothing after exit.

use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use crate::error::{Error, Result};

/// A running broker; it ends when dropped.
pub(crate) struct Cluster {
    brokers: String,
    /// Owns the broker's thread.
    _mock: MockCluster<'static, DefaultProducerContext>,
}

impl Cluster {
    /// Starts a broker with one topic.
    pub(crate) fn start(topic: &str, partitions: i32) -> Result<Self> {
        let failed = |e: rdkafka::error::KafkaError| {
            Error::unavailable(format!("the broker in this process does not start: {e}; is the loopback interface up?"))
        };
        let mock = MockCluster::new(1).map_err(failed)?;
        mock.create_topic(topic, partitions, 1).map_err(failed)?;
        Ok(Self { brokers: mock.bootstrap_servers(), _mock: mock })
    }

    /// Where it listens.
    pub(crate) fn brokers(&self) -> &str {
        &self.brokers
    }
}

/// What both ends of the demo share.
pub(super) fn producer_config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("compression.codec", "lz4")
        .set("linger.ms", "20")
        .set("batch.num.messages", "10000")
        .set("queue.buffering.max.messages", "100000")
        .set("message.timeout.ms", "30000");
    config
}
