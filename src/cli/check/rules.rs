//! The gateway's rules in `.proto` files: those that are named, and those of the topics of pipelines, held against the
//! tables that the same pipelines write.

use std::path::{Path, PathBuf};

use arrow::datatypes::SchemaRef;
use serde::Serialize;

use super::super::Format;
use super::super::gateway::{descriptors, located};
use super::super::output::{print_json, print_line, print_told};
use crate::error::Result;
use crate::gateway::{self, Tables};
use crate::pipeline::{Environment, Pipeline};
use crate::schema::Descriptors;

/// The columns of a table that a pipeline writes.
pub(super) struct Written {
    location: String,
    schema: SchemaRef,
}

/// The tables of pipelines.
#[derive(Default)]
pub(super) struct Tablebook(Vec<Written>);

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
        self.0.extend(pipeline.sinks.iter().map(|sink| Written {
            location: sink.location.trim_end_matches('/').to_owned(),
            schema: sink.contract.arrow_schema(),
        }));
    }

    fn columns(&self, location: &str) -> Option<SchemaRef> {
        let location = location.trim_end_matches('/');
        self.0.iter().find(|table| table.location == location).map(|table| table.schema.clone())
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
    let descriptors = match descriptors(environment, std::slice::from_ref(file), &[]) {
        Ok(descriptors) => descriptors,
        Err(error) => {
            tell(file, &[error.message().to_owned()], output)?;
            return Ok(1);
        }
    };
    let faults = faults(environment, &descriptors, tables);
    tell(file, &faults, output)?;
    if faults.is_empty() && output == Format::Text {
        let methods = gateway::plan(descriptors.pool()).map_or(0, |plan| plan.methods.len());
        let counted = if methods == 1 { "1 method".to_owned() } else { format!("{methods} methods") };
        print_line(&format!("{}: {counted} for the gateway", file.display()));
    }
    Ok(faults.len())
}

/// Prints faults.
pub(super) fn tell(file: &Path, faults: &[String], output: Format) -> Result<()> {
    for message in faults {
        match output {
            Format::Json => print_json(&Printed { file, severity: "error", message })?,
            Format::Text => print_told(&format!("error: {}: {message}\n", file.display())),
        }
    }
    Ok(())
}

/// What is wrong with the rules of descriptors, and with what they subscribe to.
pub(super) fn faults(environment: &Environment, descriptors: &Descriptors, tables: &Tablebook) -> Vec<String> {
    match gateway::plan(descriptors.pool()) {
        Err(faults) => faults.iter().map(ToString::to_string).collect(),
        Ok(plan) => Tables::faults(&plan, |table| tables.columns(&located(environment, table))),
    }
}
