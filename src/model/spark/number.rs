//! Stages that make numbers of numbers: Imputer, Bucketizer, Binarizer. NaN is NULL to them, as a column that comes
//! from outside has it.

use std::cmp::Ordering;

use super::assembler::Invalid;
use super::directory::Stage;
use super::plan::{Kind, Plan, pairs};
use super::table::{Table, check_width};
use super::vector::{Block, Place, Step};
use crate::error::{Error, Result};

#[derive(Debug)]
struct Numbers {
    name: String,
    place: Place,
    column: usize,
    change: Change,
}

#[derive(Debug)]
enum Change {
    /// A number in place of a missing one, and in place of the one that stands for missing ones.
    Impute { missing: f64, number: f64 },
    /// The bucket. NULL stays NULL; `keep` is about NaN, which no column from outside has.
    Bucket { splits: Vec<f64>, invalid: Invalid },
    /// Whether it is bigger.
    Binarize { threshold: f64 },
}

#[derive(Debug)]
struct VectorBinarizer {
    input: usize,
    column: usize,
    threshold: f64,
}

pub(super) fn add_imputer(plan: &mut Plan, stage: &Stage) -> Result<()> {
    let table = Table::read(stage)?;
    let missing = stage.number("missingValue")?;
    for (_, input, output) in pairs(plan, stage)? {
        let number = table.number(&input)?;
        add(plan, stage, input, &output, Change::Impute { missing, number })?;
    }
    Ok(())
}

pub(super) fn add_bucketizer(plan: &mut Plan, stage: &Stage) -> Result<()> {
    let invalid = Invalid::of(stage)?;
    let all = match stage.has("inputCols") {
        true => stage.lists("splitsArray")?,
        false => vec![stage.numbers("splits")?],
    };
    for (at, input, output) in pairs(plan, stage)? {
        let splits = all.get(at).cloned().unwrap_or_default();
        if splits.len() < 3 || splits.windows(2).any(|pair| pair[0].partial_cmp(&pair[1]) != Some(Ordering::Less)) {
            return Err(stage.fault("its splits are no ascending numbers, three or more; save the model again"));
        }
        add(plan, stage, input, &output, Change::Bucket { splits, invalid })?;
    }
    Ok(())
}

pub(super) fn add_binarizer(plan: &mut Plan, stage: &Stage) -> Result<()> {
    let several = stage.has("inputCols") && stage.has("thresholds");
    let thresholds = if several { stage.numbers("thresholds")? } else { Vec::new() };
    for (at, input, output) in pairs(plan, stage)? {
        let threshold = match thresholds.get(at) {
            Some(threshold) => *threshold,
            None => stage.number("threshold")?,
        };
        if !plan.is_vector(&input) {
            add(plan, stage, input, &output, Change::Binarize { threshold })?;
            continue;
        }
        let vectors = plan.vectors(stage, &input, None)?;
        if threshold < 0.0 && vectors.shape.is_sparse {
            return Err(stage.fault(format_args!(
                "its threshold {threshold} makes ones of the zeros of a sparse vector; train with one that is not \
                 negative"
            )));
        }
        check_width(stage, vectors.shape.width)?;
        let mut shape = vectors.shape;
        shape.form = super::plan::Form::Compressed;
        let column = plan.make(stage, &output, Kind::Vector(shape))?;
        plan.push(VectorBinarizer { input: vectors.column, column, threshold });
    }
    Ok(())
}

fn add(plan: &mut Plan, stage: &Stage, name: String, output: &str, change: Change) -> Result<()> {
    let place = plan.number(stage, &name)?;
    let column = plan.make(stage, output, Kind::Number)?;
    plan.push(Numbers { name, place, column, change });
    Ok(())
}

impl Step for Numbers {
    fn run(&self, block: &mut Block<'_>) -> Result<()> {
        block.make(self.column, |block, out, dropped| {
            let out = out.zeros(block.rows);
            let rows = block.numbers(self.place).iter().zip(out).zip(dropped);
            match &self.change {
                Change::Impute { missing, number } => rows.for_each(|((value, out), _)| {
                    *out = if value.is_nan() || value == missing { *number } else { *value };
                }),
                // NULL is not bigger.
                Change::Binarize { threshold } => rows.for_each(|((value, out), _)| {
                    *out = f64::from(u8::from(value > threshold));
                }),
                Change::Bucket { splits, invalid } => {
                    for ((value, out), dropped) in rows {
                        *out = match bucket(splits, *value) {
                            _ if *dropped => f64::NAN,
                            _ if value.is_nan() => {
                                *dropped = *invalid == Invalid::Skip;
                                f64::NAN
                            }
                            Some(bucket) => bucket as f64,
                            None => return Err(self.outside(*value, splits)),
                        };
                    }
                }
            }
            Ok(())
        })
    }
}

impl Numbers {
    fn outside(&self, value: f64, splits: &[f64]) -> Error {
        let (first, last) = (splits.first().copied().unwrap_or_default(), splits.last().copied().unwrap_or_default());
        Error::violated(format!(
            "column {}: {value} is in no bucket of the Bucketizer, which go from {first} to {last}; give a number \
             between them, or let the splits begin with -inf and end with inf when training",
            self.name
        ))
    }
}

/// The bucket of a value, as `Bucketizer.binarySearchForBuckets` has it: the last one includes its upper bound, and
/// -0.0 comes before 0.0.
fn bucket(splits: &[f64], value: f64) -> Option<usize> {
    if splits.last().is_some_and(|last| value == *last) {
        return Some(splits.len() - 2);
    }
    match splits.binary_search_by(|split| split.total_cmp(&value)) {
        Ok(bucket) => Some(bucket),
        Err(after) => (1..splits.len()).contains(&after).then(|| after - 1),
    }
}

impl Step for VectorBinarizer {
    fn run(&self, block: &mut Block<'_>) -> Result<()> {
        block.make(self.column, |block, out, _| match block.vectors(self.input) {
            super::vector::Rows::Dense { values, .. } => {
                let out = out.zeros(values.len());
                // Below zero `Binarizer` asks the other way round, which tells for NaN.
                let asks_below = self.threshold < 0.0;
                for (value, out) in values.iter().zip(out) {
                    let is_below = *value <= self.threshold;
                    *out = f64::from(u8::from(if asks_below { !is_below } else { *value > self.threshold }));
                }
            }
            super::vector::Rows::Sparse(sparse) => {
                let out = out.no_vectors();
                for row in 0..block.rows {
                    let (indices, values) = sparse.row(row);
                    for (index, _) in indices.iter().zip(values).filter(|(_, value)| **value > self.threshold) {
                        out.indices.push(*index);
                        out.values.push(1.0);
                    }
                    out.end_row();
                }
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_those_of_a_binary_search() {
        let splits = [-1.0, 0.0, 1.5, 3.0];
        let found: Vec<_> =
            [-1.1, -1.0, -0.5, -0.0, 0.0, 1.5, 2.9, 3.0, 3.1].map(|value| bucket(&splits, value)).into();
        let expected = [None, Some(0), Some(0), Some(0), Some(1), Some(2), Some(2), Some(2), None];
        assert_eq!(found, expected);
        let open = [f64::NEG_INFINITY, 0.0, f64::INFINITY];
        assert_eq!(
            [f64::NEG_INFINITY, 1e300, f64::INFINITY].map(|value| bucket(&open, value)),
            [Some(0), Some(1), Some(1)]
        );
    }
}
