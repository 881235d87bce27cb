//! Records as lines of JSON, as `kcat -J` prints them, in both directions.
//!
//! A line is an object with `topic`, `partition`, `offset`, `tstype`, `ts` (milliseconds), `headers` (names and values
//! in turn), `key` and `payload`. kcat writes bytes into its strings as they are, so that its lines need not be UTF-8,
//! and they are read so. Lines that are written here are UTF-8: bytes that are not go into `key_base64`,
//! `payload_base64` and `headers_base64`. These are read too, so that lines can be made by hand; then a payload alone
//! is enough: it is of partition 0, at the offset after the one before.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, Read, Write};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::offsets::PartitionRange;
use crate::source::recording::RecordingLog;
use crate::source::{Headers, Log, Payloads, RawBatch, Wanted};

/// The records, and about the bytes, of a batch.
const BATCH_RECORDS: usize = 8192;
const BATCH_BYTES: usize = 1 << 20;
/// The bytes of a line at most.
const LINE_BYTES: u64 = 256 << 20;

/// The bytes of a string, UTF-8 or not.
struct Bytes(Vec<u8>);

struct BytesVisitor;

impl Visitor<'_> for BytesVisitor {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_bytes<E: de::Error>(self, value: &[u8]) -> Result<Bytes, E> {
        Ok(Bytes(value.to_vec()))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(BytesVisitor)
    }
}

/// A line that is read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    /// What kcat says besides.
    #[serde(default, rename = "tstype")]
    _tstype: de::IgnoredAny,
    #[serde(default, rename = "broker")]
    _broker: de::IgnoredAny,
    topic: Option<String>,
    #[serde(default)]
    partition: i32,
    offset: Option<i64>,
    ts: Option<i64>,
    #[serde(default)]
    headers: Vec<Option<Bytes>>,
    #[serde(default)]
    headers_base64: Vec<Option<String>>,
    key: Option<Bytes>,
    key_base64: Option<String>,
    /// `None`: the line does not say; `Some(None)`: a tombstone.
    #[serde(default, deserialize_with = "said")]
    payload: Option<Option<Bytes>>,
    payload_base64: Option<String>,
}

/// A value that is there, null or not.
fn said<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Bytes>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A line that is written.
#[derive(Serialize)]
struct Told<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    tstype: &'static str,
    ts: i64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<Option<&'a str>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers_base64: Vec<Option<String>>,
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

/// Reads lines and gives their records to `take`, batch by batch, each of one partition; what was read of each
/// partition comes back. `topic`: the topic of all of them, which lines need not name.
///
/// # Errors
/// `Invalid` with the number of the line: no such object, another topic, records of a partition that are not in offset
/// order. What `take` returns.
pub fn import(
    lines: &mut dyn BufRead,
    from: &Path,
    topic: &str,
    take: &mut dyn FnMut(RawBatch) -> Result<()>,
) -> Result<Vec<PartitionRange>> {
    let mut batches: BTreeMap<i32, RawBatch> = BTreeMap::new();
    let mut ranges: BTreeMap<i32, PartitionRange> = BTreeMap::new();
    let (mut bytes, mut number) = (Vec::new(), 0_u64);
    loop {
        bytes.clear();
        number += 1;
        let at = |why: &str| Error::invalid(format!("{}:{number}: {why}", from.display()));
        let read = lines.take(LINE_BYTES).read_until(b'\n', &mut bytes);
        match read.map_err(|error| at("it cannot be read; name a readable file").caused_by(error))? {
            0 => break,
            read if read as u64 == LINE_BYTES => return Err(at("the line is longer than 256 MiB; no record is")),
            _ if bytes.trim_ascii().is_empty() => continue,
            _ => {}
        }
        let line: Line = serde_json::from_slice(&bytes).map_err(|error| {
            at("it is no line of `kcat -J`; write one JSON object a line, with the value as `payload_base64`")
                .caused_by(error)
        })?;
        if let Some(other) = line.topic.as_deref().filter(|other| *other != topic) {
            return Err(at(&format!("the record is of topic {other}, not of {topic}; record one topic at a time")));
        }
        let partition = line.partition;
        let range = ranges.entry(partition).or_insert_with(|| {
            let from = line.offset.unwrap_or(0);
            PartitionRange { partition, from, to: from }
        });
        let offset = line.offset.unwrap_or(range.to);
        if partition < 0 || offset < range.to {
            return Err(at(&format!(
                "offset {offset} of partition {partition} comes after offset {}; sort the lines of a partition",
                range.to - 1
            )));
        }
        range.to = offset.checked_add(1).ok_or_else(|| at("the offset is too large"))?;
        let batch = batches.entry(partition).or_insert_with(|| empty(partition));
        push(batch, offset, line).map_err(|why| at(&why))?;
        if batch.len() == BATCH_RECORDS || batch.bytes() > BATCH_BYTES {
            take(std::mem::replace(batch, empty(partition)))?;
        }
    }
    batches.into_values().try_for_each(take)?;
    Ok(ranges.into_values().collect())
}

fn empty(partition: i32) -> RawBatch {
    let (keys, headers) = (Some(Payloads::default()), Some(Vec::new()));
    RawBatch { partition, keys, headers, ..RawBatch::default() }
}

fn push(batch: &mut RawBatch, offset: i64, line: Line) -> Result<(), String> {
    let key = bytes("key", line.key, line.key_base64)?;
    if line.payload.is_none() && line.payload_base64.is_none() {
        return Err(
            "it has no payload; write the value as `payload_base64`, and `\"payload\": null` for a tombstone".into()
        );
    }
    let value = bytes("payload", line.payload.flatten(), line.payload_base64)?;
    let mut headers: Headers = Vec::new();
    let plain = line.headers.into_iter().map(|it| it.map(|it| it.0));
    let coded = line.headers_base64.into_iter().enumerate().map(|(i, it)| match it {
        // Names are texts.
        Some(name) if i % 2 == 0 => Ok(Some(name.into_bytes())),
        Some(value) => STANDARD.decode(value).map(Some).map_err(|error| format!("`headers_base64`: {error}")),
        None => Ok(None),
    });
    let mut all = plain.map(Ok).chain(coded);
    while let Some(name) = all.next().transpose()? {
        let name = name.and_then(|name| String::from_utf8(name).ok()).ok_or("a header's name is no text")?;
        let value = all.next().transpose()?.ok_or("`headers` has a name without a value")?;
        headers.push((name, value));
    }
    batch.offsets.push(offset);
    batch.timestamps.push(line.ts.unwrap_or(-1).max(-1));
    batch.values.push(value.as_deref());
    if let Some(keys) = &mut batch.keys {
        keys.push(key.as_deref());
    }
    if let Some(all) = &mut batch.headers {
        all.push(headers);
    }
    Ok(())
}

/// Bytes that are written in one of two ways.
fn bytes(name: &str, plain: Option<Bytes>, coded: Option<String>) -> Result<Option<Vec<u8>>, String> {
    match (plain, coded) {
        (plain, None) => Ok(plain.map(|plain| plain.0)),
        (None, Some(coded)) => STANDARD.decode(coded).map(Some).map_err(|error| format!("`{name}_base64`: {error}")),
        (Some(_), Some(_)) => Err(format!("it has `{name}` and `{name}_base64`; write one of both")),
    }
}

/// Writes the records of a recording as lines, partition after partition in offset order; their number comes back.
///
/// # Errors
/// What reading the recording returns; `Unavailable` when the lines cannot be written.
pub async fn export(log: &RecordingLog, out: &mut (dyn Write + Send)) -> Result<u64> {
    let topic = log.identity().await?.topic;
    let unwritten = |error| Error::unavailable("the lines cannot be written; free the disk").caused_by(error);
    let mut records = 0;
    for bounds in log.bounds().await? {
        let range = PartitionRange { partition: bounds.partition, from: bounds.low, to: bounds.high };
        let mut stream = log.read(&[range], Wanted { key: true, headers: true })?;
        while let Some(batch) = stream.recv().await {
            let batch = batch?;
            for row in 0..batch.len() {
                serde_json::to_writer(&mut *out, &told(&topic, &batch, row)).map_err(|e| unwritten(e.into()))?;
                out.write_all(b"\n").map_err(unwritten)?;
            }
            records += batch.len() as u64;
        }
    }
    out.flush().map_err(unwritten)?;
    Ok(records)
}

fn told<'a>(topic: &'a str, batch: &'a RawBatch, row: usize) -> Told<'a> {
    let key = batch.keys.as_ref().and_then(|keys| keys.get(row));
    let value = batch.values.get(row);
    let text = |bytes: Option<&'a [u8]>| bytes.and_then(|bytes| std::str::from_utf8(bytes).ok());
    let coded = |bytes: Option<&[u8]>| bytes.filter(|b| std::str::from_utf8(b).is_err()).map(|b| STANDARD.encode(b));
    let headers = batch.headers.as_ref().map_or(&[][..], |headers| &headers[row]);
    let is_text = headers.iter().all(|(_, value)| coded(value.as_deref()).is_none());
    let (mut plain, mut encoded) = (Vec::new(), Vec::new());
    for (name, value) in headers {
        if is_text {
            plain.extend([Some(name.as_str()), text(value.as_deref())]);
        } else {
            encoded.extend([Some(name.clone()), value.as_ref().map(|value| STANDARD.encode(value))]);
        }
    }
    Told {
        topic,
        partition: batch.partition,
        offset: batch.offsets[row],
        tstype: if batch.timestamps[row] < 0 { "unknown" } else { "create" },
        ts: batch.timestamps[row],
        headers: plain,
        headers_base64: encoded,
        key: text(key),
        key_base64: coded(key),
        payload: text(value),
        payload_base64: coded(value),
    }
}
