//! Where a query stands in a topic: what the sink says, held against what the log still has.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

use crate::error::{Alarm, Error, Result};
use crate::offsets::{PartitionBounds, Start};
use crate::source::Log;

/// The first positions of a query that has none: its option `start`, resolved once.
///
/// # Errors
/// What the log returns; `Invalid` when `start` names a partition or an offset that the topic does not have.
pub(crate) async fn first(topic: &str, start: &Start, log: &dyn Log) -> Result<BTreeMap<i32, i64>> {
    let bounds = log.bounds().await?;
    Ok(match start {
        Start::Earliest => bounds.iter().map(|b| (b.partition, b.low)).collect(),
        Start::Latest => bounds.iter().map(|b| (b.partition, b.high)).collect(),
        Start::At(time) => log.offsets_at(*time).await?,
        Start::Offsets(given) => {
            for (partition, offset) in given {
                let Some(bound) = bounds.iter().find(|b| b.partition == *partition) else {
                    return Err(Error::invalid(format!(
                        "topic {topic}: `start` names partition {partition}, but the topic has {} partitions. Mend the \
                         option `start`",
                        bounds.len()
                    )));
                };
                if !(bound.low..=bound.high).contains(offset) {
                    return Err(Error::invalid(format!(
                        "topic {topic}: `start` names offset {offset} of partition {partition}, which holds [{}, {}). \
                         Mend the option `start`",
                        bound.low, bound.high
                    )));
                }
            }
            bounds.iter().map(|b| (b.partition, given.get(&b.partition).copied().unwrap_or(b.low))).collect()
        }
    })
}

/// Offsets of a partition that were due and are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lost {
    /// The partition.
    pub(crate) partition: i32,
    /// The first offset that is gone: the position.
    pub(crate) from: i64,
    /// The offset after the last one that is gone; none when the partition, or the topic, is another one now.
    pub(crate) to: Option<i64>,
    /// The log ends before the position: the table has what is gone. `from` is the log's end, `to` was the position.
    pub(crate) cut_off: bool,
}

impl Lost {
    /// As the commit has it.
    pub(crate) fn committed(&self, topic: &str) -> Value {
        let mut lost = json!({"topic": topic, "partition": self.partition, "from": self.from, "to": self.to});
        if self.cut_off {
            lost["cut_off"] = true.into();
        }
        lost
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Lost { partition, from, to, cut_off } = self;
        match to {
            // What was written at these numbers since is at places that were read.
            Some(to) if *cut_off => write!(
                f,
                "partition {partition}: offsets [{from}, {to}) are gone, which the table has: its position {to} is \
                 behind the log's end {from}, so the log was cut off, there or before"
            ),
            Some(to) => write!(f, "partition {partition}: offsets [{from}, {to}) are gone"),
            None => write!(f, "partition {partition} is gone, its position was {from}"),
        }
    }
}

/// Gives partitions that appeared since then their earliest offset, and moves positions that the log no longer has to
/// the next one that it has. What is lost by that, in the order of partitions.
pub(crate) fn reconcile(positions: &mut BTreeMap<i32, i64>, bounds: &[PartitionBounds]) -> Vec<Lost> {
    let mut lost = Vec::new();
    for bound in bounds {
        let position = positions.entry(bound.partition).or_insert(bound.low);
        let (from, moved) = (*position, (*position).clamp(bound.low, bound.high));
        *position = moved;
        // A log that ends before the position has lost what lies between.
        let (first, end) = (from.min(moved), from.max(moved));
        if first < end {
            lost.push(Lost { partition: bound.partition, from: first, to: Some(end), cut_off: moved < from });
        }
    }
    positions.retain(|&partition, &mut from| {
        let is_there = bounds.iter().any(|b| b.partition == partition);
        if !is_there {
            lost.push(Lost { partition, from, to: None, cut_off: false });
        }
        is_there
    });
    lost.sort_by_key(|lost| lost.partition);
    lost
}

/// The error of lost offsets.
pub(crate) fn refuse(topic: &str, lost: &[Lost]) -> Error {
    Error::violated(format!(
        "topic {topic}: offsets are lost: {}. Nothing was committed. Bring the records back; or go on \
         behind the gap with 'on_data_loss' 'skip'; or start over: give the pipeline another name \
         (`SET flumen.pipeline`) or delete the table",
        in_words(lost)
    ))
    .alarming(Alarm::OffsetsLost)
}

/// The lost offsets in words.
pub(crate) fn in_words(lost: &[Lost]) -> String {
    lost.iter().map(Lost::to_string).collect::<Vec<_>>().join("; ")
}

/// Ends a bounded run at the offsets that were the end when it started.
pub(crate) fn capped(mut bounds: Vec<PartitionBounds>, ends: Option<&BTreeMap<i32, i64>>) -> Vec<PartitionBounds> {
    if let Some(ends) = ends {
        for bound in &mut bounds {
            bound.high = ends.get(&bound.partition).copied().unwrap_or(bound.low).min(bound.high);
        }
    }
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(of: &[(i32, i64, i64)]) -> Vec<PartitionBounds> {
        of.iter().map(|&(partition, low, high)| PartitionBounds { partition, low, high }).collect()
    }

    #[test]
    fn a_new_partition_starts_at_its_earliest_offset() {
        let mut positions = BTreeMap::from([(0, 5)]);
        assert_eq!(reconcile(&mut positions, &bounds(&[(0, 0, 9), (1, 3, 4)])), []);
        assert_eq!(positions, BTreeMap::from([(0, 5), (1, 3)]));
    }

    #[test]
    fn every_lost_range_is_named_and_passed_over() {
        let mut positions = BTreeMap::from([(0, 5), (1, 20), (2, 7)]);
        let lost = reconcile(&mut positions, &bounds(&[(0, 8, 9), (1, 0, 10)]));
        assert_eq!(positions, BTreeMap::from([(0, 8), (1, 10)]));
        let error = refuse("t", &lost).to_string();
        assert!(error.contains("partition 0: offsets [5, 8) are gone"), "{error}");
        assert!(error.contains("partition 1: offsets [10, 20) are gone, which the table has"), "{error}");
        assert!(error.contains("partition 2 is gone, its position was 7"), "{error}");
        assert!(error.contains("'on_data_loss' 'skip'"), "{error}");
        assert_eq!(reconcile(&mut positions, &bounds(&[(0, 8, 9), (1, 0, 10)])), []);
    }
}
