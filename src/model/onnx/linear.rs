//! `LinearRegressor` and `LinearClassifier`.

use super::labels::Labels;
use super::node::Node;
use super::operator::{Inputs, Operator, Work};
use super::product::{columns_times_lines, times_lines};
use super::tensor::{Data, Tensor};
use super::transform::{Transform, logistic};
use super::{damaged, first_biggest, refused};
use crate::error::Result;

/// A line of weights and an addend for each target.
#[derive(Debug)]
struct Lines {
    weights: Vec<f32>,
    addends: Option<Vec<f32>>,
    targets: usize,
    inner: usize,
    transform: Transform,
}

#[derive(Debug)]
struct Regressor(Lines);

#[derive(Debug)]
struct Classifier {
    lines: Lines,
    labels: Labels,
}

pub(super) fn build(node: &Node<'_>) -> Result<Box<dyn Operator>> {
    let weights = node.floats("coefficients")?.to_vec();
    let addends = node.floats("intercepts")?;
    let transform = Transform::of(node)?;
    if node.operator() == "LinearRegressor" {
        let targets = node.int("targets")?.unwrap_or(1);
        let targets = usize::try_from(targets).map_err(|_| damaged("it has a negative number of targets"))?;
        // Intercepts of another number do not count (`use_intercepts_`).
        let addends = if addends.len() == targets { Some(addends.to_vec()) } else { None };
        return Ok(Box::new(Regressor(Lines::new(weights, addends, targets, transform)?)));
    }
    node.ignore(&["multi_class"]);
    let labels = Labels::of(node, "classlabels_strings", "classlabels_ints")?;
    let targets = addends.len();
    if labels.len() < 2 || (targets != labels.len() && (targets, labels.len()) != (1, 2)) {
        return Err(refused(format!("{targets} sums for {} classes are not covered", labels.len())));
    }
    let lines = Lines::new(weights, Some(addends.to_vec()), targets, transform)?;
    Ok(Box::new(Classifier { lines, labels }))
}

impl Lines {
    fn new(weights: Vec<f32>, addends: Option<Vec<f32>>, targets: usize, transform: Transform) -> Result<Self> {
        if targets == 0 || weights.is_empty() || !weights.len().is_multiple_of(targets) {
            return Err(damaged(format!("it has {} coefficients for {targets} sums", weights.len())));
        }
        let inner = weights.len() / targets;
        Ok(Self { weights, addends, targets, inner, transform })
    }

    /// The sums of each row.
    fn sums(&self, tensor: &Tensor<'_>) -> Result<(usize, Vec<f32>)> {
        let (rows, columns) = tensor.rows_and_columns()?;
        if columns != self.inner {
            return Err(damaged(format!("it takes {} features and gets {columns}", self.inner)));
        }
        let mut sums = Vec::new();
        let addends = self.addends.as_deref();
        match &tensor.data {
            Data::Columns(columns, _) => columns_times_lines(columns, &self.weights, addends, &mut sums),
            _ => times_lines(&tensor.as_f32()?, &self.weights, self.inner, 1.0, addends, &mut sums),
        }
        Ok((rows, sums))
    }
}

impl Operator for Regressor {
    fn run<'a>(&'a self, inputs: &Inputs<'_, 'a>, work: &mut Work) -> Result<Vec<Tensor<'a>>> {
        let (rows, mut sums) = self.0.sums(inputs.at(0)?)?;
        work.take_shape(&[rows, self.0.targets])?;
        self.0.transform.apply_to_rows(&mut sums, self.0.targets);
        Ok(vec![Tensor::floats(vec![rows, self.0.targets], sums)])
    }

    fn takes_columns(&self) -> bool {
        true
    }
}

impl Operator for Classifier {
    fn run<'a>(&'a self, inputs: &Inputs<'_, 'a>, work: &mut Work) -> Result<Vec<Tensor<'a>>> {
        let (rows, mut sums) = self.lines.sums(inputs.at(0)?)?;
        work.take_shape(&[rows, self.labels.len()])?;
        let class = |row: &[f32]| match row {
            [sum] => usize::from(*sum > 0.0),
            row => first_biggest(row),
        };
        let classes: Vec<usize> = sums.chunks_exact(self.lines.targets).map(class).collect();
        if self.lines.targets == self.labels.len() {
            self.lines.transform.apply_to_rows(&mut sums, self.lines.targets);
        } else if self.lines.transform == Transform::Probit {
            return Err(refused("post_transform PROBIT of one sum for two classes is not covered"));
        } else if self.lines.transform == Transform::Logistic {
            sums = sums.into_iter().flat_map(|sum| [logistic(-sum), logistic(sum)]).collect();
        } else {
            // The other transforms are left out here (`batched_update_scores_inplace` with `add_second_class` 1).
            sums = sums.into_iter().flat_map(|sum| [1.0 - sum, sum]).collect();
        }
        let scores = Tensor::floats(vec![rows, self.labels.len()], sums);
        Ok(vec![self.labels.tensor(&classes), scores])
    }

    fn labels(&self) -> Option<Vec<String>> {
        Some(self.labels.names())
    }

    fn takes_columns(&self) -> bool {
        true
    }
}
