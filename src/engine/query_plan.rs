//! The plan of a query, made once and run for one micro-batch after the other.
//!
//! A micro-batch differs from the one before in what its topics read, and mostly in nothing else. So the plan is kept,
//! and for each micro-batch every operator of it gets a fresh state ([`ExecutionPlan::reset_state`]), with one
//! exception: the hash table of a join whose build side reads lookups alone stands as long as their versions do. A plan
//! with the time of day in it is made anew for each micro-batch, and takes such hash tables over from the one before.

use std::sync::Arc;

use arrow::array::ArrayRef;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinType, Result as DfResult};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::{SessionState, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::physical_plan::{ExecutionPlan, displayable};

use super::selection;
use super::topic::TopicScanExec;
use super::write::watched;
use crate::decode::Selection;
use crate::error::{Error, Result};
use crate::pipeline::{Pipeline, SinkSpec};

/// Micro-batches that hash tables stand for at most: their joins count metrics on and on, some KB a micro-batch.
const RUNS: u32 = 2048;

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
    /// `None`: lookups are the build sides of joins, however large they are. Otherwise the smaller side is, for
    /// micro-batches of about so many records, as a power of two.
    pub(crate) records: Option<u32>,
}

/// The plans of a query for one state of its lookups.
pub(crate) struct Plans {
    logical: LogicalPlan,
    current: Option<QueryPlan>,
}

impl Plans {
    /// Plans the query that fills `sink`, as far as it goes without knowing a micro-batch. The lookups are those that
    /// the session has now.
    ///
    /// # Errors
    /// What planning returns.
    pub(crate) async fn new(pipeline: &Pipeline, sink: &SinkSpec, session: &SessionState) -> Result<Self> {
        let missing =
            || Error::invalid(format!("pipeline {} has no query {}; check the file", pipeline.name, sink.name));
        let spec = pipeline.query(&sink.name).ok_or_else(missing)?;
        let logical = watched(pipeline.plan_query(spec, session).await?, sink)?;
        Ok(Self { logical, current: None })
    }

    /// The plan before it is optimised.
    pub(crate) fn logical(&self) -> &LogicalPlan {
        &self.logical
    }

    /// Lets nothing of the last plan stand.
    pub(crate) fn forget(&mut self) {
        self.current = None;
    }

    /// The plan of this shape: that of the last micro-batch, or another one, planned in `session`, when something that
    /// shaped it has changed.
    ///
    /// # Errors
    /// What planning returns.
    pub(crate) fn of(
        &mut self,
        shape: Shape,
        session: impl FnOnce() -> Result<SessionState>,
    ) -> Result<&mut QueryPlan> {
        let plan = match self.current.take() {
            Some(plan) if plan.fits(&shape) => plan,
            before => QueryPlan::new(session()?, &self.logical, shape)?.after(before),
        };
        Ok(self.current.insert(plan))
    }
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
    /// The plan of the micro-batch before, when it is another one whose hash tables may stand.
    before: Option<Arc<dyn ExecutionPlan>>,
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
            before: None,
            runs: 0,
        })
    }

    /// Takes the hash tables of another plan over, where they are the same and may stand.
    fn after(mut self, before: Option<QueryPlan>) -> Self {
        if let Some(before) = before.filter(|before| before.shape == self.shape && before.runs < RUNS) {
            self.runs = before.runs;
            self.before = before.physical;
        }
        self
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
            None => {
                let plan = self.state.query_planner().create_physical_plan(&self.optimized, &self.state).await?;
                match self.before.take() {
                    Some(before) => taking_over(plan, &before)?,
                    None => plan,
                }
            }
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

/// The plan with the hash tables of `before` in its joins, where the join at the same place is made in the same way of
/// the same rows.
fn taking_over(plan: Arc<dyn ExecutionPlan>, before: &Arc<dyn ExecutionPlan>) -> DfResult<Arc<dyn ExecutionPlan>> {
    let mut standing = Vec::new();
    joins(before, &mut standing);
    let mut standing = standing.into_iter();
    // From the leaves up and from left to right, as the joins before were listed.
    let plan = plan.transform_up(|node| {
        if !keeps_build(node.as_ref()) {
            return Ok(Transformed::no(node));
        }
        let Some(join) = standing.next().filter(|join| builds_the_same(join.as_ref(), node.as_ref())) else {
            return Ok(Transformed::no(node));
        };
        let children = vec![Arc::clone(join.children()[0]), Arc::clone(node.children()[1])];
        let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        Ok(Transformed::yes(join.replace_children(children, options)?))
    })?;
    Ok(plan.data)
}

/// The joins whose hash tables stand, from the leaves up and from left to right.
fn joins(plan: &Arc<dyn ExecutionPlan>, found: &mut Vec<Arc<dyn ExecutionPlan>>) {
    plan.children().into_iter().for_each(|child| joins(child, found));
    if keeps_build(plan.as_ref()) {
        found.push(Arc::clone(plan));
    }
}

/// Whether two nodes are the same join but for the side that is not built.
fn builds_the_same(one: &dyn ExecutionPlan, other: &dyn ExecutionPlan) -> bool {
    let (Some(a), Some(b)) = (one.downcast_ref::<HashJoinExec>(), other.downcast_ref::<HashJoinExec>()) else {
        return false;
    };
    let filter = |join: &HashJoinExec| {
        join.filter().map(|filter| (Arc::clone(filter.expression()), filter.column_indices().to_vec()))
    };
    a.join_type() == b.join_type()
        && a.on() == b.on()
        && filter(a) == filter(b)
        && a.projection == b.projection
        && a.null_equality() == b.null_equality()
        && a.fetch() == b.fetch()
        && a.right().schema() == b.right().schema()
        && gives_the_same(a.left(), b.left())
}

/// Whether two plans over lookups give the same rows: the same operators, down to the very batches of a lookup.
fn gives_the_same(one: &Arc<dyn ExecutionPlan>, other: &Arc<dyn ExecutionPlan>) -> bool {
    let shown = |plan: &Arc<dyn ExecutionPlan>| displayable(plan.as_ref()).one_line().to_string();
    let (below, other_below) = (one.children(), other.children());
    one.schema() == other.schema()
        && shown(one) == shown(other)
        && below.len() == other_below.len()
        && below.iter().zip(other_below).all(|(one, other)| gives_the_same(one, other))
        && (!below.is_empty() || reads_the_same(one.as_ref(), other.as_ref()))
}

/// Whether two leaves read the same columns of the same batches.
fn reads_the_same(one: &dyn ExecutionPlan, other: &dyn ExecutionPlan) -> bool {
    let source = |plan: &dyn ExecutionPlan| {
        let source = Arc::clone(plan.downcast_ref::<DataSourceExec>()?.data_source());
        source.downcast_ref::<MemorySourceConfig>().cloned()
    };
    let (Some(one), Some(other)) = (source(one), source(other)) else { return false };
    let columns = |source: &MemorySourceConfig| -> Vec<ArrayRef> {
        source.partitions().iter().flatten().flat_map(|batch| batch.columns().to_vec()).collect()
    };
    let (mine, others) = (columns(&one), columns(&other));
    one.projection() == other.projection()
        && one.original_schema() == other.original_schema()
        && mine.len() == others.len()
        && mine.iter().zip(&others).all(|(one, other)| Arc::ptr_eq(one, other))
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
    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use datafusion::physical_plan::collect;
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
    async fn another_plan_takes_a_hash_table_over_when_it_is_the_same() {
        let context = session();
        let plan = async |sql: &str| context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
        let rows = async |plan: &Arc<dyn ExecutionPlan>| {
            let batches = collect(Arc::clone(plan), context.task_ctx()).await.unwrap();
            batches.iter().map(RecordBatch::num_rows).sum::<usize>()
        };
        let join = "FROM impressions i JOIN ads a ON i.id = a.id";
        let first = plan(&format!("SELECT i.name, a.name, 1 AS at {join}")).await;
        assert_eq!(rows(&first).await, 10);
        // At another time of day: as many rows, and none of them went into a hash table again.
        let second = taking_over(plan(&format!("SELECT i.name, a.name, 2 AS at {join}")).await, &first).unwrap();
        assert_eq!((rows(&second).await, build_rows(second.as_ref())), (10, Some(10)));
        for other in ["AND a.id < 5", "WHERE a.name <> 'ads 3'", "AND i.name <> a.name"] {
            let third = taking_over(plan(&format!("SELECT i.name, a.name, 2 AS at {join} {other}")).await, &first);
            let third = third.unwrap();
            let (found, fresh) =
                (rows(&third).await, rows(&plan(&format!("SELECT i.name {join} {other}")).await).await);
            assert_eq!(found, fresh, "{other}");
        }
    }

    #[tokio::test]
    async fn joins_that_look_alike_keep_their_own_hash_tables() {
        let context = session();
        // One batch each, of the same columns.
        for (name, first) in [("eu", 0), ("us", 20), ("asia", 40)] {
            let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(first..first + 20));
            let names: ArrayRef = Arc::new(StringArray::from_iter_values((0..20).map(|_| name)));
            let batch = RecordBatch::try_from_iter([("id", ids), ("name", names)]).unwrap();
            context.register_batch(name, batch).unwrap();
        }
        let branch =
            |name: &str, at: i32| format!("SELECT l.name, {at} AS at FROM impressions i JOIN {name} l ON i.id = l.id");
        let sql = |at: i32| ["eu", "us", "asia"].map(|name| branch(name, at)).join(" UNION ALL ");
        let mut plan = context.sql(&sql(0)).await.unwrap().create_physical_plan().await.unwrap();
        for at in 1..5 {
            let batches = collect(Arc::clone(&plan), context.task_ctx()).await.unwrap();
            let mut names: Vec<String> = Vec::new();
            for batch in &batches {
                let column = arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Utf8).unwrap();
                let column = column.as_any().downcast_ref::<StringArray>().unwrap().clone();
                names.extend(column.iter().flatten().map(str::to_owned));
            }
            let of = |name: &str| names.iter().filter(|found| *found == name).count();
            assert_eq!((of("eu"), of("us"), of("asia")), (20, 20, 20), "run {at}");
            assert_eq!(build_rows(plan.as_ref()), Some(20), "run {at}");
            let next = context.sql(&sql(at)).await.unwrap().create_physical_plan().await.unwrap();
            plan = taking_over(next, &plan).unwrap();
        }
    }

    #[tokio::test]
    async fn one_in_which_rows_are_marked_is_made_anew() {
        let (rows, _) = runs("SELECT a.name FROM ads a LEFT JOIN impressions i ON a.id = i.id - 5").await;
        assert_eq!(rows, [10, 10, 10]);
    }

    #[tokio::test]
    async fn a_plan_with_the_time_of_day_in_it_serves_one_micro_batch() {
        let context = session();
        let shape = || Shape { lookups: Vec::new(), batch_rows: 10, streams: 1, records: None };
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
