//! Categories that a model knows by their names: what its trees compare are codes.

use std::collections::HashMap;

use super::Column;

/// The code of each category of a feature. A value that is no category is a missing one.
#[derive(Debug)]
pub(super) enum Codes {
    /// By the bytes of the name.
    Texts {
        codes: HashMap<Vec<u8>, f64>,
        /// Whether names with others than ASCII may be cut: to as many bytes as they have characters.
        may_be_cut: bool,
    },
    /// By [`bits`] of the number.
    Numbers(HashMap<u64, f64>),
}

impl Codes {
    pub fn are_texts(&self) -> bool {
        matches!(self, Self::Texts { .. })
    }

    /// The codes of a column's values.
    pub fn of_column(&self, column: &Column<'_>) -> Vec<f64> {
        match (self, column) {
            (Self::Texts { .. }, Column::Texts(texts)) => {
                texts.iter().map(|text| text.and_then(|text| self.of_text(text)).unwrap_or(f64::NAN)).collect()
            }
            (Self::Numbers(codes), Column::Numbers(numbers)) => {
                numbers.iter().map(|number| codes.get(&bits(*number)).copied().unwrap_or(f64::NAN)).collect()
            }
            (_, column) => vec![f64::NAN; column.len()],
        }
    }

    fn of_text(&self, text: &str) -> Option<f64> {
        let Self::Texts { codes, may_be_cut } = self else { return None };
        let bytes = text.as_bytes();
        let cut = || codes.get(bytes.get(..text.chars().count()).filter(|_| *may_be_cut)?);
        codes.get(bytes).or_else(cut).copied()
    }
}

/// What numbers are told apart by: 0 and -0 are one.
pub(super) fn bits(number: f64) -> u64 {
    // Adding 0 makes 0 of -0.
    (number + 0.0).to_bits()
}
