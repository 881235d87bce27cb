//! The gateway's rules in `.proto` files, held against the tables that the pipelines which are checked with them write.

use std::path::{Path, PathBuf};

use arrow::datatypes::SchemaRef;
use serde::Serialize;

use super::super::gateway::located;
use super::super::output::{print_json, print_line, print_told};
use super::super::{Format, load};
use crate::error::Result;
use crate::gateway::{self, Tables};
use crate::pipeline::{Environment, Pipeline};

/// The tables that pipelines write: their locations and columns.
#[derive(Default)]
pub(super) struct Tablebook(Vec<(String, SchemaRef)>);

/// A fault, as `-o json` prints it.
#[derive(Serialize)]
struct Printed<'a> {
    file: &'a Path,
    severity: &'static str,
    message: &'a str,
}

impl Tablebook {
    /// Notes what a pipeline writes.
    pub(super) fn note(&mut self, pipeline: &Pipeline) {
        let table = |location: &str| location.trim_end_matches('/').to_owned();
        self.0.extend(pipeline.sinks.iter().map(|sink| (table(&sink.location), sink.contract.arrow_schema())));
    }

    fn columns(&self, location: &str) -> Option<SchemaRef> {
        let location = location.trim_end_matches('/');
        self.0.iter().find(|(table, _)| table == location).map(|(_, schema)| schema.clone())
    }
}

/// Whether a file to check is one of messages.
pub(super) fn is_proto(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "proto")
}

/// Checks the rules of a `.proto` file; how many faults it has.
///
/// # Errors
/// `Unavailable` when nothing can be printed.
pub(super) fn check(environment: &Environment, file: &PathBuf, tables: &Tablebook, output: Format) -> Result<usize> {
    let (methods, faults) = match load::descriptors(environment, std::slice::from_ref(file), &[]) {
        Err(error) => (0, vec![error.message().to_owned()]),
        Ok(descriptors) => match gateway::plan(descriptors.pool()) {
            Err(faults) => (0, faults.iter().map(ToString::to_string).collect()),
            Ok(plan) => {
                let columns = |table: &str| tables.columns(&located(environment, table));
                (plan.methods.len(), Tables::faults(&plan, columns))
            }
        },
    };
    for message in &faults {
        match output {
            Format::Json => print_json(&Printed { file, severity: "error", message })?,
            Format::Text => print_told(&format!("error: {}: {message}\n", file.display())),
        }
    }
    if faults.is_empty() && output == Format::Text {
        let counted = if methods == 1 { "1 method".to_owned() } else { format!("{methods} methods") };
        print_line(&format!("{}: {counted} for the gateway", file.display()));
    }
    Ok(faults.len())
}
