//! Slices of topics as recordings: taken from a broker, redacted, sampled; and to and from lines of JSON.
//!
//! Reading happens beside writing: the log's own thread fetches, and one blocking task, which owns the writer until the
//! channel ends, samples, redacts and writes.

mod disguise;
mod kcat;
mod redact;
mod rewrite;
mod sample;
mod slice;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

pub use self::kcat::{export, import};
pub use self::redact::{Redacted, Redaction};
pub use self::sample::Sample;
pub use self::slice::Slice;

use crate::engine::Stop;
use crate::error::{Error, Result};
use crate::offsets::PartitionRange;
use crate::source::recording::RecordingWriter;
use crate::source::{Log, RawBatch, Wanted};

/// The batches that wait for the writer at most.
const WAITING: usize = 4;

/// What happens to records on their way into a recording.
#[derive(Debug, Default)]
pub struct Treatment {
    /// Which of them go in; `None`: all.
    pub sample: Option<Sample>,
    /// What is hidden of them.
    pub redaction: Option<Redaction>,
    /// Leave values out that cannot be redacted because they are no such message; otherwise they end the recording.
    pub skip_broken: bool,
}

/// How far a recording is. Shared with who shows it.
#[derive(Debug, Default)]
pub struct Seen {
    /// Offsets that have been dealt with, of the ranges that are recorded.
    pub offsets: AtomicU64,
    /// Records that were written, of those that were missing.
    pub records: AtomicU64,
    /// Values that were left out, because they could not be redacted.
    pub broken: AtomicU64,
}

/// Reads what is missing of `ranges` into `writer`. `None` when it was stopped before the end: what there is stays, and
/// [`RecordingWriter::begin`] goes on with it.
///
/// # Errors
/// `Violated` for offsets that are gone meanwhile and for a value that cannot be redacted; `Unavailable` when the log
/// or the disk fails. What there is stays then, too.
pub async fn record(
    log: &dyn Log,
    ranges: &[PartitionRange],
    writer: RecordingWriter,
    treatment: Treatment,
    seen: Arc<Seen>,
    mut stop: Stop,
) -> Result<Option<RecordingWriter>> {
    let mut missing = ranges.to_vec();
    for range in &mut missing {
        let from = writer.next(range.partition).unwrap_or(range.from).clamp(range.from, range.to);
        seen.offsets.fetch_add(from.abs_diff(range.from), Ordering::Relaxed);
        range.from = from;
    }
    let mut stream = log.read(&missing, Wanted { key: true, headers: true })?;
    let (batches, waiting) = mpsc::channel(WAITING);
    let task = tokio::task::spawn_blocking(move || write(waiting, missing, writer, &treatment, &seen));
    let end = loop {
        let batch = tokio::select! {
            batch = stream.recv() => batch,
            () = stop.wait() => break Ok(false),
        };
        match batch {
            None => break Ok(true),
            Some(Err(error)) => break Err(error),
            // When it fails, the task has ended and says why.
            Some(Ok(batch)) => match batches.send(batch).await {
                Ok(()) => {}
                Err(_) => break Ok(false),
            },
        }
    };
    drop(batches);
    let ended = task.await;
    let (writer, written) =
        ended.map_err(|error| Error::unavailable("writing a recording stopped: run it again").caused_by(error))?;
    match written.and(end) {
        Ok(true) => Ok(Some(writer)),
        Ok(false) => writer.pause().map(|()| None),
        Err(error) => {
            // The first error is the one to tell.
            drop(writer.pause());
            Err(error)
        }
    }
}

/// Writes batches until there are no more, or one cannot be written.
fn write(
    mut batches: mpsc::Receiver<RawBatch>,
    mut missing: Vec<PartitionRange>,
    mut writer: RecordingWriter,
    treatment: &Treatment,
    seen: &Seen,
) -> (RecordingWriter, Result<()>) {
    while let Some(batch) = batches.blocking_recv() {
        let next = batch.offsets.last().map_or(0, |last| last + 1);
        let partition = batch.partition;
        let written = treatment.apply(batch, seen).and_then(|batch| {
            seen.records.fetch_add(batch.len() as u64, Ordering::Relaxed);
            writer.write(&batch)
        });
        if let Err(error) = written {
            return (writer, Err(error));
        }
        if let Some(range) = missing.iter_mut().find(|range| range.partition == partition) {
            seen.offsets.fetch_add(next.abs_diff(range.from), Ordering::Relaxed);
            range.from = next;
        }
    }
    (writer, Ok(()))
}

impl Treatment {
    /// The records of `batch` that go in, as they go in. They need keys and headers.
    ///
    /// # Errors
    /// `Violated` for a value that cannot be redacted.
    pub fn apply(&self, batch: RawBatch, seen: &Seen) -> Result<RawBatch> {
        let batch = match self.sample {
            None => batch,
            Some(sample) => batch.only(&sample.rows(&batch)),
        };
        let Some(redaction) = &self.redaction else { return Ok(batch) };
        let Redacted { batch: redacted, broken } = redaction.apply(&batch);
        if let Some((row, why)) = broken.first().filter(|_| !self.skip_broken) {
            return Err(Error::violated(format!(
                "partition {}, offset {}: the value cannot be redacted: {why}. Leave such values out with \
                 --skip-broken, or say another --message",
                batch.partition, batch.offsets[*row]
            )));
        }
        seen.broken.fetch_add(broken.len() as u64, Ordering::Relaxed);
        Ok(redacted)
    }
}
