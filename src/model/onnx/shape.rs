//! Operators that move elements and do not compute.

use super::broadcast::{Places, common, zip};
use super::node::Node;
use super::operator::{Inputs, Operator, Work};
use super::tensor::{Data, MAX_RANK, Tensor, place};
use super::{damaged, refused};
use crate::error::Result;

#[derive(Debug)]
enum Movement {
    Concat(i64),
    /// With the shape of old files; zeros take the tensor's own dimension unless they are meant.
    Reshape {
        shape: Vec<i64>,
        zeros: bool,
    },
    Flatten(i64),
    Squeeze(Option<Vec<i64>>),
    Unsqueeze(Option<Vec<i64>>),
    Gather(i64),
    /// With the attributes of old files: starts, ends, axes.
    Slice(Option<[Vec<i64>; 3]>),
    Split {
        axis: i64,
        lengths: Vec<i64>,
        outputs: usize,
    },
    Dimensions {
        start: i64,
        end: Option<i64>,
    },
    Transpose(Vec<i64>),
    Expand,
    Fill(Tensor<'static>),
}

pub(super) fn build(node: &Node<'_>) -> Result<Box<dyn Operator>> {
    let axes = || -> Result<Option<Vec<i64>>> {
        if node.has("axes") { node.ints("axes").map(|axes| Some(axes.to_vec())) } else { Ok(None) }
    };
    Ok(Box::new(match node.operator() {
        "Concat" => Movement::Concat(node.int("axis")?.unwrap_or(1)),
        "Reshape" => {
            node.ignore(&["consumed_inputs"]);
            Movement::Reshape { shape: node.ints("shape")?.to_vec(), zeros: node.flag("allowzero", false)? }
        }
        "Flatten" => Movement::Flatten(node.int("axis")?.unwrap_or(1)),
        "Squeeze" => Movement::Squeeze(axes()?),
        "Unsqueeze" => Movement::Unsqueeze(axes()?),
        "Gather" => Movement::Gather(node.int("axis")?.unwrap_or(0)),
        "Slice" if node.has("starts") => {
            let of = |name| node.ints(name).map(<[i64]>::to_vec);
            Movement::Slice(Some([of("starts")?, of("ends")?, of("axes")?]))
        }
        "Slice" => Movement::Slice(None),
        "Split" => {
            node.ignore(&["num_outputs"]);
            let lengths = node.ints("split")?.to_vec();
            Movement::Split { axis: node.int("axis")?.unwrap_or(0), lengths, outputs: node.outputs() }
        }
        "Shape" => Movement::Dimensions { start: node.int("start")?.unwrap_or(0), end: node.int("end")? },
        "Transpose" => Movement::Transpose(node.ints("perm")?.to_vec()),
        "Expand" => Movement::Expand,
        "ConstantOfShape" => {
            let value = node.tensor("value")?.unwrap_or_else(|| Tensor::floats(vec![1], vec![0.0]));
            if value.len() != 1 {
                return Err(damaged("its value is not one"));
            }
            Movement::Fill(value)
        }
        _ => return Err(refused("it is not covered")),
    }))
}

impl Operator for Movement {
    fn run<'a>(&'a self, inputs: &Inputs<'_, 'a>, work: &mut Work) -> Result<Vec<Tensor<'a>>> {
        let first = inputs.at(0)?;
        let made = match self {
            Movement::Concat(axis) => concat(&inputs.all()?, *axis, work)?,
            Movement::Reshape { shape, zeros } => {
                let shape = inputs.maybe(1).map_or(Ok(&shape[..]), |tensor| tensor.as_i64())?;
                first.reshaped(reshaped(first, shape, *zeros)?)?
            }
            Movement::Flatten(axis) => {
                let rank = first.shape.len();
                let axis = if *axis == rank as i64 { rank } else { first.axis(*axis)? };
                let (before, after) = first.shape.split_at(axis);
                first.reshaped(vec![before.iter().product(), after.iter().product()])?
            }
            Movement::Squeeze(axes) => squeezed(first, axes_of(axes, inputs)?)?,
            Movement::Unsqueeze(axes) => {
                let axes = axes_of(axes, inputs)?.ok_or_else(|| damaged("it does not say which axes"))?;
                unsqueezed(first, axes)?
            }
            Movement::Gather(axis) => gathered(first, inputs.at(1)?, *axis, work)?,
            Movement::Slice(attributes) => sliced(first, attributes.as_ref(), inputs, work)?,
            Movement::Split { axis, lengths, outputs } => {
                let lengths = inputs.maybe(1).map_or(Ok(&lengths[..]), |tensor| tensor.as_i64())?;
                return split(first, *axis, lengths, *outputs);
            }
            Movement::Dimensions { start, end } => {
                let rank = first.shape.len() as i64;
                let bound = |at: i64| (if at < 0 { at.saturating_add(rank) } else { at }).clamp(0, rank) as usize;
                let (start, end) = (bound(*start), bound(end.unwrap_or(rank)));
                let part = first.shape.get(start..end).unwrap_or(&[]);
                Tensor::new(vec![part.len()], Data::I64(part.iter().map(|dimension| *dimension as i64).collect()))
            }
            Movement::Transpose(permutation) => transposed(first, permutation)?,
            Movement::Expand => {
                let shape = common(&first.shape, &dimensions(inputs.at(1)?.as_i64()?)?)?;
                let count = work.take_shape(&shape)?;
                let places = Places::of(&first.shape, &shape);
                let places =
                    zip(&(0..first.len()).collect::<Vec<_>>(), &places, &[()], &Places::One, count, |at, ()| *at);
                Tensor::new(shape, first.data.pick(places.into_iter()))
            }
            Movement::Fill(value) => {
                let shape = dimensions(first.as_i64()?)?;
                let count = work.take_shape(&shape)?;
                Tensor::new(shape, value.data.pick(std::iter::repeat_n(0, count)))
            }
        };
        Ok(vec![made])
    }
}

/// The axes of an attribute, or of the second input.
fn axes_of<'n>(axes: &'n Option<Vec<i64>>, inputs: &Inputs<'n, '_>) -> Result<Option<&'n [i64]>> {
    match axes {
        Some(axes) => Ok(Some(axes)),
        None => inputs.maybe(1).map(|tensor| tensor.as_i64()).transpose(),
    }
}

fn dimensions(numbers: &[i64]) -> Result<Vec<usize>> {
    if numbers.len() > MAX_RANK {
        return Err(refused(format!("tensors of {} dimensions are not covered", numbers.len())));
    }
    numbers.iter().map(|number| usize::try_from(*number).map_err(|_| damaged("a dimension is negative"))).collect()
}

fn concat<'a>(tensors: &[&Tensor<'a>], axis: i64, work: &mut Work) -> Result<Tensor<'a>> {
    let first = tensors.first().ok_or_else(|| damaged("it has no inputs"))?;
    let axis = first.axis(axis)?;
    let mut shape = first.shape.clone();
    shape[axis] = 0;
    for tensor in tensors {
        let fits = |at: usize| at == axis || tensor.shape[at] == first.shape[at];
        if tensor.shape.len() != shape.len() || !(0..shape.len()).all(fits) {
            return Err(damaged(format!("it joins the shapes {:?} and {:?}", first.shape, tensor.shape)));
        }
        shape[axis] = shape[axis].saturating_add(tensor.shape[axis]);
    }
    work.take_shape(&shape)?;
    let outer: usize = shape[..axis].iter().product();
    let inner: usize = shape[axis + 1..].iter().product();
    let mut data = first.data.none();
    for row in 0..outer {
        for tensor in tensors {
            let length = tensor.shape[axis] * inner;
            data.append(&tensor.data, row * length..(row + 1) * length)?;
        }
    }
    Ok(Tensor::new(shape, data))
}

/// A shape that may have a zero, which stands for the tensor's own dimension, and a -1, which stands for what remains.
fn reshaped(tensor: &Tensor<'_>, shape: &[i64], zeros: bool) -> Result<Vec<usize>> {
    let mut open = None;
    let mut made = Vec::new();
    for (axis, dimension) in shape.iter().enumerate().take(MAX_RANK + 1) {
        made.push(match dimension {
            0 if !zeros => *tensor.shape.get(axis).ok_or_else(|| damaged("its shape copies what is not there"))?,
            -1 if open.is_none() => {
                open = Some(axis);
                1
            }
            other => usize::try_from(*other).map_err(|_| damaged("its shape has a negative dimension"))?,
        });
    }
    let known = super::tensor::elements(&made)?;
    if let Some(axis) = open {
        // Without elements what remains is open: none remain.
        made[axis] = tensor.len().checked_div(known).unwrap_or(0);
    }
    Ok(made)
}

fn squeezed<'a>(tensor: &Tensor<'a>, axes: Option<&[i64]>) -> Result<Tensor<'a>> {
    let gone: Vec<usize> = match axes {
        Some(axes) => axes.iter().map(|axis| tensor.axis(*axis)).collect::<Result<_>>()?,
        None => (0..tensor.shape.len()).filter(|axis| tensor.shape[*axis] == 1).collect(),
    };
    let left = tensor.shape.iter().enumerate().filter(|(axis, _)| !gone.contains(axis));
    tensor.reshaped(left.map(|(_, dimension)| *dimension).collect())
}

fn unsqueezed<'a>(tensor: &Tensor<'a>, axes: &[i64]) -> Result<Tensor<'a>> {
    let rank = tensor.shape.len() + axes.len();
    if rank > MAX_RANK {
        return Err(refused(format!("tensors of {rank} dimensions are not covered")));
    }
    let new = axes.iter().map(|axis| place(*axis, rank)).collect::<Result<Vec<usize>>>()?;
    let mut old = tensor.shape.iter();
    let shape = (0..rank).map(|axis| if new.contains(&axis) { 1 } else { old.next().copied().unwrap_or(1) });
    tensor.reshaped(shape.collect())
}

fn gathered<'a>(tensor: &Tensor<'a>, indices: &Tensor<'_>, axis: i64, work: &mut Work) -> Result<Tensor<'a>> {
    let axis = tensor.axis(axis)?;
    let length = tensor.shape[axis];
    let at = indices.as_i64()?.iter().map(|index| place(*index, length)).collect::<Result<Vec<usize>>>()?;
    let (before, after) = (&tensor.shape[..axis], &tensor.shape[axis + 1..]);
    let shape = [before, &indices.shape, after].concat();
    work.take_shape(&shape)?;
    let (outer, inner): (usize, usize) = (before.iter().product(), after.iter().product());
    let places = (0..outer).flat_map(|row| {
        at.iter().flat_map(move |index| {
            let first = (row * length + index) * inner;
            first..first + inner
        })
    });
    Ok(Tensor::new(shape, tensor.data.pick(places)))
}

fn sliced<'a>(
    tensor: &Tensor<'a>,
    attributes: Option<&[Vec<i64>; 3]>,
    inputs: &Inputs<'_, 'a>,
    work: &mut Work,
) -> Result<Tensor<'a>> {
    let input = |place: usize| inputs.maybe(place).map_or(Ok(&[][..]), |tensor| tensor.as_i64());
    let (starts, ends, axes, steps) = match attributes {
        Some([starts, ends, axes]) => (&starts[..], &ends[..], &axes[..], &[][..]),
        None => (input(1)?, input(2)?, input(3)?, input(4)?),
    };
    let or_all = |list: &[i64], count: usize| list.is_empty() || list.len() == count;
    if starts.len() != ends.len() || !or_all(axes, starts.len()) || !or_all(steps, starts.len()) {
        return Err(damaged("its starts, ends, axes and steps are not of one length"));
    }
    let mut picked: Vec<Vec<usize>> = tensor.shape.iter().map(|dimension| (0..*dimension).collect()).collect();
    for (number, (start, end)) in starts.iter().zip(ends).enumerate() {
        let axis = tensor.axis(axes.get(number).copied().unwrap_or(number as i64))?;
        picked[axis] = range(*start, *end, steps.get(number).copied().unwrap_or(1), tensor.shape[axis])?;
    }
    let shape: Vec<usize> = picked.iter().map(Vec::len).collect();
    work.take_shape(&shape)?;
    let mut places = vec![0];
    for (indices, dimension) in picked.iter().zip(&tensor.shape) {
        places = places.iter().flat_map(|place| indices.iter().map(move |index| place * dimension + index)).collect();
    }
    Ok(Tensor::new(shape, tensor.data.pick(places.into_iter())))
}

/// The indices of a slice, as in Python.
fn range(start: i64, end: i64, step: i64, length: usize) -> Result<Vec<usize>> {
    let count = length as i64;
    let bound = |at: i64, low: i64, high: i64| (if at < 0 { at.saturating_add(count) } else { at }).clamp(low, high);
    if step == 0 {
        return Err(damaged("a slice has the step 0"));
    }
    let stride = usize::try_from(step.unsigned_abs()).unwrap_or(usize::MAX);
    if step > 0 {
        let (start, end) = (bound(start, 0, count), bound(end, 0, count));
        return Ok((start as usize..end.max(start) as usize).step_by(stride).collect());
    }
    let (start, end) = (bound(start, -1, count - 1), bound(end, -1, count - 1));
    Ok((end + 1..=start).rev().step_by(stride).map(|index| index as usize).collect())
}

fn split<'a>(tensor: &Tensor<'a>, axis: i64, lengths: &[i64], outputs: usize) -> Result<Vec<Tensor<'a>>> {
    let axis = tensor.axis(axis)?;
    let total = tensor.shape[axis];
    let lengths = if lengths.is_empty() {
        // The last part is the smaller one.
        let length = total.div_ceil(outputs.max(1));
        (0..outputs).map(|part| length.min(total.saturating_sub(part * length))).collect()
    } else {
        dimensions_of_any_count(lengths)?
    };
    if lengths.len() != outputs || lengths.iter().try_fold(0_usize, |sum, part| sum.checked_add(*part)) != Some(total) {
        return Err(damaged(format!("it splits {total} into {lengths:?}")));
    }
    let outer: usize = tensor.shape[..axis].iter().product();
    let inner: usize = tensor.shape[axis + 1..].iter().product();
    let mut first = 0;
    let mut parts = Vec::with_capacity(outputs);
    for length in lengths {
        let mut shape = tensor.shape.clone();
        shape[axis] = length;
        let places = (0..outer).flat_map(|row| {
            let start = (row * total + first) * inner;
            start..start + length * inner
        });
        parts.push(Tensor::new(shape, tensor.data.pick(places)));
        first += length;
    }
    Ok(parts)
}

fn dimensions_of_any_count(numbers: &[i64]) -> Result<Vec<usize>> {
    numbers.iter().map(|number| usize::try_from(*number).map_err(|_| damaged("a length is negative"))).collect()
}

fn transposed<'a>(tensor: &Tensor<'a>, permutation: &[i64]) -> Result<Tensor<'a>> {
    let rank = tensor.shape.len();
    let order: Vec<usize> = match permutation {
        [] => (0..rank).rev().collect(),
        some => some.iter().map(|axis| place(*axis, rank)).collect::<Result<_>>()?,
    };
    if (0..rank).any(|axis| !order.contains(&axis)) || order.len() != rank {
        return Err(damaged(format!("{permutation:?} is no order of {rank} axes")));
    }
    let mut strides = vec![1; rank];
    for axis in (1..rank).rev() {
        strides[axis - 1] = strides[axis] * tensor.shape[axis];
    }
    let mut places = vec![0];
    for axis in &order {
        let (stride, dimension) = (strides[*axis], tensor.shape[*axis]);
        places = places.iter().flat_map(|place| (0..dimension).map(move |index| place + index * stride)).collect();
    }
    let shape = order.iter().map(|axis| tensor.shape[*axis]).collect();
    Ok(Tensor::new(shape, tensor.data.pick(places.into_iter())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(shape: &[usize]) -> Tensor<'static> {
        let count: usize = shape.iter().product();
        Tensor::floats(shape.to_vec(), (0..count).map(|value| value as f32).collect())
    }

    fn values(tensor: &Tensor<'_>) -> Vec<f32> {
        tensor.as_f32().unwrap().to_vec()
    }

    #[test]
    fn shapes_are_completed() {
        let tensor = numbers(&[3, 4]);
        assert_eq!(reshaped(&tensor, &[-1, 2], false).unwrap(), [6, 2]);
        assert_eq!(reshaped(&tensor, &[0, -1, 2], false).unwrap(), [3, 2, 2]);
        assert_eq!(reshaped(&numbers(&[0, 4]), &[-1, 2], false).unwrap(), [0, 2]);
        assert!(reshaped(&tensor, &[-1, -1], false).is_err());
        assert!(reshaped(&tensor, &[i64::MAX, i64::MAX], false).is_err());
        assert!(tensor.reshaped(vec![5]).is_err());
    }

    #[test]
    fn tensors_are_joined_and_split() {
        let mut work = Work::new(1000, false);
        let (a, b) = (numbers(&[2, 1]), numbers(&[2, 2]));
        let joined = concat(&[&a, &b], -1, &mut work).unwrap();
        assert_eq!((values(&joined), &joined.shape[..]), (vec![0.0, 0.0, 1.0, 1.0, 2.0, 3.0], &[2, 3][..]));
        let parts = split(&joined, 1, &[1, 2], 2).unwrap();
        assert_eq!(parts, [a.clone(), b.clone()]);
        assert_eq!(split(&numbers(&[5]), 0, &[], 2).unwrap()[1], Tensor::floats(vec![2], vec![3.0, 4.0]));
        assert!(concat(&[&a, &b], 0, &mut work).is_err());
        assert!(split(&joined, 1, &[i64::MAX, 2], 2).is_err());
    }

    #[test]
    fn elements_are_picked() {
        let mut work = Work::new(1000, false);
        let tensor = numbers(&[2, 3]);
        let index = Tensor::new(vec![2], Data::I64(vec![2, -3]));
        let got = gathered(&tensor, &index, 1, &mut work).unwrap();
        assert_eq!((values(&got), &got.shape[..]), (vec![2.0, 0.0, 5.0, 3.0], &[2, 2][..]));
        let scalar = Tensor::new(vec![], Data::I64(vec![1]));
        assert_eq!(gathered(&tensor, &scalar, 1, &mut work).unwrap().shape, [2]);
        let parts = [vec![1], vec![i64::MAX], vec![1]];
        let none = Inputs { tensors: &[] };
        assert_eq!(values(&sliced(&tensor, Some(&parts), &none, &mut work).unwrap()), [1.0, 2.0, 4.0, 5.0]);
        assert_eq!(range(-1, i64::MIN, -2, 5).unwrap(), [4, 2, 0]);
        assert_eq!(range(3, 1, 1, 5).unwrap(), Vec::<usize>::new());
        assert_eq!(range(0, 9, 2, 0).unwrap(), Vec::<usize>::new());
        assert_eq!(values(&transposed(&tensor, &[]).unwrap()), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert!(transposed(&tensor, &[0, 0]).is_err());
    }

    #[test]
    fn ones_come_and_go() {
        let tensor = numbers(&[1, 3, 1]);
        assert_eq!(squeezed(&tensor, None).unwrap().shape, [3]);
        assert_eq!(squeezed(&tensor, Some(&[-1])).unwrap().shape, [1, 3]);
        assert!(squeezed(&tensor, Some(&[1])).is_err());
        assert_eq!(unsqueezed(&numbers(&[3]), &[0, -1]).unwrap().shape, [1, 3, 1]);
        assert!(unsqueezed(&tensor, &[0; 9]).is_err());
    }
}
