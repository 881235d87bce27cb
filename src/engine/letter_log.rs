//! Dead letters as a log: a retry reads them as any query reads a topic.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio::sync::mpsc;

use super::OpenTopic;
use super::letter_box::TopicLetters;
use crate::error::Result;
use crate::offsets::{PartitionBounds, PartitionRange};
use crate::pipeline::SourceSpec;
use crate::source::{Log, RawBatch, RawStream, TopicIdentity, Wanted};

/// The letters of all topics of a query, to be opened as those topics.
#[derive(Debug)]
pub(crate) struct LetterTopics(pub(crate) Arc<TopicLetters>);

impl OpenTopic for LetterTopics {
    fn open(&self, source: &SourceSpec, _patience: Option<Duration>) -> Result<Arc<dyn Log>> {
        Ok(Arc::new(LetterLog { letters: Arc::clone(&self.0), topic: source.topic.clone() }))
    }
}

/// The letters of one topic.
#[derive(Debug)]
struct LetterLog {
    letters: Arc<TopicLetters>,
    topic: String,
}

impl LetterLog {
    fn batches(&self) -> &[RawBatch] {
        self.letters.get(&self.topic).map_or(&[], Vec::as_slice)
    }
}

#[async_trait]
impl Log for LetterLog {
    async fn identity(&self) -> Result<TopicIdentity> {
        Ok(TopicIdentity { topic: self.topic.clone(), topic_id: String::new(), cluster_id: String::new() })
    }

    /// From the first letter of a partition to the last.
    async fn bounds(&self) -> Result<Vec<PartitionBounds>> {
        let bounds = self.batches().iter().filter_map(|batch| {
            let (low, last) = (*batch.offsets.first()?, *batch.offsets.last()?);
            Some(PartitionBounds { partition: batch.partition, low, high: last + 1 })
        });
        Ok(bounds.collect())
    }

    async fn offsets_at(&self, _time: DateTime<Utc>) -> Result<BTreeMap<i32, i64>> {
        Ok(self.bounds().await?.iter().map(|b| (b.partition, b.low)).collect())
    }

    /// All letters: whatever the ranges, a retry plans the whole.
    fn read(&self, _ranges: &[PartitionRange], _wanted: Wanted) -> Result<RawStream> {
        let batches = self.batches().to_vec();
        let (send, stream) = mpsc::channel(batches.len().max(1));
        for batch in batches {
            // There is room for each.
            drop(send.try_send(Ok(batch)));
        }
        Ok(stream)
    }
}
