//! Products of matrices.

use super::broadcast::{Places, common};
use super::node::Node;
use super::operator::{Inputs, Operator, Work};
use super::tensor::{Data, Tensor};
use super::transform::{fused, narrowed};
use super::{damaged, other_types, refused};
use crate::error::Result;

#[derive(Debug)]
enum Product {
    MatMul,
    Gemm { alpha: f32, beta: f32, left_transposed: bool, right_transposed: bool },
}

pub(super) fn build(node: &Node<'_>) -> Result<Box<dyn Operator>> {
    Ok(Box::new(match node.operator() {
        "MatMul" => Product::MatMul,
        "Gemm" => {
            node.ignore(&["broadcast"]);
            Product::Gemm {
                alpha: node.float("alpha")?.unwrap_or(1.0),
                beta: node.float("beta")?.unwrap_or(1.0),
                left_transposed: node.flag("transA", false)?,
                right_transposed: node.flag("transB", false)?,
            }
        }
        _ => return Err(refused("it is not covered")),
    }))
}

impl Operator for Product {
    fn run<'a>(&'a self, inputs: &Inputs<'_, 'a>, work: &mut Work) -> Result<Vec<Tensor<'a>>> {
        let (left, right) = (inputs.at(0)?, inputs.at(1)?);
        let made = match self {
            Product::MatMul => product(left, right, (false, false), work)?,
            Product::Gemm { alpha, beta, left_transposed, right_transposed } => {
                let made = product(left, right, (*left_transposed, *right_transposed), work)?;
                scaled(made, *alpha, *beta, inputs.maybe(2))?
            }
        };
        Ok(vec![made])
    }
}

/// The rows and columns of a matrix. A list is a row on the left side of a product and a column on the right one.
fn sides(tensor: &Tensor<'_>, is_left: bool) -> Result<(usize, usize)> {
    match tensor.shape[..] {
        [count] if is_left => Ok((1, count)),
        [count] => Ok((count, 1)),
        [rows, columns] => Ok((rows, columns)),
        _ => Err(refused(format!("products of tensors of {} dimensions are not covered", tensor.shape.len()))),
    }
}

fn product<'a>(left: &Tensor<'_>, right: &Tensor<'_>, transposed: (bool, bool), work: &mut Work) -> Result<Tensor<'a>> {
    let turned = |(rows, columns), is_turned| if is_turned { (columns, rows) } else { (rows, columns) };
    let (rows, inner) = turned(sides(left, true)?, transposed.0);
    let (also_inner, columns) = turned(sides(right, false)?, transposed.1);
    if inner != also_inner {
        return Err(damaged(format!("it multiplies the shapes {:?} and {:?}", left.shape, right.shape)));
    }
    let count = work.take_shape(&[rows, columns])?;
    work.take((count as u64).saturating_mul(inner as u64) / 16)?;
    let shape = match (left.shape.len(), right.shape.len()) {
        (1, 1) => vec![],
        (1, _) => vec![columns],
        (_, 1) => vec![rows],
        _ => vec![rows, columns],
    };
    macro_rules! multiplied {
        ($a:expr, $b:expr, $add:expr) => {{
            let a = if transposed.0 { &turn($a, inner, rows) } else { $a };
            let b = if transposed.1 { &turn($b, columns, inner) } else { $b };
            let mut made = vec![Default::default(); count];
            if columns > 0 && inner > 0 {
                for (row, made) in a.chunks_exact(inner).zip(made.chunks_exact_mut(columns)) {
                    for (value, line) in row.iter().zip(b.chunks_exact(columns)) {
                        made.iter_mut().zip(line).for_each(|(sum, other)| *sum = $add(*value, *other, *sum));
                    }
                }
            }
            made
        }};
    }
    let data = match (&left.data, &right.data) {
        (Data::F32(a), Data::F32(b)) => Data::F32(multiplied!(a, b, fused)),
        (Data::F64(a), Data::F64(b)) => Data::F64(multiplied!(a, b, |a: f64, b: f64, sum: f64| a * b + sum)),
        (Data::I64(a), Data::I64(b)) => {
            Data::I64(multiplied!(a, b, |a: i64, b: i64, sum: i64| sum.wrapping_add(a.wrapping_mul(b))))
        }
        _ => return Err(damaged("it multiplies tensors of two types")),
    };
    Ok(Tensor::new(shape, data))
}

/// A matrix of this many rows and columns with its axes turned.
fn turn<T: Copy>(values: &[T], rows: usize, columns: usize) -> Vec<T> {
    (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column])).collect()
}

/// What `Gemm` does to a product: times alpha, plus beta times the third input.
fn scaled<'a>(made: Tensor<'a>, alpha: f32, beta: f32, third: Option<&Tensor<'_>>) -> Result<Tensor<'a>> {
    let Tensor { shape, data } = made;
    let places = match third {
        Some(third) if common(&third.shape, &shape)? != shape => {
            return Err(damaged(format!("the shape {:?} does not fit {shape:?}", third.shape)));
        }
        Some(third) => Places::of(&third.shape, &shape),
        None => Places::One,
    };
    let count = data.len();
    let data = match (data, third.map(|third| &third.data)) {
        (Data::F32(sums), None) => Data::F32(sums.into_iter().map(|sum| alpha * sum).collect()),
        (Data::F64(sums), None) => Data::F64(sums.into_iter().map(|sum| f64::from(alpha) * sum).collect()),
        (Data::F32(sums), Some(Data::F32(third))) => {
            let add = |sum: &f32, other: &f32| fused(alpha, *sum, beta * other);
            Data::F32(super::broadcast::zip(&sums, &Places::Same, third, &places, count, add))
        }
        (Data::F64(sums), Some(Data::F64(third))) => {
            let add = |sum: &f64, other: &f64| f64::from(alpha) * sum + f64::from(beta) * other;
            Data::F64(super::broadcast::zip(&sums, &Places::Same, third, &places, count, add))
        }
        _ => return Err(other_types()),
    };
    Ok(Tensor::new(shape, data))
}

/// Rows times the lines of a matrix of `width` lines, plus an addend for each line: what linear models and kernels do.
/// The sum begins at zero and the addend comes last, as `MlasSgemm` does it.
pub(super) fn times_lines(
    values: &[f32],
    lines: &[f32],
    inner: usize,
    alpha: f32,
    addends: Option<&[f32]>,
    sums: &mut Vec<f32>,
) {
    let rows = values.len().checked_div(inner).unwrap_or(0);
    let fill = |first: usize, tile: &mut Tile| {
        let rows = values[first * inner..].chunks_exact(inner.max(1)).take(TILE_ROWS);
        for (number, row) in rows.enumerate() {
            tile.iter_mut().zip(row).for_each(|(column, value)| column[number] = f64::from(*value));
        }
    };
    tiles((rows, inner), fill, lines, alpha, addends, sums);
}

/// The same for rows that come as columns.
pub(super) fn columns_times_lines(columns: &[&[f64]], lines: &[f32], addends: Option<&[f32]>, sums: &mut Vec<f32>) {
    let rows = columns.first().map_or(0, |column| column.len());
    let fill = |first: usize, tile: &mut Tile| {
        for (own, column) in tile.iter_mut().zip(columns) {
            own.iter_mut().zip(&column[first..]).for_each(|(own, value)| *own = narrowed(*value));
        }
    };
    tiles((rows, columns.len()), fill, lines, 1.0, addends, sums);
}

/// The elements of some rows, column by column: 32-bit floats that are ready for [`narrowed`].
type Tile = [[f64; TILE_ROWS]];

fn tiles(
    (rows, inner): (usize, usize),
    mut fill: impl FnMut(usize, &mut Tile),
    lines: &[f32],
    alpha: f32,
    addends: Option<&[f32]>,
    sums: &mut Vec<f32>,
) {
    let width = lines.len().checked_div(inner).unwrap_or(0);
    sums.clear();
    sums.resize(rows * width, 0.0);
    let mut columns = vec![[0.0; TILE_ROWS]; inner];
    for (number, sums) in sums.chunks_mut(width.max(1) * TILE_ROWS).enumerate() {
        fill(number * TILE_ROWS, &mut columns);
        for (number, line) in lines.chunks_exact(inner.max(1)).enumerate() {
            let tile = tile(&columns, line);
            let addend = addends.map(|addends| addends.get(number).copied().unwrap_or(0.0));
            for (row, sum) in sums.chunks_exact_mut(width).zip(tile) {
                row[number] = match addend {
                    Some(addend) => fused(alpha, sum, addend),
                    None => alpha * sum,
                };
            }
        }
    }
}

/// Rows whose sums are computed in turn, which hides the latency of the additions.
const TILE_ROWS: usize = 8;

/// The products of some rows with a line, of which `columns` has the elements column by column.
#[inline]
fn tile(columns: &Tile, line: &[f32]) -> [f32; TILE_ROWS] {
    let mut sums = [0.0; TILE_ROWS];
    for (column, weight) in columns.iter().zip(line) {
        let weight = f64::from(*weight);
        for (sum, value) in sums.iter_mut().zip(column) {
            *sum = narrowed(*value * weight + *sum);
        }
    }
    sums.map(|sum| sum as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(shape: &[usize], values: &[f32]) -> Tensor<'static> {
        Tensor::floats(shape.to_vec(), values.to_vec())
    }

    #[test]
    fn transposed_factors_give_the_same_product() {
        let mut work = Work::new(1000, false);
        let (a, b) = (tensor(&[2, 3], &[1., 2., 3., 4., 5., 6.]), tensor(&[3, 1], &[1., 0., -1.]));
        let expected = tensor(&[2, 1], &[-2., -2.]);
        assert_eq!(product(&a, &b, (false, false), &mut work).unwrap(), expected);
        let (a, b) = (tensor(&[3, 2], &[1., 4., 2., 5., 3., 6.]), tensor(&[1, 3], &[1., 0., -1.]));
        assert_eq!(product(&a, &b, (true, true), &mut work).unwrap(), expected);
        assert!(product(&a, &b, (false, false), &mut work).is_err());
        assert!(product(&a, &b, (true, true), &mut Work::new(1, false)).is_err());
    }

    #[test]
    fn gemm_adds_a_third_tensor() {
        let sums = tensor(&[2, 2], &[1., 2., 3., 4.]);
        let got = scaled(sums.clone(), 2.0, 0.5, Some(&tensor(&[2], &[10., 20.]))).unwrap();
        assert_eq!(got, tensor(&[2, 2], &[7., 14., 11., 18.]));
        assert!(scaled(sums, 1.0, 1.0, Some(&tensor(&[3], &[0.; 3]))).is_err());
    }

    #[test]
    fn lines_are_multiplied_with_rows() {
        let mut sums = Vec::new();
        times_lines(&[1., 2., 3., 4.], &[1., 1., 0., 2.], 2, 1.0, Some(&[0.5, 0.0]), &mut sums);
        assert_eq!(sums, [3.5, 4.0, 7.5, 8.0]);
    }
}
