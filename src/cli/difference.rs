//! Rows that differ, as a table: the same picture wherever two tables are compared.

use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;

use crate::compare::RowDifference;

/// The rows, `≠` where both tables have one like it, with the cells that differ as `[left → right]`; `-` in the left
/// table alone, `+` in the right one. `None` when there are none.
pub(crate) fn rows_that_differ(rows: &[RowDifference]) -> Option<String> {
    let first = rows.first()?;
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED);
    table.set_header(std::iter::once("").chain(first.columns.iter().map(String::as_str)));
    rows.iter().for_each(|row| _ = table.add_row(cells(row)));
    Some(table.to_string())
}

fn cells(row: &RowDifference) -> Vec<String> {
    let text = |cell: &Option<String>| cell.clone().unwrap_or_else(|| "NULL".to_owned());
    let alone = |mark: &str, cells: &[Option<String>]| {
        std::iter::once(mark.to_owned()).chain(cells.iter().map(text)).collect::<Vec<_>>()
    };
    match (&row.left, &row.right) {
        (Some(left), Some(right)) => {
            let both = left.iter().zip(right).enumerate().map(|(column, (left, right))| {
                let differs = row.differing.contains(&column);
                if differs { format!("[{} → {}]", text(left), text(right)) } else { text(left) }
            });
            std::iter::once("≠".to_owned()).chain(both).collect()
        }
        (Some(left), None) => alone("-", left),
        (None, Some(right)) => alone("+", right),
        (None, None) => Vec::new(),
    }
}
