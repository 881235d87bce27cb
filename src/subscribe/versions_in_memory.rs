//! A table in memory: for tests, and as the shortest example of [`Versions`].

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use futures::StreamExt as _;
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::subscribe::cursor::TableId;
use crate::subscribe::versions::{ReadFault, RowStream, Rows, Versions};

/// A table whose versions are in memory.
#[derive(Debug)]
pub struct VersionsInMemory {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    id: String,
    next: u64,
    versions: BTreeMap<u64, Vec<(RecordBatch, bool)>>,
    is_away: bool,
    reads: BTreeMap<u64, u64>,
}

impl VersionsInMemory {
    /// A table with this id and an empty version 0.
    pub fn new(id: &str) -> Self {
        let versions = BTreeMap::from([(0, Vec::new())]);
        let inner = Inner { id: id.to_owned(), next: 1, versions, is_away: false, reads: BTreeMap::new() };
        Self { inner: Mutex::new(inner) }
    }

    /// Commits a version with these rows, each batch with whether it replaces others. Without any it is as a
    /// compaction. Returns the version.
    pub fn commit(&self, batches: Vec<(RecordBatch, bool)>) -> u64 {
        let mut inner = self.inner.lock();
        let version = inner.next;
        inner.versions.insert(version, batches);
        inner.next += 1;
        version
    }

    /// Versions before this one can no longer be read.
    pub fn vacuum(&self, before: u64) {
        self.inner.lock().versions.retain(|version, _| *version >= before);
    }

    /// One version can no longer be read, though its entry is there.
    pub fn lose(&self, version: u64) {
        self.inner.lock().versions.remove(&version);
    }

    /// Deletes the table and makes it again.
    pub fn make_again(&self, id: &str) {
        let mut inner = self.inner.lock();
        inner.id = id.to_owned();
        inner.next = 1;
        inner.versions = BTreeMap::from([(0, Vec::new())]);
    }

    /// Whether every read fails.
    pub fn set_away(&self, is_away: bool) {
        self.inner.lock().is_away = is_away;
    }

    /// How often a version was read.
    pub fn reads(&self, version: u64) -> u64 {
        self.inner.lock().reads.get(&version).copied().unwrap_or(0)
    }
}

impl Inner {
    fn check(&self) -> Result<()> {
        match self.is_away {
            true => Err(Error::unavailable("the store is away: try again")),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Versions for VersionsInMemory {
    fn name(&self) -> &str {
        "memory"
    }

    async fn table(&self) -> Result<TableId> {
        let inner = self.inner.lock();
        inner.check()?;
        Ok(TableId::of(&inner.id))
    }

    async fn newest(&self, _known: Option<u64>) -> Result<u64> {
        let inner = self.inner.lock();
        inner.check()?;
        Ok(inner.next - 1)
    }

    async fn oldest(&self) -> Result<u64> {
        let inner = self.inner.lock();
        inner.check()?;
        Ok(inner.versions.keys().next().copied().unwrap_or(0))
    }

    async fn rows(&self, version: u64, from: u64) -> Result<RowStream, ReadFault> {
        let mut inner = self.inner.lock();
        inner.check()?;
        *inner.reads.entry(version).or_default() += 1;
        let batches = inner.versions.get(&version).ok_or(ReadFault::Gone)?;
        let mut first = 0;
        let mut rows = Vec::new();
        for (batch, replaces) in batches {
            let end = first + batch.num_rows() as u64;
            if end > from {
                rows.push(Ok(Rows { first, batch: batch.clone(), replaces: *replaces }));
            }
            first = end;
        }
        Ok(futures::stream::iter(rows).boxed())
    }
}
