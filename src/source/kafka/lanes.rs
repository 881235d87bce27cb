//! Records as they come off the wire, sorted into arenas: one lane for each partition. No Kafka here.
//!
//! A consumer fetches ahead: what lies beyond a range's end stays in its lane and is the beginning of the next range.
//! A lane that keeps too much is paused until it is read again.

use std::collections::VecDeque;

use rdkafka::error::RDKafkaErrorCode as Code;

use super::delivery::{Flow, PartitionError, Receive, Record};
use crate::offsets::PartitionRange;
use crate::source::{Payloads, RawBatch, Wanted};

/// The records of a batch at most.
const BATCH_RECORDS: usize = 8192;
/// The bytes of a batch, a record more or less, when there are few partitions.
pub const BATCH_BYTES: usize = 1 << 20;
/// The same when there are many.
const LEAST_BATCH_BYTES: usize = 1 << 16;
/// The bytes that all lanes keep for later reads together, about.
const KEPT_BYTES: usize = 4 << 20;
/// The bytes of all lanes' unfinished batches together, about.
const UNFINISHED_BYTES: usize = 32 << 20;
/// What all of this takes where there are few partitions, with the batches that wait in the stream.
pub const READ_BYTES: usize = KEPT_BYTES + 8 * BATCH_BYTES;
/// What a record takes besides its bytes.
const RECORD_BYTES: usize = 24;

/// Why a range cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The broker does not keep the offsets.
    Lost(PartitionRange),
    /// The log was cut off below what has arrived, and has perhaps grown again: partition, how far it has arrived, and
    /// librdkafka's words. It is told once, by the client that read before and after.
    CutOff(i32, i64, String),
    /// This partition, or the whole topic (a negative one), is not there any more.
    Missing(i32),
    /// A record that would be skipped, or a refusal: partition, offset, reason.
    Failed(i32, i64, String),
}

/// All partitions of an assignment and the read that is under way.
#[derive(Debug, Default)]
pub struct Lanes {
    wanted: Wanted,
    lanes: Vec<Lane>,
    /// The lane of the last record: the next one is mostly of the same.
    last: usize,
    ready: VecDeque<RawBatch>,
    to_pause: Vec<i32>,
    /// The ranges that are not read to their end.
    open: usize,
    fault: Option<Fault>,
    /// A passing trouble of a partition.
    trouble: Option<String>,
}

#[derive(Debug)]
struct Lane {
    partition: i32,
    /// What was handed over ends here, and from here on everything is in `kept`, in `batch`, or still to come. `None`
    /// when that is not so, because a read was given up.
    next: Option<i64>,
    /// Everything below has arrived.
    reached: i64,
    /// The end of the range that is being read.
    to: Option<i64>,
    /// The log ended before the range did.
    short: bool,
    paused: bool,
    batch: RawBatch,
    batch_bytes: usize,
    kept: VecDeque<RawBatch>,
    kept_bytes: usize,
}

impl Lane {
    fn new(partition: i32, from: i64, wanted: Wanted) -> Self {
        Self {
            partition,
            next: Some(from),
            reached: from,
            to: None,
            short: false,
            paused: false,
            batch: empty(partition, wanted, None),
            batch_bytes: 0,
            kept: VecDeque::new(),
            kept_bytes: 0,
        }
    }

    fn push(&mut self, record: &impl Record) {
        let batch = &mut self.batch;
        let before = batch.values.bytes.len();
        batch.offsets.push(record.offset());
        batch.timestamps.push(record.timestamp());
        batch.values.push(record.value());
        let mut bytes = batch.values.bytes.len() - before + RECORD_BYTES;
        if let Some(keys) = &mut batch.keys {
            let key = record.key();
            bytes += key.map_or(0, <[u8]>::len);
            keys.push(key);
        }
        if let Some(all) = &mut batch.headers {
            let headers = record.headers();
            let sizes =
                headers.iter().map(|(name, value)| RECORD_BYTES + name.len() + value.as_ref().map_or(0, Vec::len));
            bytes += sizes.sum::<usize>();
            all.push(headers);
        }
        self.batch_bytes += bytes;
        self.reached = record.offset() + 1;
    }

    /// The unfinished batch; an empty one takes its place.
    fn take(&mut self, wanted: Wanted) -> (RawBatch, usize) {
        let next = empty(self.partition, wanted, Some(&self.batch));
        (std::mem::replace(&mut self.batch, next), std::mem::take(&mut self.batch_bytes))
    }

    /// Ends the range when it has been read.
    fn finish(&mut self) -> bool {
        let done = self.to.is_some_and(|to| self.reached >= to);
        if done {
            self.next = self.to.take();
        }
        done
    }
}

/// A batch without records, with room for as much as `like` had.
fn empty(partition: i32, wanted: Wanted, like: Option<&RawBatch>) -> RawBatch {
    let (rows, bytes) = like.map_or((0, 0), |like| (like.len(), like.values.bytes.len()));
    let payloads = |bytes| Payloads { bytes: Vec::with_capacity(bytes), ends: Vec::with_capacity(rows), nulls: vec![] };
    let key_bytes = like.and_then(|like| like.keys.as_ref()).map_or(0, |keys| keys.bytes.len());
    RawBatch {
        partition,
        offsets: Vec::with_capacity(rows),
        timestamps: Vec::with_capacity(rows),
        values: payloads(bytes),
        keys: wanted.key.then(|| payloads(key_bytes)),
        headers: wanted.headers.then(Vec::new),
    }
}

impl Lanes {
    /// Begins a read. True when the consumer has to be assigned anew, to [`Lanes::starts`]: the ranges do not follow
    /// on from what is here.
    pub fn begin(&mut self, ranges: &[PartitionRange], wanted: Wanted) -> bool {
        (self.ready, self.to_pause, self.trouble) = Default::default();
        self.fault = self.fault.take().filter(|fault| matches!(fault, Fault::CutOff(..)));
        let follows = self.wanted == wanted
            && ranges.iter().all(|r| self.find(r.partition).is_some_and(|i| self.lanes[i].next == Some(r.from)));
        if !follows {
            self.wanted = wanted;
            self.restart(ranges);
        }
        self.open = 0;
        for range in ranges {
            let Some(i) = self.find(range.partition) else { continue };
            let lane = &mut self.lanes[i];
            lane.to = Some(range.to);
            lane.short = false;
            self.open += 1;
            self.take_kept(i);
            self.settle(i);
        }
        !follows
    }

    /// New lanes for `ranges`; the others start over where they are.
    fn restart(&mut self, ranges: &[PartitionRange]) {
        let wanted = self.wanted;
        let mut lanes: Vec<Lane> = ranges.iter().map(|r| Lane::new(r.partition, r.from, wanted)).collect();
        for lane in self.lanes.drain(..) {
            let named = ranges.iter().any(|r| r.partition == lane.partition);
            if let (false, Some(next)) = (named, lane.next) {
                lanes.push(Lane::new(lane.partition, next, wanted));
            }
        }
        lanes.sort_by_key(|lane| lane.partition);
        self.lanes = lanes;
        self.last = 0;
    }

    /// Where each lane of a new assignment starts. Such an assignment is paused nowhere.
    pub fn starts(&mut self) -> impl Iterator<Item = (i32, i64)> {
        self.lanes.iter_mut().map(|lane| {
            lane.paused = false;
            (lane.partition, lane.reached)
        })
    }

    /// Whether every range has been read to its end.
    pub fn is_done(&self) -> bool {
        self.open == 0
    }

    /// The ranges that are not read to their end: from what has arrived to the end.
    pub fn missing(&self) -> impl Iterator<Item = PartitionRange> {
        self.lanes
            .iter()
            .filter_map(|lane| lane.to.map(|to| PartitionRange { partition: lane.partition, from: lane.reached, to }))
    }

    /// The unread ranges whose log ended before them.
    pub fn short(&self) -> impl Iterator<Item = PartitionRange> {
        let is_short = |r: &PartitionRange| self.find(r.partition).is_some_and(|i| self.lanes[i].short);
        self.missing().filter(is_short)
    }

    /// The next batch to hand over.
    pub fn ready(&mut self) -> Option<RawBatch> {
        self.ready.pop_front()
    }

    /// Why the read cannot go on.
    pub fn fault(&mut self) -> Option<Fault> {
        self.fault.take()
    }

    /// A passing trouble since the last call.
    pub fn trouble(&mut self) -> Option<String> {
        self.trouble.take()
    }

    /// Partitions that keep too much and are to be paused, each named once.
    pub fn take_full(&mut self) -> Vec<i32> {
        std::mem::take(&mut self.to_pause)
    }

    /// Paused partitions that are read now or have room again, each named once.
    pub fn take_roomy(&mut self) -> Vec<i32> {
        let room = self.kept_limit() / 2;
        let paused = self.lanes.iter_mut().filter(|lane| lane.paused && (lane.to.is_some() || lane.kept_bytes < room));
        paused
            .map(|lane| {
                lane.paused = false;
                lane.partition
            })
            .collect()
    }

    /// Nothing comes at the moment: what has arrived is handed over as it is.
    pub fn flush(&mut self) {
        for i in 0..self.lanes.len() {
            if self.lanes[i].to.is_some() {
                self.hand_over(i);
            }
        }
    }

    /// Everything of `partition` below `position` has arrived, also without a record.
    pub fn reach(&mut self, partition: i32, position: i64) {
        if let Some(i) = self.find(partition) {
            self.lanes[i].reached = self.lanes[i].reached.max(position);
            self.settle(i);
        }
    }

    /// Gives the read up: its partitions have to be assigned anew.
    pub fn abandon(&mut self) {
        for lane in &mut self.lanes {
            if lane.to.take().is_some() {
                lane.next = None;
            }
        }
        self.ready.clear();
        self.open = 0;
    }

    fn find(&self, partition: i32) -> Option<usize> {
        match self.lanes.get(self.last) {
            Some(lane) if lane.partition == partition => Some(self.last),
            _ => self.lanes.binary_search_by_key(&partition, |lane| lane.partition).ok(),
        }
    }

    /// Hands over what was kept and belongs to the range.
    fn take_kept(&mut self, i: usize) {
        let lane = &mut self.lanes[i];
        if !lane.batch.is_empty() {
            let (batch, bytes) = lane.take(self.wanted);
            lane.kept.push_back(batch);
            lane.kept_bytes += bytes;
        }
        let Some(to) = lane.to else { return };
        while let Some(mut batch) = lane.kept.pop_front() {
            let count = batch.offsets.partition_point(|&offset| offset < to);
            let later = (count < batch.len()).then(|| split_off(&mut batch, count));
            if !batch.is_empty() {
                self.ready.push_back(batch);
            }
            if let Some(later) = later {
                lane.kept.push_front(later);
                break;
            }
        }
        lane.kept_bytes = lane.kept.iter().map(batch_bytes).sum();
    }

    fn settle(&mut self, i: usize) {
        if self.lanes[i].to.is_some_and(|to| self.lanes[i].reached >= to) {
            self.hand_over(i);
            if self.lanes[i].finish() {
                self.open -= 1;
            }
        }
    }

    /// Moves the unfinished batch of a lane that is being read to the ready ones.
    fn hand_over(&mut self, i: usize) {
        let lane = &mut self.lanes[i];
        if !lane.batch.is_empty() {
            let (batch, _) = lane.take(self.wanted);
            self.ready.push_back(batch);
        }
    }

    fn batch_limit(&self) -> usize {
        (UNFINISHED_BYTES / self.lanes.len().max(1)).clamp(LEAST_BATCH_BYTES, BATCH_BYTES)
    }

    /// The bytes that a lane keeps before it is paused.
    fn kept_limit(&self) -> usize {
        (KEPT_BYTES / self.lanes.len().max(1)).max(LEAST_BATCH_BYTES)
    }

    /// Keeps the full batch of a lane that is not being read.
    fn keep(&mut self, i: usize) {
        let limit = self.kept_limit();
        let lane = &mut self.lanes[i];
        let (batch, bytes) = lane.take(self.wanted);
        lane.kept.push_back(batch);
        lane.kept_bytes += bytes;
        if lane.kept_bytes >= limit && !lane.paused {
            lane.paused = true;
            self.to_pause.push(lane.partition);
        }
    }

    fn flow(&self) -> Flow {
        let stop = !self.ready.is_empty() || self.open == 0 || !self.to_pause.is_empty() || self.fault.is_some();
        if stop { Flow::Stop } else { Flow::Go }
    }
}

impl Receive for Lanes {
    fn record(&mut self, record: &impl Record) -> Flow {
        let Some(i) = self.find(record.partition()) else { return Flow::Go };
        self.last = i;
        let offset = record.offset();
        if offset < self.lanes[i].reached {
            return Flow::Go;
        }
        if self.lanes[i].to.is_some_and(|to| offset >= to) {
            self.lanes[i].reached = offset;
            self.settle(i);
        }
        self.lanes[i].push(record);
        let lane = &self.lanes[i];
        let full = lane.batch.len() >= BATCH_RECORDS || lane.batch_bytes >= self.batch_limit();
        match lane.to {
            Some(to) if lane.reached >= to => self.settle(i),
            Some(_) if full => self.hand_over(i),
            None if full => self.keep(i),
            _ => return if self.open == 0 { Flow::Stop } else { Flow::Go },
        }
        self.flow()
    }

    fn error(&mut self, error: PartitionError<'_>) -> Flow {
        let Some(i) = self.find(error.partition) else {
            if matches!(error.code, Code::UnknownTopic | Code::UnknownTopicOrPartition) {
                self.fault = Some(Fault::Missing(-1));
            }
            return self.flow();
        };
        if error.code == Code::PartitionEOF {
            self.reach(error.partition, error.offset);
            self.lanes[i].short = self.lanes[i].to.is_some();
            return self.flow();
        }
        let lane = &mut self.lanes[i];
        let fault = match error.code {
            // The code of what librdkafka would have done about it, and only in its words what it is.
            Code::AutoOffsetReset | Code::LogTruncation if error.text.contains("truncation") => {
                Fault::CutOff(lane.partition, lane.reached, error.text.to_string())
            }
            Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation => {
                let to = lane.to.unwrap_or(lane.reached);
                Fault::Lost(PartitionRange { partition: lane.partition, from: lane.reached, to })
            }
            Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => {
                Fault::Missing(lane.partition)
            }
            code if stays(code) => Fault::Failed(lane.partition, error.offset, error.text.to_string()),
            _ => {
                self.trouble = Some(error.text.to_string());
                return self.flow();
            }
        };
        match lane.to {
            Some(_) => self.fault = Some(fault),
            // Not asked for now: the read that asks for it meets the error itself, but for one that is told once.
            None => {
                lane.next = None;
                if matches!(fault, Fault::CutOff(..)) {
                    self.fault = Some(fault);
                }
            }
        }
        self.flow()
    }
}

/// Whether an error stays: a refusal, or a record that librdkafka would skip. The broker's other errors pass.
fn stays(code: Code) -> bool {
    matches!(
        code,
        Code::BadMessage
            | Code::BadCompression
            | Code::NotImplemented
            | Code::Underflow
            | Code::MessageSizeTooLarge
            | Code::UnsupportedCompressionType
            | Code::UnsupportedVersion
            | Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
    )
}

fn batch_bytes(batch: &RawBatch) -> usize {
    let keys = batch.keys.as_ref().map_or(0, |keys| keys.bytes.len());
    let headers = batch.headers.iter().flatten().flatten();
    let headers: usize =
        headers.map(|(name, value)| RECORD_BYTES + name.len() + value.as_ref().map_or(0, Vec::len)).sum();
    batch.values.bytes.len() + keys + headers + batch.len() * RECORD_BYTES
}

/// Takes the records from `row` on out of `batch`.
fn split_off(batch: &mut RawBatch, row: usize) -> RawBatch {
    RawBatch {
        partition: batch.partition,
        offsets: batch.offsets.split_off(row),
        timestamps: batch.timestamps.split_off(row),
        values: split_payloads(&mut batch.values, row),
        keys: batch.keys.as_mut().map(|keys| split_payloads(keys, row)),
        headers: batch.headers.as_mut().map(|headers| headers.split_off(row)),
    }
}

fn split_payloads(payloads: &mut Payloads, row: usize) -> Payloads {
    let start = if row == 0 { 0 } else { payloads.ends[row - 1] };
    let null = payloads.nulls.partition_point(|&null| (null as usize) < row);
    Payloads {
        bytes: payloads.bytes.split_off(start as usize),
        ends: payloads.ends.split_off(row).into_iter().map(|end| end - start).collect(),
        nulls: payloads.nulls.split_off(null).into_iter().map(|null| null - row as u32).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Headers;

    struct Given(i32, i64, Option<&'static [u8]>);

    impl Record for Given {
        fn partition(&self) -> i32 {
            self.0
        }
        fn offset(&self) -> i64 {
            self.1
        }
        fn timestamp(&self) -> i64 {
            1000 + self.1
        }
        fn value(&self) -> Option<&[u8]> {
            self.2
        }
        fn key(&self) -> Option<&[u8]> {
            Some(b"k")
        }
        fn headers(&self) -> Headers {
            vec![("h".into(), None)]
        }
    }

    const ALL: Wanted = Wanted { key: true, headers: true };

    fn range(partition: i32, from: i64, to: i64) -> PartitionRange {
        PartitionRange { partition, from, to }
    }

    fn feed(lanes: &mut Lanes, partition: i32, offsets: impl IntoIterator<Item = i64>) {
        for offset in offsets {
            lanes.record(&Given(partition, offset, Some(b"value")));
        }
    }

    fn eof(lanes: &mut Lanes, partition: i32, offset: i64) {
        lanes.error(PartitionError { partition, offset, code: Code::PartitionEOF, text: "" });
    }

    fn fail(lanes: &mut Lanes, partition: i32, code: Code) -> Option<Fault> {
        lanes.error(PartitionError { partition, offset: 7, code, text: "reason" });
        lanes.fault()
    }

    fn offsets(lanes: &mut Lanes) -> Vec<i64> {
        let mut offsets = vec![];
        while let Some(batch) = lanes.ready() {
            assert_eq!(batch.len(), batch.values.len());
            assert_eq!(batch.len(), batch.timestamps.len());
            assert_eq!(batch.keys.as_ref().map(Payloads::len), lanes.wanted.key.then_some(batch.len()));
            assert_eq!(batch.headers.as_ref().map(Vec::len), lanes.wanted.headers.then_some(batch.len()));
            offsets.extend(batch.offsets);
        }
        offsets
    }

    #[test]
    fn a_range_ends_with_its_last_record() {
        let mut lanes = Lanes::default();
        assert!(lanes.begin(&[range(0, 5, 8)], ALL));
        assert_eq!(lanes.starts().collect::<Vec<_>>(), [(0, 5)]);
        feed(&mut lanes, 0, 5..7);
        assert!(!lanes.is_done());
        feed(&mut lanes, 0, 7..8);
        assert!(lanes.is_done());
        assert_eq!(offsets(&mut lanes), [5, 6, 7]);
    }

    #[test]
    fn what_was_fetched_ahead_begins_the_next_range() {
        let mut lanes = Lanes::default();
        lanes.begin(&[range(0, 0, 3)], ALL);
        feed(&mut lanes, 0, 0..10);
        assert_eq!(offsets(&mut lanes), [0, 1, 2]);
        assert!(!lanes.begin(&[range(0, 3, 5)], ALL));
        assert!(lanes.is_done());
        assert_eq!(offsets(&mut lanes), [3, 4]);
        assert!(!lanes.begin(&[range(0, 5, 12)], ALL));
        feed(&mut lanes, 0, 10..12);
        assert_eq!(offsets(&mut lanes), [5, 6, 7, 8, 9, 10, 11]);
    }

    #[test]
    fn gaps_end_a_range_too() {
        let mut lanes = Lanes::default();
        lanes.begin(&[range(0, 0, 5), range(1, 0, 5), range(2, 0, 5)], ALL);
        feed(&mut lanes, 0, [1, 9]);
        eof(&mut lanes, 1, 5);
        lanes.reach(2, 6);
        assert!(lanes.is_done());
        assert_eq!(offsets(&mut lanes), [1]);
        assert!(!lanes.begin(&[range(0, 5, 9), range(2, 5, 6)], ALL));
        assert!(lanes.is_done());
        assert_eq!(offsets(&mut lanes), [0i64; 0]);
        assert!(!lanes.begin(&[range(0, 9, 10)], ALL));
        assert_eq!(offsets(&mut lanes), [9]);
    }

    #[test]
    fn another_start_or_other_wishes_assign_anew() {
        let mut lanes = Lanes::default();
        lanes.begin(&[range(0, 0, 3), range(1, 0, 2)], ALL);
        feed(&mut lanes, 0, 0..9);
        feed(&mut lanes, 1, 0..9);
        assert!(lanes.begin(&[range(0, 4, 6)], ALL));
        assert_eq!(lanes.starts().collect::<Vec<_>>(), [(0, 4), (1, 2)]);
        feed(&mut lanes, 0, 4..6);
        assert!(lanes.begin(&[range(0, 6, 7)], Wanted::default()));
        assert!(lanes.begin(&[range(0, 6, 7), range(3, 0, 1)], Wanted::default()));
    }

    #[test]
    fn a_read_that_was_given_up_begins_anew() {
        let mut lanes = Lanes::default();
        lanes.begin(&[range(0, 0, 9)], ALL);
        feed(&mut lanes, 0, 0..4);
        lanes.abandon();
        assert!(lanes.is_done());
        assert!(lanes.begin(&[range(0, 4, 6)], ALL));
        assert_eq!(lanes.starts().collect::<Vec<_>>(), [(0, 4)]);
    }

    #[test]
    fn batches_are_bounded_and_idle_ones_handed_over() {
        let mut lanes = Lanes::default();
        lanes.begin(&[range(0, 0, 1_000_000)], Wanted::default());
        feed(&mut lanes, 0, 0..10_000);
        assert_eq!(lanes.ready().unwrap().len(), BATCH_RECORDS);
        assert!(lanes.ready().is_none());
        lanes.flush();
        assert_eq!(lanes.ready().unwrap().len(), 10_000 - BATCH_RECORDS);
    }

    #[test]
    fn a_lane_that_is_not_read_is_paused_and_resumed() {
        let mut lanes = Lanes::default();
        lanes.begin(&[range(0, 0, 1), range(1, 0, 1)], Wanted::default());
        feed(&mut lanes, 0, 0..1);
        let value: &'static [u8] = vec![0; 1 << 20].leak();
        let mut offset = 1;
        while lanes.to_pause.is_empty() {
            lanes.record(&Given(0, offset, Some(value)));
            offset += 1;
        }
        let kept = (KEPT_BYTES >> 20) as i64 / 2;
        assert!((kept..kept + 2).contains(&offset), "{offset}");
        assert_eq!(lanes.take_full(), [0]);
        feed(&mut lanes, 1, 0..1);
        assert!(!lanes.begin(&[range(0, 1, offset)], Wanted::default()));
        assert_eq!(lanes.take_roomy(), [0]);
        assert_eq!(lanes.take_roomy(), [0i32; 0]);
        assert!(lanes.is_done());
    }

    #[test]
    fn a_split_batch_keeps_nulls_keys_and_headers() {
        let mut lanes = Lanes::default();
        lanes.begin(&[range(0, 0, 1)], ALL);
        feed(&mut lanes, 0, 0..1);
        lanes.record(&Given(0, 1, None));
        lanes.record(&Given(0, 2, Some(b"two")));
        lanes.record(&Given(0, 3, None));
        lanes.ready();
        lanes.begin(&[range(0, 1, 2)], ALL);
        let first = lanes.ready().unwrap();
        assert_eq!((first.offsets, first.values.nulls, first.timestamps), (vec![1], vec![0], vec![1001]));
        lanes.begin(&[range(0, 2, 4)], ALL);
        let second = lanes.ready().unwrap();
        assert_eq!((second.values.value(0), &second.values.nulls), (&b"two"[..], &vec![1]));
        assert_eq!(second.keys.unwrap().value(1), b"k");
        assert_eq!(second.headers.unwrap()[1], vec![("h".to_string(), None)]);
    }

    #[test]
    fn errors_fail_the_read_that_they_belong_to() {
        let mut lanes = Lanes::default();
        lanes.begin(&[range(0, 5, 9)], ALL);
        assert_eq!(fail(&mut lanes, 0, Code::AutoOffsetReset), Some(Fault::Lost(range(0, 5, 9))));
        assert_eq!(fail(&mut lanes, 0, Code::UnknownTopicOrPartition), Some(Fault::Missing(0)));
        assert_eq!(fail(&mut lanes, 0, Code::BadMessage), Some(Fault::Failed(0, 7, "reason".into())));
        assert_eq!(fail(&mut lanes, 0, Code::KafkaStorageError), None);
        assert_eq!(lanes.trouble().as_deref(), Some("reason"));
        assert_eq!(fail(&mut lanes, -1, Code::GroupAuthorizationFailed), None);
        feed(&mut lanes, 0, 5..9);
        assert_eq!(fail(&mut lanes, 0, Code::AutoOffsetReset), None);
        assert!(lanes.begin(&[range(0, 9, 10)], ALL));
        // A log that was cut off is told once, to whoever reads next.
        feed(&mut lanes, 0, 9..10);
        let text = "Partition log truncation detected";
        lanes.error(PartitionError { partition: 0, offset: -1, code: Code::AutoOffsetReset, text });
        assert!(lanes.begin(&[range(0, 10, 11)], ALL));
        assert_eq!(lanes.fault(), Some(Fault::CutOff(0, 10, text.into())));
    }

    #[test]
    fn a_log_that_ends_too_early_is_noticed() {
        let mut lanes = Lanes::default();
        lanes.begin(&[range(0, 0, 9)], ALL);
        feed(&mut lanes, 0, 0..4);
        assert_eq!(lanes.short().count(), 0);
        eof(&mut lanes, 0, 4);
        assert_eq!(lanes.short().collect::<Vec<_>>(), [range(0, 4, 9)]);
    }
}
