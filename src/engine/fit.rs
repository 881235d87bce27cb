//! How much a micro-batch reads so that it fits into `flumen.memory_limit`: learnt from those that ran before.
//!
//! Operators gather rows by number, not by size: wide records are gathered in smaller batches, and run in fewer streams
//! side by side. A micro-batch that does not fit all the same is halved, until it does.

use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;

use super::records::RecordCounts;
use crate::memory::Memory;

/// The records of the first micro-batch of a run at most: how wide they are is not known yet, and whatever is wrong
/// with the pipeline shows early.
const FIRST_ROWS: u64 = 50_000;
/// Micro-batches that fit in a row before twice as large ones are tried again.
const GROW_AFTER: u32 = 8;
/// Times that micro-batches grow before joins hold lookups again.
const BUILD_AFTER: u32 = 8;
/// The pause after the second micro-batch in a row that did not fit: another query may hold what is missing. Each
/// further one is twice as long, up to [`LAST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// Micro-batches of one record in a row that may not fit.
const LAST_TRIES: u32 = 10;
/// The bytes of a record as long as none was read.
const RECORD_BYTES: u64 = 100;
/// A wide record is there so many times in one stream of a plan: as it came, decoded, joined, encoded, packed, and in
/// buffers that grow by doubling.
const COPIES: u64 = 16;
/// Records that are so many times larger than those before make another plan.
const OTHER_SIZE: u64 = 4;

/// What is known of the records of a query, and how many fit.
#[derive(Debug)]
pub(crate) struct Fit {
    memory: Memory,
    /// The records of a topic that a micro-batch takes at most; `None`: as many as the file says.
    rows: Option<u64>,
    /// Whether nothing was read yet.
    is_first: bool,
    /// Micro-batches that fit since that was changed.
    fitted: u32,
    /// Times that they were made twice as large since joins hold lookups no longer.
    grown: u32,
    /// Micro-batches in a row that did not fit, and those of one record among them.
    failed: u32,
    smallest: u32,
    /// Whether joins hold lookups whole, whatever they take.
    builds_lookups: bool,
    /// The bytes of a record, on average.
    record_bytes: u64,
    /// The bytes of a record where they are widest; it decays.
    widest: u64,
    /// What makes micro-batches smaller by chance.
    cuts: Option<u64>,
}

impl Fit {
    /// Nothing is known yet.
    pub(crate) fn new(memory: Memory) -> Self {
        Self {
            memory,
            rows: None,
            is_first: true,
            fitted: 0,
            grown: 0,
            failed: 0,
            smallest: 0,
            builds_lookups: true,
            record_bytes: RECORD_BYTES,
            widest: 0,
            cuts: None,
        }
    }

    /// With micro-batches that are smaller by chance, the same ones for the same seed.
    #[must_use]
    pub(crate) fn with_cuts(self, seed: Option<u64>) -> Self {
        Self { cuts: seed, ..self }
    }

    /// Whether joins hold lookups as hash tables from micro-batch to micro-batch; otherwise whichever side is smaller.
    pub(crate) fn builds_lookups(&self) -> bool {
        self.builds_lookups
    }

    /// The records of a topic for one micro-batch, where the file allows `max`.
    pub(crate) fn rows(&mut self, max: u64) -> u64 {
        let max = if self.is_first { max.min(FIRST_ROWS) } else { max };
        let max = self.rows.map_or(max, |rows| rows.min(max));
        match &mut self.cuts {
            None => max,
            Some(seed) => 1 + next_random(seed) % max.max(1),
        }
    }

    /// The rows that operators gather into a batch, where the session says `configured`; fewer ones by halves, so that
    /// a plan serves more than one micro-batch.
    pub(crate) fn batch_rows(&self, configured: usize) -> usize {
        let fitting = (self.memory.batch_bytes() as u64).checked_div(self.widest).unwrap_or(u64::MAX);
        let fitting = usize::try_from(fitting).unwrap_or(usize::MAX).max(1);
        if fitting < configured { 1 << fitting.ilog2() } else { configured }
    }

    /// The streams in which a plan runs side by side, where the session says `configured`.
    pub(crate) fn streams(&self, configured: usize) -> usize {
        let copies = self.widest.saturating_mul(COPIES);
        let fitting = (self.memory.limit() as u64).checked_div(copies).unwrap_or(u64::MAX);
        usize::try_from(fitting).unwrap_or(usize::MAX).min(configured).max(1)
    }

    /// The bytes of a record beyond which batches of so many rows are too large; `None`: they cannot be smaller.
    pub(crate) fn widest(&self, batch_rows: usize) -> Option<usize> {
        (batch_rows > 1).then(|| self.memory.batch_bytes() / batch_rows)
    }

    /// The bytes of a record, on average.
    pub(crate) fn record_bytes(&self) -> u64 {
        self.record_bytes
    }

    /// A micro-batch has run.
    pub(crate) fn ran<'c>(&mut self, counts: impl Iterator<Item = &'c Arc<RecordCounts>>) {
        self.widest -= self.widest / 8;
        self.learn(counts);
        (self.failed, self.smallest) = (0, 0);
        self.fitted += 1;
        if self.fitted >= GROW_AFTER {
            self.fitted = 0;
            // What the file allows is the bound again in the end.
            self.rows = self.rows.map(|rows| rows.saturating_mul(2));
            self.grown += 1;
            // What was missing may have been another query's.
            self.builds_lookups |= self.grown >= BUILD_AFTER;
        }
    }

    /// A micro-batch of `planned` records of a topic did not fit: what is done about it, in words. `None`: it cannot be
    /// made smaller.
    pub(crate) fn failed<'c>(
        &mut self,
        counts: impl Iterator<Item = &'c Arc<RecordCounts>>,
        planned: u64,
        configured: usize,
    ) -> Option<String> {
        let (batch_rows, record_bytes) = (self.batch_rows(configured), self.record_bytes);
        self.learn(counts);
        self.fitted = 0;
        self.failed += 1;
        let smaller = self.batch_rows(configured);
        if smaller < batch_rows || self.record_bytes > record_bytes.saturating_mul(OTHER_SIZE) {
            let size = ByteSize(self.widest.max(self.record_bytes));
            return Some(format!("the micro-batch is planned anew for records of up to {size}"));
        }
        let half = (planned / 2).max(1);
        self.rows = Some(half);
        self.smallest += u32::from(planned <= 1);
        let mut told = format!("the micro-batch is halved, to {half} records");
        if self.failed > 1 && std::mem::take(&mut self.builds_lookups) {
            told.push_str(", and joins keep lookups as hash tables no longer, for a while");
            self.grown = 0;
        }
        (self.smallest < LAST_TRIES).then_some(told)
    }

    /// How long to wait before the next try.
    pub(crate) fn pause(&self) -> Duration {
        match self.failed {
            0 | 1 => Duration::ZERO,
            failed => FIRST_PAUSE.saturating_mul(1 << (failed - 2).min(16)).min(LAST_PAUSE),
        }
    }

    fn learn<'c>(&mut self, counts: impl Iterator<Item = &'c Arc<RecordCounts>>) {
        let (mut read, mut bytes) = (0, 0);
        for counts in counts {
            let sizes = counts.sizes();
            read += counts.totals().read;
            bytes += sizes.bytes;
            // Half as much again: the next ones are not of quite the same size.
            self.widest = self.widest.max(sizes.widest + sizes.widest / 2);
        }
        if let Some(average) = bytes.checked_div(read) {
            self.is_first = false;
            self.record_bytes = average.max(1);
        }
    }
}

/// SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
fn next_random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(read: u64, bytes: u64) -> [Arc<RecordCounts>; 1] {
        let counts = RecordCounts::default();
        counts.note(read, bytes);
        [Arc::new(counts)]
    }

    #[test]
    fn wide_records_are_gathered_in_smaller_batches() {
        let mut fit = Fit::new(Memory::new(320_000_000).unwrap());
        assert_eq!(fit.batch_rows(8192), 8192);
        assert_eq!(fit.widest(8192), Some(1220));
        let told = fit.failed(counts(2, 4_000_000).iter(), 1000, 8192).unwrap();
        assert!(told.contains("planned anew"), "{told}");
        assert_eq!((fit.batch_rows(8192), fit.rows(1000), fit.widest(3)), (2, 1000, Some(3_333_333)));
        assert_eq!((fit.streams(32), fit.streams(2)), (6, 2));
        // Passing ones are forgotten in time.
        (0..100).for_each(|_| fit.ran(counts(1000, 100_000).iter()));
        assert_eq!((fit.batch_rows(8192), fit.record_bytes()), (8192, 100));
        assert_eq!(fit.widest(1), None);
    }

    #[test]
    fn the_first_micro_batch_is_a_small_one() {
        let mut fit = Fit::new(Memory::new(320_000_000).unwrap());
        assert_eq!((fit.rows(1000), fit.rows(1_000_000)), (1000, FIRST_ROWS));
        fit.ran(counts(0, 0).iter());
        assert_eq!(fit.rows(1_000_000), FIRST_ROWS);
        fit.ran(counts(100, 10_000).iter());
        assert_eq!(fit.rows(1_000_000), 1_000_000);
    }

    #[test]
    fn what_does_not_fit_is_halved_and_grows_again() {
        let mut fit = Fit::new(Memory::new(320_000_000).unwrap());
        let usual = || counts(1000, 100_000);
        assert!(fit.failed(usual().iter(), 1000, 8192).unwrap().contains("halved, to 500 records"));
        assert!(fit.builds_lookups());
        assert!(fit.failed(usual().iter(), 500, 8192).unwrap().contains("to 250 records, and joins keep lookups"));
        assert!(!fit.builds_lookups());
        assert_eq!(fit.rows(1000), 250);
        (0..GROW_AFTER).for_each(|_| fit.ran(usual().iter()));
        assert_eq!(fit.rows(1000), 500);
        (0..GROW_AFTER * 3).for_each(|_| fit.ran(usual().iter()));
        assert_eq!((fit.rows(1000), fit.builds_lookups()), (1000, false));
        (0..GROW_AFTER * BUILD_AFTER).for_each(|_| fit.ran(usual().iter()));
        assert!(fit.builds_lookups());
        // Another query may hold the memory for a while.
        let waits: Vec<_> =
            (0..LAST_TRIES).map(|_| (fit.failed(usual().iter(), 1, 8192).is_some(), fit.pause())).collect();
        assert!(waits[..9].iter().all(|(again, _)| *again) && !waits[9].0, "{waits:?}");
        assert_eq!((waits[0].1, waits[1].1, waits[9].1), (Duration::ZERO, FIRST_PAUSE, LAST_PAUSE));
    }
}
