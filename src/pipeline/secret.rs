//! `${env:NAME}`, `${env:NAME:-default}` and `${file:PATH}` in the strings of `LOCATION` and `OPTIONS`. What they stand
//! for is never printed: a fault shows the text as it is in the file.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use crate::error::Error;

/// The largest file that `${file:…}` reads, in bytes.
const LARGEST: u64 = 1 << 20;

/// What a pipeline file may ask its surroundings for. Nothing is read from the process itself.
#[derive(Clone, Default)]
pub struct Environment {
    /// Relative paths are relative to this directory.
    pub root: PathBuf,
    /// `--param name=value`.
    pub params: BTreeMap<String, String>,
    /// `--set key=value`: these win over the file's `SET`.
    pub settings: Vec<(String, String)>,
    /// `--table name=path`: lookups that lie elsewhere than the file says.
    pub tables: BTreeMap<String, String>,
    /// The environment variables, for `${env:NAME}`.
    pub variables: BTreeMap<String, String>,
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let settings: Vec<_> = self.settings.iter().map(|(key, _)| key).collect();
        f.debug_struct("Environment")
            .field("root", &self.root)
            .field("params", &self.params.keys())
            .field("tables", &self.tables)
            .field("settings", &settings)
            .finish_non_exhaustive()
    }
}

/// What stood in a `${…}`.
pub struct Secret {
    reference: String,
    value: String,
}

/// The shortest value that is looked for in a message: a shorter one would be found in plain words.
const SHORTEST: usize = 4;

/// The text with the references in place of their values.
pub fn redact(text: &str, secrets: &[Secret]) -> String {
    let long = secrets.iter().filter(|s| s.value.len() >= SHORTEST && !s.reference.contains(&s.value));
    long.fold(text.to_string(), |text, secret| text.replace(&secret.value, &secret.reference))
}

/// Why a string could not be filled in, and what to do about it.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong; never a secret.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

impl Refusal {
    fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: remedy.into() }
    }
}

impl Environment {
    /// The path as it is meant: relative ones are relative to the root.
    pub fn resolve(&self, path: &str) -> PathBuf {
        let mut plain = PathBuf::new();
        for component in self.root.join(path).components() {
            match component {
                Component::CurDir => {}
                Component::ParentDir if plain.file_name().is_some() => _ = plain.pop(),
                other => plain.push(other),
            }
        }
        plain
    }

    /// Fills in what stands in `${…}`; each reference is added to `seen` with its value.
    ///
    /// # Errors
    /// A variable or file that is missing, or a form that does not exist.
    pub fn expand(&self, text: &str, seen: &mut Vec<Secret>) -> Result<String, Refusal> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            out.push_str(&rest[..at]);
            let inside = &rest[at + 2..];
            let Some(end) = inside.find('}') else {
                return Err(Refusal::new("`${` without `}`", "close it: ${env:NAME}"));
            };
            let value = self.value(&inside[..end])?;
            out.push_str(&value);
            seen.push(Secret { reference: format!("${{{}}}", &inside[..end]), value });
            rest = &inside[end + 1..];
        }
        out.push_str(rest);
        Ok(out)
    }

    /// Fills in what stands in `${…}` of an argument.
    ///
    /// # Errors
    /// `Invalid` for a variable or file that is missing, or a form that does not exist.
    pub fn fill(&self, text: &str) -> crate::error::Result<String> {
        let filled = self.expand(text, &mut Vec::new());
        filled.map_err(|refusal| Error::invalid(format!("{}: {}", refusal.message, refusal.remedy)))
    }

    fn value(&self, reference: &str) -> Result<String, Refusal> {
        if let Some(spec) = reference.strip_prefix("env:") {
            let (name, default) = match spec.split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (spec, None),
            };
            let set = self.variables.get(name).map(String::as_str).filter(|v| !v.is_empty() || default.is_none());
            return set.or(default).map(str::to_string).ok_or_else(|| {
                let remedy = format!("set {name}, or give it a default: ${{env:{name}:-value}}");
                Refusal::new(format!("the environment variable {name} is not set"), remedy)
            });
        }
        if let Some(path) = reference.strip_prefix("file:") {
            return self.file(path);
        }
        let remedy = "write ${env:NAME}, ${env:NAME:-default} or ${file:PATH}";
        Err(Refusal::new(format!("`${{{reference}}}` is not known"), remedy))
    }

    fn file(&self, path: &str) -> Result<String, Refusal> {
        let full = self.resolve(path);
        let shown = full.display();
        match std::fs::metadata(&full) {
            Ok(meta) if meta.len() > LARGEST => {
                return Err(Refusal::new(
                    format!("file {shown} is larger than 1 MiB"),
                    "name a file that holds one value",
                ));
            }
            _ => {}
        }
        let read = |full: &Path| std::fs::read_to_string(full);
        let text = read(&full).map_err(|error| {
            let remedy = "name a readable text file; relative paths are relative to the root";
            Refusal::new(format!("file {shown} cannot be read: {error}"), remedy)
        })?;
        Ok(text.trim_end_matches(['\n', '\r']).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(root: &Path) -> Environment {
        let variables = [("BROKER", "b:9092"), ("EMPTY", "")].map(|(k, v)| (k.to_string(), v.to_string())).into();
        Environment { root: root.to_path_buf(), variables, ..Environment::default() }
    }

    #[test]
    fn references_are_filled_in() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("password"), "s3cret\n").unwrap();
        let env = environment(dir.path());
        for (text, expected) in [
            ("plain", "plain"),
            ("kafka://${env:BROKER}/t", "kafka://b:9092/t"),
            ("${env:NONE:-localhost:9092}", "localhost:9092"),
            ("${env:EMPTY:-x}${env:EMPTY}", "x"),
            ("${file:password}", "s3cret"),
            ("a${env:BROKER}b${file:password}c", "ab:9092bs3cretc"),
            ("$5 {x}", "$5 {x}"),
        ] {
            assert_eq!(env.expand(text, &mut Vec::new()).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let env = environment(Path::new("/nowhere"));
        for (text, part) in [
            ("${env:NONE}", "NONE is not set"),
            ("${file:password}", "/nowhere/password cannot be read"),
            ("${vault:x}", "`${vault:x}` is not known"),
            ("${env:BROKER", "without `}`"),
        ] {
            let message = env.expand(text, &mut Vec::new()).unwrap_err().message;
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    #[test]
    fn nothing_secret_is_printed() {
        let mut env = environment(Path::new("."));
        env.settings.push(("flumen.alert_url".into(), "https://secret".into()));
        let text = format!("{env:?}");
        assert!(!text.contains("b:9092") && !text.contains("secret"), "{text}");
    }
}
