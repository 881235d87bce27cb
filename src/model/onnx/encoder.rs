//! The operators of `ai.onnx.ml` that scale, fill and pick features, and `ZipMap`.

use super::labels::Labels;
use super::node::Node;
use super::operator::{Inputs, Operator, Work};
use super::tensor::{Data, Tensor, place};
use super::{damaged, refused};
use crate::error::Result;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Norm {
    Max,
    L1,
    L2,
}

#[derive(Debug)]
enum Encoder {
    Scaler {
        offset: Vec<f32>,
        scale: Vec<f32>,
    },
    Normalizer(Norm),
    Imputer {
        floats: Vec<f32>,
        replaced: f32,
        ints: Vec<i64>,
        replaced_int: i64,
    },
    ArrayFeatureExtractor,
    FeatureVectorizer(Vec<i64>),
    Binarizer(f32),
    /// Makes a map of each row: what counts here are the names of the columns.
    ZipMap(Labels),
}

pub(super) fn build(node: &Node<'_>) -> Result<Box<dyn Operator>> {
    Ok(Box::new(match node.operator() {
        "Scaler" => {
            let (offset, scale) = (node.floats("offset")?.to_vec(), node.floats("scale")?.to_vec());
            if offset.len() != scale.len() || scale.is_empty() {
                return Err(damaged(format!("it has {} offsets and {} scales", offset.len(), scale.len())));
            }
            Encoder::Scaler { offset, scale }
        }
        "Normalizer" => Encoder::Normalizer(match node.string("norm")?.as_deref() {
            None | Some("MAX") => Norm::Max,
            Some("L1") => Norm::L1,
            Some("L2") => Norm::L2,
            Some(other) => return Err(refused(format!("norm {other} is not covered"))),
        }),
        "Imputer" => {
            let floats = node.floats("imputed_value_floats")?.to_vec();
            let ints = node.ints("imputed_value_int64s")?.to_vec();
            if floats.is_empty() == ints.is_empty() {
                return Err(damaged("it has values of no type or of two"));
            }
            let replaced = node.float("replaced_value_float")?.unwrap_or(0.0);
            let replaced_int = node.int("replaced_value_int64")?.unwrap_or(0);
            Encoder::Imputer { floats, replaced, ints, replaced_int }
        }
        "ArrayFeatureExtractor" => Encoder::ArrayFeatureExtractor,
        "FeatureVectorizer" => Encoder::FeatureVectorizer(node.ints("inputdimensions")?.to_vec()),
        "Binarizer" => Encoder::Binarizer(node.float("threshold")?.unwrap_or(1.0)),
        "ZipMap" => Encoder::ZipMap(Labels::of(node, "classlabels_strings", "classlabels_int64s")?),
        _ => return Err(refused("it is not covered")),
    }))
}

impl Operator for Encoder {
    fn run<'a>(&'a self, inputs: &Inputs<'_, 'a>, work: &mut Work) -> Result<Vec<Tensor<'a>>> {
        let tensor = inputs.at(0)?;
        let data = match self {
            Encoder::Scaler { offset, scale } => Data::F32(scaled(tensor, offset, scale)?),
            Encoder::Normalizer(norm) => {
                let (_, width) = tensor.rows_and_columns()?;
                let mut values = tensor.as_f32()?.into_owned();
                values.chunks_exact_mut(width.max(1)).for_each(|row| normalize(row, *norm));
                Data::F32(values)
            }
            Encoder::Imputer { floats, replaced, ints, replaced_int } => match &tensor.data {
                Data::F32(values) if !floats.is_empty() => {
                    let is_gap = |value: f32| value == *replaced || (value.is_nan() && replaced.is_nan());
                    Data::F32(filled(tensor, values, floats, is_gap)?)
                }
                Data::I64(values) if !ints.is_empty() => {
                    Data::I64(filled(tensor, values, ints, |value| value == *replaced_int)?)
                }
                _ => return Err(damaged("its values and its input are of different types")),
            },
            Encoder::Binarizer(threshold) => {
                let values = tensor.as_f32()?;
                if values.iter().any(|value| value.is_nan()) {
                    work.refuse_row(|| "Binarizer takes no missing value; fill it in or leave the row out".to_owned())?;
                }
                Data::F32(values.iter().map(|value| if value > threshold { 1.0 } else { 0.0 }).collect())
            }
            Encoder::ArrayFeatureExtractor => return Ok(vec![extracted(tensor, inputs.at(1)?, work)?]),
            Encoder::FeatureVectorizer(dimensions) => return Ok(vec![vectorized(&inputs.all()?, dimensions, work)?]),
            Encoder::ZipMap(labels) => {
                let (_, width) = tensor.rows_and_columns()?;
                if width != labels.len() {
                    return Err(damaged(format!("it names {} columns and gets {width}", labels.len())));
                }
                tensor.data.clone()
            }
        };
        Ok(vec![Tensor::new(tensor.shape.clone(), data)])
    }

    fn labels(&self) -> Option<Vec<String>> {
        match self {
            Encoder::ZipMap(labels) => Some(labels.names()),
            _ => None,
        }
    }
}

/// The values of each column, one for each or one for all.
fn of_columns<T>(tensor: &Tensor<'_>, values: &[T]) -> Result<usize> {
    let (_, width) = tensor.rows_and_columns()?;
    if values.len() != width && values.len() != 1 {
        return Err(damaged(format!("it has {} values for {width} columns", values.len())));
    }
    Ok(width)
}

fn scaled(tensor: &Tensor<'_>, offset: &[f32], scale: &[f32]) -> Result<Vec<f32>> {
    let width = of_columns(tensor, scale)?;
    // A list of one goes on for all columns. Short rows are taken together.
    let length = if scale.len() == width { width } else { 1 };
    let times = (TOGETHER / length.max(1)).max(1);
    let (offset, scale) = (offset.repeat(times), scale.repeat(times));
    let chunk = offset.len().max(1);
    let mut made = Vec::with_capacity(tensor.len());
    if let Data::F64(values) = &tensor.data {
        for row in values.chunks(chunk) {
            let each = row.iter().zip(&offset).zip(&scale);
            made.extend(each.map(|((value, offset), scale)| ((value - f64::from(*offset)) * f64::from(*scale)) as f32));
        }
    } else {
        for row in tensor.as_f32()?.chunks(chunk) {
            made.extend(row.iter().zip(&offset).zip(&scale).map(|((value, offset), scale)| (value - offset) * scale));
        }
    }
    Ok(made)
}

/// Elements that are scaled in one go.
const TOGETHER: usize = 128;

/// A row over its norm (`NormalizeMax`, `NormalizeL1`, `NormalizeL2`).
fn normalize(row: &mut [f32], norm: Norm) {
    let sum = match norm {
        Norm::Max => row.iter().fold(f32::MIN, |peak, value| if *value > peak { *value } else { peak }),
        Norm::L1 => row.iter().fold(0.0, |sum, value| sum + value.abs()),
        Norm::L2 => row.iter().fold(0.0, |sum, value| sum + value * value),
    };
    if sum == 0.0 {
        return;
    }
    match norm {
        Norm::Max | Norm::L1 => row.iter_mut().for_each(|value| *value /= sum),
        Norm::L2 => {
            for value in row {
                let part = (*value * *value / sum).sqrt();
                *value = if *value < 0.0 { -part } else { part };
            }
        }
    }
}

fn filled<T: Copy>(tensor: &Tensor<'_>, values: &[T], fills: &[T], is_gap: impl Fn(T) -> bool) -> Result<Vec<T>> {
    let (_, width) = tensor.rows_and_columns()?;
    // Another number of values than columns: the first one fills all.
    let fills = if fills.len() == width { fills } else { &fills[..1] };
    let mut made = Vec::with_capacity(values.len());
    for row in values.chunks_exact(fills.len()) {
        made.extend(row.iter().zip(fills).map(|(value, fill)| if is_gap(*value) { *fill } else { *value }));
    }
    Ok(made)
}

/// Elements along the last axis.
fn extracted<'a>(tensor: &Tensor<'a>, indices: &Tensor<'_>, work: &mut Work) -> Result<Tensor<'a>> {
    let (width, before) =
        tensor.shape.split_last().ok_or_else(|| damaged("it picks from a tensor without dimensions"))?;
    let at = indices.as_i64()?.iter().map(|index| place((*index).max(-1), *width)).collect::<Result<Vec<usize>>>()?;
    if indices.as_i64()?.iter().any(|index| *index < 0) {
        return Err(damaged("it picks at a negative index"));
    }
    // Of one dimension become two.
    let shape = if before.is_empty() { vec![1, at.len()] } else { [before, &[at.len()]].concat() };
    work.take_shape(&shape)?;
    let outer: usize = before.iter().product();
    let places = (0..outer).flat_map(|row| at.iter().map(move |index| row * width + index));
    Ok(Tensor::new(shape, tensor.data.pick(places)))
}

/// Columns side by side; each tensor gets as many as the attribute says, of zeros where it has fewer.
fn vectorized<'a>(tensors: &[&Tensor<'a>], dimensions: &[i64], work: &mut Work) -> Result<Tensor<'a>> {
    let widths = dimensions.iter().map(|width| usize::try_from(*width).map_err(|_| damaged("a width is negative")));
    let widths = widths.collect::<Result<Vec<usize>>>()?;
    if widths.len() != tensors.len() || tensors.is_empty() {
        return Err(damaged(format!("it has {} widths for {} inputs", widths.len(), tensors.len())));
    }
    let (rows, _) = tensors[0].rows_and_columns()?;
    let total = widths.iter().try_fold(0_usize, |sum, width| sum.checked_add(*width));
    let total = total.ok_or_else(|| damaged("its widths are too big"))?;
    let mut made = vec![0.0; work.take_shape(&[rows, total])?];
    let mut first = 0;
    for (tensor, width) in tensors.iter().zip(&widths) {
        let (own_rows, own) = tensor.rows_and_columns()?;
        if own_rows != rows {
            return Err(damaged(format!("it joins {rows} rows and {own_rows}")));
        }
        let values = tensor.as_f32()?;
        let taken = own.min(*width);
        for (row, made) in values.chunks_exact(own.max(1)).zip(made.chunks_exact_mut(total.max(1))) {
            made[first..first + taken].copy_from_slice(&row[..taken]);
        }
        first += width;
    }
    Ok(Tensor::floats(vec![rows, total], made))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(shape: &[usize], values: &[f32]) -> Tensor<'static> {
        Tensor::floats(shape.to_vec(), values.to_vec())
    }

    #[test]
    fn rows_are_scaled() {
        let input = tensor(&[2, 2], &[1., 2., 3., 4.]);
        assert_eq!(scaled(&input, &[1., 0.], &[2., 10.]).unwrap(), [0., 20., 4., 40.]);
        assert_eq!(scaled(&input, &[1.], &[2.]).unwrap(), [0., 2., 4., 6.]);
        assert!(scaled(&tensor(&[1, 3], &[0.; 3]), &[1., 0.], &[2., 10.]).is_err());
    }

    #[test]
    fn a_row_of_zeros_has_no_norm() {
        for norm in [Norm::Max, Norm::L1, Norm::L2] {
            let mut row = [0.0, 0.0];
            normalize(&mut row, norm);
            assert_eq!(row, [0.0, 0.0]);
        }
        let mut row = [3.0, -4.0];
        normalize(&mut row, Norm::L2);
        assert_eq!(row, [0.6, -0.8]);
    }

    #[test]
    fn elements_are_picked_along_the_last_axis() {
        let mut work = Work::new(100, false);
        let index = |values: &[i64]| Tensor::new(vec![values.len()], Data::I64(values.to_vec()));
        let input = tensor(&[2, 2], &[1., 2., 3., 4.]);
        assert_eq!(extracted(&input, &index(&[1]), &mut work).unwrap(), tensor(&[2, 1], &[2., 4.]));
        assert_eq!(extracted(&tensor(&[2], &[1., 2.]), &index(&[1, 0]), &mut work).unwrap().shape, [1, 2]);
        assert!(extracted(&input, &index(&[2]), &mut work).is_err());
        assert!(extracted(&input, &index(&[-1]), &mut work).is_err());
    }

    #[test]
    fn features_are_joined_and_padded() {
        let mut work = Work::new(100, false);
        let (a, b) = (tensor(&[2, 1], &[1., 2.]), tensor(&[2, 2], &[3., 4., 5., 6.]));
        let joined = vectorized(&[&a, &b], &[2, 1], &mut work).unwrap();
        assert_eq!(joined, tensor(&[2, 3], &[1., 0., 3., 2., 0., 5.]));
        assert!(vectorized(&[&a], &[i64::MAX], &mut work).is_err());
        assert!(vectorized(&[&a, &b], &[1], &mut work).is_err());
    }
}
