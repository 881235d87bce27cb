//! `flumen maintain`: keeps the tables of a pipeline in order.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::output::{print_json, print_line};
use super::{Format, Globals, Inputs, load};
use crate::engine;
use crate::error::Result;
use crate::observe::Silent;

/// `flumen maintain FILE`.
#[derive(Debug, Args)]
pub(crate) struct Maintain {
    /// The pipeline file
    file: PathBuf,
    /// Only this query (a query is named after its sink)
    #[arg(long, value_name = "NAME")]
    query: Option<String>,
    #[command(flatten)]
    inputs: Inputs,
}

impl Maintain {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        let environment = load::environment(&load::root(globals)?, &self.inputs);
        let pipeline = load::pipeline(&environment, &self.file).await?;
        let deps = load::deps(&pipeline, Arc::new(Silent), Some(pipeline.settings.broker_timeout))?;
        for done in engine::maintain(&deps, &pipeline, self.query.as_deref()).await? {
            match globals.output {
                Format::Json => print_json(&done)?,
                Format::Text => print_line(&engine::upkeep_in_words(&done)),
            }
        }
        Ok(())
    }
}
