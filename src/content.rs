//! What rows say, as a hash that depends neither on their order nor on how they are stored.
//!
//! The sum, modulo 2^256, of the SHA-256 of each row, hashed with the number of rows and the names of the columns. A
//! row is its cells in the order of the columns: 0 for NULL, else 1, the length of the text in 4 bytes (little-endian)
//! and the text: as DataFusion prints it, and of what is nested as [`nested`] writes it. Two tables with the same hash
//! have the same rows, as often as each other, unless somebody made them so that they only seem to (an additive hash is
//! no signature).

mod text;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use sha2::{Digest, Sha256};

use text::Texts;

/// Rows, hashed and counted.
#[derive(Debug, Clone, Default)]
pub struct RowsHash {
    sum: [u64; 4],
    rows: u64,
}

impl RowsHash {
    /// Adds rows.
    ///
    /// # Errors
    /// A column of a type that has no text.
    pub fn add(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        let options = FormatOptions::new();
        let texts = batch.columns().iter().map(|column| Texts::new(column, &options));
        let mut texts = texts.collect::<Result<Vec<_>, _>>()?;
        let nulls: Vec<_> = batch.columns().iter().map(|column| column.logical_nulls()).collect();
        let mut bytes = Vec::new();
        for row in 0..batch.num_rows() {
            bytes.clear();
            for (text, nulls) in texts.iter_mut().zip(&nulls) {
                if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                    bytes.push(0);
                    continue;
                }
                bytes.extend([1, 0, 0, 0, 0]);
                let start = bytes.len();
                text.write(row, &mut bytes)?;
                let length = (bytes.len() - start) as u32;
                bytes[start - 4..start].copy_from_slice(&length.to_le_bytes());
            }
            self.add_row(Sha256::digest(&bytes).into());
        }
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    fn add_row(&mut self, hash: [u8; 32]) {
        let mut limbs = [0; 4];
        for (limb, bytes) in limbs.iter_mut().zip(hash.chunks_exact(8)) {
            let mut word = [0; 8];
            word.copy_from_slice(bytes);
            *limb = u64::from_le_bytes(word);
        }
        self.add_limbs(limbs);
    }

    fn add_limbs(&mut self, limbs: [u64; 4]) {
        let mut carry = false;
        for (limb, more) in self.sum.iter_mut().zip(limbs) {
            let (sum, first) = limb.overflowing_add(more);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            (*limb, carry) = (sum, first || second);
        }
    }

    /// Adds the rows of another one.
    pub fn merge(&mut self, other: &RowsHash) {
        self.add_limbs(other.sum);
        self.rows += other.rows;
    }

    /// How many rows there are.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The hash of rows with these columns, in hexadecimal digits.
    pub fn sha256(&self, columns: &SchemaRef) -> String {
        let mut hash = Sha256::new();
        hash.update(self.rows.to_le_bytes());
        self.sum.iter().for_each(|limb| hash.update(limb.to_le_bytes()));
        for field in columns.fields() {
            hash.update((field.name().len() as u32).to_le_bytes());
            hash.update(field.name().as_bytes());
        }
        hex::encode(hash.finalize())
    }
}

/// A cell with everything in it as text that says which values there are: `{"name": …}`, `[…]`, texts in quotation
/// marks, NULL without.
///
/// # Errors
/// A value of a type that has no text.
pub fn nested(column: &dyn Array, row: usize) -> Result<String, ArrowError> {
    if column.is_null(row) {
        return Ok("NULL".to_owned());
    }
    let list = |items: ArrayRef| -> Result<String, ArrowError> {
        let texts = (0..items.len()).map(|item| nested(items.as_ref(), item)).collect::<Result<Vec<_>, _>>()?;
        Ok(format!("[{}]", texts.join(", ")))
    };
    match column.data_type() {
        DataType::Struct(fields) => {
            let cells = fields.iter().zip(column.as_struct().columns());
            let cells = cells.map(|(field, cell)| Ok(format!("{:?}: {}", field.name(), nested(cell.as_ref(), row)?)));
            Ok(format!("{{{}}}", cells.collect::<Result<Vec<_>, ArrowError>>()?.join(", ")))
        }
        DataType::List(_) => list(column.as_list::<i32>().value(row)),
        DataType::LargeList(_) => list(column.as_list::<i64>().value(row)),
        DataType::FixedSizeList(..) => list(column.as_fixed_size_list().value(row)),
        DataType::Map(..) => {
            // The order of a map's entries says nothing. The keys begin the texts, and no two are the same.
            let entries = column.as_map().value(row);
            let texts = (0..entries.len()).map(|entry| {
                let cells = entries.columns().iter().map(|cell| nested(cell.as_ref(), entry));
                Ok(cells.collect::<Result<Vec<_>, ArrowError>>()?.join(": "))
            });
            let mut texts = texts.collect::<Result<Vec<_>, ArrowError>>()?;
            texts.sort_unstable();
            Ok(format!("{{{}}}", texts.join(", ")))
        }
        DataType::Utf8 => Ok(format!("{:?}", column.as_string::<i32>().value(row))),
        DataType::LargeUtf8 => Ok(format!("{:?}", column.as_string::<i64>().value(row))),
        DataType::Utf8View => Ok(format!("{:?}", column.as_string_view().value(row))),
        _ => ArrayFormatter::try_new(column, &FormatOptions::new())?.value(row).try_to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, ListArray, StringArray, StructArray};
    use arrow::datatypes::Int32Type;

    use super::*;

    fn batch(rows: &[(Option<i64>, Option<&str>)]) -> RecordBatch {
        let numbers: ArrayRef = Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>());
        let texts: ArrayRef = Arc::new(rows.iter().map(|row| row.1).collect::<StringArray>());
        RecordBatch::try_from_iter_with_nullable([("n", numbers, true), ("t", texts, true)]).unwrap()
    }

    fn hash(batches: &[RecordBatch]) -> String {
        let mut hash = RowsHash::default();
        batches.iter().for_each(|batch| hash.add(batch).unwrap());
        hash.sha256(&batches[0].schema())
    }

    #[test]
    fn order_and_batches_do_not_matter_and_everything_else_does() {
        let (a, b, c) = ((Some(1), Some("x")), (None, Some("")), (Some(2), None));
        let all = hash(&[batch(&[a, b, c])]);
        assert_eq!(hash(&[batch(&[c, a]), batch(&[b])]), all);
        for other in
            [&[a, b][..], &[a, b, c, c], &[a, b, b], &[a, b, (Some(2), Some(""))], &[(Some(11), Some("")), b, c]]
        {
            assert_ne!(hash(&[batch(other)]), all, "{other:?}");
        }
        let nested = |value: Option<&str>| {
            let texts: ArrayRef = Arc::new(StringArray::from(vec![value]));
            let fields = vec![arrow::datatypes::Field::new("c", DataType::Utf8, true)];
            let cell: ArrayRef = Arc::new(StructArray::new(fields.into(), vec![texts], None));
            hash(&[RecordBatch::try_from_iter([("s", cell)]).unwrap()])
        };
        assert_ne!(nested(None), nested(Some("")));
        assert_ne!(nested(None), nested(Some("NULL")));
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None]);
        assert_eq!([0, 1].map(|row| super::nested(&lists, row).unwrap()), ["[1, NULL]", "NULL"]);
        // Values do not run into each other.
        assert_ne!(hash(&[batch(&[(Some(1), Some("23"))])]), hash(&[batch(&[(Some(12), Some("3"))])]));
    }
}
