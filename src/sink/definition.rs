//! What a Delta table's log says about the table itself: protocol, columns, partitioning, properties and checks.

use std::collections::BTreeMap;

use arrow::datatypes::Schema as ArrowSchema;
use arrow::error::ArrowError;
use deltalake::kernel::StructType;
use deltalake::kernel::engine::arrow_conversion::TryIntoArrow;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::contract::{Check, Contract, ContractColumn};
use crate::error::{Error, Result};
use crate::pipeline::{SinkMode, SinkSpec};
use crate::sink::column_type;

/// Writer features that plain `add` and `remove` actions of whole files do justice to. Columns that use generated
/// values, identities or column mapping are refused one by one, so the bare feature does no harm.
const WRITER_FEATURES: [&str; 11] = [
    "appendOnly",
    "invariants",
    "checkConstraints",
    "changeDataFeed",
    "generatedColumns",
    "columnMapping",
    "identityColumns",
    "deletionVectors",
    "timestampNtz",
    "v2Checkpoint",
    "checkpointProtection",
];
const READER_FEATURES: [&str; 4] = ["columnMapping", "deletionVectors", "timestampNtz", "v2Checkpoint"];
const CONSTRAINT: &str = "delta.constraints.";
const INVARIANT: &str = "delta.invariants";

/// The `protocol` action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Protocol {
    /// The least version that a reader must know.
    pub min_reader_version: i32,
    /// The least version that a writer must know.
    pub min_writer_version: i32,
    /// The features that a reader must know, from reader version 3 on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reader_features: Option<Vec<String>>,
    /// The features that a writer must know, from writer version 7 on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writer_features: Option<Vec<String>>,
}

/// The `metaData` action; what is not looked at is kept as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// The table's identity.
    pub id: String,
    /// The schema as JSON text.
    pub schema_string: String,
    /// The partition columns, in order.
    #[serde(default)]
    pub partition_columns: Vec<String>,
    /// The table's properties.
    #[serde(default)]
    pub configuration: BTreeMap<String, String>,
    /// Name, description, format, time of creation.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// A column of the table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its Delta type.
    #[serde(rename = "type")]
    pub data_type: Value,
    /// False for `NOT NULL`.
    pub nullable: bool,
    /// What else the schema says of it.
    #[serde(default)]
    pub metadata: Map<String, Value>,
}

#[derive(Deserialize)]
struct Schema {
    fields: Vec<Column>,
}

/// What the table is.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// Who may read and write it.
    pub protocol: Protocol,
    /// Its schema and properties, as written.
    pub metadata: Metadata,
    /// Its columns, read from the schema.
    pub columns: Vec<Column>,
}

impl Definition {
    /// The definition that two actions of a log make.
    ///
    /// # Errors
    /// `Invalid` when the schema is not readable.
    pub fn new(protocol: Protocol, metadata: Metadata) -> Result<Self> {
        let schema: Schema = serde_json::from_str(&metadata.schema_string)
            .map_err(|e| Error::invalid("its schema is not readable; repair the table or use another").caused_by(e))?;
        Ok(Self { protocol, metadata, columns: schema.fields })
    }

    /// The definition of a new table.
    ///
    /// # Errors
    /// `Invalid` when the contract has a type that Delta has not, or partitions by what it can't.
    pub fn of_contract(spec: &SinkSpec, id: String, created_ms: i64) -> Result<Self> {
        let columns = contract_columns(spec)?;
        for name in &spec.partition_by {
            match columns.iter().find(|column| column.name == *name) {
                Some(column) if column.data_type.is_string() => {}
                Some(column) => {
                    return Err(Error::invalid(format!(
                        "sink `{}`: column `{name}` is {}; partition by a column of a plain type",
                        spec.name,
                        column_type::shown(&column.data_type)
                    )));
                }
                None => {
                    return Err(Error::invalid(format!(
                        "sink `{}`: there is no column `{name}` to partition by; declare it",
                        spec.name
                    )));
                }
            }
        }
        if !columns.is_empty() && spec.partition_by.len() >= columns.len() {
            return Err(Error::invalid(format!(
                "sink `{}`: every column is a partition column; leave at least one for the files",
                spec.name
            )));
        }
        let protocol =
            Protocol { min_reader_version: 1, min_writer_version: 2, reader_features: None, writer_features: None };
        let mut rest = Map::new();
        rest.insert("format".into(), json!({ "provider": "parquet", "options": {} }));
        rest.insert("createdTime".into(), json!(created_ms));
        let metadata = Metadata {
            id,
            schema_string: schema_string(&columns),
            partition_columns: spec.partition_by.clone(),
            configuration: BTreeMap::new(),
            rest,
        };
        Ok(Self { protocol, metadata, columns })
    }

    /// Refuses a table that plain files and a `txn` can't be added to faithfully.
    ///
    /// # Errors
    /// `Invalid`, naming the property, feature or column and what to do.
    pub fn refuse_unsupported(&self, mode: SinkMode) -> Result<()> {
        self.refuse_protocol()?;
        self.refuse_properties(mode)?;
        for column in &self.columns {
            let reason = column.metadata.keys().find_map(|key| match key.as_str() {
                "delta.generationExpression" => Some("a generated column"),
                key if key.starts_with("delta.identity.") => Some("an identity column"),
                _ => None,
            });
            if let Some(reason) = reason {
                return Err(Error::invalid(format!(
                    "column `{}` is {reason}, which Flumen does not fill; write to a table without one",
                    column.name
                )));
            }
            if column.data_type.to_string().contains(INVARIANT) {
                return Err(Error::invalid(format!(
                    "column `{}` has an invariant on a nested field; move it to a CHECK constraint of the table",
                    column.name
                )));
            }
        }
        Ok(())
    }

    fn refuse_protocol(&self) -> Result<()> {
        let protocol = &self.protocol;
        if protocol.min_writer_version > 7 || protocol.min_reader_version > 3 {
            return Err(Error::invalid(format!(
                "it needs reader version {} and writer version {}, Flumen knows 3 and 7; use a newer Flumen",
                protocol.min_reader_version, protocol.min_writer_version
            )));
        }
        let unknown = |wanted: &Option<Vec<String>>, known: &[&str]| -> Vec<String> {
            wanted.iter().flatten().filter(|name| !known.contains(&name.as_str())).cloned().collect()
        };
        let mut features = unknown(&protocol.writer_features, &WRITER_FEATURES);
        features.extend(unknown(&protocol.reader_features, &READER_FEATURES));
        features.sort();
        features.dedup();
        if features.is_empty() {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "it needs table features that Flumen can't write: {}; drop them (ALTER TABLE … DROP FEATURE) or write to \
             another table",
            features.join(", ")
        )))
    }

    fn refuse_properties(&self, mode: SinkMode) -> Result<()> {
        let property = |key: &str| self.metadata.configuration.get(key).map(String::as_str);
        if let Some(mapping) = property("delta.columnMapping.mode").filter(|mode| *mode != "none") {
            return Err(Error::invalid(format!(
                "it maps column names (delta.columnMapping.mode = {mapping}); write to a table without column mapping"
            )));
        }
        if let Some(duration) = property("delta.setTransactionRetentionDuration") {
            return Err(Error::invalid(format!(
                "it forgets positions after {duration} (delta.setTransactionRetentionDuration), so records would be \
                 read again; unset that property"
            )));
        }
        let append_only = property("delta.appendOnly").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        if append_only && mode != SinkMode::Append {
            return Err(Error::invalid(
                "it takes appends only (delta.appendOnly), and the sink's mode removes rows; unset that property",
            ));
        }
        Ok(())
    }

    /// The table's own CHECK constraints and invariants, which hold for every row beside the contract's. Its NOT NULLs
    /// are the contract's: a table that differs in them is refused.
    ///
    /// # Errors
    /// `Invalid` when an invariant is not readable.
    pub fn checks(&self) -> Result<Vec<Check>> {
        let constraints = self.metadata.configuration.iter().filter_map(|(key, sql)| {
            Some(Ok(Check { name: key.strip_prefix(CONSTRAINT)?.to_string(), sql: sql.clone() }))
        });
        let invariants = self.columns.iter().filter_map(|column| {
            let text = column.metadata.get(INVARIANT)?.as_str().unwrap_or_default();
            let parsed: Value = serde_json::from_str(text).unwrap_or_default();
            Some(match parsed["expression"]["expression"].as_str() {
                Some(sql) => Ok(Check { name: format!("{}_invariant", column.name), sql: sql.to_string() }),
                None => Err(Error::invalid(format!(
                    "the invariant of column `{}` is not readable; replace it by a CHECK constraint",
                    column.name
                ))),
            })
        });
        constraints.chain(invariants).collect()
    }

    /// The columns whose statistics go into the log: those the table names, or its first 32 (or as many as it says),
    /// without those whose bounds would not be exact.
    pub fn stats_columns(&self) -> Vec<String> {
        let configuration = &self.metadata.configuration;
        if let Some(names) = configuration.get("delta.dataSkippingStatsColumns") {
            let inexact = |name: &str| {
                let column = self.columns.iter().find(|column| column.name == name.trim_matches('`'));
                column.and_then(|column| column.data_type.as_str()).is_some_and(|kind| !has_exact_statistics(kind))
            };
            let names = names.split(',').map(str::trim).filter(|name| !name.is_empty() && !inexact(name));
            return names.map(str::to_string).collect();
        }
        let wanted = configuration.get("delta.dataSkippingNumIndexedCols").and_then(|count| count.parse::<i64>().ok());
        let limit = usize::try_from(wanted.unwrap_or(32)).unwrap_or(usize::MAX);
        self.columns
            .iter()
            .filter(|column| !self.metadata.partition_columns.contains(&column.name))
            .take(limit)
            .filter(|column| column.data_type.as_str().is_some_and(has_exact_statistics))
            .map(|column| format!("`{}`", column.name.replace('`', "``")))
            .collect()
    }
}

/// Whether smallest and largest value of a type come out of a file's statistics as they are. The writer turns decimals
/// into doubles on the way, which tell 15 digits apart: a bound that is a little off makes readers skip rows.
fn has_exact_statistics(data_type: &str) -> bool {
    const EXACT_DIGITS: u8 = 15;
    match data_type.strip_prefix("decimal(").and_then(|rest| rest.split(',').next()) {
        Some(precision) => precision.trim().parse::<u8>().is_ok_and(|precision| precision <= EXACT_DIGITS),
        None => data_type != "binary",
    }
}

/// The columns of a schema, as Delta writes it, as a contract without checks.
///
/// # Errors
/// Why the schema cannot be read.
pub fn schema_contract(schema: &str) -> std::result::Result<Contract, String> {
    let schema: StructType = serde_json::from_str(schema).map_err(|e| e.to_string())?;
    let schema: ArrowSchema = (&schema).try_into_arrow().map_err(|e: ArrowError| e.to_string())?;
    let columns = schema.fields().iter().map(|field| ContractColumn {
        name: field.name().clone(),
        data_type: field.data_type().clone(),
        nullable: field.is_nullable(),
    });
    Ok(Contract { columns: columns.collect(), checks: Vec::new() })
}

/// Columns as the schema of a table.
pub fn schema_string(columns: &[Column]) -> String {
    json!({ "type": "struct", "fields": columns }).to_string()
}

/// The contract's columns as the table would have them.
///
/// # Errors
/// `Invalid` when Delta has no such type.
pub fn contract_columns(spec: &SinkSpec) -> Result<Vec<Column>> {
    let columns = spec.contract.columns.iter().map(|column| {
        let data_type = column_type::delta_type(&column.data_type).ok_or_else(|| {
            Error::invalid(format!(
                "sink `{}`: column `{}` is {}, and Delta has no such type; declare another (unsigned numbers: BIGINT \
                 or DECIMAL(20, 0); times: TIMESTAMP)",
                spec.name, column.name, column.data_type
            ))
        })?;
        Ok(Column { name: column.name.clone(), data_type, nullable: column.nullable, metadata: Map::new() })
    });
    columns.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn definition(protocol: Value, configuration: Value, fields: Value) -> Definition {
        let metadata = json!({
            "id": "x", "schemaString": json!({ "type": "struct", "fields": fields }).to_string(),
            "partitionColumns": [], "configuration": configuration, "format": { "provider": "parquet" }, "name": "n",
        });
        Definition::new(serde_json::from_value(protocol).unwrap(), serde_json::from_value(metadata).unwrap()).unwrap()
    }

    fn plain() -> Value {
        json!({ "minReaderVersion": 1, "minWriterVersion": 2 })
    }

    fn column(metadata: Value) -> Value {
        json!([{ "name": "a", "type": "long", "nullable": true, "metadata": metadata }])
    }

    #[test]
    fn what_is_refused() {
        let features = json!({
            "minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["deletionVectors"],
            "writerFeatures": ["deletionVectors", "rowTracking", "domainMetadata"],
        });
        let newer = json!({ "minReaderVersion": 3, "minWriterVersion": 8 });
        for (definition, words) in [
            (definition(features, json!({}), column(json!({}))), "domainMetadata, rowTracking"),
            (definition(newer, json!({}), column(json!({}))), "writer version 8"),
            (definition(plain(), json!({"delta.columnMapping.mode": "name"}), column(json!({}))), "maps column names"),
            (
                definition(
                    plain(),
                    json!({"delta.setTransactionRetentionDuration": "interval 1 day"}),
                    column(json!({})),
                ),
                "forgets positions after interval 1 day",
            ),
            (definition(plain(), json!({}), column(json!({"delta.generationExpression": "1"}))), "a generated column"),
            (definition(plain(), json!({}), column(json!({"delta.identity.start": 1}))), "an identity column"),
        ] {
            let error = definition.refuse_unsupported(SinkMode::Append).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.message().contains(words), "{error}");
        }
        let append_only = definition(plain(), json!({"delta.appendOnly": "true"}), column(json!({})));
        append_only.refuse_unsupported(SinkMode::Append).unwrap();
        append_only.refuse_unsupported(SinkMode::Replace).unwrap_err();
    }

    #[test]
    fn checks_of_the_table() {
        let invariant = json!({"delta.invariants": "{\"expression\":{\"expression\":\"a > 3\"}}"});
        let table = definition(plain(), json!({"delta.constraints.small": "a < 9", "other": "1"}), column(invariant));
        let checks: Vec<_> = table.checks().unwrap().into_iter().map(|c| format!("{}: {}", c.name, c.sql)).collect();
        assert_eq!(checks, ["small: a < 9", "a_invariant: a > 3"]);
        assert!(definition(plain(), json!({}), column(json!({"delta.invariants": "?"}))).checks().is_err());
    }

    #[test]
    fn metadata_is_kept_as_it_is() {
        let table = definition(plain(), json!({"k": "v"}), column(json!({})));
        let value = serde_json::to_value(&table.metadata).unwrap();
        assert_eq!(value["name"], "n");
        assert_eq!(value["format"]["provider"], "parquet");
        assert_eq!(value["configuration"]["k"], "v");
    }

    #[test]
    fn statistics_leave_out_what_has_no_exact_bounds() {
        let fields = json!([
            { "name": "a", "type": "long", "nullable": true, "metadata": {} },
            { "name": "b", "type": "binary", "nullable": true, "metadata": {} },
            { "name": "c c", "type": "string", "nullable": true, "metadata": {} },
            { "name": "d", "type": "string", "nullable": true, "metadata": {} },
            { "name": "wide", "type": "decimal(20,0)", "nullable": true, "metadata": {} },
            { "name": "exact", "type": "decimal(15, 2)", "nullable": true, "metadata": {} },
        ]);
        assert_eq!(definition(plain(), json!({}), fields.clone()).stats_columns(), ["`a`", "`c c`", "`d`", "`exact`"]);
        let three = json!({"delta.dataSkippingNumIndexedCols": "3"});
        assert_eq!(definition(plain(), three, fields.clone()).stats_columns(), ["`a`", "`c c`"]);
        let named = json!({"delta.dataSkippingStatsColumns": "d, wide, `a`, `b`"});
        assert_eq!(definition(plain(), named, fields).stats_columns(), ["d", "`a`"]);
    }
}
