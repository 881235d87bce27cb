//! Which slice of a topic is recorded.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::offsets::{self, PartitionBounds, PartitionRange, Start};
use crate::source::Log;

/// A slice as it was asked for.
#[derive(Debug, Clone)]
pub struct Slice {
    /// Where it begins. A partition that offsets do not name begins at its earliest one.
    pub from: Start,
    /// Where it ends, before the record there. When offsets name partitions, the slice is of those alone.
    pub to: Start,
    /// The offsets of it at most, shared over the partitions in proportion to what they hold.
    pub limit: Option<u64>,
}

impl Slice {
    /// The offsets of each partition, ordered by partition.
    ///
    /// # Errors
    /// `Invalid` when the topic does not hold such a slice: a partition that it has not, offsets that are gone or not
    /// there yet, an end before the start. What asking the log returns.
    pub async fn resolve(&self, log: &dyn Log, topic: &str) -> Result<Vec<PartitionRange>> {
        let bounds = log.bounds().await?;
        let (from, to) = (at(&self.from, log, &bounds).await?, at(&self.to, log, &bounds).await?);
        let said = |name: &str, offsets: &Start| {
            let Start::Offsets(offsets) = offsets else { return Ok(()) };
            match offsets.keys().find(|p| !bounds.iter().any(|b| b.partition == **p)) {
                None => Ok(()),
                Some(partition) => Err(Error::invalid(format!(
                    "--{name}: topic {topic} has no partition {partition}; it has {}",
                    listed(&bounds)
                ))),
            }
        };
        said("from", &self.from)?;
        said("to", &self.to)?;
        let mut ranges = Vec::new();
        for &bound in &bounds {
            if matches!(self.to, Start::Offsets(_)) && !to.contains_key(&bound.partition) {
                continue;
            }
            let first = if self.from == Start::Latest { bound.high } else { bound.low };
            let last = if self.to == Start::Earliest { bound.low } else { bound.high };
            let range = PartitionRange {
                partition: bound.partition,
                from: from.get(&bound.partition).copied().unwrap_or(first),
                to: to.get(&bound.partition).copied().unwrap_or(last),
            };
            check(topic, bound, range)?;
            ranges.push(range);
        }
        Ok(self.limited(ranges))
    }

    fn limited(&self, mut ranges: Vec<PartitionRange>) -> Vec<PartitionRange> {
        let Some(limit) = self.limit else { return ranges };
        let positions = ranges.iter().map(|r| (r.partition, r.from)).collect();
        let ends: Vec<PartitionBounds> =
            ranges.iter().map(|r| PartitionBounds { partition: r.partition, low: r.from, high: r.to }).collect();
        let shares = offsets::plan(&positions, &ends, limit);
        for range in &mut ranges {
            range.to = shares.iter().find(|s| s.partition == range.partition).map_or(range.from, |share| share.to);
        }
        ranges
    }
}

/// What a position says of partitions.
async fn at(position: &Start, log: &dyn Log, bounds: &[PartitionBounds]) -> Result<BTreeMap<i32, i64>> {
    match position {
        Start::Earliest | Start::Latest => Ok(BTreeMap::new()),
        Start::At(time) => {
            let mut offsets = log.offsets_at(*time).await?;
            // The topic may have grown since its bounds were asked for, or lost its beginning.
            for (partition, offset) in &mut offsets {
                if let Some(bound) = bounds.iter().find(|bound| bound.partition == *partition) {
                    *offset = (*offset).clamp(bound.low, bound.high);
                }
            }
            Ok(offsets)
        }
        Start::Offsets(offsets) => Ok(offsets.clone()),
    }
}

fn check(topic: &str, bound: PartitionBounds, range: PartitionRange) -> Result<()> {
    let PartitionRange { partition, from, to } = range;
    let PartitionBounds { low, high, .. } = bound;
    let why = match () {
        () if from > to => {
            format!("the end, offset {to}, is before the start, offset {from}; turn --from and --to round")
        }
        () if from < low => format!("offsets [{from}, {}) are gone; begin at {low} or later", low.min(to)),
        () if to > high => format!("it ends at offset {high}, before {to}; end there or earlier, or wait"),
        () => return Ok(()),
    };
    Err(Error::invalid(format!("topic {topic}, partition {partition}: {why}")))
}

fn listed(bounds: &[PartitionBounds]) -> String {
    let numbers: Vec<String> = bounds.iter().map(|b| b.partition.to_string()).collect();
    numbers.join(", ")
}
