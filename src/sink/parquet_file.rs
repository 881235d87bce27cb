//! A sink that is one Parquet file: written aside, then put in the place of the one that is there.

use std::sync::Arc;

use arrow::array::RecordBatch;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use parquet::arrow::AsyncArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::memory::{Held, Memory};
use crate::pipeline::SinkSpec;
use crate::storage::{self, Storage};

/// The bytes of a row group, about, before compression.
const ROW_GROUP_BYTES: usize = 64 << 20;

/// A file that is being written. A reader sees the old one until it is whole.
pub struct ParquetFile {
    store: Arc<dyn ObjectStore>,
    path: Path,
    aside: Path,
    writer: AsyncArrowWriter<BufWriter>,
    held: Held,
    shown: String,
}

impl ParquetFile {
    /// Begins a file for `sink`. `id` tells its place aside from others'.
    ///
    /// # Errors
    /// `Invalid` when the location is none.
    pub fn create(sink: &SinkSpec, storage: &Storage, memory: &Memory, id: Uuid) -> Result<Self> {
        let (store, _, path) = storage.object_store(&sink.location)?;
        let shown = storage::shown(&sink.location);
        let name = path.filename().ok_or_else(|| Error::invalid(format!("location `{shown}` names no file")))?;
        let aside = sibling(&path, &format!(".{name}.{id}.aside"));
        let properties = WriterProperties::builder()
            .set_created_by(concat!("flumen ", env!("CARGO_PKG_VERSION")).into())
            .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
            .set_compression(Compression::SNAPPY)
            .build();
        let sent = BufWriter::new(Arc::clone(&store), aside.clone());
        let writer = AsyncArrowWriter::try_new(sent, sink.contract.arrow_schema(), Some(properties));
        let writer = writer.map_err(|e| failed(&shown, e))?;
        Ok(Self { store, path, aside, writer, held: memory.hold("a Parquet file"), shown })
    }

    /// Adds rows.
    ///
    /// # Errors
    /// `Unavailable` when the store fails, or there is no memory for them.
    pub async fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        self.held.set(self.writer.memory_size() + rows.get_array_memory_size())?;
        self.writer.write(rows).await.map_err(|e| failed(&self.shown, e))
    }

    /// Ends the file and puts it in its place, in one step.
    ///
    /// # Errors
    /// `Unavailable` when the store fails: the old file is there still.
    pub async fn finish(mut self) -> Result<()> {
        let done = match self.writer.finish().await {
            Ok(_) => self.store.rename(&self.aside, &self.path).await.map_err(|e| failed(&self.shown, e.into())),
            Err(error) => Err(failed(&self.shown, error)),
        };
        if done.is_err() {
            self.abandon().await;
        }
        done
    }

    /// Takes what was written away.
    pub async fn abandon(self) {
        let Self { store, aside, writer, .. } = self;
        drop(writer);
        match store.delete(&aside).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => tracing::debug!(path = %aside, %error, "a file that was given up stays"),
        }
    }
}

fn sibling(path: &Path, name: &str) -> Path {
    let parts: Vec<_> = path.parts().collect();
    let before = parts.iter().take(parts.len().saturating_sub(1)).map(|part| part.as_ref().to_owned());
    Path::from_iter(before.chain([name.to_owned()]))
}

fn failed(shown: &str, error: parquet::errors::ParquetError) -> Error {
    let text = format!("file `{shown}` could not be written; check the store and the disk, then run it again");
    Error::unavailable(text).caused_by(error)
}
