//! The records under way to the broker: at most so many, and so many bytes of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use super::publisher::{Placed, PublishError, PublishErrorKind, Publisher, Record};

/// The bounds of the records under way.
#[derive(Debug, Clone)]
pub struct QueueOptions {
    /// Records that are not acknowledged yet. 10,000.
    pub records: usize,
    /// Bytes of these records. 64 MiB.
    pub bytes: usize,
    /// How long a message waits for room before its call ends with `UNAVAILABLE`. 1 second.
    pub wait: Duration,
    /// How long a call waits for the acknowledgement before it ends with `UNAVAILABLE`. 30 seconds.
    pub acknowledgement: Duration,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self {
            records: 10_000,
            bytes: 64 << 20,
            wait: Duration::from_secs(1),
            acknowledgement: Duration::from_secs(30),
        }
    }
}

/// The queue in front of a publisher.
#[derive(Debug)]
pub(super) struct Queue {
    publisher: Arc<dyn Publisher>,
    records: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    options: QueueOptions,
}

/// Room for one record. It is free again when the record is done with.
#[derive(Debug)]
pub(super) struct Room {
    _record: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

/// A record that is under way.
#[derive(Debug)]
pub(super) enum Sent {
    Done(Result<Placed, PublishError>),
    UnderWay(JoinHandle<Result<Placed, PublishError>>),
}

impl Queue {
    pub(super) fn new(publisher: Arc<dyn Publisher>, options: QueueOptions) -> Self {
        let records = Arc::new(Semaphore::new(options.records.min(Semaphore::MAX_PERMITS)));
        let bytes = Arc::new(Semaphore::new(options.bytes.min(u32::MAX as usize).min(Semaphore::MAX_PERMITS)));
        Self { publisher, records, bytes, options }
    }

    /// Waits for room, first come, first served. None: there was none in time.
    pub(super) async fn room(&self, bytes: usize) -> Option<Room> {
        // A message larger than all of the room goes alone.
        let most = self.options.bytes.min(u32::MAX as usize);
        let bytes = u32::try_from(bytes.clamp(1, most.max(1))).unwrap_or(u32::MAX);
        let room = async {
            let record = Arc::clone(&self.records).acquire_owned().await.ok()?;
            let bytes = Arc::clone(&self.bytes).acquire_many_owned(bytes).await.ok()?;
            Some(Room { _record: record, _bytes: bytes })
        };
        tokio::time::timeout(self.options.wait, room).await.ok().flatten()
    }

    /// Sends a record. It is in the publisher's hands when this returns, whoever waits for it: so records are in the
    /// order of these calls, and a client that goes away does not take back what it sent.
    pub(super) async fn send(&self, room: Room, record: Record) -> Sent {
        let publisher = Arc::clone(&self.publisher);
        let mut publishing = Box::pin(async move {
            let result = publisher.publish(record).await;
            drop(room);
            result
        });
        match futures::poll!(&mut publishing) {
            std::task::Poll::Ready(result) => Sent::Done(result),
            std::task::Poll::Pending => Sent::UnderWay(tokio::spawn(publishing)),
        }
    }

    /// How long a call waits for an acknowledgement.
    pub(super) fn acknowledgement(&self) -> Duration {
        self.options.acknowledgement
    }

    /// Waits until no record is under way.
    pub(super) async fn is_empty(&self) {
        let all = u32::try_from(self.options.records).unwrap_or(u32::MAX);
        drop(self.records.acquire_many(all).await);
    }

    /// How many records are under way.
    pub(super) fn length(&self) -> usize {
        self.options.records.saturating_sub(self.records.available_permits())
    }
}

impl Sent {
    /// Waits until it is known what became of the record, however long that takes.
    pub(super) async fn outcome(self) -> Result<Placed, PublishError> {
        match self {
            Sent::Done(result) => result,
            Sent::UnderWay(task) => task.await.unwrap_or_else(|_| {
                let message = "publishing ended without a result".to_owned();
                Err(PublishError { kind: PublishErrorKind::Uncertain, message })
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory_publisher::{Behaviour, MemoryPublisher};
    use super::*;
    use bytes::Bytes;

    fn record(value: usize) -> Record {
        Record { topic: "t".into(), key: None, value: Bytes::from(value.to_string()), headers: Vec::new() }
    }

    fn queue(records: usize, bytes: usize) -> (Arc<MemoryPublisher>, Queue) {
        let publisher = Arc::new(MemoryPublisher::new(1));
        let options = QueueOptions { records, bytes, ..QueueOptions::default() };
        (Arc::clone(&publisher), Queue::new(publisher, options))
    }

    #[cfg(feature = "faults")]
    #[tokio::test(start_paused = true)]
    async fn a_full_queue_is_waited_for_and_then_refuses() {
        let (publisher, queue) = queue(2, 1000);
        publisher.set(Behaviour::Slow);
        let mut sent = Vec::new();
        for n in 0..2 {
            let room = queue.room(1).await.unwrap();
            sent.push(queue.send(room, record(n)).await);
        }
        assert_eq!(queue.length(), 2);
        assert!(queue.room(1).await.is_none());
        publisher.set(Behaviour::Prompt);
        for (n, sent) in sent.into_iter().enumerate() {
            assert_eq!(sent.outcome().await.unwrap().offset, n as i64);
        }
        assert!(queue.room(1).await.is_some());
        assert_eq!(queue.length(), 0);
    }

    #[cfg(feature = "faults")]
    #[tokio::test(start_paused = true)]
    async fn bytes_are_bounded_and_a_huge_message_goes_alone() {
        let (_, queue) = queue(10, 100);
        let first = queue.room(60).await.unwrap();
        assert!(queue.room(60).await.is_none());
        assert!(queue.room(1_000_000).await.is_none());
        drop(first);
        assert!(queue.room(1_000_000).await.is_some());
    }

    #[tokio::test]
    async fn what_is_sent_goes_on_without_its_client_and_in_order() {
        let (publisher, queue) = queue(1000, 100_000);
        publisher.set(Behaviour::Slow);
        for n in 0..500 {
            let room = queue.room(1).await.unwrap();
            drop(queue.send(room, record(n)).await);
        }
        let values: Vec<_> = publisher.records().into_iter().map(|record| record.value).collect();
        let expected: Vec<_> = (0..500).map(|n: usize| Bytes::from(n.to_string())).collect();
        assert_eq!(values, expected);
        assert_eq!(queue.length(), 500);
        publisher.set(Behaviour::Prompt);
        while queue.length() > 0 {
            tokio::task::yield_now().await;
        }
    }
}
