//! `OneHotEncoder` and `LabelEncoder`: what is looked up.

use std::borrow::Cow;
use std::collections::HashMap;

use super::labels::Labels;
use super::node::Node;
use super::operator::{Inputs, Operator, Work};
use super::tensor::{Data, Kind, Tensor};
use super::{damaged, refused};
use crate::error::Result;

/// Where each of some keys is.
#[derive(Debug)]
enum Places {
    Ints(HashMap<i64, usize>),
    /// By the bits of a double; zeros are one, and so are NaNs.
    Floats(HashMap<u64, usize>),
    Texts(HashMap<String, usize>),
}

fn bits(value: f64) -> u64 {
    if value.is_nan() { f64::NAN.to_bits() } else { (value + 0.0).to_bits() }
}

impl Places {
    /// Of equal keys the first one counts.
    fn of(keys: &Data<'_>) -> Result<Self> {
        fn first<K: Eq + std::hash::Hash>(keys: impl Iterator<Item = K>) -> HashMap<K, usize> {
            let mut places = HashMap::with_capacity(keys.size_hint().0);
            for (at, key) in keys.enumerate() {
                places.entry(key).or_insert(at);
            }
            places
        }
        match keys {
            Data::I64(values) => Ok(Places::Ints(first(values.iter().copied()))),
            Data::F32(values) => Ok(Places::Floats(first(values.iter().map(|value| bits(f64::from(*value)))))),
            Data::F64(values) => Ok(Places::Floats(first(values.iter().map(|value| bits(*value))))),
            Data::Text(values) => Ok(Places::Texts(first(values.iter().map(|value| value.to_string())))),
            Data::Bool(_) | Data::Columns(..) => Err(refused("keys of such a type are not covered")),
        }
    }

    /// Those of the elements of a tensor.
    fn find(&self, data: &Data<'_>) -> Result<Vec<Option<usize>>> {
        Ok(match (self, data) {
            (Places::Ints(places), Data::I64(values)) => {
                values.iter().map(|value| places.get(value).copied()).collect()
            }
            (Places::Floats(places), Data::F32(values)) => {
                values.iter().map(|value| places.get(&bits(f64::from(*value))).copied()).collect()
            }
            (Places::Floats(places), Data::F64(values)) => {
                values.iter().map(|value| places.get(&bits(*value)).copied()).collect()
            }
            (Places::Texts(places), Data::Text(values)) => {
                values.iter().map(|value| places.get(value.as_ref()).copied()).collect()
            }
            _ => return Err(damaged("its keys and its input are of different types")),
        })
    }
}

#[derive(Debug)]
struct OneHot {
    places: Places,
    count: usize,
    /// Whether a category that is unknown is all zeros.
    zeros: bool,
}

#[derive(Debug)]
struct Label {
    places: Places,
    /// The values, and the default at their end.
    values: Data<'static>,
    default: usize,
}

pub(super) fn build(node: &Node<'_>, inputs: &Inputs<'_, '_>) -> Result<Box<dyn Operator>> {
    match node.operator() {
        "OneHotEncoder" => Ok(Box::new(one_hot(node)?)),
        _ => Ok(Box::new(label(node, inputs.at(0)?.kind())?)),
    }
}

fn one_hot(node: &Node<'_>) -> Result<OneHot> {
    let keys = match Labels::of(node, "cats_strings", "cats_int64s")? {
        Labels::Numbers(numbers) => Data::I64(numbers),
        Labels::Texts(texts) => Data::Text(texts.into_iter().map(Cow::Owned).collect()),
    };
    Ok(OneHot { places: Places::of(&keys)?, count: keys.len(), zeros: node.flag("zeros", true)? })
}

/// The list of one of three types, or the tensor.
fn list(node: &Node<'_>, names: [&'static str; 4]) -> Result<Data<'static>> {
    let [texts, ints, floats, tensor] = names;
    let (texts, ints, floats) = (node.strings(texts)?, node.ints(ints)?, node.floats(floats)?);
    Ok(match node.tensor(tensor)? {
        Some(tensor) => tensor.data,
        None if !texts.is_empty() => Data::Text(texts.into_iter().map(Cow::Owned).collect()),
        None if !ints.is_empty() => Data::I64(ints.to_vec()),
        None => Data::F32(floats.to_vec()),
    })
}

fn label(node: &Node<'_>, kind: Kind) -> Result<Label> {
    let (keys, mut values) = if node.has("classes_strings") {
        // In old files texts stand for their places, or the other way round.
        let texts = Data::Text(node.strings("classes_strings")?.into_iter().map(Cow::Owned).collect());
        let numbers = Data::I64((0..texts.len() as i64).collect());
        if kind == Kind::Text { (texts, numbers) } else { (numbers, texts) }
    } else {
        let keys = ["keys_strings", "keys_int64s", "keys_floats", "keys_tensor"];
        let values = ["values_strings", "values_int64s", "values_floats", "values_tensor"];
        (list(node, keys)?, list(node, values)?)
    };
    if keys.len() != values.len() || keys.len() == 0 {
        return Err(damaged(format!("it has {} keys and {} values", keys.len(), values.len())));
    }
    let (text, int, float) = (node.string("default_string")?, node.int("default_int64")?, node.float("default_float")?);
    let default = match (node.tensor("default_tensor")?, &values) {
        (Some(tensor), _) => tensor.data,
        (None, Data::Text(_)) => Data::Text(vec![Cow::Owned(text.unwrap_or_else(|| "_Unused".to_owned()))]),
        (None, Data::I64(_)) => Data::I64(vec![int.unwrap_or(-1)]),
        (None, Data::F64(_)) => Data::F64(vec![f64::from(float.unwrap_or(-0.0))]),
        (None, Data::F32(_)) => Data::F32(vec![float.unwrap_or(-0.0)]),
        _ => return Err(refused("values of such a type are not covered")),
    };
    if default.len() != 1 {
        return Err(damaged("its default is not one value"));
    }
    let places = Places::of(&keys)?;
    let count = values.len();
    values.append(&default, 0..1)?;
    Ok(Label { places, values, default: count })
}

impl Operator for OneHot {
    fn run<'a>(&'a self, inputs: &Inputs<'_, 'a>, work: &mut Work) -> Result<Vec<Tensor<'a>>> {
        let tensor = inputs.at(0)?;
        let shape = [&tensor.shape[..], &[self.count]].concat();
        let mut made = vec![0.0; work.take_shape(&shape)?];
        // Numbers are categories by their whole part.
        let whole = |values: &mut dyn Iterator<Item = f64>| Data::I64(values.map(|value| value as i64).collect());
        let found = match &tensor.data {
            Data::F32(values) => self.places.find(&whole(&mut values.iter().map(|value| f64::from(*value))))?,
            Data::F64(values) => self.places.find(&whole(&mut values.iter().copied()))?,
            data => self.places.find(data)?,
        };
        for (found, row) in found.into_iter().zip(made.chunks_exact_mut(self.count)) {
            match found {
                Some(place) => row[place] = 1.0,
                None if self.zeros => {}
                None => {
                    work.refuse_row(|| "it meets a category that it does not know; leave the row out".to_owned())?
                }
            }
        }
        Ok(vec![Tensor::floats(shape, made)])
    }
}

impl Operator for Label {
    fn run<'a>(&'a self, inputs: &Inputs<'_, 'a>, _work: &mut Work) -> Result<Vec<Tensor<'a>>> {
        let tensor = inputs.at(0)?;
        let places = self.places.find(&tensor.data)?.into_iter().map(|place| place.unwrap_or(self.default));
        Ok(vec![Tensor::new(tensor.shape.clone(), self.values.lend(places))])
    }

    fn labels(&self) -> Option<Vec<String>> {
        match &self.values {
            Data::Text(values) => Some(values[..self.default].iter().map(|text| text.to_string()).collect()),
            Data::I64(values) => Some(values[..self.default].iter().map(i64::to_string).collect()),
            _ => None,
        }
    }
}
