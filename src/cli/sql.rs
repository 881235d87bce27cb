//! `flumen sql`: an ad-hoc bounded query over what a file declares.

use std::path::Path;
use std::sync::Arc;

use clap::Args;

use super::output::{print_json_rows, print_line};
use super::{Format, Globals, Inputs, load, table};
use crate::close;
use crate::engine::{QuerySession, SessionParts, side_table};
use crate::error::{Error, Result};
use crate::observe::Silent;
use crate::pipeline::{Pipeline, SinkSpec};

/// Rows that the text form shows.
const SHOWN: usize = 100;

/// `flumen sql [FILE] "SELECT …"`.
#[derive(Debug, Args)]
pub(crate) struct Sql {
    /// A pipeline file, and the query; or only the query
    #[arg(required = true, num_args = 1..=2, value_name = "[FILE] QUERY")]
    words: Vec<String>,
    #[command(flatten)]
    inputs: Inputs,
}

impl Sql {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        let environment = load::environment(&load::root(globals)?, &self.inputs);
        let (pipeline, query) = match self.words.as_slice() {
            [file, query] => (load::pipeline(&environment, Path::new(file)).await?, query),
            [query] => (load::no_file(&environment)?, query),
            _ => return Err(Error::invalid("say: flumen sql [FILE] \"SELECT …\"")),
        };
        let deps = load::deps(&pipeline, Arc::new(Silent), Some(pipeline.settings.broker_timeout))?;
        let tables = pipeline.tables_of(query)?;
        let mut pipeline = Arc::unwrap_or_clone(pipeline);
        let is_declared = |name: &String| {
            pipeline.source(name).is_some() || pipeline.lookup(name).is_some() || pipeline.sink(name).is_some()
        };
        let others = tables.iter().filter(|name| !is_declared(name));
        let sides: Vec<_> = others.filter_map(|name| side_of(&pipeline, name)).map(|side| side.as_lookup()).collect();
        pipeline.lookups.extend(sides);
        let parts = SessionParts::everything(&pipeline).only(&tables);
        let session = QuerySession::new(&deps, &pipeline, parts).await?;
        let state = session.state(deps.clock.now())?;
        let logical = pipeline.plan_sql(query, &state).await?;
        let (schema, batches) = session.collect(&state, &logical).await?;
        match globals.output {
            Format::Text => print_line(&table::render(&schema, &batches, SHOWN)?),
            Format::Json => print_json_rows(&batches.iter().collect::<Vec<_>>())?,
        }
        Ok(())
    }
}

/// A table beside a sink, or beside the final tables of a close of books.
fn side_of(pipeline: &Pipeline, name: &str) -> Option<SinkSpec> {
    side_table(pipeline, name).or_else(|| close::side_table(pipeline, name))
}
