//! The recordings of a replay, one for each topic.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::engine::OpenTopic;
use crate::error::{Error, Result};
use crate::pipeline::{Pipeline, SourceSpec, did_you_mean};
use crate::source::Log;
use crate::source::recording::RecordingLog;

/// Recorded topics by their names.
#[derive(Debug, Clone, Default)]
pub struct Recordings {
    logs: BTreeMap<String, RecordingLog>,
    records: u64,
    /// When the last record was sent.
    last: Option<DateTime<Utc>>,
}

impl Recordings {
    /// Opens recordings and reads them once, to hold them to their manifests: pairs of a topic and a directory.
    ///
    /// # Errors
    /// `Invalid` for a directory that is no whole recording of the topic, or was changed since.
    pub fn open(named: &[(String, PathBuf)]) -> Result<Self> {
        let mut all = Self::default();
        for (topic, dir) in named {
            if !dir.is_dir() {
                return Err(Error::invalid(format!(
                    "--recording {topic}={}: there is no such directory; `flumen record` makes it, from a topic or \
                     (--from-kcat) from lines of JSON",
                    dir.display()
                )));
            }
            let log = RecordingLog::open(dir)?;
            if log.topic() != topic {
                return Err(Error::invalid(format!(
                    "--recording {topic}={}: it is a recording of topic {}; name that topic, or another directory",
                    dir.display(),
                    log.topic()
                )));
            }
            let found = log.verify()?;
            all.records += found.records;
            all.last = all.last.max(found.last);
            if all.logs.insert(topic.clone(), log).is_some() {
                return Err(Error::invalid(format!("--recording {topic}: the topic has two recordings; name one")));
            }
        }
        Ok(all)
    }

    /// All of their records.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// When the last record was sent; `None` when no record says.
    pub fn last(&self) -> Option<DateTime<Utc>> {
        self.last
    }

    /// Whether each topic of the pipeline has a recording, and each recording is of one of them.
    ///
    /// # Errors
    /// `Invalid`, naming what is missing or too much.
    pub fn check(&self, pipeline: &Pipeline) -> Result<()> {
        let topics = || pipeline.sources.iter().map(|source| source.topic.as_str());
        if let Some(missing) = topics().find(|topic| !self.logs.contains_key(*topic)) {
            return Err(Error::invalid(format!(
                "pipeline {} reads topic {missing}: name its recording, --recording {missing}=DIR",
                pipeline.name
            )));
        }
        match self.logs.keys().find(|name| !topics().any(|topic| topic == name.as_str())) {
            None => Ok(()),
            Some(other) => Err(Error::invalid(format!(
                "--recording {other}: pipeline {} does not read that topic; {}",
                pipeline.name,
                did_you_mean(other, topics()).unwrap_or_else(|| "leave it out".to_owned())
            ))),
        }
    }
}

impl OpenTopic for Recordings {
    fn open(&self, source: &SourceSpec, _patience: Option<Duration>) -> Result<Arc<dyn Log>> {
        let log = self.logs.get(&source.topic);
        let missing = || Error::invalid(format!("topic {} has no recording: name it with --recording", source.topic));
        Ok(Arc::new(log.ok_or_else(missing)?.clone()))
    }
}
