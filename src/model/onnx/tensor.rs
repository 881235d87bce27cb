//! Tensors: what flows along the edges of a graph. The first dimension is, as a rule, that of the rows.

use std::borrow::Cow;

use super::proto::TensorProto;
use super::{damaged, refused};
use crate::error::Result;

/// A tensor may have this many dimensions.
pub(super) const MAX_RANK: usize = 6;

/// A tensor in row-major order; the number of its elements is the product of its dimensions.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tensor<'a> {
    pub shape: Vec<usize>,
    pub data: Data<'a>,
}

/// The elements of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Data<'a> {
    F32(Vec<f32>),
    F64(Vec<f64>),
    /// Of `int64`, and of the smaller types of whole numbers.
    I64(Vec<i64>),
    Bool(Vec<bool>),
    Text(Vec<Cow<'a, str>>),
    /// Columns of a graph's input, for operators that take them as they are.
    Columns(Vec<&'a [f64]>, Kind),
}

/// The type of the elements of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    F32,
    F64,
    I64,
    Bool,
    Text,
}

impl Kind {
    /// That of a number of `TensorProto.DataType`.
    pub fn of(data_type: i64) -> Result<Self> {
        match data_type {
            1 => Ok(Kind::F32),
            11 => Ok(Kind::F64),
            6 | 7 => Ok(Kind::I64),
            9 => Ok(Kind::Bool),
            8 => Ok(Kind::Text),
            other => Err(refused(format!("tensors of the type {other} are not covered"))),
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Kind::F32 => "float",
            Kind::F64 => "double",
            Kind::I64 => "int64",
            Kind::Bool => "bool",
            Kind::Text => "string",
        }
    }
}

impl<'a> Data<'a> {
    pub fn len(&self) -> usize {
        match self {
            Data::F32(values) => values.len(),
            Data::F64(values) => values.len(),
            Data::I64(values) => values.len(),
            Data::Bool(values) => values.len(),
            Data::Text(values) => values.len(),
            Data::Columns(columns, _) => columns.iter().map(|column| column.len()).sum(),
        }
    }

    /// The elements at these places, all of which are there.
    pub fn pick(&self, places: impl Iterator<Item = usize>) -> Data<'a> {
        match self {
            Data::F32(values) => Data::F32(places.map(|place| values[place]).collect()),
            Data::F64(values) => Data::F64(places.map(|place| values[place]).collect()),
            Data::I64(values) => Data::I64(places.map(|place| values[place]).collect()),
            Data::Bool(values) => Data::Bool(places.map(|place| values[place]).collect()),
            Data::Text(values) => Data::Text(places.map(|place| values[place].clone()).collect()),
            Data::Columns(..) => Data::F32(Vec::new()),
        }
    }

    /// The elements at these places, all of which are there, with texts that are lent.
    pub fn lend<'b>(&'b self, places: impl Iterator<Item = usize>) -> Data<'b> {
        match self {
            Data::Text(values) => Data::Text(places.map(|place| Cow::Borrowed(values[place].as_ref())).collect()),
            other => other.pick(places),
        }
    }

    /// An empty list of the same type.
    pub fn none(&self) -> Data<'a> {
        self.pick(std::iter::empty())
    }

    /// Appends elements; those of another type are refused.
    pub fn append(&mut self, other: &Data<'a>, places: std::ops::Range<usize>) -> Result<()> {
        match (self, other) {
            (Data::F32(values), Data::F32(more)) => values.extend_from_slice(&more[places]),
            (Data::F64(values), Data::F64(more)) => values.extend_from_slice(&more[places]),
            (Data::I64(values), Data::I64(more)) => values.extend_from_slice(&more[places]),
            (Data::Bool(values), Data::Bool(more)) => values.extend_from_slice(&more[places]),
            (Data::Text(values), Data::Text(more)) => values.extend_from_slice(&more[places]),
            _ => return Err(damaged("tensors of different types come together")),
        }
        Ok(())
    }
}

impl<'a> Tensor<'a> {
    /// A tensor of this shape; the caller has as many elements.
    pub fn new(shape: Vec<usize>, data: Data<'a>) -> Self {
        Self { shape, data }
    }

    pub fn floats(shape: Vec<usize>, values: Vec<f32>) -> Self {
        Self::new(shape, Data::F32(values))
    }

    pub fn len(&self) -> usize {
        self.data.len()
    }

    pub fn kind(&self) -> Kind {
        match &self.data {
            Data::F32(_) => Kind::F32,
            Data::F64(_) => Kind::F64,
            Data::I64(_) => Kind::I64,
            Data::Bool(_) => Kind::Bool,
            Data::Text(_) => Kind::Text,
            Data::Columns(_, kind) => *kind,
        }
    }

    /// Rows and columns as the operators of `ai.onnx.ml` see them: one dimension is one row.
    pub fn rows_and_columns(&self) -> Result<(usize, usize)> {
        match self.shape[..] {
            [columns] => Ok((1, columns)),
            [rows, columns] => Ok((rows, columns)),
            _ => {
                Err(damaged(format!("it takes rows and columns and gets a tensor of {} dimensions", self.shape.len())))
            }
        }
    }

    /// How many elements a row has, where the first dimension is that of the rows.
    pub fn width(&self) -> usize {
        self.shape.iter().skip(1).product()
    }

    /// An axis, which counts from the end where it is negative.
    pub fn axis(&self, axis: i64) -> Result<usize> {
        place(axis, self.shape.len())
    }

    /// The elements as f32, as operators of `ai.onnx.ml` take numbers of any type.
    pub fn as_f32(&self) -> Result<Cow<'_, [f32]>> {
        Ok(match &self.data {
            Data::F32(values) => Cow::Borrowed(values),
            Data::F64(values) => values.iter().map(|value| *value as f32).collect(),
            Data::I64(values) => values.iter().map(|value| *value as f32).collect(),
            Data::Bool(values) => values.iter().map(|value| f32::from(u8::from(*value))).collect(),
            Data::Text(_) | Data::Columns(..) => return Err(damaged("it takes numbers and gets strings")),
        })
    }

    /// The elements as whole numbers: shapes, axes and indices.
    pub fn as_i64(&self) -> Result<&[i64]> {
        match &self.data {
            Data::I64(values) => Ok(values),
            _ => Err(damaged(format!("it takes whole numbers and gets a tensor of {}", self.kind().word()))),
        }
    }

    /// The same with texts of its own.
    pub fn into_owned(self) -> Tensor<'static> {
        let data = match self.data {
            Data::F32(values) => Data::F32(values),
            Data::F64(values) => Data::F64(values),
            Data::I64(values) => Data::I64(values),
            Data::Bool(values) => Data::Bool(values),
            Data::Text(values) => Data::Text(values.into_iter().map(|text| Cow::Owned(text.into_owned())).collect()),
            Data::Columns(..) => Data::F32(Vec::new()),
        };
        Tensor { shape: self.shape, data }
    }

    /// The same elements in another shape.
    pub fn reshaped(&self, shape: Vec<usize>) -> Result<Tensor<'a>> {
        if elements(&shape)? != self.len() {
            return Err(damaged(format!("{:?} does not fit into {shape:?}", self.shape)));
        }
        Ok(Tensor::new(shape, self.data.clone()))
    }
}

/// The index that `index` means among `count` things: a negative one counts from the end.
pub(super) fn place(index: i64, count: usize) -> Result<usize> {
    let place = if index < 0 { index.checked_add_unsigned(count as u64) } else { Some(index) };
    place
        .and_then(|place| usize::try_from(place).ok())
        .filter(|place| *place < count)
        .ok_or_else(|| damaged(format!("index {index} is not one of {count}")))
}

/// How many elements a tensor of a shape has.
pub(super) fn elements(shape: &[usize]) -> Result<usize> {
    if shape.len() > MAX_RANK {
        return Err(refused(format!("tensors of {} dimensions are not covered", shape.len())));
    }
    shape
        .iter()
        .try_fold(1_usize, |product, dimension| product.checked_mul(*dimension))
        .filter(|count| *count <= 1 << 40)
        .ok_or_else(|| damaged(format!("a tensor of the shape {shape:?} is too big")))
}

/// A tensor of a file.
pub(super) fn constant(proto: &TensorProto) -> Result<Tensor<'static>> {
    if proto.data_location != 0 {
        return Err(refused(format!("the data of tensor {} is in another file", proto.name)));
    }
    let dimension = |dim: &i64| usize::try_from(*dim).map_err(|_| damaged("a tensor has a negative dimension"));
    let shape = proto.dims.iter().map(dimension).collect::<Result<Vec<usize>>>()?;
    let count = elements(&shape)?;
    let raw = &proto.raw_data[..];
    let is_raw = !raw.is_empty();
    let data = match Kind::of(i64::from(proto.data_type))? {
        Kind::F32 if is_raw => Data::F32(words(raw, f32::from_le_bytes)),
        Kind::F32 => Data::F32(proto.float_data.clone()),
        Kind::F64 if is_raw => Data::F64(words(raw, f64::from_le_bytes)),
        Kind::F64 => Data::F64(proto.double_data.clone()),
        Kind::I64 if is_raw && proto.data_type == 6 => {
            Data::I64(words(raw, i32::from_le_bytes).into_iter().map(i64::from).collect())
        }
        Kind::I64 if is_raw => Data::I64(words(raw, i64::from_le_bytes)),
        Kind::I64 if proto.data_type == 6 => {
            Data::I64(proto.int32_data.iter().map(|value| i64::from(*value)).collect())
        }
        Kind::I64 => Data::I64(proto.int64_data.clone()),
        Kind::Bool if is_raw => Data::Bool(raw.iter().map(|byte| *byte != 0).collect()),
        Kind::Bool => Data::Bool(proto.int32_data.iter().map(|value| *value != 0).collect()),
        Kind::Text => {
            Data::Text(proto.string_data.iter().map(|bytes| Ok(Cow::Owned(text(bytes)?))).collect::<Result<_>>()?)
        }
    };
    if data.len() != count {
        return Err(damaged(format!("tensor {} has {} elements and its shape {count}", proto.name, data.len())));
    }
    Ok(Tensor::new(shape, data))
}

/// Numbers of `N` bytes; a rest that is none makes their count a wrong one.
fn words<const N: usize, T>(bytes: &[u8], of: fn([u8; N]) -> T) -> Vec<T> {
    let (words, rest) = bytes.as_chunks::<N>();
    if rest.is_empty() { words.iter().map(|word| of(*word)).collect() } else { Vec::new() }
}

/// A string of a file.
pub(super) fn text(bytes: &[u8]) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| damaged("it has a string that is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_has_as_many_elements_as_its_shape_says() {
        let mut proto = TensorProto { dims: vec![2, 2], data_type: 1, float_data: vec![1.0; 4], ..Default::default() };
        assert_eq!(constant(&proto).unwrap(), Tensor::floats(vec![2, 2], vec![1.0; 4]));
        proto.dims = vec![1 << 40, 1 << 40];
        assert!(constant(&proto).unwrap_err().to_string().contains("is too big"));
        proto.dims = vec![-1];
        assert!(constant(&proto).unwrap_err().to_string().contains("negative"));
        proto.dims = vec![5];
        assert!(constant(&proto).unwrap_err().to_string().contains("has 4 elements and its shape 5"));
        let raw = TensorProto { dims: vec![2], data_type: 7, raw_data: vec![0; 17], ..Default::default() };
        assert!(constant(&raw).unwrap_err().to_string().contains("has 0 elements and its shape 2"));
        let half = TensorProto { data_type: 10, ..Default::default() };
        assert!(constant(&half).unwrap_err().to_string().contains("the type 10 are not covered"));
    }

    #[test]
    fn raw_data_is_little_endian() {
        let tensor = |data_type, dims, raw_data: &[u8]| {
            constant(&TensorProto { dims, data_type, raw_data: raw_data.to_vec(), ..Default::default() }).unwrap().data
        };
        assert_eq!(tensor(1, vec![], &1.5_f32.to_le_bytes()), Data::F32(vec![1.5]));
        assert_eq!(tensor(6, vec![1], &(-2_i32).to_le_bytes()), Data::I64(vec![-2]));
        assert_eq!(tensor(9, vec![2], &[0, 1]), Data::Bool(vec![false, true]));
    }

    #[test]
    fn negative_indices_count_from_the_end() {
        assert_eq!(place(-1, 3).unwrap(), 2);
        assert_eq!(place(2, 3).unwrap(), 2);
        assert!(place(3, 3).is_err());
        assert!(place(-4, 3).is_err());
        assert!(place(i64::MIN, 3).is_err());
    }
}
