//! `flumen status`: where a pipeline stands.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::output::{print_json, print_line};
use super::{Format, Globals, Inputs, load};
use crate::engine::{self, QueryStatus};
use crate::error::Result;
use crate::observe::{Silent, grouped};

/// How long a broker that is away is waited for: somebody looks at the screen.
const PATIENCE: Duration = Duration::from_secs(10);

/// `flumen status FILE`.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// The pipeline file
    file: PathBuf,
    #[command(flatten)]
    inputs: Inputs,
}

impl Status {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        let environment = load::environment(&load::root(globals)?, &self.inputs);
        let pipeline = load::pipeline(&environment, &self.file).await?;
        let deps = load::deps(&pipeline, Arc::new(Silent), Some(pipeline.settings.broker_timeout.min(PATIENCE)))?;
        for query in engine::status(&deps, &pipeline).await? {
            match globals.output {
                Format::Json => print_json(&query)?,
                Format::Text => print_line(&text(&query)),
            }
        }
        Ok(())
    }
}

fn text(status: &QueryStatus) -> String {
    let mut lines = vec![match (&status.version, &status.last_commit) {
        (Some(version), Some(time)) => {
            format!("{}: {} version {version}, last commit {time}", status.query, status.table)
        }
        (Some(version), None) => format!("{}: {} version {version}", status.query, status.table),
        (None, _) => format!("{}: {} does not exist yet", status.query, status.table),
    }];
    for topic in &status.topics {
        let lag: u64 = topic.partitions.iter().map(|p| p.lag).sum();
        lines.push(format!("  topic {}, lag {}", topic.topic, grouped(lag)));
        for p in &topic.partitions {
            let committed = p.committed.map_or_else(|| "none".to_owned(), |offset| offset.to_string());
            lines.push(format!(
                "    partition {}: committed {committed}, end {}, lag {}",
                p.partition,
                p.end,
                grouped(p.lag)
            ));
        }
    }
    if status.dead_letters > 0 {
        lines.push(format!("  {} dead letters: see `flumen dead-letters list FILE`", grouped(status.dead_letters)));
    }
    if status.quarantined > 0 {
        let rows = grouped(status.quarantined);
        lines.push(format!("  {rows} rows quarantined: SELECT … FROM {}_quarantine", status.query));
    }
    lines.extend(status.lookups.iter().map(|(name, version)| format!("  lookup {name} at version {version}")));
    lines.extend(status.models.iter().map(|(name, sha256)| format!("  model {name} sha256 {sha256}")));
    lines.join("\n")
}
