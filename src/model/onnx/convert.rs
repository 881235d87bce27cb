//! Operators that change the type of a tensor, or nothing.

use std::borrow::Cow;

use super::node::Node;
use super::operator::{Inputs, Operator, Work};
use super::tensor::{Data, Kind, Tensor};
use super::{damaged, refused};
use crate::error::Result;

#[derive(Debug)]
enum Conversion {
    Identity,
    /// To a type; `int32` cuts off what does not fit.
    Cast {
        to: Kind,
        is_short: bool,
    },
}

pub(super) fn build(node: &Node<'_>) -> Result<Box<dyn Operator>> {
    Ok(Box::new(match node.operator() {
        "Identity" => Conversion::Identity,
        "Cast" => {
            node.ignore(&["saturate", "round_mode"]);
            let to = node.int("to")?.ok_or_else(|| damaged("it does not say to which type"))?;
            Conversion::Cast { to: Kind::of(to)?, is_short: to == 6 }
        }
        _ => return Err(refused("it is not covered")),
    }))
}

impl Operator for Conversion {
    fn run<'a>(&'a self, inputs: &Inputs<'_, 'a>, work: &mut Work) -> Result<Vec<Tensor<'a>>> {
        let tensor = inputs.at(0)?;
        let data = match self {
            Conversion::Identity => tensor.data.clone(),
            Conversion::Cast { to, is_short } => cast(&tensor.data, *to, *is_short, work)?,
        };
        Ok(vec![Tensor::new(tensor.shape.clone(), data)])
    }
}

/// A number as C++ makes a whole one of it on x86: one that does not fit, and NaN, are the smallest.
fn whole(value: f64, is_short: bool) -> i64 {
    let (low, high) =
        if is_short { (f64::from(i32::MIN), f64::from(i32::MAX)) } else { (i64::MIN as f64, i64::MAX as f64) };
    let fits = value.trunc() >= low && if is_short { value.trunc() <= high } else { value < high };
    if fits { value as i64 } else { low as i64 }
}

fn cast<'a>(data: &Data<'a>, to: Kind, is_short: bool, work: &mut Work) -> Result<Data<'a>> {
    let short = |value: i64| if is_short { i64::from(value as i32) } else { value };
    Ok(match (data, to) {
        (Data::F32(_), Kind::F32) | (Data::F64(_), Kind::F64) | (Data::Bool(_), Kind::Bool) => data.clone(),
        (Data::Text(_), Kind::Text) => data.clone(),
        (Data::F32(values), Kind::F64) => Data::F64(values.iter().map(|value| f64::from(*value)).collect()),
        (Data::F32(values), Kind::I64) => {
            Data::I64(values.iter().map(|value| whole(f64::from(*value), is_short)).collect())
        }
        (Data::F32(values), Kind::Bool) => Data::Bool(values.iter().map(|value| *value != 0.0).collect()),
        (Data::F64(values), Kind::F32) => Data::F32(values.iter().map(|value| *value as f32).collect()),
        (Data::F64(values), Kind::I64) => Data::I64(values.iter().map(|value| whole(*value, is_short)).collect()),
        (Data::F64(values), Kind::Bool) => Data::Bool(values.iter().map(|value| *value != 0.0).collect()),
        (Data::I64(values), Kind::I64) => Data::I64(values.iter().map(|value| short(*value)).collect()),
        (Data::I64(values), Kind::F32) => Data::F32(values.iter().map(|value| *value as f32).collect()),
        (Data::I64(values), Kind::F64) => Data::F64(values.iter().map(|value| *value as f64).collect()),
        (Data::I64(values), Kind::Bool) => Data::Bool(values.iter().map(|value| *value != 0).collect()),
        (Data::I64(values), Kind::Text) => {
            Data::Text(values.iter().map(|value| Cow::Owned(value.to_string())).collect())
        }
        (Data::Bool(values), Kind::F32) => Data::F32(values.iter().map(|value| f32::from(*value)).collect()),
        (Data::Bool(values), Kind::F64) => Data::F64(values.iter().map(|value| f64::from(*value)).collect()),
        (Data::Bool(values), Kind::I64) => Data::I64(values.iter().map(|value| i64::from(*value)).collect()),
        (Data::Text(values), Kind::F32) => Data::F32(parsed(values, f32::NAN, work)?),
        (Data::Text(values), Kind::F64) => Data::F64(parsed(values, f64::NAN, work)?),
        (Data::Text(values), Kind::I64) => Data::I64(parsed(values, 0, work)?),
        _ => return Err(refused(format!("a cast of such a tensor to {} is not covered", to.word()))),
    })
}

fn parsed<T: std::str::FromStr + Copy>(texts: &[Cow<'_, str>], none: T, work: &Work) -> Result<Vec<T>> {
    let of = |text: &Cow<'_, str>| match text.trim().parse() {
        Ok(value) => Ok(value),
        Err(_) => {
            work.refuse_row(|| format!("text {text:?} is no number; leave the row out"))?;
            Ok(none)
        }
    };
    texts.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_do_not_fit_are_the_smallest() {
        let all = |values: &[f64], is_short| values.iter().map(|value| whole(*value, is_short)).collect::<Vec<_>>();
        assert_eq!(all(&[1.9, -1.9, f64::NAN, 1e300, -1e300], false), [1, -1, i64::MIN, i64::MIN, i64::MIN]);
        let smallest = i64::from(i32::MIN);
        assert_eq!(all(&[2_147_483_647.9, 2_147_483_648.0, f64::NAN], true), [2_147_483_647, smallest, smallest]);
    }

    #[test]
    fn texts_are_numbers_or_refused() {
        let mut work = Work::new(100, false);
        let texts = Data::Text(vec!["1.5".into(), " -inf".into()]);
        assert_eq!(cast(&texts, Kind::F32, false, &mut work).unwrap(), Data::F32(vec![1.5, f32::NEG_INFINITY]));
        let error = cast(&texts, Kind::I64, false, &mut work).unwrap_err().to_string();
        assert_eq!(error, "text \"1.5\" is no number; leave the row out");
        let mut trial = Work::new(100, true);
        assert_eq!(cast(&texts, Kind::I64, false, &mut trial).unwrap(), Data::I64(vec![0, 0]));
    }
}
