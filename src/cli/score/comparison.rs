//! What a model says, held against what the training library said.

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, Float64Type};
use serde_json::json;

use crate::compare::is_near;
use crate::error::{Error, Result};
use crate::observe::grouped;

/// Rows that differ are shown, so many at most.
const SHOWN: usize = 10;

/// How predictions differ from what is expected.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    rows: u64,
    /// Rows that differ in a column at least.
    pub differ: u64,
    /// The largest difference of numbers.
    most: f64,
    shown: Vec<String>,
    /// What was compared with what, where the names do not say it.
    pub note: Option<String>,
}

/// A column of what is expected, and the one of what is found that it is held against.
enum Pair {
    Numbers { name: String, found: Float64Array, expected: Float64Array },
    Texts { name: String, found: ArrayRef, expected: ArrayRef },
}

/// Columns of what a model says: those of [`super::flat`].
pub(super) type Columns = Vec<(String, ArrayRef)>;

impl Comparison {
    /// Compares rows with rows in their order: each expected column with the one of its name, and `prediction`, where
    /// it has numbers, with the score; where all of them are classes and the score is none, with the class.
    ///
    /// # Errors
    /// `Invalid` when there is nothing to compare, or not as many rows.
    pub fn new(found: &Columns, expected: &RecordBatch, tolerance: f64) -> Result<Self> {
        let rows = found.first().map_or(0, |(_, column)| column.len());
        if expected.num_rows() != rows {
            return Err(Error::invalid(format!(
                "--expect has {} rows and --input {rows}; they belong together row by row",
                expected.num_rows(),
            )));
        }
        let mut comparison = Self { rows: rows as u64, ..Self::default() };
        let pairs = comparison.pairs(found, expected)?;
        for row in 0..rows {
            let differences: Vec<String> =
                pairs.iter().filter_map(|pair| comparison.difference(pair, row, tolerance)).collect();
            if !differences.is_empty() {
                comparison.differs(row, &differences.join(", "));
            }
        }
        Ok(comparison)
    }

    fn pairs(&mut self, found: &Columns, expected: &RecordBatch) -> Result<Vec<Pair>> {
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        let mut pairs = Vec::new();
        for (field, expected) in expected.schema().fields().iter().zip(expected.columns()) {
            let name = field.name();
            let is_one_of_several = ["probability_", "values_"].iter().any(|prefix| name.starts_with(prefix));
            match find(found, name) {
                _ if name == "prediction" => pairs.push(self.prediction(found, expected)?),
                Some(found) => {
                    let not =
                        || Error::invalid(format!("--expect: column {name} has what is no number; mend the file"));
                    let expected = numbers(expected).ok_or_else(not)?;
                    let found = cast(found, &DataType::Float64)?.as_primitive::<Float64Type>().clone();
                    pairs.push(Pair::Numbers { name: name.clone(), found, expected });
                }
                None if is_one_of_several => {
                    return Err(Error::invalid(format!(
                        "--expect has a column {name}, and the model gives {}; leave it out",
                        names.join(", ")
                    )));
                }
                None => {}
            }
        }
        if pairs.is_empty() {
            return Err(Error::invalid(format!(
                "--expect: the file has no column `prediction`, nor one of those that the model gives ({}); name it so",
                names.join(", ")
            )));
        }
        Ok(pairs)
    }

    /// What `prediction` is held against.
    fn prediction(&mut self, found: &Columns, expected: &ArrayRef) -> Result<Pair> {
        let name = "prediction".to_owned();
        let class = find(found, "prediction");
        let Some(expected) = numbers(expected) else {
            let found = class.ok_or_else(|| {
                Error::invalid("--expect: column prediction has texts, and the model gives no class; expect numbers")
            })?;
            let found = cast(found, &DataType::Utf8)?;
            return Ok(Pair::Texts { name, found, expected: cast(expected, &DataType::Utf8)? });
        };
        let score = find(found, "score").ok_or_else(|| {
            Error::invalid("--expect: the model gives several numbers; name their columns values_0, values_1 …")
        })?;
        let score = cast(score, &DataType::Float64)?.as_primitive::<Float64Type>().clone();
        let classes = class.and_then(numbers);
        if let Some(classes) = classes
            && score.iter().flatten().any(|score| score.fract() != 0.0)
            && expected.iter().all(|number| number.is_some_and(|number| number.fract() == 0.0))
        {
            self.note = Some("column prediction has classes: compared with the class, not with the score".to_owned());
            return Ok(Pair::Numbers { name, found: classes, expected });
        }
        Ok(Pair::Numbers { name, found: score, expected })
    }

    /// What is different in a row of a column.
    fn difference(&mut self, pair: &Pair, row: usize, tolerance: f64) -> Option<String> {
        match pair {
            Pair::Numbers { name, found, expected } => {
                let number = |column: &Float64Array| if column.is_null(row) { f64::NAN } else { column.value(row) };
                let (found, expected) = (number(found), number(expected));
                if is_near(found, expected, 0.0) {
                    return None;
                }
                let apart = (found - expected).abs();
                self.most = if apart.is_nan() { f64::INFINITY } else { self.most.max(apart) };
                let differs = !is_near(found, expected, tolerance);
                differs.then(|| format!("{name} {found}, expected {expected}"))
            }
            Pair::Texts { name, found, expected } => {
                let text = |column: &ArrayRef| match column.is_null(row) {
                    true => "nothing".to_owned(),
                    false => column.as_string::<i32>().value(row).to_owned(),
                };
                let (found, expected) = (text(found), text(expected));
                (found != expected).then(|| format!("{name} {found}, expected {expected}"))
            }
        }
    }

    fn differs(&mut self, row: usize, how: &str) {
        self.differ += 1;
        if self.shown.len() < SHOWN {
            self.shown.push(format!("row {}: {how}", row + 1));
        }
    }

    pub fn json(&self) -> serde_json::Value {
        json!({ "rows": self.rows, "differ": self.differ, "largest_difference": self.most, "sample": self.shown })
    }

    pub fn told(&self) -> String {
        let mut lines = vec![format!(
            "{} rows, {} differ, largest difference {:e}",
            grouped(self.rows),
            grouped(self.differ),
            self.most
        )];
        lines.extend(self.shown.iter().cloned());
        lines.join("\n")
    }
}

fn find<'c>(columns: &'c Columns, name: &str) -> Option<&'c ArrayRef> {
    columns.iter().find(|(of, _)| of == name).map(|(_, column)| column)
}

/// The numbers of a column, if it has nothing else. A NaN among numbers makes texts of them all in a CSV file.
fn numbers(column: &ArrayRef) -> Option<Float64Array> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let numbers = cast_with_options(column, &DataType::Float64, &strict).ok()?;
    Some(numbers.as_primitive::<Float64Type>().clone())
}
