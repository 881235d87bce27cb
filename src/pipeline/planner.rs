//! Syntax trees to logical plans over named tables, with DataFusion's planner and a session's functions.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::TableFunctionArgs;
use datafusion::common::TableReference;
use datafusion::common::{DFSchema, plan_datafusion_err};
use datafusion::config::ConfigOptions;
use datafusion::datasource::cte_worktable::CteWorkTable;
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SessionState;
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner, RelationPlanner};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    AggregateUDF, DdlStatement, Expr, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, WindowUDF,
};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::planner::SqlToRel;
use datafusion::sql::resolve::resolve_table_references;
use datafusion::sql::sqlparser::ast::{CreateView, Query, Statement as SqlStatement};

/// The tables that a plan may name, over the functions of a session.
pub(super) struct Catalogue<'a> {
    state: &'a SessionState,
    tables: HashMap<String, Arc<dyn TableSource>>,
}

impl<'a> Catalogue<'a> {
    /// No tables yet.
    pub fn new(state: &'a SessionState) -> Self {
        Self { state, tables: HashMap::new() }
    }

    /// Adds a table.
    pub fn add(&mut self, name: &str, table: Arc<dyn TableSource>) {
        self.tables.insert(name.to_string(), table);
    }

    /// Plans a view and adds it: plans that name it contain its plan.
    pub fn add_view(&mut self, name: &str, view: &CreateView) -> Result<()> {
        let statement = SqlStatement::CreateView(view.clone());
        let plan = match SqlToRel::new(self).sql_statement_to_plan(statement)? {
            LogicalPlan::Ddl(DdlStatement::CreateView(view)) => view.input,
            _ => return Err(plan_datafusion_err!("{name} is no view")),
        };
        let table = ViewTable::new(Arc::unwrap_or_clone(plan), None);
        self.add(name, provider_as_source(Arc::new(table)));
        Ok(())
    }

    /// Plans a query.
    pub fn plan(&self, query: &Query) -> Result<LogicalPlan> {
        SqlToRel::new(self).sql_statement_to_plan(SqlStatement::Query(Box::new(query.clone())))
    }

    /// The schema of a table.
    pub fn schema(&self, name: &str) -> Option<SchemaRef> {
        self.tables.get(name).map(|table| table.schema())
    }
}

/// The tables and views that a query names itself, without its common table expressions; names with dots whole.
pub(super) fn references(query: &Query) -> BTreeSet<String> {
    let statement = DfStatement::Statement(Box::new(SqlStatement::Query(Box::new(query.clone()))));
    match resolve_table_references(&statement, true) {
        Ok((tables, _)) => tables.iter().map(plain).collect(),
        Err(_) => BTreeSet::new(),
    }
}

fn plain(reference: &TableReference) -> String {
    match reference.schema() {
        None => reference.table().to_string(),
        Some(_) => reference.to_string(),
    }
}

impl ContextProvider for Catalogue<'_> {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        let found = self.tables.get(&plain(&name)).cloned();
        found.ok_or_else(|| plan_datafusion_err!("table '{name}' not found"))
    }

    fn get_table_function_source(&self, name: &str, args: Vec<Expr>) -> Result<Arc<dyn TableSource>> {
        let function = self.state.table_functions().get(name).cloned();
        let function = function.ok_or_else(|| plan_datafusion_err!("table function '{name}' not found"))?;
        let context = SimplifyContext::builder()
            .with_config_options(Arc::clone(self.state.config_options()))
            .with_query_execution_start_time(self.state.execution_props().query_execution_start_time)
            .build();
        let simplifier = ExprSimplifier::new(context);
        let schema = DFSchema::empty();
        let simple = |arg| simplifier.coerce(arg, &schema).and_then(|e| simplifier.simplify(e));
        let args = args.into_iter().map(simple).collect::<Result<Vec<_>>>()?;
        let provider = function.create_table_provider_with_args(TableFunctionArgs::new(&args, self.state))?;
        Ok(provider_as_source(provider))
    }

    fn create_cte_work_table(&self, name: &str, schema: SchemaRef) -> Result<Arc<dyn TableSource>> {
        Ok(provider_as_source(Arc::new(CteWorkTable::new(name, schema))))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        self.state.expr_planners()
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        self.state.relation_planners()
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.state.scalar_functions().get(name).cloned()
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.state.higher_order_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.state.aggregate_functions().get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.state.window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, _names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.state.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        self.state.scalar_functions().keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.state.higher_order_functions().keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.state.aggregate_functions().keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.state.window_functions().keys().cloned().collect()
    }
}

/// Runs DataFusion's analysis: types are coerced, and what cannot be is an error.
pub(super) fn analyze(plan: LogicalPlan, state: &SessionState) -> Result<LogicalPlan, DataFusionError> {
    state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {})
}
