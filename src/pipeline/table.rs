//! Lookups and sinks: `STORED AS DELTA | PARQUET | CSV | JSON`. A table that an `INSERT` writes is a sink.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::DFSchema;
use datafusion::common::config::{ConfigFileType, TableOptions};
use datafusion::sql::planner::{PlannerContext, SqlToRel};
use datafusion::sql::sqlparser::ast::{ColumnDef, ColumnOption, Expr, Spanned, TableConstraint};

use super::column::{arrow_type, delta_type};
use super::fault::Fault;
use super::loader::{Loader, TableStatement};
use super::planner::Catalogue;
use super::spec::{
    LEAST_LOG_RETENTION, LEAST_VACUUM_RETENTION, LandingSpec, LookupFormat, LookupSpec, OnViolation, SinkFormat,
    SinkMode, SinkSpec, UpkeepSpec,
};
use super::statement::normal;
use super::suggest;
use super::units;
use crate::contract::{Check, Contract, ContractColumn, check_refusal};

/// The options that a sink has now.
const SINK_OPTIONS: [&str; 18] = [
    "close.key",
    "close.rows_of",
    "close.sums",
    "close.time",
    "checkpoint_interval",
    "log_retention",
    "maintain",
    "max_small_files",
    "mode",
    "on_violation",
    "quarantine",
    "quarantine_limit",
    "schema_mode",
    "target_file_size",
    "vacuum_retention",
    "contract.proto",
    "contract.message",
    "contract.include",
];
/// The options that a sink of one Parquet file has.
const PARQUET_OPTIONS: [&str; 5] = ["mode", "on_violation", "contract.proto", "contract.message", "contract.include"];
/// The columns that a quarantine table has besides the sink's.
pub(super) const QUARANTINE_COLUMNS: [&str; 3] = ["_violations", "_unfit", "_clock"];

/// A lookup in another place: its format is that of the name there, else as `declared`.
fn elsewhere(
    path: PathBuf,
    declared: LookupFormat,
    options: BTreeMap<String, String>,
) -> (LookupFormat, String, BTreeMap<String, String>) {
    let format = LookupFormat::at(&path).unwrap_or(declared);
    let options = if format == declared { options } else { format.usual_options() };
    (format, path.to_string_lossy().into_owned(), options)
}

impl Loader<'_> {
    /// Reads a lookup's declaration.
    pub(super) fn lookup(&mut self, mut table: TableStatement<'_>) -> Option<LookupSpec> {
        let before = self.faults.count().0;
        let format = match table.tree.file_type.as_str() {
            "DELTA" => LookupFormat::Delta,
            "PARQUET" => LookupFormat::Parquet,
            "CSV" => LookupFormat::Csv,
            _ => LookupFormat::Json,
        };
        if !table.tree.table_partition_cols.is_empty() && format == LookupFormat::Delta {
            let place = table.statement.words(&self.source, "PARTITIONED").into_iter().next().unwrap_or(0..0);
            let fault = Fault::new(&self.source, &place, "a Delta table that is read knows its partitions by itself");
            self.faults.push(fault.remedy("leave PARTITIONED BY out"));
        }
        let options = self.reader_options(&mut table, format);
        let declared = self.declared(&table);
        for constraint in &table.tree.constraints {
            let place = self.source.place(constraint.span()).unwrap_or_else(|| table.statement.verb(&self.source));
            let fault = Fault::new(&self.source, &place, "a lookup has no constraints");
            self.faults.push(fault.remedy("leave it out: only a table that an INSERT writes is checked"));
        }
        let location = table.location.as_deref().map(|location| self.locate(location))?;
        table.options.finish("a lookup", &[], &mut self.faults);
        let (format, location, options) = match self.environment.tables.get(&table.name) {
            Some(path) => elsewhere(self.environment.resolve(path), format, options),
            None => (format, location, options),
        };
        (self.faults.count().0 == before).then_some(LookupSpec {
            name: table.name,
            format,
            location,
            options,
            declared,
            version: None,
        })
    }

    /// DataFusion's own options of a file format.
    fn reader_options(&mut self, table: &mut TableStatement<'_>, format: LookupFormat) -> BTreeMap<String, String> {
        let file_type = match format {
            LookupFormat::Delta => return BTreeMap::new(),
            LookupFormat::Parquet => ConfigFileType::PARQUET,
            LookupFormat::Csv => ConfigFileType::CSV,
            LookupFormat::Json => ConfigFileType::JSON,
        };
        let mut known = TableOptions::default();
        known.set_config_format(file_type);
        let mut options = BTreeMap::new();
        for (key, value, key_place, value_place) in table.options.with_prefix("format.") {
            let key = format!("format.{key}");
            if let Err(error) = known.set(&key, &value) {
                let keys: Vec<String> = known.entries().into_iter().map(|e| e.key).collect();
                let exists = keys.contains(&key);
                let message = if exists {
                    format!("option `{key}`: {}", super::diagnose::clean(&error))
                } else {
                    format!("{} has no option `{key}`", table.tree.file_type)
                };
                let remedy = if exists { None } else { suggest::did_you_mean(&key, keys.iter().map(String::as_str)) };
                let place = if exists { value_place } else { key_place };
                let fault = Fault::new(&self.source, &place, message);
                self.faults.push(fault.remedy(remedy.unwrap_or_else(|| "write another value".into())));
            }
            options.insert(key, value);
        }
        options
    }

    /// The columns that a lookup declares; `None` when it declares none or a type is wrong.
    fn declared(&mut self, table: &TableStatement<'_>) -> Option<Arc<Schema>> {
        if table.tree.columns.is_empty() {
            return None;
        }
        let mut fields = Vec::new();
        for column in &table.tree.columns {
            let nullable = self.column_options(table, column, None);
            if let Some(data_type) = self.column_type(table, column) {
                fields.push(Field::new(normal(&column.name), data_type, nullable));
            }
        }
        Some(Arc::new(Schema::new(fields)))
    }

    fn column_type(&mut self, table: &TableStatement<'_>, column: &ColumnDef) -> Option<DataType> {
        arrow_type(&column.data_type, &self.state).map_err(|why| self.column_fault(table, column, &why)).ok()
    }

    fn column_fault(&mut self, table: &TableStatement<'_>, column: &ColumnDef, why: &str) {
        let place = self.source.place(column.name.span).unwrap_or_else(|| table.statement.verb(&self.source));
        let (what, remedy) = why.split_once(": ").unwrap_or((why, "change the column"));
        let message = format!("column `{}`: {what}", normal(&column.name));
        self.faults.push(Fault::new(&self.source, &place, message).remedy(remedy));
    }

    /// Reads a column's options: whether it may be NULL, and its checks.
    fn column_options(
        &mut self,
        table: &TableStatement<'_>,
        column: &ColumnDef,
        mut checks: Option<&mut Vec<(Option<String>, Expr)>>,
    ) -> bool {
        let mut nullable = true;
        for option in &column.options {
            match (&option.option, checks.as_mut()) {
                (ColumnOption::NotNull, _) => nullable = false,
                (ColumnOption::Null, _) => {}
                (ColumnOption::Check(check), Some(checks)) => {
                    let name = option.name.as_ref().or(check.name.as_ref()).map(normal);
                    checks.push((name, (*check.expr).clone()));
                }
                (other, _) => {
                    let why =
                        format!("{other} is not supported: a column has a type, and a sink's also NOT NULL and CHECK");
                    self.column_fault(table, column, &why);
                }
            }
        }
        nullable
    }

    /// Reads a sink's declaration.
    pub(super) fn sink(&mut self, mut table: TableStatement<'_>) -> Option<SinkSpec> {
        let before = self.faults.count().0;
        let format = if table.tree.file_type == "PARQUET" { SinkFormat::Parquet } else { SinkFormat::Delta };
        if !matches!(table.tree.file_type.as_str(), "DELTA" | "PARQUET") {
            let place = table.statement.words(&self.source, &table.tree.file_type).into_iter().next();
            let place = place.unwrap_or_else(|| table.statement.verb(&self.source));
            let message = format!("an INSERT cannot write a table STORED AS {}", table.tree.file_type);
            self.faults.push(Fault::new(&self.source, &place, message).remedy("write STORED AS DELTA"));
        }
        if !super::names::is_plain(&table.name) {
            let message = format!("`{}` cannot be the name of a sink: queries are named after it", table.name);
            let fault = Fault::new(&self.source, &table.name_place, message);
            self.faults.push(fault.remedy(super::names::PLAIN));
        }
        if table.tree.columns.is_empty() {
            let message = format!("sink `{}` has no columns: they are its contract", table.name);
            let fault = Fault::new(&self.source, &table.name_place, message);
            self.faults.push(fault.remedy("declare them: (name TYPE [NOT NULL], …)"));
        }
        let contract = self.contract(&table);
        let partition_by = self.partition_columns(&table, &contract);
        self.message_contract(&mut table, &contract);
        let location = table.location.as_deref().map(|location| self.locate(location));
        let name = std::mem::take(&mut table.name);
        let sink = SinkSpec::append(&name, &location.clone().unwrap_or_default(), contract);
        let sink = SinkSpec { partition_by, format, ..sink };
        let sink = match format {
            SinkFormat::Delta => {
                let sink = self.sink_options(&mut table, sink);
                table.options.finish("a sink", &SINK_OPTIONS, &mut self.faults);
                sink
            }
            SinkFormat::Parquet => {
                let sink = self.parquet_options(&mut table, sink);
                table.options.finish("a Parquet sink", &PARQUET_OPTIONS, &mut self.faults);
                sink
            }
        };
        (self.faults.count().0 == before && location.is_some()).then_some(sink)
    }

    /// A Parquet sink with its options: one file, which is replaced as a whole.
    fn parquet_options(&mut self, table: &mut TableStatement<'_>, mut sink: SinkSpec) -> SinkSpec {
        let policies = [("fail", OnViolation::Fail), ("drop", OnViolation::Drop)];
        let policy = table.options.take("on_violation", &mut self.faults, |v| units::one_of(v, &policies));
        let modes = [("replace", SinkMode::Replace)];
        let mode = table.options.take("mode", &mut self.faults, |v| units::one_of(v, &modes));
        sink.on_violation = policy.unwrap_or(sink.on_violation);
        sink.mode = mode.unwrap_or(sink.mode);
        let mut wrong = Vec::new();
        if !sink.location.ends_with(".parquet") {
            wrong.push((
                format!("`{}` is one Parquet file, which is replaced as a whole", sink.name),
                "let LOCATION end with .parquet",
            ));
        }
        if !sink.partition_by.is_empty() {
            let message = format!("`{}` is one Parquet file, and that has no partitions", sink.name);
            wrong.push((message, "leave PARTITIONED BY out, or write STORED AS DELTA"));
        }
        for (message, remedy) in wrong {
            self.faults.push(Fault::new(&self.source, &table.name_place, message).remedy(remedy));
        }
        sink
    }

    /// The sink with its options.
    fn sink_options(&mut self, table: &mut TableStatement<'_>, mut sink: SinkSpec) -> SinkSpec {
        let (options, faults) = (&mut table.options, &mut self.faults);
        let modes = [
            ("append", SinkMode::Append),
            ("replace", SinkMode::Replace),
            ("replace_partitions", SinkMode::ReplacePartitions),
        ];
        let policies =
            [("fail", OnViolation::Fail), ("drop", OnViolation::Drop), ("quarantine", OnViolation::Quarantine)];
        let policy = options.take("on_violation", faults, |v| units::one_of(v, &policies));
        let limit = options.take("quarantine_limit", faults, units::share);
        let mode = options.take("mode", faults, |v| units::one_of(v, &modes));
        let merge = options.take("schema_mode", faults, |v| units::one_of(v, &[("fail", false), ("merge", true)]));
        let size = options.take("target_file_size", faults, units::bytes);
        let auto = options.take("maintain", faults, |v| units::one_of(v, &[("auto", true), ("off", false)]));
        let small = options.take("max_small_files", faults, |v| at_least(2, units::count(v)?));
        let upkeep = UpkeepSpec {
            auto: auto.unwrap_or(sink.upkeep.auto),
            checkpoint_interval: options.take("checkpoint_interval", faults, units::count),
            max_small_files: small.unwrap_or(sink.upkeep.max_small_files),
            log_retention: options.take("log_retention", faults, |v| lasting(v, LEAST_LOG_RETENTION)),
            vacuum_retention: options.take("vacuum_retention", faults, |v| lasting(v, LEAST_VACUUM_RETENTION)),
        };
        let quarantine = options.text("quarantine").and_then(|(location, _)| location);
        let time = options.take("close.time", faults, |v| Ok(v.trim().to_owned()));
        let key = options.take("close.key", faults, units::columns);
        let sums = options.take("close.sums", faults, units::columns);
        sink.rows_of = options.take("close.rows_of", faults, |v| Ok(v.trim().to_owned()));
        sink.landing = match (time, key) {
            (None, None) if sums.is_none() => None,
            (Some(time), Some(key)) => Some(LandingSpec { time, key, sums: sums.unwrap_or_default() }),
            (time, _) => {
                let missing = if time.is_none() { "close.time" } else { "close.key" };
                let message = format!("`{}` has options of a close of books and no `{missing}`", sink.name);
                let remedy =
                    "say both: 'close.time' the column of the day, 'close.key' those that name what a row is of";
                faults.push(Fault::new(&self.source, &table.name_place, message).remedy(remedy));
                None
            }
        };
        sink.upkeep = upkeep;
        sink.on_violation = policy.unwrap_or(sink.on_violation);
        sink.quarantine_limit = limit.unwrap_or(sink.quarantine_limit);
        sink.mode = mode.unwrap_or(sink.mode);
        sink.merge_schema = merge.unwrap_or(sink.merge_schema);
        sink.target_file_size = size.unwrap_or(sink.target_file_size);
        sink.quarantine = quarantine.map(|location| self.locate(&location));
        let taken = sink.contract.columns.iter().find(|c| QUARANTINE_COLUMNS.contains(&c.name.as_str()));
        if let (OnViolation::Quarantine, Some(column)) = (sink.on_violation, taken) {
            let message = format!("column `{}` is one that the quarantine table has by itself", column.name);
            let fault = Fault::new(&self.source, &table.name_place, message);
            self.faults.push(fault.remedy("give it another name"));
        }
        sink
    }

    fn contract(&mut self, table: &TableStatement<'_>) -> Contract {
        let mut columns: Vec<ContractColumn> = Vec::new();
        let mut checks = Vec::new();
        let mut names = BTreeSet::new();
        for column in &table.tree.columns {
            let nullable = self.column_options(table, column, Some(&mut checks));
            let name = normal(&column.name);
            if !names.insert(name.to_lowercase()) {
                self.column_fault(table, column, "it is declared twice: keep one of them");
                continue;
            }
            let Some(data_type) = self.column_type(table, column) else { continue };
            match delta_type(&data_type) {
                Ok(data_type) => columns.push(ContractColumn { name, data_type, nullable }),
                Err(why) => self.column_fault(table, column, &why),
            }
        }
        for constraint in &table.tree.constraints {
            if let TableConstraint::Check(check) = constraint {
                checks.push((check.name.as_ref().map(normal), (*check.expr).clone()));
            } else {
                let place = self.source.place(constraint.span()).unwrap_or_else(|| table.statement.verb(&self.source));
                let fault = Fault::new(&self.source, &place, "Delta Lake cannot keep this constraint");
                self.faults.push(fault.remedy("leave it out: a contract has NOT NULL and CHECK"));
            }
        }
        let mut contract = Contract { columns, checks: Vec::new() };
        for (n, (name, expr)) in checks.into_iter().enumerate() {
            let name = name.unwrap_or_else(|| format!("{}_check_{}", table.name, n + 1));
            self.check_types(table, &contract, &name, &expr);
            contract.checks.push(Check { name, sql: expr.to_string() });
        }
        contract
    }

    /// Reports a `CHECK` that does not type over the contract's columns.
    fn check_types(&mut self, table: &TableStatement<'_>, contract: &Contract, name: &str, expr: &Expr) {
        let place = self.source.place(expr.span()).unwrap_or_else(|| table.name_place.clone());
        if contract.checks.iter().any(|c| c.name == name) {
            let fault = Fault::new(&self.source, &place, format!("two checks are called `{name}`"));
            self.faults.push(fault.remedy("give one of them another name"));
        }
        if contract.columns.len() < table.tree.columns.len() {
            return;
        }
        let Ok(schema) = DFSchema::try_from(contract.arrow_schema()) else { return };
        let catalogue = Catalogue::new(&self.state);
        let typed = SqlToRel::new(&catalogue).sql_to_expr(expr.clone(), &schema, &mut PlannerContext::new());
        let fault = match typed {
            Err(error) => {
                let mut fault = super::diagnose::fault(&self.source, &error, &place, Some(expr));
                fault.message = format!("check `{name}`: {}", fault.message);
                fault
            }
            Ok(typed) => match check_refusal(&typed, &schema) {
                None => return,
                Some(why) => {
                    let why = super::diagnose::strip(&why);
                    Fault::new(&self.source, &place, format!("check `{name}`: {why}")).remedy(
                        "write a condition over the columns of this table, such as CHECK (score BETWEEN 0 AND 1)",
                    )
                }
            },
        };
        self.faults.push(fault);
    }

    fn partition_columns(&mut self, table: &TableStatement<'_>, contract: &Contract) -> Vec<String> {
        let mut partition_by: Vec<String> = Vec::new();
        let declared: Vec<String> = table.tree.columns.iter().map(|c| normal(&c.name)).collect();
        for written in &table.tree.table_partition_cols {
            let name = written.strip_prefix('"').and_then(|n| n.strip_suffix('"')).map(str::to_string);
            let name = name.unwrap_or_else(|| written.to_lowercase());
            let place = table.statement.words(&self.source, &name).pop().unwrap_or_else(|| table.name_place.clone());
            let column = contract.columns.iter().find(|c| c.name == name);
            let fault = |message: String| Fault::new(&self.source, &place, message);
            let wrong = match column {
                None if declared.contains(&name) => continue,
                None => {
                    let remedy = suggest::did_you_mean(&name, declared.iter().map(String::as_str));
                    let wrong = fault(format!("partition column `{name}` is no column of the table"));
                    Some(wrong.remedy(remedy.unwrap_or_else(|| "declare it".into())))
                }
                Some(c) if c.data_type.is_nested() || c.data_type == DataType::Binary => Some(
                    fault(format!("`{name}` cannot be a partition column")).remedy("take a column of a plain type"),
                ),
                Some(_) if partition_by.contains(&name) => {
                    Some(fault(format!("partition column `{name}` is written twice")).remedy("keep one of them"))
                }
                Some(_) => None,
            };
            match wrong {
                Some(fault) => self.faults.push(fault),
                None => partition_by.push(name),
            }
        }
        if !partition_by.is_empty() && partition_by.len() == contract.columns.len() {
            let place = table.statement.words(&self.source, "PARTITIONED").into_iter().next();
            let place = place.unwrap_or_else(|| table.name_place.clone());
            let fault = Fault::new(&self.source, &place, "a table needs a column that is no partition column");
            self.faults.push(fault.remedy("partition by fewer columns"));
        }
        partition_by
    }

    /// A path with the root applied, or a URL as it is.
    pub(super) fn locate(&self, location: &str) -> String {
        match location.contains("://") {
            true => location.to_string(),
            false => self.environment.resolve(location).to_string_lossy().into_owned(),
        }
    }
}

/// A duration that is not shorter than `least`.
fn lasting(text: &str, least: Duration) -> Result<Duration, String> {
    let duration = units::duration(text)?;
    if duration >= least {
        return Ok(duration);
    }
    let least = match least.as_secs() / 60 {
        minutes if minutes < 120 => format!("{minutes} minutes"),
        minutes => format!("{} hours", minutes / 60),
    };
    Err(format!("`{text}` is too short: whoever still reads or writes would lose files; write '{least}' or more"))
}

fn at_least(least: u64, number: u64) -> Result<u64, String> {
    if number < least { Err(format!("`{number}` is too small: write {least} or more")) } else { Ok(number) }
}
