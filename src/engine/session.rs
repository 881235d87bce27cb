//! The DataFusion session of a query: its topics, lookups, tables and models under the names of the pipeline file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use chrono::{DateTime, Utc};
use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::execution::{SessionState, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::future::try_join_all;

use super::first_of_key::FirstOfKey;
use super::models::{self, Models};
use super::topic::{OpenLog, Slice, TopicTable};
use super::{Deps, selection};
use crate::error::Result;
use crate::lookup::Lookup;
use crate::observe::Observer;
use crate::pipeline::{Fit, LookupSpec, ModelSpec, Pipeline, QuerySpec};
use crate::registry::Registry;
use crate::sink::DeltaSink;
use crate::storage::Storage;

/// Bytes and rows of a side of a join that is made into one hash table: any lookup, and no topic.
const LARGEST_BUILD: (usize, usize) = (1 << 38, u32::MAX as usize - 1);

/// Which of the file's declarations a session holds.
#[derive(Debug, Clone, Default)]
pub struct SessionParts {
    topics: Vec<String>,
    lookups: Vec<String>,
    /// Sinks that are read as tables: by checks, batch jobs and ad-hoc queries.
    tables: Vec<String>,
    models: Vec<String>,
    connect: bool,
    /// Windows that ask for the first row of a key hold rows in a hash table. Whoever says so makes the plan once more
    /// without, when they do not fit into memory.
    hashes: bool,
    /// What stands for sinks that are read: other versions, or what is not committed yet.
    stand_ins: StandIns,
}

/// A table in the place of a sink that is read.
#[derive(Debug, Clone)]
pub struct StandIn {
    /// Its rows.
    pub provider: Arc<dyn TableProvider>,
    /// The version that is told of it; `None` where it is nothing that was committed.
    pub version: Option<u64>,
}

/// Stand-ins by the names of their sinks.
pub type StandIns = BTreeMap<String, StandIn>;

impl SessionParts {
    /// What `query` reads; with `connect` its topics can be read, otherwise only planned.
    pub fn of_query(pipeline: &Pipeline, query: &QuerySpec, connect: bool) -> Self {
        let (tables, lookups) =
            query.lookups.iter().cloned().partition(|name| pipeline.sinks.iter().any(|sink| &sink.name == name));
        Self {
            topics: query.sources.clone(),
            lookups,
            tables,
            models: query.models.clone(),
            connect,
            ..Self::default()
        }
    }

    /// All that the file declares.
    pub fn everything(pipeline: &Pipeline) -> Self {
        Self {
            topics: pipeline.sources.iter().map(|s| s.name.clone()).collect(),
            lookups: pipeline.lookups.iter().map(|l| l.name.clone()).collect(),
            tables: pipeline.sinks.iter().map(|s| s.name.clone()).collect(),
            models: pipeline.models.iter().map(|m| m.name.clone()).collect(),
            connect: true,
            ..Self::default()
        }
    }

    /// With plans that hold rows in a hash table rather than sort them on disk, where they may.
    #[must_use]
    pub(crate) fn hashing(mut self) -> Self {
        self.hashes = true;
        self
    }

    /// With these tables in the place of the sinks of their names.
    #[must_use]
    pub fn over(mut self, stand_ins: &StandIns) -> Self {
        self.stand_ins.clone_from(stand_ins);
        self
    }

    /// Of the tables only those in `names`.
    #[must_use]
    pub fn only(mut self, names: &BTreeSet<String>) -> Self {
        for part in [&mut self.topics, &mut self.lookups, &mut self.tables] {
            part.retain(|name| names.contains(name));
        }
        self
    }
}

/// A session with the declarations of a pipeline registered in it.
pub struct QuerySession {
    context: SessionContext,
    topics: Vec<Arc<TopicTable>>,
    lookups: Vec<Lookup>,
    models: Models,
    /// Name and version of what stands for sinks.
    stood_in: Vec<(String, String)>,
}

impl QuerySession {
    /// Registers `parts`: topics opened, lookups read, models loaded.
    ///
    /// # Errors
    /// `Invalid` for a lookup or model that is missing or not as declared.
    pub async fn new(deps: &Deps, pipeline: &Pipeline, parts: SessionParts) -> Result<Self> {
        let config = config(pipeline, !parts.topics.is_empty())?;
        let context = SessionContext::new_with_state(state(config, deps, parts.hashes && parts.topics.is_empty()));
        let mut session =
            Self { context, topics: Vec::new(), lookups: Vec::new(), models: Models::default(), stood_in: Vec::new() };
        for spec in pipeline.sources.iter().filter(|s| parts.topics.contains(&s.name)) {
            let open: Option<OpenLog> = parts.connect.then(|| {
                let (topics, spec, patience) = (Arc::clone(&deps.topics), spec.clone(), deps.patience);
                Arc::new(move || topics.open(&spec, patience)) as OpenLog
            });
            let registry = spec.registry.as_ref().filter(|_| parts.connect);
            let registry = registry.map(|spec| Registry::open(spec, deps.patience)).transpose()?.map(Arc::new);
            let table = Arc::new(TopicTable::new(spec.clone(), open, registry, deps.memory.clone()));
            session.register(&spec.name, Arc::clone(&table) as Arc<dyn TableProvider>)?;
            session.topics.push(table);
        }
        for spec in pipeline.lookups.iter().filter(|l| parts.lookups.contains(&l.name)) {
            session.add_lookup(spec, deps).await?;
        }
        for spec in pipeline.sinks.iter().filter(|s| parts.tables.contains(&s.name)) {
            match parts.stand_ins.get(&spec.name) {
                Some(stand_in) => session.add_stand_in(&spec.name, stand_in)?,
                None => session.add_lookup(&spec.as_lookup(), deps).await?,
            }
        }
        let models = pipeline.models.iter().filter(|m| parts.models.contains(&m.name));
        session.models = Models::load(models, &session.context)?;
        Ok(session)
    }

    fn register(&self, name: &str, table: Arc<dyn TableProvider>) -> Result<()> {
        self.context.deregister_table(TableReference::bare(name))?;
        self.context.register_table(TableReference::bare(name), table)?;
        Ok(())
    }

    async fn add_lookup(&mut self, spec: &LookupSpec, deps: &Deps) -> Result<()> {
        let lookup = Lookup::load(spec, &deps.storage, &deps.memory, &self.context.state()).await?;
        self.register(&spec.name, lookup.provider())?;
        self.lookups.push(lookup);
        Ok(())
    }

    fn add_stand_in(&mut self, name: &str, stand_in: &StandIn) -> Result<()> {
        self.register(name, Arc::clone(&stand_in.provider))?;
        self.stood_in.extend(stand_in.version.map(|version| (name.to_owned(), version.to_string())));
        Ok(())
    }

    /// Reads those lookups again whose version has changed, takes over models whose files have, and says whether there
    /// was any: plans that were made before read the old rows and score with the old models.
    ///
    /// # Errors
    /// What reading a lookup returns.
    pub(crate) async fn refresh(&mut self, query: &str, observer: &dyn Observer) -> Result<bool> {
        let changed = try_join_all(self.lookups.iter_mut().map(Lookup::refresh)).await?;
        for (lookup, _) in self.lookups.iter().zip(&changed).filter(|(_, changed)| **changed) {
            self.register(lookup.name(), lookup.provider())?;
        }
        let is_taken = self.models.refresh(&self.context, query, observer).await;
        Ok(changed.contains(&true) || is_taken)
    }

    /// The session at this time of day: `now()` is `clock` in every plan made from it.
    ///
    /// # Errors
    /// None now; the state is a copy.
    pub fn state(&self, clock: DateTime<Utc>) -> Result<SessionState> {
        let mut state = self.context.state();
        state.execution_props_mut().query_execution_start_time = Some(clock);
        Ok(state)
    }

    /// The topics in the order of the file.
    pub(crate) fn topics(&self) -> Vec<Arc<TopicTable>> {
        self.topics.clone()
    }

    /// Name and version of each lookup.
    pub fn lookup_versions(&self) -> Vec<(String, String)> {
        let lookups = self.lookups.iter().map(|l| (l.name().to_owned(), l.version().to_owned()));
        lookups.chain(self.stood_in.iter().cloned()).collect()
    }

    /// Name and SHA-256 of each model.
    pub fn model_versions(&self) -> Vec<(String, String)> {
        self.models.versions()
    }

    /// Name of each model, and what it says of itself.
    pub fn model_summaries(&self) -> impl Iterator<Item = (String, String)> {
        self.models.summaries()
    }

    /// Tells of each model that is another one than in the last commit of the query.
    ///
    /// # Errors
    /// What reading the log returns.
    pub(crate) async fn announce_models(&self, sink: &DeltaSink, query: &str, observer: &dyn Observer) -> Result<()> {
        if self.model_versions().is_empty() {
            return Ok(());
        }
        let last = sink.last_written().await?;
        for line in last.iter().flat_map(|last| self.models.changed_since(last)) {
            observer.note(&format!("query {query}: {line}"));
        }
        Ok(())
    }

    /// What tasks of a plan run in.
    pub fn task_context(&self) -> Arc<TaskContext> {
        self.context.task_ctx()
    }

    /// The context, for ad-hoc queries.
    pub fn context(&self) -> &SessionContext {
        &self.context
    }

    /// The operators of an optimised plan that reads every topic from `start` to its end as of now, with the fields
    /// that it uses.
    ///
    /// # Errors
    /// What the logs and the planner return.
    pub(crate) async fn plan_whole(
        &self,
        state: &SessionState,
        optimized: &LogicalPlan,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let wanted = selection::used_fields(optimized)?;
        for table in &self.topics {
            let is_shared = selection::scans(optimized, std::iter::once(table.spec().name.as_str()))? > 1;
            super::topic::prepare_whole(table, Slice { selection: wanted.clone(), is_shared, ..Slice::default() })
                .await?;
        }
        Ok(state.query_planner().create_physical_plan(optimized, state).await?)
    }

    /// The rows of a plan that reads everything, and their schema. Records that it could not decode are warned of: such
    /// a plan has no dead letters.
    ///
    /// # Errors
    /// What the plan returns.
    pub async fn collect(&self, state: &SessionState, logical: &LogicalPlan) -> Result<(SchemaRef, Vec<RecordBatch>)> {
        let plan = self.plan_whole(state, &state.optimize(logical)?).await?;
        let schema = plan.schema();
        let rows = datafusion::physical_plan::collect(plan, self.task_context()).await?;
        self.warn_of_what_was_left_out();
        Ok((schema, rows))
    }

    fn warn_of_what_was_left_out(&self) {
        for table in &self.topics {
            let counts = table.counts();
            if let Some(told) = counts.and_then(|counts| counts.left_out(&table.spec().topic)) {
                tracing::warn!("{told}");
            }
        }
    }
}

/// A state with DataFusion's functions and rules, and ours.
fn state(config: SessionConfig, deps: &Deps, hashes: bool) -> SessionState {
    let builder =
        SessionStateBuilder::new_with_default_features().with_config(config).with_runtime_env(deps.memory.runtime());
    if !hashes {
        return builder.build();
    }
    // Before those that bring rows together and sort them.
    let mut rules: Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> = vec![Arc::new(FirstOfKey)];
    rules.extend(PhysicalOptimizer::default().rules);
    builder.with_physical_optimizer_rules(rules).build()
}

/// A session's options: those of the file's `SET`s over ours. `streams`: it has topics.
pub(crate) fn config(pipeline: &Pipeline, streams: bool) -> Result<SessionConfig> {
    let mut config = SessionConfig::new();
    let optimizer = &mut config.options_mut().optimizer;
    // Nothing here reads a filter that a join finds while it runs.
    optimizer.enable_dynamic_filter_pushdown = false;
    if streams {
        // A lookup's hash table is made once, by one stream, and stands: however large it is, all streams share it.
        (optimizer.hash_join_single_partition_threshold, optimizer.hash_join_single_partition_threshold_rows) =
            LARGEST_BUILD;
    }
    for (key, value) in &pipeline.session {
        config.options_mut().set(key, value)?;
    }
    Ok(config)
}

/// What a check of a pipeline file has to know of lookups and models; read from their files, without any network.
#[derive(Debug)]
pub struct Facts<'a> {
    /// Where lookups lie.
    pub storage: &'a Storage,
}

impl crate::pipeline::Facts for Facts<'_> {
    fn lookup_schema(&self, spec: &LookupSpec) -> Result<SchemaRef> {
        let context = SessionContext::new();
        let read = async { Lookup::schema_of(spec, self.storage, &context.state()).await };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(read))
    }

    fn check_model(&self, spec: &ModelSpec) -> Result<Fit> {
        Ok(models::function(spec, &models::load(spec)?)
            .map_or_else(|error| Fit::Differs(error.message().to_owned()), |_| Fit::Fits))
    }

    fn check_kafka_property(&self, name: &str, value: &str) -> Result<(), String> {
        let told = |error: crate::error::Error| {
            let message = error.message();
            message.strip_prefix(&format!("option `kafka.{name}` ")).unwrap_or(message).to_owned()
        };
        crate::kafka::check_property(name, value).map_err(told)
    }
}
