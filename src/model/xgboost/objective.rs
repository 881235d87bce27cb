//! What a sum means: the objective's way from sums to predictions, in f32 as XGBoost's own (`src/objective`).

use crate::error::{Error, Result};

/// How sums become predictions: the objective's inverse link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    Identity,
    Logistic,
    Exponential,
    /// Of two classes the one on whose side the sum is.
    Hinge,
    /// Of several classes, each with a sum.
    Softmax,
}

/// An objective.
#[derive(Debug, Clone, Copy)]
pub(super) struct Objective {
    pub link: Link,
    /// The link itself: from a prediction, as the file states the intercept, to a sum.
    pub to_margin: fn(f32) -> f32,
    /// Whether it is one of two classes.
    pub is_binary: bool,
}

impl Objective {
    /// By its name in the file.
    ///
    /// # Errors
    /// `Invalid` when there is none of that name.
    pub fn of(name: &str) -> Result<Self> {
        let identity: fn(f32) -> f32 = |score| score;
        let (link, to_margin): (Link, fn(f32) -> f32) = match name {
            "binary:logistic" | "reg:logistic" => (Link::Logistic, |score| -(1.0 / score - 1.0).ln()),
            "count:poisson" | "reg:gamma" | "reg:tweedie" | "survival:cox" | "survival:aft" => {
                (Link::Exponential, f32::ln)
            }
            "binary:hinge" => (Link::Hinge, identity),
            "multi:softmax" | "multi:softprob" => (Link::Softmax, identity),
            "reg:squarederror"
            | "reg:linear"
            | "reg:squaredlogerror"
            | "reg:pseudohubererror"
            | "reg:absoluteerror"
            | "reg:quantileerror"
            | "reg:expectileerror"
            | "binary:logitraw"
            | "rank:pairwise"
            | "rank:ndcg"
            | "rank:map" => (Link::Identity, identity),
            other => {
                return Err(Error::invalid(format!(
                    "objective {other} is not known; train with an objective of XGBoost's own, or save the model with \
                     the one whose predictions are its sums: reg:squarederror"
                )));
            }
        };
        Ok(Self { link, to_margin, is_binary: matches!(name, "binary:logistic" | "binary:hinge") })
    }
}

/// XGBoost's own logistic function: the exponent is cut off where an f32 would overflow.
pub(super) fn logistic(sum: f32) -> f32 {
    1.0 / ((-sum).min(88.7).exp() + 1.0)
}

/// The sums of a row as probabilities; their total is made in f64.
pub(super) fn softmax(sums: &mut [f32]) {
    let most = sums.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut total = 0.0_f64;
    for sum in sums.iter_mut() {
        *sum = (*sum - most).exp();
        total += f64::from(*sum);
    }
    sums.iter_mut().for_each(|sum| *sum /= total as f32);
}
