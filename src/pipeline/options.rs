//! The options of a table: filled in, taken one by one with their types; what nobody takes is a fault.

use datafusion::sql::sqlparser::ast::Value;

use super::fault::{Fault, Faults};
use super::secret::{Environment, Secret};
use super::statement::Statement;
use super::suggest;
use super::text::{Place, SourceText};

/// An option as it was written and as it is meant.
#[derive(Debug, Clone)]
struct Entry {
    key: String,
    /// The value with `${…}` filled in; `None` when that failed, which is told already.
    value: Option<String>,
    /// The value as the file has it: what messages show.
    raw: String,
    key_place: Place,
    value_place: Place,
}

/// The options of one table that nobody has taken yet.
#[derive(Debug)]
pub(super) struct Options {
    source: SourceText,
    entries: Vec<Entry>,
}

impl Options {
    /// Reads the options of a statement: fills in `${…}` and reports what is written twice.
    pub fn read(
        source: &SourceText,
        statement: &Statement,
        options: &[(String, Value)],
        environment: &Environment,
        secrets: &mut Vec<Secret>,
        faults: &mut Faults,
    ) -> Self {
        let places = statement.option_places(source);
        let mut entries: Vec<Entry> = Vec::new();
        for (i, (key, value)) in options.iter().enumerate() {
            let verb = statement.verb(source);
            let (key_place, value_place) = places.get(i).cloned().unwrap_or((verb.clone(), verb));
            let raw = value.clone().into_string().unwrap_or_else(|| value.to_string());
            let expanded = environment.expand(&raw, secrets).map_err(|refusal| {
                faults.push(Fault::new(source, &value_place, refusal.message).remedy(refusal.remedy));
            });
            if let Some(first) = entries.iter().find(|e| e.key == *key) {
                let (line, _) = source.position(first.key_place.start);
                let message = format!("option `{key}` is set twice, first on line {line}");
                faults.push(Fault::new(source, &key_place, message).remedy("keep one of them"));
                continue;
            }
            entries.push(Entry { key: key.clone(), value: expanded.ok(), raw, key_place, value_place });
        }
        Self { source: source.clone(), entries }
    }

    /// Takes an option as text with the place of its value.
    pub fn text(&mut self, key: &str) -> Option<(Option<String>, Place)> {
        let at = self.entries.iter().position(|e| e.key == key)?;
        let entry = self.entries.remove(at);
        Some((entry.value, entry.value_place))
    }

    /// Takes an option and reads it; `None` when it is absent or wrong, and what is wrong is reported.
    pub fn take<T>(
        &mut self,
        key: &str,
        faults: &mut Faults,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let at = self.entries.iter().position(|e| e.key == key)?;
        let Entry { value, raw, value_place, .. } = self.entries.remove(at);
        let value = value?;
        read(&value)
            .map_err(|why| {
                // What stood in `${…}` may be a secret.
                let why = if raw == value || value.is_empty() { why } else { why.replace(&value, &raw) };
                let (what, remedy) = why.split_once(": ").unwrap_or((&why, "write another value"));
                faults.push(Fault::new(&self.source, &value_place, format!("option `{key}`: {what}")).remedy(remedy));
            })
            .ok()
    }

    /// Takes every option whose key begins with `prefix`: the rest of the key, the value, the places of
    /// both.
    pub fn with_prefix(&mut self, prefix: &str) -> Vec<(String, String, Place, Place)> {
        let (taken, rest) = std::mem::take(&mut self.entries).into_iter().partition(|e| e.key.starts_with(prefix));
        self.entries = rest;
        let taken: Vec<Entry> = taken;
        let part = |e: Entry| Some((e.key[prefix.len()..].to_string(), e.value?, e.key_place, e.value_place));
        taken.into_iter().filter_map(part).collect()
    }

    /// Reports the options that a later version will have.
    pub fn refuse_later(&mut self, keys: &[&str], faults: &mut Faults) {
        for key in keys {
            if let Some(at) = self.entries.iter().position(|e| e.key == *key) {
                let entry = self.entries.remove(at);
                let fault = Fault::new(&self.source, &entry.key_place, format!("option `{key}` is not supported yet"));
                faults.push(fault.remedy("leave it out"));
            }
        }
    }

    /// Reports what is left: options that nobody knows.
    pub fn finish(self, kind: &str, known: &[&str], faults: &mut Faults) {
        for entry in &self.entries {
            let message = format!("{kind} has no option `{}`", entry.key);
            let mut fault = Fault::new(&self.source, &entry.key_place, message);
            if let Some(remedy) = suggest::did_you_mean(&entry.key, known.iter().copied()) {
                fault = fault.remedy(remedy);
            } else {
                fault = fault.remedy("leave it out: there are no options here");
            }
            faults.push(fault);
        }
    }
}
