//! The words after `LANGUAGE`: whose file a model is.

use std::fmt;
use std::path::Path;

/// Whose file a model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Language {
    /// XGBoost's JSON and UBJSON.
    Xgboost,
    /// LightGBM's text.
    LightGbm,
    /// ONNX with the operators of `ai.onnx.ml`.
    Onnx,
    /// The directory of a Spark ML `PipelineModel`.
    SparkMl,
}

impl Language {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Xgboost, Self::LightGbm, Self::Onnx, Self::SparkMl];

    /// The word in SQL.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Xgboost => "XGBOOST",
            Self::LightGbm => "LIGHTGBM",
            Self::Onnx => "ONNX",
            Self::SparkMl => "SPARK_ML",
        }
    }

    /// That of a word, in any case.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|language| language.word().eq_ignore_ascii_case(word))
    }

    /// That of a file by its name, or of a directory.
    pub fn of_path(path: &Path) -> Option<Self> {
        if path.is_dir() {
            return Some(Self::SparkMl);
        }
        match path.extension()?.to_str()? {
            "json" | "ubj" => Some(Self::Xgboost),
            "txt" => Some(Self::LightGbm),
            "onnx" => Some(Self::Onnx),
            _ => None,
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
