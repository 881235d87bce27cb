//! How records come from the client to whoever sorts them: one call for each, and a word back whether to go on.

use rdkafka::error::RDKafkaErrorCode as Code;

use crate::source::Headers;

/// A record that has to be copied at once.
pub trait Record {
    /// Its partition.
    fn partition(&self) -> i32;
    /// Its offset.
    fn offset(&self) -> i64;
    /// Its timestamp in milliseconds, -1 for none.
    fn timestamp(&self) -> i64;
    /// Its value; `None` for a tombstone.
    fn value(&self) -> Option<&[u8]>;
    /// Its key.
    fn key(&self) -> Option<&[u8]>;
    /// Its headers.
    fn headers(&self) -> Headers;
}

/// Whether the next record may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Yes.
    Go,
    /// There is something to hand over first.
    Stop,
}

/// Takes what the consumer finds.
pub trait Receive {
    /// A record.
    fn record(&mut self, record: &impl Record) -> Flow;

    /// An error of one partition, or the news that its end was reached (`Code::PartitionEOF`).
    fn error(&mut self, error: PartitionError<'_>) -> Flow;
}

/// What went wrong in a partition.
#[derive(Debug)]
pub struct PartitionError<'a> {
    /// The partition; negative for an error of no partition.
    pub partition: i32,
    /// The offset it is about.
    pub offset: i64,
    /// Librdkafka's code.
    pub code: Code,
    /// Its words.
    pub text: &'a str,
}
