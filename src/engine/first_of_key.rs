//! `row_number() OVER (PARTITION BY key ORDER BY …) = 1` without sorting: the first row of each key by a hash table of
//! the best row so far. All rows are held until the last one has been seen; where they do not fit into memory the plan
//! is made again without it, and DataFusion's window sorts them on disk.

mod winners;

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, UInt64Array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use datafusion::common::config::ConfigOptions;
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result as DfResult, ScalarValue};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, Literal};
use datafusion::physical_expr::window::StandardWindowExpr;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, replace_children_if_necessary};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowUDFExpr};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
};
use futures::future::{BoxFuture, FutureExt as _, Shared};
use futures::stream::TryStreamExt as _;
use parking_lot::Mutex;
use tokio::task::JoinSet;

use winners::{Seen, Winners};

/// Puts [`FirstOfKeyExec`] in the place of a window whose `row_number()` is asked to be 1. It comes before the rules
/// that bring rows of a key together and sort them: neither is needed.
#[derive(Debug)]
pub(crate) struct FirstOfKey;

impl PhysicalOptimizerRule for FirstOfKey {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> DfResult<Arc<dyn ExecutionPlan>> {
        let replace = |node: Arc<dyn ExecutionPlan>| match replaced(&node)? {
            Some(replaced) => Ok(Transformed::yes(replaced)),
            None => Ok(Transformed::no(node)),
        };
        plan.transform_down(replace).data()
    }

    fn name(&self) -> &'static str {
        "FirstOfKey"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The filter over a hash table, when `node` is one over a window that numbers rows.
fn replaced(node: &Arc<dyn ExecutionPlan>) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
    let Some(filter) = node.downcast_ref::<FilterExec>() else { return Ok(None) };
    let Some(window) = filter.input().downcast_ref::<BoundedWindowAggExec>() else { return Ok(None) };
    let columns = window.input().schema().fields().len();
    let [numbered] = window.window_expr() else { return Ok(None) };
    let standard = numbered.as_any().downcast_ref::<StandardWindowExpr>();
    let function = standard.and_then(|expr| expr.get_standard_func_expr().as_any().downcast_ref::<WindowUDFExpr>());
    let is_row_number = function.is_some_and(|function| function.fun().name() == "row_number");
    if !is_row_number || numbered.partition_by().is_empty() || !asks_for_first(filter.predicate(), columns) {
        return Ok(None);
    }
    let first = FirstOfKeyExec::new(
        Arc::clone(window.input()),
        numbered.partition_by().to_vec(),
        numbered.order_by().to_vec(),
        window.schema(),
    );
    Ok(Some(replace_children_if_necessary(Arc::clone(node), vec![Arc::new(first)])?))
}

/// Whether a condition is that `column` is 1, and perhaps more.
fn asks_for_first(predicate: &Arc<dyn PhysicalExpr>, column: usize) -> bool {
    let Some(binary) = predicate.downcast_ref::<BinaryExpr>() else { return false };
    let (left, right) = (binary.left(), binary.right());
    let is_column = |expr: &Arc<dyn PhysicalExpr>| expr.downcast_ref::<Column>().is_some_and(|c| c.index() == column);
    let number = |expr: &Arc<dyn PhysicalExpr>| {
        let literal = expr.downcast_ref::<Literal>()?;
        match literal.value() {
            ScalarValue::UInt64(number) => *number,
            ScalarValue::Int64(number) => u64::try_from((*number)?).ok(),
            _ => None,
        }
    };
    match binary.op() {
        Operator::And => asks_for_first(left, column) || asks_for_first(right, column),
        Operator::Eq => (is_column(left) && number(right) == Some(1)) || (is_column(right) && number(left) == Some(1)),
        Operator::LtEq => is_column(left) && number(right) == Some(1),
        Operator::Lt => is_column(left) && number(right) == Some(2),
        _ => false,
    }
}

/// What was gathered: for each input its batches in their order, with the rows that are the first of their key.
type Gathered = Vec<Mutex<Option<Vec<(RecordBatch, BooleanArray)>>>>;
type Gathering = Shared<BoxFuture<'static, Result<Arc<(Gathered, MemoryReservation)>, Arc<DataFusionError>>>>;

/// The first row of each key. Its output has one partition for each of its input, and the columns of the window that it
/// stands for: those of the input, and the number 1.
pub(crate) struct FirstOfKeyExec {
    input: Arc<dyn ExecutionPlan>,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    order: Vec<PhysicalSortExpr>,
    properties: Arc<PlanProperties>,
    gathering: Mutex<Option<Gathering>>,
}

impl FirstOfKeyExec {
    fn new(
        input: Arc<dyn ExecutionPlan>,
        keys: Vec<Arc<dyn PhysicalExpr>>,
        order: Vec<PhysicalSortExpr>,
        schema: SchemaRef,
    ) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self { input, keys, order, properties: Arc::new(properties), gathering: Mutex::new(None) }
    }

    /// Begins to read all inputs; whoever asks later waits for the same.
    fn gathering(&self, context: &Arc<TaskContext>) -> Gathering {
        let mut gathering = self.gathering.lock();
        gathering
            .get_or_insert_with(|| {
                let task = gather(Arc::clone(&self.input), self.keys.clone(), self.order.clone(), Arc::clone(context));
                task.map(|done| done.map_err(Arc::new)).boxed().shared()
            })
            .clone()
    }
}

impl fmt::Debug for FirstOfKeyExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FirstOfKeyExec").field("keys", &self.keys).field("order", &self.order).finish_non_exhaustive()
    }
}

impl DisplayAs for FirstOfKeyExec {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<String> = self.keys.iter().map(ToString::to_string).collect();
        let order: Vec<String> = self.order.iter().map(ToString::to_string).collect();
        write!(f, "FirstOfKeyExec: key=[{}], order=[{}]", keys.join(", "), order.join(", "))
    }
}

impl ExecutionPlan for FirstOfKeyExec {
    fn name(&self) -> &'static str {
        "FirstOfKeyExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let input = children.swap_remove(0);
        Ok(Arc::new(Self::new(input, self.keys.clone(), self.order.clone(), self.schema())))
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        let mut recursion = TreeNodeRecursion::Continue;
        for expr in self.keys.iter().chain(self.order.iter().map(|sort| &sort.expr)) {
            recursion = f(expr)?;
            if recursion == TreeNodeRecursion::Stop {
                break;
            }
        }
        Ok(recursion)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let gathering = self.gathering(&context);
        let schema = self.schema();
        let columns = Arc::clone(&schema);
        let rows = async move {
            let gathered = gathering.await.map_err(DataFusionError::Shared)?;
            let batches = gathered.0[partition].lock().take();
            let batches = batches.ok_or_else(|| DataFusionError::Internal("a partition was read twice".into()))?;
            let rows = futures::stream::iter(batches.into_iter().map(move |(batch, mask)| {
                let rows = first_rows(&batch, &mask, &columns)?;
                gathered.1.shrink(batch.get_array_memory_size().min(gathered.1.size()));
                Ok(rows)
            }));
            Ok::<_, DataFusionError>(rows)
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::once(rows).try_flatten())))
    }
}

/// The rows of a batch that are wanted, and their number.
fn first_rows(batch: &RecordBatch, mask: &BooleanArray, schema: &SchemaRef) -> DfResult<RecordBatch> {
    let rows = filter_record_batch(batch, mask)?;
    let numbers: ArrayRef = Arc::new(UInt64Array::from_value(1, rows.num_rows()));
    let columns = rows.columns().iter().cloned().chain([numbers]).collect();
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// Reads all inputs side by side, each in a task of its own.
async fn gather(
    input: Arc<dyn ExecutionPlan>,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    order: Vec<PhysicalSortExpr>,
    context: Arc<TaskContext>,
) -> DfResult<Arc<(Gathered, MemoryReservation)>> {
    let inputs = input.output_partitioning().partition_count();
    let winners = Arc::new(Winners::new(order.iter().map(|sort| sort.options).collect()));
    let memory = MemoryConsumer::new("the first row of each key").register(context.memory_pool());
    let memory = Arc::new(Mutex::new(memory));
    // Those who read and write beside it need some too.
    let most = match context.memory_pool().memory_limit() {
        MemoryLimit::Finite(limit) => limit / 10 * 9,
        _ => usize::MAX,
    };
    let mut tasks: JoinSet<DfResult<()>> = JoinSet::new();
    for number in 0..inputs {
        let stream = input.execute(number, Arc::clone(&context))?;
        let (winners, keys, memory) = (Arc::clone(&winners), keys.clone(), Arc::clone(&memory));
        let order: Vec<_> = order.iter().map(|sort| Arc::clone(&sort.expr)).collect();
        tasks.spawn(async move { read(number, stream, &winners, &keys, &order, &memory, most).await });
    }
    while let Some(done) = tasks.join_next().await {
        done.map_err(|e| DataFusionError::External(Box::new(e)))??;
    }
    let mut gathered: Gathered = (0..inputs).map(|_| Mutex::new(Some(Vec::new()))).collect();
    let winners = Arc::into_inner(winners).ok_or_else(|| DataFusionError::Internal("a task is left".into()))?;
    let table = winners.bytes();
    for (Seen { input, batch, .. }, mask) in winners.finish() {
        gathered[input].get_mut().get_or_insert_default().push((batch, mask));
    }
    let memory = Arc::into_inner(memory).ok_or_else(|| DataFusionError::Internal("a task is left".into()))?;
    let memory = memory.into_inner();
    memory.shrink(table.min(memory.size()));
    Ok(Arc::new((gathered, memory)))
}

/// Reads one input to its end.
async fn read(
    input: usize,
    mut stream: SendableRecordBatchStream,
    winners: &Winners,
    keys: &[Arc<dyn PhysicalExpr>],
    order: &[Arc<dyn PhysicalExpr>],
    memory: &Mutex<MemoryReservation>,
    most: usize,
) -> DfResult<()> {
    let mut hashes = Vec::new();
    while let Some(batch) = stream.try_next().await? {
        if batch.num_rows() == 0 {
            continue;
        }
        let arrays = |exprs: &[Arc<dyn PhysicalExpr>]| {
            let array = |expr: &Arc<dyn PhysicalExpr>| expr.evaluate(&batch)?.into_array(batch.num_rows());
            exprs.iter().map(array).collect::<DfResult<Vec<_>>>()
        };
        let (keys, order) = (arrays(keys)?, arrays(order)?);
        hashes.clear();
        hashes.resize(batch.num_rows(), 0);
        create_hashes(&keys, &RandomState::default(), &mut hashes)?;
        hold(memory, batch.get_array_memory_size(), most)?;
        let grown = winners.add(Seen { input, batch, keys, order }, &hashes)?;
        hold(memory, grown, most)?;
    }
    Ok(())
}

/// Holds so much more, when it does not get more than `most`.
fn hold(memory: &Mutex<MemoryReservation>, bytes: usize, most: usize) -> DfResult<()> {
    let memory = memory.lock();
    if memory.size() + bytes > most {
        let what = format!("the rows of a window need more than {} MB in a hash table", most / 1_000_000);
        return Err(DataFusionError::ResourcesExhausted(what));
    }
    memory.try_grow(bytes)
}
