//! Stages that scale the numbers of vectors: StandardScaler, RobustScaler, MaxAbsScaler, MinMaxScaler, Normalizer, IDF.

use super::directory::Stage;
use super::plan::{Form, Kind, Plan};
use super::table::Table;
use super::vector::{Block, Data, MAX_DENSE, Made, Rows, Step, Stored};
use crate::error::{Error, Result};

#[derive(Debug)]
struct Scaler {
    input: usize,
    column: usize,
    change: Change,
}

#[derive(Debug)]
enum Change {
    /// Zero stays zero.
    Scale(Vec<f64>),
    Shift(Vec<f64>),
    ShiftAndScale(Vec<f64>, Vec<f64>),
    /// To a range: each number's smallest one, its scale (zero where all were the same), the range's start and its
    /// middle.
    Range {
        smallest: Vec<f64>,
        scale: Vec<f64>,
        start: f64,
        middle: f64,
    },
    /// As it is.
    Nothing,
}

#[derive(Debug)]
struct Normalizer {
    input: usize,
    column: usize,
    power: f64,
}

/// The scale of a spread; where there is none, all becomes zero (`StandardScalerModel.transform`).
fn over(spread: f64) -> f64 {
    if spread == 0.0 { 0.0 } else { 1.0 / spread }
}

pub(super) fn add(plan: &mut Plan, stage: &Stage) -> Result<()> {
    let table = Table::read(stage)?;
    let vector = |name: &str| {
        table
            .vector(name, 0)?
            .expanded()
            .ok_or_else(|| stage.fault("its vectors are too long; train with fewer features"))
    };
    let change = match stage.kind() {
        "MaxAbsScalerModel" => Change::Scale(
            vector("maxAbs")?.into_iter().map(|most| if most == 0.0 { 1.0 } else { 1.0 / most }).collect(),
        ),
        "MinMaxScalerModel" => range(stage, vector("originalMin")?, &vector("originalMax")?)?,
        kind => {
            let (centre, spread, with_centre, with_spread) = match kind {
                "RobustScalerModel" => ("median", "range", "withCentering", "withScaling"),
                _ => ("mean", "std", "withMean", "withStd"),
            };
            let (shift, spread) = (vector(centre)?, vector(spread)?);
            if shift.len() != spread.len() {
                return Err(stage.fault("its vectors have different lengths; save the model again"));
            }
            let scale = spread.into_iter().map(over).collect();
            match (stage.flag(with_centre)?, stage.flag(with_spread)?) {
                (true, true) => Change::ShiftAndScale(shift, scale),
                (true, false) => Change::Shift(shift),
                (false, true) => Change::Scale(scale),
                (false, false) => Change::Nothing,
            }
        }
    };
    push(plan, stage, change)
}

/// `MinMaxScalerModel.transform`.
fn range(stage: &Stage, smallest: Vec<f64>, biggest: &[f64]) -> Result<Change> {
    let (start, end) = (stage.number("min")?, stage.number("max")?);
    if smallest.len() != biggest.len() {
        return Err(stage.fault("its vectors have different lengths; save the model again"));
    }
    let scale = |(smallest, biggest): (&f64, &f64)| match biggest - smallest {
        0.0 => 0.0,
        range => (end - start) / range,
    };
    let scale = smallest.iter().zip(biggest).map(scale).collect();
    Ok(Change::Range { smallest, scale, start, middle: (start + end) / 2.0 })
}

pub(super) fn add_idf(plan: &mut Plan, stage: &Stage) -> Result<()> {
    let idf = match Table::read(stage)?.vector("idf", 0)? {
        Stored::Dense(idf) => idf,
        sparse => sparse.expanded().ok_or_else(|| stage.fault("its idf is too long; train with fewer features"))?,
    };
    push(plan, stage, Change::Scale(idf))
}

fn push(plan: &mut Plan, stage: &Stage, change: Change) -> Result<()> {
    let (width, stays_sparse) = match &change {
        Change::Scale(numbers) => (Some(numbers.len()), true),
        Change::Shift(numbers) | Change::ShiftAndScale(numbers, _) | Change::Range { smallest: numbers, .. } => {
            (Some(numbers.len()), false)
        }
        Change::Nothing => (None, true),
    };
    let vectors = plan.vectors(stage, stage.text("inputCol")?, width)?;
    let mut shape = vectors.shape;
    if !stays_sparse {
        if shape.width > MAX_DENSE {
            return Err(stage.fault(format_args!(
                "it fills the zeros of vectors of {} numbers, more than {MAX_DENSE}; train without withMean, \
                 or with MaxAbsScaler",
                shape.width
            )));
        }
        let is_range = matches!(change, Change::Range { .. });
        shape.form = if is_range { Form::Compressed } else { Form::Dense };
        shape.is_sparse = false;
    }
    let column = plan.make(stage, stage.text("outputCol")?, Kind::Vector(shape))?;
    plan.push(Scaler { input: vectors.column, column, change });
    Ok(())
}

pub(super) fn add_normalizer(plan: &mut Plan, stage: &Stage) -> Result<()> {
    let power = stage.number("p")?;
    if power.is_nan() || power < 1.0 {
        return Err(stage.fault(format_args!("its p is {power}; it must be 1 or more, save the model again")));
    }
    let vectors = plan.vectors(stage, stage.text("inputCol")?, None)?;
    let column = plan.make(stage, stage.text("outputCol")?, Kind::Vector(vectors.shape))?;
    plan.push(Normalizer { input: vectors.column, column, power });
    Ok(())
}

impl Step for Scaler {
    fn run(&self, block: &mut Block<'_>) -> Result<()> {
        block.make(self.column, |block, out, _| match block.vectors(self.input) {
            Rows::Dense { values, rows } => {
                let out = out.zeros(values.len());
                out.copy_from_slice(values);
                self.change.dense(rows, out);
            }
            Rows::Sparse(sparse) => match &self.change {
                Change::Scale(_) | Change::Nothing => {
                    let out = out.no_vectors();
                    (0..block.rows).for_each(|row| out.push_row(sparse.row(row)));
                    if let Change::Scale(scale) = &self.change {
                        for (value, index) in out.values.iter_mut().zip(&out.indices) {
                            *value *= scale.get(*index as usize).copied().unwrap_or_default();
                        }
                    }
                }
                Change::Shift(numbers)
                | Change::ShiftAndScale(numbers, _)
                | Change::Range { smallest: numbers, .. } => {
                    let out = out.zeros(numbers.len() * block.rows);
                    for row in 0..block.rows {
                        block.vectors(self.input).each(row, |at, value| out[at * block.rows + row] = value);
                    }
                    self.change.dense(block.rows, out);
                }
            },
        });
        Ok(())
    }
}

impl Change {
    /// Changes dense vectors.
    fn dense(&self, rows: usize, values: &mut [f64]) {
        let columns = values.chunks_exact_mut(rows.max(1));
        match self {
            Change::Scale(scale) => {
                columns.zip(scale).for_each(|(column, scale)| column.iter_mut().for_each(|value| *value *= scale));
            }
            Change::Shift(shift) => {
                columns.zip(shift).for_each(|(column, shift)| column.iter_mut().for_each(|value| *value -= shift));
            }
            Change::ShiftAndScale(shift, scale) => {
                for (column, (shift, scale)) in columns.zip(shift.iter().zip(scale)) {
                    column.iter_mut().for_each(|value| *value = (*value - shift) * scale);
                }
            }
            Change::Range { smallest, scale, start, middle } => {
                for (column, (smallest, scale)) in columns.zip(smallest.iter().zip(scale)) {
                    for value in column.iter_mut().filter(|value| !value.is_nan()) {
                        *value = if *scale == 0.0 { *middle } else { (*value - smallest) * scale + start };
                    }
                }
            }
            Change::Nothing => {}
        }
    }
}

impl Step for Normalizer {
    fn run(&self, block: &mut Block<'_>) -> Result<()> {
        let mut norms = [0.0; super::vector::BLOCK_ROWS];
        let norms = &mut norms[..block.rows];
        block.make(self.column, |block, out, _| {
            let vectors = block.vectors(self.input);
            self.norms(&vectors, norms);
            copy(&vectors, block.rows, out);
            match out.made() {
                Made::Dense(values) => {
                    for column in values.chunks_exact_mut(block.rows.max(1)) {
                        column.iter_mut().zip(norms.iter()).for_each(|(value, norm)| *value /= norm);
                    }
                }
                Made::Sparse(sparse) => {
                    let mut at = 0;
                    for (row, norm) in norms.iter().enumerate() {
                        let count = sparse.row(row).0.len();
                        sparse.values[at..at + count].iter_mut().for_each(|value| *value /= norm);
                        at += count;
                    }
                }
                Made::Nothing => {}
            }
        });
        Ok(())
    }
}

fn copy(vectors: &Rows<'_>, rows: usize, out: &mut Data) {
    match vectors {
        Rows::Dense { values, .. } => out.zeros(values.len()).copy_from_slice(values),
        Rows::Sparse(sparse) => {
            let out = out.no_vectors();
            (0..rows).for_each(|row| out.push_row(sparse.row(row)));
        }
    }
}

impl Normalizer {
    /// The norm of each row, 1 for that of zeros alone (`Vectors.norm`).
    fn norms(&self, vectors: &Rows<'_>, norms: &mut [f64]) {
        for (row, norm) in norms.iter_mut().enumerate() {
            let (mut sum, mut most) = (0.0, 0.0_f64);
            vectors.each(row, |_, value| match self.power {
                1.0 => sum += value.abs(),
                2.0 => sum += value * value,
                power if power.is_infinite() => most = if value.abs() > most { value.abs() } else { most },
                power => sum += value.abs().powf(power),
            });
            *norm = match self.power {
                1.0 => sum,
                2.0 => sum.sqrt(),
                power if power.is_infinite() => most,
                power => sum.powf(1.0 / power),
            };
            *norm = if *norm == 0.0 { 1.0 } else { *norm };
        }
    }
}

/// The error for vectors of another length.
pub(super) fn another_length(what: &str, got: usize, wanted: usize) -> Error {
    Error::invalid(format!("{what} has {got} numbers instead of {wanted}; save the model again"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_scaled_into_a_range() {
        let stage = Stage::of("x.MinMaxScalerModel", json!({"min": -1.0, "max": 2.0}));
        let change = range(&stage, vec![0.0, 5.0], &[10.0, 5.0]).unwrap();
        let mut values = [0.0, 10.0, f64::NAN, 5.0, 7.0, f64::NAN];
        change.dense(3, &mut values);
        assert_eq!(values[..2], [-1.0, 2.0]);
        assert_eq!(values[3..5], [0.5, 0.5]);
        assert!(values[2].is_nan() && values[5].is_nan());
        assert!(range(&stage, vec![0.0], &[]).is_err());
    }

    #[test]
    fn norms_are_those_of_spark() {
        let norm = |power, values: &[f64]| {
            let mut norms = [0.0];
            Normalizer { input: 0, column: 0, power }.norms(&Rows::Dense { values, rows: 1 }, &mut norms);
            norms[0]
        };
        assert_eq!(norm(1.0, &[3.0, -4.0]), 7.0);
        assert_eq!(norm(2.0, &[3.0, -4.0]), 5.0);
        assert_eq!(norm(f64::INFINITY, &[3.0, -4.0, f64::NAN]), 4.0);
        assert_eq!(norm(3.0, &[2.0, -2.0]), 16.0_f64.powf(1.0 / 3.0));
        assert_eq!(norm(2.0, &[0.0, 0.0]), 1.0);
    }

    #[test]
    fn what_did_not_spread_becomes_zero() {
        assert_eq!([over(0.0), over(4.0)], [0.0, 0.25]);
    }
}
