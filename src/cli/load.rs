//! From a file's name to a checked pipeline, and what it needs to run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{Globals, Inputs};
use crate::clock;
use crate::engine::{Deps, Facts, OpenTopic};
use crate::error::{Error, Result};
use crate::kafka::KafkaConfig;
use crate::memory::Memory;
use crate::observe::Observer;
use crate::pipeline::{Environment, Faults, Pipeline, SourceSpec};
use crate::schema::Descriptors;
use crate::source::Log;
use crate::source::kafka::KafkaLog;
use crate::storage::Storage;

/// The directory that relative paths start from, absolute.
pub(crate) fn root(globals: &Globals) -> Result<PathBuf> {
    std::fs::canonicalize(&globals.root)
        .map_err(|e| Error::invalid(format!("--root {}: {e}; name a directory that exists", globals.root.display())))
}

/// What the process gives to a pipeline file: root, parameters, settings and environment variables.
pub(crate) fn environment(root: &Path, inputs: &Inputs) -> Environment {
    Environment {
        root: root.to_owned(),
        params: inputs.params.iter().cloned().collect(),
        settings: inputs.settings.clone(),
        tables: BTreeMap::new(),
        variables: std::env::vars().collect(),
    }
}

/// Reads and checks a pipeline file.
///
/// # Errors
/// `Invalid` when the file cannot be read; inside, every fault of the file.
pub(crate) async fn load(environment: &Environment, file: &Path) -> Result<Result<Pipeline, Faults>> {
    let path = environment.resolve(&file.to_string_lossy());
    let text = std::fs::read_to_string(&path)
        .map_err(|e| Error::invalid(format!("{}: {e}; name a pipeline file", file.display())))?;
    Ok(Pipeline::load(&text, file, environment, &Facts { storage: &Storage::new() }))
}

/// A pipeline without faults; its warnings are logged.
///
/// # Errors
/// `Invalid` with every fault of the file, rendered.
pub(crate) async fn pipeline(environment: &Environment, file: &Path) -> Result<Arc<Pipeline>> {
    let pipeline = load(environment, file).await??;
    for warning in &pipeline.warnings {
        let (line, column) = (warning.line.unwrap_or(1), warning.column.unwrap_or(1));
        tracing::info!("{}:{line}:{column}: {}", warning.file.display(), warning.message);
    }
    Ok(Arc::new(pipeline))
}

/// A pipeline that declares nothing, for a query without a file.
///
/// # Errors
/// `Invalid` when settings or parameters are wrong.
pub(crate) fn no_file(environment: &Environment) -> Result<Arc<Pipeline>> {
    let pipeline = Pipeline::load("", Path::new("sql"), environment, &Facts { storage: &Storage::new() })?;
    Ok(Arc::new(pipeline))
}

/// Compiles `.proto` files with what they import, which is looked for in `includes` and then in `proto` under the root.
///
/// # Errors
/// `Invalid` with the first fault and its place.
pub(crate) fn descriptors(environment: &Environment, files: &[PathBuf], includes: &[PathBuf]) -> Result<Descriptors> {
    let resolve = |path: &PathBuf| environment.resolve(&path.to_string_lossy());
    let own = [environment.resolve("proto")].into_iter().filter(|root| root.is_dir());
    let roots: Vec<PathBuf> = includes.iter().map(resolve).chain(own).collect();
    let files: Vec<PathBuf> = files.iter().map(resolve).collect();
    Descriptors::compile(&files, &roots).map_err(|fault| Error::invalid(fault.to_string()))
}

/// Properties with their `${env:…}` and `${file:…}` filled in.
///
/// # Errors
/// `Invalid` when one of these is not there.
pub(crate) fn filled(environment: &Environment, pairs: &[(String, String)]) -> Result<BTreeMap<String, String>> {
    pairs.iter().map(|(name, value)| Ok((name.clone(), environment.fill(value)?))).collect()
}

/// Opens topics on their brokers.
#[derive(Debug)]
pub(crate) struct FromKafka;

impl OpenTopic for FromKafka {
    fn open(&self, source: &SourceSpec, patience: Option<Duration>) -> Result<Arc<dyn Log>> {
        let config = KafkaConfig::new(&source.brokers, &source.kafka)?;
        Ok(Arc::new(KafkaLog::open(config, &source.topic, patience)?))
    }
}

/// What a run of `pipeline` needs, with real brokers, stores and time.
///
/// # Errors
/// `Unavailable` when there is no memory to share.
pub(crate) fn deps(pipeline: &Pipeline, observer: Arc<dyn Observer>, patience: Option<Duration>) -> Result<Deps> {
    let memory = Memory::new(pipeline.settings.memory_limit)?;
    Ok(Deps {
        storage: Storage::new(),
        clock: clock::system(),
        observer,
        memory,
        topics: Arc::new(FromKafka),
        patience,
        cuts: None,
    })
}
