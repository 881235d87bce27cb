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
        let mut keys = batch.keys.as_ref().map(Payloads::iter);
        for (row, value) in batch.values.iter().enumerate() {
            self.hash.update(batch.offsets[row].to_le_bytes());
            self.hash.update(batch.timestamps[row].to_le_bytes());
            self.text(keys.as_mut().and_then(Iterator::next).flatten());
            self.text(value);
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
