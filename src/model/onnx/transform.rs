//! What operators of `ai.onnx.ml` do to their sums at the end, and functions that ONNX Runtime approximates.

use super::node::Node;
use super::refused;
use crate::error::Result;

/// The attribute `post_transform`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transform {
    None,
    Softmax,
    Logistic,
    SoftmaxZero,
    Probit,
}

impl Transform {
    pub fn of(node: &Node<'_>) -> Result<Self> {
        match node.string("post_transform")?.as_deref() {
            None | Some("NONE") => Ok(Transform::None),
            Some("SOFTMAX") => Ok(Transform::Softmax),
            Some("LOGISTIC") => Ok(Transform::Logistic),
            Some("SOFTMAX_ZERO") => Ok(Transform::SoftmaxZero),
            Some("PROBIT") => Ok(Transform::Probit),
            Some(other) => Err(refused(format!("post_transform {other} is not covered"))),
        }
    }

    /// That of a row of sums, as `write_scores` does it.
    pub fn apply(self, row: &mut [f32]) {
        match self {
            Transform::None => {}
            Transform::Softmax => softmax(row),
            Transform::Logistic => row.iter_mut().for_each(|value| *value = logistic(*value)),
            Transform::SoftmaxZero => softmax_zero(row),
            Transform::Probit => row.iter_mut().for_each(|value| *value = probit(*value)),
        }
    }

    /// The same for rows of this many sums, as `batched_update_scores_inplace` does it: several logistic values by a
    /// kernel that approximates.
    pub fn apply_to_rows(self, values: &mut [f32], width: usize) {
        match self {
            Transform::None => {}
            Transform::Logistic if width > 1 => values.iter_mut().for_each(|value| *value = sigmoid(*value)),
            Transform::Logistic | Transform::Softmax | Transform::SoftmaxZero if width == 1 => {}
            _ => values.chunks_exact_mut(width.max(1)).for_each(|row| self.apply(row)),
        }
    }
}

/// `ComputeLogistic`.
pub(super) fn logistic(value: f32) -> f32 {
    let positive = 1.0 / (1.0 + (-value.abs()).exp());
    if value < 0.0 { 1.0 - positive } else { positive }
}

/// `ComputeProbit`, with `ErfInv`.
pub(super) fn probit(value: f32) -> f32 {
    let x = 2.0 * value - 1.0;
    let sign = if x < 0.0 { -1.0 } else { 1.0 };
    let log = ((1.0 - x) * (1.0 + x)).ln();
    let v = 2.0 / (std::f32::consts::PI * 0.147) + 0.5 * log;
    let v2 = 1.0 / 0.147 * log;
    std::f32::consts::SQRT_2 * (sign * (-v + (v * v - v2).sqrt()).sqrt())
}

/// The biggest number, as both softmax functions find it.
fn peak(row: &[f32]) -> f32 {
    row.iter().fold(f32::MIN, |peak, value| if *value > peak { *value } else { peak })
}

/// `ComputeSoftmax`.
pub(super) fn softmax(row: &mut [f32]) {
    let peak = peak(row);
    let mut sum = 0.0;
    for value in row.iter_mut() {
        *value = (*value - peak).exp();
        sum += *value;
    }
    row.iter_mut().for_each(|value| *value /= sum);
}

/// `ComputeSoftmaxZero`: zeros stay what they are.
fn softmax_zero(row: &mut [f32]) {
    let peak = peak(row);
    let of_zero = (-peak).exp();
    let mut sum = 0.0;
    for value in row.iter_mut() {
        if value.abs() > 0.000_000_1 {
            *value = (*value - peak).exp();
            sum += *value;
        } else {
            *value *= of_zero;
        }
    }
    row.iter_mut().for_each(|value| *value /= sum);
}

/// A product and a sum with one rounding. Without an instruction for it the way over f64 gives the same but for a
/// few in a billion, and more quickly than a function does.
#[inline]
pub(super) fn fused(a: f32, b: f32, c: f32) -> f32 {
    (f64::from(a) * f64::from(b) + f64::from(c)) as f32
}

/// The nearest 32-bit float: arithmetic in 32 bits with numbers that stay in 64, which saves the way there and back
/// between [`fused`] steps. One operation of 32-bit floats in 64 bits, rounded so, gives what it gives in 32.
#[inline]
pub(super) fn narrowed(value: f64) -> f64 {
    f64::from(value as f32)
}

/// The rational function of `MlasComputeLogistic`.
#[inline]
pub(super) fn sigmoid(value: f32) -> f32 {
    let fused = |a: f64, b: f64, c: f32| narrowed(a * b + f64::from(c));
    // A NaN stays one.
    let x = f64::from(value.clamp(-18.0, 18.0));
    let square = narrowed(x * x);
    let p = fused(square, f64::from(4.370_31e-11_f32), 1.156_273_2e-7);
    let p = fused(p, square, 6.085_749e-5);
    let p = fused(p, square, 8.513_771e-3);
    let p = narrowed(fused(p, square, 2.482_879_5e-1) * x);
    let q = fused(square, f64::from(6.102_473_7e-13_f32), 5.761_021_4e-9);
    let q = fused(q, square, 6.291_068e-6);
    let q = fused(q, square, 1.701_988_2e-3);
    let q = fused(q, square, 1.168_176_5e-1);
    let q = fused(q, square, 9.931_519e-1);
    ((p / q) as f32 + 0.5).clamp(0.0, 1.0)
}

/// The polynomial of `MlasComputeExp`.
#[inline]
pub(super) fn exponential(value: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    // A NaN stays one.
    let x = value.clamp(-103.972_084, 88.776_26);
    let biased = fused(x, std::f32::consts::LOG2_E, MAGIC);
    let whole = biased - MAGIC;
    let x = fused(whole, -6.931_457_5e-1, x);
    let x = fused(whole, -1.428_606_8e-6, x);
    let p = fused(1.378_059_4e-3, x, 8.373_124_5e-3);
    let p = fused(p, x, 4.166_953_6e-2);
    let p = fused(p, x, 1.666_647_2e-1);
    let p = fused(p, x, 4.999_998_5e-1);
    let p = fused(p, x, 1.0);
    // Two powers of two, as one alone does not reach to the smallest numbers.
    let normal = (whole as i32).clamp(-126, 127);
    let power = |exponent: i32| f32::from_bits(((exponent + 127) as u32) << 23);
    let over = power((whole as i32 - normal).clamp(-126, 127));
    fused(p, x * over, over) * power(normal)
}

/// The rational function of `MlasComputeTanh`.
#[inline]
pub(super) fn tanh(value: f32) -> f32 {
    let x = value.clamp(-9.0, 9.0);
    let square = x * x;
    let p = fused(square, -2.760_768_4e-16, 2.000_188e-13);
    let p = fused(p, square, -8.604_672e-11);
    let p = fused(p, square, 5.122_297_3e-8);
    let p = fused(p, square, 1.485_722_35e-5);
    let p = fused(p, square, 6.372_619_5e-4);
    let p = fused(p, square, 4.893_524_6e-3) * x;
    let q = fused(square, 1.198_258_4e-6, 1.185_347_1e-4);
    let q = fused(q, square, 2.268_434_7e-3);
    let q = fused(q, square, 4.893_525e-3);
    p / q
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn approximations_are_near() {
        for step in -400..=400 {
            let value = step as f32 / 20.0;
            assert!((sigmoid(value) - logistic(value)).abs() < 2e-7, "{value}");
            assert!((tanh(value) - value.tanh()).abs() < 4e-7, "{value}");
            assert!((exponential(value) / value.exp() - 1.0).abs() < 2e-7, "{value}");
        }
        assert_eq!((sigmoid(f32::INFINITY), sigmoid(f32::NEG_INFINITY)), (1.0, 0.0));
        assert!(sigmoid(f32::NAN).is_nan());
        assert_eq!(tanh(f32::INFINITY), 1.0);
        assert_eq!((exponential(f32::INFINITY), exponential(f32::NEG_INFINITY)), (f32::INFINITY, 0.0));
        assert!(exponential(f32::NAN).is_nan() && exponential(-100.0) > 0.0);
    }

    #[test]
    fn zeros_stay_zeros_in_softmax_zero() {
        let mut row = [0.0, 1.0, 2.0];
        Transform::SoftmaxZero.apply(&mut row);
        assert_eq!(row[0], 0.0);
        assert_eq!(row[1] + row[2], 1.0);
        let mut row = [0.0, 1.0, 2.0];
        Transform::Softmax.apply(&mut row);
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6 && row[0] > 0.0);
    }

    #[test]
    fn probit_is_the_quantile_of_the_normal_distribution() {
        assert!((probit(0.975) - 1.96).abs() < 0.01);
        assert!((probit(0.025) + 1.96).abs() < 0.01);
        assert!(probit(1.5).is_nan());
    }
}
