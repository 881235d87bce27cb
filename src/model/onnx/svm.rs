//! `SVMClassifier` and `SVMRegressor`.

use super::labels::Labels;
use super::node::Node;
use super::operator::{Inputs, Operator, Work};
use super::product::times_lines;
use super::tensor::Tensor;
use super::transform::{Transform, logistic, tanh};
use super::{damaged, first_biggest, refused};
use crate::error::Result;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kernel {
    Linear,
    Poly,
    Rbf,
    Sigmoid,
}

/// A kernel over the vectors of a model.
#[derive(Debug)]
struct Vectors {
    kernel: Kernel,
    gamma: f32,
    zero: f32,
    degree: f32,
    /// The support vectors, or in a linear model without any the coefficients.
    lines: Vec<f32>,
    inner: usize,
}

#[derive(Debug)]
struct Regressor {
    vectors: Vectors,
    /// Those of the vectors; without any the model is linear.
    coefficients: Option<Vec<f32>>,
    rho: f32,
    one_class: bool,
}

#[derive(Debug)]
struct Classifier {
    vectors: Vectors,
    labels: Labels,
    decision: Decision,
    transform: Transform,
    /// Whether no coefficient is below zero.
    is_positive: bool,
}

#[derive(Debug)]
enum Decision {
    /// A sum for each class, with an addend.
    Linear(f32),
    Pairs(Pairs),
}

/// A decision between each two classes.
#[derive(Debug)]
struct Pairs {
    /// Of each class where its vectors begin, and at last where they end.
    starts: Vec<usize>,
    coefficients: Vec<f32>,
    rho: Vec<f32>,
    /// What makes probabilities of decisions.
    sigmoid: Option<(Vec<f32>, Vec<f32>)>,
}

pub(super) fn build(node: &Node<'_>) -> Result<Box<dyn Operator>> {
    let rho = node.floats("rho")?;
    let first = *rho.first().ok_or_else(|| damaged("it has no rho"))?;
    let coefficients = node.floats("coefficients")?.to_vec();
    let transform = Transform::of(node)?;
    if node.operator() == "SVMRegressor" {
        let one_class = node.flag("one_class", false)?;
        let count = usize::try_from(node.int("n_supports")?.unwrap_or(0)).map_err(|_| damaged("it has no vectors"))?;
        if count == 0 {
            let inner = coefficients.len();
            let vectors = Vectors::linear(coefficients, inner)?;
            node.ignore(&["kernel_type", "kernel_params", "support_vectors"]);
            return Ok(Box::new(Regressor { vectors, coefficients: None, rho: first, one_class }));
        }
        if coefficients.len() != count {
            return Err(damaged(format!("it has {} coefficients for {count} vectors", coefficients.len())));
        }
        let vectors = Vectors::of(node, count)?;
        return Ok(Box::new(Regressor { vectors, coefficients: Some(coefficients), rho: first, one_class }));
    }
    let labels = Labels::of(node, "classlabels_strings", "classlabels_ints")?;
    if labels.len() < 2 {
        return Err(refused("a classifier of one class is not covered"));
    }
    let is_positive = coefficients.iter().all(|value| *value >= 0.0);
    let starts = starts(node.ints("vectors_per_class")?)?;
    let count = starts.last().copied().unwrap_or(0);
    if count == 0 {
        node.ignore(&["kernel_type", "kernel_params", "support_vectors", "prob_a", "prob_b"]);
        if !coefficients.len().is_multiple_of(labels.len()) {
            return Err(damaged("its coefficients do not fit its classes"));
        }
        let inner = coefficients.len() / labels.len();
        let vectors = Vectors::linear(coefficients, inner)?;
        return Ok(Box::new(Classifier { vectors, labels, decision: Decision::Linear(first), transform, is_positive }));
    }
    let vectors = Vectors::of(node, count)?;
    let pairs = labels.len() * (labels.len() - 1) / 2;
    let (a, b) = (node.floats("prob_a")?, node.floats("prob_b")?);
    let is_complete = starts.len() == labels.len() + 1
        && coefficients.len() == count * (labels.len() - 1)
        && rho.len() >= pairs
        && a.len() == b.len()
        && (a.is_empty() || a.len() >= pairs);
    if !is_complete {
        return Err(damaged("its coefficients do not fit its classes and vectors"));
    }
    let sigmoid = if a.is_empty() { None } else { Some((a.to_vec(), b.to_vec())) };
    let decision = Decision::Pairs(Pairs { starts, coefficients, rho: rho.to_vec(), sigmoid });
    Ok(Box::new(Classifier { vectors, labels, decision, transform, is_positive }))
}

/// Where the vectors of each class begin, and where the last ones end.
fn starts(counts: &[i64]) -> Result<Vec<usize>> {
    let mut starts = vec![0_usize];
    let mut end = 0_usize;
    for count in counts {
        let count = usize::try_from(*count).ok().filter(|count| *count <= 1 << 32);
        end += count.ok_or_else(|| damaged("a class has a number of vectors that is not possible"))?;
        starts.push(end);
    }
    Ok(starts)
}

impl Vectors {
    fn linear(lines: Vec<f32>, inner: usize) -> Result<Self> {
        if inner == 0 {
            return Err(damaged("it has no coefficients"));
        }
        Ok(Self { kernel: Kernel::Linear, gamma: 0.0, zero: 0.0, degree: 0.0, lines, inner })
    }

    fn of(node: &Node<'_>, count: usize) -> Result<Self> {
        let kernel = match node.string("kernel_type")?.as_deref() {
            None | Some("LINEAR") => Kernel::Linear,
            Some("POLY") => Kernel::Poly,
            Some("RBF") => Kernel::Rbf,
            Some("SIGMOID") => Kernel::Sigmoid,
            Some(other) => return Err(refused(format!("kernel_type {other} is not covered"))),
        };
        let (gamma, zero, degree) = match node.floats("kernel_params")? {
            [] => (0.0, 0.0, 0.0),
            [gamma, zero, degree, ..] => (*gamma, *zero, *degree),
            _ => return Err(damaged("its kernel has too few parameters")),
        };
        let lines = node.floats("support_vectors")?.to_vec();
        if lines.is_empty() || !lines.len().is_multiple_of(count) {
            return Err(damaged(format!("its support vectors are not {count}")));
        }
        let inner = lines.len() / count;
        Ok(Self { kernel, gamma, zero, degree, lines, inner })
    }

    /// The kernel of each row and vector (`batched_kernel_dot`).
    fn kernels(&self, tensor: &Tensor<'_>, addend: f32, work: &mut Work) -> Result<(usize, Vec<f32>)> {
        let (rows, columns) = tensor.rows_and_columns()?;
        if columns != self.inner {
            return Err(damaged(format!("it takes {} features and gets {columns}", self.inner)));
        }
        let count = self.lines.len() / self.inner;
        work.take_shape(&[rows, count])?;
        let values = tensor.as_f32()?;
        let mut made = Vec::with_capacity(rows * count);
        if self.kernel == Kernel::Rbf {
            for row in values.chunks_exact(self.inner) {
                made.extend(self.lines.chunks_exact(self.inner).map(|line| {
                    let square = |sum: f32, (a, b): (&f32, &f32)| sum + (a - b) * (a - b);
                    (-self.gamma * row.iter().zip(line).fold(0.0, square)).exp()
                }));
            }
            return Ok((rows, made));
        }
        let is_linear = self.kernel == Kernel::Linear;
        let (alpha, addend) = if is_linear { (1.0, addend) } else { (self.gamma, self.zero) };
        let addends = vec![addend; count];
        times_lines(&values, &self.lines, self.inner, alpha, Some(&addends), &mut made);
        match (self.kernel, self.degree) {
            (Kernel::Poly, 2.0) => made.iter_mut().for_each(|value| *value *= *value),
            (Kernel::Poly, 3.0) => made.iter_mut().for_each(|value| *value = *value * *value * *value),
            (Kernel::Poly, degree) => made.iter_mut().for_each(|value| *value = value.powf(degree)),
            (Kernel::Sigmoid, _) => made.iter_mut().for_each(|value| *value = tanh(*value)),
            (Kernel::Linear | Kernel::Rbf, _) => {}
        }
        Ok((rows, made))
    }
}

impl Operator for Regressor {
    fn run<'a>(&'a self, inputs: &Inputs<'_, 'a>, work: &mut Work) -> Result<Vec<Tensor<'a>>> {
        let (rows, kernels) = self.vectors.kernels(inputs.at(0)?, self.rho, work)?;
        let mut sums = kernels;
        if let Some(coefficients) = &self.coefficients {
            let mut made = Vec::with_capacity(rows);
            times_lines(&sums, coefficients, coefficients.len(), 1.0, Some(&[self.rho]), &mut made);
            sums = made;
        }
        if self.one_class {
            sums.iter_mut().for_each(|sum| *sum = if *sum > 0.0 { 1.0 } else { -1.0 });
        }
        Ok(vec![Tensor::floats(vec![rows, 1], sums)])
    }
}

impl Operator for Classifier {
    fn run<'a>(&'a self, inputs: &Inputs<'_, 'a>, work: &mut Work) -> Result<Vec<Tensor<'a>>> {
        let input = inputs.at(0)?;
        let count = self.labels.len();
        let addend = if let Decision::Linear(rho) = self.decision { rho } else { 0.0 };
        let (rows, kernels) = self.vectors.kernels(input, addend, work)?;
        work.take_shape(&[rows, count, count])?;
        let mut classes = Vec::with_capacity(rows);
        let mut scores = Vec::new();
        match &self.decision {
            Decision::Linear(_) => {
                for row in kernels.chunks_exact(count) {
                    let best = first_biggest(row);
                    // The second class wins in more cases (`ChooseClass`).
                    let is_second = count == 2 && row[best] > 0.0 && (!self.is_positive || row[best] >= 0.5);
                    classes.push(if is_second { 1 } else { best });
                    scores.extend_from_slice(row);
                }
                self.transform.apply_to_rows(&mut scores, count);
            }
            Decision::Pairs(pairs) => {
                let width = self.vectors.lines.len() / self.vectors.inner;
                let mut scratch = Scratch::default();
                for row in kernels.chunks_exact(width.max(1)) {
                    classes.push(pairs.decide(row, count, &mut scratch));
                    self.tell(pairs, &mut scratch, &mut scores);
                }
            }
        }
        let width = scores.len().checked_div(rows).unwrap_or_else(|| self.width());
        Ok(vec![self.labels.tensor(&classes), Tensor::floats(vec![rows, width], scores)])
    }

    fn labels(&self) -> Option<Vec<String>> {
        Some(self.labels.names())
    }
}

impl Classifier {
    /// How many scores a row has.
    fn width(&self) -> usize {
        let count = self.labels.len();
        match &self.decision {
            Decision::Pairs(Pairs { sigmoid: None, .. }) if count > 2 => count * (count - 1) / 2,
            _ => count,
        }
    }

    /// Makes scores of the decisions of a row.
    fn tell(&self, pairs: &Pairs, scratch: &mut Scratch, scores: &mut Vec<f32>) {
        let count = self.labels.len();
        let first = scores.len();
        if let Some((a, b)) = &pairs.sigmoid {
            probabilities(count, a, b, scratch);
            scores.extend_from_slice(&scratch.probabilities);
        } else if let ([sum], 2) = (&scratch.decisions[..], count) {
            // Between two classes without probabilities (`write_additional_scores`).
            match self.transform {
                Transform::None => scores.extend([-sum, *sum]),
                Transform::Logistic => scores.extend([logistic(-sum), logistic(*sum)]),
                Transform::Probit => scores.extend([super::transform::probit(*sum), 0.0]),
                _ => scores.extend([1.0 - sum, *sum]),
            }
            return;
        } else {
            scores.extend_from_slice(&scratch.decisions);
        }
        let width = scores.len() - first;
        self.transform.apply_to_rows(&mut scores[first..], width);
    }
}

/// Numbers of a row, kept for the next one.
#[derive(Debug, Default)]
struct Scratch {
    decisions: Vec<f32>,
    votes: Vec<u32>,
    pairwise: Vec<f32>,
    squares: Vec<f32>,
    products: Vec<f32>,
    probabilities: Vec<f32>,
}

impl Pairs {
    /// Decides between each two classes, and tells the class with the most votes.
    fn decide(&self, kernels: &[f32], count: usize, scratch: &mut Scratch) -> usize {
        scratch.decisions.clear();
        scratch.votes.clear();
        scratch.votes.resize(count, 0);
        let all = kernels.len();
        let part = |line: usize, class: usize| {
            let places = self.starts[class]..self.starts[class + 1];
            let coefficients = &self.coefficients[line * all..][places.clone()];
            // The product is f32 and the sum f64, as in `SVMClassifier::ComputeImpl`.
            coefficients.iter().zip(&kernels[places]).map(|(a, b)| f64::from(a * b))
        };
        for first in 0..count {
            for second in first + 1..count {
                let sum: f64 = part(second - 1, first).chain(part(first, second)).fold(0.0, |sum, value| sum + value);
                let sum = sum + f64::from(self.rho[scratch.decisions.len()]);
                scratch.decisions.push(sum as f32);
                scratch.votes[if sum > 0.0 { first } else { second }] += 1;
            }
        }
        first_biggest(&scratch.votes)
    }
}

/// The probabilities of classes from those between each two (`multiclass_probability`, after LIBSVM).
fn probabilities(count: usize, a: &[f32], b: &[f32], scratch: &mut Scratch) {
    let Scratch { decisions, pairwise: r, squares: q, products: qp, probabilities: p, .. } = scratch;
    for list in [&mut *r, &mut *q] {
        list.clear();
        list.resize(count * count, 0.0);
    }
    let mut index = 0;
    for first in 0..count {
        for second in first + 1..count {
            let value = 1.0 - logistic(decisions[index] * a[index] + b[index]);
            // A NaN stays one.
            let value = if value < 1.0e-7 { 1.0e-7 } else { value };
            let value = if value > 1.0 - 1.0e-7 { 1.0 - 1.0e-7 } else { value };
            r[first * count + second] = value;
            r[second * count + first] = 1.0 - value;
            index += 1;
        }
    }
    for i in 0..count {
        for j in (0..count).filter(|j| *j != i) {
            q[i * count + i] += r[j * count + i] * r[j * count + i];
            q[i * count + j] = if j < i { q[j * count + i] } else { -r[j * count + i] * r[i * count + j] };
        }
    }
    p.clear();
    p.resize(count, 1.0 / count as f32);
    qp.clear();
    qp.resize(count, 0.0);
    let enough = 0.005 / count as f32;
    for _ in 0..100 {
        let mut whole = 0.0;
        for i in 0..count {
            qp[i] = (0..count).fold(0.0, |sum, j| sum + q[i * count + j] * p[j]);
            whole += p[i] * qp[i];
        }
        let worst = qp.iter().fold(0.0_f32, |worst, value| worst.max((value - whole).abs()));
        if worst < enough {
            break;
        }
        for i in 0..count {
            let diagonal = q[i * count + i];
            let step = (-qp[i] + whole) / diagonal;
            p[i] += step;
            whole = (whole + step * (step * diagonal + 2.0 * qp[i])) / (1.0 + step) / (1.0 + step);
            for j in 0..count {
                qp[j] = (qp[j] + step * q[i * count + j]) / (1.0 + step);
                p[j] /= 1.0 + step;
            }
        }
    }
}
