//! Topics of which only some ranges are there: those of a commit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::engine::OpenTopic;
use crate::error::{Error, Result};
use crate::offsets::{PartitionBounds, PartitionRange};
use crate::pipeline::SourceSpec;
use crate::source::{Log, RawStream, TopicIdentity, Wanted};

/// Opens topics of which only these ranges are there.
#[derive(Debug)]
pub(super) struct OnlyRanges {
    inner: Arc<dyn OpenTopic>,
    ranges: BTreeMap<String, Vec<PartitionRange>>,
    ids: BTreeMap<String, String>,
}

impl OnlyRanges {
    /// Ranges by topic, and the topics' ids: a topic that was made anew is another one.
    pub(super) fn new(
        inner: Arc<dyn OpenTopic>,
        ranges: BTreeMap<String, Vec<PartitionRange>>,
        ids: BTreeMap<String, String>,
    ) -> Self {
        Self { inner, ranges, ids }
    }
}

impl OpenTopic for OnlyRanges {
    fn open(&self, source: &SourceSpec, patience: Option<Duration>) -> Result<Arc<dyn Log>> {
        let ranges = self.ranges.get(&source.topic).cloned().unwrap_or_default();
        let id = self.ids.get(&source.topic).cloned().unwrap_or_default();
        Ok(Arc::new(RangeLog { inner: self.inner.open(source, patience)?, ranges, id }))
    }
}

#[derive(Debug)]
struct RangeLog {
    inner: Arc<dyn Log>,
    ranges: Vec<PartitionRange>,
    id: String,
}

#[async_trait]
impl Log for RangeLog {
    async fn identity(&self) -> Result<TopicIdentity> {
        let identity = self.inner.identity().await?;
        if !self.id.is_empty() && !identity.topic_id.is_empty() && identity.topic_id != self.id {
            return Err(Error::violated(format!(
                "topic {} is another one than the commit was made from: its id is {}, and was {}. Name a recording of \
                 the old one",
                identity.topic, identity.topic_id, self.id
            )));
        }
        Ok(identity)
    }

    async fn bounds(&self) -> Result<Vec<PartitionBounds>> {
        let identity = self.identity().await?;
        let kept = self.inner.bounds().await?;
        for range in self.ranges.iter().filter(|range| range.from < range.to) {
            let PartitionRange { partition, from, to } = *range;
            let there = kept.iter().find(|bounds| bounds.partition == partition);
            if there.is_some_and(|bounds| bounds.low <= from && to <= bounds.high) {
                continue;
            }
            let is = there.map_or_else(|| "nothing".to_owned(), |b| format!("[{}, {})", b.low, b.high));
            return Err(Error::violated(format!(
                "topic {} partition {partition}: the commit was made from offsets [{from}, {to}), and {is} is there. \
                 Name another commit, or a recording that has them",
                identity.topic
            )));
        }
        let bounds =
            |range: &PartitionRange| PartitionBounds { partition: range.partition, low: range.from, high: range.to };
        Ok(self.ranges.iter().map(bounds).collect())
    }

    async fn offsets_at(&self, time: DateTime<Utc>) -> Result<BTreeMap<i32, i64>> {
        self.inner.offsets_at(time).await
    }

    fn read(&self, ranges: &[PartitionRange], wanted: Wanted) -> Result<RawStream> {
        self.inner.read(ranges, wanted)
    }

    fn read_bytes(&self) -> usize {
        self.inner.read_bytes()
    }
}
