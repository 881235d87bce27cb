//! Operators that compute number by number, alone or in pairs with broadcasting.

use super::broadcast::{Places, common, zip};
use super::node::Node;
use super::operator::{Inputs, Operator, Work};
use super::tensor::{Data, Tensor};
use super::transform::{exponential, sigmoid, tanh};
use super::{damaged, other_types, refused};
use crate::error::Result;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Pairwise {
    Add,
    Sub,
    Mul,
    Div,
    Max,
    Min,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Comparison {
    Equal,
    Less,
    Greater,
    LessOrEqual,
    GreaterOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Logic {
    And,
    Or,
    Xor,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Function {
    Sqrt,
    Abs,
    Neg,
    Exp,
    Log,
    Sigmoid,
    Tanh,
    Relu,
    Sign,
    Floor,
    Ceil,
    Round,
    Reciprocal,
}

#[derive(Debug)]
enum Arithmetic {
    /// Over two tensors, or over any number of them from left to right.
    Pairwise(Pairwise),
    Mean,
    Pow,
    Comparison(Comparison),
    Logic(Logic),
    Function(Function),
}

pub(super) fn build(node: &Node<'_>) -> Result<Box<dyn Operator>> {
    use Arithmetic as A;
    if node.has("axis") || node.int("broadcast")?.is_some_and(|broadcast| broadcast != 0) {
        return Err(refused("the broadcasting of files before version 7 of the operators is not covered"));
    }
    node.ignore(&["consumed_inputs"]);
    let operator = match node.operator() {
        "Add" | "Sum" => A::Pairwise(Pairwise::Add),
        "Sub" => A::Pairwise(Pairwise::Sub),
        "Mul" => A::Pairwise(Pairwise::Mul),
        "Div" => A::Pairwise(Pairwise::Div),
        "Max" => A::Pairwise(Pairwise::Max),
        "Min" => A::Pairwise(Pairwise::Min),
        "Mean" => A::Mean,
        "Pow" => A::Pow,
        "Equal" => A::Comparison(Comparison::Equal),
        "Less" => A::Comparison(Comparison::Less),
        "Greater" => A::Comparison(Comparison::Greater),
        "LessOrEqual" => A::Comparison(Comparison::LessOrEqual),
        "GreaterOrEqual" => A::Comparison(Comparison::GreaterOrEqual),
        "And" => A::Logic(Logic::And),
        "Or" => A::Logic(Logic::Or),
        "Xor" => A::Logic(Logic::Xor),
        "Sqrt" => A::Function(Function::Sqrt),
        "Abs" => A::Function(Function::Abs),
        "Neg" => A::Function(Function::Neg),
        "Exp" => A::Function(Function::Exp),
        "Log" => A::Function(Function::Log),
        "Sigmoid" => A::Function(Function::Sigmoid),
        "Tanh" => A::Function(Function::Tanh),
        "Relu" => A::Function(Function::Relu),
        "Sign" => A::Function(Function::Sign),
        "Floor" => A::Function(Function::Floor),
        "Ceil" => A::Function(Function::Ceil),
        "Round" => A::Function(Function::Round),
        "Reciprocal" => A::Function(Function::Reciprocal),
        _ => return Err(refused("it is not covered")),
    };
    Ok(Box::new(operator))
}

impl Operator for Arithmetic {
    fn run<'a>(&'a self, inputs: &Inputs<'_, 'a>, work: &mut Work) -> Result<Vec<Tensor<'a>>> {
        let first = inputs.at(0)?;
        let made = match self {
            Arithmetic::Function(function) => Tensor::new(first.shape.clone(), function.of(&first.data)?),
            Arithmetic::Pairwise(pairwise) => fold(*pairwise, inputs, work)?,
            Arithmetic::Mean => {
                let count = Tensor::floats(vec![], vec![inputs.tensors.len() as f32]);
                Pairwise::Div.of(&fold(Pairwise::Add, inputs, work)?, &count, work)?
            }
            Arithmetic::Pow => power(first, inputs.at(1)?, work)?,
            Arithmetic::Comparison(comparison) => comparison.of(first, inputs.at(1)?, work)?,
            Arithmetic::Logic(logic) => logic.of(first, inputs.at(1)?, work)?,
        };
        Ok(vec![made])
    }
}

/// All tensors, from left to right.
fn fold<'a>(pairwise: Pairwise, inputs: &Inputs<'_, 'a>, work: &mut Work) -> Result<Tensor<'a>> {
    let tensors = inputs.all()?;
    let (first, rest) = tensors.split_first().ok_or_else(|| damaged("it has no inputs"))?;
    let Some((second, rest)) = rest.split_first() else {
        return Ok((*first).clone());
    };
    let start = pairwise.of(first, second, work)?;
    rest.iter().try_fold(start, |sum, tensor| pairwise.of(&sum, tensor, work))
}

/// Two tensors that are stretched to one shape.
struct Stretched {
    shape: Vec<usize>,
    count: usize,
    /// Where the elements of each are.
    places: [Places; 2],
}

impl Stretched {
    fn of(left: &Tensor<'_>, right: &Tensor<'_>, work: &mut Work) -> Result<Self> {
        let shape = common(&left.shape, &right.shape)?;
        let count = work.take_shape(&shape)?;
        let places = [left, right].map(|tensor| Places::of(&tensor.shape, &shape));
        Ok(Self { shape, count, places })
    }
}

impl Pairwise {
    fn of<'a>(self, left: &Tensor<'_>, right: &Tensor<'_>, work: &mut Work) -> Result<Tensor<'a>> {
        let Stretched { shape, count, places: [at, to] } = Stretched::of(left, right, work)?;
        macro_rules! floats {
            ($a:expr, $b:expr) => {
                match self {
                    Pairwise::Add => zip($a, &at, $b, &to, count, |a, b| a + b),
                    Pairwise::Sub => zip($a, &at, $b, &to, count, |a, b| a - b),
                    Pairwise::Mul => zip($a, &at, $b, &to, count, |a, b| a * b),
                    Pairwise::Div => zip($a, &at, $b, &to, count, |a, b| a / b),
                    // A NaN on either side wins.
                    Pairwise::Max => zip($a, &at, $b, &to, count, |a, b| if a > b || a.is_nan() { *a } else { *b }),
                    Pairwise::Min => zip($a, &at, $b, &to, count, |a, b| if a < b || a.is_nan() { *a } else { *b }),
                }
            };
        }
        let data = match (&left.data, &right.data) {
            (Data::F32(a), Data::F32(b)) => Data::F32(floats!(a, b)),
            (Data::F64(a), Data::F64(b)) => Data::F64(floats!(a, b)),
            (Data::I64(a), Data::I64(b)) => Data::I64(match self {
                Pairwise::Add => zip(a, &at, b, &to, count, |a, b| a.wrapping_add(*b)),
                Pairwise::Sub => zip(a, &at, b, &to, count, |a, b| a.wrapping_sub(*b)),
                Pairwise::Mul => zip(a, &at, b, &to, count, |a, b| a.wrapping_mul(*b)),
                Pairwise::Div if b.contains(&0) => {
                    work.refuse_row(|| "it divides a whole number by zero; leave the row out".to_owned())?;
                    vec![0; count]
                }
                Pairwise::Div => zip(a, &at, b, &to, count, |a, b| a.wrapping_div(*b)),
                Pairwise::Max => zip(a, &at, b, &to, count, |a, b| *a.max(b)),
                Pairwise::Min => zip(a, &at, b, &to, count, |a, b| *a.min(b)),
            }),
            _ => return Err(other_types()),
        };
        Ok(Tensor::new(shape, data))
    }
}

/// The base's type is the result's. Squares and cubes are products, as in `PowImpl`.
fn power<'a>(base: &Tensor<'_>, exponent: &Tensor<'_>, work: &mut Work) -> Result<Tensor<'a>> {
    let Stretched { shape, count, places: [at, to] } = Stretched::of(base, exponent, work)?;
    let exponents: Vec<f64> = match &exponent.data {
        Data::F32(values) => values.iter().map(|value| f64::from(*value)).collect(),
        Data::F64(values) => values.clone(),
        Data::I64(values) => values.iter().map(|value| *value as f64).collect(),
        _ => return Err(other_types()),
    };
    let in_f32 = matches!(exponent.data, Data::F32(_));
    let data = match &base.data {
        Data::F32(values) => Data::F32(match exponents[..] {
            [2.0] => zip(values, &at, &exponents, &to, count, |a, _| a * a),
            [3.0] => zip(values, &at, &exponents, &to, count, |a, _| a * a * a),
            _ if in_f32 => zip(values, &at, &exponents, &to, count, |a, b| a.powf(*b as f32)),
            _ => zip(values, &at, &exponents, &to, count, |a, b| f64::from(*a).powf(*b) as f32),
        }),
        Data::F64(values) => Data::F64(match exponents[..] {
            [2.0] => zip(values, &at, &exponents, &to, count, |a, _| a * a),
            [3.0] => zip(values, &at, &exponents, &to, count, |a, _| a * a * a),
            _ => zip(values, &at, &exponents, &to, count, |a, b| a.powf(*b)),
        }),
        Data::I64(values) => Data::I64(zip(values, &at, &exponents, &to, count, |a, b| (*a as f64).powf(*b) as i64)),
        _ => return Err(other_types()),
    };
    Ok(Tensor::new(shape, data))
}

impl Comparison {
    fn of<'a>(self, left: &Tensor<'_>, right: &Tensor<'_>, work: &mut Work) -> Result<Tensor<'a>> {
        let Stretched { shape, count, places: [at, to] } = Stretched::of(left, right, work)?;
        macro_rules! compared {
            ($a:expr, $b:expr) => {
                match self {
                    Comparison::Equal => zip($a, &at, $b, &to, count, |a, b| a == b),
                    Comparison::Less => zip($a, &at, $b, &to, count, |a, b| a < b),
                    Comparison::Greater => zip($a, &at, $b, &to, count, |a, b| a > b),
                    Comparison::LessOrEqual => zip($a, &at, $b, &to, count, |a, b| a <= b),
                    Comparison::GreaterOrEqual => zip($a, &at, $b, &to, count, |a, b| a >= b),
                }
            };
        }
        let is_equal = self == Comparison::Equal;
        let data = match (&left.data, &right.data) {
            (Data::F32(a), Data::F32(b)) => compared!(a, b),
            (Data::F64(a), Data::F64(b)) => compared!(a, b),
            (Data::I64(a), Data::I64(b)) => compared!(a, b),
            (Data::Bool(a), Data::Bool(b)) if is_equal => zip(a, &at, b, &to, count, |a, b| a == b),
            (Data::Text(a), Data::Text(b)) if is_equal => zip(a, &at, b, &to, count, |a, b| a == b),
            _ => return Err(other_types()),
        };
        Ok(Tensor::new(shape, Data::Bool(data)))
    }
}

impl Logic {
    fn of<'a>(self, left: &Tensor<'_>, right: &Tensor<'_>, work: &mut Work) -> Result<Tensor<'a>> {
        let Stretched { shape, count, places: [at, to] } = Stretched::of(left, right, work)?;
        let (Data::Bool(a), Data::Bool(b)) = (&left.data, &right.data) else {
            return Err(other_types());
        };
        let data = match self {
            Logic::And => zip(a, &at, b, &to, count, |a, b| *a && *b),
            Logic::Or => zip(a, &at, b, &to, count, |a, b| *a || *b),
            Logic::Xor => zip(a, &at, b, &to, count, |a, b| a != b),
        };
        Ok(Tensor::new(shape, Data::Bool(data)))
    }
}

impl Function {
    fn of<'a>(self, data: &Data<'_>) -> Result<Data<'a>> {
        macro_rules! floats {
            ($values:expr, $exp:expr, $sigmoid:expr, $tanh:expr) => {{
                let of = |function: &dyn Fn(&_) -> _| $values.iter().map(function).collect();
                match self {
                    Function::Sqrt => of(&|value| value.sqrt()),
                    Function::Abs => of(&|value| value.abs()),
                    Function::Neg => of(&|value| -value),
                    Function::Exp => of(&$exp),
                    Function::Log => of(&|value| value.ln()),
                    Function::Sigmoid => of(&$sigmoid),
                    Function::Tanh => of(&$tanh),
                    // A NaN stays one.
                    Function::Relu => of(&|value| if *value < 0.0 { 0.0 } else { *value }),
                    Function::Sign => of(&|value| if *value == 0.0 { 0.0 } else { value.signum() }),
                    Function::Floor => of(&|value| value.floor()),
                    Function::Ceil => of(&|value| value.ceil()),
                    Function::Round => of(&|value| value.round_ties_even()),
                    Function::Reciprocal => of(&|value| 1.0 / value),
                }
            }};
        }
        Ok(match (data, self) {
            (Data::F32(values), _) => Data::F32(floats!(
                values,
                |value: &f32| exponential(*value),
                |value: &f32| sigmoid(*value),
                |value: &f32| tanh(*value)
            )),
            (Data::F64(values), _) => Data::F64(floats!(
                values,
                |value: &f64| value.exp(),
                |value: &f64| 1.0 / (1.0 + (-value).exp()),
                |value: &f64| value.tanh()
            )),
            (Data::I64(values), Function::Abs) => Data::I64(values.iter().map(|value| value.wrapping_abs()).collect()),
            (Data::I64(values), Function::Neg) => Data::I64(values.iter().map(|value| value.wrapping_neg()).collect()),
            (Data::I64(values), Function::Sign) => Data::I64(values.iter().map(|value| value.signum()).collect()),
            (Data::I64(values), Function::Relu) => Data::I64(values.iter().map(|value| *value.max(&0)).collect()),
            _ => return Err(other_types()),
        })
    }
}
