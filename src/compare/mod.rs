//! Two tables, compared: columns, numbers of rows, how far each column is the same, and rows that differ.
//!
//! Both are sorted, by the key or by all columns, and read side by side once: DataFusion sorts beyond its memory on
//! disk. Without a key, tables are multisets: a row is common as often as both have it. With a tolerance, rows are
//! sorted by what is no floating-point number first; rows that are the same in that are matched in the order of their
//! floating-point numbers.

mod difference;
mod rows_file;
mod sorted;
mod table;

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, SchemaRef};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::{self, Expr, SortExpr, ident};
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::prelude::{SessionConfig, SessionContext};

pub use self::difference::{ColumnMatch, Counts, Difference, RowDifference};
pub use self::rows_file::rows_writer;
pub use self::table::TableRef;

use self::sorted::{Sorted, failed};
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
    /// The columns that are compared; `None`: all, and that both tables have them.
    pub columns: Option<Vec<String>>,
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
    if question.columns.is_some() {
        difference.columns_changed.clear();
    }
    let asked = |name: &String| question.columns.as_ref().is_none_or(|columns| columns.contains(name));
    let names = one.schema.fields().iter().map(|field| field.name().clone()).filter(asked);
    let common: Vec<String> = names.filter(|name| two.schema.field_with_name(name).is_ok()).collect();
    if let Some(missing) = question.key.iter().find(|key| !common.contains(key)) {
        let meant = did_you_mean(missing, common.iter().map(String::as_str)).unwrap_or_default();
        return Err(Error::invalid(format!("--key: column `{missing}` is not in both tables; {meant}")));
    }
    if common.is_empty() {
        (difference.rows.left, difference.rows.right) = (one.count().await?, two.count().await?);
        return Ok(difference);
    }
    let order = Order::new(&common, [&one.schema, &two.schema], question);
    let mut sides =
        [order.sorted(&session, &one, &left.named).await?, order.sorted(&session, &two, &right.named).await?];
    // Of rows that are the same in all columns, only their number counts.
    let keep = (question.key.is_empty() && order.group == order.columns.len()).then(|| question.samples.max(1));
    let mut walk = Walk { order: &order, question, difference: &mut difference };
    while let Some(group) = next_group(&mut sides, keep).await? {
        walk.group(&group)?;
    }
    if question.key.is_empty() {
        difference.pair_samples();
    }
    Ok(difference)
}

/// The columns in which tables are compared: first those that they are sorted and grouped by.
struct Order {
    columns: Vec<String>,
    /// The type in which a column is compared.
    types: Vec<DataType>,
    /// So many of them make a group.
    group: usize,
    /// So many are sorted by: floating-point numbers come after the group.
    sorted: usize,
}

impl Order {
    fn new(common: &[String], schemas: [&SchemaRef; 2], question: &Question) -> Self {
        let type_of = |name: &str| {
            let of = |schema: &SchemaRef| schema.field_with_name(name).map(|field| field.data_type().clone());
            let [Ok(one), Ok(two)] = schemas.map(of) else { return DataType::Utf8 };
            common_type(&one, &two)
        };
        let columns: Vec<String>;
        let (group, sorted);
        if question.key.is_empty() {
            let exact = question.tolerance == 0.0;
            let (floats, others): (Vec<_>, Vec<_>) =
                common.iter().cloned().partition(|name| !exact && type_of(name).is_floating());
            (group, sorted) = (others.len(), common.len());
            columns = others.into_iter().chain(floats).collect();
        } else {
            let rest = common.iter().filter(|name| !question.key.contains(name));
            columns = question.key.iter().chain(rest).cloned().collect();
            (group, sorted) = (question.key.len(), question.key.len());
        }
        Self { types: columns.iter().map(|name| type_of(name)).collect(), columns, group, sorted }
    }

    /// The rows of a table in this order.
    async fn sorted(&self, session: &SessionContext, table: &Opened, name: &str) -> Result<Sorted> {
        let columns = table.columns(&self.columns);
        let schema = Arc::clone(PartitionStream::schema(&columns));
        let provider = StreamingTable::try_new(schema, vec![Arc::new(columns)])?;
        let shown = self.columns.iter().zip(&self.types).map(|(column, data_type)| {
            logical_expr::cast(ident(column.as_str()), data_type.clone()).alias(column.as_str())
        });
        let rows = session.read_table(Arc::new(provider))?.select(shown.collect::<Vec<Expr>>())?;
        let by: Vec<SortExpr> =
            self.columns[..self.sorted].iter().map(|column| ident(column.as_str()).sort(true, true)).collect();
        Sorted::new(rows.sort(by)?.execute_stream().await?, self.group, name)
    }
}

/// A type that holds the values of both, so that none of them becomes another one: text when there is no other.
fn common_type(one: &DataType, two: &DataType) -> DataType {
    if one.is_nested() || two.is_nested() {
        return DataType::Utf8;
    }
    if one == two {
        return one.clone();
    }
    let numbers = one.is_numeric() && two.is_numeric();
    let times = one.is_temporal() && two.is_temporal();
    comparison_coercion(one, two).filter(|_| numbers || times).unwrap_or(DataType::Utf8)
}

/// The rows of one table that are the same in the columns of the group, some of them, and how many there are.
type Side = Option<(RecordBatch, u64)>;

async fn next_group(sides: &mut [Sorted; 2], keep: Option<usize>) -> Result<Option<[Side; 2]>> {
    let [left, right] = sides;
    let (one, two) = (left.peek().await?, right.peek().await?);
    let Some(key) = one.iter().chain(&two).min().cloned() else { return Ok(None) };
    Ok(Some([
        if one.as_ref() == Some(&key) { Some(left.take(&key, keep).await?) } else { None },
        if two.as_ref() == Some(&key) { Some(right.take(&key, keep).await?) } else { None },
    ]))
}

struct Walk<'a> {
    order: &'a Order,
    question: &'a Question,
    difference: &'a mut Difference,
}

impl Walk<'_> {
    fn group(&mut self, group: &[Side; 2]) -> Result<()> {
        let [left, right] = [0, 1].map(|side| group[side].as_ref().map_or(0, |(_, rows)| *rows));
        self.difference.rows.left += left;
        self.difference.rows.right += right;
        if !self.question.key.is_empty() {
            self.check_key(group)?;
        }
        match group {
            [Some((one, _)), Some((two, _))] if !self.question.key.is_empty() => self.compare_cells(one, two),
            [Some((one, _)), Some((two, _))] if self.order.group < self.order.columns.len() => {
                self.match_rows(one, two)
            }
            [one, two] => {
                let common = left.min(right);
                self.difference.rows.common += common;
                for (side, of) in [one, two].into_iter().enumerate() {
                    let Some((batch, rows)) = of else { continue };
                    for at in 0..rows - common {
                        // Those that are not held are the same.
                        self.only(side, batch, (at as usize).min(batch.num_rows() - 1))?;
                    }
                }
                Ok(())
            }
        }
    }

    fn check_key(&self, group: &[Side; 2]) -> Result<()> {
        for (side, of) in group.iter().enumerate() {
            if let Some((batch, rows)) = of.as_ref().filter(|(_, rows)| *rows > 1) {
                return Err(Error::invalid(format!(
                    "--key {}: it is no key of {}: {rows} rows have {}; name more columns",
                    self.question.key.join(","),
                    self.difference.tables[side],
                    difference::told(batch, 0, self.order.group)?
                )));
            }
        }
        Ok(())
    }

    fn only(&mut self, side: usize, batch: &RecordBatch, at: usize) -> Result<()> {
        self.difference.only(side, batch, at, self.question.samples)
    }

    /// One row of each: cell by cell.
    fn compare_cells(&mut self, left: &RecordBatch, right: &RecordBatch) -> Result<()> {
        let mut equal = Vec::with_capacity(left.num_columns());
        for (one, two) in left.columns().iter().zip(right.columns()) {
            equal.push(is_equal(one, 0, two, 0, self.question.tolerance)?);
        }
        self.difference.pair(left, right, &equal, self.order.group, self.question.samples)
    }

    /// Rows that are the same but for floating-point numbers, which both are sorted by: each row of the left takes the
    /// first one of the right that is left and near enough in all of them.
    fn match_rows(&mut self, left: &RecordBatch, right: &RecordBatch) -> Result<()> {
        let (first, tolerance) = (self.order.group, self.question.tolerance);
        let mut taken = vec![false; right.num_rows()];
        let mut low = 0;
        for i in 0..left.num_rows() {
            let one = number(left.column(first), i)?;
            let mut found = None;
            let mut j = low;
            while found.is_none() && j < right.num_rows() {
                let near = is_equal(left.column(first), i, right.column(first), j, tolerance)?;
                match number(right.column(first), j)?.total_cmp(&one) {
                    // The next ones of the left are larger still.
                    Ordering::Less if !near && j == low => low += 1,
                    Ordering::Greater if !near => break,
                    _ => {}
                }
                if near && !taken[j] && self.is_near(left, i, right, j)? {
                    found = Some(j);
                }
                j += 1;
            }
            match found {
                Some(j) => {
                    taken[j] = true;
                    self.difference.rows.common += 1;
                }
                None => self.only(0, left, i)?,
            }
        }
        (0..right.num_rows()).filter(|&j| !taken[j]).try_for_each(|j| self.only(1, right, j))
    }

    fn is_near(&self, left: &RecordBatch, i: usize, right: &RecordBatch, j: usize) -> Result<bool> {
        for column in self.order.group..left.num_columns() {
            if !is_equal(left.column(column), i, right.column(column), j, self.question.tolerance)? {
                return Ok(false);
            }
        }
        Ok(true)
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
    Ok(is_near(number(left, i)?, number(right, j)?, tolerance))
}

/// Whether numbers differ by no more than `tolerance`, absolutely or in relation to the larger one. NaN is NaN.
pub fn is_near(one: f64, two: f64, tolerance: f64) -> bool {
    let limit = tolerance * one.abs().max(two.abs()).max(1.0);
    let is_within = one.is_finite() && two.is_finite() && (one - two).abs() <= limit;
    one == two || (one.is_nan() && two.is_nan()) || is_within
}
