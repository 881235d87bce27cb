//! Offsets: positions in the partitions of a topic. An offset is always the *next* one to read, a range is
//! `[from, to)`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, SecondsFormat, Utc};

use crate::error::{Error, Result};

/// The offsets `[from, to)` of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionRange {
    /// The partition's number.
    pub partition: i32,
    /// The first offset to read.
    pub from: i64,
    /// The offset to stop before.
    pub to: i64,
}

/// What a partition holds now: the first offset still kept and the end (the next one to be written; for
/// `read_committed` the last stable offset).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionBounds {
    /// The partition's number.
    pub partition: i32,
    /// The first offset that is still kept.
    pub low: i64,
    /// The offset after the last one that may be read.
    pub high: i64,
}

/// Where a query without a position begins: the option `start`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// The first offset that is kept.
    Earliest,
    /// The end: only what comes later.
    Latest,
    /// The first record at or after this time.
    At(DateTime<Utc>),
    /// These offsets; a partition that is not named starts at its earliest offset.
    Offsets(BTreeMap<i32, i64>),
}

impl FromStr for Start {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        match text {
            "earliest" => return Ok(Start::Earliest),
            "latest" => return Ok(Start::Latest),
            _ => {}
        }
        if let Ok(time) = DateTime::parse_from_rfc3339(text) {
            return Ok(Start::At(time.with_timezone(&Utc)));
        }
        let offsets = parse_offsets(text).map_err(|why| {
            Error::invalid(format!(
                "`{text}` is not a position{why}: write `earliest`, `latest`, an RFC 3339 time such as \
                 `2026-01-31T08:00:00Z`, or offsets such as `0:12,1:40` (partition:offset)"
            ))
        })?;
        Ok(Start::Offsets(offsets))
    }
}

/// `0:12,1:40`; the error is what to add to the message, often nothing.
fn parse_offsets(text: &str) -> Result<BTreeMap<i32, i64>, String> {
    let mut offsets = BTreeMap::new();
    for part in text.split(',') {
        let (partition, offset) = part.split_once(':').ok_or_else(String::new)?;
        let partition: i32 = partition.trim().parse().map_err(|_| String::new())?;
        let offset: i64 = offset.trim().parse().map_err(|_| String::new())?;
        if partition < 0 || offset < 0 {
            return Err(format!(" (`{}` is negative)", part.trim()));
        }
        if offsets.insert(partition, offset).is_some() {
            return Err(format!(" (partition {partition} is named twice)"));
        }
    }
    Ok(offsets)
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Start::Earliest => f.write_str("earliest"),
            Start::Latest => f.write_str("latest"),
            Start::At(time) => f.write_str(&time.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
            Start::Offsets(offsets) => {
                for (i, (partition, offset)) in offsets.iter().enumerate() {
                    let comma = if i == 0 { "" } else { "," };
                    write!(f, "{comma}{partition}:{offset}")?;
                }
                Ok(())
            }
        }
    }
}

/// Shares at most `max_rows` offsets over the partitions of `bounds` in proportion to their backlog: the next
/// micro-batch, ordered by partition.
///
/// A partition without a position begins at its first kept offset. A position below that offset is kept as it is, so
/// that reading tells what was lost. Every partition with a backlog gets one offset at least while `max_rows` allows;
/// when there are more of them than `max_rows`, those with the largest backlog go first. Apart from that first offset
/// the shares are those of the largest-remainder (Hamilton) method, ties going to the lower partition.
pub fn plan(positions: &BTreeMap<i32, i64>, bounds: &[PartitionBounds], max_rows: u64) -> Vec<PartitionRange> {
    let mut backlogs: Vec<PartitionRange> = bounds
        .iter()
        .map(|b| {
            let from = positions.get(&b.partition).copied().unwrap_or(b.low);
            PartitionRange { partition: b.partition, from, to: b.high }
        })
        .filter(|range| range.from < range.to)
        .collect();
    backlogs.sort_by_key(|range| range.partition);
    let sizes: Vec<u64> = backlogs.iter().map(|range| range.to.abs_diff(range.from)).collect();
    for (range, share) in backlogs.iter_mut().zip(shares(&sizes, max_rows)) {
        range.to = range.from.saturating_add_unsigned(share);
    }
    backlogs.retain(|range| range.from < range.to);
    backlogs
}

/// How many of each backlog (all > 0) are taken, `max` in all.
fn shares(backlogs: &[u64], max: u64) -> Vec<u64> {
    let total: u128 = backlogs.iter().map(|&b| u128::from(b)).sum();
    let count = backlogs.len() as u64;
    if total <= u128::from(max) {
        return backlogs.to_vec();
    }
    let mut order: Vec<usize> = (0..backlogs.len()).collect();
    if max <= count {
        order.sort_by_key(|&i| (std::cmp::Reverse(backlogs[i]), i));
        let mut taken = vec![0; backlogs.len()];
        order.iter().take(max as usize).for_each(|&i| taken[i] = 1);
        return taken;
    }
    let rest = u128::from(max - count);
    let total = total - u128::from(count);
    let exact = |i: usize| rest * u128::from(backlogs[i] - 1);
    let mut taken: Vec<u64> = order.iter().map(|&i| 1 + (exact(i) / total) as u64).collect();
    let left = max - taken.iter().sum::<u64>();
    order.sort_by_key(|&i| (std::cmp::Reverse(exact(i) % total), i));
    order.iter().take(left as usize).for_each(|&i| taken[i] += 1);
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bounds(of: &[(i32, i64, i64)]) -> Vec<PartitionBounds> {
        of.iter().map(|&(partition, low, high)| PartitionBounds { partition, low, high }).collect()
    }

    fn ranges(of: &[(i32, i64, i64)]) -> Vec<PartitionRange> {
        of.iter().map(|&(partition, from, to)| PartitionRange { partition, from, to }).collect()
    }

    #[test]
    fn every_form_of_start_is_read_and_written() {
        for text in ["earliest", "latest", "2026-01-31T08:00:00Z", "2026-01-31T08:00:00.250Z", "0:12,1:40", "7:0"] {
            assert_eq!(text.parse::<Start>().unwrap().to_string(), text);
        }
        assert_eq!("2026-01-31T09:00:00+01:00".parse::<Start>().unwrap().to_string(), "2026-01-31T08:00:00Z");
        assert_eq!(" 1:40 , 0:12 ".parse::<Start>().unwrap().to_string(), "0:12,1:40");
    }

    #[test]
    fn a_wrong_start_lists_the_four_forms() {
        for text in ["", "first", "0", "0:", "0:x", "0:1,", "2026-01-31", "0:1,0:2", "-1:2", "1:-2"] {
            let message = text.parse::<Start>().unwrap_err().message().to_string();
            for form in ["`earliest`", "`latest`", "RFC 3339", "`0:12,1:40`"] {
                assert!(message.contains(form), "{message}");
            }
        }
        assert!("0:1,0:2".parse::<Start>().unwrap_err().message().contains("partition 0 is named twice"));
    }

    #[test]
    fn a_small_backlog_is_taken_whole() {
        let positions = BTreeMap::from([(0, 10), (1, 5), (2, 7)]);
        let now = bounds(&[(0, 0, 15), (1, 0, 5), (2, 0, 6), (3, 2, 4)]);
        assert_eq!(plan(&positions, &now, 100), ranges(&[(0, 10, 15), (3, 2, 4)]));
    }

    #[test]
    fn a_large_backlog_is_shared_in_proportion() {
        let positions = BTreeMap::from([(0, 0), (1, 0), (2, 0)]);
        let now = bounds(&[(0, 0, 6000), (1, 0, 3000), (2, 0, 1)]);
        assert_eq!(plan(&positions, &now, 91), ranges(&[(0, 0, 60), (1, 0, 30), (2, 0, 1)]));
        assert_eq!(plan(&positions, &now, 2), ranges(&[(0, 0, 1), (1, 0, 1)]));
        assert_eq!(plan(&positions, &now, 0), vec![]);
    }

    #[test]
    fn a_lost_position_is_kept() {
        assert_eq!(plan(&BTreeMap::from([(0, 3)]), &bounds(&[(0, 8, 9)]), 10), ranges(&[(0, 3, 9)]));
    }

    proptest! {
        #[test]
        fn a_plan_keeps_its_bounds_and_makes_progress(
            parts in prop::collection::vec((0i64..1000, 0i64..5_000_000, 0i64..1000), 0..40),
            max in 0u64..3_000_000,
        ) {
            let now: Vec<PartitionBounds> = parts.iter().enumerate()
                .map(|(p, &(low, size, _))| PartitionBounds { partition: p as i32, low, high: low + size }).collect();
            let positions: BTreeMap<i32, i64> = parts.iter().enumerate()
                .map(|(p, &(low, _, ahead))| (p as i32, low + ahead)).collect();
            let planned = plan(&positions, &now, max);
            let size = |r: &PartitionRange| (r.to - r.from) as u64;
            let backlog = |p: i32| (now[p as usize].high - positions[&p]).max(0) as u64;
            let total: u64 = (0..parts.len() as i32).map(backlog).sum();
            let waiting = (0..parts.len() as i32).filter(|&p| backlog(p) > 0).count() as u64;
            prop_assert_eq!(planned.iter().map(size).sum::<u64>(), total.min(max));
            for r in &planned {
                prop_assert_eq!(r.from, positions[&r.partition]);
                prop_assert!(r.from < r.to && r.to <= now[r.partition as usize].high);
            }
            if max >= waiting {
                prop_assert_eq!(planned.len() as u64, waiting);
            }
            if max > waiting && max < total {
                for r in &planned {
                    let fair = (max - waiting) as f64 * (backlog(r.partition) - 1) as f64 / (total - waiting) as f64;
                    prop_assert!((size(r) as f64 - 1.0 - fair).abs() < 1.001, "{} of {}", size(r), fair);
                }
            }
            prop_assert_eq!(plan(&positions, &now, max), planned);
        }
    }
}
