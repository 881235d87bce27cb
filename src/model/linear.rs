//! Linear models over f32 features: an intercept and a weight for each feature.

/// The weights of a linear model.
#[derive(Debug)]
pub(super) struct Linear {
    /// One weight for each feature.
    pub weights: Vec<f32>,
    /// What every row starts with.
    pub bias: f32,
}

impl Linear {
    /// The weighted sums in f32, feature by feature, on top of `base`; a missing value adds nothing. `columns` are as
    /// in [`Model::predict`](super::Model::predict), their shape already checked.
    pub fn margins(&self, base: f32, columns: &[&[f64]], out: &mut [f32]) {
        out.fill(self.bias + base);
        for (column, weight) in columns.iter().zip(&self.weights) {
            for (value, sum) in column.iter().zip(&mut *out) {
                let value = *value as f32;
                *sum += if value.is_nan() { 0.0 } else { value * weight };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_value_adds_nothing() {
        let model = Linear { weights: vec![2.0, -1.0], bias: 0.5 };
        let mut out = [0.0; 3];
        model.margins(0.25, &[&[1.0, f64::NAN, f64::NAN], &[1.0, 1.0, f64::NAN]], &mut out);
        assert_eq!(out, [1.75, -0.25, 0.75]);
    }
}
