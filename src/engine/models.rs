//! The models of a session: loaded, told of, and taken over anew when their files change.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use datafusion::logical_expr::ScalarUDF;
use datafusion::prelude::SessionContext;

use crate::clock::Stopwatch;
use crate::error::{Error, Result};
use crate::model::{self, Model, ModelInfoUdf, ModelUdf};
use crate::observe::Observer;
use crate::pipeline::ModelSpec;
use crate::sink::LastCommit;

/// Files are looked at so often: a look costs a few microseconds for each file.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A directory of a model has so many files at most.
const MAX_FILES: usize = 10_000;

/// The models of a session.
#[derive(Default)]
pub(crate) struct Models {
    loaded: Vec<Loaded>,
    /// Since the last look at their files.
    watch: Option<Stopwatch>,
}

struct Loaded {
    spec: ModelSpec,
    model: Arc<dyn Model>,
    /// What its file was like when it was read last.
    stamp: Stamp,
}

/// What a look at a file or directory tells: bytes, files, and when the youngest was written.
type Stamp = Option<(u64, usize, SystemTime)>;

/// Loads the model of a declaration.
///
/// # Errors
/// What [`model::load`] returns.
pub(crate) fn load(spec: &ModelSpec) -> Result<Arc<dyn Model>> {
    model::load(&spec.name, spec.language, &spec.path, spec.sha256.as_deref())
}

/// The function of a declaration.
///
/// # Errors
/// `Invalid` when the model is not as declared.
pub(crate) fn function(spec: &ModelSpec, model: &Arc<dyn Model>) -> Result<ModelUdf> {
    model.about().check_names(&spec.name, &spec.argument_names)?;
    ModelUdf::try_new(&spec.name, spec.arguments.clone(), spec.returns.clone(), Arc::clone(model))
}

impl Models {
    /// Loads models and registers their functions.
    ///
    /// # Errors
    /// `Invalid` when a file is missing, damaged, or not as declared.
    pub fn load<'a>(specs: impl Iterator<Item = &'a ModelSpec>, context: &SessionContext) -> Result<Self> {
        let mut models = Self::default();
        for spec in specs {
            let stamp = stamp_of(&spec.path);
            let model = load(spec)?;
            context.register_udf(ScalarUDF::from(function(spec, &model)?));
            models.loaded.push(Loaded { spec: spec.clone(), model, stamp });
        }
        models.tell(context);
        Ok(models)
    }

    /// Name and SHA-256 of each.
    pub fn versions(&self) -> Vec<(String, String)> {
        self.loaded.iter().map(|loaded| (loaded.spec.name.clone(), loaded.model.about().sha256.clone())).collect()
    }

    /// Name of each, and what it says of itself, with the first of its features.
    pub fn summaries(&self) -> impl Iterator<Item = (String, String)> {
        self.loaded.iter().map(|Loaded { spec, model, .. }| {
            let about = model.about();
            (spec.name.clone(), format!("{}, over {}", about.summary(), about.feature_names()))
        })
    }

    /// Says of each that is another one than in this commit, which one it was.
    pub fn changed_since(&self, last: &LastCommit) -> Vec<String> {
        let then = last.models();
        let changed = |Loaded { spec, model, .. }: &Loaded| {
            let (now, then) = (&model.about().sha256, then.get(spec.name.as_str())?);
            let (name, path) = (&spec.name, spec.path.display());
            let version = last.version;
            (now != then).then(|| {
                format!("function {name}: {path} has changed since version {version}: sha256 {now}, it was {then}")
            })
        };
        self.loaded.iter().filter_map(changed).collect()
    }

    /// Takes over models whose files have changed, each as a whole or not at all; whether there was one. What was done
    /// is told, and once what cannot be taken over.
    pub async fn refresh(&mut self, context: &SessionContext, query: &str, observer: &dyn Observer) -> bool {
        if self.loaded.is_empty() || self.watch.as_ref().is_some_and(|watch| watch.elapsed() < LOOK_EVERY) {
            return false;
        }
        self.watch = Some(Stopwatch::start());
        let mut is_taken = false;
        for loaded in &mut self.loaded {
            let stamp = stamp_of(&loaded.spec.path);
            if stamp == loaded.stamp {
                continue;
            }
            let change = loaded.change(context).await;
            // Else whoever writes it has not ended: the next look sees more.
            let has_ended = stamp_of(&loaded.spec.path) == stamp;
            if has_ended {
                loaded.stamp = stamp;
            }
            match change {
                Change::Taken(line) => {
                    is_taken = true;
                    observer.note(&format!("query {query}: {line}"));
                }
                Change::Refused(line) if has_ended => tracing::warn!("query {query}: {line}"),
                Change::Refused(_) | Change::None => {}
            }
        }
        if is_taken {
            self.tell(context);
        }
        is_taken
    }

    /// Registers the function that tells of them.
    fn tell(&self, context: &SessionContext) {
        let abouts = self.loaded.iter().map(|loaded| (loaded.spec.name.clone(), loaded.model.about().clone()));
        context.register_udf(ScalarUDF::from(ModelInfoUdf::new(abouts.collect::<BTreeMap<_, _>>())));
    }
}

/// What came of a model whose file was written to.
enum Change {
    /// It says the same.
    None,
    /// It is used from now on.
    Taken(String),
    /// It is not, and why.
    Refused(String),
}

impl Loaded {
    async fn change(&mut self, context: &SessionContext) -> Change {
        let spec = self.spec.clone();
        let made = tokio::task::spawn_blocking(move || {
            let model = load(&spec)?;
            function(&spec, &model).map(|function| (model, function))
        });
        let made = made.await.unwrap_or_else(|e| Err(Error::unavailable(format!("a task failed: {e}; run it again"))));
        let (name, path) = (&self.spec.name, self.spec.path.display());
        let before = &self.model.about().sha256;
        match made {
            Err(error) => Change::Refused(format!(
                "function {name}: {path} has changed and is not taken over: {}; sha256 {before} goes on",
                error.message()
            )),
            Ok((model, _)) if model.about().sha256 == *before => Change::None,
            Ok((model, function)) => {
                let line = format!("function {name}: {path} has changed: sha256 {} from now on", model.about().sha256);
                context.register_udf(ScalarUDF::from(function));
                self.model = model;
                Change::Taken(line)
            }
        }
    }
}

/// A look at a file, or at all files of a directory; `None` when there is nothing.
fn stamp_of(path: &Path) -> Stamp {
    let mut stamp = (0, 0, SystemTime::UNIX_EPOCH);
    let mut left = vec![path.to_owned()];
    while let Some(path) = left.pop() {
        let of = std::fs::metadata(&path).ok()?;
        stamp.2 = stamp.2.max(of.modified().ok()?);
        stamp.1 += 1;
        if stamp.1 > MAX_FILES {
            return None;
        }
        if of.is_dir() {
            left.extend(std::fs::read_dir(&path).ok()?.filter_map(|entry| Some(entry.ok()?.path())));
        } else {
            stamp.0 += of.len();
        }
    }
    Some(stamp)
}
