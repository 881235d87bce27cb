//! `flumen check`: every fault of every file at once, without any network.

mod rules;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use self::rules::Tablebook;
use super::output::{print_json, print_line, print_told};
use super::{Format, Globals, Inputs, load};
use crate::error::{Error, Result};
use crate::pipeline::{Environment, Fault, Pipeline, Severity, ValueFormat};
use crate::schema::{Change, Descriptors, MessageShape, changes};

/// `flumen check FILE…`.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Pipeline files, and .proto files with the options of flumen/v1/gateway.proto
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Compare the messages of the topics with an older version: a .proto file, or a descriptor set (.binpb)
    #[arg(long, value_name = "OLD")]
    against: Option<PathBuf>,
    #[command(flatten)]
    inputs: Inputs,
}

impl Check {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        let environment = load::environment(&load::root(globals)?, &self.inputs);
        let old = self.against.as_ref().map(|old| Old::read(&environment, old)).transpose()?;
        let (mut errors, mut warnings, mut breaking) = (0, 0, 0);
        let mut tables = Tablebook::default();
        let (messages, pipelines): (Vec<&PathBuf>, Vec<&PathBuf>) =
            self.files.iter().partition(|file| rules::is_proto(file));
        for file in pipelines {
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
                Format::Text => faults.iter().for_each(|f| print_told(&format!("{}\n", f.render(styled())))),
            }
            if let (Ok(pipeline), Format::Text) = (&loaded, globals.output) {
                print_line(&summary(pipeline));
            }
            if let (Ok(pipeline), Some(old)) = (&loaded, &old) {
                breaking += old.compare(pipeline, globals.output)?;
            }
            if let Ok(pipeline) = &loaded {
                tables.note(pipeline);
            }
        }
        for file in messages {
            errors += rules::check(&environment, file, &tables, globals.output)?;
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
        if breaking > 0 {
            return Err(Error::invalid(format!(
                "{breaking} breaking change{}: put the old fields back and give new ones new numbers",
                if breaking == 1 { "" } else { "s" }
            )));
        }
        Ok(())
    }
}

/// An older version of the messages.
struct Old {
    name: PathBuf,
    descriptors: Descriptors,
}

/// A difference from the older version, as `-o json` prints it.
#[derive(Serialize)]
struct Printed<'a> {
    file: &'a Path,
    table: &'a str,
    message: &'a str,
    #[serde(flatten)]
    change: &'a Change,
    breaking: bool,
}

impl Old {
    fn read(environment: &Environment, name: &Path) -> Result<Self> {
        let invalid = |why: String| Error::invalid(format!("--against {}: {why}", name.display()));
        let descriptors = if rules::is_proto(name) {
            load::descriptors(environment, &[name.to_owned()], &[]).map_err(|e| invalid(e.message().to_owned()))
        } else {
            let bytes = std::fs::read(environment.resolve(&name.to_string_lossy()));
            Descriptors::from_set(&bytes.map_err(|e| invalid(e.to_string()))?).map_err(|e| invalid(e.to_string()))
        };
        Ok(Self { name: name.to_owned(), descriptors: descriptors? })
    }

    /// Prints what differs; how many changes are breaking.
    fn compare(&self, pipeline: &Pipeline, output: Format) -> Result<usize> {
        let (mut breaking, mut compared) = (0, 0);
        for source in &pipeline.sources {
            let ValueFormat::Protobuf { message, shaping, .. } = &source.format else { continue };
            let Some(old) = self.descriptors.message(message.full_name()) else {
                return Err(Error::invalid(format!(
                    "{}: message {} of {} is not in it, so nothing was compared; name the file that has it",
                    self.name.display(),
                    message.full_name(),
                    source.name
                )));
            };
            compared += 1;
            let [old, new] = [&old, message].map(|message| MessageShape::with(message, shaping.to_compare()));
            let found = changes(&old?, &new?);
            let of_message = found.iter().filter(|change| change.rule.is_breaking()).count();
            breaking += of_message;
            if output == Format::Text {
                print_line(&format!(
                    "{}: message {} against {}: {} changes, {of_message} breaking",
                    source.name,
                    message.full_name(),
                    self.name.display(),
                    found.len()
                ));
            }
            for change in &found {
                let breaking = change.rule.is_breaking();
                match output {
                    Format::Text => print_line(&format!(
                        "  {} {change} ({})",
                        if breaking { "breaking" } else { "fine    " },
                        change.rule.as_str()
                    )),
                    Format::Json => print_json(&Printed {
                        file: &pipeline.file,
                        table: &source.name,
                        message: message.full_name(),
                        change,
                        breaking,
                    })?,
                }
            }
        }
        if compared == 0 {
            let file = pipeline.file.display();
            return Err(Error::invalid(format!(
                "{file}: it has no topic of protobuf to compare; name a file that has"
            )));
        }
        Ok(breaking)
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
