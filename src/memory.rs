//! What a run holds in memory: one pool for all its queries, asked by everything that holds much.
//!
//! DataFusion's operators ask it by themselves. The readers of topics, the decoder, lookups and the writers of files do
//! the same through [`Memory::hold`]. Whoever does not get what it asks for makes do with less (a writer ends its
//! files, an operator spills), or fails with [`Exhausted`](crate::error::Exhausted): then the micro-batch is run again,
//! smaller.

use std::fmt;
use std::sync::Arc;

use datafusion::execution::memory_pool::{FairSpillPool, MemoryConsumer, MemoryReservation};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};

use crate::error::{Error, Result};

/// What a process takes besides all that: its code, threads and clients.
const PROCESS: u64 = 80_000_000;
/// Of the rest, what is counted: not everybody counts all, and an allocator keeps some of what is freed.
const COUNTED: (u64, u64) = (4, 5);
/// The least `flumen.memory_limit`, in bytes.
pub const MIN_LIMIT: u64 = 200_000_000;
/// The share of the limit that one writer's open files may hold.
const WRITER_SHARE: usize = 16;
/// The share of the limit that the rows of one batch may take while an operator gathers them.
const BATCH_SHARE: usize = 32;

/// The memory of a run. Clones share it.
#[derive(Clone)]
pub struct Memory {
    limit: usize,
    runtime: Arc<RuntimeEnv>,
}

impl Memory {
    /// A pool of `limit` bytes for the whole process.
    ///
    /// # Errors
    /// `Unavailable` when DataFusion does not take it.
    pub fn new(limit: u64) -> Result<Self> {
        let counted = (limit.max(MIN_LIMIT) - PROCESS) / COUNTED.1 * COUNTED.0;
        let counted = usize::try_from(counted).unwrap_or(usize::MAX);
        let pool = Arc::new(FairSpillPool::new(counted));
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc()?;
        Ok(Self { limit: usize::try_from(limit).unwrap_or(usize::MAX), runtime })
    }

    /// What sessions run in.
    pub fn runtime(&self) -> Arc<RuntimeEnv> {
        Arc::clone(&self.runtime)
    }

    /// An account of the pool, empty. What is in it is given back when it is dropped.
    pub fn hold(&self, holder: &str) -> Held {
        Held(MemoryConsumer::new(holder).register(&self.runtime.memory_pool))
    }

    /// `flumen.memory_limit`, in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// The bytes that one writer's open files hold at most.
    pub fn writer_bytes(&self) -> usize {
        self.limit / WRITER_SHARE
    }

    /// The bytes of the rows that an operator gathers into one batch at most.
    pub fn batch_bytes(&self) -> usize {
        self.limit / BATCH_SHARE
    }

    /// The bytes that are held at the moment, as far as they are counted.
    pub fn held(&self) -> usize {
        self.runtime.memory_pool.reserved()
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("limit", &self.limit).field("held", &self.held()).finish()
    }
}

/// An account of the pool.
#[derive(Debug)]
pub struct Held(MemoryReservation);

impl Held {
    /// Holds `bytes` from now on, whatever it was before.
    ///
    /// # Errors
    /// `Unavailable`, with [`Exhausted`](crate::error::Exhausted) as its cause, when they are not there; then it holds
    /// what it held.
    pub fn set(&self, bytes: usize) -> Result<()> {
        self.0.try_resize(bytes).map_err(Error::from)
    }

    /// Holds `bytes` more.
    ///
    /// # Errors
    /// As [`Held::set`].
    pub fn add(&self, bytes: usize) -> Result<()> {
        self.0.try_grow(bytes).map_err(Error::from)
    }

    /// Holds nothing.
    pub fn clear(&self) {
        self.0.free();
    }
}
