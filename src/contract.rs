//! The contract of a sink: declared columns and checks, held against a plan's schema and against every row.

mod casts;
mod divide;

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, ExprSchemable, Volatility};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::utils::collect_columns;

pub use casts::watch_casts;
pub use divide::{Broken, Divided};

use crate::error::{Error, Result};

/// The longest value that a message shows, in characters.
const SHOWN: usize = 60;

/// The declared columns and checks of a sink.
#[derive(Debug, Clone, PartialEq)]
pub struct Contract {
    /// The columns in their order.
    pub columns: Vec<ContractColumn>,
    /// The `CHECK`s.
    pub checks: Vec<Check>,
}

/// A declared column.
#[derive(Debug, Clone, PartialEq)]
pub struct ContractColumn {
    /// The column's name.
    pub name: String,
    /// Its Arrow type as Delta keeps it: strings `Utf8`, times `Timestamp(us, UTC)`, no unsigned types.
    pub data_type: DataType,
    /// False for `NOT NULL`.
    pub nullable: bool,
}

/// A declared check. A row breaks it when the expression is false; NULL passes, as in SQL.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// Its name; `CHECK` without a name is called after its sink: `<sink>_check_<n>`.
    pub name: String,
    /// The expression's SQL text.
    pub sql: String,
}

/// One way in which a query's columns do not fit a contract.
#[derive(Debug, Clone, PartialEq)]
pub enum Misfit {
    /// The query has no column for this one.
    Missing {
        /// The position in the contract, from 0.
        position: usize,
    },
    /// The query has a column too many.
    Extra {
        /// The position in the query, from 0.
        position: usize,
        /// The column's name in the query.
        name: String,
    },
    /// The types differ and the change could lose something.
    Type {
        /// The position in both, from 0.
        position: usize,
        /// The query's type.
        found: DataType,
    },
    /// The query's column is named like another column of the contract.
    Name {
        /// The position in both, from 0.
        position: usize,
        /// The query's name, which the contract has elsewhere.
        found: String,
    },
    /// The column may be NULL and the contract says `NOT NULL`: each row is checked when it comes. (A column that is
    /// always NULL is not told here: its first row will break the contract.)
    MayBeNull {
        /// The position in both, from 0.
        position: usize,
    },
}

impl Misfit {
    /// Whether the query may run all the same.
    pub fn is_warning(&self) -> bool {
        matches!(self, Misfit::MayBeNull { .. })
    }
}

impl Contract {
    /// The columns as a schema.
    pub fn arrow_schema(&self) -> SchemaRef {
        let field = |c: &ContractColumn| Field::new(&c.name, c.data_type.clone(), c.nullable);
        Arc::new(Schema::new(self.columns.iter().map(field).collect::<Vec<_>>()))
    }

    /// The types of the columns.
    pub fn types(&self) -> Vec<DataType> {
        self.columns.iter().map(|column| column.data_type.clone()).collect()
    }

    /// Holds a query's schema against the columns, by position.
    pub fn fits(&self, query: &Schema) -> Vec<Misfit> {
        let mut misfits = Vec::new();
        for (position, column) in self.columns.iter().enumerate() {
            match query.fields().get(position) {
                None => misfits.push(Misfit::Missing { position }),
                Some(field) => self.compare(position, column, field, &mut misfits),
            }
        }
        for (position, field) in query.fields().iter().enumerate().skip(self.columns.len()) {
            misfits.push(Misfit::Extra { position, name: field.name().clone() });
        }
        misfits
    }

    fn compare(&self, position: usize, column: &ContractColumn, field: &Field, misfits: &mut Vec<Misfit>) {
        let name = field.name();
        if *name != column.name && self.columns.iter().any(|c| c.name == *name) {
            misfits.push(Misfit::Name { position, found: name.clone() });
        }
        let found = field.data_type();
        if !is_lossless(found, &column.data_type) {
            misfits.push(Misfit::Type { position, found: found.clone() });
        } else if field.is_nullable() && !column.nullable && !found.is_null() {
            misfits.push(Misfit::MayBeNull { position });
        }
    }
}

/// Whether every value of `from` is also a value of `to`, so that a sink may cast without being asked.
pub fn is_lossless(from: &DataType, to: &DataType) -> bool {
    use DataType::*;
    match (from, to) {
        (Null, _) => true,
        (a, b) if a == b => true,
        (Utf8 | LargeUtf8 | Utf8View, Utf8) => true,
        (Binary | LargeBinary | BinaryView | FixedSizeBinary(_), Binary) => true,
        (Dictionary(_, value), to) => is_lossless(value, to),
        (Timestamp(_, _), Timestamp(TimeUnit::Microsecond, Some(_))) => true,
        (Decimal128(p, s), Decimal128(tp, ts)) => {
            ts >= s && i16::from(*tp) - i16::from(*ts) >= i16::from(*p) - i16::from(*s)
        }
        (from, Decimal128(p, s)) => digits(from).is_some_and(|d| i16::from(*p) - i16::from(*s) >= d),
        (Float32, Float64) => true,
        (Int8 | Int16 | UInt8 | UInt16, Float32) => true,
        (Int8 | Int16 | Int32 | UInt8 | UInt16 | UInt32, Float64) => true,
        (List(a) | LargeList(a) | FixedSizeList(a, _), List(b)) => is_lossless(a.data_type(), b.data_type()),
        (Map(a, _), Map(b, _)) => is_lossless(a.data_type(), b.data_type()),
        (Struct(a), Struct(b)) => {
            a.len() == b.len()
                && a.iter().zip(b).all(|(a, b)| a.name() == b.name() && is_lossless(a.data_type(), b.data_type()))
                || is_map_entry(a, b)
        }
        (from, to) => matches!((width(from), width(to)), (Some((fs, fw)), Some((true, tw)))
            if tw > fw || (fs && tw == fw)),
    }
}

/// The entries of two maps, whatever their two fields are called.
fn is_map_entry(a: &Fields, b: &Fields) -> bool {
    let named = |f: &Fields| f.len() == 2 && f[0].name().starts_with("key") && f[1].name().starts_with("value");
    named(a) && named(b) && a.iter().zip(b).all(|(a, b)| is_lossless(a.data_type(), b.data_type()))
}

/// Whether an integer type has a sign, and its bits.
fn width(data_type: &DataType) -> Option<(bool, u8)> {
    use DataType::*;
    Some(match data_type {
        Int8 => (true, 8),
        Int16 => (true, 16),
        Int32 => (true, 32),
        Int64 => (true, 64),
        UInt8 => (false, 8),
        UInt16 => (false, 16),
        UInt32 => (false, 32),
        UInt64 => (false, 64),
        _ => return None,
    })
}

/// How many decimal digits the largest value of an integer type has.
fn digits(data_type: &DataType) -> Option<i16> {
    Some(match width(data_type)? {
        (_, 8) => 3,
        (_, 16) => 5,
        (_, 32) => 10,
        (true, _) => 19,
        (false, _) => 20,
    })
}

/// A type as SQL writes it, for messages.
pub fn sql_type(data_type: &DataType) -> String {
    use DataType::*;
    match data_type {
        Boolean => "BOOLEAN".into(),
        Int8 => "TINYINT".into(),
        Int16 => "SMALLINT".into(),
        Int32 => "INT".into(),
        Int64 => "BIGINT".into(),
        UInt8 => "TINYINT UNSIGNED".into(),
        UInt16 => "SMALLINT UNSIGNED".into(),
        UInt32 => "INT UNSIGNED".into(),
        UInt64 => "BIGINT UNSIGNED".into(),
        Float32 => "REAL".into(),
        Float64 => "DOUBLE".into(),
        Utf8 | LargeUtf8 | Utf8View => "VARCHAR".into(),
        Binary | LargeBinary | BinaryView | FixedSizeBinary(_) => "VARBINARY".into(),
        Date32 | Date64 => "DATE".into(),
        Timestamp(_, _) => "TIMESTAMP".into(),
        Decimal128(p, s) | Decimal256(p, s) => format!("DECIMAL({p}, {s})"),
        Time32(_) | Time64(_) => "TIME".into(),
        Interval(_) | Duration(_) => "INTERVAL".into(),
        Null => "NULL".into(),
        Dictionary(_, value) => sql_type(value),
        List(f) | LargeList(f) | FixedSizeList(f, _) => format!("ARRAY<{}>", sql_type(f.data_type())),
        Struct(fields) => {
            let parts = fields.iter().map(|f| format!("{} {}", f.name(), sql_type(f.data_type())));
            format!("STRUCT<{}>", parts.collect::<Vec<_>>().join(", "))
        }
        Map(entry, _) => match entry.data_type() {
            Struct(f) if f.len() == 2 => format!("MAP({}, {})", sql_type(f[0].data_type()), sql_type(f[1].data_type())),
            _ => "MAP".into(),
        },
        other => other.to_string(),
    }
}

/// Why an expression cannot be a `CHECK`: it is not a truth value, or it would not always say the same of a row.
pub fn check_refusal(expr: &Expr, schema: &DFSchema) -> Option<String> {
    let mut refusal = None;
    let walked = expr.apply(|e| {
        refusal = match e {
            Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_) | Expr::SetComparison(_) => {
                Some("a CHECK looks at one row: it cannot have a sub-query".to_string())
            }
            Expr::AggregateFunction(_) | Expr::WindowFunction(_) => {
                Some("a CHECK looks at one row: it cannot aggregate".to_string())
            }
            Expr::ScalarFunction(f) if f.func.signature().volatility != Volatility::Immutable => {
                Some(format!("a CHECK must always say the same of a row, and {}() does not", f.func.name()))
            }
            _ => None,
        };
        Ok(if refusal.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    if let (Err(error), None) = (walked, &refusal) {
        return Some(error.strip_backtrace());
    }
    refusal.or_else(|| match expr.get_type(schema) {
        Ok(DataType::Boolean | DataType::Null) => None,
        Ok(other) => Some(format!("a CHECK must be true or false, and this is {}", sql_type(&other))),
        Err(error) => Some(error.strip_backtrace()),
    })
}

/// What a row broke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// A `NOT NULL` column is NULL.
    NotNull {
        /// The column.
        column: String,
    },
    /// A value is outside of the column's type, such as a time that microseconds cannot hold.
    Range {
        /// The column.
        column: String,
        /// The column's type in SQL.
        data_type: String,
    },
    /// A `CHECK` is false.
    Check {
        /// The check's name.
        name: String,
        /// Its expression.
        sql: String,
    },
    /// The check itself could not be computed.
    Broken {
        /// The check's name.
        name: String,
    },
}

/// A row that breaks the contract: the first one of its batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// What it broke.
    pub rule: Rule,
    /// The row's index within the batch.
    pub row: usize,
    /// The value, or for a check the columns that it looks at with their values; at most 60 characters.
    pub value: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rule {
            Rule::NotNull { column } => write!(f, "column {column} is NULL, and the contract says NOT NULL"),
            Rule::Range { column, data_type } => {
                write!(f, "column {column}: {} is no {data_type} that the table can hold", self.value)
            }
            Rule::Check { name, sql } => write!(f, "check {name} ({sql}) is broken: {}", self.value),
            Rule::Broken { name } => write!(f, "check {name} cannot be computed: {}", self.value),
        }
    }
}

impl std::error::Error for Violation {}

/// A contract that is ready to judge batches.
#[derive(Debug)]
pub struct ContractEnforcer {
    schema: SchemaRef,
    checks: Vec<CompiledCheck>,
}

#[derive(Debug)]
struct CompiledCheck {
    check: Check,
    expr: Arc<dyn PhysicalExpr>,
    /// The columns that it looks at, for messages.
    columns: Vec<usize>,
}

impl ContractEnforcer {
    /// Compiles the checks of the contract and `extra_checks`, those that the existing table brings along.
    ///
    /// # Errors
    /// `Invalid`, naming the check, when one does not parse or does not type over the contract's columns.
    pub fn new(contract: &Contract, extra_checks: &[Check], session: &SessionState) -> Result<Self> {
        let schema = contract.arrow_schema();
        let df = DFSchema::try_from(Arc::clone(&schema)).map_err(|e| Error::invalid(e.strip_backtrace()))?;
        let mut checks = Vec::new();
        for check in contract.checks.iter().chain(extra_checks) {
            let wrong = |why: String| {
                let message = format!("check {} ({}): {why}; mend the check", check.name, check.sql);
                Error::invalid(message)
            };
            let expr = session.create_logical_expr(&check.sql, &df).map_err(|e| wrong(e.strip_backtrace()))?;
            if let Some(why) = check_refusal(&expr, &df) {
                return Err(wrong(why));
            }
            let expr = session.create_physical_expr(expr, &df).map_err(|e| wrong(e.strip_backtrace()))?;
            let mut columns: Vec<usize> = collect_columns(&expr).iter().map(|c| c.index()).collect();
            columns.sort_unstable();
            checks.push(CompiledCheck { check: check.clone(), expr, columns });
        }
        Ok(Self { schema, checks })
    }

    /// The contract's schema: what [`ContractEnforcer::enforce`] returns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Casts a batch by position to the contract's types and judges its rows: `NOT NULL` first, then the checks in
    /// their order.
    ///
    /// # Errors
    /// The first violation found.
    pub fn enforce(&self, batch: RecordBatch) -> Result<RecordBatch, Violation> {
        let rows = batch.num_rows();
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        for (field, column) in self.schema.fields().iter().zip(batch.columns()) {
            let column = cast_column(column, field)?;
            if !field.is_nullable() && column.logical_null_count() > 0 {
                let row = first(rows, |row| column.logical_nulls().is_some_and(|n| n.is_null(row)));
                let rule = Rule::NotNull { column: field.name().clone() };
                return Err(Violation { rule, row, value: "NULL".into() });
            }
            columns.push(column);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let broken = |name: &str, why: String| Violation {
            rule: Rule::Broken { name: name.to_string() },
            row: 0,
            value: shorten(&why),
        };
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(|e| broken("columns", e.to_string()))?;
        for compiled in &self.checks {
            let verdict = compiled.expr.evaluate(&batch).and_then(|v| v.into_array(rows));
            let verdict = verdict.map_err(|e| broken(&compiled.check.name, e.strip_backtrace()))?;
            let Some(verdict) = verdict.as_boolean_opt() else { continue };
            if verdict.false_count() > 0 {
                let row = first(rows, |row| verdict.is_valid(row) && !verdict.value(row));
                return Err(compiled.violation(&batch, row));
            }
        }
        Ok(batch)
    }
}

impl CompiledCheck {
    fn violation(&self, batch: &RecordBatch, row: usize) -> Violation {
        let schema = batch.schema_ref();
        let shown = |&i: &usize| format!("{} = {}", schema.field(i).name(), show(batch.column(i), row));
        let value = shorten(&self.columns.iter().map(shown).collect::<Vec<_>>().join(", "));
        let Check { name, sql } = self.check.clone();
        Violation { rule: Rule::Check { name, sql }, row, value }
    }
}

/// The first row that `found` is true of.
fn first(rows: usize, found: impl Fn(usize) -> bool) -> usize {
    (0..rows).find(|row| found(*row)).unwrap_or(0)
}

fn cast_column(column: &ArrayRef, field: &Field) -> Result<ArrayRef, Violation> {
    if column.data_type() == field.data_type() {
        return Ok(Arc::clone(column));
    }
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(column, field.data_type(), &strict).map_err(|error| {
        // The strict cast does not say which row it was: the lenient one leaves a NULL there.
        let lenient = cast_with_options(column, field.data_type(), &CastOptions::default());
        let row = lenient.ok().map(|cast| first(column.len(), |row| cast.is_null(row) && column.is_valid(row)));
        let value = row.map_or_else(|| shorten(&error.to_string()), |row| show(column, row));
        let rule = Rule::Range { column: field.name().clone(), data_type: sql_type(field.data_type()) };
        Violation { rule, row: row.unwrap_or(0), value }
    })
}

fn show(column: &ArrayRef, row: usize) -> String {
    let options = FormatOptions::default().with_null("NULL");
    let text = |column: &ArrayRef, row| ArrayFormatter::try_new(column, &options).ok()?.value(row).try_to_string().ok();
    // A time that no calendar has is a number.
    let number = || text(&cast_with_options(&column.slice(row, 1), &DataType::Int64, &CastOptions::default()).ok()?, 0);
    text(column, row).or_else(number).map_or_else(|| "?".into(), |text| shorten(&text))
}

/// At most 60 characters of `text`, the last one an ellipsis when something was left out.
pub fn shorten(text: &str) -> String {
    if text.chars().count() <= SHOWN {
        return text.to_string();
    }
    text.chars().take(SHOWN - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{
        Float64Array, Int32Array, StringArray, StringViewArray, TimestampNanosecondArray, TimestampSecondArray,
    };
    use datafusion::prelude::SessionContext;

    fn column(name: &str, data_type: DataType, nullable: bool) -> ContractColumn {
        ContractColumn { name: name.into(), data_type, nullable }
    }

    fn time() -> DataType {
        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
    }

    fn contract(columns: Vec<ContractColumn>, checks: &[(&str, &str)]) -> Contract {
        let checks = checks.iter().map(|(n, s)| Check { name: (*n).into(), sql: (*s).into() }).collect();
        Contract { columns, checks }
    }

    fn enforcer(contract: &Contract) -> Result<ContractEnforcer> {
        ContractEnforcer::new(contract, &[], &SessionContext::new().state())
    }

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap()
    }

    #[test]
    fn only_casts_that_lose_nothing_are_silent() {
        use DataType::*;
        let ns = Timestamp(TimeUnit::Nanosecond, None);
        for (from, to, fits) in [
            (Int32, Int64, true),
            (Int64, Int32, false),
            (UInt32, Int64, true),
            (UInt64, Int64, false),
            (Int32, Float64, true),
            (Int64, Float64, false),
            (Float32, Float64, true),
            (Float64, Float32, false),
            (Utf8View, Utf8, true),
            (LargeUtf8, Utf8, true),
            (Int64, Utf8, false),
            (Utf8, Int64, false),
            (BinaryView, Binary, true),
            (ns, time(), true),
            (Date32, time(), false),
            (time(), Date32, false),
            (Decimal128(10, 2), Decimal128(12, 2), true),
            (Decimal128(10, 2), Decimal128(12, 4), true),
            (Decimal128(10, 2), Decimal128(10, 4), false),
            (Int32, Decimal128(12, 2), true),
            (Int64, Decimal128(18, 0), false),
            (Null, Utf8, true),
            (Boolean, Int32, false),
            (Dictionary(Box::new(Int32), Box::new(Utf8)), Utf8, true),
        ] {
            assert_eq!(is_lossless(&from, &to), fits, "{from} -> {to}");
        }
    }

    #[test]
    fn columns_fit_by_position() {
        let contract = contract(
            vec![column("a", DataType::Utf8, false), column("b", DataType::Int64, true), column("c", time(), true)],
            &[],
        );
        let query = |fields: Vec<Field>| contract.fits(&Schema::new(fields));
        let text = |name: &str, nullable| Field::new(name, DataType::Utf8View, nullable);
        let int = |name: &str| Field::new(name, DataType::Int32, true);
        assert_eq!(query(vec![text("x", false), int("y"), Field::new("z", time(), true)]), vec![]);
        assert_eq!(
            query(vec![text("a", true), text("b", true)]),
            vec![
                Misfit::MayBeNull { position: 0 },
                Misfit::Type { position: 1, found: DataType::Utf8View },
                Misfit::Missing { position: 2 },
            ]
        );
        assert_eq!(
            query(vec![text("a", false), int("c"), Field::new("b", time(), true), int("d")]),
            vec![
                Misfit::Name { position: 1, found: "c".into() },
                Misfit::Name { position: 2, found: "b".into() },
                Misfit::Extra { position: 3, name: "d".into() },
            ]
        );
    }

    #[test]
    fn a_batch_is_cast_and_passes() {
        let contract = contract(
            vec![column("s", DataType::Utf8, false), column("t", time(), true), column("n", DataType::Int64, true)],
            &[("small", "n < 10")],
        );
        let out = enforcer(&contract)
            .unwrap()
            .enforce(batch(vec![
                ("x", Arc::new(StringViewArray::from(vec!["a", "b"]))),
                ("y", Arc::new(TimestampNanosecondArray::from(vec![Some(1_000), None]))),
                ("z", Arc::new(Int32Array::from(vec![Some(9), None]))),
            ]))
            .unwrap();
        assert_eq!(out.schema(), contract.arrow_schema());
        assert_eq!(out.num_rows(), 2);
        let t = out.column(1).as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
        assert_eq!((t.value(0), t.is_null(1)), (1, true));
    }

    #[test]
    fn violations_name_rule_row_and_value() {
        let contract = contract(
            vec![column("id", DataType::Utf8, false), column("score", DataType::Float64, true)],
            &[("score_is_a_probability", "score BETWEEN 0 AND 1"), ("short", "length(id) < 70")],
        );
        let enforcer = enforcer(&contract).unwrap();
        let judge = |ids: Vec<Option<&str>>, scores: Vec<Option<f64>>| {
            let columns: Vec<(&str, ArrayRef)> =
                vec![("id", Arc::new(StringArray::from(ids))), ("score", Arc::new(Float64Array::from(scores)))];
            enforcer.enforce(batch(columns)).unwrap_err()
        };
        let v = judge(vec![Some("a"), None], vec![Some(0.5), Some(7.0)]);
        assert_eq!((v.row, v.rule), (1, Rule::NotNull { column: "id".into() }));
        let v = judge(vec![Some("a"), Some("b"), Some("c")], vec![None, Some(1.0), Some(1.5)]);
        assert_eq!(v.row, 2);
        assert_eq!(v.to_string(), "check score_is_a_probability (score BETWEEN 0 AND 1) is broken: score = 1.5");
        let long = "x".repeat(100);
        let v = judge(vec![Some(&long)], vec![None]);
        assert_eq!(v.value.chars().count(), 60);
        assert!(v.value.ends_with('…'));
    }

    #[test]
    fn a_time_out_of_range_is_a_violation_with_its_row() {
        let contract = contract(vec![column("t", time(), true)], &[]);
        let t: ArrayRef = Arc::new(TimestampSecondArray::from(vec![Some(1), None, Some(i64::MAX / 2)]));
        let v = enforcer(&contract).unwrap().enforce(batch(vec![("t", t)])).unwrap_err();
        assert_eq!(v.row, 2);
        assert!(matches!(v.rule, Rule::Range { .. }), "{v}");
    }

    #[test]
    fn a_check_must_type() {
        let of = |sql: &str| {
            let contract = contract(vec![column("n", DataType::Int64, true)], &[("c", sql)]);
            enforcer(&contract).map(|_| ()).map_err(|e| e.message().to_string())
        };
        assert_eq!(of("n > 0"), Ok(()));
        assert_eq!(
            of("n + 1"),
            Err("check c (n + 1): a CHECK must be true or false, and this is BIGINT; mend the check".into())
        );
        assert!(of("m > 0").unwrap_err().contains("m"), "unknown column");
        assert!(of("random() > n").unwrap_err().contains("random() does not"));
        assert!(of("sum(n) > 1").unwrap_err().contains("aggregate"));
        assert!(of("n >").is_err());
    }

    #[test]
    fn the_tables_own_checks_are_judged_too() {
        let contract = contract(vec![column("n", DataType::Int64, true)], &[]);
        let extra = [Check { name: "table".into(), sql: "n <> 3".into() }];
        let enforcer = ContractEnforcer::new(&contract, &extra, &SessionContext::new().state()).unwrap();
        let n: ArrayRef = Arc::new(Int32Array::from(vec![1, 3]));
        assert_eq!(enforcer.enforce(batch(vec![("n", n)])).unwrap_err().row, 1);
    }

    #[test]
    fn rows_are_divided_and_each_says_all_that_it_breaks() {
        let columns = vec![
            column("id", DataType::Utf8, false),
            column("at", time(), false),
            column("score", DataType::Float64, true),
        ];
        let checks = [("score_is_a_share", "score BETWEEN 0 AND 1"), ("divides", "10 / length(id) > 1")];
        let enforcer = enforcer(&contract(columns, &checks)).unwrap();
        let ids = StringArray::from(vec![Some("a"), None, Some("b"), Some(""), Some("c")]);
        let at = TimestampSecondArray::from(vec![Some(1), None, Some(i64::MAX), Some(4), Some(5)]);
        let score = Float64Array::from(vec![Some(0.5), Some(2.0), Some(3.0), None, None]);
        let whole = batch(vec![("i", Arc::new(ids)), ("t", Arc::new(at)), ("s", Arc::new(score))]);
        let divided = enforcer.divide(whole.clone()).unwrap();
        assert_eq!(divided.kept, enforcer.enforce(divided.kept.clone()).unwrap());
        assert_eq!(divided.kept.column(0).as_string::<i32>().iter().collect::<Vec<_>>(), [Some("a"), Some("c")]);
        let broken = divided.broken.unwrap();
        let names: Vec<Vec<&str>> = broken.violations.iter().map(|v| v.iter().map(String::as_str).collect()).collect();
        assert_eq!(
            names,
            [
                vec!["id_not_null", "at_not_null", "score_is_a_share"],
                vec!["at_range", "score_is_a_share"],
                vec!["divides"]
            ]
        );
        assert_eq!(broken.unfit[1].get("at").map(String::as_str), Some("9223372036854775807"));
        assert!(broken.unfit[0].is_empty() && broken.unfit[2].is_empty());
        assert_eq!(broken.rows.num_rows(), 3);
        assert_eq!(broken.rows.column(2).as_primitive::<arrow::datatypes::Float64Type>().values()[..2], [2.0, 3.0]);
        let fine = enforcer.divide(whole.slice(0, 1)).unwrap();
        assert!(fine.broken.is_none() && fine.kept.num_rows() == 1);
    }
}
