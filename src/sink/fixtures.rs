//! What the tests of sinks share: specs, rows, a store that fails on command, and a reader that is not ours.
#![cfg(test)]

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{Array, ArrayRef, Date32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use async_trait::async_trait;
use datafusion::prelude::SessionContext;
use deltalake::DeltaTable;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult,
};
use serde_json::Map;

use crate::clock;
use crate::contract::{Contract, ContractColumn};
use crate::memory::Memory;
use crate::pipeline::SinkSpec;
use crate::sink::{CommitRetries, DeltaSink, Owner, SinkCommit};
use crate::storage::Storage;

/// A sink with columns `id BIGINT NOT NULL, name VARCHAR, day DATE`.
pub fn spec(location: &str) -> SinkSpec {
    let column = |name: &str, data_type: DataType, nullable| ContractColumn { name: name.into(), data_type, nullable };
    let columns = vec![
        column("id", DataType::Int64, false),
        column("name", DataType::Utf8, true),
        column("day", DataType::Date32, true),
    ];
    SinkSpec { target_file_size: 1 << 20, ..SinkSpec::append("t", location, Contract { columns, checks: vec![] }) }
}

/// More memory than a test needs.
pub fn memory() -> Memory {
    Memory::new(1_000_000_000).unwrap()
}

/// The query `t` of the pipeline `p`.
pub fn owner() -> Owner {
    Owner::new("p", "t")
}

/// Opens a sink that does not wait long between tries.
pub async fn open(spec: &SinkSpec, storage: &Storage) -> crate::error::Result<DeltaSink> {
    let sink = DeltaSink::open(spec, owner(), storage, clock::system()).await?;
    Ok(sink.with_retries(CommitRetries { limit: 3, pause: Duration::from_millis(1) }))
}

/// Opens a sink on a new table, with nothing but positions in it.
pub async fn create(spec: &SinkSpec, storage: &Storage) -> DeltaSink {
    let mut sink = open(spec, storage).await.unwrap();
    sink.create(commit(vec![], &[(0, 0)])).await.unwrap();
    sink
}

/// A commit of files and positions in topic `k`.
pub fn commit(adds: Vec<deltalake::kernel::Add>, positions: &[(i32, i64)]) -> SinkCommit {
    let txns = positions.iter().map(|&(partition, offset)| (owner().position("k", partition), offset)).collect();
    SinkCommit { adds, txns, attempt: clock::system().new_id(), info: Map::new() }
}

/// Rows with these ids; the day is the id in days.
pub fn batch(sink: &DeltaSink, ids: Range<i64>) -> RecordBatch {
    let names: StringArray = ids.clone().map(|id| (id % 3 != 0).then(|| format!("n{id}"))).collect();
    let days: Date32Array = ids.clone().map(|id| Some(id as i32)).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from_iter_values(ids)), Arc::new(names), Arc::new(days)];
    RecordBatch::try_new(sink.schema().clone(), columns).unwrap()
}

/// Writes rows with these ids to files.
pub async fn files(sink: &DeltaSink, ids: Range<i64>) -> Vec<deltalake::kernel::Add> {
    let mut writer = sink.writer(&memory());
    writer.write(&batch(sink, ids)).await.unwrap();
    writer.close().await.unwrap()
}

/// The table as delta-rs opens it.
pub async fn delta_table(location: &str) -> DeltaTable {
    let url = url::Url::from_directory_path(location).unwrap();
    deltalake::open_table(url).await.unwrap()
}

/// A column of the table as delta-rs reads it, sorted.
pub async fn read(location: &str, column: &str) -> Vec<String> {
    let session = SessionContext::new();
    let provider = delta_table(location).await.table_provider().await.unwrap();
    let rows = session.read_table(provider).unwrap().select_columns(&[column]).unwrap();
    let batches = rows.collect().await.unwrap();
    let mut values = Vec::new();
    for batch in batches {
        let array: &dyn Array = batch.column(0);
        let format = ArrayFormatter::try_new(array, &FormatOptions::default()).unwrap();
        values.extend((0..array.len()).map(|row| format.value(row).to_string()));
    }
    values.sort();
    values
}

/// Ids as [`read`] gives them.
pub fn ids(ids: impl IntoIterator<Item = i64>) -> Vec<String> {
    let mut ids: Vec<_> = ids.into_iter().map(|id| id.to_string()).collect();
    ids.sort();
    ids
}

/// What happens to a put of a log entry.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// It fails and nothing is stored.
    Before,
    /// It is stored and fails.
    After,
    /// The store says that the entry is there although it is not.
    FalseConflict,
}

/// Which requests were made and which are to fail.
#[derive(Debug, Default)]
pub struct Script {
    /// Faults of the next puts of log entries.
    pub faults: Mutex<VecDeque<Fault>>,
    /// Every request: `GET path`.
    pub requests: Mutex<Vec<String>>,
}

impl Script {
    /// A storage whose stores follow this script.
    pub fn storage(self: &Arc<Self>) -> Storage {
        let script = self.clone();
        Storage::new().with_wrapper(Arc::new(move |inner| Arc::new(Scripted { inner, script: script.clone() })))
    }

    /// The requests since the last time, by their last path segment.
    pub fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.requests.lock().unwrap())
    }

    fn note(&self, what: &str, path: impl fmt::Display) {
        let path = path.to_string();
        let name = path.rsplit('/').next().unwrap_or_default();
        self.requests.lock().unwrap().push(format!("{what} {name}"));
    }
}

#[derive(Debug)]
struct Scripted {
    inner: Arc<dyn ObjectStore>,
    script: Arc<Script>,
}

impl fmt::Display for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scripted({})", self.inner)
    }
}

type StoreResult<T> = object_store::Result<T>;

#[async_trait]
impl ObjectStore for Scripted {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> StoreResult<PutResult> {
        self.script.note("PUT", location);
        let is_entry = location.as_ref().contains("_delta_log/") && location.as_ref().ends_with(".json");
        let fault = if is_entry { self.script.faults.lock().unwrap().pop_front() } else { None };
        let failed = || object_store::Error::Generic { store: "scripted", source: "connection reset".into() };
        match fault {
            None => self.inner.put_opts(location, payload, opts).await,
            Some(Fault::Before) => Err(failed()),
            Some(Fault::After) => self.inner.put_opts(location, payload, opts).await.and(Err(failed())),
            Some(Fault::FalseConflict) => {
                Err(object_store::Error::AlreadyExists { path: location.to_string(), source: "409".into() })
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.script.note("PUT", location);
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.script.note(if options.head { "HEAD" } else { "GET" }, location);
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, StoreResult<Path>>) -> BoxStream<'static, StoreResult<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.script.note("LIST", prefix.cloned().unwrap_or_default());
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.script.note("LIST", prefix.cloned().unwrap_or_default());
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.script.note("LIST", prefix.cloned().unwrap_or_default());
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
