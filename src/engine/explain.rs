//! What a query reads, its plan, and what it writes.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::physical_plan::display::DisplayableExecutionPlan;
use futures::StreamExt;
use serde::Serialize;

use super::session::{QuerySession, SessionParts};
use super::{Deps, selection};
use crate::contract::{ContractColumn, ContractEnforcer, sql_type};
use crate::decode::Selection;
use crate::error::Result;
use crate::pipeline::{Pipeline, QueryKind, QuerySpec, ValueFormat};

/// A topic as a query reads it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExplainedSource {
    /// The topic's name.
    pub topic: String,
    /// The message of its values, or `raw`.
    pub message: String,
    /// The columns that are built, nested fields by their path.
    pub fields: Vec<String>,
}

/// A query, explained.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explained {
    /// The query's name.
    pub query: String,
    /// `streaming query` or `batch job`.
    pub kind: &'static str,
    /// The topics.
    pub sources: Vec<ExplainedSource>,
    /// Name and version of the lookups.
    pub lookups: BTreeMap<String, String>,
    /// Name and SHA-256 of the models.
    pub models: BTreeMap<String, String>,
    /// What each says of itself.
    pub model_summaries: BTreeMap<String, String>,
    /// The sink's location.
    pub sink: String,
    /// The contract's columns with their types.
    pub columns: Vec<String>,
    /// The contract's checks.
    pub checks: Vec<String>,
    /// DataFusion's physical plan; after a run with what each operator did.
    pub plan: String,
}

/// Explains `query`; with `analyze` it is run over what its topics hold now and nothing is written.
///
/// # Errors
/// What planning, and with `analyze` running, returns.
pub async fn explain(deps: &Deps, pipeline: &Arc<Pipeline>, query: &QuerySpec, analyze: bool) -> Result<Explained> {
    let sink = super::sink_of(pipeline, query)?;
    let session = QuerySession::new(deps, pipeline, SessionParts::of_query(pipeline, query, analyze)).await?;
    let state = session.state(deps.clock.now())?;
    let logical = pipeline.plan_query(query, &state).await?;
    let optimized = state.optimize(&logical)?;
    let wanted = selection::used_fields(&optimized)?;
    let plan = match analyze {
        true => session.plan_whole(&state, &optimized).await?,
        false => state.query_planner().create_physical_plan(&optimized, &state).await?,
    };
    if analyze {
        let enforcer = ContractEnforcer::new(&sink.contract, &[], &state)?;
        let mut rows = datafusion::physical_plan::execute_stream(Arc::clone(&plan), session.task_context())?;
        while let Some(batch) = rows.next().await {
            if let Err(violation) = enforcer.enforce(batch?) {
                deps.observer.note(&format!("query {}: {violation}", query.name));
            }
        }
    }
    let display = if analyze {
        DisplayableExecutionPlan::with_metrics(plan.as_ref())
    } else {
        DisplayableExecutionPlan::new(plan.as_ref())
    };
    let topics = session.topics();
    let sources = topics.iter().map(|table| {
        let spec = table.spec();
        let message = match &spec.format {
            ValueFormat::Protobuf { message, .. } => message.full_name().to_owned(),
            ValueFormat::Raw => "raw".to_owned(),
        };
        let fields = paths(&spec.schema, &wanted);
        ExplainedSource { topic: spec.topic.clone(), message, fields }
    });
    Ok(Explained {
        query: query.name.clone(),
        kind: match query.kind {
            QueryKind::Streaming => "streaming query",
            QueryKind::Batch => "batch job",
        },
        sources: sources.collect(),
        lookups: session.lookup_versions().into_iter().collect(),
        models: session.model_versions().into_iter().collect(),
        model_summaries: session.model_summaries().collect(),
        sink: sink.location.clone(),
        columns: sink.contract.columns.iter().map(column).collect(),
        checks: sink.contract.checks.iter().map(|c| format!("{}: {}", c.name, c.sql)).collect(),
        plan: display.indent(false).to_string(),
    })
}

/// `score DOUBLE NOT NULL`.
fn column(column: &ContractColumn) -> String {
    let null = if column.nullable { "" } else { " NOT NULL" };
    format!("{} {}{null}", column.name, sql_type(&column.data_type))
}

/// The columns and nested fields that are built, as `placement.slot`, in the order of the topic's columns.
fn paths(schema: &Schema, wanted: &Selection) -> Vec<String> {
    let mut paths = Vec::new();
    for field in schema.fields() {
        if let Some(below) = wanted.field(field.name()) {
            add_paths(field.name().clone(), below, &mut paths);
        }
    }
    paths
}

fn add_paths(path: String, wanted: &Selection, paths: &mut Vec<String>) {
    match wanted {
        Selection::Fields(fields) if !fields.is_empty() => {
            fields.iter().for_each(|(name, below)| add_paths(format!("{path}.{name}"), below, paths));
        }
        _ => paths.push(path),
    }
}
