//! What records say, as a hash that does not depend on how they are stored.
//!
//! Of a partition: SHA-256 over its records in offset order, each one as offset, timestamp in milliseconds (-1: none),
//! key, value, and the number of headers with the key and value of each. Of a recording: SHA-256 over its partitions in
//! order, each one as number, from, to, and the hash of its records. Numbers are little-endian: 4 bytes for numbers of
//! partitions and headers and for lengths (of -1: null), 8 bytes for the rest; a length comes before its bytes.

use sha2::{Digest, Sha256};

use super::manifest::Counted;
use crate::source::{Payloads, RawBatch};

/// The length of what is null.
const NULL: i32 = -1;

/// The records of one partition, as far as they were seen.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    hash: Sha256,
    records: u64,
    bytes: u64,
}

impl Content {
    /// Adds records of the partition, in offset order over all calls.
    pub(super) fn add(&mut self, batch: &RawBatch) {
        let mut nulls = Nulls::of(&batch.values);
        let mut key_nulls = batch.keys.as_ref().map(Nulls::of);
        for row in 0..batch.len() {
            self.hash.update(batch.offsets[row].to_le_bytes());
            self.hash.update(batch.timestamps[row].to_le_bytes());
            match (&batch.keys, &mut key_nulls) {
                (Some(keys), Some(nulls)) => self.text(nulls.value(keys, row)),
                _ => self.text(None),
            }
            self.text(nulls.value(&batch.values, row));
            let headers = batch.headers.as_ref().map_or(&[][..], |headers| &headers[row]);
            self.hash.update((headers.len() as u32).to_le_bytes());
            for (key, value) in headers {
                self.text(Some(key.as_bytes()));
                self.text(value.as_deref());
            }
        }
        self.records += batch.len() as u64;
        self.bytes += batch.bytes() as u64;
    }

    fn text(&mut self, text: Option<&[u8]>) {
        // An arena stays below 2 GiB.
        let length = text.map_or(NULL, |text| text.len() as i32);
        self.hash.update(length.to_le_bytes());
        self.hash.update(text.unwrap_or_default());
    }

    /// What was seen.
    pub(super) fn counted(&self) -> Counted {
        let sha256 = hex::encode(self.hash.clone().finalize());
        Counted { records: self.records, bytes: self.bytes, sha256: Some(sha256) }
    }
}

/// Which byte strings are null, asked in order.
struct Nulls<'a>(std::iter::Peekable<std::iter::Copied<std::slice::Iter<'a, u32>>>);

impl<'a> Nulls<'a> {
    fn of(payloads: &'a Payloads) -> Self {
        Self(payloads.nulls.iter().copied().peekable())
    }

    fn value<'p>(&mut self, payloads: &'p Payloads, row: usize) -> Option<&'p [u8]> {
        let is_null = self.0.next_if_eq(&(row as u32)).is_some();
        (!is_null).then(|| payloads.value(row))
    }
}
