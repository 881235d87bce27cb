//! Conditions on a topic's columns, answered before a record is built: the columns that they read are decoded first,
//! and only the records that pass are decoded further.

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::datatypes::Schema;
use datafusion::common::cast::as_boolean_array;
use datafusion::physical_expr::PhysicalExpr;

use crate::decode::{DecodeFault, Decoder, Reason};
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
        match first {
            Some(decoder) => Filter::First(Box::new(FirstPass { decoder, condition })),
            None => {
                let place = |name| fields.iter().position(|field| field == name);
                Filter::After(condition, names.iter().filter_map(place).collect())
            }
        }
    }
}

/// Answers a condition before anything else is decoded.
#[derive(Debug)]
pub(crate) struct FirstPass {
    decoder: Decoder,
    condition: Condition,
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

    /// Unknown fields of all records since the last call: those that passed are looked at twice, and count once.
    pub(crate) fn take_unknown_fields(&mut self) -> u64 {
        self.decoder.take_oddities().unknown_fields
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
