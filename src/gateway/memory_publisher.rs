//! Topics in memory, with switches for what can go wrong. For tests.

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::publisher::{Placed, PublishError, PublishErrorKind, Publisher, Record};

/// How a [`MemoryPublisher`] behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// It acknowledges at once.
    Prompt,
    /// It takes records and acknowledges them when it is prompt again.
    Slow,
    /// It is away: records that come while it is are turned away.
    Away,
    /// It refuses each record.
    Refuse,
    /// It takes records and says that it does not know.
    Uncertain,
}

/// Topics in memory of a few partitions each.
#[derive(Debug)]
pub struct MemoryPublisher {
    behaviour: watch::Sender<Behaviour>,
    records: Mutex<Vec<(i32, Record)>>,
    partitions: i32,
    taken: watch::Sender<usize>,
}

impl MemoryPublisher {
    /// Empty topics with so many partitions each.
    pub fn new(partitions: i32) -> Self {
        let behaviour = watch::Sender::new(Behaviour::Prompt);
        Self { behaviour, records: Mutex::default(), partitions: partitions.max(1), taken: watch::Sender::new(0) }
    }

    /// It behaves so from here on.
    pub fn set(&self, behaviour: Behaviour) {
        self.behaviour.send_replace(behaviour);
    }

    /// The records that it has taken, in order.
    pub fn records(&self) -> Vec<Record> {
        self.records.lock().iter().map(|(_, record)| record.clone()).collect()
    }

    /// Waits until it has taken so many records.
    pub async fn has_taken(&self, count: usize) {
        // The sender lives as long as `self`, so that there is no error.
        let _ = self.taken.subscribe().wait_for(|taken| *taken >= count).await;
    }

    fn take(&self, record: Record) -> Placed {
        let mut records = self.records.lock();
        let hash = |key: &Bytes| key.iter().fold(0_i32, |hash, byte| (hash * 31 + i32::from(*byte)) & 0xffff);
        let partition = record.key.as_ref().map_or(0, hash) % self.partitions;
        let before = records.iter().filter(|(at, other)| *at == partition && other.topic == record.topic).count();
        records.push((partition, record));
        self.taken.send_replace(records.len());
        Placed { partition, offset: i64::try_from(before).unwrap_or(i64::MAX) }
    }
}

#[async_trait]
impl Publisher for MemoryPublisher {
    async fn publish(&self, record: Record) -> Result<Placed, PublishError> {
        let error = |kind, message: &str| Err(PublishError { kind, message: message.to_owned() });
        let behaviour = *self.behaviour.borrow();
        match behaviour {
            Behaviour::Refuse => error(PublishErrorKind::Refused, "the broker refuses the record"),
            Behaviour::Away => error(PublishErrorKind::Away, "the broker is away"),
            Behaviour::Uncertain => {
                self.take(record);
                error(PublishErrorKind::Uncertain, "the broker did not answer")
            }
            Behaviour::Prompt => Ok(self.take(record)),
            Behaviour::Slow => {
                let placed = self.take(record);
                let mut changes = self.behaviour.subscribe();
                let _ = changes.wait_for(|behaviour| *behaviour == Behaviour::Prompt).await;
                Ok(placed)
            }
        }
    }
}
