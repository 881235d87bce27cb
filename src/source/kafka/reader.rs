//! The thread that reads a topic. It owns the consumer and serves one read after the other; between them librdkafka
//! fetches ahead, up to `queued.max.messages.kbytes`.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::error::KafkaError;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

use super::STREAM_BATCHES;
use super::ffi::{self, Consumer, Event};
use super::lanes::{BATCH_BYTES, Fault, Lanes};
use crate::clock::Stopwatch;
use crate::error::{Alarm, Error, Result};
use crate::kafka::{KNOWN_PATIENCE, KafkaClient, Watch};
use crate::offsets::{PartitionBounds, PartitionRange};
use crate::source::{RawBatch, Wanted};

/// How long the thread waits for records before it looks whether it is still wanted.
const POLL: Duration = Duration::from_millis(50);
/// How often it serves log lines while nothing is read.
const LISTEN: Duration = Duration::from_secs(1);
/// A connection that failed and nothing for so long: the broker is away.
const AWAY: Duration = Duration::from_secs(1);
/// Records that were promised and nothing for so long: something is wrong, whatever it is.
const STUCK: Duration = Duration::from_secs(30);
/// A log that ends before the range for so long is asked whether it lost its end. A new leader needs a moment.
const SHORT: Duration = Duration::from_secs(5);
/// The time limit of such a question.
const ASK: Duration = Duration::from_secs(5);

/// What the thread is to do.
pub enum Command {
    /// Read ranges.
    Read(Read),
    /// Tell Kafka these positions.
    Mirror(BTreeMap<i32, i64>),
}

/// A read and where its batches go.
pub struct Read {
    /// What to read; none is empty, no partition twice.
    pub ranges: Vec<PartitionRange>,
    /// What is copied.
    pub wanted: Wanted,
    /// The stream. When its other end is dropped the read ends.
    pub batches: mpsc::Sender<Result<RawBatch>>,
    /// Room for an error in the stream, kept free so that a read never ends early without one.
    pub last_word: mpsc::OwnedPermit<Result<RawBatch>>,
}

/// The thread's own.
pub struct Reader {
    /// The topic that is read.
    pub topic: String,
    /// For the questions that only the cluster can answer.
    pub client: KafkaClient,
    /// Fetches; dropped with the thread.
    pub consumer: Consumer,
    /// Waits for commands and for room in the stream, on this thread.
    pub runtime: Runtime,
    /// Ends when the log is dropped.
    pub commands: mpsc::Receiver<Command>,
    /// Its sender is dropped with the log: that interrupts a read.
    pub stop: watch::Receiver<()>,
    /// What has arrived.
    pub lanes: Lanes,
    /// What the connections say.
    pub watch: Watch,
}

/// Why a read ended before its end.
enum End {
    /// Nobody reads the stream any more.
    Dropped,
    Failed(Error),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        End::Failed(error)
    }
}

impl Reader {
    /// Serves commands until the log is dropped.
    pub fn run(mut self) {
        loop {
            let commands = &mut self.commands;
            let next = self.runtime.block_on(async { tokio::time::timeout(LISTEN, commands.recv()).await });
            match next {
                Ok(Some(Command::Read(read))) => self.serve(read),
                Ok(Some(Command::Mirror(offsets))) => self.mirror(&offsets),
                Ok(None) => return,
                Err(_) => self.listen(),
            }
        }
    }

    fn serve(&mut self, read: Read) {
        let end = self.read(&read);
        if let Err(end) = end {
            self.lanes.abandon();
            if let End::Failed(error) = end {
                read.last_word.send(Err(error));
            }
        }
    }

    fn read(&mut self, read: &Read) -> Result<(), End> {
        if self.lanes.begin(&read.ranges, read.wanted) {
            self.assign()?;
        }
        self.steer()?;
        self.hand_over(&read.batches)?;
        let mut quiet = Quiet::new(self.remaining());
        while !self.lanes.is_done() {
            self.go_on(read)?;
            let count = self.consumer.consume(POLL, &mut self.lanes);
            if count == 0 {
                self.lanes.flush();
                self.ask_positions()?;
            }
            self.steer()?;
            self.hand_over(&read.batches)?;
            match self.lanes.fault() {
                Some(Fault::Missing(partition)) if self.comes_back(partition, read)? => self.assign()?,
                Some(fault) => return Err(End::Failed(self.explain(fault))),
                None => {}
            }
            self.listen();
            if quiet.ends(self.remaining()) {
                self.watch.forget();
                self.client.presence().back();
            } else {
                self.wait(&mut quiet)?;
            }
        }
        self.hand_over(&read.batches)
    }

    /// Fetches from where each lane stands.
    fn assign(&mut self) -> Result<(), End> {
        let starts = ffi::list(&self.topic, self.lanes.starts());
        // A partition that is assigned anew is still paused if it was.
        let assigned = starts.and_then(|list| self.consumer.assign(&list).and_then(|()| self.consumer.resume(&list)));
        assigned.map_err(|e| self.failed("assign partitions", &e))
    }

    /// Whether a partition that a broker does not know is there all the same, or soon: brokers that have just started
    /// deny what they hold for a moment.
    fn comes_back(&mut self, partition: i32, read: &Read) -> Result<bool, End> {
        let asked = Stopwatch::start();
        loop {
            self.runtime.block_on(async { tokio::time::sleep(POLL).await });
            if let Ok(Some(bounds)) = self.client.bounds_now(&self.topic, ASK) {
                return Ok(partition < 0 || bounds.iter().any(|b| b.partition == partition));
            }
            self.go_on(read)?;
            if asked.elapsed() >= KNOWN_PATIENCE {
                return Ok(false);
            }
        }
    }

    /// Whether this read is still wanted.
    fn go_on(&self, read: &Read) -> Result<(), End> {
        if read.batches.is_closed() {
            return Err(End::Dropped);
        }
        self.stop.has_changed().map(|_| ()).map_err(|_| self.closed())
    }

    fn closed(&self) -> End {
        End::Failed(Error::unavailable(format!("topic {} was closed while it was read: read it again", self.topic)))
    }

    /// Passes the finished batches on; waits while the stream is full. A batch of large records needs the room of
    /// several.
    fn hand_over(&mut self, batches: &mpsc::Sender<Result<RawBatch>>) -> Result<(), End> {
        while let Some(batch) = self.lanes.ready() {
            let room = (batch.bytes() / BATCH_BYTES).clamp(1, STREAM_BATCHES);
            let mut permits = match batches.try_reserve_many(room) {
                Ok(permits) => permits,
                Err(mpsc::error::TrySendError::Closed(())) => return Err(End::Dropped),
                Err(mpsc::error::TrySendError::Full(())) => {
                    let stop = &mut self.stop;
                    let reserved = self.runtime.block_on(async {
                        tokio::select! {
                            reserved = batches.reserve_many(room) => Some(reserved),
                            _ = stop.changed() => None,
                        }
                    });
                    match reserved {
                        Some(Ok(permits)) => permits,
                        Some(Err(_)) => return Err(End::Dropped),
                        None => return Err(self.closed()),
                    }
                }
            };
            if let Some(permit) = permits.next() {
                permit.send(Ok(batch));
            }
        }
        Ok(())
    }

    /// Pauses partitions that keep too much and resumes those that are read.
    fn steer(&mut self) -> Result<(), End> {
        let (pause, resume) = (self.lanes.take_full(), self.lanes.take_roomy());
        let named = |partitions: Vec<i32>| ffi::list(&self.topic, partitions.into_iter().map(|p| (p, 0)));
        let mut done = Ok(());
        if !pause.is_empty() {
            done = named(pause).and_then(|list| self.consumer.pause(&list));
        }
        if !resume.is_empty() {
            done = done.and(named(resume).and_then(|list| self.consumer.resume(&list)));
        }
        done.map_err(|error| self.failed("pause or resume partitions", &error))
    }

    /// Control records are no records: where a range ends with one, only the position tells.
    fn ask_positions(&mut self) -> Result<(), End> {
        let open: Vec<_> = self.lanes.missing().map(|range| (range.partition, 0)).collect();
        let asked = ffi::list(&self.topic, open.into_iter())
            .and_then(|mut list| self.consumer.positions(&mut list).map(|()| list));
        let list = asked.map_err(|error| self.failed("tell its position", &error))?;
        for element in list.elements() {
            if let rdkafka::Offset::Offset(position) = element.offset() {
                self.lanes.reach(element.partition(), position);
            }
        }
        Ok(())
    }

    /// The offsets that have not arrived.
    fn remaining(&self) -> u64 {
        self.lanes.missing().map(|range| range.to.abs_diff(range.from)).sum()
    }

    /// Serves librdkafka's log lines and the errors of its connections.
    fn listen(&self) {
        while let Some(event) = self.consumer.event() {
            match event {
                Event::Log(line) => tracing::debug!(target: "librdkafka", "{line}"),
                Event::Error(code, reason) => self.watch.hear(code, &reason),
            }
        }
    }

    /// Nothing comes: is it worth waiting?
    fn wait(&mut self, quiet: &mut Quiet) -> Result<(), End> {
        let waited = quiet.since.elapsed();
        if let Some(reason) = self.watch.refusal() {
            return Err(End::Failed(self.client.locked_out(&reason)));
        }
        if let Some(trouble) = self.lanes.trouble() {
            quiet.trouble = Some(trouble);
        }
        let reason = quiet.trouble.clone().or_else(|| self.watch.failure());
        match &reason {
            Some(reason) if waited >= AWAY => self.client.gone(reason),
            None if waited >= STUCK => self.client.gone("records that it holds do not arrive"),
            _ => {}
        }
        if quiet.is_due() {
            self.check_ends()?;
        }
        match self.client.broker_timeout() {
            Some(limit) if waited >= limit => {
                let reason = reason.unwrap_or_else(|| "no records arrive".into());
                let error = self.client.gave_up(&reason, limit);
                Err(End::Failed(error.within(format!("topic {}", self.topic))))
            }
            _ => Ok(()),
        }
    }

    /// Whether a partition that ended too early lost its end for good.
    fn check_ends(&self) -> Result<(), End> {
        if self.lanes.short().next().is_none() {
            return Ok(());
        }
        match self.client.bounds_now(&self.topic, ASK) {
            Ok(Some(bounds)) => {
                let high = |partition| bounds.iter().find(|b| b.partition == partition).map_or(0, |b| b.high);
                match self.lanes.short().find(|range| high(range.partition) < range.to) {
                    Some(range) => Err(End::Failed(cut_off(&self.topic, range, high(range.partition)))),
                    None => Ok(()),
                }
            }
            Ok(None) => Err(End::Failed(no_topic(&self.topic))),
            // The cluster is away: the wait goes on.
            Err(_) => Ok(()),
        }
    }

    fn explain(&self, fault: Fault) -> Error {
        match fault {
            Fault::Missing(partition) => match self.client.bounds_now(&self.topic, ASK) {
                Ok(Some(bounds)) if partition >= 0 && bounds.iter().all(|b| b.partition != partition) => {
                    Error::violated(format!("topic {} has no partition {partition}. {WAYS_OUT}", self.topic))
                }
                _ => no_topic(&self.topic),
            },
            Fault::CutOff(partition, reached, reason) => match self.client.bounds_now(&self.topic, ASK) {
                Ok(Some(bounds)) => {
                    let high = bounds.iter().find(|b| b.partition == partition).map_or(0, |b| b.high);
                    grown_again(&self.topic, partition, reached, high, &self.client.config().redact(&reason))
                }
                _ => grown_again(&self.topic, partition, reached, reached, &self.client.config().redact(&reason)),
            },
            Fault::Failed(partition, offset, reason) => Error::unavailable(format!(
                "topic {} partition {partition} cannot be read at offset {offset}: {}. Look at the broker's log and \
                 the rights of this user, then run it again",
                self.topic,
                self.client.config().redact(&reason)
            )),
            Fault::Lost(range) => match self.client.bounds_now(&self.topic, ASK) {
                Ok(None) => no_topic(&self.topic),
                Ok(Some(bounds)) => lost(&self.topic, range, bounds.iter().find(|b| b.partition == range.partition)),
                Err(_) => lost(&self.topic, range, None),
            },
        }
    }

    fn failed(&self, what: &str, error: &KafkaError) -> End {
        let text = self.client.config().redact(&error.to_string());
        End::Failed(Error::unavailable(format!("topic {}: cannot {what}: {text}. Run it again", self.topic)))
    }

    fn mirror(&self, offsets: &BTreeMap<i32, i64>) {
        let sent = ffi::list(&self.topic, offsets.iter().map(|(&partition, &offset)| (partition, offset)))
            .and_then(|list| self.consumer.commit(&list));
        if let Err(error) = sent {
            tracing::debug!("topic {}: positions were not mirrored: {error}", self.topic);
        }
        self.listen();
    }
}

/// How long nothing has arrived.
struct Quiet {
    since: Stopwatch,
    remaining: u64,
    trouble: Option<String>,
    /// How often the ends were checked.
    checks: u32,
}

impl Quiet {
    fn new(remaining: u64) -> Self {
        Self { since: Stopwatch::start(), remaining, trouble: None, checks: 0 }
    }

    /// Whether something has arrived; then it begins anew.
    fn ends(&mut self, remaining: u64) -> bool {
        let ends = remaining < self.remaining;
        if ends {
            *self = Self::new(remaining);
        }
        ends
    }

    /// Whether it is time for the next check of the ends.
    fn is_due(&mut self) -> bool {
        let due = self.since.elapsed() >= SHORT * (self.checks + 1);
        self.checks += u32::from(due);
        due
    }
}

const WAYS_OUT: &str = "Two ways out: reset the sink's table and start over with what is kept, or go on behind the gap \
    with 'on_data_loss' 'skip'";

/// The error of offsets that the broker does not have. `kept`: what it has, if that is known.
fn lost(topic: &str, range: PartitionRange, kept: Option<&PartitionBounds>) -> Error {
    let PartitionRange { partition, from, to } = range;
    let place = format!("topic {topic} partition {partition}");
    match kept {
        Some(kept) if from < kept.low => Error::violated(format!(
            "{place}: offsets [{from}, {}) are gone; the broker keeps [{}, {}). {WAYS_OUT}",
            kept.low, kept.low, kept.high
        ))
        .alarming(Alarm::OffsetsLost),
        Some(kept) if from > kept.high => cut_off(topic, range, kept.high),
        Some(_) => Error::unavailable(format!(
            "{place}: the broker refused offset {from} although it keeps it. Look at its log, then run it again"
        )),
        None => Error::violated(format!("{place}: offsets of [{from}, {to}) are gone. {WAYS_OUT}"))
            .alarming(Alarm::OffsetsLost),
    }
}

/// The error of a log that ends before what was planned.
fn cut_off(topic: &str, range: PartitionRange, high: i64) -> Error {
    Error::violated(format!(
        "topic {topic} partition {}: offsets [{high}, {}) are gone; the log ends at {high}: it was cut off, or the \
         topic was deleted and made again. {WAYS_OUT}",
        range.partition, range.to
    ))
    .alarming(Alarm::OffsetsLost)
}

/// The error of a log that was cut off below `reached`, which was read, and ends at `high` now.
fn grown_again(topic: &str, partition: i32, reached: i64, high: i64, reason: &str) -> Error {
    if high < reached {
        return cut_off(topic, PartitionRange { partition, from: high, to: reached }, high);
    }
    Error::violated(format!(
        "topic {topic} partition {partition}: its log was cut off below {reached}, up to where it was read, and has \
         grown again: the table has records that are gone, and not those that came in their place ({reason}). Two ways \
         out: reset the sink's table and start over with what is kept, or start it again: it goes on at {reached}"
    ))
    .alarming(Alarm::OffsetsLost)
}

fn no_topic(topic: &str) -> Error {
    Error::unavailable(format!("topic `{topic}` does not exist any more: create it, or mend the table's LOCATION"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    const RANGE: PartitionRange = PartitionRange { partition: 3, from: 10, to: 90 };

    fn kept(low: i64, high: i64) -> Option<PartitionBounds> {
        Some(PartitionBounds { partition: 3, low, high })
    }

    #[test]
    fn lost_offsets_are_named_exactly() {
        let cases = [
            (
                kept(40, 100),
                ErrorKind::Violated,
                "topic t partition 3: offsets [10, 40) are gone; the broker keeps [40, 100).",
            ),
            (kept(0, 7), ErrorKind::Violated, "topic t partition 3: offsets [7, 90) are gone; the log ends at 7:"),
            (None, ErrorKind::Violated, "topic t partition 3: offsets of [10, 90) are gone."),
            (kept(0, 100), ErrorKind::Unavailable, "topic t partition 3: the broker refused offset 10"),
        ];
        for (kept, kind, begin) in cases {
            let error = lost("t", RANGE, kept.as_ref());
            assert_eq!(error.kind(), kind);
            assert!(error.message().starts_with(begin), "{error}");
            assert_eq!(error.message().contains("'on_data_loss' 'skip'"), kind == ErrorKind::Violated);
        }
    }

    #[test]
    fn a_log_that_was_cut_off_is_told_by_what_is_left_of_it() {
        let error = grown_again("t", 3, 90, 7, "reason");
        assert!(error.message().starts_with("topic t partition 3: offsets [7, 90) are gone;"), "{error}");
        let error = grown_again("t", 3, 90, 95, "reason");
        assert!(error.message().contains("cut off below 90") && error.message().contains("(reason)"), "{error}");
        assert_eq!((error.kind(), error.alarm()), (ErrorKind::Violated, Some(Alarm::OffsetsLost)));
    }

    #[test]
    fn quiet_ends_when_something_arrives() {
        let mut quiet = Quiet::new(10);
        quiet.trouble = Some("t".into());
        assert!(!quiet.ends(10));
        assert!(quiet.trouble.is_some());
        assert!(quiet.ends(9));
        assert!(quiet.trouble.is_none() && !quiet.is_due());
    }
}
