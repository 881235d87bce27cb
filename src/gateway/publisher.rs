//! Records and who puts them into a topic.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

/// What becomes one record of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The topic.
    pub topic: Arc<str>,
    /// The key. None: any partition will do.
    pub key: Option<Bytes>,
    /// The value: the message as the client sent it, but for its stamps.
    pub value: Bytes,
    /// The headers: `idempotency-key`, when the client gave one.
    pub headers: Vec<(&'static str, Bytes)>,
}

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
}

/// What is known of a record that was not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishErrorKind {
    /// The broker will never take it: too large, not authorised. It is not in the topic.
    Refused,
    /// The broker cannot be reached. The record is not in the topic.
    Away,
    /// It may or may not be in the topic.
    Uncertain,
}

/// Why a record was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishError {
    /// What is known of the record.
    pub kind: PublishErrorKind,
    /// The reason, which the client is told.
    pub message: String,
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for PublishError {}

/// Puts records into topics: `acks=all`, idempotent.
///
/// The order of records is the order in which the futures of [`Publisher::publish`] are polled for the first time. So
/// an implementation puts the record into its queue before it waits for anything; the gateway polls one after the
/// other, and has fewer records under way than [`super::QueueOptions::records`], which the implementation's own queue
/// has to hold.
#[async_trait]
pub trait Publisher: fmt::Debug + Send + Sync {
    /// Publishes a record, and waits for the broker's acknowledgement.
    ///
    /// # Errors
    /// The record was not acknowledged; the kind says what is known of it.
    async fn publish(&self, record: Record) -> Result<Placed, PublishError>;
}

/// Publishes nothing: for a gateway whose methods only subscribe.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPublisher;

#[async_trait]
impl Publisher for NoPublisher {
    async fn publish(&self, record: Record) -> Result<Placed, PublishError> {
        let message = format!("the gateway was started without brokers for topic {}", record.topic);
        Err(PublishError { kind: PublishErrorKind::Away, message })
    }
}
