//! What is known of a run while it goes on: the progress of each micro-batch, and who wants to hear of it.
//!
//! The JSON keys are those of Spark's `StreamingQueryProgress` where Spark has them.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use crate::error::{Error, Result};

/// What became of the records that a micro-batch read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Records {
    /// Records that the log handed over.
    pub read: u64,
    /// Records that became a row of the topic's table.
    pub decoded: u64,
    /// Records that could not be decoded.
    pub dead: u64,
    /// Records without a value.
    pub null: u64,
}

impl Records {
    /// Counts these too.
    pub fn add(&mut self, more: Records) {
        self.read += more.read;
        self.decoded += more.decoded;
        self.dead += more.dead;
        self.null += more.null;
    }
}

/// What became of the rows that a query produced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Rows {
    /// Rows that came out of the query.
    pub produced: u64,
    /// Rows in the files that the commit adds.
    pub written: u64,
    /// Rows in the quarantine table.
    pub quarantined: u64,
    /// Rows that broke the contract and were dropped.
    pub dropped: u64,
}

/// The two laws of conservation, which every micro-batch obeys before it is committed.
///
/// # Errors
/// `Unavailable` when a record or a row is unaccounted for: nothing may be committed then.
pub fn check_conservation(records: Records, rows: Rows) -> Result<()> {
    if records.read != records.decoded + records.dead + records.null {
        return Err(Error::unavailable(format!(
            "records are unaccounted for: read {} but decoded {} + dead {} + null {}; nothing was committed, run again \
             and report this",
            records.read, records.decoded, records.dead, records.null
        )));
    }
    if rows.produced != rows.written + rows.quarantined + rows.dropped {
        return Err(Error::unavailable(format!(
            "rows are unaccounted for: produced {} but written {} + quarantined {} + dropped {}; nothing was \
             committed, run again and report this",
            rows.produced, rows.written, rows.quarantined, rows.dropped
        )));
    }
    Ok(())
}

/// Where the time of a micro-batch went, in milliseconds. Stages overlap, so they need not add up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Durations {
    /// Asking the log for its end offsets.
    pub latest_offset: f64,
    /// Planning the query.
    pub query_planning: f64,
    /// Reading, decoding, running and writing.
    pub add_batch: f64,
    /// Closing the data files.
    pub close_files: f64,
    /// The sink's commit.
    pub wal_commit: f64,
    /// The commits of side tables, such as dead letters.
    pub side_commit: f64,
    /// From the start of planning to the end of the commit.
    pub trigger_execution: f64,
}

/// Offsets by topic and partition, as Spark prints them: `{"topic":{"0":12}}`.
pub type TopicOffsets = BTreeMap<String, BTreeMap<i32, i64>>;

/// What a micro-batch took from one topic.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceProgress {
    /// `kafka://brokers/topic`.
    pub description: String,
    /// The first offset of each partition.
    pub start_offset: TopicOffsets,
    /// The offset after the last one of each partition.
    pub end_offset: TopicOffsets,
    /// The end of each partition when the micro-batch was planned.
    pub latest_offset: TopicOffsets,
    /// Records read.
    pub num_input_rows: u64,
    /// Fields that the message does not know, where the query reads a column `_unknown`.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_unknown_fields: u64,
    /// Numbers of enums without a name.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_nameless_enum_numbers: u64,
    /// Dates and times of day that no calendar has.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_impossible_dates: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// What a micro-batch gave to the sink.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SinkProgress {
    /// The table's location.
    pub description: String,
    /// Rows written.
    pub num_output_rows: u64,
}

/// One committed micro-batch.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// The query's name.
    pub name: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// The micro-batch's clock, RFC 3339.
    #[serde(serialize_with = "rfc3339")]
    pub timestamp: DateTime<Utc>,
    /// The number of the micro-batch: one more than the last one's.
    pub batch_id: i64,
    /// The table version that holds it.
    pub version: i64,
    /// Records read.
    pub num_input_rows: u64,
    /// Records read for each second since the last micro-batch began.
    pub input_rows_per_second: f64,
    /// Records read for each second of work.
    pub processed_rows_per_second: f64,
    /// Where the time went.
    pub duration_ms: Durations,
    /// Records that were in the log and not yet read when the micro-batch was planned, less its own.
    pub lag: u64,
    /// What became of the records.
    pub records: Records,
    /// What became of the rows.
    pub rows: Rows,
    /// What was read.
    pub sources: Vec<SourceProgress>,
    /// What was written.
    pub sink: SinkProgress,
}

fn rfc3339<S: serde::Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

impl fmt::Display for Progress {
    /// One line: time, query, version, records, rows, records/s, lag, how long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What became neither a row nor nothing at all.
        let apart = |parts: [(&str, u64); 2]| {
            let parts = parts.into_iter().filter(|(_, count)| *count > 0);
            let parts: Vec<String> = parts.map(|(name, count)| format!("{} {name}", grouped(count))).collect();
            if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
        };
        let dead = apart([("dead", self.records.dead), ("null", self.records.null)]);
        let broken = apart([("quarantined", self.rows.quarantined), ("dropped", self.rows.dropped)]);
        write!(
            f,
            "{}  {}  v{}  {} records{dead}  {} rows{broken}  {} records/s  lag {}  {:.3} s",
            self.timestamp.to_rfc3339_opts(SecondsFormat::Millis, true),
            self.name,
            self.version,
            grouped(self.records.read),
            grouped(self.rows.written),
            grouped(self.processed_rows_per_second as u64),
            grouped(self.lag),
            self.duration_ms.trigger_execution / 1000.0,
        )
    }
}

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Hears of what happens. Called from the loop of a query: it must return at once.
pub trait Observer: Send + Sync {
    /// A micro-batch was committed.
    fn progress(&self, progress: &Progress);

    /// Something that a person should know and that is not an error: a first start, an empty batch job.
    fn note(&self, text: &str);
}

/// Hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn progress(&self, _progress: &Progress) {}

    fn note(&self, _text: &str) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn laws_hold_or_nothing_is_committed() {
        let records = Records { read: 3, decoded: 2, dead: 0, null: 1 };
        let rows = Rows { produced: 2, written: 2, ..Rows::default() };
        assert!(check_conservation(records, rows).is_ok());
        assert!(check_conservation(Records { read: 4, ..records }, rows).is_err());
        assert!(check_conservation(records, Rows { written: 1, ..rows }).is_err());
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }
}
