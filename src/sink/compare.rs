//! A table that is there, held against the contract column by column.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::pipeline::SinkSpec;
use crate::sink::column_type;
use crate::sink::definition::{Column, Definition, Metadata, contract_columns};

/// One line of the difference.
struct Difference {
    column: String,
    declared: String,
    table: String,
}

/// Compares the table with the contract. `Ok(None)`: they agree. `Ok(Some(..))`: they will, once the columns that only
/// the contract has are added (`schema_mode = 'merge'`). The order of the columns is free, as Delta goes by name.
///
/// # Errors
/// `Invalid` with the difference as a small table.
pub fn compare(table: &Definition, spec: &SinkSpec) -> Result<Option<Metadata>> {
    let declared = contract_columns(spec)?;
    let mut differences = Vec::new();
    let mut added = Vec::new();
    for column in &declared {
        match table.columns.iter().find(|other| other.name == column.name) {
            Some(other) if same(column, other) => {}
            Some(other) => differences.push(Difference {
                column: column.name.clone(),
                declared: shown(column),
                table: shown(other),
            }),
            None => added.push(column),
        }
    }
    for column in &table.columns {
        if !declared.iter().any(|other| other.name == column.name) {
            differences.push(Difference {
                column: column.name.clone(),
                declared: "(not declared)".into(),
                table: shown(column),
            });
        }
    }
    if table.metadata.partition_columns != spec.partition_by {
        differences.push(Difference {
            column: "partitioned by".into(),
            declared: format!("({})", spec.partition_by.join(", ")),
            table: format!("({})", table.metadata.partition_columns.join(", ")),
        });
    }
    let may_add = added.iter().all(|column| column.nullable && !spec.partition_by.contains(&column.name));
    if differences.is_empty() && (added.is_empty() || (may_add && spec.merge_schema)) {
        return if added.is_empty() { Ok(None) } else { with_columns(&table.metadata, &added).map(Some) };
    }
    let only_added = differences.is_empty() && may_add;
    differences.extend(added.into_iter().map(|column| Difference {
        column: column.name.clone(),
        declared: shown(column),
        table: "(missing)".into(),
    }));
    Err(Error::invalid(text(spec, &differences, only_added)))
}

fn same(declared: &Column, table: &Column) -> bool {
    declared.nullable == table.nullable
        && column_type::plain(&declared.data_type) == column_type::plain(&table.data_type)
}

fn shown(column: &Column) -> String {
    format!("{}{}", column_type::shown(&column.data_type), if column.nullable { "" } else { " not null" })
}

fn text(spec: &SinkSpec, differences: &[Difference], only_added: bool) -> String {
    let width = |of: fn(&Difference) -> &str, title: &str| {
        differences.iter().map(|d| of(d).chars().count()).chain([title.len()]).max().unwrap_or_default()
    };
    let first = width(|d| &d.column, "column");
    let second = width(|d| &d.declared, "declared");
    let mut text = format!("the table is not what sink `{}` declares\n", spec.name);
    let _ = writeln!(text, "  {:first$}  {:second$}  table", "column", "declared");
    for Difference { column, declared, table } in differences {
        let _ = writeln!(text, "  {column:first$}  {declared:second$}  {table}");
    }
    text.push_str(if only_added {
        "declare what the table has, write to another LOCATION, or let the new columns be added with the option \
         'schema_mode' 'merge'"
    } else {
        "declare what the table has, or write to another LOCATION"
    });
    text
}

fn with_columns(metadata: &Metadata, added: &[&Column]) -> Result<Metadata> {
    let mut schema: Value = serde_json::from_str(&metadata.schema_string)
        .map_err(|e| Error::invalid("its schema is not readable; repair the table").caused_by(e))?;
    if let Some(fields) = schema["fields"].as_array_mut() {
        fields.extend(added.iter().map(|column| json!(column)));
    }
    Ok(Metadata { schema_string: schema.to_string(), ..metadata.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{Contract, ContractColumn};
    use arrow::datatypes::DataType;

    fn spec(columns: &[(&str, DataType, bool)], partition_by: &[&str], merge_schema: bool) -> SinkSpec {
        let columns = columns.iter().map(|(name, data_type, nullable)| ContractColumn {
            name: (*name).into(),
            data_type: data_type.clone(),
            nullable: *nullable,
        });
        let contract = Contract { columns: columns.collect(), checks: vec![] };
        let partition_by = partition_by.iter().map(|name| (*name).into()).collect();
        SinkSpec { partition_by, merge_schema, ..SinkSpec::append("scored", "/t", contract) }
    }

    fn table(columns: &[(&str, DataType, bool)], partition_by: &[&str]) -> Definition {
        Definition::of_contract(&spec(columns, partition_by, false), "id".into(), 0).unwrap()
    }

    #[test]
    fn the_order_of_columns_is_free() {
        let table = table(&[("a", DataType::Utf8, true), ("b", DataType::Int64, false)], &[]);
        let spec = spec(&[("b", DataType::Int64, false), ("a", DataType::Utf8, true)], &[], false);
        assert_eq!(compare(&table, &spec).unwrap(), None);
    }

    #[test]
    fn a_difference_reads_as_a_table() {
        let table = table(
            &[("ad_id", DataType::Utf8, true), ("score", DataType::Float32, true), ("old", DataType::Date32, true)],
            &["old"],
        );
        let spec = spec(
            &[("ad_id", DataType::Utf8, false), ("score", DataType::Float64, true), ("day", DataType::Date32, true)],
            &["day"],
            true,
        );
        let error = compare(&table, &spec).unwrap_err();
        insta::assert_snapshot!(error.message(), @r"
        the table is not what sink `scored` declares
          column          declared         table
          ad_id           string not null  string
          score           double           float
          old             (not declared)   date
          partitioned by  (day)            (old)
          day             date             (missing)
        declare what the table has, or write to another LOCATION
        ");
    }

    #[test]
    fn nullable_columns_may_be_added() {
        let table = table(&[("a", DataType::Utf8, true)], &[]);
        let columns = [("a", DataType::Utf8, true), ("b", DataType::Int64, true)];
        let error = compare(&table, &spec(&columns, &[], false)).unwrap_err();
        assert!(error.message().ends_with("'schema_mode' 'merge'"), "{error}");
        let metadata = compare(&table, &spec(&columns, &[], true)).unwrap().unwrap();
        let merged = Definition::new(table.protocol.clone(), metadata).unwrap();
        assert_eq!(merged.columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        let strict = [("a", DataType::Utf8, true), ("b", DataType::Int64, false)];
        let error = compare(&table, &spec(&strict, &[], true)).unwrap_err();
        assert!(error.message().contains("long not null"), "{error}");
    }
}
