//! A topic as a table of DataFusion: a scan reads `[from, to)` of each partition and ends.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, Result as DfResult, Statistics, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{
    BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet, RecordOutput,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, statistics::StatisticsArgs,
};
use parking_lot::Mutex;

use super::records::{RecordCounts, RecordDecoder, Wish};
use super::row_filter::{self, Condition};
use super::writer_schemas::schemas_of;
use crate::decode::Selection;
use crate::error::{Error, Exhausted, Result};
use crate::fault_point;
use crate::memory::{Held, Memory};
use crate::offsets::PartitionRange;
use crate::pipeline::{SourceSpec, ValueFormat};
use crate::registry::Registry;
use crate::source::{Log, RawStream};

/// What the next plan over a topic shall read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slice {
    /// The ranges.
    pub(crate) ranges: Vec<PartitionRange>,
    /// The wanted fields, also inside nested messages.
    pub(crate) selection: Selection,
    /// Several scans read the topic: each decodes what any of them wants, so that all find the same dead letters.
    pub(crate) is_shared: bool,
    /// Counts what the first scan of the topic reads.
    pub(crate) counts: Arc<RecordCounts>,
    /// The bytes of a record, where the planner shall know how much it is; otherwise it counts as more than any lookup.
    pub(crate) record_bytes: Option<u64>,
    /// The bytes of a record beyond which the micro-batch has to be planned in another way.
    pub(crate) widest: Option<usize>,
}

/// Opens another reader of the same topic: each scan in a plan has its own.
pub(crate) type OpenLog = Arc<dyn Fn() -> Result<Arc<dyn Log>> + Send + Sync>;

/// A topic under its name in the pipeline file.
pub(crate) struct TopicTable(Arc<Shared>);

/// What the table and its scans share.
struct Shared {
    spec: SourceSpec,
    state: Mutex<TopicState>,
    open: Option<OpenLog>,
    /// Whose schemas the records name, when it can be asked.
    registry: Option<Arc<Registry>>,
    memory: Memory,
}

#[derive(Default)]
struct TopicState {
    slice: Option<Slice>,
    /// How many scans the plan under way has so far.
    scans: usize,
    /// One reader for each scan of a plan; they live as long as the table, so that ranges follow on from each other.
    logs: Vec<(Arc<dyn Log>, Held)>,
    pools: VecDeque<Arc<DecoderPool>>,
}

/// Decoders that wait for their next micro-batch, with their buffers.
#[derive(Debug)]
struct DecoderPool {
    /// What all of them give.
    wish: Wish,
    waiting: Mutex<Vec<RecordDecoder>>,
}

/// The bytes of a record where nothing is known.
const RECORD_BYTES: u64 = 100;
/// Different projections of one topic whose decoders are kept.
const KEPT_POOLS: usize = 8;

impl fmt::Debug for TopicTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicTable").field("name", &self.spec().name).field("topic", &self.spec().topic).finish()
    }
}

impl TopicTable {
    /// A table over a topic; without `open` it can be planned but not read.
    pub(crate) fn new(
        spec: SourceSpec,
        open: Option<OpenLog>,
        registry: Option<Arc<Registry>>,
        memory: Memory,
    ) -> Self {
        Self(Arc::new(Shared { spec, state: Mutex::new(TopicState::default()), open, registry, memory }))
    }

    /// What it declares.
    pub(crate) fn spec(&self) -> &SourceSpec {
        &self.0.spec
    }

    /// Says what the next plan reads, or the next micro-batch of a plan that is there.
    pub(crate) fn prepare(&self, slice: Slice) {
        let mut state = self.0.state.lock();
        state.slice = Some(slice);
        state.scans = 0;
    }

    /// What became of the records that the last plan read, once it has run.
    pub(crate) fn counts(&self) -> Option<Arc<RecordCounts>> {
        self.0.state.lock().slice.as_ref().map(|slice| Arc::clone(&slice.counts))
    }

    /// The reader of scan `index` of a plan.
    ///
    /// # Errors
    /// What opening it returns; `Unavailable` when it does not fit into memory.
    pub(crate) fn log(&self, index: usize) -> Result<Arc<dyn Log>> {
        self.0.log(index)
    }
}

impl Shared {
    fn log(&self, index: usize) -> Result<Arc<dyn Log>> {
        let mut state = self.state.lock();
        let Some(open) = &self.open else {
            return Err(Error::invalid(format!("topic {} is not connected", self.spec.topic)));
        };
        while state.logs.len() <= index {
            let log = open()?;
            let held = self.memory.hold("the reader of a topic");
            held.set(log.read_bytes()).map_err(|error| error.within(format!("topic {}", self.spec.topic)))?;
            state.logs.push((log, held));
        }
        Ok(Arc::clone(&state.logs[index].0))
    }

    fn pool(&self, wish: Wish) -> Arc<DecoderPool> {
        let mut state = self.state.lock();
        if let Some(pool) = state.pools.iter().find(|pool| pool.wish == wish) {
            return Arc::clone(pool);
        }
        if state.pools.len() == KEPT_POOLS {
            state.pools.pop_front();
        }
        let pool = Arc::new(DecoderPool { wish, waiting: Mutex::default() });
        state.pools.push_back(Arc::clone(&pool));
        pool
    }

    /// Whether a condition can be answered from fields of the value alone.
    fn answers(&self, filter: &Expr) -> bool {
        let columns = filter.column_refs();
        let is_field =
            |name: &str| self.spec.schema.index_of(name).is_ok_and(|index| index < self.spec.value_columns());
        matches!(self.spec.format, ValueFormat::Protobuf { .. })
            && !columns.is_empty()
            && columns.iter().all(|column| is_field(&column.name))
    }

    /// `filters`, all of them, over the columns that they read.
    fn condition(&self, state: &dyn Session, filters: &[Expr]) -> DfResult<Option<Condition>> {
        let Some(all) = conjunction(filters.iter().cloned()) else { return Ok(None) };
        let names: BTreeSet<String> = all.column_refs().iter().map(|column| column.name.clone()).collect();
        let columns = names.iter().map(|name| self.spec.schema.index_of(name)).collect::<Result<Vec<_>, _>>()?;
        let schema = DFSchema::try_from(self.spec.schema.project(&columns)?)?;
        Ok(Some(Condition { columns, predicate: state.create_physical_expr(all, &schema)? }))
    }

    /// Scan `index` of a plan, over what the topic was prepared for.
    fn scan(
        self: &Arc<Self>,
        index: usize,
        projection: Vec<usize>,
        condition: Option<Condition>,
        properties: Arc<PlanProperties>,
    ) -> Result<TopicScanExec> {
        let slice = self.state.lock().slice.clone();
        let connected = self.open.is_some() && slice.is_some();
        let slice = slice.unwrap_or_default();
        let log = if connected { Some(self.log(index)?) } else { None };
        // Only the first scan counts: a second branch over the same topic reads the same records again.
        let counts = if index == 0 { Arc::clone(&slice.counts) } else { Arc::default() };
        let wish = Wish { projection, selection: slice.selection.clone(), is_shared: slice.is_shared, condition };
        let pool = self.pool(wish);
        Ok(TopicScanExec {
            topic: Arc::clone(self),
            index,
            slice,
            log,
            counts,
            pool,
            stream: Arc::new(tokio::sync::Mutex::new(Reading::NotStarted)),
            properties,
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }
}

#[async_trait]
impl TableProvider for TopicTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.spec().schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Conditions on fields of the value are answered while records are decoded.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        let answers: Vec<bool> = filters.iter().map(|filter| self.0.answers(filter)).collect();
        let all = answers.iter().all(|answers| *answers);
        // One that may fail is often guarded by another, which then has to be asked with it.
        let pushed = |(filter, answers): (&&Expr, bool)| match answers && (all || row_filter::never_fails(filter)) {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().zip(answers).map(pushed).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let projection: Vec<usize> =
            projection.cloned().unwrap_or_else(|| (0..self.spec().schema.fields().len()).collect());
        let index = {
            let mut state = self.0.state.lock();
            state.scans += 1;
            state.scans - 1
        };
        let condition = self.0.condition(state, filters)?;
        let schema = Arc::new(self.spec().schema.project(&projection)?);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(state.config().target_partitions()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Arc::new(self.0.scan(index, projection, condition, Arc::new(properties))?))
    }
}

/// The one reader behind all output partitions of a scan.
enum Reading {
    NotStarted,
    Open(RawStream),
    Done,
}

/// Reads and decodes the ranges of a micro-batch. Its output partitions take raw batches from one bounded stream, each
/// the next one, so that all cores decode whatever the number of the topic's partitions is.
pub(crate) struct TopicScanExec {
    topic: Arc<Shared>,
    /// Which of the plan's scans of the topic it is.
    index: usize,
    slice: Slice,
    log: Option<Arc<dyn Log>>,
    counts: Arc<RecordCounts>,
    pool: Arc<DecoderPool>,
    stream: Arc<tokio::sync::Mutex<Reading>>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl fmt::Debug for TopicScanExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicScanExec")
            .field("topic", &self.topic.spec.topic)
            .field("ranges", &self.slice.ranges)
            .finish()
    }
}

impl DisplayAs for TopicScanExec {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spec = &self.topic.spec;
        let fields: Vec<&str> =
            self.pool.wish.projection.iter().map(|&i| spec.schema.field(i).name().as_str()).collect();
        write!(f, "TopicScanExec: topic={}, columns=[{}]", spec.topic, fields.join(", "))?;
        if !self.slice.ranges.is_empty() {
            let ranges: Vec<String> =
                self.slice.ranges.iter().map(|r| format!("{}:[{}, {})", r.partition, r.from, r.to)).collect();
            write!(f, ", ranges=[{}]", ranges.join(", "))?;
        }
        if let Some(condition) = &self.pool.wish.condition {
            write!(f, ", condition={}", condition.predicate)?;
        }
        Ok(())
    }
}

impl ExecutionPlan for TopicScanExec {
    fn name(&self) -> &'static str {
        "TopicScanExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn with_new_children(self: Arc<Self>, _children: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    /// The same scan over what its topic was prepared for since.
    fn reset_state(self: Arc<Self>) -> DfResult<Arc<dyn ExecutionPlan>> {
        let Wish { projection, condition, .. } = self.pool.wish.clone();
        Ok(Arc::new(self.topic.scan(self.index, projection, condition, Arc::clone(&self.properties))?))
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    /// The planner puts the smaller side of a join into the hash table: a topic counts as larger than any lookup.
    fn statistics_from_inputs(&self, _inputs: &[Arc<Statistics>], args: &StatisticsArgs) -> DfResult<Arc<Statistics>> {
        let (mut rows, record_bytes) = match self.slice.record_bytes {
            Some(bytes) => (self.slice.ranges.iter().map(|r| r.to - r.from).sum(), bytes),
            None => (i64::from(u32::MAX), RECORD_BYTES),
        };
        let partitions = self.properties.partitioning.partition_count().max(1) as i64;
        if args.partition().is_some() {
            rows /= partitions;
        }
        let record_bytes = usize::try_from(record_bytes).unwrap_or(usize::MAX);
        let mut statistics = Statistics::new_unknown(&self.schema());
        statistics.num_rows = Precision::Inexact(rows.max(0) as usize);
        statistics.total_byte_size = Precision::Inexact((rows.max(0) as usize).saturating_mul(record_bytes));
        Ok(Arc::new(statistics))
    }

    fn execute(&self, partition: usize, _context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let batches = futures::stream::try_unfold(self.reader(partition)?, |mut reader| async move {
            Ok(reader.next().await?.map(|batch| (batch, reader)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }
}

impl TopicScanExec {
    fn reader(&self, partition: usize) -> DfResult<PartitionReader> {
        let Some(log) = self.log.clone() else {
            let topic = &self.topic.spec.topic;
            return internal_err!("topic {topic} was planned without a connection and cannot be read");
        };
        let waiting = self.pool.waiting.lock().pop();
        let decoder = match waiting {
            Some(decoder) => decoder,
            None => RecordDecoder::new(&self.topic.spec, &self.pool.wish, self.topic.registry.as_ref())?,
        };
        Ok(PartitionReader {
            topic: self.topic.spec.topic.clone(),
            log,
            registry: self.topic.registry.clone(),
            ranges: self.slice.ranges.clone(),
            stream: Arc::clone(&self.stream),
            counts: Arc::clone(&self.counts),
            decoder: Some(decoder),
            pool: Arc::clone(&self.pool),
            metrics: BaselineMetrics::new(&self.metrics, partition),
            bytes: MetricBuilder::new(&self.metrics).counter("bytes_read", partition),
            held: self.topic.memory.hold("the decoder"),
            widest: self.slice.widest,
        })
    }
}

/// Reads what a plan that has run left unread of the scans that count: their records are decoded, and their rows are of
/// no use.
///
/// # Errors
/// As the scan itself.
pub(crate) async fn read_what_is_left(plan: &dyn ExecutionPlan) -> Result<()> {
    let mut waiting = vec![plan];
    while let Some(node) = waiting.pop() {
        waiting.extend(node.children().into_iter().map(AsRef::as_ref));
        let Some(scan) = node.downcast_ref::<TopicScanExec>().filter(|scan| scan.index == 0) else { continue };
        if !matches!(*scan.stream.lock().await, Reading::Done) {
            let mut reader = scan.reader(0)?;
            while reader.next().await?.is_some() {}
        }
    }
    Ok(())
}

/// One output partition of a scan.
struct PartitionReader {
    topic: String,
    log: Arc<dyn Log>,
    registry: Option<Arc<Registry>>,
    ranges: Vec<PartitionRange>,
    stream: Arc<tokio::sync::Mutex<Reading>>,
    counts: Arc<RecordCounts>,
    /// Back into the pool when the stream ends or is dropped.
    decoder: Option<RecordDecoder>,
    pool: Arc<DecoderPool>,
    metrics: BaselineMetrics,
    /// The bytes of keys and values that were read.
    bytes: Count,
    /// The records that are being decoded, and their rows until the next ones are.
    held: Held,
    widest: Option<usize>,
}

impl PartitionReader {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let Some(decoder) = &mut self.decoder else { return Ok(None) };
        loop {
            let raw = {
                let mut reading = self.stream.lock().await;
                if matches!(*reading, Reading::NotStarted) {
                    *reading = Reading::Open(self.log.read(&self.ranges, decoder.wanted())?);
                }
                fault_point::pass("fetch").await?;
                match &mut *reading {
                    Reading::Open(stream) => match stream.recv().await {
                        Some(raw) => raw?,
                        None => {
                            *reading = Reading::Done;
                            return Ok(None);
                        }
                    },
                    _ => return Ok(None),
                }
            };
            if let Some(registry) = &self.registry {
                let learned = registry.learn(schemas_of(&raw)).await;
                learned.map_err(|error| error.within(format!("topic {}", self.topic)))?;
            }
            fault_point::pass("decode").await?;
            self.bytes.add(raw.bytes());
            self.held.set(2 * raw.bytes())?;
            let decoded = {
                let _timer = self.metrics.elapsed_compute().timer();
                decoder.decode(&raw, &self.counts)?
            };
            let bytes = raw.bytes() / raw.len().max(1);
            if self.widest.is_some_and(|widest| bytes > widest) {
                return Err(Error::unavailable(format!(
                    "topic {}: the micro-batch was not planned for records of {bytes} bytes",
                    self.topic
                ))
                .caused_by(Exhausted));
            }
            if let Some(letters) = decoded.letters {
                self.counts.post(&self.topic, letters).await?;
            }
            let rows = decoded.rows;
            if rows.num_rows() > 0 {
                return Ok(Some(rows.record_output(&self.metrics)));
            }
        }
    }
}

impl Drop for PartitionReader {
    fn drop(&mut self) {
        if let Some(decoder) = self.decoder.take() {
            self.pool.waiting.lock().push(decoder);
        }
    }
}

/// Lets the next plan over `table` read what `slice` says, from `start` to the end as of now.
///
/// # Errors
/// What the log returns.
pub(crate) async fn prepare_whole(table: &TopicTable, slice: Slice) -> Result<()> {
    let log = table.log(0)?;
    let from = super::position::first(&table.spec().topic, &table.spec().start, log.as_ref()).await?;
    let bounds = log.bounds().await?;
    let ranges = bounds
        .iter()
        .map(|b| PartitionRange {
            partition: b.partition,
            from: from.get(&b.partition).copied().unwrap_or(b.low),
            to: b.high,
        })
        .filter(|range| range.from < range.to)
        .collect();
    table.prepare(Slice { ranges, ..slice });
    Ok(())
}
