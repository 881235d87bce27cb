//! Columns in the making: vectors that are written at a row and filled up to it when that is needed.

use std::mem;

use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};

use super::fault::Reason;

/// Which rows are there: all but the gaps. Nothing is kept as long as there is none.
#[derive(Debug)]
pub(super) struct Validity {
    nullable: bool,
    /// Up to the end of the last gap; later rows are valid.
    bits: Vec<bool>,
}

impl Validity {
    pub(super) fn new(nullable: bool) -> Self {
        Self { nullable, bits: Vec::new() }
    }

    /// The rows `from..to` have no value.
    pub(super) fn gap(&mut self, from: usize, to: usize) {
        if self.nullable && from < to {
            self.bits.resize(from, true);
            self.bits.resize(to, false);
        }
    }

    pub(super) fn truncate(&mut self, rows: usize) {
        self.bits.truncate(rows);
    }

    /// Of `rows` rows.
    pub(super) fn finish(&mut self, rows: usize) -> Option<NullBuffer> {
        if self.bits.is_empty() {
            return None;
        }
        self.bits.resize(rows, true);
        Some(NullBuffer::from(mem::take(&mut self.bits)))
    }
}

/// A column of values of one size.
#[derive(Debug)]
pub(super) struct Fixed<T> {
    values: Vec<T>,
    validity: Validity,
    /// The value of a row that has none.
    default: T,
}

impl<T: Copy> Fixed<T> {
    pub(super) fn new(default: T, nullable: bool) -> Self {
        Self { values: Vec::new(), validity: Validity::new(nullable), default }
    }

    /// Writes the value of `row`; the last one written stays.
    #[inline(always)]
    pub(super) fn put(&mut self, row: usize, value: T) {
        if self.values.len() == row {
            self.values.push(value);
        } else {
            self.put_elsewhere(row, value);
        }
    }

    #[inline(never)]
    fn put_elsewhere(&mut self, row: usize, value: T) {
        if let Some(old) = self.values.get_mut(row) {
            *old = value;
        } else {
            self.fill(row);
            self.values.push(value);
        }
    }

    /// Makes sure that `row` has a value.
    pub(super) fn settle(&mut self, row: usize) {
        if self.values.len() <= row {
            self.put(row, self.default);
        }
    }

    fn fill(&mut self, rows: usize) {
        self.validity.gap(self.values.len(), rows);
        self.values.resize(rows, self.default);
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    pub(super) fn value(&self, row: usize) -> T {
        self.values.get(row).copied().unwrap_or(self.default)
    }

    pub(super) fn truncate(&mut self, rows: usize) {
        self.values.truncate(rows);
        self.validity.truncate(rows);
    }

    /// The values of `rows` rows. The next ones find as much room as these took.
    pub(super) fn finish(&mut self, rows: usize) -> (Vec<T>, Option<NullBuffer>) {
        self.fill(rows);
        (mem::replace(&mut self.values, Vec::with_capacity(rows)), self.validity.finish(rows))
    }
}

/// The bytes of a column: its offsets are 32 bit.
const MAX_BYTES: usize = i32::MAX as usize;

/// A column of texts or bytes.
#[derive(Debug)]
pub(super) struct Variable {
    offsets: Vec<i32>,
    data: Vec<u8>,
    validity: Validity,
}

impl Variable {
    pub(super) fn new(nullable: bool) -> Self {
        Self { offsets: vec![0], data: Vec::new(), validity: Validity::new(nullable) }
    }

    /// Writes the value of `row`; the last one written stays.
    ///
    /// # Errors
    /// The column would have more bytes than its offsets can tell.
    #[inline(always)]
    pub(super) fn put(&mut self, row: usize, value: &[u8]) -> Result<(), Reason> {
        let end = self.open(row, value.len())?;
        self.data.extend_from_slice(value);
        self.offsets.push(end as i32);
        Ok(())
    }

    /// [`Variable::put`] of the first `length` bytes of `chunk`: a copy whose size is known takes no call.
    ///
    /// # Errors
    /// As for [`Variable::put`].
    #[inline(always)]
    pub(super) fn put_short(&mut self, row: usize, chunk: &[u8; 16], length: usize) -> Result<(), Reason> {
        self.open(row, 16)?;
        let end = self.data.len() + length;
        self.data.extend_from_slice(chunk);
        self.data.truncate(end);
        self.offsets.push(end as i32);
        Ok(())
    }

    /// [`Variable::put`] of 16 to 32 bytes, as their two ends, which overlap.
    ///
    /// # Errors
    /// As for [`Variable::put`].
    #[inline(always)]
    pub(super) fn put_medium(
        &mut self,
        row: usize,
        first: &[u8; 16],
        last: &[u8; 16],
        length: usize,
    ) -> Result<(), Reason> {
        self.open(row, 32)?;
        let end = self.data.len() + length;
        self.data.extend_from_slice(first);
        self.data.truncate(end - 16);
        self.data.extend_from_slice(last);
        self.offsets.push(end as i32);
        Ok(())
    }

    /// Makes room for `length` bytes at `row`; returns where they would end.
    #[inline(always)]
    fn open(&mut self, row: usize, length: usize) -> Result<usize, Reason> {
        if self.len() != row {
            self.move_to(row);
        }
        if self.data.capacity() - self.data.len() < length {
            self.grow(length)?;
        }
        Ok(self.data.len() + length)
    }

    /// Makes room for `length` bytes more, but never for more than the offsets can tell: so what fits has an offset.
    #[inline(never)]
    fn grow(&mut self, length: usize) -> Result<(), Reason> {
        let needed = self.data.len() + length;
        if needed > MAX_BYTES {
            return Err(Reason::TooLarge);
        }
        let room = (2 * self.data.capacity()).clamp(needed, MAX_BYTES);
        self.data.reserve_exact(room - self.data.len());
        Ok(())
    }

    /// Adds to the value of `row`.
    ///
    /// # Errors
    /// As for [`Variable::put`].
    pub(super) fn append(&mut self, row: usize, value: &[u8]) -> Result<(), Reason> {
        if self.len() != row + 1 {
            return self.put(row, value);
        }
        let end = self.open(row + 1, value.len())?;
        self.data.extend_from_slice(value);
        if let Some(last) = self.offsets.last_mut() {
            *last = end as i32;
        }
        Ok(())
    }

    /// Makes sure that `row` has a value.
    pub(super) fn settle(&mut self, row: usize) {
        if self.len() <= row {
            self.move_to(row);
            self.offsets.push(self.data.len() as i32);
        }
    }

    #[inline(never)]
    fn move_to(&mut self, row: usize) {
        if self.len() > row {
            self.truncate(row);
        } else {
            self.fill(row);
        }
    }

    fn fill(&mut self, rows: usize) {
        self.validity.gap(self.len(), rows);
        self.offsets.resize(rows + 1, self.data.len() as i32);
    }

    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    pub(super) fn data_len(&self) -> usize {
        self.data.len()
    }

    pub(super) fn value(&self, row: usize) -> &[u8] {
        match self.offsets.get(row..row + 2) {
            Some([start, end]) => &self.data[*start as usize..*end as usize],
            _ => &[],
        }
    }

    pub(super) fn truncate(&mut self, rows: usize) {
        if rows < self.len() {
            self.offsets.truncate(rows + 1);
            self.data.truncate(self.offsets[rows] as usize);
            self.validity.truncate(rows);
        }
    }

    /// The values of `rows` rows. The next ones find as much room as these took.
    pub(super) fn finish(&mut self, rows: usize) -> (OffsetBuffer<i32>, Vec<u8>, Option<NullBuffer>) {
        self.fill(rows);
        let mut empty = Vec::with_capacity(rows + 1);
        empty.push(0);
        let offsets = mem::replace(&mut self.offsets, empty);
        let size = self.data.len();
        let data = mem::replace(&mut self.data, Vec::with_capacity(size));
        (OffsetBuffer::new(ScalarBuffer::from(offsets)), data, self.validity.finish(rows))
    }
}

/// The offsets of lists whose last one is still growing.
#[derive(Debug)]
pub(super) struct Offsets {
    ends: Vec<i32>,
}

impl Offsets {
    pub(super) fn new() -> Self {
        Self { ends: vec![0] }
    }

    /// The list of `row`, begun if it was not: how many elements there are in all.
    #[inline(always)]
    pub(super) fn open(&mut self, row: usize) -> usize {
        let total = self.total();
        if self.ends.len() != row + 2 {
            self.ends.resize(row + 2, total as i32);
        }
        total
    }

    /// The open list has another element.
    ///
    /// # Errors
    /// There are more than an offset can tell.
    #[inline(always)]
    pub(super) fn push(&mut self) -> Result<(), Reason> {
        match self.ends.last_mut() {
            Some(end) if *end < i32::MAX => {
                *end += 1;
                Ok(())
            }
            _ => Err(Reason::TooLarge),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len() - 1
    }

    /// The elements of all lists.
    #[inline(always)]
    pub(super) fn total(&self) -> usize {
        self.ends.last().map_or(0, |end| *end as usize)
    }

    /// Cuts the lists; returns how many elements are left.
    pub(super) fn truncate(&mut self, rows: usize) -> usize {
        self.ends.truncate(rows + 1);
        self.total()
    }

    pub(super) fn finish(&mut self, rows: usize) -> Vec<i32> {
        let total = self.total() as i32;
        self.ends.resize(rows + 1, total);
        let mut empty = Vec::with_capacity(rows + 1);
        empty.push(0);
        mem::replace(&mut self.ends, empty)
    }
}
