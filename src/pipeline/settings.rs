//! `SET flumen.… = …` and `SET datafusion.… = …`.

use std::time::Duration;

use datafusion::config::ConfigOptions;

use super::diagnose;
use super::names;
use super::spec::{SchemaChange, Settings};
use super::suggest;
use super::units;
use crate::memory::MIN_LIMIT;

/// Flumen's settings.
const NAMES: [&str; 10] = [
    "close_zone",
    "trigger",
    "max_rows",
    "memory_limit",
    "grace",
    "broker_timeout",
    "store_timeout",
    "schema_change",
    "alert_url",
    "pipeline",
];

impl Default for Settings {
    fn default() -> Self {
        Self {
            trigger: Duration::from_secs(1),
            max_rows: 1_000_000,
            memory_limit: 2_000_000_000,
            grace: Duration::from_secs(30),
            broker_timeout: Duration::from_secs(300),
            store_timeout: Duration::from_secs(300),
            schema_change: SchemaChange::Refuse,
            close_zone: None,
            alert_url: None,
        }
    }
}

/// The settings of a file while it is read.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// Flumen's.
    pub settings: Settings,
    /// `SET flumen.pipeline`.
    pub pipeline: Option<String>,
    /// DataFusion's, in their order.
    pub session: Vec<(String, String)>,
}

impl Draft {
    /// Applies one setting.
    ///
    /// # Errors
    /// What is wrong and what to do about it. The flag is true when it is the value that is wrong.
    pub fn set(&mut self, options: &mut ConfigOptions, key: &str, value: &str) -> Result<(), (bool, String, String)> {
        let Some(name) = key.strip_prefix("flumen.") else { return self.set_session(options, key, value) };
        let settings = &mut self.settings;
        let wrong = |why: String| {
            let (what, remedy) = why.split_once(": ").unwrap_or((&why, "write another value"));
            (true, format!("setting `{key}`: {what}"), remedy.to_string())
        };
        match name {
            "trigger" => settings.trigger = units::duration(value).map_err(wrong)?,
            "max_rows" => settings.max_rows = units::count(value).map_err(wrong)?,
            "memory_limit" => {
                settings.memory_limit = units::bytes(value).map_err(wrong)?;
                if settings.memory_limit < MIN_LIMIT {
                    return Err(wrong(format!("`{value}` is too little: at least {MIN_LIMIT} bytes are needed")));
                }
            }
            "grace" => settings.grace = units::duration(value).map_err(wrong)?,
            "broker_timeout" => settings.broker_timeout = units::duration(value).map_err(wrong)?,
            "store_timeout" => settings.store_timeout = units::duration(value).map_err(wrong)?,
            "schema_change" => {
                let words = [("refuse", SchemaChange::Refuse), ("accept", SchemaChange::Accept)];
                settings.schema_change = units::one_of(value, &words).map_err(wrong)?;
            }
            "pipeline" if names::is_plain(value) => self.pipeline = Some(value.to_string()),
            "pipeline" => return Err(wrong(format!("`{value}` cannot be the name of a pipeline: {}", names::PLAIN))),
            "close_zone" => settings.close_zone = Some(units::zone(value).map_err(wrong)?),
            "alert_url" => settings.alert_url = Some(units::http_url(value).map_err(wrong)?),
            _ => {
                let known = NAMES.map(|n| format!("flumen.{n}"));
                let remedy = suggest::did_you_mean(key, known.iter().map(String::as_str)).unwrap_or_default();
                return Err((false, format!("there is no setting `{key}`"), remedy));
            }
        }
        Ok(())
    }

    fn set_session(
        &mut self,
        options: &mut ConfigOptions,
        key: &str,
        value: &str,
    ) -> Result<(), (bool, String, String)> {
        let unknown = |options: &ConfigOptions| {
            let mut known: Vec<String> = options.entries().into_iter().map(|e| e.key).collect();
            if known.iter().any(|k| k == key) {
                return None;
            }
            known.extend(NAMES.map(|n| format!("flumen.{n}")));
            let remedy =
                suggest::closest(key, known.iter().map(String::as_str)).map(|k| format!("did you mean `{k}`?"));
            Some(remedy.unwrap_or_else(|| "settings are called flumen.… or datafusion.…".into()))
        };
        if let Some(remedy) = unknown(options) {
            return Err((false, format!("there is no setting `{key}`"), remedy));
        }
        if let Err(error) = options.set(key, value) {
            let message = format!("setting `{key}`: {}", diagnose::clean(&error));
            return Err((true, message, "write another value".into()));
        }
        self.session.push((key.to_string(), value.to_string()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(key: &str, value: &str) -> Result<Draft, String> {
        let mut draft = Draft::default();
        let set = draft.set(&mut ConfigOptions::new(), key, value);
        set.map(|()| draft).map_err(|(_, message, remedy)| format!("{message}; {remedy}"))
    }

    #[test]
    fn settings_are_typed() {
        assert_eq!(set("flumen.trigger", "200 milliseconds").unwrap().settings.trigger, Duration::from_millis(200));
        assert_eq!(set("flumen.memory_limit", "512 MB").unwrap().settings.memory_limit, 512_000_000);
        assert_eq!(set("flumen.pipeline", "a-b").unwrap().pipeline.as_deref(), Some("a-b"));
        assert_eq!(set("datafusion.execution.batch_size", "4096").unwrap().session.len(), 1);
        for (key, value, part) in [
            ("flumen.triger", "1 second", "did you mean `flumen.trigger`?"),
            ("flumen.max_rows", "lots", "`lots` is no count"),
            ("flumen.pipeline", "a b", "letters, digits"),
            ("flumen.alert_url", "ftp://x", "is no address"),
            ("datafusion.execution.batch_sice", "1", "did you mean `datafusion.execution.batch_size`?"),
            ("datafusion.execution.batch_size", "x", "datafusion.execution.batch_size"),
            ("colour", "red", "flumen.…"),
        ] {
            let message = set(key, value).unwrap_err();
            assert!(message.contains(part), "{key}: {message}");
        }
    }
}
