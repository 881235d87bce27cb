//! Ends of partitions that a transaction holds up: what comes behind it is read when it ends, and a producer that has
//! forgotten it is named.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Stopwatch;
use crate::observe::grouped;

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(10);
/// A partition that was found at the same offset so often after the first time is named: after half a minute.
const PATIENCE: u32 = 3;

/// Where the partitions of a query stood at open transactions when they were looked at last.
#[derive(Debug)]
pub(crate) struct HeldEnds {
    looked: Stopwatch,
    /// Topic and partition: the position, and how often it was found there again.
    held: BTreeMap<(String, i32), (i64, u32)>,
}

impl HeldEnds {
    pub(crate) fn new() -> Self {
        Self { looked: Stopwatch::start(), held: BTreeMap::new() }
    }

    /// Whether it is time to look again; the next time is then counted from now.
    pub(crate) fn is_due(&mut self) -> bool {
        let due = self.looked.elapsed() >= EVERY;
        if due {
            self.looked = Stopwatch::start();
        }
        due
    }

    /// Takes note of the partitions of a topic that are held up, with how many offsets are behind the transaction;
    /// what is to be told of those that stood there the last time too, once.
    pub(crate) fn note(
        &mut self,
        topic: &str,
        ends: &BTreeMap<i32, u64>,
        positions: &BTreeMap<i32, i64>,
    ) -> Vec<String> {
        self.held.retain(|(name, partition), _| name != topic || ends.contains_key(partition));
        let mut told = Vec::new();
        for (&partition, &behind) in ends {
            let Some(&position) = positions.get(&partition) else { continue };
            let (before, again) = self.held.entry((topic.to_owned(), partition)).or_insert((i64::MIN, 0));
            *again = if *before == position { again.saturating_add(1) } else { 0 };
            *before = position;
            if *again == PATIENCE {
                told.push(format!(
                    "topic {topic}, partition {partition}: a transaction that is still open holds it at offset \
                     {position} for {} seconds; {} offsets behind it are read when it ends. Look for the producer that \
                     has not ended it",
                    (EVERY * PATIENCE).as_secs(),
                    grouped(behind)
                ));
            }
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_that_stands_still_is_named_once() {
        let mut held = HeldEnds::new();
        assert!(!held.is_due());
        let (ends, at) = (BTreeMap::from([(0, 7)]), |offset| BTreeMap::from([(0, offset), (1, 3)]));
        let mut look = |ends: &BTreeMap<i32, u64>, offset| held.note("t", ends, &at(offset));
        (0..3).for_each(|_| assert_eq!(look(&ends, 5).len(), 0));
        let told = look(&ends, 5);
        assert!(told.len() == 1 && told[0].contains("offset 5 for 30 seconds; 7 offsets"), "{told:?}");
        assert_eq!(look(&ends, 5).len(), 0, "once is enough");
        (0..3).for_each(|_| assert_eq!(look(&ends, 9).len(), 0, "it went on, and stands again"));
        assert_eq!(look(&ends, 9).len(), 1);
        assert_eq!(look(&BTreeMap::new(), 9).len(), 0);
        (0..3).for_each(|_| assert_eq!(look(&ends, 9).len(), 0));
    }
}
