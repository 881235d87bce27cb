//! Vectors: those that a model has stored, and those that its stages make of the rows of a block.

use std::fmt::Debug;

use arrow::array::StringArray;

use super::super::about::Column;
use crate::error::Result;

/// Rows that go through all stages together.
pub(super) const BLOCK_ROWS: usize = 128;
/// Vectors of more numbers than this are kept sparse.
pub(super) const MAX_DENSE: usize = 4096;
/// A vector may have this many numbers.
pub(super) const MAX_WIDTH: usize = 1 << 24;
/// A stored vector may have this many numbers where all are needed, whatever it is stored as.
const MAX_EXPANDED: usize = 1 << 20;
/// A matrix may have this many rows: one for each class.
const MAX_LINES: usize = 1 << 16;

/// A vector of a model as its file has it. Where Spark stores one sparse, what it leaves out does not count, also not
/// times infinity.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Stored {
    /// All numbers.
    Dense(Vec<f64>),
    /// Those that are not zero; the indices ascend.
    Sparse { size: usize, indices: Vec<u32>, values: Vec<f64> },
}

/// A matrix of a model, row by row.
#[derive(Debug)]
pub(super) struct Matrix {
    /// How many columns it has.
    pub columns: usize,
    /// Its rows, each of that many numbers.
    pub lines: Vec<Stored>,
}

impl Stored {
    /// A sparse vector, if the indices are some.
    pub fn sparse(size: usize, indices: &[i32], values: Vec<f64>) -> Option<Self> {
        let indices: Vec<u32> =
            indices.iter().map(|index| u32::try_from(*index)).collect::<std::result::Result<_, _>>().ok()?;
        let ascend = indices.windows(2).all(|pair| pair[0] < pair[1]);
        let fit = indices.last().is_none_or(|last| (*last as usize) < size);
        (ascend && fit && indices.len() == values.len()).then_some(Self::Sparse { size, indices, values })
    }

    /// How many numbers it has.
    pub fn len(&self) -> usize {
        match self {
            Stored::Dense(values) => values.len(),
            Stored::Sparse { size, .. } => *size,
        }
    }

    /// All its numbers; none if there are too many for one that is stored sparse.
    pub fn expanded(&self) -> Option<Vec<f64>> {
        match self {
            Stored::Dense(values) => Some(values.clone()),
            Stored::Sparse { size, .. } if *size > MAX_EXPANDED => None,
            Stored::Sparse { size, indices, values } => {
                let mut all = vec![0.0; *size];
                for (index, value) in indices.iter().zip(values) {
                    all[*index as usize] = *value;
                }
                Some(all)
            }
        }
    }

    /// The number at an index.
    pub fn get(&self, index: usize) -> f64 {
        match self {
            Stored::Dense(values) => values.get(index).copied().unwrap_or_default(),
            Stored::Sparse { indices, values, .. } => {
                let at = u32::try_from(index).ok().and_then(|index| indices.binary_search(&index).ok());
                at.and_then(|at| values.get(at)).copied().unwrap_or_default()
            }
        }
    }

    /// Other numbers in place of those that it stores.
    pub fn map(&self, change: impl Fn(f64) -> f64) -> Self {
        let changed = |values: &[f64]| values.iter().map(|value| change(*value)).collect();
        match self {
            Stored::Dense(values) => Self::Dense(changed(values)),
            Stored::Sparse { size, indices, values } => {
                Self::Sparse { size: *size, indices: indices.clone(), values: changed(values) }
            }
        }
    }

    /// The numbers that it stores.
    pub fn values(&self) -> &[f64] {
        match self {
            Stored::Dense(values) | Stored::Sparse { values, .. } => values,
        }
    }

    /// Adds the product with each row's vector to that row's sum, from the first number to the last.
    pub fn dot(&self, rows: &Rows<'_>, sums: &mut [f64]) {
        match (self, rows) {
            (Stored::Dense(values), Rows::Dense { .. }) => {
                for (index, weight) in values.iter().enumerate() {
                    add(*weight, rows.column(index), sums);
                }
            }
            (Stored::Sparse { indices, values, .. }, Rows::Dense { .. }) => {
                for (index, weight) in indices.iter().zip(values) {
                    add(*weight, rows.column(*index as usize), sums);
                }
            }
            (_, Rows::Sparse(rows)) => {
                for (row, sum) in sums.iter_mut().enumerate() {
                    *sum += self.dot_sparse(rows.row(row));
                }
            }
        }
    }

    fn dot_sparse(&self, (at, numbers): (&[u32], &[f64])) -> f64 {
        let mut sum = 0.0;
        match self {
            Stored::Dense(values) => {
                for (index, number) in at.iter().zip(numbers) {
                    sum += values.get(*index as usize).copied().unwrap_or_default() * number;
                }
            }
            Stored::Sparse { indices, values, .. } => {
                let mut stored = indices.iter().zip(values).peekable();
                for (index, number) in at.iter().zip(numbers) {
                    while stored.next_if(|(other, _)| *other < index).is_some() {}
                    if let Some((_, value)) = stored.next_if(|(other, _)| *other == index) {
                        sum += value * number;
                    }
                }
            }
        }
        sum
    }
}

fn add(weight: f64, column: &[f64], sums: &mut [f64]) {
    sums.iter_mut().zip(column).for_each(|(sum, value)| *sum += weight * value);
}

impl Matrix {
    /// A matrix of all its numbers, column by column, or row by row if `transposed`.
    pub fn dense(rows: usize, columns: usize, values: &[f64], transposed: bool) -> Option<Self> {
        if rows.checked_mul(columns) != Some(values.len()) || rows > MAX_LINES {
            return None;
        }
        let line = |row: usize| match transposed {
            true => values.iter().skip(row * columns).take(columns).copied().collect(),
            false => values.iter().skip(row).step_by(rows).copied().collect(),
        };
        Some(Self { columns, lines: (0..rows).map(|row| Stored::Dense(line(row))).collect() })
    }

    /// A matrix of some of its numbers: `pointers` has where each column's begin, or each row's if `transposed`.
    pub fn sparse(
        rows: usize,
        columns: usize,
        pointers: &[i32],
        indices: &[i32],
        values: &[f64],
        transposed: bool,
    ) -> Option<Self> {
        let (outer, inner) = if transposed { (rows, columns) } else { (columns, rows) };
        if pointers.len() != outer.checked_add(1)? || indices.len() != values.len() || rows > MAX_LINES {
            return None;
        }
        let mut lines = vec![(Vec::new(), Vec::new()); rows];
        for (at, pair) in pointers.windows(2).enumerate() {
            let range = usize::try_from(pair[0]).ok()?..usize::try_from(pair[1]).ok()?;
            for (index, value) in indices.get(range.clone())?.iter().zip(values.get(range)?) {
                let index = usize::try_from(*index).ok().filter(|index| *index < inner)?;
                let (row, column) = if transposed { (at, index) } else { (index, at) };
                let (columns, numbers) = lines.get_mut(row)?;
                columns.push(i32::try_from(column).ok()?);
                numbers.push(*value);
            }
        }
        let line = |(at, numbers): (Vec<i32>, Vec<f64>)| Stored::sparse(columns, &at, numbers);
        Some(Self { columns, lines: lines.into_iter().map(line).collect::<Option<_>>()? })
    }
}

/// What a stage makes of a block. What it does not hold now is kept for its memory.
#[derive(Debug, Default)]
pub(super) struct Data {
    held: Held,
    /// Numbers, or vectors of them: all rows' first numbers, then the second ones, and so on.
    dense: Vec<f64>,
    sparse: Sparse,
    words: Words,
}

/// What [`Data`] holds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Held {
    /// Nothing yet.
    #[default]
    Nothing,
    Dense,
    Sparse,
    Words,
}

/// Vectors that a stage has made, to be changed.
#[derive(Debug)]
pub(super) enum Made<'a> {
    /// All rows' first numbers, then the second ones, and so on.
    Dense(&'a mut Vec<f64>),
    /// Row by row.
    Sparse(&'a mut Sparse),
    /// No vectors.
    Nothing,
}

/// Vectors that are mostly zero.
#[derive(Debug, Default)]
pub(super) struct Sparse {
    ends: Vec<usize>,
    /// The indices of each row ascend.
    pub indices: Vec<u32>,
    /// The numbers there.
    pub values: Vec<f64>,
}

/// Words of rows.
#[derive(Debug, Default)]
pub(super) struct Words {
    text: String,
    ends: Vec<usize>,
    rows: Vec<usize>,
}

/// The vectors of a block.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rows<'a> {
    /// Number by number.
    Dense { values: &'a [f64], rows: usize },
    /// Row by row.
    Sparse(&'a Sparse),
}

/// Where a column of a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Among the columns that are scored.
    Input(usize),
    /// Among those that stages make.
    Made(usize),
}

/// Rows on their way through the stages.
#[derive(Debug)]
pub(super) struct Block<'a> {
    /// How many rows it has.
    pub rows: usize,
    inputs: &'a [Column<'a>],
    start: usize,
    made: Vec<Data>,
    dropped: Vec<bool>,
}

/// Something that a stage does with a block.
pub(super) trait Step: Debug + Send + Sync {
    /// Makes its column.
    ///
    /// # Errors
    /// `Violated` when a row has what the stage refuses.
    fn run(&self, block: &mut Block<'_>) -> Result<()>;
}

impl Data {
    /// So many zeros.
    pub fn zeros(&mut self, count: usize) -> &mut Vec<f64> {
        self.held = Held::Dense;
        self.dense.clear();
        self.dense.resize(count, 0.0);
        &mut self.dense
    }

    /// Sparse vectors of no rows.
    pub fn no_vectors(&mut self) -> &mut Sparse {
        self.held = Held::Sparse;
        self.sparse.ends.clear();
        self.sparse.indices.clear();
        self.sparse.values.clear();
        &mut self.sparse
    }

    /// Words of no rows.
    pub fn no_words(&mut self) -> &mut Words {
        self.held = Held::Words;
        self.words.text.clear();
        self.words.ends.clear();
        self.words.rows.clear();
        &mut self.words
    }

    /// The vectors that it holds.
    pub fn made(&mut self) -> Made<'_> {
        match self.held {
            Held::Dense => Made::Dense(&mut self.dense),
            Held::Sparse => Made::Sparse(&mut self.sparse),
            Held::Nothing | Held::Words => Made::Nothing,
        }
    }
}

impl Sparse {
    /// Ends a row.
    pub fn end_row(&mut self) {
        self.ends.push(self.indices.len());
    }

    /// The indices and the numbers of a row.
    pub fn row(&self, row: usize) -> (&[u32], &[f64]) {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        let range = start..self.ends[row];
        (&self.indices[range.clone()], &self.values[range])
    }

    /// Adds a row.
    pub fn push_row(&mut self, (indices, values): (&[u32], &[f64])) {
        self.indices.extend_from_slice(indices);
        self.values.extend_from_slice(values);
        self.end_row();
    }
}

impl Words {
    /// Adds to the word that has no end yet.
    pub fn push_text(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Ends a word.
    pub fn end_word(&mut self) {
        self.ends.push(self.text.len());
    }

    /// Adds a word.
    pub fn push(&mut self, word: &str) {
        self.push_text(word);
        self.end_word();
    }

    /// Takes the last words away, so that the row that has no end yet has so many.
    pub fn cut_row(&mut self, words: usize) {
        self.ends.truncate(self.rows.last().copied().unwrap_or_default() + words);
        self.text.truncate(self.ends.last().copied().unwrap_or_default());
    }

    /// Ends a row.
    pub fn end_row(&mut self) {
        self.rows.push(self.ends.len());
    }

    /// The words of a row.
    pub fn row(&self, row: usize) -> impl ExactSizeIterator<Item = &str> + Clone {
        let first = if row == 0 { 0 } else { self.rows[row - 1] };
        (first..self.rows[row]).map(|word| {
            let start = if word == 0 { 0 } else { self.ends[word - 1] };
            &self.text[start..self.ends[word]]
        })
    }
}

impl<'a> Rows<'a> {
    /// The numbers at an index, of dense vectors.
    pub fn column(&self, index: usize) -> &'a [f64] {
        match self {
            Rows::Dense { values, rows } => values.get(index * rows..(index + 1) * rows).unwrap_or_default(),
            Rows::Sparse(_) => &[],
        }
    }

    /// Calls `each` with the index and the number of all that is stored of a row.
    pub fn each(&self, row: usize, mut each: impl FnMut(usize, f64)) {
        match self {
            Rows::Dense { values, rows } => {
                values.iter().skip(row).step_by((*rows).max(1)).enumerate().for_each(|(at, value)| each(at, *value));
            }
            Rows::Sparse(sparse) => {
                let (indices, values) = sparse.row(row);
                indices.iter().zip(values).for_each(|(index, value)| each(*index as usize, *value));
            }
        }
    }
}

impl<'a> Block<'a> {
    /// A block for columns that are scored, and for so many that stages make.
    pub fn new(inputs: &'a [Column<'a>], made: usize) -> Self {
        let made = (0..made).map(|_| Data::default()).collect();
        Self { rows: 0, inputs, start: 0, made, dropped: Vec::new() }
    }

    /// Goes to other rows.
    pub fn go_to(&mut self, start: usize, rows: usize) {
        (self.start, self.rows) = (start, rows);
        self.dropped.clear();
        self.dropped.resize(rows, false);
    }

    /// The rows that a stage has dropped.
    pub fn dropped(&self) -> &[bool] {
        &self.dropped
    }

    /// Numbers.
    pub fn numbers(&self, place: Place) -> &[f64] {
        match place {
            Place::Input(column) => match self.inputs.get(column) {
                Some(Column::Numbers(numbers)) => numbers.get(self.start..self.start + self.rows).unwrap_or_default(),
                _ => &[],
            },
            Place::Made(column) => match self.made.get(column) {
                Some(data) if data.held == Held::Dense => &data.dense,
                _ => &[],
            },
        }
    }

    /// The text of each row.
    pub fn texts(&self, column: usize) -> impl Iterator<Item = Option<&'a str>> + use<'a> {
        let texts: Option<&'a StringArray> = match self.inputs.get(column) {
            Some(Column::Texts(texts)) => Some(texts),
            _ => None,
        };
        let range = self.start..self.start + self.rows;
        range.map(move |row| {
            use arrow::array::Array as _;
            texts.filter(|texts| texts.is_valid(row)).map(|texts| texts.value(row))
        })
    }

    /// Vectors.
    pub fn vectors(&self, column: usize) -> Rows<'_> {
        match self.made.get(column) {
            Some(data) if data.held == Held::Sparse => Rows::Sparse(&data.sparse),
            Some(data) if data.held == Held::Dense => Rows::Dense { values: &data.dense, rows: self.rows },
            _ => Rows::Dense { values: &[], rows: self.rows },
        }
    }

    /// Words.
    pub fn words(&self, column: usize) -> Option<&Words> {
        self.made.get(column).filter(|data| data.held == Held::Words).map(|data| &data.words)
    }

    /// Makes a column from others. What it is given last says which rows are dropped; it may drop more.
    pub fn make<T>(&mut self, column: usize, make: impl FnOnce(&Self, &mut Data, &mut [bool]) -> T) -> T {
        let mut data = std::mem::take(&mut self.made[column]);
        let mut dropped = std::mem::take(&mut self.dropped);
        let result = make(self, &mut data, &mut dropped);
        self.dropped = dropped;
        self.made[column] = data;
        result
    }
}
