//! Whether each key of a day has one row that is kept, found by sorting the hashes of all keys. A difference is looked
//! at again one by one, by the keys themselves. That a lost key hides behind a kept one with the same 63 bits has,
//! among ten million keys, a chance of one in a million million.

use arrow::array::{Array, ArrayRef};
use datafusion::common::hash_utils::{RandomState, create_hashes};

use crate::error::{Error, Result};
use crate::memory::{Held, Memory};

/// Parts, by the highest bits.
const PARTS: usize = 64;

/// The hash of each row's key, with the lowest bit for whether the row is kept.
#[derive(Debug)]
pub struct Keys {
    parts: Vec<Vec<u64>>,
    held: Option<Held>,
    hashes: Vec<u64>,
    /// They did not fit into memory: nothing is known.
    overflow: bool,
}

impl Default for Keys {
    fn default() -> Self {
        Self { parts: vec![Vec::new(); PARTS], held: None, hashes: Vec::new(), overflow: false }
    }
}

impl Keys {
    /// Adds the rows for which `kept` says something: whether they are kept.
    ///
    /// # Errors
    /// A type that has no hash.
    pub fn add(&mut self, keys: &[ArrayRef], kept: impl Iterator<Item = Option<bool>>, memory: &Memory) -> Result<()> {
        let rows = keys.first().map_or(0, |key| key.len());
        let held = self.held.get_or_insert_with(|| memory.hold("keys of the day"));
        // A vector that grows is there twice for a moment.
        if self.overflow || held.add(rows * 2 * size_of::<u64>()).is_err() {
            *self = Self { overflow: true, ..Self::default() };
            return Ok(());
        }
        self.hashes.clear();
        self.hashes.resize(rows, 0);
        create_hashes(keys, &RandomState::default(), &mut self.hashes).map_err(Error::from)?;
        for (hash, kept) in self.hashes.iter().zip(kept) {
            if let Some(kept) = kept {
                self.parts[(hash >> 58) as usize].push(hash & !1 | u64::from(kept));
            }
        }
        Ok(())
    }

    /// Whether each key certainly has one row that is kept, however many it has.
    pub async fn are_kept_once(accounts: Vec<Keys>) -> Result<bool> {
        if accounts.iter().any(|keys| keys.overflow) {
            return Ok(false);
        }
        let mut all: Vec<Vec<Vec<u64>>> = (0..PARTS).map(|_| Vec::new()).collect();
        let mut held = Vec::new();
        for mut keys in accounts {
            held.extend(keys.held.take());
            all.iter_mut().zip(keys.parts).for_each(|(all, part)| all.push(part));
        }
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(PARTS);
        let mut tasks = tokio::task::JoinSet::new();
        while !all.is_empty() {
            let some = all.split_off(all.len().saturating_sub(PARTS.div_ceil(threads)));
            tasks.spawn_blocking(move || some.into_iter().all(|part| is_kept_once(part.concat())));
        }
        let mut once = true;
        while let Some(done) = tasks.join_next().await {
            once &= done.map_err(|e| Error::unavailable(format!("a task failed: {e}; run it again")))?;
        }
        Ok(once)
    }
}

/// Whether of the same hashes one is marked, and no more.
fn is_kept_once(mut hashes: Vec<u64>) -> bool {
    hashes.sort_unstable();
    hashes.chunk_by(|one, two| one >> 1 == two >> 1).all(|same| same.iter().filter(|hash| **hash & 1 == 1).count() == 1)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::StringArray;

    use super::*;

    async fn once(rows: &[(&str, Option<bool>)]) -> bool {
        let memory = Memory::new(0).unwrap();
        let mut accounts = Vec::new();
        for rows in rows.chunks(3) {
            let mut keys = Keys::default();
            let key: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0)));
            keys.add(&[key], rows.iter().map(|row| row.1), &memory).unwrap();
            accounts.push(keys);
        }
        Keys::are_kept_once(accounts).await.unwrap()
    }

    #[tokio::test]
    async fn each_key_has_one_row_that_is_kept() {
        let (kept, not, other) = (Some(true), Some(false), None);
        assert!(once(&[("a", kept), ("b", kept), ("a", not), ("a", not), ("c", other), ("c", other)]).await);
        assert!(!once(&[("a", kept), ("b", not), ("b", not), ("c", kept)]).await, "b has none");
        assert!(!once(&[("a", kept), ("b", kept), ("c", kept), ("a", kept)]).await, "a has two");
        assert!(once(&[]).await);
    }
}
