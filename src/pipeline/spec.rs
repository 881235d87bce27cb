//! What a pipeline file declares, typed and checked: the result of reading it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::sql::sqlparser::ast::Query;
use jiff::tz::TimeZone;
use prost_reflect::MessageDescriptor;
use url::Url;

use super::language::Language;
use crate::contract::Contract;
use crate::offsets::Start;
use crate::schema::{Descriptors, MessageShape, Shaping};

/// `STORED AS KAFKA`: a topic.
#[derive(Clone)]
pub struct SourceSpec {
    /// The table's name in the file.
    pub name: String,
    /// `HOST:PORT[,HOST:PORT]`.
    pub brokers: String,
    /// The topic's name.
    pub topic: String,
    /// How a record's value becomes columns.
    pub format: ValueFormat,
    /// Whose schemas the records' headers name (`value.framing = 'confluent'`); `None`: they have no headers.
    pub registry: Option<RegistrySpec>,
    /// What the column `_key` is.
    pub key: KeyFormat,
    /// Where a query without a position begins.
    pub start: Start,
    /// Records a micro-batch at most over all partitions; `None`: the setting `flumen.max_rows`.
    pub max_rows: Option<u64>,
    /// What to do when offsets that were due are gone.
    pub on_data_loss: DataLoss,
    /// What a record without a value becomes.
    pub on_null_value: NullValue,
    /// What becomes of a record that cannot be decoded.
    pub on_decode_error: OnDecodeError,
    /// Where dead letters go (absolute, or a URL); `None`: beside the sink of the query.
    pub dead_letters: Option<String>,
    /// The share of a micro-batch that may be dead, 0 to 1; looked at above [`DEAD_LETTERS_FREE`] records.
    pub dead_letter_limit: f64,
    /// A value of more bytes is a dead letter.
    pub max_record_bytes: u64,
    /// `kafka.*`: librdkafka properties, without the prefix. May hold secrets: never printed.
    pub kafka: BTreeMap<String, String>,
    /// All columns: the message's fields, then [`META_COLUMNS`], then [`SCHEMA_ID`] where there is a registry.
    pub schema: SchemaRef,
}

impl SourceSpec {
    /// How many of the columns come from the value.
    pub fn value_columns(&self) -> usize {
        self.schema.fields().len() - META_COLUMNS.len() - usize::from(self.registry.is_some())
    }
}

/// Without the values of `kafka.*`: they may be secrets.
impl fmt::Debug for SourceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceSpec")
            .field("name", &self.name)
            .field("brokers", &self.brokers)
            .field("topic", &self.topic)
            .field("start", &self.start)
            .field("max_rows", &self.max_rows)
            .field("on_null_value", &self.on_null_value)
            .field("on_decode_error", &self.on_decode_error)
            .field("kafka", &self.kafka.keys())
            .finish_non_exhaustive()
    }
}

/// The columns that every topic has after its message's fields: `_topic` Utf8, `_partition` Int32, `_offset` Int64,
/// `_timestamp` Timestamp(us, UTC) nullable, `_key` Binary nullable, `_headers` List<Struct<key: Utf8, value: Binary>>.
pub const META_COLUMNS: [&str; 6] = ["_topic", "_partition", "_offset", "_timestamp", "_key", "_headers"];

/// The column of the id that a record's header names: Int32 nullable.
pub const SCHEMA_ID: &str = "_schema_id";

/// A schema registry: the options `schema.registry.*`.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistrySpec {
    /// Its addresses, tried in turn; none: only the cache is asked.
    pub urls: Vec<Url>,
    /// A directory that keeps what was asked for (absolute).
    pub cache: Option<PathBuf>,
    /// How it lets us in.
    pub auth: Option<RegistryAuth>,
    /// A file of certificates (PEM) that it is trusted by, besides the machine's (absolute).
    pub ca: Option<PathBuf>,
}

/// How a schema registry lets us in. Holds secrets: never printed.
#[derive(Clone, PartialEq, Eq)]
pub enum RegistryAuth {
    /// User and password.
    Basic(String, String),
    /// A token.
    Bearer(String),
}

impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, RegistryAuth::Basic(..)) { "Basic(…)" } else { "Bearer(…)" })
    }
}

/// Without secrets: addresses may hold some too.
impl fmt::Debug for RegistrySpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrySpec").field("cache", &self.cache).field("ca", &self.ca).finish_non_exhaustive()
    }
}

/// How a record's value becomes columns.
#[derive(Debug, Clone)]
pub enum ValueFormat {
    /// Each field of the message is a column.
    Protobuf {
        /// The compiled `.proto` files.
        descriptors: Arc<Descriptors>,
        /// The message of the topic's values.
        message: MessageDescriptor,
        /// The tree of its fields, as the columns have it.
        shape: Arc<MessageShape>,
        /// What the tree has besides its fields.
        shaping: Shaping,
    },
    /// One column `value VARBINARY`.
    Raw,
}

/// What the column `_key` is: the options `key.format`, `key.proto`, `key.message`.
#[derive(Debug, Clone, PartialEq)]
pub enum KeyFormat {
    /// The key as it is.
    Bytes,
    /// Its text; a key that is not UTF-8 makes its record a dead letter.
    Text,
    /// A message, as a struct of its fields.
    Message(Arc<MessageShape>),
}

impl KeyFormat {
    /// The type of the column `_key`.
    pub fn data_type(&self) -> DataType {
        match self {
            KeyFormat::Bytes => DataType::Binary,
            KeyFormat::Text => DataType::Utf8,
            KeyFormat::Message(shape) => DataType::Struct(shape.columns_within(true)),
        }
    }
}

impl ValueFormat {
    /// Whether two tables read a record alike.
    pub fn is_same(&self, other: &ValueFormat) -> bool {
        match (self, other) {
            (ValueFormat::Raw, ValueFormat::Raw) => true,
            (
                ValueFormat::Protobuf { descriptors: a, shape: m, .. },
                ValueFormat::Protobuf { descriptors: b, shape: n, .. },
            ) => a.sha256() == b.sha256() && m == n,
            _ => false,
        }
    }
}

/// What to do when offsets that were due are gone: the option `on_data_loss`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataLoss {
    /// The run ends, naming them.
    Fail,
    /// It goes on behind them; the loss is committed.
    Skip,
}

/// What becomes of a record that cannot be decoded: the option `on_decode_error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDecodeError {
    /// It is written to the table of dead letters, and the others go on.
    DeadLetter,
    /// The run ends.
    Fail,
}

/// A micro-batch of so many records may consist of dead letters alone.
pub const DEAD_LETTERS_FREE: u64 = 100;

/// What a tombstone becomes: the option `on_null_value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NullValue {
    /// Nothing; it is counted.
    Skip,
    /// A row whose value columns are all NULL.
    Row,
}

/// A bounded table that is read whole.
#[derive(Debug, Clone)]
pub struct LookupSpec {
    /// The table's name in the file.
    pub name: String,
    /// How it is stored.
    pub format: LookupFormat,
    /// A path (absolute: the root is already applied) or a URL.
    pub location: String,
    /// DataFusion's own options, such as `format.has_header`.
    pub options: BTreeMap<String, String>,
    /// The columns, when the file declares them.
    pub declared: Option<SchemaRef>,
    /// The version of a Delta table that is read, whatever is newer; `None`: the newest.
    pub version: Option<u64>,
}

impl LookupSpec {
    /// The Delta table at `location`, with the columns that it has.
    pub fn delta(name: impl Into<String>, location: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            format: LookupFormat::Delta,
            location: location.into(),
            options: BTreeMap::new(),
            declared: None,
            version: None,
        }
    }
}

/// How a lookup is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupFormat {
    /// A Delta table.
    Delta,
    /// A Parquet file or a directory of them.
    Parquet,
    /// A CSV file or a directory of them.
    Csv,
    /// A file of JSON lines or a directory of them.
    Json,
}

impl LookupFormat {
    /// The format of what lies at a path: of a file by its name, of a directory by what a Delta table has. `None` when
    /// neither tells.
    pub fn at(path: &Path) -> Option<Self> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("csv") => Some(LookupFormat::Csv),
            Some("parquet") => Some(LookupFormat::Parquet),
            Some("json" | "jsonl" | "ndjson") => Some(LookupFormat::Json),
            _ => path.join("_delta_log").is_dir().then_some(LookupFormat::Delta),
        }
    }

    /// The options of a reader that nobody has told anything: the first line of a CSV file has the names.
    pub fn usual_options(self) -> BTreeMap<String, String> {
        match self {
            LookupFormat::Csv => BTreeMap::from([("format.has_header".to_owned(), "true".to_owned())]),
            LookupFormat::Delta | LookupFormat::Parquet | LookupFormat::Json => BTreeMap::new(),
        }
    }
}

/// `CREATE FUNCTION`: a model from a file.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSpec {
    /// The function's name.
    pub name: String,
    /// The types of its arguments.
    pub arguments: Vec<DataType>,
    /// The names of its arguments, where they have some.
    pub argument_names: Vec<Option<String>>,
    /// The type that it returns.
    pub returns: DataType,
    /// Whose file it is.
    pub language: Language,
    /// The model's file (absolute).
    pub path: PathBuf,
    /// The SHA-256 that the file must have, where the path says one: `'model.json#sha256=…'`.
    pub sha256: Option<String>,
}

/// What a sink is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SinkFormat {
    /// A Delta table.
    Delta,
    /// One Parquet file, which a batch job replaces.
    Parquet,
}

/// A table that a query writes.
#[derive(Debug, Clone)]
pub struct SinkSpec {
    /// The table's name in the file.
    pub name: String,
    /// What it is.
    pub format: SinkFormat,
    /// A path (absolute: the root is already applied) or a URL.
    pub location: String,
    /// The declared columns and checks.
    pub contract: Contract,
    /// The partition columns, in order.
    pub partition_by: Vec<String>,
    /// How rows get into the table.
    pub mode: SinkMode,
    /// Whether the contract may add columns to an existing table (`schema_mode = 'merge'`).
    pub merge_schema: bool,
    /// When a data file is closed, in bytes.
    pub target_file_size: u64,
    /// What becomes of a row that breaks the contract.
    pub on_violation: OnViolation,
    /// Where quarantined rows go (absolute, or a URL); `None`: beside the sink.
    pub quarantine: Option<String>,
    /// The share of a micro-batch's rows that may be quarantined, 0 to 1; looked at above [`BROKEN_ROWS_FREE`] rows.
    pub quarantine_limit: f64,
    /// How the table and its side tables are kept in order.
    pub upkeep: UpkeepSpec,
    /// What a close of books has to know of a table that the topic's records land in: the options `close.*`.
    pub landing: Option<LandingSpec>,
    /// The landing table whose rows this final table of a close of books keeps, one for each key: `close.rows_of`.
    pub rows_of: Option<String>,
}

/// A table that a topic's records land in, row by row, until a day of theirs is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LandingSpec {
    /// The column that says which day a row belongs to: TIMESTAMP.
    pub time: String,
    /// The columns that are the same in rows of which one is kept.
    pub key: Vec<String>,
    /// The columns that have to add up: whole numbers or decimals.
    pub sums: Vec<String>,
}

/// How a sink's tables are kept in order: checkpoints, log clean-up, compaction, vacuum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpkeepSpec {
    /// Whether a run does it between micro-batches; else only `flumen maintain` does.
    pub auto: bool,
    /// Versions between two checkpoints; `None`: the table's `delta.checkpointInterval`, or 100.
    pub checkpoint_interval: Option<u64>,
    /// So many small files of a partition are made one.
    pub max_small_files: u64,
    /// How long entries of the log stay; `None`: the table's `delta.logRetentionDuration`, or 30 days.
    pub log_retention: Option<Duration>,
    /// How long files stay that no version names; `None`: the table's `delta.deletedFileRetentionDuration`, or 7 days.
    pub vacuum_retention: Option<Duration>,
}

impl Default for UpkeepSpec {
    fn default() -> Self {
        Self {
            auto: true,
            checkpoint_interval: None,
            max_small_files: MAX_SMALL_FILES,
            log_retention: None,
            vacuum_retention: None,
        }
    }
}

/// Small files of a partition before they are made one.
const MAX_SMALL_FILES: u64 = 100;
/// Whoever reads a table may take so long, and a micro-batch too: files that no version names stay as long.
pub const LEAST_VACUUM_RETENTION: Duration = Duration::from_secs(24 * 60 * 60);
/// An entry of the log that a slow writer builds on is not taken from under it.
pub const LEAST_LOG_RETENTION: Duration = Duration::from_secs(10 * 60);

/// When a data file is closed, in bytes.
const TARGET_FILE_SIZE: u64 = 128_000_000;
/// When a contract or its data has gone bad as a whole.
const QUARANTINE_LIMIT: f64 = 0.1;

impl SinkSpec {
    /// A table that rows are added to, with every option at its default.
    pub fn append(name: &str, location: &str, contract: Contract) -> Self {
        Self {
            name: name.to_string(),
            format: SinkFormat::Delta,
            location: location.to_string(),
            contract,
            partition_by: Vec::new(),
            mode: SinkMode::Append,
            merge_schema: false,
            target_file_size: TARGET_FILE_SIZE,
            on_violation: OnViolation::Fail,
            quarantine: None,
            quarantine_limit: QUARANTINE_LIMIT,
            upkeep: UpkeepSpec::default(),
            landing: None,
            rows_of: None,
        }
    }

    /// The partition column of the business date of a final table: the one of type DATE.
    pub fn date_column(&self) -> Option<&str> {
        self.date_columns().next()
    }

    /// The partition columns of type DATE.
    pub fn date_columns(&self) -> impl Iterator<Item = &str> {
        let is_date = |name: &&String| {
            self.contract.columns.iter().any(|column| column.name == **name && column.data_type == DataType::Date32)
        };
        self.partition_by.iter().filter(is_date).map(String::as_str)
    }

    /// The table, to be read.
    pub fn as_lookup(&self) -> LookupSpec {
        let format = match self.format {
            SinkFormat::Delta => LookupFormat::Delta,
            SinkFormat::Parquet => LookupFormat::Parquet,
        };
        LookupSpec { format, ..LookupSpec::delta(&self.name, &self.location) }
    }
}

/// A micro-batch of so many rows may go to the quarantine table as a whole.
pub const BROKEN_ROWS_FREE: u64 = 100;

/// What becomes of a row that breaks the contract: the option `on_violation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnViolation {
    /// The run ends.
    Fail,
    /// It is left out and counted.
    Drop,
    /// It goes to the quarantine table, with all that it breaks.
    Quarantine,
}

/// How rows get into a sink: the option `mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SinkMode {
    /// Rows are added.
    Append,
    /// The result replaces all rows, in one commit.
    Replace,
    /// The result replaces the partitions that it touches, in one commit.
    ReplacePartitions,
}

/// `SET flumen.x = …`.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The time between the starts of two micro-batches; zero: as soon as the last one ended.
    pub trigger: Duration,
    /// Records a micro-batch at most.
    pub max_rows: u64,
    /// Bytes that plans may hold.
    pub memory_limit: u64,
    /// How long a stop waits for the micro-batch under way.
    pub grace: Duration,
    /// How long a bounded run waits for a broker that is away.
    pub broker_timeout: Duration,
    /// How long a bounded run waits for a store that fails.
    pub store_timeout: Duration,
    /// What to do when a message has changed since the last commit so that old records are no longer understood.
    pub schema_change: SchemaChange,
    /// The zone of business days: the file's batch jobs and checks are those of a close of books.
    pub close_zone: Option<TimeZone>,
    /// Where alerts are posted.
    pub alert_url: Option<Url>,
}

/// What to do about a breaking change of a message: the setting `flumen.schema_change`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaChange {
    /// Stop before anything is read.
    Refuse,
    /// Go on: all records that are still to be read are of the new form.
    Accept,
}

/// Whether a query goes on as its topics grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryKind {
    /// It reads a topic, micro-batch by micro-batch.
    Streaming,
    /// It reads tables only, and runs once.
    Batch,
}

/// An `INSERT INTO … SELECT`. Its name is its sink's.
#[derive(Debug, Clone)]
pub struct QuerySpec {
    /// The sink's name, and so the query's.
    pub name: String,
    /// Whether it reads a topic.
    pub kind: QueryKind,
    /// The line of the statement, from 1.
    pub line: usize,
    /// The statement as it is in the file.
    pub sql: String,
    /// The topics that it reads, through views too.
    pub sources: Vec<String>,
    /// The other tables that it reads: lookups, and for batch jobs and their readers also sinks of the file.
    pub lookups: Vec<String>,
    /// The models that it calls.
    pub models: Vec<String>,
    /// The SELECT.
    pub(super) tree: Box<Query>,
}

/// A bare `SELECT`: it must return no rows.
#[derive(Debug, Clone)]
pub struct CheckSpec {
    /// `check_1`, `check_2`, … in the file's order.
    pub name: String,
    /// The line of the statement, from 1.
    pub line: usize,
    /// The statement as it is in the file.
    pub sql: String,
    /// The topics that it reads, through views too.
    pub sources: Vec<String>,
    /// The other tables that it reads: lookups and sinks.
    pub lookups: Vec<String>,
    /// The models that it calls.
    pub models: Vec<String>,
    /// The SELECT.
    pub(super) tree: Box<Query>,
}
