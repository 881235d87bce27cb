//! A topic as a table of DataFusion: a scan reads `[from, to)` of each partition and ends.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result as DfResult, Statistics, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, statistics::StatisticsArgs,
};
use parking_lot::Mutex;

use super::records::{RecordCounts, RecordDecoder};
use super::writer_schemas::schemas_of;
use crate::decode::Selection;
use crate::error::{Error, Exhausted, Result};
use crate::fault_point;
use crate::memory::{Held, Memory};
use crate::offsets::PartitionRange;
use crate::pipeline::SourceSpec;
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
    /// The bytes of a record, where they are known.
    pub(crate) record_bytes: Option<u64>,
    /// The bytes of a record beyond which the micro-batch has to be planned in another way.
    pub(crate) widest: Option<usize>,
}

/// Opens another reader of the same topic: each scan in a plan has its own.
pub(crate) type OpenLog = Arc<dyn Fn() -> Result<Arc<dyn Log>> + Send + Sync>;

/// A topic under its name in the pipeline file.
pub(crate) struct TopicTable {
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
    pools: VecDeque<(Decoding, Arc<DecoderPool>)>,
}

/// What a decoder was made for.
#[derive(Debug, Clone, PartialEq)]
struct Decoding {
    projection: Vec<usize>,
    selection: Selection,
    is_shared: bool,
}

/// Decoders that wait for their next micro-batch, with their buffers.
#[derive(Debug, Default)]
struct DecoderPool(Mutex<Vec<RecordDecoder>>);

/// The bytes of a record where nothing is known.
const RECORD_BYTES: u64 = 100;
/// Different projections of one topic whose decoders are kept.
const KEPT_POOLS: usize = 8;

impl fmt::Debug for TopicTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicTable").field("name", &self.spec.name).field("topic", &self.spec.topic).finish()
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
        Self { spec, state: Mutex::new(TopicState::default()), open, registry, memory }
    }

    /// What it declares.
    pub(crate) fn spec(&self) -> &SourceSpec {
        &self.spec
    }

    /// Says what the next plan reads.
    pub(crate) fn prepare(&self, slice: Slice) {
        let mut state = self.state.lock();
        state.slice = Some(slice);
        state.scans = 0;
    }

    /// What became of the records that the last plan read, once it has run.
    pub(crate) fn counts(&self) -> Option<Arc<RecordCounts>> {
        self.state.lock().slice.as_ref().map(|slice| Arc::clone(&slice.counts))
    }

    /// The reader of scan `index` of a plan.
    pub(crate) fn log(&self, index: usize) -> Result<Arc<dyn Log>> {
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

    fn pool(&self, decoding: Decoding) -> Arc<DecoderPool> {
        let mut state = self.state.lock();
        if let Some((_, pool)) = state.pools.iter().find(|(known, _)| *known == decoding) {
            return Arc::clone(pool);
        }
        if state.pools.len() == KEPT_POOLS {
            state.pools.pop_front();
        }
        let pool = Arc::new(DecoderPool::default());
        state.pools.push_back((decoding, Arc::clone(&pool)));
        pool
    }
}

#[async_trait]
impl TableProvider for TopicTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.spec.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let projection: Vec<usize> =
            projection.cloned().unwrap_or_else(|| (0..self.spec.schema.fields().len()).collect());
        let (slice, index) = {
            let mut state = self.state.lock();
            let slice = state.slice.clone();
            state.scans += 1;
            (slice, state.scans - 1)
        };
        let connected = self.open.is_some() && slice.is_some();
        let slice = slice.unwrap_or_default();
        let log = if connected { Some(self.log(index)?) } else { None };
        // Only the first scan counts: a second branch over the same topic reads the same records again.
        let counts = if index == 0 { Arc::clone(&slice.counts) } else { Arc::default() };
        let pool = self.pool(Decoding {
            projection: projection.clone(),
            selection: slice.selection.clone(),
            is_shared: slice.is_shared,
        });
        let schema = Arc::new(self.spec.schema.project(&projection)?);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(state.config().target_partitions()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Arc::new(TopicScanExec {
            spec: self.spec.clone(),
            projection,
            slice,
            log,
            registry: self.registry.clone(),
            memory: self.memory.clone(),
            counts,
            pool,
            stream: Arc::new(tokio::sync::Mutex::new(Reading::NotStarted)),
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }))
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
struct TopicScanExec {
    spec: SourceSpec,
    projection: Vec<usize>,
    slice: Slice,
    log: Option<Arc<dyn Log>>,
    registry: Option<Arc<Registry>>,
    memory: Memory,
    counts: Arc<RecordCounts>,
    pool: Arc<DecoderPool>,
    stream: Arc<tokio::sync::Mutex<Reading>>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl fmt::Debug for TopicScanExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicScanExec").field("topic", &self.spec.topic).field("ranges", &self.slice.ranges).finish()
    }
}

impl DisplayAs for TopicScanExec {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields: Vec<&str> = self.projection.iter().map(|&i| self.spec.schema.field(i).name().as_str()).collect();
        write!(f, "TopicScanExec: topic={}, columns=[{}]", self.spec.topic, fields.join(", "))?;
        if !self.slice.ranges.is_empty() {
            let ranges: Vec<String> =
                self.slice.ranges.iter().map(|r| format!("{}:[{}, {})", r.partition, r.from, r.to)).collect();
            write!(f, ", ranges=[{}]", ranges.join(", "))?;
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

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    /// The planner puts the smaller side of a join into the hash table: tell it how many records there are at most.
    fn statistics_from_inputs(&self, _inputs: &[Arc<Statistics>], args: &StatisticsArgs) -> DfResult<Arc<Statistics>> {
        let mut rows: i64 = self.slice.ranges.iter().map(|r| r.to - r.from).sum();
        if self.slice.ranges.is_empty() {
            rows = i64::from(u32::MAX);
        }
        let partitions = self.properties.partitioning.partition_count().max(1) as i64;
        if args.partition().is_some() {
            rows /= partitions;
        }
        let record_bytes = usize::try_from(self.slice.record_bytes.unwrap_or(RECORD_BYTES)).unwrap_or(usize::MAX);
        let mut statistics = Statistics::new_unknown(&self.schema());
        statistics.num_rows = Precision::Inexact(rows.max(0) as usize);
        statistics.total_byte_size = Precision::Inexact((rows.max(0) as usize).saturating_mul(record_bytes));
        Ok(Arc::new(statistics))
    }

    fn execute(&self, partition: usize, _context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let Some(log) = self.log.clone() else {
            return internal_err!("topic {} was planned without a connection and cannot be read", self.spec.topic);
        };
        let waiting = self.pool.0.lock().pop();
        let decoder = match waiting {
            Some(decoder) => decoder,
            None => RecordDecoder::new(
                &self.spec,
                &self.projection,
                &self.slice.selection,
                self.slice.is_shared,
                self.registry.as_ref(),
            )?,
        };
        let reader = PartitionReader {
            topic: self.spec.topic.clone(),
            log,
            registry: self.registry.clone(),
            ranges: self.slice.ranges.clone(),
            stream: Arc::clone(&self.stream),
            counts: Arc::clone(&self.counts),
            decoder: Some(decoder),
            pool: Arc::clone(&self.pool),
            metrics: BaselineMetrics::new(&self.metrics, partition),
            held: self.memory.hold("the decoder"),
            widest: self.slice.widest,
        };
        let batches = futures::stream::try_unfold(reader, |mut reader| async move {
            Ok(reader.next().await?.map(|batch| (batch, reader)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }
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
                self.metrics.record_output(rows.num_rows());
                return Ok(Some(rows));
            }
        }
    }
}

impl Drop for PartitionReader {
    fn drop(&mut self) {
        if let Some(decoder) = self.decoder.take() {
            self.pool.0.lock().push(decoder);
        }
    }
}

/// Lets the next plan over `table` read from `start` to the end as of now.
///
/// # Errors
/// What the log returns.
pub(crate) async fn prepare_whole(table: &TopicTable) -> Result<()> {
    let log = table.log(0)?;
    let from = super::position::first(&table.spec.topic, &table.spec.start, log.as_ref()).await?;
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
    table.prepare(Slice { ranges, ..Slice::default() });
    Ok(())
}
