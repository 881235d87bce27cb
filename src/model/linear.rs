//! Linear models over f32 features, as XGBoost's `gblinear` is one: a weight for each feature and sum.

/// The weights of a linear model.
#[derive(Debug)]
pub(super) struct Linear {
    /// Feature by feature a weight for each sum.
    pub weights: Vec<f32>,
    /// What is added to each sum.
    pub bias: Vec<f32>,
}

impl Linear {
    /// Adds the weighted sums in f32, feature by feature, to what is in `sums`; a missing value adds nothing. Rows and
    /// columns are as in [`Forest::add`](super::forest::Forest::add).
    pub fn add(&self, columns: &[&[f64]], sums: &mut [f32]) {
        let groups = self.bias.len();
        if let [bias] = self.bias[..] {
            return self.add_one(columns, bias, sums);
        }
        for row in sums.chunks_exact_mut(groups) {
            // The intercept comes after the bias (`GBLinear::Pred`).
            row.iter_mut().zip(&self.bias).for_each(|(sum, bias)| *sum += bias);
        }
        for (column, weights) in columns.iter().zip(self.weights.chunks_exact(groups)) {
            for (value, row) in column.iter().zip(sums.chunks_exact_mut(groups)) {
                let value = *value as f32;
                if !value.is_nan() {
                    row.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += value * weight);
                }
            }
        }
    }

    /// The same for a model of one sum, without conditions: several rows fit into an instruction.
    fn add_one(&self, columns: &[&[f64]], bias: f32, sums: &mut [f32]) {
        sums.iter_mut().for_each(|sum| *sum += bias);
        for (column, weight) in columns.iter().zip(&self.weights) {
            for (value, sum) in column.iter().zip(&mut *sums) {
                let value = *value as f32;
                let more = *sum + value * weight;
                *sum = if value.is_nan() { *sum } else { more };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_value_adds_nothing() {
        let model = Linear { weights: vec![2.0, -1.0], bias: vec![0.5] };
        let mut out = [0.25; 3];
        model.add(&[&[1.0, f64::NAN, f64::NAN], &[1.0, 1.0, f64::NAN]], &mut out);
        assert_eq!(out, [1.75, -0.25, 0.75]);
    }

    #[test]
    fn each_sum_has_weights_of_its_own() {
        let model = Linear { weights: vec![2.0, -1.0, 4.0, 8.0], bias: vec![0.5, 1.0] };
        let mut out = [0.0; 4];
        model.add(&[&[1.0, 0.0], &[0.0, 1.0]], &mut out);
        assert_eq!(out, [2.5, 0.0, 4.5, 9.0]);
    }
}
