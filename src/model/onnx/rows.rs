//! Whether a graph's rows are alone: one that sums or sorts over them would say of a row what its neighbours say, and
//! which rows are neighbours depends on how many records a micro-batch has.

use std::ops::Range;

use arrow::array::StringArray;

use super::{OnnxModel, refused};
use crate::error::Result;
use crate::model::{Column, Model, Scores};

/// Rows that are made up.
const ROWS: usize = 5;
/// ONNX Runtime sums in another order where there are more rows.
const TOLERANCE: f64 = 1e-3;

/// Values of a feature in some of the rows that are made up.
enum MadeUp {
    Numbers(Vec<f64>),
    Texts(StringArray),
}

impl MadeUp {
    fn new(feature: usize, is_text: bool, rows: Range<usize>) -> Self {
        let values = rows.map(|row| (row * 7 + feature * 3) % 11);
        match is_text {
            true => Self::Texts(values.map(|value| Some(value.to_string())).collect()),
            false => Self::Numbers(values.map(|value| value as f64 - 4.0).collect()),
        }
    }

    fn column(&self) -> Column<'_> {
        match self {
            Self::Numbers(numbers) => Column::Numbers(numbers),
            Self::Texts(texts) => Column::Texts(texts),
        }
    }
}

/// Scores some rows together and each alone.
///
/// # Errors
/// `Invalid` when that is not the same. A graph that refuses rows which are made up is left to its user's rows.
pub(super) fn check_alone(model: &OnnxModel) -> Result<()> {
    let Ok(together) = score(model, 0..ROWS) else { return Ok(()) };
    for row in 0..ROWS {
        let Ok(alone) = score(model, row..row + 1) else { return Ok(()) };
        let width = model.about.output.width();
        let are_same = is_same(alone.predictions[0], together.predictions[row])
            && alone.values.iter().zip(&together.values[row * width..]).all(|(a, b)| is_same(*a, *b));
        if !are_same {
            return Err(refused(
                "what it says of a row depends on the rows beside it: an operator computes over the rows; export one \
                 whose first dimension is the batch",
            ));
        }
    }
    Ok(())
}

fn is_same(one: f64, two: f64) -> bool {
    one.to_bits() == two.to_bits() || (one - two).abs() <= TOLERANCE * one.abs().max(two.abs()).max(1.0)
}

fn score(model: &OnnxModel, rows: Range<usize>) -> Result<Scores> {
    let features = model.about.features.iter().enumerate();
    let made: Vec<MadeUp> = features.map(|(at, feature)| MadeUp::new(at, feature.is_text, rows.clone())).collect();
    let columns: Vec<Column<'_>> = made.iter().map(MadeUp::column).collect();
    model.score(&columns, rows.len())
}
