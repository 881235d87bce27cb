//! The best row of each key so far, in hash tables that streams share.

use std::cmp::Ordering;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, BooleanBufferBuilder, RecordBatch, make_comparator};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use datafusion::common::Result as DfResult;
use parking_lot::{Mutex, RwLock};

/// The tables, by the highest bits of a hash: streams are seldom in each other's way, and each is small enough for a
/// processor's cache.
const SHARDS: usize = 64;
/// Slots of a table at first.
const SLOTS: usize = 1024;
/// A slot without an entry.
const FREE: u32 = u32::MAX;

/// Rows of an input, with what they are keyed and ordered by.
pub struct Seen {
    pub input: usize,
    pub batch: RecordBatch,
    pub keys: Vec<ArrayRef>,
    pub order: Vec<ArrayRef>,
}

/// The best row of a key.
#[derive(Clone, Copy)]
struct Entry {
    hash: u32,
    batch: u32,
    row: u32,
}

const NOTHING: Entry = Entry { hash: 0, batch: FREE, row: 0 };

/// A table with open addressing (linear probing), at most half full.
struct Table {
    slots: Vec<Entry>,
    used: usize,
}

/// All of it.
pub struct Winners {
    seen: RwLock<Vec<Seen>>,
    tables: Vec<Mutex<Table>>,
    options: Vec<SortOptions>,
}

impl Winners {
    /// Nothing seen; `options` are those of the columns of the order.
    pub fn new(options: Vec<SortOptions>) -> Self {
        let table = || Mutex::new(Table { slots: vec![NOTHING; SLOTS], used: 0 });
        Self { seen: RwLock::default(), tables: (0..SHARDS).map(|_| table()).collect(), options }
    }

    /// Sees rows with these hashes of their keys. By how many bytes it grew, besides them.
    pub fn add(&self, seen: Seen, hashes: &[u64]) -> DfResult<usize> {
        let number = {
            let mut all = self.seen.write();
            all.push(seen);
            (all.len() - 1) as u32
        };
        // The rows of each table together.
        let shard = |hash: u64| (hash >> 58) as usize;
        let mut ends = [0u32; SHARDS + 1];
        hashes.iter().for_each(|hash| ends[shard(*hash) + 1] += 1);
        for at in 0..SHARDS {
            ends[at + 1] += ends[at];
        }
        let mut next = ends;
        let mut rows = vec![0u32; hashes.len()];
        for (row, hash) in hashes.iter().enumerate() {
            let at = &mut next[shard(*hash)];
            rows[*at as usize] = row as u32;
            *at += 1;
        }
        let mut grown = 0;
        for (at, table) in self.tables.iter().enumerate() {
            let rows = &rows[ends[at] as usize..ends[at + 1] as usize];
            if rows.is_empty() {
                continue;
            }
            let all = self.seen.read();
            let mut table = table.lock();
            for &row in rows {
                // The bits that the shard does not have.
                let entry = Entry { hash: hashes[row as usize] as u32, batch: number, row };
                grown += table.offer(entry, &all, &self.options)?;
            }
        }
        Ok(grown)
    }

    /// The bytes of the tables.
    pub fn bytes(&self) -> usize {
        self.tables.iter().map(|table| table.lock().slots.len() * size_of::<Entry>()).sum()
    }

    /// What was seen, each batch with its rows that are the best of their keys.
    pub fn finish(self) -> impl Iterator<Item = (Seen, BooleanArray)> {
        let seen = self.seen.into_inner();
        let mut masks: Vec<BooleanBufferBuilder> = Vec::with_capacity(seen.len());
        for seen in &seen {
            let mut mask = BooleanBufferBuilder::new(seen.batch.num_rows());
            mask.append_n(seen.batch.num_rows(), false);
            masks.push(mask);
        }
        for table in self.tables {
            let table = table.into_inner();
            for entry in table.slots.iter().filter(|entry| entry.batch != FREE) {
                masks[entry.batch as usize].set_bit(entry.row as usize, true);
            }
        }
        let masks = masks.into_iter().map(|mut mask| BooleanArray::new(mask.finish(), None));
        seen.into_iter().zip(masks)
    }
}

impl Table {
    /// Takes a row that is the first of its key, or comes before the one that is. By how many bytes it grew.
    fn offer(&mut self, entry: Entry, seen: &[Seen], options: &[SortOptions]) -> DfResult<usize> {
        let mask = self.slots.len() - 1;
        let mut at = place(entry.hash) & mask;
        loop {
            let best = self.slots[at];
            if best.batch == FREE {
                self.slots[at] = entry;
                self.used += 1;
                return Ok(if self.used * 2 > self.slots.len() { self.grow() } else { 0 });
            }
            if best.hash == entry.hash && is_same_key(seen, best, entry)? {
                if comes_before(seen, entry, best, options)? {
                    self.slots[at] = entry;
                }
                return Ok(0);
            }
            at = (at + 1) & mask;
        }
    }

    fn grow(&mut self) -> usize {
        let slots = self.slots.len();
        let old = std::mem::replace(&mut self.slots, vec![NOTHING; slots * 2]);
        let mask = self.slots.len() - 1;
        for entry in old.into_iter().filter(|entry| entry.batch != FREE) {
            let mut at = place(entry.hash) & mask;
            while self.slots[at].batch != FREE {
                at = (at + 1) & mask;
            }
            self.slots[at] = entry;
        }
        slots * size_of::<Entry>()
    }
}

/// Where a hash belongs, before it is cut to a table's size (Fibonacci hashing).
fn place(hash: u32) -> usize {
    ((u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)) >> 32) as usize
}

fn is_same_key(seen: &[Seen], one: Entry, two: Entry) -> DfResult<bool> {
    let (left, right) = (&seen[one.batch as usize].keys, &seen[two.batch as usize].keys);
    for (left, right) in left.iter().zip(right) {
        let (i, j) = (one.row as usize, two.row as usize);
        if left.is_null(i) || right.is_null(j) {
            if left.is_null(i) != right.is_null(j) {
                return Ok(false);
            }
            continue;
        }
        let same = match left.data_type() {
            DataType::Utf8 => left.as_string::<i32>().value(i) == right.as_string::<i32>().value(j),
            DataType::Utf8View => left.as_string_view().value(i) == right.as_string_view().value(j),
            _ => compare(left, i, right, j, SortOptions::default())?.is_eq(),
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}

fn comes_before(seen: &[Seen], new: Entry, best: Entry, options: &[SortOptions]) -> DfResult<bool> {
    let (left, right) = (&seen[new.batch as usize].order, &seen[best.batch as usize].order);
    for ((left, right), options) in left.iter().zip(right).zip(options) {
        match compare(left, new.row as usize, right, best.row as usize, *options)? {
            Ordering::Less => return Ok(true),
            Ordering::Greater => return Ok(false),
            Ordering::Equal => {}
        }
    }
    Ok(false)
}

/// How two values are ordered.
fn compare(left: &ArrayRef, i: usize, right: &ArrayRef, j: usize, options: SortOptions) -> DfResult<Ordering> {
    if left.is_null(i) || right.is_null(j) {
        let nulls = left.is_null(i).cmp(&right.is_null(j));
        return Ok(if options.nulls_first { nulls.reverse() } else { nulls });
    }
    let whole = |array: &ArrayRef, row: usize| -> Option<i64> {
        Some(match array.data_type() {
            DataType::Int64 => array.as_primitive::<Int64Type>().value(row),
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                array.as_primitive::<TimestampMicrosecondType>().value(row)
            }
            DataType::Int32 => array.as_primitive::<Int32Type>().value(row).into(),
            DataType::Int16 => array.as_primitive::<Int16Type>().value(row).into(),
            DataType::Int8 => array.as_primitive::<Int8Type>().value(row).into(),
            _ => return None,
        })
    };
    match (whole(left, i), whole(right, j)) {
        (Some(left), Some(right)) if options.descending => Ok(right.cmp(&left)),
        (Some(left), Some(right)) => Ok(left.cmp(&right)),
        _ => Ok(make_comparator(&left.slice(i, 1), &right.slice(j, 1), options)?(0, 0)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};
    use datafusion::common::hash_utils::{RandomState, create_hashes};
    use proptest::prelude::*;

    use super::*;

    type Row = (Option<String>, Option<i64>, i64);

    /// Batches of rows by two streams, as the winners see them.
    fn seen(rows: &[Row], batch: usize) -> Vec<(Seen, Vec<u64>)> {
        let chunk = |(number, rows): (usize, &[Row])| {
            let key: ArrayRef = Arc::new(rows.iter().map(|row| row.0.as_deref()).collect::<StringArray>());
            let first: ArrayRef = Arc::new(rows.iter().map(|row| row.1).collect::<Int64Array>());
            let second: ArrayRef = Arc::new(rows.iter().map(|row| Some(row.2)).collect::<Int64Array>());
            let columns = [("key", key.clone()), ("first", first.clone()), ("second", second.clone())];
            let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(n, c)| (n, c, true))).unwrap();
            let mut hashes = vec![0; rows.len()];
            create_hashes([&key], &RandomState::default(), &mut hashes).unwrap();
            (Seen { input: number % 2, batch, keys: vec![key], order: vec![first, second] }, hashes)
        };
        rows.chunks(batch).enumerate().map(chunk).collect()
    }

    fn found(rows: &[Row], batch: usize, options: [SortOptions; 2]) -> BTreeMap<Option<String>, Vec<i64>> {
        let winners = Winners::new(options.to_vec());
        std::thread::scope(|scope| {
            let (even, odd): (Vec<_>, Vec<_>) = seen(rows, batch).into_iter().partition(|(seen, _)| seen.input == 0);
            for half in [even, odd] {
                let winners = &winners;
                scope
                    .spawn(move || half.into_iter().for_each(|(seen, hashes)| _ = winners.add(seen, &hashes).unwrap()));
            }
        });
        let mut found: BTreeMap<Option<String>, Vec<i64>> = BTreeMap::new();
        for (seen, mask) in winners.finish() {
            let (keys, second) = (seen.keys[0].as_string::<i32>(), seen.order[1].as_primitive::<Int64Type>());
            for row in (0..mask.len()).filter(|row| mask.value(*row)) {
                let key = keys.is_valid(row).then(|| keys.value(row).to_owned());
                found.entry(key).or_default().push(second.value(row));
            }
        }
        found
    }

    proptest! {
        #[test]
        fn the_first_row_of_each_key_is_found(
            rows in prop::collection::vec((prop::option::of("[a-d]{0,2}"), prop::option::of(0i64..3)), 0..300),
            batch in 1usize..40,
            descending in any::<[bool; 2]>(),
            nulls_first in any::<bool>(),
        ) {
            // The last column makes the order total.
            let rows: Vec<Row> = rows.into_iter().zip(0..).map(|((key, first), n)| (key, first, n)).collect();
            let options = descending.map(|descending| SortOptions { descending, nulls_first });
            let mut expected: BTreeMap<Option<String>, (Option<i64>, i64)> = BTreeMap::new();
            for (key, first, second) in &rows {
                let rank = |(first, second): (Option<i64>, i64)| {
                    let null = if nulls_first { first.is_some() } else { first.is_none() };
                    let sign = |descending: bool, value: i64| if descending { -value } else { value };
                    (null, sign(descending[0], first.unwrap_or(0)), sign(descending[1], second))
                };
                let best = expected.entry(key.clone()).or_insert((*first, *second));
                if rank((*first, *second)) < rank(*best) {
                    *best = (*first, *second);
                }
            }
            let expected: BTreeMap<_, _> = expected.into_iter().map(|(key, best)| (key, vec![best.1])).collect();
            prop_assert_eq!(found(&rows, batch, options), expected);
        }
    }

    #[test]
    fn many_keys_make_the_tables_grow() {
        let rows: Vec<Row> = (0..200_000).map(|n| (Some(format!("key-{}", n % 150_000)), Some(0), n)).collect();
        let last_first = SortOptions { descending: true, nulls_first: true };
        let found = found(&rows, 1_000, [last_first, last_first]);
        assert_eq!(found.len(), 150_000);
        assert_eq!(found[&Some("key-1".to_owned())], [150_001]);
        assert_eq!(found[&Some("key-149999".to_owned())], [149_999]);
    }
}
