//! The contract of a sink: declared columns and checks, held against a plan's schema and against every row.

use arrow::datatypes::DataType;

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
