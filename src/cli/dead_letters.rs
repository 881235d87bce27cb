//! `flumen dead-letters`: look at records that could not be decoded, and decode them again.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};

use super::output::{print_json, print_line};
use super::{Format, Globals, Inputs, load};
use crate::engine::{self, LetterGroup, LetterView, Retried};
use crate::error::Result;
use crate::observe::{Silent, grouped};

/// `flumen dead-letters list|retry FILE`.
#[derive(Debug, Args)]
pub(crate) struct DeadLetters {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// What is wrong with the dead letters that no retry has committed, with samples
    List(List),
    /// Decode them again with today's .proto and query, and commit what succeeds, exactly once
    Retry(Retry),
}

#[derive(Debug, Args)]
struct List {
    /// The pipeline file
    file: PathBuf,
    /// Only this query (a query is named after its sink)
    #[arg(long, value_name = "NAME")]
    query: Option<String>,
    /// Samples for each reason and field
    #[arg(long, value_name = "N", default_value_t = 3)]
    samples: usize,
    /// Show the samples' values in hex: they may be personal data
    #[arg(long)]
    payload: bool,
    #[command(flatten)]
    inputs: Inputs,
}

#[derive(Debug, Args)]
struct Retry {
    /// The pipeline file
    file: PathBuf,
    /// Only this query (a query is named after its sink)
    #[arg(long, value_name = "NAME")]
    query: Option<String>,
    /// Letters in one commit at most
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    at_once: u64,
    #[command(flatten)]
    inputs: Inputs,
}

impl DeadLetters {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        match self.verb {
            Verb::List(verb) => verb.run(globals).await,
            Verb::Retry(verb) => verb.run(globals).await,
        }
    }
}

impl List {
    async fn run(self, globals: &Globals) -> Result<()> {
        let environment = load::environment(&load::root(globals)?, &self.inputs);
        let pipeline = load::pipeline(&environment, &self.file).await?;
        let deps = load::deps(&pipeline, Arc::new(Silent), Some(pipeline.settings.broker_timeout))?;
        let view = LetterView { query: self.query, samples: self.samples, payload: self.payload };
        let groups = engine::list_letters(&deps, &pipeline, &view).await?;
        if groups.is_empty() && globals.output == Format::Text {
            print_line("no dead letters");
        }
        for group in &groups {
            match globals.output {
                Format::Json => print_json(group)?,
                Format::Text => print_line(&text(group)),
            }
        }
        Ok(())
    }
}

impl Retry {
    async fn run(self, globals: &Globals) -> Result<()> {
        let environment = load::environment(&load::root(globals)?, &self.inputs);
        let pipeline = load::pipeline(&environment, &self.file).await?;
        let deps = load::deps(&pipeline, Arc::new(Silent), Some(pipeline.settings.broker_timeout))?;
        for retried in engine::retry_letters(&deps, &pipeline, self.query.as_deref(), self.at_once).await? {
            match globals.output {
                Format::Json => print_json(&retried)?,
                Format::Text => print_line(&told(&retried)),
            }
        }
        Ok(())
    }
}

fn text(group: &LetterGroup) -> String {
    let field = group.field.as_deref().map_or_else(String::new, |field| format!(", field {field}"));
    let mut lines = vec![format!(
        "{}  {}  topic {}{field}: {}, met from {} to {}",
        group.query,
        group.reason,
        group.topic,
        if group.count == 1 { "1 letter".to_owned() } else { format!("{} letters", grouped(group.count as u64)) },
        group.first,
        group.last
    )];
    for sample in &group.samples {
        lines.push(format!("    partition {}, offset {}: {}", sample.partition, sample.offset, sample.reason));
        lines.extend(sample.payload.iter().map(|payload| format!("        {payload}")));
    }
    lines.join("\n")
}

fn told(retried: &Retried) -> String {
    let version = retried.version.map_or_else(String::new, |version| format!(" (version {version})"));
    let apart = |count: u64, what: &str| match count {
        0 => String::new(),
        count => format!(", {} {what}", grouped(count)),
    };
    format!(
        "{}: {} letters retried, {} committed as {} rows{}{}{version}, {} still cannot be decoded",
        retried.query,
        grouped(retried.letters),
        grouped(retried.committed),
        grouped(retried.rows),
        apart(retried.quarantined, "quarantined"),
        apart(retried.dropped, "dropped"),
        grouped(retried.dead)
    )
}
