//! The plan of a query, made once and run for one micro-batch after the other.
//!
//! A micro-batch differs from the one before in what its topics read, and mostly in nothing else. So the plan is kept,
//! and for each micro-batch every operator of it gets a fresh state ([`ExecutionPlan::reset_state`]), with one
//! exception: the hash table of a join whose build side reads lookups alone stands as long as their versions do.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinType, Result as DfResult};
use datafusion::execution::{SessionState, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};

use super::selection;
use super::topic::TopicScanExec;
use crate::decode::Selection;
use crate::error::Result;

/// Micro-batches that a plan is run for at most: a join whose hash table stands counts its metrics on and on.
const RUNS: u32 = 256;

/// A plan and what it runs in.
pub(crate) type Executable = (Arc<dyn ExecutionPlan>, Arc<TaskContext>);

/// What a plan is made for: with anything of it changed, another one is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Name and version of each lookup.
    pub(crate) lookups: Vec<(String, String)>,
    /// The rows that operators gather into a batch.
    pub(crate) batch_rows: usize,
    /// The streams that run side by side.
    pub(crate) streams: usize,
    /// Whether lookups are the build sides of joins, however large they are; otherwise the smaller side is.
    pub(crate) builds_lookups: bool,
}

/// The plan of a query.
pub(crate) struct QueryPlan {
    shape: Shape,
    state: SessionState,
    optimized: LogicalPlan,
    wanted: Selection,
    context: Arc<TaskContext>,
    /// Made when the topics are prepared.
    physical: Option<Arc<dyn ExecutionPlan>>,
    /// The micro-batches that it was run for.
    runs: u32,
    /// Whether it says the same at another time of day.
    is_timeless: bool,
}

impl QueryPlan {
    /// Plans `logical`, up to its operators.
    ///
    /// # Errors
    /// What the optimiser returns.
    pub(crate) fn new(mut state: SessionState, logical: &LogicalPlan, shape: Shape) -> Result<Self> {
        let config = state.config().clone().with_batch_size(shape.batch_rows).with_target_partitions(shape.streams);
        *state.config_mut() = config;
        let optimized = state.optimize(logical)?;
        Ok(Self {
            wanted: selection::used_fields(&optimized)?,
            context: state.task_ctx(),
            is_timeless: is_timeless(logical)?,
            shape,
            state,
            optimized,
            physical: None,
            runs: 0,
        })
    }

    /// Whether the next micro-batch can run it.
    pub(crate) fn fits(&self, shape: &Shape) -> bool {
        self.is_timeless && self.runs < RUNS && self.shape == *shape
    }

    /// The plan before its operators are chosen.
    pub(crate) fn optimized(&self) -> &LogicalPlan {
        &self.optimized
    }

    /// The fields of topics that it uses.
    pub(crate) fn wanted(&self) -> &Selection {
        &self.wanted
    }

    /// What one micro-batch runs, and in what; its topics were prepared for it.
    ///
    /// # Errors
    /// What the planner returns.
    pub(crate) async fn next(&mut self) -> Result<Executable> {
        let plan = match self.physical.take() {
            Some(plan) => renewed(plan)?,
            None => self.state.query_planner().create_physical_plan(&self.optimized, &self.state).await?,
        };
        self.physical = Some(Arc::clone(&plan));
        self.runs += 1;
        Ok((plan, Arc::clone(&self.context)))
    }
}

/// Whether no function of the plan depends on when it is planned, as `now()` does.
fn is_timeless(plan: &LogicalPlan) -> Result<bool> {
    let mut timeless = true;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::ScalarFunction(call) = expr {
                    timeless &= call.func.signature().volatility == Volatility::Immutable;
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(timeless)
}

/// The plan with a fresh state in every operator, but for hash tables that stand.
fn renewed(plan: Arc<dyn ExecutionPlan>) -> DfResult<Arc<dyn ExecutionPlan>> {
    let renewed = plan.transform_up(|node| {
        // Its inputs are fresh already; a join takes its hash table along when it gets others.
        if keeps_build(node.as_ref()) { Ok(Transformed::no(node)) } else { Ok(Transformed::yes(node.reset_state()?)) }
    })?;
    Ok(renewed.data)
}

/// Whether a node is a join whose build side says the same for each micro-batch, and which marks nothing in it.
fn keeps_build(node: &dyn ExecutionPlan) -> bool {
    let Some(join) = node.downcast_ref::<HashJoinExec>() else { return false };
    let marks_nothing = matches!(
        join.join_type(),
        JoinType::Inner | JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark
    );
    marks_nothing && *join.partition_mode() == PartitionMode::CollectLeft && !reads_topic(join.left().as_ref())
}

fn reads_topic(plan: &dyn ExecutionPlan) -> bool {
    plan.is::<TopicScanExec>() || plan.children().into_iter().any(|child| reads_topic(child.as_ref()))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, RecordBatch, StringArray};
    use datafusion::physical_plan::{collect, displayable};
    use datafusion::prelude::{SessionConfig, SessionContext};

    use super::*;

    fn session() -> SessionContext {
        let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
        let table = |name: &str, rows: i64| {
            let ids = Arc::new(Int64Array::from_iter_values(0..rows)) as arrow::array::ArrayRef;
            let names = StringArray::from_iter_values((0..rows).map(|row| format!("{name} {row}")));
            let batch = RecordBatch::try_from_iter([("id", ids), ("name", Arc::new(names))]).unwrap();
            context.register_batch(name, batch).unwrap();
        };
        table("ads", 10);
        table("impressions", 100);
        context
    }

    fn build_rows(plan: &dyn ExecutionPlan) -> Option<usize> {
        let own =
            plan.metrics().and_then(|metrics| metrics.sum_by_name("build_input_rows")).map(|rows| rows.as_usize());
        own.or_else(|| plan.children().into_iter().find_map(|child| build_rows(child.as_ref())))
    }

    /// Runs a query three times, each time renewed: the rows of each run, and the rows that went into a hash table.
    async fn runs(sql: &str) -> (Vec<usize>, usize) {
        let context = session();
        let mut plan = context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
        assert!(displayable(plan.as_ref()).indent(false).to_string().contains("HashJoinExec"), "{sql}");
        let mut rows = Vec::new();
        for _ in 0..3 {
            plan = renewed(plan).unwrap();
            let batches = collect(Arc::clone(&plan), context.task_ctx()).await.unwrap();
            rows.push(batches.iter().map(RecordBatch::num_rows).sum());
        }
        (rows, build_rows(plan.as_ref()).unwrap())
    }

    #[tokio::test]
    async fn a_hash_table_of_a_lookup_is_made_once() {
        let (rows, built) = runs("SELECT i.name, a.name FROM impressions i JOIN ads a ON i.id = a.id").await;
        assert_eq!((rows, built), (vec![10, 10, 10], 10));
        let (rows, built) = runs("SELECT i.name, a.name FROM impressions i LEFT JOIN ads a ON i.id = a.id").await;
        assert_eq!((rows, built), (vec![100, 100, 100], 10));
        let (rows, built) = runs("SELECT name FROM impressions WHERE id IN (SELECT id FROM ads)").await;
        assert_eq!((rows, built), (vec![10, 10, 10], 10));
    }

    #[tokio::test]
    async fn one_in_which_rows_are_marked_is_made_anew() {
        let (rows, _) = runs("SELECT a.name FROM ads a LEFT JOIN impressions i ON a.id = i.id - 5").await;
        assert_eq!(rows, [10, 10, 10]);
    }

    #[tokio::test]
    async fn a_plan_with_the_time_of_day_in_it_serves_one_micro_batch() {
        let context = session();
        let shape = || Shape { lookups: Vec::new(), batch_rows: 10, streams: 1, builds_lookups: true };
        let fits = async |sql: &str| {
            let logical = context.sql(sql).await.unwrap().into_unoptimized_plan();
            let mut plan = QueryPlan::new(context.state(), &logical, shape()).unwrap();
            plan.next().await.unwrap();
            plan.fits(&shape())
        };
        assert!(fits("SELECT upper(name) FROM ads").await);
        assert!(!fits("SELECT now(), name FROM ads").await);
        assert!(
            !fits("SELECT name FROM ads WHERE id IN (SELECT id FROM impressions WHERE now() > '2020-01-01')").await
        );
        let logical = context.sql("SELECT name FROM ads").await.unwrap().into_unoptimized_plan();
        let plan = QueryPlan::new(context.state(), &logical, shape()).unwrap();
        assert!(!plan.fits(&Shape { lookups: vec![("ads".into(), "2".into())], ..shape() }));
        assert!(!plan.fits(&Shape { batch_rows: 9, ..shape() }));
    }
}
