//! Scoring: models that were trained elsewhere, read from their own file format and evaluated over Arrow columns by
//! our own code. A loaded model never changes; its SHA-256 says which one it is.

mod about;
mod codes;
#[cfg(test)]
mod damage;
mod forest;
mod info;
mod lightgbm;
mod linear;
mod onnx;
mod spark;
mod udf;
mod xgboost;

use std::fmt::Debug;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

pub use crate::pipeline::Language;

pub use about::{About, Column, Feature, Output, Scores};
pub use info::ModelInfoUdf;
pub use udf::ModelUdf;

use about::{biggest, is_number};

/// A model file may have this many bytes: reading one is bounded.
pub const MAX_MODEL_BYTES: u64 = 256 << 20;

/// A trained model: columns in, scores out, row by row.
pub trait Model: Debug + Send + Sync {
    /// What it is.
    fn about(&self) -> &About;

    /// Scores rows. The columns are those of the features, in their order, each of the length `rows`.
    ///
    /// # Errors
    /// `Invalid` when the columns are not those of the features; `Violated` when a row has what the model refuses.
    fn score(&self, columns: &[Column<'_>], rows: usize) -> Result<Scores>;
}

/// What a process has loaded: a model is in memory once, however many queries use it.
static LOADED: Mutex<Vec<(Language, Weak<dyn Model>)>> = Mutex::new(Vec::new());

/// Loads the model of `CREATE FUNCTION name … LANGUAGE language AS 'path'`. With `expected_sha256` the file must be
/// that one.
///
/// # Errors
/// `Invalid` when the file is missing, too big, damaged, of a kind that is not supported, or not the expected one. The
/// message names the function and the file.
pub fn load(name: &str, language: Language, path: &Path, expected_sha256: Option<&str>) -> Result<Arc<dyn Model>> {
    let context = format!("function {name}: model file {}", path.display());
    load_file(language, path, expected_sha256).map_err(|error| error.within(&context))
}

fn load_file(language: Language, path: &Path, expected_sha256: Option<&str>) -> Result<Arc<dyn Model>> {
    let file = Contents::read(language, path)?;
    let sha256 = file.sha256();
    if let Some(expected) = expected_sha256
        && !expected.eq_ignore_ascii_case(&sha256)
    {
        return Err(Error::invalid(format!(
            "its SHA-256 is {sha256} and {expected} was expected; put that file back, or change what is expected"
        )));
    }
    let known = |(of, model): &(Language, Weak<dyn Model>)| {
        model.upgrade().filter(|model| *of == language && model.about().sha256 == sha256)
    };
    if let Some(model) = LOADED.lock().iter().find_map(known) {
        return Ok(model);
    }
    let model = file.parse(language, path, sha256)?;
    let mut loaded = LOADED.lock();
    loaded.retain(|(_, model)| model.strong_count() > 0);
    loaded.push((language, Arc::downgrade(&model)));
    Ok(model)
}

/// The bytes of a model.
enum Contents {
    File(Vec<u8>),
    /// The hash of the files of a directory.
    Directory(String),
}

impl Contents {
    fn read(language: Language, path: &Path) -> Result<Self> {
        match language {
            Language::SparkMl => Ok(Contents::Directory(directory_sha256(path)?)),
            _ => Ok(Contents::File(read(path)?)),
        }
    }

    fn sha256(&self) -> String {
        match self {
            Contents::File(bytes) => hex::encode(Sha256::digest(bytes)),
            Contents::Directory(sha256) => sha256.clone(),
        }
    }

    fn parse(&self, language: Language, path: &Path, sha256: String) -> Result<Arc<dyn Model>> {
        match (language, self) {
            (Language::Xgboost, Contents::File(bytes)) => Ok(Arc::new(xgboost::parse(bytes, sha256)?)),
            (Language::LightGbm, Contents::File(bytes)) => Ok(Arc::new(lightgbm::parse(bytes, sha256)?)),
            (Language::SparkMl, _) => {
                let model = spark::parse(path, sha256)?;
                if directory_sha256(path)? != model.about().sha256 {
                    return Err(Error::invalid("it changes while it is read; rename a whole directory into its place"));
                }
                Ok(Arc::new(model))
            }
            (Language::Onnx, Contents::File(bytes)) => Ok(Arc::new(onnx::parse(bytes, sha256)?)),
            (_, Contents::Directory(_)) => Err(Error::invalid("it is a directory; name the model's file in it")),
        }
    }
}

/// The SHA-256 of the files of a directory: of each its path from there, a zero byte, its length as eight bytes, most
/// significant first, and its bytes, in the order of their paths.
fn directory_sha256(directory: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    let mut total = 0;
    for file in spark::files(directory)? {
        let bytes = read(&file).map_err(|error| error.within(file.display()))?;
        total += bytes.len() as u64;
        if total > MAX_MODEL_BYTES {
            return Err(too_big());
        }
        let name = file.strip_prefix(directory).unwrap_or(&file);
        hash.update(name.to_string_lossy().as_bytes());
        hash.update([0]);
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(&bytes);
    }
    Ok(hex::encode(hash.finalize()))
}

fn too_big() -> Error {
    Error::invalid(format!("it has more than {} MiB; train a model with fewer or smaller trees", MAX_MODEL_BYTES >> 20))
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
        return Err(too_big());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn root(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
    }

    fn fault(path: &str, sha: Option<&str>) -> String {
        let fault = load("f", Language::Xgboost, &root(path), sha).unwrap_err().to_string();
        fault.replace(env!("CARGO_MANIFEST_DIR"), "ROOT")
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let there = "function f: model file ROOT/no/such.json: there is no such file; put it there or mend the path";
        assert_eq!(fault("no/such.json", None), there);
        assert!(fault("tests/data", None).contains("it is a directory"));
    }

    #[test]
    fn the_hash_pins_the_file_and_it_is_loaded_once() {
        let path = root("queries/data/click_probability.json");
        let model = load("f", Language::Xgboost, &path, None).unwrap();
        let sha256 = model.about().sha256.clone();
        assert_eq!(sha256, hex::encode(Sha256::digest(std::fs::read(&path).unwrap())));
        let again = load("g", Language::Xgboost, &path, Some(&sha256.to_uppercase())).unwrap();
        assert!(Arc::ptr_eq(&model, &again));
        let message = fault("queries/data/click_probability.json", Some("00ff"));
        assert!(message.contains("and 00ff was expected; put that file back"), "{message}");
    }
}
