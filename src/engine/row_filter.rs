//! Conditions on a topic's columns, answered before a record is built: the columns that they read are decoded first,
//! and only the records that pass are decoded further.

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::datatypes::Schema;
use datafusion::common::cast::as_boolean_array;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, Operator};
use datafusion::physical_expr::PhysicalExpr;

use crate::decode::{DecodeFault, Decoder, Oddities, Reason};
use crate::error::{Error, Result};
use crate::source::RawBatch;

/// A condition on rows.
#[derive(Debug, Clone)]
pub(crate) struct Condition {
    /// What it reads: indices into the topic's columns, all of them fields of the value.
    pub(crate) columns: Vec<usize>,
    /// The condition over these columns.
    pub(crate) predicate: Arc<dyn PhysicalExpr>,
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.columns == other.columns && self.predicate.as_ref() == other.predicate.as_ref()
    }
}

impl Condition {
    /// The names of what it reads, in the topic's columns.
    pub(crate) fn names<'s>(&self, columns: &'s Schema) -> Vec<&'s str> {
        self.columns.iter().map(|&index| columns.field(index).name().as_str()).collect()
    }

    /// Which rows of a batch of its columns pass; one of NULL does not.
    ///
    /// # Errors
    /// What the expression returns.
    pub(crate) fn mask(&self, columns: &RecordBatch) -> Result<BooleanArray> {
        let array = self.predicate.evaluate(columns)?.into_array(columns.num_rows())?;
        as_boolean_array(&array).cloned().map_err(|e| Error::invalid("a WHERE is not a condition").caused_by(e))
    }
}

/// Whether a condition has an answer for every row, or NULL: it compares columns and constants, and nothing in it is
/// converted or computed.
pub(crate) fn never_fails(condition: &Expr) -> bool {
    let mut never = true;
    // Nothing fails on the way.
    drop(condition.apply(|expr| {
        never &= match expr {
            Expr::BinaryExpr(binary) => compares(binary.op),
            Expr::ScalarFunction(call) => call.name() == "get_field",
            Expr::Column(_)
            | Expr::Literal(..)
            | Expr::Alias(_)
            | Expr::Not(_)
            | Expr::Like(_)
            | Expr::Between(_)
            | Expr::InList(_)
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::IsTrue(_)
            | Expr::IsFalse(_)
            | Expr::IsUnknown(_)
            | Expr::IsNotTrue(_)
            | Expr::IsNotFalse(_)
            | Expr::IsNotUnknown(_)
            | Expr::TryCast(_) => true,
            _ => false,
        };
        Ok(TreeNodeRecursion::Continue)
    }));
    never
}

fn compares(operator: Operator) -> bool {
    use Operator::{And, Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq, Or};
    matches!(operator, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom | And | Or)
}

/// Where the condition of a scan is answered.
#[derive(Debug)]
pub(crate) enum Filter {
    /// Before anything else is decoded.
    First(Box<FirstPass>),
    /// From decoded rows: from these columns of the decoder.
    After(Condition, Vec<usize>),
}

impl Filter {
    /// Answers `condition`, over the fields `names`, by the decoder `first` of just these; without it from rows whose
    /// columns are `fields`.
    pub(crate) fn new(condition: &Condition, names: &[&str], fields: &[&str], first: Option<Decoder>) -> Self {
        let condition = condition.clone();
        let columns = names.iter().filter_map(|name| fields.iter().position(|field| field == name)).collect();
        match first {
            Some(decoder) => Filter::First(Box::new(FirstPass { decoder, condition, again: columns })),
            None => Filter::After(condition, columns),
        }
    }
}

/// Answers a condition before anything else is decoded.
#[derive(Debug)]
pub(crate) struct FirstPass {
    decoder: Decoder,
    condition: Condition,
    /// The columns of the main decoder that are decoded again of records that pass.
    again: Vec<usize>,
}

/// What passed a condition.
pub(crate) struct Passed {
    /// The records, by their place in the batch.
    pub(crate) rows: Vec<u32>,
    /// Those whose condition could not be answered, and why.
    pub(crate) dead: Vec<(u32, DecodeFault)>,
}

impl FirstPass {
    /// The records of `raw` that pass. Records without a value are rows of NULLs, or left out with `skip_nulls`; those
    /// of more than `max_record_bytes` are dead.
    ///
    /// # Errors
    /// What the condition returns.
    pub(crate) fn run(&mut self, raw: &RawBatch, skip_nulls: bool, max_record_bytes: usize) -> Result<Passed> {
        let mut nulls = raw.values.nulls.iter().copied().peekable();
        let mut answered = Vec::with_capacity(raw.len());
        let mut dead = Vec::new();
        for row in 0..raw.len() as u32 {
            if nulls.next_if_eq(&row).is_some() {
                if !skip_nulls {
                    self.decoder.push_null();
                    answered.push(row);
                }
                continue;
            }
            let value = raw.values.value(row as usize);
            match check_size(value, max_record_bytes).and_then(|()| self.decoder.push(value)) {
                Ok(()) => answered.push(row),
                Err(fault) => dead.push((row, fault)),
            }
        }
        let mask = self.condition.mask(&self.decoder.finish()?)?;
        let mut passes = mask.iter();
        answered.retain(|_| passes.next().flatten() == Some(true));
        Ok(Passed { rows: answered, dead })
    }

    /// What was odd since the last call, here and in `main`, which decoded the records that passed: each column counts
    /// where most records of it were seen.
    pub(crate) fn take_oddities(&mut self, main: &mut Decoder) -> Oddities {
        let (mut odd, of_passed) = (self.decoder.take_oddities(), main.take_oddities_but(&self.again));
        // Of unknown fields nobody says in which column they are.
        let unknown_fields = odd.unknown_fields.max(of_passed.unknown_fields);
        odd.add(of_passed);
        Oddities { unknown_fields, ..odd }
    }
}

/// Whether a value is as short as the topic's table says.
///
/// # Errors
/// The fault of a record whose value is not.
#[inline]
pub(crate) fn check_size(value: &[u8], max_record_bytes: usize) -> Result<(), DecodeFault> {
    if value.len() <= max_record_bytes {
        return Ok(());
    }
    Err(DecodeFault { reason: Reason::Oversized, position: 0, field: String::new() })
}
