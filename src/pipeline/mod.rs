//! Pipeline files: SQL text to a typed [`Pipeline`]. Nothing here asks the network: what must be known of a lookup or
//! a model comes in through [`Facts`]. All faults of a file are told at once, each with its place and a remedy.

mod assemble;
mod built_in;
mod closing;
mod column;
mod day;
mod diagnose;
mod elsewhere;
mod fault;
mod function;

mod language;
mod loader;
mod message_contract;
mod names;
mod options;
mod params;
mod planner;
mod query;
mod registry;
mod resolve;
mod secret;
mod settings;
mod spec;
mod stand_in;
mod statement;
mod streaming;
mod suggest;
mod table;
#[cfg(test)]
mod tests;
mod text;
mod topic;
pub mod units;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::TableReference;
use datafusion::datasource::provider_as_source;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{CreateView, Query};

pub use day::BusinessDay;
pub use fault::{Fault, Faults, Severity};
pub use language::Language;
pub use secret::Environment;
pub use spec::{
    BROKEN_ROWS_FREE, CheckSpec, DEAD_LETTERS_FREE, DataLoss, KeyFormat, LEAST_VACUUM_RETENTION, LandingSpec,
    LookupFormat, LookupSpec, META_COLUMNS, ModelSpec, NullValue, OnDecodeError, OnViolation, QueryKind, QuerySpec,
    RegistryAuth, RegistrySpec, SCHEMA_ID, SchemaChange, Settings, SinkFormat, SinkMode, SinkSpec, SourceSpec,
    UpkeepSpec, ValueFormat,
};
pub use stand_in::{Declared, MODEL_INFO, model_info_fields};
pub use suggest::did_you_mean;
pub use text::SourceText;
pub use topic::meta_fields;

use crate::error::{Error, Result};
use params::ParamFault;
use planner::{Catalogue, references};

/// What a file cannot know by itself, told by those who read tables and models.
pub trait Facts {
    /// The columns of a lookup that declares none.
    ///
    /// # Errors
    /// The table is not there or cannot be read; the message names it.
    fn lookup_schema(&self, lookup: &LookupSpec) -> Result<SchemaRef>;

    /// Whether a model takes and gives what is declared.
    ///
    /// # Errors
    /// The file is not there or is no such model; the message names it.
    fn check_model(&self, model: &ModelSpec) -> Result<Fit>;

    /// Whether a librdkafka property (without `kafka.`) may be set.
    ///
    /// # Errors
    /// Why not, in a few words without the value.
    fn check_kafka_property(&self, name: &str, value: &str) -> Result<(), String>;
}

/// Whether a model takes and gives what is declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fit {
    /// It does.
    Fits,
    /// Why not, and what to do.
    Differs(String),
}

/// A pipeline file, read and found without fault.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// `SET flumen.pipeline`, else the file's stem.
    pub name: String,
    /// The file as it was named.
    pub file: PathBuf,
    /// The SHA-256 of the file's text, in hex.
    pub sha256: String,
    /// `SET flumen.…`.
    pub settings: Settings,
    /// `SET datafusion.…`: to be set on every session, in this order.
    pub session: Vec<(String, String)>,
    /// The topics.
    pub sources: Vec<SourceSpec>,
    /// The bounded tables that are read.
    pub lookups: Vec<LookupSpec>,
    /// The models.
    pub models: Vec<ModelSpec>,
    /// The tables that are written.
    pub sinks: Vec<SinkSpec>,
    /// The `INSERT`s, in the file's order.
    pub queries: Vec<QuerySpec>,
    /// The bare `SELECT`s, in the file's order.
    pub checks: Vec<CheckSpec>,
    /// What somebody should know, though it does not stop the file from being run.
    pub warnings: Vec<Fault>,
    /// The business day that its batch jobs and checks are for, in a file with a `close_zone` that was given a date.
    pub day: Option<BusinessDay>,
    views: Vec<View>,
    params: BTreeMap<String, String>,
}

/// A view; each reads only those before it.
#[derive(Debug, Clone)]
struct View {
    name: String,
    tree: CreateView,
}

impl Pipeline {
    /// Reads a pipeline file from its text. `file` is named in messages, and its stem names the pipeline.
    ///
    /// # Errors
    /// Everything that is wrong with the file, warnings among it.
    pub fn load(text: &str, file: &Path, environment: &Environment, facts: &dyn Facts) -> Result<Self, Faults> {
        assemble::assemble(loader::Loader::new(SourceText::new(file, text), environment, facts))
    }

    /// Whether its batch jobs and checks are those of a close of books.
    pub fn is_closing(&self) -> bool {
        self.settings.close_zone.is_some()
    }

    /// The topic of that name.
    pub fn source(&self, name: &str) -> Option<&SourceSpec> {
        self.sources.iter().find(|s| s.name == name)
    }

    /// The lookup of that name.
    pub fn lookup(&self, name: &str) -> Option<&LookupSpec> {
        self.lookups.iter().find(|l| l.name == name)
    }

    /// The model of that name.
    pub fn model(&self, name: &str) -> Option<&ModelSpec> {
        self.models.iter().find(|m| m.name == name)
    }

    /// The sink of that name.
    pub fn sink(&self, name: &str) -> Option<&SinkSpec> {
        self.sinks.iter().find(|s| s.name == name)
    }

    /// The query of that name: its sink's.
    pub fn query(&self, name: &str) -> Option<&QuerySpec> {
        self.queries.iter().find(|q| q.name == name)
    }

    /// Plans a query's SELECT over the tables and functions that are registered in `state` under their declared
    /// names; views are part of the plan, parameters are filled in.
    ///
    /// # Errors
    /// A table or function is not registered, or has other columns than when the file was read.
    pub async fn plan_query(&self, query: &QuerySpec, state: &SessionState) -> Result<LogicalPlan> {
        let types = self.sink(&query.name).map(|sink| sink.contract.types()).unwrap_or_default();
        let plan = self.plan(&query.tree, state, &types).await;
        plan.map_err(|error| error.within(format!("query {}", query.name)))
    }

    /// Plans a check's SELECT, as [`Pipeline::plan_query`].
    ///
    /// # Errors
    /// As [`Pipeline::plan_query`].
    pub async fn plan_check(&self, check: &CheckSpec, state: &SessionState) -> Result<LogicalPlan> {
        let plan = self.plan(&check.tree, state, &[]).await;
        plan.map_err(|error| error.within(format!("{} ({}:{})", check.name, self.file.display(), check.line)))
    }

    /// Plans a SELECT that is not in the file over what the file declares: the verb `sql`.
    ///
    /// # Errors
    /// The text is not one SELECT, or names what is not registered in `state`.
    pub async fn plan_sql(&self, sql: &str, state: &SessionState) -> Result<LogicalPlan> {
        self.plan(&select(sql)?, state, &[]).await
    }

    /// The declared tables (not views) that a SELECT reads, through views too: what [`Pipeline::plan_sql`] wants
    /// registered.
    ///
    /// # Errors
    /// The text is not one SELECT.
    pub fn tables_of(&self, sql: &str) -> Result<BTreeSet<String>> {
        let mut tables = BTreeSet::new();
        let mut left: Vec<String> = references(&select(sql)?).into_iter().collect();
        while let Some(name) = left.pop() {
            match self.views.iter().find(|v| v.name == name) {
                Some(view) => left.extend(references(&view.tree.query)),
                None => {
                    tables.insert(name);
                }
            }
        }
        Ok(tables)
    }

    async fn plan(&self, query: &Query, state: &SessionState, columns: &[DataType]) -> Result<LogicalPlan> {
        let mut catalogue = Catalogue::new(state);
        // Views that are read, directly or through others; each view reads only those before it.
        let mut needed = references(query);
        for view in self.views.iter().rev() {
            if needed.contains(&view.name) {
                needed.extend(references(&view.tree.query));
            }
        }
        for name in needed.iter().filter(|name| !self.views.iter().any(|v| v.name == **name)) {
            let reference = TableReference::bare(name.as_str());
            let Ok(schema) = state.schema_for_ref(reference) else { continue };
            if let Some(table) = schema.table(name).await? {
                catalogue.add(name, provider_as_source(table));
            }
        }
        let invalid = |error: &_| Error::invalid(diagnose::clean(error));
        for view in self.views.iter().filter(|v| needed.contains(&v.name)) {
            catalogue.add_view(&view.name, &view.tree).map_err(|e| invalid(&e))?;
        }
        let plan = catalogue.plan(query).map_err(|e| invalid(&e))?;
        let names = plan.get_parameter_names().map_err(|e| invalid(&e))?;
        let is_missing = |name: &&String| !self.params.contains_key(name.trim_start_matches('$'));
        if let Some(missing) = names.iter().filter(|_| self.is_closing()).find(is_missing) {
            return Err(Error::invalid(format!("{missing} is of the day that is closed; say --param date=2026-11-22")));
        }
        params::fill(plan, &self.params, columns).map_err(|fault| match fault {
            ParamFault::Type { name, wanted } => Error::invalid(format!("--param {name}: the value is no {wanted}")),
            ParamFault::Plan(error) => invalid(&error),
        })
    }
}

/// The one SELECT of a text.
fn select(sql: &str) -> Result<Query> {
    let source = SourceText::new(Path::new("SQL"), sql);
    let mut faults = Faults::default();
    let mut statements = statement::parse(&source, &mut faults);
    if faults.is_fatal() {
        return Err(faults.into());
    }
    match statements.pop().map(|s| s.kind) {
        Some(statement::Kind::Check(query)) if statements.is_empty() => Ok(*query),
        _ => Err(Error::invalid("this is not one SELECT: write \"SELECT … FROM …\"")),
    }
}
