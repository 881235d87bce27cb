//! StringIndexer and VectorIndexer: the index of a label, and of a number that is a category.

use std::collections::HashMap;

use arrow::array::{Array as _, Float64Array, Int32Array, MapArray};

use super::assembler::Invalid;
use super::directory::Stage;
use super::plan::{Form, Kind, Plan, pairs};
use super::table::{Table, column};
use super::vector::{Block, Data, MAX_DENSE, Rows, Sparse, Step};
use crate::error::{Error, Result};

/// Over a column of numbers Spark indexes their texts. A file does not tell, so that such a column is text here too:
/// `CAST(x AS STRING)` as Spark writes it, `1.0` for a double.
#[derive(Debug)]
struct Indexer {
    name: String,
    input: usize,
    column: usize,
    indices: HashMap<String, f64>,
    labels: usize,
    invalid: Invalid,
}

#[derive(Debug)]
struct VectorIndexer {
    name: String,
    input: usize,
    column: usize,
    width: usize,
    form: Form,
    invalid: Invalid,
    /// The features that have categories, with what each category becomes.
    features: Vec<(usize, HashMap<u64, f64>)>,
}

/// The labels of each column that a StringIndexer reads.
pub(super) fn labels(stage: &Stage) -> Result<Vec<Vec<String>>> {
    let table = Table::read(stage)?;
    // Before Spark 3 there was one column.
    match table.rows().column_by_name("labels") {
        Some(_) => Ok(vec![table.texts("labels")?]),
        None => table.lists("labelsArray"),
    }
}

pub(super) fn add(plan: &mut Plan, stage: &Stage) -> Result<()> {
    let invalid = Invalid::of(stage)?;
    let labels = labels(stage)?;
    for (at, name, output) in pairs(plan, stage)? {
        let labels = labels
            .get(at)
            .ok_or_else(|| stage.fault(format_args!("there are no labels for column {name}; save the model again")))?;
        let input = plan.text(stage, &name)?;
        let column = plan.make(stage, &output, Kind::Number)?;
        let indices = labels.iter().enumerate().map(|(index, label)| (label.clone(), index as f64)).collect();
        plan.push(Indexer { name, input, column, indices, labels: labels.len(), invalid });
    }
    Ok(())
}

impl Step for Indexer {
    fn run(&self, block: &mut Block<'_>) -> Result<()> {
        block.make(self.column, |block, out, dropped| {
            let out = out.zeros(block.rows);
            for ((text, out), dropped) in block.texts(self.input).zip(out).zip(dropped) {
                let index = text.and_then(|text| self.indices.get(text));
                *out = match (index, self.invalid) {
                    (Some(index), _) => *index,
                    (None, Invalid::Keep) => self.labels as f64,
                    (None, Invalid::Error) if !*dropped => return Err(self.unseen(text)),
                    (None, _) => {
                        *dropped = true;
                        f64::NAN
                    }
                };
            }
            Ok(())
        })
    }
}

impl Indexer {
    fn unseen(&self, text: Option<&str>) -> Error {
        let what = match text {
            Some(text) => format!("label {:?} was not there when the model was trained", shortened(text)),
            None => "it is NULL".to_owned(),
        };
        Error::violated(format!(
            "column {}: {what}, and the model's StringIndexer refuses it; leave such rows out, or \
             setHandleInvalid(\"keep\") when training",
            self.name
        ))
    }
}

/// The start of a text, for a message.
fn shortened(text: &str) -> &str {
    text.char_indices().nth(60).map_or(text, |(end, _)| &text[..end])
}

pub(super) fn add_vectors(plan: &mut Plan, stage: &Stage) -> Result<()> {
    let table = Table::read(stage)?;
    let width = table.count("numFeatures")?;
    let name = stage.text("inputCol")?.to_owned();
    let vectors = plan.vectors(stage, &name, Some(width))?;
    let maps = category_maps(&table, width)?;
    let mut shape = vectors.shape;
    shape.is_sparse &= width > MAX_DENSE;
    let column = plan.make(stage, stage.text("outputCol")?, Kind::Vector(shape))?;
    plan.push(VectorIndexer {
        name,
        input: vectors.column,
        column,
        width,
        form: vectors.shape.form,
        invalid: Invalid::of(stage)?,
        features: maps,
    });
    Ok(())
}

/// The categories of the features that have some, sorted.
fn category_maps(table: &Table, width: usize) -> Result<Vec<(usize, HashMap<u64, f64>)>> {
    let fault = || Error::invalid("its categoryMaps are damaged; save the model again");
    let maps: &MapArray = column(table.rows(), "categoryMaps")?;
    if maps.is_empty() || maps.is_null(0) {
        return Err(fault());
    }
    let entries = maps.value(0);
    let features: &Int32Array = entries.column(0).as_any().downcast_ref().ok_or_else(fault)?;
    let inner: &MapArray = entries.column(1).as_any().downcast_ref().ok_or_else(fault)?;
    let mut found = Vec::new();
    for (at, feature) in features.values().iter().enumerate() {
        let feature = usize::try_from(*feature).ok().filter(|feature| *feature < width).ok_or_else(fault)?;
        if inner.is_null(at) {
            return Err(fault());
        }
        let entries = inner.value(at);
        let categories: &Float64Array = entries.column(0).as_any().downcast_ref().ok_or_else(fault)?;
        let indices: &Int32Array = entries.column(1).as_any().downcast_ref().ok_or_else(fault)?;
        let pairs = categories.values().iter().zip(indices.values());
        found.push((feature, pairs.map(|(category, index)| (key(*category), f64::from(*index))).collect()));
    }
    found.sort_by_key(|(feature, _)| *feature);
    Ok(found)
}

/// A number as the key of a map: both zeros are the same.
fn key(number: f64) -> u64 {
    if number == 0.0 { 0 } else { number.to_bits() }
}

impl Step for VectorIndexer {
    fn run(&self, block: &mut Block<'_>) -> Result<()> {
        block.make(self.column, |block, out, dropped| {
            let vectors = block.vectors(self.input);
            if let Rows::Sparse(sparse) = vectors
                && self.width > MAX_DENSE
            {
                return self.sparse(sparse, out, dropped);
            }
            let out = out.zeros(block.rows * self.width);
            match vectors {
                Rows::Dense { values, .. } => out.copy_from_slice(values),
                Rows::Sparse(_) => {
                    for row in 0..block.rows {
                        vectors.each(row, |at, value| out[at * block.rows + row] = value);
                    }
                }
            }
            for (row, dropped) in dropped.iter_mut().enumerate() {
                self.index(row, block.rows, out, dropped)?;
            }
            Ok(())
        })
    }
}

impl VectorIndexer {
    /// Vectors this wide are not stored by Spark with their zeros, so that only what is stored is looked at.
    fn sparse(&self, vectors: &Sparse, out: &mut Data, dropped: &mut [bool]) -> Result<()> {
        let out = out.no_vectors();
        for (row, dropped) in dropped.iter_mut().enumerate() {
            let (indices, values) = vectors.row(row);
            for (at, value) in indices.iter().zip(values) {
                let mut value = *value;
                if let Ok(found) = self.features.binary_search_by_key(&(*at as usize), |(feature, _)| *feature) {
                    self.replace(found, &mut value, dropped)?;
                }
                out.indices.push(*at);
                out.values.push(value);
            }
            out.end_row();
        }
        Ok(())
    }

    /// Puts the indices of a row in the place of its categories, as `VectorIndexerModel.transformFunc` does.
    fn index(&self, row: usize, rows: usize, out: &mut [f64], dropped: &mut bool) -> Result<()> {
        let leaves_zeros = match self.form {
            Form::Dense => false,
            Form::Sparse => true,
            // As `Vectors.compressed` has it.
            Form::Compressed => {
                let count = (0..self.width).filter(|at| out[at * rows + row] != 0.0).count();
                1.5 * (count as f64 + 1.0) < self.width as f64
            }
        };
        for (at, (feature, _)) in self.features.iter().enumerate() {
            let value = &mut out[feature * rows + row];
            if !leaves_zeros || *value != 0.0 {
                self.replace(at, value, dropped)?;
            }
        }
        Ok(())
    }

    /// Puts the index of a category in its place.
    fn replace(&self, at: usize, value: &mut f64, dropped: &mut bool) -> Result<()> {
        let (feature, categories) = &self.features[at];
        match (categories.get(&key(*value)), self.invalid) {
            // NaN is not the same as itself.
            (Some(index), _) if !value.is_nan() => *value = *index,
            (_, Invalid::Keep) => *value = categories.len() as f64,
            (_, Invalid::Error) if !*dropped => {
                return Err(Error::violated(format!(
                    "column {}: {value} as number {feature} of the vector was not there when it was trained, and \
                     the model's VectorIndexer refuses it; leave such rows out, or setHandleInvalid(\"keep\") when \
                     training",
                    self.name
                )));
            }
            _ => *dropped = true,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::about::Column;
    use super::*;
    use arrow::array::StringArray;

    fn index(invalid: Invalid, texts: &StringArray) -> Result<(Vec<f64>, Vec<bool>)> {
        let indices = [("x".to_owned(), 0.0), ("y".to_owned(), 1.0)].into();
        let indexer = Indexer { name: "city".into(), input: 0, column: 0, indices, labels: 2, invalid };
        let columns = [Column::Texts(texts)];
        let mut block = Block::new(&columns, 1);
        block.go_to(1, texts.len() - 1);
        indexer.run(&mut block)?;
        Ok((block.numbers(super::super::vector::Place::Made(0)).to_vec(), block.dropped().to_vec()))
    }

    #[test]
    fn unseen_labels_are_refused_dropped_or_kept() {
        let texts = StringArray::from(vec![Some("y"), Some("y"), None, Some("z")]);
        let (kept, dropped) = index(Invalid::Keep, &texts).unwrap();
        assert_eq!((kept, dropped), (vec![1.0, 2.0, 2.0], vec![false; 3]));
        assert_eq!(index(Invalid::Skip, &texts).unwrap().1, [false, true, true]);
        let error = index(Invalid::Error, &texts).unwrap_err().to_string();
        assert!(error.starts_with("column city: it is NULL, and the model's StringIndexer refuses it; "), "{error}");
        let error = index(Invalid::Error, &StringArray::from(vec!["x", "ä".repeat(99).as_str()])).unwrap_err();
        assert!(error.to_string().contains(&format!("label \"{}\" was not there", "ä".repeat(60))), "{error}");
    }

    fn index_vector(form: Form, invalid: Invalid, row: &[f64]) -> Result<(Vec<f64>, bool)> {
        let features = vec![(1, [(key(1.0), 0.0), (key(3.0), 1.0)].into()), (2, [(key(0.0), 0.0)].into())];
        let width = row.len();
        let indexer = VectorIndexer { name: "v".into(), input: 0, column: 1, width, form, invalid, features };
        let (mut out, mut dropped) = (row.to_vec(), false);
        indexer.index(0, 1, &mut out, &mut dropped)?;
        Ok((out, dropped))
    }

    #[test]
    fn numbers_of_vectors_become_indices() {
        let row = |row: &[f64]| index_vector(Form::Dense, Invalid::Keep, row).unwrap().0;
        assert_eq!(row(&[7.0, 3.0, -0.0]), [7.0, 1.0, 0.0]);
        assert_eq!(row(&[7.0, 2.0, f64::NAN]), [7.0, 2.0, 1.0]);
        assert!(index_vector(Form::Dense, Invalid::Skip, &[7.0, 2.0, 0.0]).unwrap().1);
        let error = index_vector(Form::Dense, Invalid::Error, &[7.0, 2.0, 0.0]).unwrap_err().to_string();
        assert!(error.starts_with("column v: 2 as number 1 of the vector was not there"), "{error}");
    }

    #[test]
    fn zeros_that_spark_does_not_store_stay_zeros() {
        let row = |form, row: &[f64]| index_vector(form, Invalid::Keep, row).unwrap().0;
        assert_eq!(row(Form::Dense, &[0.0; 3]), [0.0, 2.0, 0.0]);
        assert_eq!(row(Form::Sparse, &[0.0; 3]), [0.0; 3]);
        assert_eq!(row(Form::Compressed, &[0.0; 3]), [0.0; 3]);
        assert_eq!(row(Form::Compressed, &[1.0, 0.0, 0.0]), [1.0, 2.0, 0.0]);
    }
}
