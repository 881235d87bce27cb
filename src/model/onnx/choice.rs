//! Operators that ask of each element what it is, choose between elements, or bound them.

use super::broadcast::{Places, common, zip};
use super::node::Node;
use super::operator::{Inputs, Operator, Work};
use super::tensor::{Data, Tensor};
use super::{damaged, other_type, refused};
use crate::error::Result;

#[derive(Debug)]
enum Choice {
    Not,
    IsNaN,
    IsInf {
        negative: bool,
        positive: bool,
    },
    Where,
    /// Between bounds of the node, or those of two inputs.
    Clip(Option<f32>, Option<f32>),
}

pub(super) fn build(node: &Node<'_>) -> Result<Box<dyn Operator>> {
    Ok(Box::new(match node.operator() {
        "Not" => Choice::Not,
        "IsNaN" => Choice::IsNaN,
        "IsInf" => Choice::IsInf {
            negative: node.flag("detect_negative", true)?,
            positive: node.flag("detect_positive", true)?,
        },
        "Where" => Choice::Where,
        "Clip" => Choice::Clip(node.float("min")?, node.float("max")?),
        _ => return Err(refused("it is not covered")),
    }))
}

impl Operator for Choice {
    fn run<'a>(&'a self, inputs: &Inputs<'_, 'a>, work: &mut Work) -> Result<Vec<Tensor<'a>>> {
        let first = inputs.at(0)?;
        let made = match self {
            Choice::Not => match &first.data {
                Data::Bool(values) => asked(first, values.iter().map(|value| !value)),
                _ => return Err(other_type()),
            },
            Choice::IsNaN => match &first.data {
                Data::F32(values) => asked(first, values.iter().map(|value| value.is_nan())),
                Data::F64(values) => asked(first, values.iter().map(|value| value.is_nan())),
                _ => return Err(other_type()),
            },
            Choice::IsInf { negative, positive } => {
                let is_one =
                    |value: f64| (*negative && value == f64::NEG_INFINITY) || (*positive && value == f64::INFINITY);
                match &first.data {
                    Data::F32(values) => asked(first, values.iter().map(|value| is_one(f64::from(*value)))),
                    Data::F64(values) => asked(first, values.iter().map(|value| is_one(*value))),
                    _ => return Err(other_type()),
                }
            }
            Choice::Where => chosen(first, inputs.at(1)?, inputs.at(2)?, work)?,
            Choice::Clip(low, high) => clipped(first, inputs, *low, *high)?,
        };
        Ok(vec![made])
    }
}

fn asked<'a>(tensor: &Tensor<'_>, answers: impl Iterator<Item = bool>) -> Tensor<'a> {
    Tensor::new(tensor.shape.clone(), Data::Bool(answers.collect()))
}

fn chosen<'a>(test: &Tensor<'a>, yes: &Tensor<'a>, no: &Tensor<'a>, work: &mut Work) -> Result<Tensor<'a>> {
    let Data::Bool(tests) = &test.data else {
        return Err(other_type());
    };
    let shape = common(&common(&test.shape, &yes.shape)?, &no.shape)?;
    let count = work.take_shape(&shape)?;
    let at = |tensor: &Tensor<'_>| Places::of(&tensor.shape, &shape);
    let tests = zip(tests, &at(test), &[()], &Places::One, count, |test, ()| *test);
    let (left, right) = (at(yes), at(no));
    macro_rules! pick {
        ($yes:expr, $no:expr) => {{
            let pairs = zip($yes, &left, $no, &right, count, |yes, no| (yes.clone(), no.clone()));
            tests.into_iter().zip(pairs).map(|(test, (yes, no))| if test { yes } else { no }).collect()
        }};
    }
    let data = match (&yes.data, &no.data) {
        (Data::F32(yes), Data::F32(no)) => Data::F32(pick!(yes, no)),
        (Data::F64(yes), Data::F64(no)) => Data::F64(pick!(yes, no)),
        (Data::I64(yes), Data::I64(no)) => Data::I64(pick!(yes, no)),
        (Data::Bool(yes), Data::Bool(no)) => Data::Bool(pick!(yes, no)),
        (Data::Text(yes), Data::Text(no)) => Data::Text(pick!(yes, no)),
        _ => return Err(other_type()),
    };
    Ok(Tensor::new(shape, data))
}

fn clipped<'a>(
    tensor: &Tensor<'_>,
    inputs: &Inputs<'_, 'a>,
    low: Option<f32>,
    high: Option<f32>,
) -> Result<Tensor<'a>> {
    let bound = |place: usize, own: Option<f32>| match inputs.maybe(place).map(|tensor| &tensor.data) {
        None => Ok(own.map(f64::from)),
        Some(Data::F32(values)) if values.len() == 1 => Ok(Some(f64::from(values[0]))),
        Some(Data::F64(values)) if values.len() == 1 => Ok(Some(values[0])),
        Some(Data::I64(values)) if values.len() == 1 => Ok(Some(values[0] as f64)),
        Some(_) => Err(damaged("its bounds are not one number each")),
    };
    let (low, high) = (bound(1, low)?, bound(2, high)?);
    // A NaN stays one; the upper bound wins.
    let clip = |value: f64| {
        let value = if low.is_some_and(|low| value < low) { low.unwrap_or(value) } else { value };
        if high.is_some_and(|high| value > high) { high.unwrap_or(value) } else { value }
    };
    let data = match &tensor.data {
        Data::F32(values) => Data::F32(values.iter().map(|value| clip(f64::from(*value)) as f32).collect()),
        Data::F64(values) => Data::F64(values.iter().map(|value| clip(*value)).collect()),
        Data::I64(values) => Data::I64(values.iter().map(|value| clip(*value as f64) as i64).collect()),
        _ => return Err(other_type()),
    };
    Ok(Tensor::new(tensor.shape.clone(), data))
}
