//! A batch divided into the rows that keep the contract and those that break it, each with all that it breaks.
//!
//! It is only done where a row breaks something: then each rule gives a mask over the batch, and the rows are filtered.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, StringArray};
use arrow::compute::{CastOptions, cast_with_options, filter_record_batch, not};
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;

use super::casts::watched_column;
use super::{CompiledCheck, ContractEnforcer, shorten, show};

/// A batch, divided.
#[derive(Debug)]
pub struct Divided {
    /// The rows that keep the contract, with its schema.
    pub kept: RecordBatch,
    /// The rows that break it; `None` when there are none.
    pub broken: Option<Broken>,
}

/// Rows that break a contract.
#[derive(Debug)]
pub struct Broken {
    /// The rows, with the contract's columns, all nullable. A value that its column cannot hold is NULL.
    pub rows: RecordBatch,
    /// What each row breaks, by name: a check's own, `<column>_not_null`, or `<column>_range` for a value that the
    /// column cannot hold.
    pub violations: Vec<Vec<String>>,
    /// The values that their columns cannot hold, by column, as text.
    pub unfit: Vec<BTreeMap<String, String>>,
}

/// A rule that some rows break.
struct Mask {
    name: String,
    broken: BooleanArray,
}

impl ContractEnforcer {
    /// As [`ContractEnforcer::enforce`], but rows that break the contract are set apart.
    ///
    /// # Errors
    /// Arrow's, which only a fault of ours or memory can cause.
    pub fn divide(&self, batch: RecordBatch) -> Result<Divided, ArrowError> {
        let failed = failed_casts(&batch);
        if failed.is_empty()
            && let Ok(kept) = self.enforce(batch.clone())
        {
            return Ok(Divided { kept, broken: None });
        }
        self.divide_broken(&batch, &failed)
    }

    fn divide_broken(
        &self,
        batch: &RecordBatch,
        failed: &BTreeMap<usize, &StringArray>,
    ) -> Result<Divided, ArrowError> {
        let count = batch.num_rows();
        let mut masks: Vec<Mask> = Vec::new();
        let mut unfit: Vec<BTreeMap<String, String>> = vec![BTreeMap::new(); count];
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        for (at, (field, source)) in self.schema.fields().iter().zip(batch.columns()).enumerate() {
            let column = cast_with_options(source, field.data_type(), &CastOptions::default())?;
            let texts = failed.get(&at);
            let misfits = lost(source, &column, texts);
            if misfits.true_count() > 0 {
                for row in (0..count).filter(|row| misfits.value(*row)) {
                    let text = texts.filter(|texts| texts.is_valid(row)).map(|texts| shorten(texts.value(row)));
                    unfit[row].insert(field.name().clone(), text.unwrap_or_else(|| show(source, row)));
                }
                masks.push(Mask { name: format!("{}_range", field.name()), broken: misfits.clone() });
            }
            if !field.is_nullable() && column.logical_null_count() > 0 {
                let is_null = |row| column.logical_nulls().is_some_and(|n| n.is_null(row)) && !misfits.value(row);
                let broken = BooleanArray::from_iter((0..count).map(|row| Some(is_null(row))));
                if broken.true_count() > 0 {
                    masks.push(Mask { name: format!("{}_not_null", field.name()), broken });
                }
            }
            columns.push(column);
        }
        let fields = self.schema.fields().iter();
        let fields: Vec<Field> = fields.map(|field| field.as_ref().clone().with_nullable(true)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let rows = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?;
        for check in &self.checks {
            let broken = check.broken(&rows);
            if broken.true_count() > 0 {
                masks.push(Mask { name: check.check.name.clone(), broken });
            }
        }
        self.filter(&rows, &masks, unfit)
    }

    fn filter(
        &self,
        rows: &RecordBatch,
        masks: &[Mask],
        mut unfit: Vec<BTreeMap<String, String>>,
    ) -> Result<Divided, ArrowError> {
        let any = |row| masks.iter().any(|mask| mask.broken.value(row));
        let broken = BooleanArray::from_iter((0..rows.num_rows()).map(|row| Some(any(row))));
        let kept = filter_record_batch(rows, &not(&broken)?)?;
        let options = RecordBatchOptions::new().with_row_count(Some(kept.num_rows()));
        let kept = RecordBatch::try_new_with_options(Arc::clone(&self.schema), kept.columns().to_vec(), &options)?;
        if broken.true_count() == 0 {
            return Ok(Divided { kept, broken: None });
        }
        let places: Vec<usize> = (0..rows.num_rows()).filter(|row| broken.value(*row)).collect();
        let names = |row: &usize| {
            let broken = masks.iter().filter(|mask| mask.broken.value(*row));
            broken.map(|mask| mask.name.clone()).collect()
        };
        Ok(Divided {
            kept,
            broken: Some(Broken {
                violations: places.iter().map(names).collect(),
                unfit: places.iter().map(|row| std::mem::take(&mut unfit[*row])).collect(),
                rows: filter_record_batch(rows, &broken)?,
            }),
        })
    }
}

/// The values that casts of the query could not keep, by the position of their column.
fn failed_casts(batch: &RecordBatch) -> BTreeMap<usize, &StringArray> {
    let schema = batch.schema_ref().fields().iter().zip(batch.columns());
    let texts = schema.filter_map(|(field, column)| {
        let at = watched_column(field.name())?;
        column.as_string_opt::<i32>().filter(|texts| texts.null_count() < texts.len()).map(|texts| (at, texts))
    });
    texts.collect()
}

/// The rows whose value a cast could not keep: this one, or one of the query, which left it as text.
fn lost(source: &ArrayRef, cast: &ArrayRef, texts: Option<&&StringArray>) -> BooleanArray {
    let (before, after) = (source.logical_nulls(), cast.logical_nulls());
    let is_null = |nulls: &Option<arrow::buffer::NullBuffer>, row| nulls.as_ref().is_some_and(|n| n.is_null(row));
    let in_query = |row| texts.is_some_and(|texts| texts.is_valid(row));
    let is_lost = |row| in_query(row) || is_null(&after, row) && !is_null(&before, row);
    BooleanArray::from_iter((0..source.len()).map(|row| Some(is_lost(row))))
}

impl CompiledCheck {
    /// The rows that break the check. One that it cannot be computed for breaks it too.
    fn broken(&self, rows: &RecordBatch) -> BooleanArray {
        if let Some(verdict) = self.verdict(rows) {
            return verdict;
        }
        let one = |row| self.verdict(&rows.slice(row, 1)).is_none_or(|verdict| verdict.value(0));
        BooleanArray::from_iter((0..rows.num_rows()).map(|row| Some(one(row))))
    }

    fn verdict(&self, rows: &RecordBatch) -> Option<BooleanArray> {
        let count = rows.num_rows();
        let verdict = self.expr.evaluate(rows).and_then(|value| value.into_array(count)).ok()?;
        let Some(verdict) = verdict.as_boolean_opt() else { return Some(BooleanArray::from(vec![false; count])) };
        let is_false = |row| verdict.is_valid(row) && !verdict.value(row);
        Some(BooleanArray::from_iter((0..count).map(|row| Some(is_false(row)))))
    }
}
