//! The Parquet files of a stage, and the vectors and matrices in them.

use std::fs::File;
use std::panic::catch_unwind;
use std::path::Path;

use arrow::array::{
    Array, ArrayRef, AsArray as _, BooleanArray, Float64Array, Int8Array, Int32Array, ListArray, StringArray,
    StructArray,
};
use arrow::compute::concat_batches;
use arrow::record_batch::RecordBatch;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::ColumnChunkMetaData;

use super::directory::{Stage, parts};
use super::vector::{MAX_WIDTH, Matrix, Stored};
use crate::error::{Error, Result};

/// A file may have this many values, and as many again for each of its bytes as [`VALUES_PER_BYTE`] says.
const MAX_VALUES: i64 = 4 << 20;
const VALUES_PER_BYTE: i64 = 16;
/// Rows that are decoded at once.
const BATCH_ROWS: usize = 8192;

/// What is in the Parquet files of a directory.
#[derive(Debug)]
pub(super) struct Table {
    rows: StructArray,
}

impl Table {
    /// Reads the files below a stage's `data`, which have one row.
    pub fn read(stage: &Stage) -> Result<Self> {
        Self::read_most(stage, "data", 1)
    }

    /// Reads the files below a stage's `data`, which have many.
    pub fn read_rows(stage: &Stage) -> Result<Self> {
        Self::read_part(stage, "data")
    }

    /// Reads the files below another directory of a stage.
    pub fn read_part(stage: &Stage, part: &str) -> Result<Self> {
        Self::read_most(stage, part, i64::MAX)
    }

    fn read_most(stage: &Stage, part: &str, most: i64) -> Result<Self> {
        let directory = stage.directory.join(part);
        let mut batches: Vec<RecordBatch> = Vec::new();
        for file in parts(&directory).map_err(|error| error.within(format_args!("stage {}", stage.uid)))? {
            // The reader panics at some damaged files instead of giving an error.
            let read = catch_unwind(|| read_file(&file, most)).unwrap_or_else(|_| Err("it is damaged".to_owned()));
            let read =
                read.map_err(|fault| stage.fault(format_args!("{}: {fault}; save the model again", file.display())))?;
            batches.extend(read);
        }
        let Some(first) = batches.first() else {
            return Err(stage.fault(format_args!("{} has no rows; save the model again", directory.display())));
        };
        let all = concat_batches(&first.schema(), &batches)
            .map_err(|error| stage.fault(format_args!("{}: {error}; save the model again", directory.display())))?;
        Ok(Self { rows: StructArray::from(all) })
    }

    /// How many rows it has.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Its columns as those of a struct.
    pub fn rows(&self) -> &StructArray {
        &self.rows
    }

    /// The number of the first row.
    pub fn number(&self, name: &str) -> Result<f64> {
        let numbers: &Float64Array = column(&self.rows, name)?;
        Ok(numbers.value(0))
    }

    /// Whether the first row says so.
    pub fn flag(&self, name: &str) -> Result<bool> {
        let flags: &BooleanArray = column(&self.rows, name)?;
        Ok(flags.value(0))
    }

    /// The whole number of the first row.
    pub fn count(&self, name: &str) -> Result<usize> {
        let counts: &Int32Array = column(&self.rows, name)?;
        usize::try_from(counts.value(0)).map_err(|_| odd(name))
    }

    /// The vector of a row.
    pub fn vector(&self, name: &str, row: usize) -> Result<Stored> {
        let vectors: &StructArray = column(&self.rows, name)?;
        let fault = |what: &str| Error::invalid(format!("its vector {name} {what}; save the model again"));
        let kinds: &Int8Array = column(vectors, "type")?;
        let values = numbers(column(vectors, "values")?, row)?;
        if kinds.value(row) == 1 {
            return Ok(Stored::Dense(values));
        }
        let sizes: &Int32Array = column(vectors, "size")?;
        let size = usize::try_from(sizes.value(row)).map_err(|_| fault("has a negative length"))?;
        let indices = integers(column(vectors, "indices")?, row)?;
        Stored::sparse(size, &indices, values).ok_or_else(|| fault("has indices that are none"))
    }

    /// The matrix of the first row.
    pub fn matrix(&self, name: &str) -> Result<Matrix> {
        let matrices: &StructArray = column(&self.rows, name)?;
        let fault = || Error::invalid(format!("its matrix {name} is not one; save the model again"));
        let size = |of: &str| {
            let sizes: &Int32Array = column(matrices, of)?;
            usize::try_from(sizes.value(0)).map_err(|_| fault())
        };
        let (rows, columns) = (size("numRows")?, size("numCols")?);
        let kinds: &Int8Array = column(matrices, "type")?;
        let transposed: &BooleanArray = column(matrices, "isTransposed")?;
        let values = numbers(column(matrices, "values")?, 0)?;
        if kinds.value(0) == 1 {
            return Matrix::dense(rows, columns, &values, transposed.value(0)).ok_or_else(fault);
        }
        let pointers = integers(column(matrices, "colPtrs")?, 0)?;
        let indices = integers(column(matrices, "rowIndices")?, 0)?;
        Matrix::sparse(rows, columns, &pointers, &indices, &values, transposed.value(0)).ok_or_else(fault)
    }

    /// The list of texts of the first row.
    pub fn texts(&self, name: &str) -> Result<Vec<String>> {
        texts(&item(column(&self.rows, name)?, 0)?, name)
    }

    /// The lists of texts of the first row.
    pub fn lists(&self, name: &str) -> Result<Vec<Vec<String>>> {
        let lists = item(column(&self.rows, name)?, 0)?;
        let lists: &ListArray = lists.as_list_opt().ok_or_else(|| odd(name))?;
        (0..lists.len()).map(|at| texts(&item(lists, at)?, name)).collect()
    }

    /// The list of whole numbers of the first row.
    pub fn integers(&self, name: &str) -> Result<Vec<i32>> {
        integers(column(&self.rows, name)?, 0)
    }
}

fn read_file(path: &Path, most_rows: i64) -> std::result::Result<Vec<RecordBatch>, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let bytes = file.metadata().map_err(|error| error.to_string())?.len();
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| error.to_string())?;
    let limit = MAX_VALUES.saturating_add(VALUES_PER_BYTE.saturating_mul(bytes as i64));
    let metadata = builder.metadata();
    let rows = metadata.file_metadata().num_rows();
    let chunks = || metadata.row_groups().iter().flat_map(|group| group.columns());
    if rows > most_rows {
        return Err(format!("it says that it has {rows} rows, and {most_rows} is what this stage has"));
    }
    let most = chunks().map(|chunk| chunk.num_values()).fold(rows, i64::saturating_add);
    let start =
        |chunk: &ColumnChunkMetaData| chunk.dictionary_page_offset().unwrap_or_else(|| chunk.data_page_offset());
    if chunks().any(|chunk| start(chunk) < 0 || chunk.compressed_size() < 0) {
        return Err("its columns are nowhere".to_owned());
    }
    if rows < 0 || most > limit {
        return Err(format!("it says that it has {most} values and has {bytes} bytes"));
    }
    let reader = builder.with_batch_size(BATCH_ROWS).build().map_err(|error| error.to_string())?;
    let (mut read, mut batches) = (0, Vec::new());
    for batch in reader {
        let batch = batch.map_err(|error| error.to_string())?;
        read += batch.num_rows() as i64;
        if read > rows {
            return Err("it has more rows than it says".to_owned());
        }
        if batch.num_rows() > 0 {
            batches.push(batch);
        }
    }
    Ok(batches)
}

fn odd(name: &str) -> Error {
    Error::invalid(format!("its column {name} is not what Spark 3.5 and 4 write; save the model again"))
}

/// The column of a struct, of the type that the caller takes.
pub(super) fn column<'a, T: 'static>(rows: &'a StructArray, name: &str) -> Result<&'a T> {
    rows.column_by_name(name).and_then(|column| column.as_any().downcast_ref()).ok_or_else(|| odd(name))
}

/// The list of a row.
pub(super) fn item(lists: &ListArray, row: usize) -> Result<ArrayRef> {
    match row < lists.len() && lists.is_valid(row) {
        true => Ok(lists.value(row)),
        false => Err(Error::invalid("a list of it is missing; save the model again")),
    }
}

/// The list of numbers of a row.
pub(super) fn numbers(lists: &ListArray, row: usize) -> Result<Vec<f64>> {
    let list = item(lists, row)?;
    let list = list.as_any().downcast_ref::<Float64Array>().ok_or_else(|| odd("of numbers"))?;
    Ok(list.values().to_vec())
}

/// The list of whole numbers of a row.
pub(super) fn integers(lists: &ListArray, row: usize) -> Result<Vec<i32>> {
    let list = item(lists, row)?;
    let list = list.as_any().downcast_ref::<Int32Array>().ok_or_else(|| odd("of whole numbers"))?;
    Ok(list.values().to_vec())
}

fn texts(list: &ArrayRef, name: &str) -> Result<Vec<String>> {
    let list = list.as_any().downcast_ref::<StringArray>().ok_or_else(|| odd(name))?;
    Ok(list.iter().map(|text| text.unwrap_or_default().to_owned()).collect())
}

/// Whether a width is one that a stage may have.
pub(super) fn check_width(stage: &Stage, width: usize) -> Result<()> {
    match width <= MAX_WIDTH {
        true => Ok(()),
        false => Err(stage
            .fault(format_args!("a vector of {width} numbers; {MAX_WIDTH} is the most, train with fewer features"))),
    }
}
