//! Scoring: models that were trained elsewhere, read from their own file format and evaluated over Arrow columns by
//! our own code. A loaded model never changes; its SHA-256 says which one it is.

mod forest;
mod linear;
mod udf;
mod xgboost;

use std::fmt::Debug;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

pub use udf::ModelUdf;

/// A model file may have this many bytes: reading one is bounded.
pub const MAX_MODEL_BYTES: u64 = 256 << 20;

/// The words after `LANGUAGE` that can be loaded.
pub const LANGUAGES: [&str; 1] = ["XGBOOST"];

/// The words after `LANGUAGE` that are known and cannot be loaded yet.
const LATER_LANGUAGES: [&str; 3] = ["LIGHTGBM", "ONNX", "SPARK_ML"];

/// A trained model: numbers in, one number out, row by row.
pub trait Model: Debug + Send + Sync {
    /// The names of the features, in the order in which the arguments bind to them.
    fn feature_names(&self) -> &[String];

    /// The SHA-256 of the model's file, in lower-case hex.
    fn sha256(&self) -> &str;

    /// Predicts row by row. `columns[f][row]` is the value of feature `f`, NaN where it is missing; `out[row]`
    /// becomes the prediction. All slices are of one length.
    ///
    /// # Errors
    /// `Invalid` when the number of columns is not the number of features or a column's length is not that of `out`.
    fn predict(&self, columns: &[&[f64]], out: &mut [f64]) -> Result<()>;

    /// The number of features, which is the number of arguments of the function.
    fn features(&self) -> usize {
        self.feature_names().len()
    }
}

/// Loads the model of `CREATE FUNCTION name … LANGUAGE language AS 'path'`. With `expected_sha256` the file must still
/// be that one: a micro-batch that is repeated uses the model that it was planned with.
///
/// # Errors
/// `Invalid` when the language cannot be loaded, or the file is missing, too big, damaged, of a kind that is not
/// supported, or not the expected one. The message names the function and the file.
pub fn load(name: &str, language: &str, path: &Path, expected_sha256: Option<&str>) -> Result<Arc<dyn Model>> {
    check_language(language).map_err(|error| error.within(format_args!("function {name}")))?;
    let context = format!("function {name}: model file {}", path.display());
    let bytes = read(path).map_err(|error| error.within(&context))?;
    let sha256 = hex_sha256(&bytes);
    if let Some(expected) = expected_sha256
        && !expected.eq_ignore_ascii_case(&sha256)
    {
        return Err(Error::invalid(format!(
            "{context}: its SHA-256 is {sha256} and {expected} was expected; put that file back"
        )));
    }
    let model = xgboost::parse(&bytes, sha256).map_err(|error| error.within(&context))?;
    Ok(Arc::new(model))
}

fn check_language(language: &str) -> Result<()> {
    let known = |words: &[&str]| words.iter().any(|word| word.eq_ignore_ascii_case(language));
    if known(&LANGUAGES) {
        return Ok(());
    }
    let supported = LANGUAGES.join(", ");
    if known(&LATER_LANGUAGES) {
        return Err(Error::invalid(format!("LANGUAGE {language} is not supported yet; supported: {supported}")));
    }
    Err(Error::invalid(format!("LANGUAGE {language} is unknown; supported: {supported}")))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::invalid("there is no such file; put it there or mend the path"),
        std::io::ErrorKind::IsADirectory => Error::invalid("it is a directory; name the model's file in it"),
        _ => Error::invalid("it cannot be read; mend its permissions or the path").caused_by(error),
    };
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_MODEL_BYTES + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > MAX_MODEL_BYTES {
        return Err(Error::invalid(format!(
            "it has more than {} MiB; train a model with fewer or smaller trees",
            MAX_MODEL_BYTES >> 20
        )));
    }
    Ok(bytes)
}

fn hex_sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The shape that [`Model::predict`] asks for.
fn check_shape(features: usize, columns: &[&[f64]], rows: usize) -> Result<()> {
    if columns.len() != features {
        return Err(Error::invalid(format!(
            "the model takes {features} columns and got {}; mend the call",
            columns.len()
        )));
    }
    match columns.iter().find(|column| column.len() != rows) {
        Some(column) => {
            Err(Error::invalid(format!("a column has {} rows and the result {rows}; mend the call", column.len())))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(language: &str, path: &str, sha: Option<&str>) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        load("f", language, &path, sha).unwrap_err().to_string().replace(env!("CARGO_MANIFEST_DIR"), "ROOT")
    }

    #[test]
    fn a_language_is_known_or_said_to_come_later() {
        assert_eq!(fault("ONNX", "x", None), "function f: LANGUAGE ONNX is not supported yet; supported: XGBOOST");
        assert_eq!(fault("PMML", "x", None), "function f: LANGUAGE PMML is unknown; supported: XGBOOST");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let there = "function f: model file ROOT/no/such.json: there is no such file; put it there or mend the path";
        assert_eq!(fault("xgboost", "no/such.json", None), there);
        assert!(fault("XGBOOST", "tests/data", None).contains("it is a directory"));
    }

    #[test]
    fn the_hash_pins_the_file() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("queries/data/click_probability.json");
        let model = load("f", "XGBOOST", &path, None).unwrap();
        assert_eq!(model.sha256().len(), 64);
        assert_eq!(hex_sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(load("f", "XGBOOST", &path, Some(model.sha256())).is_ok());
        let message = fault("XGBOOST", "queries/data/click_probability.json", Some("00ff"));
        assert!(message.contains("and 00ff was expected; put that file back"), "{message}");
    }
}
