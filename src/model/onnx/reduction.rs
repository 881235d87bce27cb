//! Operators that make one number of those along an axis, or weigh them against each other.

use std::cmp::Ordering;

use super::node::Node;
use super::operator::{Inputs, Operator, Work};
use super::tensor::{Data, Tensor};
use super::transform::exponential;
use super::{damaged, other_type, refused};
use crate::error::Result;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Sum,
    Mean,
    Max,
    Min,
    Product,
    L1,
    L2,
    SumSquare,
    LogSum,
    LogSumExp,
}

#[derive(Debug)]
enum Reduction {
    /// Over the axes of an attribute or of the second input; without any over all, or over none.
    Reduce {
        kind: Kind,
        axes: Option<Vec<i64>>,
        keeps: bool,
        none_is_none: bool,
    },
    /// The index of the biggest or smallest.
    Index {
        biggest: bool,
        axis: i64,
        keeps: bool,
        last: bool,
    },
    /// The biggest or smallest with their indices.
    Top {
        biggest: bool,
        axis: i64,
        count: Option<i64>,
    },
    Softmax {
        is_log: bool,
        axis: i64,
        flattens: bool,
    },
}

pub(super) fn build(node: &Node<'_>) -> Result<Box<dyn Operator>> {
    let kind = match node.operator() {
        "ReduceSum" => Kind::Sum,
        "ReduceMean" => Kind::Mean,
        "ReduceMax" => Kind::Max,
        "ReduceMin" => Kind::Min,
        "ReduceProd" => Kind::Product,
        "ReduceL1" => Kind::L1,
        "ReduceL2" => Kind::L2,
        "ReduceSumSquare" => Kind::SumSquare,
        "ReduceLogSum" => Kind::LogSum,
        "ReduceLogSumExp" => Kind::LogSumExp,
        _ => return Ok(Box::new(along_an_axis(node)?)),
    };
    Ok(Box::new(Reduction::Reduce {
        kind,
        axes: if node.has("axes") { Some(node.ints("axes")?.to_vec()) } else { None },
        keeps: node.flag("keepdims", true)?,
        none_is_none: node.flag("noop_with_empty_axes", false)?,
    }))
}

fn along_an_axis(node: &Node<'_>) -> Result<Reduction> {
    Ok(match node.operator() {
        name @ ("ArgMax" | "ArgMin") => Reduction::Index {
            biggest: name == "ArgMax",
            axis: node.int("axis")?.unwrap_or(0),
            keeps: node.flag("keepdims", true)?,
            last: node.flag("select_last_index", false)?,
        },
        "TopK" => {
            node.ignore(&["sorted"]);
            Reduction::Top {
                biggest: node.flag("largest", true)?,
                axis: node.int("axis")?.unwrap_or(-1),
                count: node.int("k")?,
            }
        }
        name @ ("Softmax" | "LogSoftmax") => {
            // Before version 13 all axes from this one on are one.
            let flattens = node.version < 13;
            let axis = node.int("axis")?.unwrap_or(if flattens { 1 } else { -1 });
            Reduction::Softmax { is_log: name == "LogSoftmax", axis, flattens }
        }
        _ => return Err(refused("it is not covered")),
    })
}

impl Operator for Reduction {
    fn run<'a>(&'a self, inputs: &Inputs<'_, 'a>, work: &mut Work) -> Result<Vec<Tensor<'a>>> {
        let first = inputs.at(0)?;
        match self {
            Reduction::Reduce { kind, axes, keeps, none_is_none } => {
                let axes = match axes {
                    Some(axes) => &axes[..],
                    None => inputs.maybe(1).map_or(Ok(&[][..]), |tensor| tensor.as_i64())?,
                };
                if axes.is_empty() && *none_is_none {
                    return Ok(vec![first.clone()]);
                }
                work.take(first.len() as u64)?;
                Ok(vec![reduced(first, *kind, &Groups::of(first, axes, *keeps)?)?])
            }
            Reduction::Index { biggest, axis, keeps, last } => {
                let lines = Lines::of(first, *axis)?;
                let order = |a: &Ordering| *a == if *biggest { Ordering::Greater } else { Ordering::Less };
                let better = |order_of: Option<Ordering>| {
                    order_of.is_some_and(|found| order(&found) || (*last && found == Ordering::Equal))
                };
                let data = match &first.data {
                    Data::F32(values) => lines.best(|at, best| better(values[at].partial_cmp(&values[best]))),
                    Data::F64(values) => lines.best(|at, best| better(values[at].partial_cmp(&values[best]))),
                    Data::I64(values) => lines.best(|at, best| better(values[at].partial_cmp(&values[best]))),
                    _ => return Err(other_type()),
                };
                Ok(vec![Tensor::new(lines.shape(first, *keeps, 1), Data::I64(data))])
            }
            Reduction::Top { biggest, axis, count } => {
                let count = match count {
                    Some(count) => *count,
                    None => *inputs.at(1)?.as_i64()?.first().ok_or_else(|| damaged("it does not say how many"))?,
                };
                top(first, *axis, count, *biggest, work)
            }
            Reduction::Softmax { is_log, axis, flattens } => {
                softmax(first, *is_log, *axis, *flattens).map(|made| vec![made])
            }
        }
    }
}

/// Which elements of a tensor become one, and the shape of what is made.
struct Groups {
    shape: Vec<usize>,
    /// How many elements each has, and how many there are.
    size: usize,
    count: usize,
    /// The group of each element, unless they are one after the other.
    list: Option<Vec<u32>>,
}

impl Groups {
    fn of(tensor: &Tensor<'_>, axes: &[i64], keeps: bool) -> Result<Self> {
        let rank = tensor.shape.len();
        let axes = axes.iter().map(|axis| tensor.axis(*axis)).collect::<Result<Vec<usize>>>()?;
        let goes = |axis: usize| axes.is_empty() || axes.contains(&axis);
        let shape: Vec<usize> = (0..rank)
            .filter(|axis| keeps || !goes(*axis))
            .map(|axis| if goes(axis) { 1 } else { tensor.shape[axis] })
            .collect();
        let size = (0..rank).filter(|axis| goes(*axis)).map(|axis| tensor.shape[axis]).product();
        let count = shape.iter().product();
        let first = (0..rank).find(|axis| goes(*axis)).unwrap_or(rank);
        let list = if (first..rank).all(goes) { None } else { Some(Self::list(tensor, goes)) };
        Ok(Self { shape, size, count, list })
    }

    fn list(tensor: &Tensor<'_>, goes: impl Fn(usize) -> bool) -> Vec<u32> {
        let mut stride = 1;
        let mut strides = vec![0; tensor.shape.len()];
        for axis in (0..tensor.shape.len()).rev().filter(|axis| !goes(*axis)) {
            strides[axis] = stride;
            stride *= tensor.shape[axis];
        }
        let group = |index: usize| {
            let (mut rest, mut group) = (index, 0);
            for (dimension, stride) in tensor.shape.iter().zip(&strides).rev() {
                group += rest % dimension * stride;
                rest /= dimension;
            }
            group as u32
        };
        (0..tensor.len()).map(group).collect()
    }

    /// Folds the elements of each group in their order.
    fn fold<T: Copy, R: Copy>(&self, values: &[T], start: R, step: impl Fn(R, T, usize) -> R) -> Vec<R> {
        let mut made = vec![start; self.count];
        match &self.list {
            Some(list) => {
                for (value, group) in values.iter().zip(list) {
                    let group = *group as usize;
                    made[group] = step(made[group], *value, group);
                }
            }
            None => {
                for (group, (values, made)) in values.chunks_exact(self.size.max(1)).zip(&mut made).enumerate() {
                    *made = values.iter().fold(start, |sum, value| step(sum, *value, group));
                }
            }
        }
        made
    }
}

fn reduced<'a>(tensor: &Tensor<'_>, kind: Kind, groups: &Groups) -> Result<Tensor<'a>> {
    macro_rules! floats {
        ($values:expr, $float:ty) => {{
            let values = &$values[..];
            let sum = |of: &dyn Fn($float) -> $float| groups.fold(values, 0.0, |sum, value, _| sum + of(value));
            let then = |made: Vec<$float>, of: &dyn Fn($float) -> $float| made.into_iter().map(of).collect();
            // A NaN does not count beside a number.
            let biggest = || groups.fold(values, <$float>::NAN, |peak, value, _| peak.max(value));
            match kind {
                Kind::Sum => sum(&|value| value),
                Kind::Mean => then(sum(&|value| value), &|sum| sum / groups.size as $float),
                Kind::Max => biggest(),
                Kind::Min => groups.fold(values, <$float>::NAN, |peak, value, _| peak.min(value)),
                Kind::Product => groups.fold(values, 1.0, |product, value, _| product * value),
                Kind::L1 => sum(&|value| value.abs()),
                Kind::L2 => then(sum(&|value| value * value), &|sum| sum.sqrt()),
                Kind::SumSquare => sum(&|value| value * value),
                Kind::LogSum => then(sum(&|value| value), &|sum| sum.ln()),
                Kind::LogSumExp => {
                    // An infinite peak does not count (`ReduceAggregatorLogSumExp`).
                    let peaks = then(biggest(), &|peak| if peak.is_infinite() { 0.0 } else { peak });
                    let sums = groups.fold(values, 0.0, |sum, value, group| sum + (value - peaks[group]).exp());
                    sums.into_iter().zip(&peaks).map(|(sum, peak): ($float, _)| sum.ln() + peak).collect()
                }
            }
        }};
    }
    let data = match &tensor.data {
        Data::F32(values) => Data::F32(floats!(values, f32)),
        Data::F64(values) => Data::F64(floats!(values, f64)),
        Data::I64(values) => Data::I64(match kind {
            Kind::Sum => groups.fold(values, 0_i64, |sum, value, _| sum.wrapping_add(value)),
            Kind::Product => groups.fold(values, 1_i64, |product, value, _| product.wrapping_mul(value)),
            Kind::Max => groups.fold(values, i64::MIN, |a, b, _| a.max(b)),
            Kind::Min => groups.fold(values, i64::MAX, |a, b, _| a.min(b)),
            _ => return Err(other_type()),
        }),
        _ => return Err(other_type()),
    };
    Ok(Tensor::new(groups.shape.clone(), data))
}

/// The lines of a tensor along an axis: `inner` lines side by side, `outer` times.
struct Lines {
    axis: usize,
    outer: usize,
    length: usize,
    inner: usize,
}

impl Lines {
    fn of(tensor: &Tensor<'_>, axis: i64) -> Result<Self> {
        let axis = tensor.axis(axis)?;
        let (before, after) = (&tensor.shape[..axis], &tensor.shape[axis + 1..]);
        let lines =
            Self { axis, outer: before.iter().product(), length: tensor.shape[axis], inner: after.iter().product() };
        if lines.length == 0 {
            return Err(damaged("there is nothing along its axis"));
        }
        Ok(lines)
    }

    /// The shape with another length along the axis.
    fn shape(&self, tensor: &Tensor<'_>, keeps: bool, length: usize) -> Vec<usize> {
        let mut shape = tensor.shape.clone();
        if keeps {
            shape[self.axis] = length;
        } else {
            shape.remove(self.axis);
        }
        shape
    }

    /// Of each line where its first element is.
    fn starts(&self) -> impl Iterator<Item = usize> {
        let (inner, length) = (self.inner, self.length);
        (0..self.outer).flat_map(move |row| (0..inner).map(move |column| row * length * inner + column))
    }

    /// Of each line the index of the element that is better than those before it.
    fn best(&self, better: impl Fn(usize, usize) -> bool) -> Vec<i64> {
        let of = |start: usize| {
            let mut best = 0;
            for index in 1..self.length {
                if better(start + index * self.inner, start + best * self.inner) {
                    best = index;
                }
            }
            best as i64
        };
        self.starts().map(of).collect()
    }
}

fn top<'a>(tensor: &Tensor<'a>, axis: i64, count: i64, biggest: bool, work: &mut Work) -> Result<Vec<Tensor<'a>>> {
    let lines = Lines::of(tensor, axis)?;
    let count = usize::try_from(count).ok().filter(|count| *count <= lines.length);
    let count = count.ok_or_else(|| damaged("it takes more elements than there are"))?;
    if lines.inner != 1 {
        return Err(refused("another axis than the last is not covered"));
    }
    work.take((tensor.len() as u64).saturating_mul(4))?;
    let value = |at: usize| match &tensor.data {
        Data::F32(values) => Ok(f64::from(values[at])),
        Data::F64(values) => Ok(values[at]),
        Data::I64(values) => Ok(values[at] as f64),
        _ => Err(other_type()),
    };
    let mut places = Vec::with_capacity(lines.outer * count);
    let mut indices = Vec::with_capacity(lines.outer * count);
    let mut line: Vec<(f64, usize)> = Vec::with_capacity(lines.length);
    for start in lines.starts() {
        line.clear();
        for index in 0..lines.length {
            line.push((value(start + index)?, index));
        }
        // Of equal ones the first comes first.
        line.sort_by(|(a, _), (b, _)| if biggest { b.total_cmp(a) } else { a.total_cmp(b) });
        for (_, index) in line.iter().take(count) {
            places.push(start + index);
            indices.push(*index as i64);
        }
    }
    let shape = lines.shape(tensor, true, count);
    let values = tensor.data.pick(places.into_iter());
    Ok(vec![Tensor::new(shape.clone(), values), Tensor::new(shape, Data::I64(indices))])
}

/// As `MlasComputeSoftmax` does it: less the biggest one, and times one over the sum.
fn softmax<'a>(tensor: &Tensor<'_>, is_log: bool, axis: i64, flattens: bool) -> Result<Tensor<'a>> {
    let axis = tensor.axis(axis)?;
    if !flattens && axis + 1 != tensor.shape.len() {
        return Err(refused("another axis than the last is not covered"));
    }
    let width = tensor.shape[axis..].iter().product::<usize>().max(1);
    macro_rules! rows {
        ($values:expr, $float:ty, $exp:expr) => {{
            let mut made = $values.clone();
            for row in made.chunks_exact_mut(width) {
                let peak = row.iter().fold(<$float>::MIN, |peak, value| if *value > peak { *value } else { peak });
                let sum: $float = row.iter().map(|value| $exp(*value - peak)).sum();
                if is_log {
                    row.iter_mut().for_each(|value| *value = *value - peak - sum.ln());
                } else {
                    let scale = 1.0 / sum;
                    row.iter_mut().for_each(|value| *value = $exp(*value - peak) * scale);
                }
            }
            made
        }};
    }
    let data = match &tensor.data {
        Data::F32(values) => Data::F32(rows!(values, f32, exponential)),
        Data::F64(values) => Data::F64(rows!(values, f64, f64::exp)),
        _ => return Err(other_type()),
    };
    Ok(Tensor::new(tensor.shape.clone(), data))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(shape: &[usize]) -> Tensor<'static> {
        let count: usize = shape.iter().product();
        Tensor::floats(shape.to_vec(), (0..count).map(|value| value as f32).collect())
    }

    fn sum(tensor: &Tensor<'_>, axes: &[i64], keeps: bool) -> Tensor<'static> {
        reduced(tensor, Kind::Sum, &Groups::of(tensor, axes, keeps).unwrap()).unwrap()
    }

    #[test]
    fn sums_along_any_axes() {
        let tensor = numbers(&[2, 3, 2]);
        assert_eq!(sum(&tensor, &[-1], false), Tensor::floats(vec![2, 3], vec![1., 5., 9., 13., 17., 21.]));
        assert_eq!(sum(&tensor, &[0], true), Tensor::floats(vec![1, 3, 2], vec![6., 8., 10., 12., 14., 16.]));
        assert_eq!(sum(&tensor, &[1], false), Tensor::floats(vec![2, 2], vec![6., 9., 24., 27.]));
        assert_eq!(sum(&tensor, &[], false), Tensor::floats(vec![], vec![66.]));
        assert_eq!(sum(&numbers(&[0, 2]), &[1], false), Tensor::floats(vec![0], vec![]));
        assert_eq!(sum(&numbers(&[2, 0]), &[1], false), Tensor::floats(vec![2], vec![0., 0.]));
    }

    #[test]
    fn the_first_of_equal_ones_is_the_biggest() {
        let tensor = Tensor::floats(vec![2, 3], vec![1., 2., 2., f32::NAN, 1., 0.]);
        let lines = Lines::of(&tensor, 1).unwrap();
        let values = tensor.as_f32().unwrap();
        assert_eq!(lines.best(|at, best| values[at] > values[best]), [1, 0]);
        let mut work = Work::new(1000, false);
        let top = top(&tensor, -1, 1, true, &mut work).unwrap();
        assert_eq!(top[1], Tensor::new(vec![2, 1], Data::I64(vec![1, 0])));
        assert!(Lines::of(&numbers(&[2, 0]), 1).is_err());
    }

    #[test]
    fn softmax_adds_up_to_one() {
        let made = softmax(&numbers(&[2, 3]), false, -1, false).unwrap();
        let sums: Vec<f32> = made.as_f32().unwrap().chunks(3).map(|row| row.iter().sum()).collect();
        assert!(sums.iter().all(|sum| (sum - 1.0).abs() < 1e-6));
        let logs = softmax(&numbers(&[2, 3]), true, 1, true).unwrap();
        assert!((logs.as_f32().unwrap()[0].exp() - made.as_f32().unwrap()[0]).abs() < 1e-6);
    }
}
