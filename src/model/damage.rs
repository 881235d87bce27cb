//! What becomes of files that are damaged: each is refused, saying what to do, or scores.

use arrow::array::StringArray;

use super::{Column, Feature, Model};
use crate::error::Result;

/// An error that says what to do, or a model that scores.
pub(super) fn survives(parsed: Result<impl Model>) {
    let model = match parsed {
        Ok(model) => model,
        Err(error) => return assert!(error.to_string().contains("; "), "{error}"),
    };
    let texts = StringArray::from(vec![Some("Oslo"), None, Some("phone")]);
    let numbers = [1.5, f64::NAN, f64::INFINITY];
    let column = |feature: &Feature| match feature.is_text {
        true => Column::Texts(&texts),
        false => Column::Numbers(&numbers),
    };
    let columns: Vec<Column<'_>> = model.about().features.iter().map(column).collect();
    assert_eq!(model.score(&columns, 3).unwrap().predictions.len(), 3);
}

/// Numbers that are the same in each run.
pub(super) struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}
