//! The directories in which Spark saves a pipeline or a model: one line of JSON below `metadata`, Parquet files below
//! `data`, and the stages of a pipeline below `stages`.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// A file may have this many bytes.
const MAX_FILE_BYTES: u64 = 256 << 20;
/// A pipeline may have this many stages, those of the pipelines in it included.
const MAX_STAGES: usize = 1000;
/// A directory may have this many entries.
const MAX_ENTRIES: usize = 10_000;
/// Pipelines may be in pipelines this deep.
const MAX_DEPTH: usize = 8;
/// The class of a pipeline, as Scala and as Python write it.
const PIPELINES: [&str; 2] = ["org.apache.spark.ml.PipelineModel", "pyspark.ml.pipeline.PipelineModel"];

/// A stage of a pipeline, or a model alone, as its metadata say it.
#[derive(Debug)]
pub(super) struct Stage {
    /// Where it is.
    pub directory: PathBuf,
    /// The full name of its class.
    pub class: String,
    /// Its identity, as in `StringIndexer_ecf69cbca131`.
    pub uid: String,
    /// The version of the Spark that wrote it.
    pub version: String,
    /// What was set, over what is the default.
    params: Map<String, Value>,
    /// What stands beside the parameters: the number of classes and the like.
    extra: Map<String, Value>,
}

/// The metadata as they stand in the file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    class: String,
    uid: String,
    spark_version: String,
    #[serde(default)]
    param_map: Map<String, Value>,
    #[serde(default)]
    default_param_map: Map<String, Value>,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

impl Metadata {
    fn is_pipeline(&self) -> bool {
        PIPELINES.contains(&self.class.as_str())
    }
}

/// The stages of a pipeline in their order, those of the pipelines in it among them. A model alone is one stage.
///
/// # Errors
/// `Invalid` when the directory is none that Spark saves, or damaged.
pub(super) fn stages(directory: &Path) -> Result<Vec<Stage>> {
    let mut stages = Vec::new();
    flatten(directory, 0, &mut |stage| {
        stages.push(stage);
        stages.len() <= MAX_STAGES
    })?;
    Ok(stages)
}

/// The files that make a model, sorted: what Spark itself reads when it loads it.
///
/// # Errors
/// `Invalid` when the directory is none that Spark saves, or damaged.
pub(super) fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = parts(&directory.join("metadata"))?;
    let mut stages = 0;
    let mut seen = vec![directory.to_owned()];
    flatten(directory, 0, &mut |stage| {
        stages += 1;
        seen.push(stage.directory);
        stages <= MAX_STAGES
    })?;
    for stage in seen {
        for part in ["metadata", "data", "treesMetadata"] {
            let part = stage.join(part);
            // Classes that are not covered have other files, which is said where they are read.
            if part.is_dir() {
                files.extend(parts(&part).unwrap_or_default());
            }
        }
    }
    // The metadata of pipelines in pipelines.
    for stages in nested(directory, 0)? {
        files.extend(parts(&stages.join("metadata"))?);
    }
    files.sort();
    files.dedup();
    Ok(files)
}

/// The pipelines that are in a pipeline.
fn nested(directory: &Path, depth: usize) -> Result<Vec<PathBuf>> {
    let metadata = metadata(directory)?;
    if !metadata.is_pipeline() || depth > MAX_DEPTH {
        return Ok(Vec::new());
    }
    let mut found = vec![directory.to_owned()];
    for stage in children(directory, &metadata)? {
        found.extend(nested(&stage, depth + 1)?);
    }
    Ok(found)
}

/// Gives the stages in their order to `push`, which says whether there may be more.
fn flatten(directory: &Path, depth: usize, push: &mut dyn FnMut(Stage) -> bool) -> Result<()> {
    let metadata = metadata(directory)?;
    if !metadata.is_pipeline() {
        let Metadata { class, uid, spark_version, param_map, default_param_map, extra } = metadata;
        let mut params = default_param_map;
        params.extend(param_map);
        let directory = directory.to_owned();
        if !push(Stage { directory, class, uid, version: spark_version, params, extra }) {
            return Err(Error::invalid(format!(
                "the pipeline has more than {MAX_STAGES} stages; save one that has fewer"
            )));
        }
        return Ok(());
    }
    if depth > MAX_DEPTH {
        return Err(Error::invalid(format!(
            "pipelines are in pipelines more than {MAX_DEPTH} deep; save one pipeline of plain stages"
        )));
    }
    for stage in children(directory, &metadata)? {
        flatten(&stage, depth + 1, push)?;
    }
    Ok(())
}

/// The directories of a pipeline's stages, in the order of its metadata.
fn children(directory: &Path, metadata: &Metadata) -> Result<Vec<PathBuf>> {
    let damaged = |what: &str| Error::invalid(format!("{}: {what}; save the model again", directory.display()));
    let uids = metadata.param_map.get("stageUids").and_then(Value::as_array);
    let uids = uids.ok_or_else(|| damaged("its metadata name no stages"))?;
    if uids.len() > MAX_STAGES {
        return Err(damaged(&format!("it names more than {MAX_STAGES} stages")));
    }
    // A stage's directory is `0_uid`, or `00_uid` and so on in a pipeline of more than ten.
    let mut found = HashMap::new();
    for path in entries(&directory.join("stages"))? {
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.split_once('_'));
        if let Some((index, uid)) = name
            && let Ok(index) = index.parse::<usize>()
        {
            found.insert((index, uid.to_owned()), path);
        }
    }
    let stage = |(index, uid): (usize, &Value)| {
        let uid = uid.as_str().ok_or_else(|| damaged("its metadata name a stage that is no text"))?;
        found.remove(&(index, uid.to_owned())).ok_or_else(|| damaged(&format!("its stage {index}, {uid}, is missing")))
    };
    uids.iter().enumerate().map(stage).collect()
}

/// The metadata of a directory.
fn metadata(directory: &Path) -> Result<Metadata> {
    let path = directory.join("metadata");
    if !path.is_dir() {
        return Err(Error::invalid(format!(
            "{} is no directory that Spark ML saves: it has no metadata; give the directory that \
             model.write().save(…) made",
            directory.display()
        )));
    }
    for part in parts(&path)? {
        let text = read_text(&part)?;
        if let Some(line) = text.lines().find(|line| !line.trim().is_empty()) {
            return serde_json::from_str(line).map_err(|error| {
                Error::invalid(format!("{}: not the JSON of a model: {error}; save the model again", part.display()))
            });
        }
    }
    Err(Error::invalid(format!("{} has no line of JSON; save the model again", path.display())))
}

fn read_text(path: &Path) -> Result<String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(|error| unreadable(path, &error))?;
    Ok(text)
}

/// The files `part-…` of a directory, sorted; none is too big.
pub(super) fn parts(directory: &Path) -> Result<Vec<PathBuf>> {
    let is_part = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with("part-") && !name.ends_with(".crc"))
    };
    let mut files: Vec<PathBuf> = entries(directory)?.into_iter().filter(is_part).collect();
    files.sort();
    for file in &files {
        let about = fs::metadata(file).map_err(|error| unreadable(file, &error))?;
        if !about.is_file() {
            return Err(Error::invalid(format!("{} is no file; save the model again", file.display())));
        }
        if about.len() > MAX_FILE_BYTES {
            return Err(Error::invalid(format!(
                "{} has {} bytes, more than {MAX_FILE_BYTES}; train a smaller model",
                file.display(),
                about.len()
            )));
        }
    }
    if files.is_empty() {
        return Err(Error::invalid(format!(
            "{} has no file part-…; copy the whole directory, or save the model again",
            directory.display()
        )));
    }
    Ok(files)
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let listing = fs::read_dir(directory).map_err(|error| unreadable(directory, &error))?;
    let mut paths = Vec::new();
    for entry in listing {
        paths.push(entry.map_err(|error| unreadable(directory, &error))?.path());
        if paths.len() > MAX_ENTRIES {
            return Err(Error::invalid(format!(
                "{} has more than {MAX_ENTRIES} entries; save the model again from fewer partitions",
                directory.display()
            )));
        }
    }
    Ok(paths)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::invalid(format!("{} cannot be read: {error}; copy the whole directory of the model", path.display()))
}

impl Stage {
    /// The class without its package.
    pub fn kind(&self) -> &str {
        self.class.rsplit('.').next().unwrap_or_default()
    }

    /// An error about this stage.
    pub fn fault(&self, what: impl std::fmt::Display) -> Error {
        Error::invalid(format!("stage {}: {what}", self.uid))
    }

    fn odd(&self, name: &str, wanted: &str) -> Error {
        self.fault(format_args!("its parameter {name} is missing or no {wanted}; save the model again"))
    }

    /// Whether a parameter has a value.
    pub fn has(&self, name: &str) -> bool {
        self.params.contains_key(name)
    }

    /// A parameter that is a text.
    pub fn text(&self, name: &str) -> Result<&str> {
        self.params.get(name).and_then(Value::as_str).ok_or_else(|| self.odd(name, "text"))
    }

    /// A parameter that is a list of texts.
    pub fn texts(&self, name: &str) -> Result<Vec<String>> {
        let texts = self.params.get(name).and_then(Value::as_array).ok_or_else(|| self.odd(name, "list of texts"))?;
        let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(|| self.odd(name, "list of texts"));
        texts.iter().map(text).collect()
    }

    /// A parameter that is true or false.
    pub fn flag(&self, name: &str) -> Result<bool> {
        self.params.get(name).and_then(Value::as_bool).ok_or_else(|| self.odd(name, "Boolean"))
    }

    /// A parameter that is a number.
    pub fn number(&self, name: &str) -> Result<f64> {
        self.params.get(name).and_then(number).ok_or_else(|| self.odd(name, "number"))
    }

    /// A parameter that is a list of numbers.
    pub fn numbers(&self, name: &str) -> Result<Vec<f64>> {
        numbers(self.params.get(name)).ok_or_else(|| self.odd(name, "list of numbers"))
    }

    /// A parameter that is a list of lists of numbers.
    pub fn lists(&self, name: &str) -> Result<Vec<Vec<f64>>> {
        let lists = self.params.get(name).and_then(Value::as_array);
        let lists = lists.and_then(|lists| lists.iter().map(|list| numbers(Some(list))).collect());
        lists.ok_or_else(|| self.odd(name, "list of lists of numbers"))
    }

    /// A parameter that counts something, or a number beside the parameters.
    pub fn count(&self, name: &str) -> Result<usize> {
        let count = self.extra.get(name).or_else(|| self.params.get(name)).and_then(Value::as_u64);
        count.and_then(|count| usize::try_from(count).ok()).ok_or_else(|| self.odd(name, "whole number"))
    }

    /// One of a parameter's choices.
    pub fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<T> {
        let text = self.text(name)?;
        let found = choices.iter().find(|(choice, _)| choice.eq_ignore_ascii_case(text));
        found.map(|(_, value)| *value).ok_or_else(|| {
            let known: Vec<&str> = choices.iter().map(|(choice, _)| *choice).collect();
            self.fault(format_args!("{name} {text} is not supported; train with one of {}", known.join(", ")))
        })
    }

    /// The columns that it reads, for a stage that reads one or several.
    pub fn inputs(&self) -> Result<Vec<String>> {
        self.columns("inputCol", "inputCols")
    }

    /// The columns that it makes.
    pub fn outputs(&self) -> Result<Vec<String>> {
        // A stage of several inputs that makes one column has no `outputCols`.
        if self.has("inputCols") && !self.has("outputCols") {
            return Ok(vec![self.text("outputCol")?.to_owned()]);
        }
        // `outputCol` has a default, also where there are several.
        self.columns("outputCol", "outputCols")
    }

    fn columns(&self, one: &str, several: &str) -> Result<Vec<String>> {
        match self.has("inputCols") {
            true => self.texts(several),
            false => Ok(vec![self.text(one)?.to_owned()]),
        }
    }
}

/// A number as Spark writes it: numbers that JSON does not have are texts.
fn number(value: &Value) -> Option<f64> {
    match value.as_str() {
        Some("NaN") => Some(f64::NAN),
        Some("Inf" | "Infinity") => Some(f64::INFINITY),
        Some("-Inf" | "-Infinity") => Some(f64::NEG_INFINITY),
        Some(_) => None,
        None => value.as_f64(),
    }
}

fn numbers(value: Option<&Value>) -> Option<Vec<f64>> {
    value.and_then(Value::as_array).and_then(|values| values.iter().map(number).collect())
}

#[cfg(test)]
impl Stage {
    /// A stage that is not on a disk.
    pub fn of(class: &str, params: Value) -> Self {
        let params = params.as_object().cloned().unwrap_or_default();
        let (class, uid) = (class.to_owned(), format!("{class}_1"));
        let directory = PathBuf::from("nowhere");
        Self { directory, class, uid, version: "4.1.1".to_owned(), params, extra: Map::new() }
    }
}
