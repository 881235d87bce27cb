//! A pipeline whose topics come from somewhere else, and whose tables go somewhere else: replays and cases.

use std::path::Path;

use super::{Pipeline, SinkFormat};
use crate::error::{Error, Result};
use crate::offsets::Start;

impl Pipeline {
    /// The pipeline with its topics read from their beginning, its tables under `dir` by their names, and nobody
    /// alarmed or asked.
    ///
    /// # Errors
    /// `Invalid` when a topic has a schema registry and no cache of it.
    pub fn elsewhere(mut self, dir: &Path) -> Result<Self> {
        self.settings.alert_url = None;
        for source in &mut self.sources {
            source.start = Start::Earliest;
            // Beside the sink, which lies elsewhere too.
            source.dead_letters = None;
            if let Some(registry) = &mut source.registry {
                if registry.cache.is_none() {
                    return Err(Error::invalid(format!(
                        "topic {} has a schema registry, and nobody is asked here: name a schema.registry.cache that \
                         knows its schemas",
                        source.topic
                    )));
                }
                registry.urls.clear();
            }
        }
        for sink in &mut self.sinks {
            let name = match sink.format {
                SinkFormat::Delta => sink.name.clone(),
                SinkFormat::Parquet => format!("{}.parquet", sink.name),
            };
            let location = dir.join(name).to_string_lossy().into_owned();
            // A lookup may be what another query of the file writes.
            for lookup in self.lookups.iter_mut().filter(|lookup| lookup.location == sink.location) {
                lookup.location.clone_from(&location);
            }
            sink.location = location;
            sink.quarantine = None;
        }
        Ok(self)
    }
}
