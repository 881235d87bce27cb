//! What a model was trained for, and what that makes of the sums of its trees.

use super::damaged;
use crate::error::{Error, Result};
use crate::model::about::{Output, Scores, biggest};

/// What is made of the sums, as `ConvertOutput` of the objectives does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Objective {
    /// Nothing.
    Raw,
    /// The square, with the sign of the sum: `reg_sqrt`.
    SignedSquare,
    Exponential,
    /// The logistic function.
    Logistic,
    /// `log(1 + exp(sum))`.
    Softplus,
    /// The logistic function of the sum times a factor is the probability of class 1.
    Binary(f64),
    /// Probabilities that add up to 1.
    Softmax,
    /// Each class against all others, with a factor as in `Binary`.
    OneAgainstAll(f64),
}

/// The word of an objective; without one, somebody's own function was trained for.
pub(super) fn name(text: Option<&str>) -> &str {
    text.and_then(|text| text.split_ascii_whitespace().next()).unwrap_or("custom")
}

impl Objective {
    /// Of the header's line, as `ObjectiveFunction::CreateObjectiveFunction` reads it: further words that it does not
    /// know are of no meaning.
    pub fn parse(text: Option<&str>, groups: usize) -> Result<Self> {
        let name = name(text);
        let words = || text.unwrap_or_default().split_ascii_whitespace().skip(1);
        let has_sqrt = words().any(|word| word == "sqrt");
        let objective = match name {
            "regression" | "regression_l1" | "fair" | "quantile" | "mape" | "mean_absolute_percentage_error"
                if has_sqrt =>
            {
                Self::SignedSquare
            }
            "regression" | "regression_l1" | "fair" | "quantile" | "mape" | "mean_absolute_percentage_error" => {
                Self::Raw
            }
            "huber" | "lambdarank" | "rank_xendcg" => Self::Raw,
            "custom" | "none" | "null" | "na" => return Ok(Self::Raw),
            "poisson" | "gamma" | "tweedie" => Self::Exponential,
            "cross_entropy" | "xentropy" => Self::Logistic,
            "cross_entropy_lambda" | "xentlambda" => Self::Softplus,
            "binary" => Self::Binary(sigmoid(words())?),
            "multiclass" => Self::Softmax,
            "multiclassova" => Self::OneAgainstAll(sigmoid(words())?),
            _ => {
                let name = super::shortened(name);
                return Err(Error::invalid(format!(
                    "its objective {name:?} is unknown; train it with one of LightGBM's, or a function of yours"
                )));
            }
        };
        let is_for_classes = matches!(objective, Self::Softmax | Self::OneAgainstAll(_));
        if is_for_classes != (groups > 1) {
            return Err(damaged(format_args!("its objective is {name}, with {groups} trees for each iteration")));
        }
        for word in words() {
            if let Some(classes) = word.strip_prefix("num_class:")
                && super::number::<usize>("num_class", classes)? != groups
            {
                return Err(damaged(format_args!("its objective is for {classes:?} classes, it has {groups}")));
            }
        }
        Ok(objective)
    }

    /// What a row gets.
    pub fn output(self, groups: usize) -> Output {
        let classes = |count: usize| Output::Classes {
            labels: (0..count).map(|class| class.to_string()).collect(),
            has_probabilities: true,
        };
        match self {
            Self::Binary(_) => classes(2),
            Self::Softmax | Self::OneAgainstAll(_) => classes(groups),
            _ if groups > 1 => Output::Numbers(groups),
            _ => Output::Number,
        }
    }

    /// What rows get, of their sums.
    pub fn scores(self, mut sums: Vec<f64>, groups: usize) -> Scores {
        match self {
            Self::Raw => {}
            Self::SignedSquare => sums.iter_mut().for_each(|sum| *sum = sign(*sum) * *sum * *sum),
            Self::Exponential => sums.iter_mut().for_each(|sum| *sum = sum.exp()),
            Self::Logistic => sums.iter_mut().for_each(|sum| *sum = logistic(*sum, 1.0)),
            Self::Softplus => sums.iter_mut().for_each(|sum| *sum = sum.exp().ln_1p()),
            Self::Binary(factor) => {
                sums.iter_mut().for_each(|sum| *sum = logistic(*sum, factor));
                return Scores {
                    predictions: sums.iter().map(|one| f64::from(*one > 0.5)).collect(),
                    values: sums.iter().flat_map(|one| [1.0 - one, *one]).collect(),
                };
            }
            Self::Softmax => sums.chunks_exact_mut(groups).for_each(softmax),
            Self::OneAgainstAll(factor) => sums.iter_mut().for_each(|sum| *sum = logistic(*sum, factor)),
        }
        match self {
            Self::Softmax | Self::OneAgainstAll(_) => {
                let predictions = sums.chunks_exact(groups).map(|row| biggest(row) as f64).collect();
                Scores { predictions, values: sums }
            }
            _ if groups > 1 => Scores { predictions: sums.iter().step_by(groups).copied().collect(), values: sums },
            _ => Scores { predictions: sums, values: Vec::new() },
        }
    }
}

/// The factor of the sums; LightGBM refuses a model without one.
fn sigmoid<'a>(words: impl Iterator<Item = &'a str>) -> Result<f64> {
    let text = words.filter_map(|word| word.strip_prefix("sigmoid:")).last();
    let text = text.ok_or_else(|| damaged("its objective has no sigmoid"))?;
    let factor: f64 = super::number("sigmoid", text)?;
    if !factor.is_finite() || factor <= 0.0 {
        return Err(damaged(format_args!("the sigmoid of its objective is {factor}")));
    }
    Ok(factor)
}

fn logistic(sum: f64, factor: f64) -> f64 {
    1.0 / (1.0 + (-factor * sum).exp())
}

/// `Common::Sign`: 0 for 0 and NaN.
fn sign(sum: f64) -> f64 {
    f64::from(i8::from(sum > 0.0) - i8::from(sum < 0.0))
}

/// `Common::Softmax`.
fn softmax(sums: &mut [f64]) {
    // Not `f64::max`: `std::max` keeps a NaN that comes first and skips a later one.
    let most =
        sums.iter().copied().reduce(|most, sum| if sum < most || most.is_nan() || sum.is_nan() { most } else { sum });
    let most = most.unwrap_or_default();
    let mut total = 0.0;
    for sum in sums.iter_mut() {
        *sum = (*sum - most).exp();
        total += *sum;
    }
    sums.iter_mut().for_each(|sum| *sum /= total);
}
