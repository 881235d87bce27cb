//! `flumen check`: every fault of every file at once, without any network.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;

use super::output::{print_json, print_line};
use super::{Format, Globals, Inputs, load};
use crate::error::{Error, Result};
use crate::pipeline::{Fault, Pipeline, Severity};

/// `flumen check FILE…`.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Pipeline files
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    inputs: Inputs,
}

impl Check {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        let environment = load::environment(&load::root(globals)?, &self.inputs);
        let (mut errors, mut warnings) = (0, 0);
        for file in &self.files {
            let loaded = load::load(&environment, file).await?;
            let faults: Vec<&Fault> = match &loaded {
                Ok(pipeline) => pipeline.warnings.iter().collect(),
                Err(faults) => faults.iter().collect(),
            };
            let fatal = faults.iter().filter(|f| f.severity == Severity::Error).count();
            errors += fatal;
            warnings += faults.len() - fatal;
            match globals.output {
                Format::Json => faults.iter().try_for_each(print_json)?,
                Format::Text => faults.iter().for_each(|f| eprintln!("{}\n", f.render(styled()))),
            }
            if let (Ok(pipeline), Format::Text) = (&loaded, globals.output) {
                print_line(&summary(pipeline));
            }
        }
        if errors > 0 {
            return Err(Error::invalid(format!(
                "{errors} fault{} in {} file{}{}; nothing was started",
                if errors == 1 { "" } else { "s" },
                self.files.len(),
                if self.files.len() == 1 { "" } else { "s" },
                if warnings > 0 { format!(", {warnings} warnings") } else { String::new() }
            )));
        }
        Ok(())
    }
}

fn styled() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// `queries/x.sql: 1 topic, 2 lookups, 1 model, 3 queries, 0 checks`.
fn summary(pipeline: &Pipeline) -> String {
    let counted = |count: usize, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
    let parts = [
        counted(pipeline.sources.len(), "topic", "topics"),
        counted(pipeline.lookups.len(), "lookup", "lookups"),
        counted(pipeline.models.len(), "model", "models"),
        counted(pipeline.queries.len(), "query", "queries"),
        counted(pipeline.checks.len(), "check", "checks"),
    ];
    format!("{}: {}", pipeline.file.display(), parts.join(", "))
}
