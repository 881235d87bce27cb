//! What a model says of itself, and the shapes of what goes in and comes out.

use arrow::array::{Array as _, StringArray};
use arrow::datatypes::DataType;

use crate::error::{Error, Result};

/// What is known of a model before it scores anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// The SHA-256 of the model's file in lower-case hex; of a directory, of its files.
    pub sha256: String,
    /// Library, version where the file has it, and kind: `XGBoost 3.1.2 gbtree`.
    pub kind: String,
    /// What it was trained for, in the library's word.
    pub objective: String,
    /// How many trees it has.
    pub trees: usize,
    /// What the arguments bind to, in their order.
    pub features: Vec<Feature>,
    /// What it gives.
    pub output: Output,
}

/// A column that a model takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// Its name in the model's file, or `f0`, `f1`, …
    pub name: String,
    /// Whether it takes text: the model has its own way to make numbers of it.
    pub is_text: bool,
}

/// What a model gives for a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// One number.
    Number,
    /// So many numbers.
    Numbers(usize),
    /// One of several classes.
    Classes {
        /// Their names, in the order of the probabilities.
        labels: Vec<String>,
        /// Whether it says how probable each is.
        has_probabilities: bool,
    },
}

/// A column of rows that are scored.
#[derive(Debug, Clone, Copy)]
pub enum Column<'a> {
    /// Numbers; NaN is a missing value.
    Numbers(&'a [f64]),
    /// Texts; NULL is a missing value.
    Texts(&'a StringArray),
}

/// What a model says of rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scores {
    /// For each row the number, the first of several numbers, or the index of the class.
    pub predictions: Vec<f64>,
    /// Row by row the numbers, where there are several, or the probability of each class, where the model says it; else
    /// empty.
    pub values: Vec<f64>,
}

impl Feature {
    /// A feature of numbers.
    pub fn number(name: impl Into<String>) -> Self {
        Self { name: name.into(), is_text: false }
    }

    /// A feature of texts.
    pub fn text(name: impl Into<String>) -> Self {
        Self { name: name.into(), is_text: true }
    }

    /// `count` features of numbers that have no names.
    pub fn unnamed(count: usize) -> Vec<Self> {
        (0..count).map(|feature| Self::number(format!("f{feature}"))).collect()
    }
}

impl Column<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Column::Numbers(numbers) => numbers.len(),
            Column::Texts(texts) => texts.len(),
        }
    }

    /// Numbers, as [`About::check`] has found.
    pub(super) fn numbers(&self) -> &[f64] {
        match self {
            Column::Numbers(numbers) => numbers,
            Column::Texts(_) => &[],
        }
    }
}

impl Output {
    /// How many numbers of [`Scores::values`] a row has.
    pub fn width(&self) -> usize {
        match self {
            Output::Numbers(count) => *count,
            Output::Classes { labels, has_probabilities: true } => labels.len(),
            Output::Number | Output::Classes { .. } => 0,
        }
    }
}

/// So many features are named.
const NAMED: usize = 20;

impl About {
    /// The names of its features in their order, or of the first of them.
    pub fn feature_names(&self) -> String {
        let names: Vec<&str> = self.features.iter().take(NAMED).map(|feature| feature.name.as_str()).collect();
        names.join(", ") + if self.features.len() > NAMED { ", …" } else { "" }
    }

    /// Holds the names of a function's arguments, where they have some, against those of the features. Names that are a
    /// number behind one word (`f0`, `Column_1`, `X2`) say nothing: the file has none then.
    ///
    /// # Errors
    /// `Invalid` when an argument has another name than its feature.
    pub fn check_names(&self, function: &str, arguments: &[Option<String>]) -> Result<()> {
        let numbered = |feature: &Feature| feature.name.ends_with(|end: char| end.is_ascii_digit());
        if self.features.iter().all(numbered) {
            return Ok(());
        }
        for (index, (argument, feature)) in arguments.iter().zip(&self.features).enumerate() {
            if let Some(argument) = argument.as_ref().filter(|argument| !argument.eq_ignore_ascii_case(&feature.name)) {
                return Err(Error::invalid(format!(
                    "argument {} of `{function}` is called {argument}, and the model's feature there is {}; give the \
                     arguments in the model's order and with its names, or leave the names out",
                    index + 1,
                    feature.name
                )));
            }
        }
        Ok(())
    }

    /// Whether columns are those that the model takes.
    ///
    /// # Errors
    /// `Invalid` when their number, a length or a type is another one.
    pub(super) fn check(&self, columns: &[Column<'_>], rows: usize) -> Result<()> {
        if columns.len() != self.features.len() {
            return Err(Error::invalid(format!(
                "the model takes {} columns and got {}; mend the call",
                self.features.len(),
                columns.len()
            )));
        }
        for (column, feature) in columns.iter().zip(&self.features) {
            if column.len() != rows {
                return Err(Error::invalid(format!(
                    "column {} has {} rows and the result {rows}; mend the call",
                    feature.name,
                    column.len()
                )));
            }
            if feature.is_text != matches!(column, Column::Texts(_)) {
                return Err(Error::invalid(format!(
                    "feature {} takes {}; mend the call",
                    feature.name,
                    if feature.is_text { "text" } else { "numbers" }
                )));
            }
        }
        Ok(())
    }

    /// In one line: kind, objective, trees, what it gives, and the hash.
    pub fn summary(&self) -> String {
        let trees = if self.trees > 0 { format!(", {} trees", self.trees) } else { String::new() };
        let output = match &self.output {
            Output::Number => "a number".to_owned(),
            Output::Numbers(count) => format!("{count} numbers"),
            Output::Classes { labels, .. } => format!("{} classes", labels.len()),
        };
        format!("{}, {}{trees}, {output}, sha256 {}", self.kind, self.objective, self.sha256)
    }
}

/// Whether a type is one of numbers or Booleans, or NULL.
pub(super) fn is_number(data_type: &DataType) -> bool {
    data_type.is_numeric() || matches!(data_type, DataType::Boolean | DataType::Null)
}

/// The index of the biggest of some numbers, the first of equal ones; NaN is the smallest.
pub(super) fn biggest(values: &[f64]) -> usize {
    let mut best = 0;
    for (index, value) in values.iter().enumerate().skip(1) {
        if *value > values[best] || values[best].is_nan() {
            best = index;
        }
    }
    best
}
