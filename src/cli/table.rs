//! Rows as a box table: a header of names and types, and at most so many rows.

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Table};

use crate::error::{Error, Result};
use crate::observe::grouped;

/// The first `most` rows of `batches` as a table, with a footer that counts them all.
///
/// # Errors
/// `Unavailable` when a value cannot be shown.
pub(crate) fn render(schema: &Schema, batches: &[RecordBatch], most: usize) -> Result<String> {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED);
    table.set_header(schema.fields().iter().map(|f| Cell::new(format!("{}\n{}", f.name(), type_name(f.data_type())))));
    let options = FormatOptions::default().with_null("NULL");
    let mut left = most;
    let mut total = 0;
    for batch in batches {
        total += batch.num_rows();
        let shown = |e: arrow::error::ArrowError| Error::unavailable(format!("a value cannot be shown: {e}"));
        let columns = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options))
            .collect::<Result<Vec<_>, _>>()
            .map_err(shown)?;
        for row in 0..batch.num_rows().min(left) {
            table.add_row(columns.iter().zip(schema.fields()).map(|(column, field)| {
                let cell = Cell::new(column.value(row).to_string());
                if field.data_type().is_numeric() { cell.set_alignment(CellAlignment::Right) } else { cell }
            }));
        }
        left -= batch.num_rows().min(left);
    }
    let shown = most - left;
    let rows = if total == 1 { "row" } else { "rows" };
    let footer = if shown < total {
        format!("{} {rows} ({shown} shown)", grouped(total as u64))
    } else {
        format!("{} {rows}", grouped(total as u64))
    };
    Ok(format!("{table}\n{footer}"))
}

/// The type as SQL says it.
fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "varchar".to_owned(),
        DataType::Boolean => "boolean".to_owned(),
        DataType::Int8 => "tinyint".to_owned(),
        DataType::Int16 => "smallint".to_owned(),
        DataType::Int32 => "int".to_owned(),
        DataType::Int64 => "bigint".to_owned(),
        DataType::Float32 => "real".to_owned(),
        DataType::Float64 => "double".to_owned(),
        DataType::Date32 => "date".to_owned(),
        DataType::Timestamp(..) => "timestamp".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "varbinary".to_owned(),
        DataType::Decimal128(precision, scale) => format!("decimal({precision},{scale})"),
        other => other.to_string().to_lowercase(),
    }
}
