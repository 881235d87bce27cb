//! Lookups: bounded tables that are read whole, kept in memory and read again only when their version changed.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::catalog::{MemoryCatalogProviderList, TableProvider, TableProviderFactory as _};
use datafusion::common::DFSchema;
use datafusion::dataframe::DataFrame;
use datafusion::datasource::MemTable;
use datafusion::datasource::listing_table_factory::ListingTableFactory;
use datafusion::execution::SessionState;
use datafusion::execution::cache::cache_manager::CacheManagerConfig;
use datafusion::execution::object_store::DefaultObjectStoreRegistry;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::CreateExternalTable;
use datafusion::prelude::SessionContext;
use deltalake::delta_datafusion::DeltaScanNext;
use deltalake::kernel::Snapshot;
use deltalake::logstore::{LogStore as _, LogStoreRef, commit_uri_from_version};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt as _};
use sha2::{Digest as _, Sha256};
use url::Url;

use crate::error::{Error, ErrorKind, Result};
use crate::memory::{Held, Memory};
use crate::pipeline::{LookupFormat, LookupSpec};
use crate::storage::{self, Storage};

/// How often a lookup whose files change while they are read is read again.
const READS: u32 = 3;

/// A lookup in memory. All its rows are held, within `flumen.memory_limit`.
#[derive(Debug)]
pub struct Lookup {
    spec: LookupSpec,
    reader: Reader,
    version: Version,
    schema: SchemaRef,
    provider: Arc<MemTable>,
    rows: usize,
    memory: Memory,
    held: Held,
}

/// Which state of a lookup was read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Version {
    /// In words, for a commit: a Delta version, or a hash of sizes and times of the files.
    shown: String,
    /// What has to be the same for a cheap "unchanged".
    probe: String,
}

impl Lookup {
    /// Reads the lookup.
    ///
    /// # Errors
    /// `Invalid` when it is not there, or its columns are not the declared ones (with the difference); `Violated` when
    /// a column declared NOT NULL has a NULL; `Unavailable` when the store fails.
    pub async fn load(spec: &LookupSpec, storage: &Storage, memory: &Memory, state: &SessionState) -> Result<Self> {
        let reader = Reader::new(spec, storage, state)?;
        let held = memory.hold("a lookup");
        let (version, schema, batches) = reader.read(spec, &held).await.map_err(|e| e.within(name(spec)))?;
        let rows = batches.iter().map(RecordBatch::num_rows).sum();
        let provider = in_memory(schema.clone(), batches).map_err(|e| e.within(name(spec)))?;
        Ok(Self { spec: spec.clone(), reader, version, schema, provider, rows, memory: memory.clone(), held })
    }

    /// The rows of a table as it is now, or of a version of a Delta table, batch by batch, with their columns: nothing
    /// of it is kept.
    ///
    /// # Errors
    /// As [`Lookup::load`], also through the stream.
    pub async fn rows(
        spec: &LookupSpec,
        version: Option<u64>,
        storage: &Storage,
        state: &SessionState,
    ) -> Result<(SchemaRef, BoxStream<'static, Result<RecordBatch>>)> {
        let reader = Reader::new(spec, storage, state)?;
        let version = match version {
            Some(version) => Version { shown: version.to_string(), probe: String::new() },
            None => reader.version().await.map_err(|e| e.within(name(spec)))?,
        };
        let provider = reader.provider(spec, &version).await.map_err(|e| e.within(name(spec)))?;
        let schema = spec.declared.clone().unwrap_or_else(|| plain_schema(&provider.schema()));
        let session = SessionContext::new_with_state(reader.state.clone());
        let rows = session.read_table(provider)?.execute_stream().await?;
        let (columns, place) = (Arc::clone(&schema), name(spec));
        let rows = rows.map(move |batch| {
            let batch = batch.map_err(Error::from).and_then(|batch| conform(&columns, &batch));
            batch.map_err(|error| error.within(&place))
        });
        Ok((schema, rows.boxed()))
    }

    /// A version of a Delta table that is read while it is scanned, in sessions that share `memory`: nothing of it is
    /// kept, and what a plan does not ask for is not read.
    ///
    /// # Errors
    /// As [`Lookup::load`].
    pub async fn scanned(
        spec: &LookupSpec,
        version: u64,
        storage: &Storage,
        memory: &Memory,
        state: &SessionState,
    ) -> Result<Arc<dyn TableProvider>> {
        let reader = Reader::new(spec, storage, state)?;
        if let Location::Delta(log) = &reader.location {
            let mut root = log.root_url().clone();
            root.set_path("/");
            memory.runtime().register_object_store(&root, log.root_object_store(None));
        }
        let version = Version { shown: version.to_string(), probe: String::new() };
        reader.provider(spec, &version).await.map_err(|e| e.within(name(spec)))
    }

    /// The columns of a lookup without its rows: the declared ones, else those of the store.
    ///
    /// # Errors
    /// As [`Lookup::load`].
    pub async fn schema_of(spec: &LookupSpec, storage: &Storage, state: &SessionState) -> Result<SchemaRef> {
        if let Some(declared) = &spec.declared {
            return Ok(declared.clone());
        }
        let reader = Reader::new(spec, storage, state)?;
        let version = reader.version().await.map_err(|e| e.within(name(spec)))?;
        let provider = reader.provider(spec, &version).await.map_err(|e| e.within(name(spec)))?;
        Ok(plain_schema(&provider.schema()))
    }

    /// The version of a lookup as it is now: see [`Lookup::version`].
    ///
    /// # Errors
    /// `Invalid` when it is not there; `Unavailable` when the store fails.
    pub async fn version_now(spec: &LookupSpec, storage: &Storage, state: &SessionState) -> Result<String> {
        let version = Reader::new(spec, storage, state)?.version().await;
        Ok(version.map_err(|e| e.within(name(spec)))?.shown)
    }

    /// Reads the lookup again if its version changed, and says whether it did. After an error the old rows stay.
    ///
    /// # Errors
    /// As [`Lookup::load`].
    pub async fn refresh(&mut self) -> Result<bool> {
        if !self.reader.changed(&self.version).await.map_err(|e| e.within(name(&self.spec)))? {
            return Ok(false);
        }
        // The old rows stay until the new ones are there.
        let held = self.memory.hold("a lookup");
        let read = self.reader.read(&self.spec, &held).await;
        let (version, schema, batches) = read.map_err(|e| e.within(name(&self.spec)))?;
        if version == self.version {
            return Ok(false);
        }
        if schema != self.schema {
            return Err(Error::unavailable(format!(
                "{}: its columns changed from version {} to {}; run it again, and they are compared anew",
                name(&self.spec),
                self.version.shown,
                version.shown
            )));
        }
        self.rows = batches.iter().map(RecordBatch::num_rows).sum();
        self.provider = in_memory(schema, batches).map_err(|e| e.within(name(&self.spec)))?;
        self.version = version;
        self.held = held;
        Ok(true)
    }

    /// The rows as a table with exact statistics.
    pub fn provider(&self) -> Arc<dyn TableProvider> {
        self.provider.clone()
    }

    /// The table's name in the file.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// What was read: a Delta version, or a hash of the files' sizes and times.
    pub fn version(&self) -> &str {
        &self.version.shown
    }

    /// The columns: strings are `Utf8`, no dictionaries.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// How many rows there are.
    pub fn num_rows(&self) -> usize {
        self.rows
    }
}

fn name(spec: &LookupSpec) -> String {
    format!("lookup `{}` at `{}`", spec.name, storage::shown(&spec.location))
}

/// Reads a lookup's store, again and again.
#[derive(Debug)]
struct Reader {
    state: SessionState,
    location: Location,
    /// The version of a Delta table that is read, whatever is newer.
    pinned: Option<u64>,
}

#[derive(Debug)]
enum Location {
    Delta(LogStoreRef),
    Files { store: Arc<dyn ObjectStore>, url: Url, path: Path },
}

impl Reader {
    fn new(spec: &LookupSpec, storage: &Storage, state: &SessionState) -> Result<Self> {
        let mut config = state.config().clone();
        config.options_mut().execution.parquet.schema_force_view_types = false;
        // Own stores and no caches: a file list or a footer that was seen before must not hide that files changed.
        let caches = CacheManagerConfig::default().with_list_files_cache_limit(0).with_file_statistics_cache_limit(0);
        let runtime = RuntimeEnvBuilder::from_runtime_env(state.runtime_env())
            .with_object_store_registry(Arc::new(DefaultObjectStoreRegistry::new()))
            .with_cache_manager(caches.with_metadata_cache_limit(0))
            .build_arc()?;
        // A catalog of its own: building a state puts an empty default catalog into the list that it shares.
        let state = SessionStateBuilder::new_from_existing(state.clone())
            .with_config(config)
            .with_runtime_env(runtime)
            .with_catalog_list(Arc::new(MemoryCatalogProviderList::new()))
            .build();
        let location = match spec.format {
            LookupFormat::Delta => {
                let log = storage.log_store(&spec.location).map_err(|e| e.within(name(spec)))?;
                register(&state, log.root_url(), log.root_object_store(None));
                Location::Delta(log)
            }
            _ => {
                let (store, url, path) = storage.object_store(&spec.location).map_err(|e| e.within(name(spec)))?;
                register(&state, &url, store.clone());
                Location::Files { store, url, path }
            }
        };
        Ok(Self { state, location, pinned: spec.version })
    }

    async fn version(&self) -> Result<Version> {
        if let Some(pinned) = self.pinned {
            return Ok(Version { shown: pinned.to_string(), probe: String::new() });
        }
        match &self.location {
            Location::Delta(log) => {
                let version = match Snapshot::try_new(log.as_ref(), None).await {
                    Ok(snapshot) => snapshot.version(),
                    Err(e) => match log.is_delta_table_location().await {
                        Ok(false) => {
                            return Err(Error::invalid(
                                "there is no Delta table; make it (a batch job can), or mend LOCATION",
                            ));
                        }
                        _ => return Err(unreadable(e)),
                    },
                };
                Ok(Version { shown: version.to_string(), probe: entry_identity(log, version).await? })
            }
            Location::Files { store, path, .. } => files_version(store.as_ref(), path).await,
        }
    }

    /// Whether the store has another version now. A Delta table is asked for two log entries, never listed.
    async fn changed(&self, known: &Version) -> Result<bool> {
        if self.pinned.is_some() {
            return Ok(false);
        }
        match &self.location {
            Location::Delta(log) => {
                let version: u64 = known.shown.parse().unwrap_or_default();
                let next = log.object_store(None).head(&commit_uri_from_version(Some(version + 1))).await;
                match next {
                    Err(object_store::Error::NotFound { .. }) => Ok(entry_identity(log, version).await? != known.probe),
                    Ok(_) => Ok(true),
                    Err(e) => Err(unreadable(e)),
                }
            }
            Location::Files { store, path, .. } => Ok(files_version(store.as_ref(), path).await? != *known),
        }
    }

    /// One version, whole, counted in `held`: files that change while they are read are read again.
    async fn read(&self, spec: &LookupSpec, held: &Held) -> Result<(Version, SchemaRef, Vec<RecordBatch>)> {
        let mut version = self.version().await?;
        for _ in 0..READS {
            let provider = self.provider(spec, &version).await?;
            let real = plain_schema(&provider.schema());
            let session = SessionContext::new_with_state(self.state.clone());
            held.clear();
            let read = collect(session.read_table(provider)?, held).await;
            let now = match &self.location {
                // A Delta version never changes.
                Location::Delta(_) => version.clone(),
                Location::Files { .. } => self.version().await?,
            };
            if now == version {
                let batches = read?;
                let schema = spec.declared.clone().unwrap_or(real);
                let batches = batches.into_iter().map(|batch| conform(&schema, &batch)).collect::<Result<_>>()?;
                return Ok((version, schema, batches));
            }
            version = now;
        }
        Err(Error::unavailable("its files change all the time; run it again when they are complete"))
    }

    async fn provider(&self, spec: &LookupSpec, version: &Version) -> Result<Arc<dyn TableProvider>> {
        match &self.location {
            Location::Delta(log) => {
                let pinned: u64 = version.shown.parse().unwrap_or_default();
                let provider = DeltaScanNext::builder()
                    .with_log_store(log.clone())
                    .with_table_version(pinned)
                    .with_session(Arc::new(self.state.clone()))
                    .build()
                    .await
                    .map_err(unreadable)?;
                compare_declared(spec, &plain_schema(&provider.schema()))?;
                Ok(Arc::new(provider))
            }
            Location::Files { url, .. } => {
                let real = self.listing(spec, url, Schema::empty()).await?;
                let schema = plain_schema(&real.schema());
                match (&spec.declared, spec.format) {
                    // Text has no types of its own: it is read as what is declared. A CSV goes by position.
                    (Some(declared), LookupFormat::Csv | LookupFormat::Json) => {
                        compare_names(spec, declared, &schema)?;
                        self.listing(spec, url, declared.as_ref().clone()).await
                    }
                    _ => {
                        compare_declared(spec, &schema)?;
                        Ok(real)
                    }
                }
            }
        }
    }

    async fn listing(&self, spec: &LookupSpec, url: &Url, schema: Schema) -> Result<Arc<dyn TableProvider>> {
        let format = match spec.format {
            LookupFormat::Csv => "CSV",
            LookupFormat::Json => "JSON",
            LookupFormat::Parquet | LookupFormat::Delta => "PARQUET",
        };
        let schema = DFSchema::try_from(schema)?;
        let options: HashMap<String, String> = spec.options.clone().into_iter().collect();
        let create = CreateExternalTable::builder(spec.name.clone(), url.as_str(), format, Arc::new(schema))
            .with_options(options)
            .build();
        ListingTableFactory::new().create(&self.state, &create).await.map_err(|e| {
            if storage::passes(&e) {
                return unreadable(e);
            }
            Error::invalid("its files are not what the statement says; mend format or OPTIONS").caused_by(e)
        })
    }
}

/// All rows, counted as they come.
async fn collect(rows: DataFrame, held: &Held) -> Result<Vec<RecordBatch>> {
    let mut stream = rows.execute_stream().await.map_err(unreadable)?;
    let mut batches = Vec::new();
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(unreadable)?;
        held.add(batch.get_array_memory_size())?;
        batches.push(batch);
    }
    Ok(batches)
}

fn register(state: &SessionState, url: &Url, store: Arc<dyn ObjectStore>) {
    let mut root = url.clone();
    root.set_path("/");
    state.runtime_env().register_object_store(&root, store);
}

/// What tells a log entry from another one at the same version.
async fn entry_identity(log: &LogStoreRef, version: u64) -> Result<String> {
    match log.object_store(None).head(&commit_uri_from_version(Some(version))).await {
        Ok(file) => Ok(identity(&file)),
        Err(object_store::Error::NotFound { .. }) => Ok(String::new()),
        Err(e) => Err(unreadable(e)),
    }
}

/// Name, size and e-tag of a file; its time where the store has no e-tags.
fn identity(file: &ObjectMeta) -> String {
    let tag = file.e_tag.clone().unwrap_or_else(|| file.last_modified.to_rfc3339());
    format!("{} {} {tag}\n", file.location, file.size)
}

async fn files_version(store: &dyn ObjectStore, path: &Path) -> Result<Version> {
    let mut files = match store.head(path).await {
        Ok(file) => vec![file],
        Err(_) => store.list(Some(path)).try_collect::<Vec<_>>().await.map_err(unreadable)?,
    };
    if files.is_empty() {
        return Err(Error::invalid("there is no such file; make it, or mend LOCATION"));
    }
    files.sort_by(|a, b| a.location.cmp(&b.location));
    let text: String = files.iter().map(identity).collect();
    let digest = Sha256::digest(text.as_bytes());
    let hash = hex::encode(&digest[..8]);
    Ok(Version { shown: hash.clone(), probe: hash })
}

fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::unavailable("it could not be read; check the store and run it again").caused_by(error)
}

/// The declared columns against the real ones. Columns that are not declared are left out of the lookup.
fn compare_declared(spec: &LookupSpec, real: &Schema) -> Result<()> {
    let Some(declared) = &spec.declared else { return Ok(()) };
    let mut lines = Vec::new();
    for field in declared.fields() {
        match real.field_with_name(field.name()) {
            Ok(other) if plain_type(field.data_type()) == *other.data_type() => {}
            Ok(other) => {
                lines.push(format!("  {}: declared {}, is {}", field.name(), field.data_type(), other.data_type()))
            }
            Err(_) => lines.push(format!("  {}: declared {}, is missing", field.name(), field.data_type())),
        }
    }
    refuse_differences(&lines)
}

/// The declared names against those of a text file: all of them, for a CSV in the same order.
fn compare_names(spec: &LookupSpec, declared: &Schema, real: &Schema) -> Result<()> {
    let names = |schema: &Schema| schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
    let (declared, real) = (names(declared), names(real));
    let has_names =
        spec.format != LookupFormat::Csv || spec.options.get("format.has_header").is_none_or(|v| v != "false");
    let in_order = spec.format == LookupFormat::Csv && declared != real;
    if spec.format == LookupFormat::Csv && declared.len() != real.len() {
        return refuse_differences(&[format!("  declared ({}), is ({})", declared.join(", "), real.join(", "))]);
    }
    if has_names && in_order {
        return refuse_differences(&[format!("  declared ({}), is ({})", declared.join(", "), real.join(", "))]);
    }
    if spec.format == LookupFormat::Json {
        let missing = declared.iter().filter(|name| !real.contains(name));
        return refuse_differences(&missing.map(|name| format!("  {name}: declared, is missing")).collect::<Vec<_>>());
    }
    Ok(())
}

fn refuse_differences(lines: &[String]) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Invalid,
        format!("its columns are not the declared ones\n{}\ndeclare what it has", lines.join("\n")),
    ))
}

/// The rows with plain types, and with the declared columns in their order.
fn conform(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch> {
    let columns = schema.fields().iter().map(|field| column(batch, field)).collect::<Result<Vec<_>>>()?;
    RecordBatch::try_new(schema.clone(), columns).map_err(unreadable)
}

fn column(batch: &RecordBatch, field: &Field) -> Result<ArrayRef> {
    let column = batch
        .column_by_name(field.name())
        .ok_or_else(|| Error::invalid(format!("column `{}` is missing; declare what it has", field.name())))?;
    let column = cast(column, field.data_type()).map_err(unreadable)?;
    if !field.is_nullable() && column.null_count() > 0 {
        return Err(Error::violated(format!(
            "column `{}` is declared NOT NULL and has {} NULLs; mend the data or the declaration",
            field.name(),
            column.null_count()
        )));
    }
    Ok(column)
}

fn in_memory(schema: SchemaRef, batches: Vec<RecordBatch>) -> Result<Arc<MemTable>> {
    Ok(Arc::new(MemTable::try_new(schema, vec![batches])?))
}

/// The schema without views and dictionaries, so that joins with a topic's columns need no casts.
fn plain_schema(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| plain_field(field));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn plain_field(field: &Field) -> FieldRef {
    Arc::new(Field::new(field.name(), plain_type(field.data_type()), field.is_nullable()))
}

fn plain_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Dictionary(_, value) => plain_type(value),
        DataType::List(item) | DataType::LargeList(item) => DataType::List(plain_field(item)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(|field| plain_field(field)).collect()),
        DataType::Map(entries, sorted) => DataType::Map(plain_field(entries), *sorted),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests;
