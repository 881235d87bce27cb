//! Where a query stands in a topic: what the sink says, held against what the log still has.

use std::collections::BTreeMap;

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

/// Gives partitions that appeared since then their earliest offset, and finds positions that the log no longer has.
///
/// # Errors
/// `Violated` naming each lost range.
pub(crate) fn reconcile(topic: &str, positions: &mut BTreeMap<i32, i64>, bounds: &[PartitionBounds]) -> Result<()> {
    let mut lost = Vec::new();
    for bound in bounds {
        let position = *positions.entry(bound.partition).or_insert(bound.low);
        if position < bound.low {
            lost.push(format!("partition {}: offsets [{position}, {}) are gone", bound.partition, bound.low));
        } else if position > bound.high {
            lost.push(format!(
                "partition {}: the position is {position} but the log ends at {}",
                bound.partition, bound.high
            ));
        }
    }
    for (partition, position) in positions.iter() {
        if !bounds.iter().any(|b| b.partition == *partition) {
            lost.push(format!("partition {partition} is gone, its position was {position}"));
        }
    }
    if lost.is_empty() {
        return Ok(());
    }
    Err(Error::violated(format!(
        "topic {topic}: offsets that were due are lost: {}. Nothing was committed. Bring the records back, or start \
         over: give the pipeline another name (`SET flumen.pipeline`) or delete the table",
        lost.join("; ")
    ))
    .alarming(Alarm::OffsetsLost))
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
        reconcile("t", &mut positions, &bounds(&[(0, 0, 9), (1, 3, 4)])).unwrap();
        assert_eq!(positions, BTreeMap::from([(0, 5), (1, 3)]));
    }

    #[test]
    fn every_lost_range_is_named() {
        let mut positions = BTreeMap::from([(0, 5), (1, 20), (2, 7)]);
        let error = reconcile("t", &mut positions, &bounds(&[(0, 8, 9), (1, 0, 10)])).unwrap_err().to_string();
        assert!(error.contains("partition 0: offsets [5, 8) are gone"), "{error}");
        assert!(error.contains("partition 1: the position is 20 but the log ends at 10"), "{error}");
        assert!(error.contains("partition 2 is gone, its position was 7"), "{error}");
    }
}
