//! Naive Bayes: multinomial, complement, Bernoulli and Gaussian.

use super::directory::Stage;
use super::linear::decide;
use super::plan::Plan;
use super::predictor::{Loaded, Predictor, Thresholds};
use super::scaler::another_length;
use super::table::Table;
use super::vector::{BLOCK_ROWS, Block, Rows, Stored};
use crate::error::{Error, Result};

#[derive(Debug)]
struct Bayes {
    name: String,
    kind: Kind,
    /// What each class begins with.
    prior: Vec<f64>,
    /// What each class adds for a feature; the means of the Gaussian one.
    theta: Vec<Stored>,
    /// The variances of the Gaussian one.
    sigma: Vec<Stored>,
    thresholds: Thresholds,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Multinomial,
    Complement,
    Bernoulli,
    Gaussian,
}

pub(super) fn load(plan: &mut Plan, stage: &Stage) -> Result<Loaded> {
    let kinds = [
        ("multinomial", Kind::Multinomial),
        ("complement", Kind::Complement),
        ("bernoulli", Kind::Bernoulli),
        ("gaussian", Kind::Gaussian),
    ];
    let kind = stage.choice("modelType", &kinds)?;
    let table = Table::read(stage)?;
    let (pi, theta) = (table.vector("pi", 0)?, table.matrix("theta")?);
    let (classes, width) = (theta.lines.len(), theta.columns);
    let sigma = if kind == Kind::Gaussian { Some(table.matrix("sigma")?) } else { None };
    if pi.len() != classes || classes == 0 {
        return Err(another_length("its pi", pi.len(), classes));
    }
    if let Some(sigma) = sigma.as_ref().filter(|sigma| sigma.lines.len() != classes || sigma.columns != width) {
        return Err(another_length("its sigma", sigma.lines.len() * sigma.columns, classes * width));
    }
    let name = stage.text("featuresCol")?.to_owned();
    let vectors = plan.vectors(stage, &name, Some(width))?;
    let prior = (0..classes).map(|class| pi.get(class)).collect();
    let (theta, sigma) = (theta.lines, sigma.map(|sigma| sigma.lines).unwrap_or_default());
    let thresholds = Thresholds::of(stage, classes)?;
    let mut model = Bayes { name, kind, prior, theta, sigma, thresholds };
    model.prepare(width, vectors.shape.is_sparse).map_err(|error| stage.fault(error.message()))?;
    Ok(Loaded {
        predictor: Box::new(model),
        column: vectors.column,
        classes: Some(classes),
        has_probabilities: true,
        objective: format!("{} classification", stage.text("modelType")?),
        trees: 0,
    })
}

impl Bayes {
    /// Sums up what does not depend on the row.
    fn prepare(&mut self, width: usize, is_sparse: bool) -> Result<()> {
        let classes = self.prior.iter_mut().zip(&mut self.theta);
        match self.kind {
            Kind::Multinomial => {}
            Kind::Complement => classes.for_each(|(prior, _)| *prior = 0.0),
            Kind::Bernoulli => {
                // `piMinusThetaSum` and `thetaMinusNegTheta`. A value that is not stored is zero: its opposite is
                // impossible, and the sum is minus infinity.
                for (prior, theta) in classes {
                    let opposite = |value: f64| (-value.exp()).ln_1p();
                    let mut sum: f64 = theta.values().iter().map(|value| opposite(*value)).sum();
                    if theta.values().len() < width {
                        sum = f64::NEG_INFINITY;
                    }
                    *prior += sum;
                    *theta = theta.map(|value| value - opposite(value));
                }
            }
            Kind::Gaussian => {
                if is_sparse || width > super::vector::MAX_DENSE {
                    return Err(Error::invalid(format!(
                        "a Gaussian NaiveBayes over {width} numbers that are mostly zero is not supported; train with \
                         modelType multinomial"
                    )));
                }
                for (class, (prior, theta)) in classes.enumerate() {
                    let sigma = self.sigma.get_mut(class).ok_or_else(|| another_length("its sigma", 0, width))?;
                    let all = |stored: &Stored| stored.expanded().map(Stored::Dense);
                    let (Some(means), Some(variances)) = (all(theta), all(sigma)) else {
                        return Err(another_length("its theta", theta.len(), width));
                    };
                    // `logVarSum`.
                    *prior -= variances.values().iter().map(|value| value.ln()).sum::<f64>() / 2.0;
                    (*theta, *sigma) = (means, variances);
                }
            }
        }
        Ok(())
    }

    /// Refuses numbers that the kind does not take.
    fn check(&self, vectors: &Rows<'_>, dropped: &[bool]) -> Result<()> {
        let (is_fine, wanted): (fn(f64) -> bool, _) = match self.kind {
            Kind::Multinomial | Kind::Complement => (|value| value >= 0.0, "that are not negative"),
            Kind::Bernoulli => (|value| value == 0.0 || value == 1.0, "0 and 1"),
            Kind::Gaussian => return Ok(()),
        };
        for row in (0..dropped.len()).filter(|row| !dropped[*row]) {
            let mut odd = None;
            vectors.each(row, |_, value| {
                if !is_fine(value) {
                    odd = odd.or(Some(value));
                }
            });
            if let Some(odd) = odd {
                return Err(Error::violated(format!(
                    "column {}: the model's NaiveBayes takes numbers {wanted}, and refuses {odd}; leave such rows out, \
                     or train with modelType gaussian",
                    self.name
                )));
            }
        }
        Ok(())
    }

    fn gaussian(&self, class: usize, vectors: &Rows<'_>, raw: &mut [f64]) {
        let pairs = self.theta[class].values().iter().zip(self.sigma[class].values());
        raw.fill(0.0);
        for (at, (mean, variance)) in pairs.enumerate() {
            for (value, sum) in vectors.column(at).iter().zip(raw.iter_mut()) {
                let distance = value - mean;
                *sum += distance * distance / variance;
            }
        }
        raw.iter_mut().for_each(|sum| *sum = self.prior[class] - *sum / 2.0);
    }
}

impl Predictor for Bayes {
    fn predict(
        &self,
        vectors: &Rows<'_>,
        block: &Block<'_>,
        predictions: &mut [f64],
        values: &mut [f64],
    ) -> Result<()> {
        self.check(vectors, block.dropped())?;
        let classes = self.prior.len();
        let mut raw = [0.0; BLOCK_ROWS];
        let raw = &mut raw[..predictions.len()];
        for class in 0..classes {
            match self.kind {
                Kind::Gaussian => self.gaussian(class, vectors, raw),
                _ => {
                    raw.fill(self.prior[class]);
                    self.theta[class].dot(vectors, raw);
                }
            }
            values.iter_mut().skip(class).step_by(classes).zip(raw.iter()).for_each(|(value, raw)| *value = *raw);
        }
        if self.kind == Kind::Complement {
            values.chunks_exact_mut(classes).for_each(normalize);
        }
        decide(&self.thresholds, classes, predictions, values);
        Ok(())
    }
}

/// Takes the logarithm of the sum of their exponentials off logarithms (`complementCalculation`).
fn normalize(raw: &mut [f64]) {
    let most = raw.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = raw.iter().map(|value| (value - most).exp()).sum();
    let sum = sum.ln() + most;
    raw.iter_mut().for_each(|value| *value -= sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bayes(kind: Kind) -> Bayes {
        let theta = vec![Stored::Dense(vec![-1.0, -2.0])];
        let (name, thresholds) = ("tf".to_owned(), Thresholds::default());
        Bayes { name, kind, prior: vec![-0.5], theta, sigma: Vec::new(), thresholds }
    }

    #[test]
    fn numbers_that_spark_refuses_are_refused() {
        let refusal = |kind, number: f64| {
            let values = [0.0, number];
            let rows = Rows::Dense { values: &values, rows: 1 };
            bayes(kind).check(&rows, &[false]).map_err(|error| error.to_string())
        };
        refusal(Kind::Multinomial, 2.5).unwrap();
        refusal(Kind::Bernoulli, 1.0).unwrap();
        refusal(Kind::Gaussian, -1.0).unwrap();
        let error = refusal(Kind::Complement, -1.0).unwrap_err();
        assert!(
            error.starts_with("column tf: the model's NaiveBayes takes numbers that are not negative, and refuses -1")
        );
        refusal(Kind::Multinomial, f64::NAN).unwrap_err();
        refusal(Kind::Bernoulli, 2.0).unwrap_err();
        let rows = Rows::Dense { values: &[-1.0], rows: 1 };
        bayes(Kind::Multinomial).check(&rows, &[true]).unwrap();
    }

    #[test]
    fn what_a_row_lacks_counts_for_bernoulli() {
        let mut model = bayes(Kind::Bernoulli);
        model.prepare(2, false).unwrap();
        let opposite = |value: f64| (1.0 - value.exp()).ln();
        assert!((model.prior[0] - (-0.5 + opposite(-1.0) + opposite(-2.0))).abs() < 1e-15);
        let mut sums = [model.prior[0]];
        model.theta[0].dot(&Rows::Dense { values: &[1.0, 0.0], rows: 1 }, &mut sums);
        assert!((sums[0] - (-0.5 - 1.0 + opposite(-2.0))).abs() < 1e-15);
    }
}
