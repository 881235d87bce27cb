//! What a comparison of two tables found.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde::Serialize;

use super::sorted::failed;
use crate::error::Result;

/// Two tables, compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// The tables as they were named, left and right.
    pub tables: [String; 2],
    /// Columns that are not in both, or have another type.
    pub columns_changed: Vec<String>,
    /// Numbers of rows.
    pub rows: Counts,
    /// With a key: how far each column is the same, over the rows whose key is in both.
    pub columns: Vec<ColumnMatch>,
    /// Some of the rows that differ.
    pub samples: Vec<RowDifference>,
}

/// Numbers of rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// In the left table.
    pub left: u64,
    /// In the right table.
    pub right: u64,
    /// The same in both.
    pub common: u64,
    /// With a key: in both, and not the same.
    pub changed: u64,
    /// In the left table alone.
    pub only_left: u64,
    /// In the right table alone.
    pub only_right: u64,
}

/// How far a column is the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ColumnMatch {
    /// Its name.
    pub name: String,
    /// Rows in which it is.
    pub equal: u64,
    /// Rows that were compared.
    pub of: u64,
}

/// A row that differs, as text; NULL is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RowDifference {
    /// The names of the columns.
    pub columns: Vec<String>,
    /// Its cells in the left table, when it is there.
    pub left: Option<Vec<Option<String>>>,
    /// Its cells in the right table, when it is there.
    pub right: Option<Vec<Option<String>>>,
    /// The columns that differ, by their place.
    pub differing: Vec<usize>,
}

impl Difference {
    /// Nothing was read yet. `typed`: types count, because both tables have some of their own.
    pub(super) fn new(tables: [&String; 2], [left, right]: [&SchemaRef; 2], typed: bool) -> Self {
        let mut changed = Vec::new();
        for field in left.fields() {
            match right.field_with_name(field.name()) {
                Err(_) => changed.push(format!("{} {}: only left", field.name(), field.data_type())),
                Ok(other) if typed && other.data_type() != field.data_type() => {
                    changed.push(format!("{}: {} left, {} right", field.name(), field.data_type(), other.data_type()));
                }
                Ok(_) => {}
            }
        }
        let new = right.fields().iter().filter(|field| left.field_with_name(field.name()).is_err());
        changed.extend(new.map(|field| format!("{} {}: only right", field.name(), field.data_type())));
        let tables = tables.map(String::clone);
        Self { tables, columns_changed: changed, rows: Counts::default(), columns: Vec::new(), samples: Vec::new() }
    }

    /// Whether no row could be compared, because the tables have no column in common.
    pub fn is_apart(&self) -> bool {
        let Counts { left, right, common, changed, only_left, only_right } = self.rows;
        left + right > 0 && common + changed + only_left + only_right == 0
    }

    /// Whether nothing differs.
    pub fn is_none(&self) -> bool {
        let Counts { changed, only_left, only_right, .. } = self.rows;
        self.columns_changed.is_empty() && changed + only_left + only_right == 0
    }

    /// Puts a row of the left table that was not found beside the row of the right one that is most like it, when
    /// they share half of their cells: what tells rows apart is then seen. The counts stay.
    pub(super) fn pair_samples(&mut self) {
        let (mut lefts, mut rights): (Vec<_>, Vec<_>) = self.samples.drain(..).partition(|row| row.right.is_none());
        for row in &mut lefts {
            let Some(left) = &row.left else { continue };
            let same = |other: &RowDifference| {
                let cells = other.right.iter().flatten();
                left.iter().zip(cells).filter(|(one, two)| one == two).count()
            };
            let best = (0..rights.len()).max_by_key(|&at| (same(&rights[at]), std::cmp::Reverse(at)));
            let Some(best) = best.filter(|&at| same(&rights[at]) * 2 >= left.len()) else { continue };
            let right = rights.remove(best).right;
            let cells = left.iter().zip(right.iter().flatten()).enumerate();
            row.differing = cells.filter(|(_, (one, two))| one != two).map(|(column, _)| column).collect();
            row.right = right;
        }
        self.samples = lefts.into_iter().chain(rights).collect();
    }

    /// Counts a row that is in one table alone: row `at` of a batch.
    pub(super) fn only(&mut self, side: usize, batch: &RecordBatch, at: usize, samples: usize) -> Result<()> {
        let count = if side == 0 { &mut self.rows.only_left } else { &mut self.rows.only_right };
        *count += 1;
        if *count > samples as u64 {
            return Ok(());
        }
        let row = &super::sorted::row(batch, at)?;
        let cells = Some(cells(row)?);
        let (left, right) = if side == 0 { (cells, None) } else { (None, cells) };
        self.samples.push(RowDifference { columns: names(row), left, right, differing: Vec::new() });
        Ok(())
    }

    /// Counts two rows with the same key, its first `key` columns.
    pub(super) fn pair(
        &mut self,
        left: &RecordBatch,
        right: &RecordBatch,
        equal: &[bool],
        key: usize,
        samples: usize,
    ) -> Result<()> {
        if self.columns.is_empty() {
            let of = |name: String| ColumnMatch { name, equal: 0, of: 0 };
            self.columns = names(left).into_iter().skip(key).map(of).collect();
        }
        for (column, equal) in self.columns.iter_mut().zip(&equal[key..]) {
            column.of += 1;
            column.equal += u64::from(*equal);
        }
        if equal.iter().all(|equal| *equal) {
            self.rows.common += 1;
            return Ok(());
        }
        self.rows.changed += 1;
        if self.rows.changed <= samples as u64 {
            let differing = equal.iter().enumerate().filter(|(_, equal)| !**equal).map(|(column, _)| column).collect();
            let (left_cells, right_cells) = (Some(cells(left)?), Some(cells(right)?));
            self.samples.push(RowDifference { columns: names(left), left: left_cells, right: right_cells, differing });
        }
        Ok(())
    }
}

fn names(batch: &RecordBatch) -> Vec<String> {
    batch.schema().fields().iter().map(|field| field.name().clone()).collect()
}

/// The cells of the one row.
fn cells(row: &RecordBatch) -> Result<Vec<Option<String>>> {
    let options = FormatOptions::new();
    let cell = |column| {
        let text = ArrayFormatter::try_new(column, &options)?;
        let is_null = arrow::array::Array::is_null(column, 0);
        if is_null { Ok(None) } else { text.value(0).try_to_string().map(Some) }
    };
    row.columns().iter().map(|column| cell(column.as_ref())).collect::<Result<_, _>>().map_err(failed)
}

/// The first `columns` cells of a row in words.
pub(super) fn told(batch: &RecordBatch, at: usize, columns: usize) -> Result<String> {
    let cells = cells(&super::sorted::row(batch, at)?)?;
    let named = names(batch).into_iter().zip(cells).take(columns);
    let named: Vec<String> =
        named.map(|(name, cell)| format!("{name} = {}", cell.unwrap_or_else(|| "NULL".into()))).collect();
    Ok(named.join(", "))
}
