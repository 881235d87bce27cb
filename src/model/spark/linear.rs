//! Linear models: logistic, linear and generalized regression, and the support vector classifier.

use super::directory::Stage;
use super::plan::Plan;
use super::predictor::{Loaded, Predictor, Thresholds, softmax};
use super::scaler::another_length;
use super::table::Table;
use super::vector::{BLOCK_ROWS, Block, Rows, Stored};
use crate::error::Result;

/// One row of coefficients.
#[derive(Debug)]
struct Line {
    coefficients: Stored,
    intercept: f64,
}

/// Two classes by a margin.
#[derive(Debug)]
struct Binary {
    line: Line,
    /// Margins above this are class 1.
    threshold: f64,
    has_probabilities: bool,
}

/// A margin for each class.
#[derive(Debug)]
struct Multinomial {
    lines: Vec<Line>,
    thresholds: Thresholds,
}

/// A number, by the inverse of a link.
#[derive(Debug)]
struct Regression {
    line: Line,
    link: Link,
    family: Family,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Link {
    Identity,
    Log,
    Logit,
    Probit,
    CLogLog,
    Sqrt,
    Inverse,
    Power(f64),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Family {
    /// Numbers as they are.
    Any,
    Gaussian,
    Binomial,
    /// Above zero: Poisson, Gamma and Tweedie.
    Positive,
}

/// What numbers of a family stay away from zero and one (`GeneralizedLinearRegression.epsilon`).
const EPSILON: f64 = 1e-16;

impl Line {
    fn of(stage: &Stage) -> Result<Self> {
        let table = Table::read(stage)?;
        Ok(Self { coefficients: table.vector("coefficients", 0)?, intercept: table.number("intercept")? })
    }

    /// Margins, the products first as `margin` has it.
    fn margins(&self, vectors: &Rows<'_>, margins: &mut [f64]) {
        margins.fill(0.0);
        self.coefficients.dot(vectors, margins);
        margins.iter_mut().for_each(|margin| *margin += self.intercept);
    }
}

/// A model of so many classes that reads the stage's vectors.
fn loaded(
    plan: &mut Plan,
    stage: &Stage,
    width: usize,
    classes: Option<usize>,
    objective: impl Into<String>,
    predictor: impl Predictor + 'static,
) -> Result<Loaded> {
    let column = plan.vectors(stage, stage.text("featuresCol")?, Some(width))?.column;
    let (predictor, objective) = (Box::new(predictor), objective.into());
    Ok(Loaded { predictor, column, classes, has_probabilities: classes.is_some(), objective, trees: 0 })
}

pub(super) fn load_logistic(plan: &mut Plan, stage: &Stage) -> Result<Loaded> {
    let table = Table::read(stage)?;
    let matrix = table.matrix("coefficientMatrix")?;
    let intercepts = table.vector("interceptVector", 0)?;
    let (lines, classes) = (matrix.lines.len(), table.count("numClasses")?);
    if intercepts.len() != lines || lines == 0 {
        return Err(another_length("its interceptVector", intercepts.len(), lines));
    }
    let line = |(at, coefficients)| Line { coefficients, intercept: intercepts.get(at) };
    let mut lines: Vec<Line> = matrix.lines.into_iter().enumerate().map(line).collect();
    if table.flag("isMultinomial")? {
        if lines.len() != classes {
            return Err(another_length("its interceptVector", lines.len(), classes));
        }
        let model = Multinomial { lines, thresholds: Thresholds::of(stage, classes)? };
        return loaded(plan, stage, matrix.columns, Some(classes), "multinomial classification", model);
    }
    let (Some(line), 2, true) = (lines.pop(), classes, lines.is_empty()) else {
        return Err(stage.fault("it is binary and has not two classes; save the model again"));
    };
    // As `LogisticRegressionParams.getThreshold` and `onParamChange` have it.
    let threshold = match stage.has("thresholds") {
        true => match stage.numbers("thresholds")?[..] {
            [first, second] => 1.0 / (1.0 + first / second),
            _ => return Err(stage.fault("it has two classes and not two thresholds; save the model again")),
        },
        false => stage.number("threshold")?,
    };
    let threshold = match threshold {
        0.0 => f64::NEG_INFINITY,
        1.0 => f64::INFINITY,
        threshold => (threshold / (1.0 - threshold)).ln(),
    };
    let model = Binary { line, threshold, has_probabilities: true };
    loaded(plan, stage, matrix.columns, Some(2), "binary classification", model)
}

pub(super) fn load_svc(plan: &mut Plan, stage: &Stage) -> Result<Loaded> {
    let (line, threshold) = (Line::of(stage)?, stage.number("threshold")?);
    let width = line.coefficients.len();
    let model = Binary { line, threshold, has_probabilities: false };
    let loaded = loaded(plan, stage, width, Some(2), "binary classification", model)?;
    Ok(Loaded { has_probabilities: false, ..loaded })
}

pub(super) fn load_regression(plan: &mut Plan, stage: &Stage) -> Result<Loaded> {
    let line = Line::of(stage)?;
    let width = line.coefficients.len();
    let model = Regression { line, link: Link::Identity, family: Family::Any };
    let objective = format!("regression, {}", stage.text("loss").unwrap_or("squaredError"));
    loaded(plan, stage, width, None, objective, model)
}

pub(super) fn load_generalized(plan: &mut Plan, stage: &Stage) -> Result<Loaded> {
    if stage.has("offsetCol") && !stage.text("offsetCol")?.is_empty() {
        return Err(stage.fault("its offsetCol is not supported; train without an offset"));
    }
    let (line, link, family) = (Line::of(stage)?, link(stage)?, family(stage)?);
    let width = line.coefficients.len();
    let objective = format!("regression, {}", stage.text("family")?.to_ascii_lowercase());
    loaded(plan, stage, width, None, objective, Regression { line, link, family })
}

fn family(stage: &Stage) -> Result<Family> {
    let is_tweedie = stage.text("family")?.eq_ignore_ascii_case("tweedie");
    if is_tweedie && stage.number("variancePower")? == 0.0 {
        return Ok(Family::Gaussian);
    }
    let positive = [("poisson", Family::Positive), ("gamma", Family::Positive), ("tweedie", Family::Positive)];
    let others = [("gaussian", Family::Gaussian), ("binomial", Family::Binomial)];
    stage.choice("family", &[&others[..], &positive[..]].concat())
}

/// The link that is set, or else that of the family (`FamilyAndLink.apply`).
fn link(stage: &Stage) -> Result<Link> {
    if stage.text("family")?.eq_ignore_ascii_case("tweedie") {
        let power = match stage.has("linkPower") {
            true => stage.number("linkPower")?,
            false => 1.0 - stage.number("variancePower")?,
        };
        return Ok(match power {
            0.0 => Link::Log,
            1.0 => Link::Identity,
            -1.0 => Link::Inverse,
            0.5 => Link::Sqrt,
            power => Link::Power(power),
        });
    }
    if stage.has("link") {
        let powers =
            [("identity", Link::Identity), ("inverse", Link::Inverse), ("log", Link::Log), ("sqrt", Link::Sqrt)];
        let shares = [("logit", Link::Logit), ("probit", Link::Probit), ("cloglog", Link::CLogLog)];
        return stage.choice("link", &[&powers[..], &shares[..]].concat());
    }
    let of =
        [("gaussian", Link::Identity), ("binomial", Link::Logit), ("poisson", Link::Log), ("gamma", Link::Inverse)];
    stage.choice("family", &of)
}

impl Link {
    fn inverse(self, eta: f64) -> f64 {
        match self {
            Link::Identity => eta,
            Link::Log => eta.exp(),
            Link::Logit => 1.0 / (1.0 + (-eta).exp()),
            Link::Probit => 0.5 * (1.0 + erf(eta / 2.0_f64.sqrt())),
            Link::CLogLog => 1.0 - (-eta.exp()).exp(),
            Link::Sqrt => eta * eta,
            Link::Inverse => 1.0 / eta,
            Link::Power(power) => eta.powf(1.0 / power),
        }
    }
}

impl Family {
    /// `Family.project`.
    fn project(self, mean: f64) -> f64 {
        match self {
            Family::Any => mean,
            // Infinity becomes the biggest number; NaN stays.
            Family::Gaussian if mean.is_infinite() => f64::MAX.copysign(mean),
            Family::Binomial if mean < EPSILON => EPSILON,
            Family::Binomial if mean > 1.0 - EPSILON => 1.0 - EPSILON,
            Family::Positive if mean < EPSILON => EPSILON,
            Family::Positive if mean.is_infinite() => f64::MAX,
            _ => mean,
        }
    }
}

/// The error function, by the series and the fraction of the regularized gamma function, as Commons Math has it.
fn erf(x: f64) -> f64 {
    const LN_GAMMA_OF_HALF: f64 = 0.572_364_942_924_700_1;
    let square = x * x;
    if x.is_nan() || x == 0.0 {
        return x;
    }
    if x.abs() > 40.0 {
        return x.signum();
    }
    let factor = (-square + 0.5 * square.ln() - LN_GAMMA_OF_HALF).exp();
    let size = if square < 1.5 {
        let (mut n, mut term, mut sum) = (0.0, 2.0, 2.0);
        while f64::abs(term / sum) > 1e-15 && n < 10_000.0 {
            n += 1.0;
            term *= square / (0.5 + n);
            sum += term;
        }
        factor * sum
    } else {
        1.0 - factor / fraction(square)
    };
    size.copysign(x)
}

/// The continued fraction of the upper half, by the modified Lentz method (`ContinuedFraction.evaluate`).
fn fraction(square: f64) -> f64 {
    let a = |n: f64| 2.0 * n + 1.0 - 0.5 + square;
    let tiny = |value: f64| if value.abs() < 1e-50 { 1e-50 } else { value };
    let mut value = tiny(a(0.0));
    let (mut n, mut d, mut c) = (1.0, 0.0, value);
    while n < 10_000.0 {
        let b = n * (0.5 - n);
        d = 1.0 / tiny(a(n) + b * d);
        c = tiny(a(n) + b / c);
        let delta = c * d;
        value *= delta;
        if (delta - 1.0).abs() < 1e-15 {
            break;
        }
        n += 1.0;
    }
    value
}

impl Predictor for Binary {
    fn predict(&self, vectors: &Rows<'_>, _: &Block<'_>, predictions: &mut [f64], values: &mut [f64]) -> Result<()> {
        self.line.margins(vectors, predictions);
        if self.has_probabilities {
            for (margin, values) in predictions.iter().zip(values.chunks_exact_mut(2)) {
                // Of -margin first: `raw2probabilityInPlace`.
                values[0] = 1.0 / (1.0 + margin.exp());
                values[1] = 1.0 - values[0];
            }
        }
        predictions.iter_mut().for_each(|margin| *margin = f64::from(u8::from(*margin > self.threshold)));
        Ok(())
    }
}

impl Predictor for Multinomial {
    fn predict(&self, vectors: &Rows<'_>, _: &Block<'_>, predictions: &mut [f64], values: &mut [f64]) -> Result<()> {
        let classes = self.lines.len();
        let mut margins = [0.0; BLOCK_ROWS];
        let margins = &mut margins[..predictions.len()];
        for (class, line) in self.lines.iter().enumerate() {
            line.margins(vectors, margins);
            values
                .iter_mut()
                .skip(class)
                .step_by(classes)
                .zip(margins.iter())
                .for_each(|(value, margin)| *value = *margin);
        }
        decide(&self.thresholds, classes, predictions, values);
        Ok(())
    }
}

/// Makes predictions of raw values, and of these the probabilities.
pub(super) fn decide(thresholds: &Thresholds, classes: usize, predictions: &mut [f64], values: &mut [f64]) {
    for (prediction, values) in predictions.iter_mut().zip(values.chunks_exact_mut(classes)) {
        *prediction = thresholds.choose(values, &[]);
        softmax(values);
        if thresholds.are_set() {
            *prediction = thresholds.choose(&[], values);
        }
    }
}

impl Predictor for Regression {
    fn predict(&self, vectors: &Rows<'_>, _: &Block<'_>, predictions: &mut [f64], _: &mut [f64]) -> Result<()> {
        self.line.margins(vectors, predictions);
        predictions.iter_mut().for_each(|eta| *eta = self.family.project(self.link.inverse(*eta)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_error_function_is_exact() {
        let known = [
            (0.1, 0.112_462_916_018_284_9),
            (0.5, 0.520_499_877_813_046_5),
            (1.0, 0.842_700_792_949_714_9),
            (1.3, 0.934_007_944_940_652_4),
            (2.0, 0.995_322_265_018_952_7),
            (4.0, 0.999_999_984_582_742_1),
            (50.0, 1.0),
        ];
        for (x, expected) in known {
            assert!((erf(x) - expected).abs() < 4e-16, "{x}: {}", erf(x));
            assert_eq!(erf(-x), -erf(x));
        }
        assert_eq!(erf(0.0), 0.0);
        assert!(erf(f64::NAN).is_nan());
        assert_eq!(erf(f64::NEG_INFINITY), -1.0);
    }

    #[test]
    fn links_are_those_of_the_family_where_none_is_set() {
        let of = |params| link(&Stage::of("x", params)).unwrap();
        assert_eq!(of(json!({"family": "gamma"})), Link::Inverse);
        assert_eq!(of(json!({"family": "Binomial", "link": "cloglog"})), Link::CLogLog);
        assert_eq!(of(json!({"family": "tweedie", "variancePower": 1.5})), Link::Power(-0.5));
        assert_eq!(of(json!({"family": "tweedie", "variancePower": 1.5, "linkPower": 0.5})), Link::Sqrt);
        let error = link(&Stage::of("x", json!({"family": "gamma", "link": "loglog"}))).unwrap_err().to_string();
        assert!(error.starts_with("stage x_1: link loglog is not supported; train with one of identity, "), "{error}");
    }

    #[test]
    fn means_stay_within_the_family() {
        assert_eq!(Family::Gaussian.project(f64::NEG_INFINITY), f64::MIN);
        assert_eq!(Family::Binomial.project(0.0), 1e-16);
        assert_eq!(Family::Positive.project(f64::INFINITY), f64::MAX);
        assert_eq!(Family::Positive.project(-3.0), 1e-16);
        assert!(Family::Positive.project(f64::NAN).is_nan());
    }
}
