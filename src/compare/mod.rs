//! Two tables, compared: columns, numbers of rows, how far each column is the same, and rows that differ.
//!
//! Both are sorted, by the key or by all columns, and read side by side once: DataFusion sorts beyond its memory on
//! disk. Without a key, tables are multisets: a row is common as often as both have it. With a tolerance, rows are
//! sorted by what is no floating-point number first; rows that are the same in that are matched in the order of their
//! floating-point numbers.

mod difference;
mod sorted;
mod table;

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, SchemaRef};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::logical_expr::{Expr, SortExpr, ident};
use datafusion::prelude::{SessionConfig, SessionContext};

pub use self::difference::{ColumnMatch, Counts, Difference, RowDifference};
pub use self::table::TableRef;

use self::sorted::{Sorted, failed, row};
use self::table::Opened;
use crate::error::{Error, Result};
use crate::memory::Memory;
use crate::pipeline::did_you_mean;
use crate::storage::Storage;

/// How tables are compared.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// Columns that tell rows apart; none: rows are compared whole.
    pub key: Vec<String>,
    /// Floating-point numbers are equal when they differ by this at most, absolutely or in relation to the larger one.
    pub tolerance: f64,
    /// Rows that are shown of each kind of difference.
    pub samples: usize,
}

/// Compares two tables.
///
/// # Errors
/// `Invalid` when one cannot be read, or the key is no key of it; `Unavailable` when they do not fit into memory.
pub async fn compare(left: &TableRef, right: &TableRef, question: &Question, memory: &Memory) -> Result<Difference> {
    let config = SessionConfig::new().with_target_partitions(2);
    let session = SessionContext::new_with_config_rt(config, memory.runtime());
    let storage = Storage::new();
    let (one, two) = (left.open(&storage, &session.state()).await?, right.open(&storage, &session.state()).await?);
    let typed = left.has_types() && right.has_types();
    let mut difference = Difference::new([&left.named, &right.named], [&one.schema, &two.schema], typed);
    let common: Vec<String> = difference.common_columns(&one.schema, &two.schema);
    if let Some(missing) = question.key.iter().find(|key| !common.contains(key)) {
        let meant = did_you_mean(missing, common.iter().map(String::as_str)).unwrap_or_default();
        return Err(Error::invalid(format!("--key: column `{missing}` is not in both tables; {meant}")));
    }
    let order = Order::new(&common, &one.schema, question);
    let mut sides = [
        order.sorted(&session, &one, None, &left.named).await?,
        order.sorted(&session, &two, Some(&one.schema), &right.named).await?,
    ];
    let mut walk = Walk { order: &order, question, difference: &mut difference };
    while let Some(group) = next_group(&mut sides).await? {
        walk.group(&group)?;
    }
    Ok(difference)
}

/// The columns in which tables are compared: first those that they are sorted and grouped by.
struct Order {
    columns: Vec<String>,
    /// So many of them make a group.
    group: usize,
    /// So many are sorted by: floating-point numbers come after the group.
    sorted: usize,
}

impl Order {
    fn new(common: &[String], schema: &SchemaRef, question: &Question) -> Self {
        let is_float = |name: &&String| schema.field_with_name(name).is_ok_and(|field| field.data_type().is_floating());
        if !question.key.is_empty() {
            let rest = common.iter().filter(|name| !question.key.contains(name));
            let columns: Vec<String> = question.key.iter().chain(rest).cloned().collect();
            return Self { columns, group: question.key.len(), sorted: question.key.len() };
        }
        let exact = question.tolerance == 0.0;
        let (floats, others): (Vec<_>, Vec<_>) = common.iter().partition(|name| !exact && is_float(name));
        let (group, sorted) = (others.len(), common.len());
        Self { columns: others.into_iter().chain(floats).cloned().collect(), group, sorted }
    }

    /// The rows of a table in this order, with the types of `like`.
    async fn sorted(
        &self,
        session: &SessionContext,
        table: &Opened,
        like: Option<&SchemaRef>,
        name: &str,
    ) -> Result<Sorted> {
        let columns = table.columns(&self.columns);
        let schema = Arc::clone(datafusion::physical_plan::streaming::PartitionStream::schema(&columns));
        let provider = StreamingTable::try_new(schema, vec![Arc::new(columns)])?;
        let shown = self.columns.iter().map(|column| {
            let expr = ident(column.as_str());
            match like.and_then(|like| like.field_with_name(column).ok()) {
                Some(field) if !field.data_type().is_nested() => {
                    datafusion::logical_expr::cast(expr, field.data_type().clone()).alias(column.as_str())
                }
                _ => expr,
            }
        });
        let rows = session.read_table(Arc::new(provider))?.select(shown.collect::<Vec<Expr>>())?;
        let by: Vec<SortExpr> =
            self.columns[..self.sorted].iter().map(|column| ident(column.as_str()).sort(true, true)).collect();
        let rows = if by.is_empty() { rows } else { rows.sort(by)? };
        Sorted::new(rows.execute_stream().await?, self.group, name)
    }
}

/// The rows of both tables that are the same in the columns of the group.
type Group = [Option<RecordBatch>; 2];

async fn next_group(sides: &mut [Sorted; 2]) -> Result<Option<Group>> {
    let [left, right] = sides;
    let (one, two) = (left.peek().await?, right.peek().await?);
    let Some(key) = one.iter().chain(&two).min().cloned() else { return Ok(None) };
    Ok(Some([
        if one.as_ref() == Some(&key) { Some(left.take(&key).await?) } else { None },
        if two.as_ref() == Some(&key) { Some(right.take(&key).await?) } else { None },
    ]))
}

struct Walk<'a> {
    order: &'a Order,
    question: &'a Question,
    difference: &'a mut Difference,
}

impl Walk<'_> {
    fn group(&mut self, group: &Group) -> Result<()> {
        let rows = |side: usize| group[side].as_ref().map_or(0, RecordBatch::num_rows);
        self.difference.rows.left += rows(0) as u64;
        self.difference.rows.right += rows(1) as u64;
        if !self.question.key.is_empty() {
            for side in [0, 1] {
                if rows(side) > 1 {
                    let key = group[side].as_ref().map(|batch| difference::told(batch, 0, self.order.group));
                    return Err(Error::invalid(format!(
                        "--key {}: it is no key of {}: {} rows have {}; name more columns",
                        self.question.key.join(","),
                        self.difference.tables[side],
                        rows(side),
                        key.transpose()?.unwrap_or_default()
                    )));
                }
            }
        }
        match group {
            [Some(left), Some(right)] if self.question.key.is_empty() => self.match_rows(left, right),
            [Some(left), Some(right)] => self.compare_cells(left, right),
            [left, right] => {
                for (side, batch) in [left, right].into_iter().enumerate() {
                    let Some(batch) = batch else { continue };
                    for at in 0..batch.num_rows() {
                        self.only(side, batch, at)?;
                    }
                }
                Ok(())
            }
        }
    }

    fn only(&mut self, side: usize, batch: &RecordBatch, at: usize) -> Result<()> {
        self.difference.only(side, &row(batch, at)?, self.question.samples)
    }

    /// One row of each: cell by cell.
    fn compare_cells(&mut self, left: &RecordBatch, right: &RecordBatch) -> Result<()> {
        let mut equal = Vec::with_capacity(left.num_columns());
        for (one, two) in left.columns().iter().zip(right.columns()) {
            equal.push(is_equal(one, 0, two, 0, self.question.tolerance)?);
        }
        self.difference.pair(left, right, &equal, self.order.group, self.question.samples)
    }

    /// Rows that are the same but for floating-point numbers, which both are sorted by.
    fn match_rows(&mut self, left: &RecordBatch, right: &RecordBatch) -> Result<()> {
        let floats = self.order.group..left.num_columns();
        let (mut i, mut j) = (0, 0);
        while i < left.num_rows() && j < right.num_rows() {
            let mut equal = true;
            let mut is_less = true;
            for column in floats.clone() {
                let (one, two) = (left.column(column), right.column(column));
                if !is_equal(one, i, two, j, self.question.tolerance)? {
                    (equal, is_less) = (false, number(one, i)?.total_cmp(&number(two, j)?).is_lt());
                    break;
                }
            }
            match (equal, is_less) {
                (true, _) => {
                    self.difference.rows.common += 1;
                    (i, j) = (i + 1, j + 1);
                }
                (false, true) => {
                    self.only(0, left, i)?;
                    i += 1;
                }
                (false, false) => {
                    self.only(1, right, j)?;
                    j += 1;
                }
            }
        }
        (i..left.num_rows()).try_for_each(|at| self.only(0, left, at))?;
        (j..right.num_rows()).try_for_each(|at| self.only(1, right, at))
    }
}

/// A cell as a number; NULL is below all.
fn number(column: &dyn Array, row: usize) -> Result<f64> {
    if column.is_null(row) {
        return Ok(-f64::NAN);
    }
    let value = cast(&column.slice(row, 1), &DataType::Float64).map_err(failed)?;
    Ok(value.as_primitive::<Float64Type>().value(0))
}

fn is_equal(left: &dyn Array, i: usize, right: &dyn Array, j: usize, tolerance: f64) -> Result<bool> {
    if left.is_null(i) || right.is_null(j) {
        return Ok(left.is_null(i) && right.is_null(j));
    }
    if !left.data_type().is_floating() {
        return Ok(left.slice(i, 1).to_data() == right.slice(j, 1).to_data());
    }
    let (one, two) = (number(left, i)?, number(right, j)?);
    let limit = tolerance * one.abs().max(two.abs()).max(1.0);
    Ok(one == two || (one.is_nan() && two.is_nan()) || (one - two).abs() <= limit)
}
