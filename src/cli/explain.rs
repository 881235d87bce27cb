//! `flumen explain`: what is read, the plan, what is written.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::output::{print_json, print_line};
use super::{Format, Globals, Inputs, load};
use crate::engine::{self, Explained};
use crate::error::Result;
use crate::observe::Silent;

/// `flumen explain FILE`.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The pipeline file
    file: PathBuf,
    /// Only this query
    #[arg(long, value_name = "NAME")]
    query: Option<String>,
    /// Run the query over what its topics hold, writing nothing, and show rows and time of each operator
    #[arg(long)]
    analyze: bool,
    #[command(flatten)]
    inputs: Inputs,
}

impl Explain {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        let environment = load::environment(&load::root(globals)?, &self.inputs);
        let pipeline = load::pipeline(&environment, &self.file).await?;
        let deps = load::deps(&pipeline, Arc::new(Silent), Some(pipeline.settings.broker_timeout))?;
        for query in &engine::chosen_queries(&pipeline, self.query.as_deref())? {
            let explained = engine::explain(&deps, &pipeline, query, self.analyze).await?;
            match globals.output {
                Format::Json => print_json(&explained)?,
                Format::Text => print_line(&text(&explained)),
            }
        }
        Ok(())
    }
}

fn text(explained: &Explained) -> String {
    let mut lines = vec![format!("query {} ({})", explained.query, explained.kind)];
    for source in &explained.sources {
        lines.push(format!("  reads topic {} as {}", source.topic, source.message));
        lines.push(format!("    decodes {}", source.fields.join(", ")));
    }
    lines.extend(explained.lookups.iter().map(|(name, version)| format!("  reads {name} at version {version}")));
    lines.extend(explained.model_summaries.iter().map(|(name, summary)| format!("  model {name}: {summary}")));
    lines.push(format!("  writes {} ({})", explained.sink, explained.columns.join(", ")));
    lines.extend(explained.checks.iter().map(|check| format!("    check {check}")));
    lines.push("  plan:".to_owned());
    lines.extend(explained.plan.lines().map(|line| format!("    {line}")));
    lines.join("\n")
}
