//! What is common to the models at the end of pipelines: how they are loaded, and how classes are decided.

use std::fmt::Debug;

use super::directory::Stage;
use super::vector::{Block, Rows};
use crate::error::Result;

/// A model that scores vectors.
pub(super) trait Predictor: Debug + Send + Sync {
    /// The predictions of a block, and row by row the probabilities if it has some.
    ///
    /// # Errors
    /// `Violated` when a row, other than those that are dropped, has what the model refuses.
    fn predict(&self, vectors: &Rows<'_>, block: &Block<'_>, predictions: &mut [f64], values: &mut [f64])
    -> Result<()>;
}

/// A model and what is known of it.
#[derive(Debug)]
pub(super) struct Loaded {
    /// What scores.
    pub predictor: Box<dyn Predictor>,
    /// Its vectors, among the columns that the steps make.
    pub column: usize,
    /// How many classes it has; none if it gives a number.
    pub classes: Option<usize>,
    /// Whether it says how probable they are.
    pub has_probabilities: bool,
    /// What it was trained for.
    pub objective: String,
    /// How many trees it has.
    pub trees: usize,
}

/// How a class is chosen: the most probable one, or the one that is most probable for its threshold.
#[derive(Debug, Default)]
pub(super) struct Thresholds(Option<Vec<f64>>);

impl Thresholds {
    /// The thresholds of a model of so many classes.
    pub fn of(stage: &Stage, classes: usize) -> Result<Self> {
        if !stage.has("thresholds") {
            return Ok(Self(None));
        }
        let thresholds = stage.numbers("thresholds")?;
        match thresholds.len() == classes {
            true => Ok(Self(Some(thresholds))),
            false => Err(stage.fault(format_args!(
                "it has {} thresholds and {classes} classes; save the model again",
                thresholds.len()
            ))),
        }
    }

    /// Whether there are some.
    pub fn are_set(&self) -> bool {
        self.0.is_some()
    }

    /// The class, as `ProbabilisticClassificationModel.raw2prediction` chooses it.
    pub fn choose(&self, raw: &[f64], probabilities: &[f64]) -> f64 {
        let Some(thresholds) = &self.0 else {
            return first_biggest(raw.iter().copied());
        };
        let scaled = probabilities.iter().zip(thresholds);
        first_biggest(scaled.map(|(probability, threshold)| match threshold {
            0.0 => f64::INFINITY,
            threshold => probability / threshold,
        }))
    }
}

/// The index of the biggest number, as `DenseVector.argmax` has it: NaN stays if it is the first.
fn first_biggest(values: impl Iterator<Item = f64>) -> f64 {
    let (mut best, mut most) = (0, f64::NAN);
    for (at, value) in values.enumerate() {
        if at == 0 || value > most {
            (best, most) = (at, value);
        }
    }
    best as f64
}

/// Makes probabilities of raw values, as `Utils.softmax` does: infinity takes all.
pub(super) fn softmax(values: &mut [f64]) {
    let mut most = f64::MIN;
    for at in 0..values.len() {
        let value = values[at];
        if value == f64::INFINITY {
            values.iter_mut().for_each(|value| *value *= 0.0);
            values[at] = 1.0;
            return;
        }
        most = if value > most { value } else { most };
    }
    let mut sum = 0.0;
    for value in values.iter_mut() {
        *value = (*value - most).exp();
        sum += *value;
    }
    let scale = 1.0 / sum;
    values.iter_mut().for_each(|value| *value *= scale);
}

/// Makes shares of counts, as `normalizeToProbabilitiesInPlace` does; zeros stay zeros.
pub(super) fn shares(values: &mut [f64]) {
    let sum: f64 = values.iter().sum();
    if sum != 0.0 {
        values.iter_mut().for_each(|value| *value /= sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_biggest_one_is_chosen() {
        let choose = |raw: &[f64]| Thresholds(None).choose(raw, &[]);
        assert_eq!(choose(&[1.0, 3.0, 3.0]), 1.0);
        assert_eq!(choose(&[f64::NAN, 3.0]), 0.0);
        assert_eq!(choose(&[1.0, f64::NAN, 3.0]), 2.0);
    }

    #[test]
    fn thresholds_scale_probabilities() {
        let stage = Stage::of("x", json!({"thresholds": [0.5, 0.0, 0.9]}));
        assert_eq!(Thresholds::of(&stage, 3).unwrap().choose(&[0.0; 3], &[0.9, 0.0, 0.1]), 1.0);
        let stage = Stage::of("x", json!({"thresholds": [0.2, 0.8]}));
        assert_eq!(Thresholds::of(&stage, 2).unwrap().choose(&[0.0; 2], &[0.3, 0.7]), 0.0);
        let error = Thresholds::of(&stage, 3).unwrap_err().to_string();
        assert_eq!(error, "stage x_1: it has 2 thresholds and 3 classes; save the model again");
    }

    #[test]
    fn infinity_takes_all() {
        let mut values = [1.0, f64::INFINITY, -2.0];
        softmax(&mut values);
        assert_eq!(values, [0.0, 1.0, -0.0]);
        let mut values = [1000.0, 1000.0];
        softmax(&mut values);
        assert_eq!(values, [0.5, 0.5]);
    }
}
