//! What is wrong with a plan, and what is wrong with a row.

use std::fmt;

use crate::error::Error;

/// A field that cannot be written from the table. A plan tells all of its faults at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanFault {
    /// The field, by its path in the message: `placement.slot`. Empty when it is about the message.
    pub field: String,
    /// What is wrong, and what to do.
    pub message: String,
}

impl PlanFault {
    pub(crate) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }

    /// All faults in one error, one a line.
    pub fn together(subject: &str, faults: &[PlanFault]) -> Error {
        let lines: Vec<String> = faults.iter().map(PlanFault::to_string).collect();
        Error::invalid(format!("{subject}: {}", lines.join("\n")))
    }
}

impl fmt::Display for PlanFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field.as_str() {
            "" => f.write_str(&self.message),
            field => write!(f, "field {field}: {}", self.message),
        }
    }
}

impl std::error::Error for PlanFault {}

/// Why a row cannot be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RowFault {
    /// The path of the column; empty until it is known.
    pub(super) column: String,
    /// What is wrong, and what to do.
    pub(super) message: String,
}

impl RowFault {
    #[cold]
    pub(super) fn new(message: impl Into<String>) -> Box<Self> {
        Box::new(Self { column: String::new(), message: message.into() })
    }

    /// The same fault in that column, unless it is known already to be further in.
    #[cold]
    pub(super) fn in_column(mut self: Box<Self>, column: &str) -> Box<Self> {
        if self.column.is_empty() {
            self.column = column.to_owned();
        }
        self
    }
}

/// What comes of writing.
pub(super) type Written = Result<(), Box<RowFault>>;
