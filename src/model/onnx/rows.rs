//! Whether a graph's rows are alone: one that sums or sorts over them would say of a row what its neighbours say, and
//! which rows are neighbours depends on how many records a micro-batch has.

use arrow::array::StringArray;

use super::{OnnxModel, refused};
use crate::error::Result;
use crate::model::{Column, Model, Scores};

/// Rows that are made up.
const ROWS: usize = 5;
/// ONNX Runtime sums in another order where there are more rows.
const TOLERANCE: f64 = 1e-3;

/// Values of a feature in rows that are made up, all of them different.
enum MadeUp {
    Numbers(Vec<f64>),
    Texts(Vec<String>),
}

impl MadeUp {
    fn new(feature: usize, is_text: bool) -> Self {
        let value = |row: usize| (row * 7 + feature * 3) % 11;
        if is_text {
            return Self::Texts((0..ROWS).map(|row| value(row).to_string()).collect());
        }
        Self::Numbers((0..ROWS).map(|row| value(row) as f64 - 4.0).collect())
    }
}

/// Scores some rows together and each alone.
///
/// # Errors
/// `Invalid` when that is not the same. A graph that refuses rows which are made up is left to its user's rows.
pub(super) fn check_alone(model: &OnnxModel) -> Result<()> {
    let made: Vec<MadeUp> =
        model.about.features.iter().enumerate().map(|(at, feature)| MadeUp::new(at, feature.is_text)).collect();
    let Ok(together) = score(model, &made, 0, ROWS) else { return Ok(()) };
    for row in 0..ROWS {
        let Ok(alone) = score(model, &made, row, 1) else { return Ok(()) };
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

fn score(model: &OnnxModel, made: &[MadeUp], first: usize, rows: usize) -> Result<Scores> {
    let texts: Vec<Option<StringArray>> = made
        .iter()
        .map(|feature| match feature {
            MadeUp::Texts(texts) => Some(StringArray::from_iter_values(&texts[first..first + rows])),
            MadeUp::Numbers(_) => None,
        })
        .collect();
    fn column<'c>(feature: &'c MadeUp, texts: &'c Option<StringArray>, first: usize, rows: usize) -> Column<'c> {
        match (feature, texts) {
            (MadeUp::Numbers(numbers), _) => Column::Numbers(&numbers[first..first + rows]),
            (MadeUp::Texts(_), Some(texts)) => Column::Texts(texts),
            (MadeUp::Texts(_), None) => Column::Numbers(&[]),
        }
    }
    let columns: Vec<Column<'_>> =
        made.iter().zip(&texts).map(|(feature, texts)| column(feature, texts, first, rows)).collect();
    model.score(&columns, rows)
}
