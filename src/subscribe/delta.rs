//! A Delta table as a hub sees it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use parking_lot::Mutex;

use super::cursor::TableId;
use super::versions::{ReadFault, RowStream, Rows, Versions};
use crate::clock::Stopwatch;
use crate::error::{Error, Result};
use crate::sink::{ChangedFile, Changes, EntryMark, FileRows, TableShape};
use crate::storage::{self, Storage};

/// The oldest version is looked for so often at most: a list of the log, which many who connect again ask for.
const OLDEST_EVERY: Duration = Duration::from_secs(1);
/// The same for what the table is, when a method does not fit it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The versions of a Delta table.
#[derive(Debug)]
pub struct DeltaVersions {
    name: String,
    changes: Changes,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    shape: Option<TableShape>,
    /// The entry of the version that the shape was seen at.
    mark: Option<EntryMark>,
    /// Since the log was read for it.
    looked: Option<Stopwatch>,
    /// The columns that are read. Empty: all.
    columns: BTreeSet<String>,
    oldest: Option<(u64, Stopwatch)>,
}

impl DeltaVersions {
    /// Of the table at `location`, whether it is there yet or not.
    ///
    /// # Errors
    /// `Invalid` when the location is none.
    pub fn open(location: &str, storage: &Storage) -> Result<Self> {
        let changes = Changes::open(location, storage)?;
        Ok(Self { name: storage::shown(location), changes, known: Mutex::default() })
    }

    /// Reads only these columns from now on.
    pub fn read_only(&self, columns: BTreeSet<String>) {
        self.known.lock().columns = columns;
    }

    /// What the table is, as was seen last; looks when it was not seen yet.
    ///
    /// # Errors
    /// `Unavailable` when there is no table yet, or the store fails.
    pub async fn shape(&self) -> Result<TableShape> {
        let known = self.known.lock().shape.clone();
        match known {
            Some(shape) => Ok(shape),
            None => self.look().await,
        }
    }

    /// What the table is, looked at anew, but once a second at most.
    ///
    /// # Errors
    /// As [`DeltaVersions::shape`].
    pub async fn look_again(&self) -> Result<TableShape> {
        let is_recent = self.known.lock().looked.is_some_and(|watch| watch.elapsed() < LOOK_EVERY);
        if is_recent { self.shape().await } else { self.look().await }
    }

    /// Looks what the table is.
    async fn look(&self) -> Result<TableShape> {
        let shape = self.changes.shape().await?.ok_or_else(|| self.absent())?;
        let mark = self.changes.mark(shape.version).await?;
        let mut known = self.known.lock();
        if known.shape.as_ref().is_some_and(|before| before.id != shape.id) {
            known.oldest = None;
        }
        (known.shape, known.mark) = (Some(shape.clone()), mark);
        known.looked = Some(Stopwatch::start());
        Ok(shape)
    }

    fn absent(&self) -> Error {
        Error::unavailable(format!("there is no table {} yet: try again when a pipeline has written it", self.name))
    }

    /// The columns that are read, as the newest schema has them.
    fn schema(&self) -> Option<SchemaRef> {
        let known = self.known.lock();
        let schema = &known.shape.as_ref()?.schema;
        if known.columns.is_empty() {
            return Some(Arc::clone(schema));
        }
        let wanted = schema.fields().iter().filter(|field| known.columns.contains(field.name()));
        Some(Arc::new(Schema::new(wanted.cloned().collect::<Vec<_>>())))
    }
}

#[async_trait]
impl Versions for DeltaVersions {
    fn name(&self) -> &str {
        &self.name
    }

    async fn table(&self) -> Result<TableId> {
        let (shape, mark) = {
            let known = self.known.lock();
            (known.shape.clone(), known.mark.clone())
        };
        // As long as one entry is the same one, it is the same table.
        if let (Some(shape), Some(mark)) = (shape, mark)
            && self.changes.mark(shape.version).await?.is_some_and(|now| now == mark)
        {
            return Ok(TableId::of(&shape.id));
        }
        Ok(TableId::of(&self.look().await?.id))
    }

    async fn newest(&self, known: Option<u64>) -> Result<u64> {
        let Some(known) = known else {
            return Ok(self.changes.versions().await?.ok_or_else(|| self.absent())?.1);
        };
        self.changes.newest_after(known).await
    }

    async fn oldest(&self) -> Result<u64> {
        let known = self.known.lock().oldest;
        if let Some((oldest, _)) = known.filter(|(_, watch)| watch.elapsed() < OLDEST_EVERY) {
            return Ok(oldest);
        }
        let (oldest, _) = self.changes.versions().await?.ok_or_else(|| self.absent())?;
        self.known.lock().oldest = Some((oldest, Stopwatch::start()));
        Ok(oldest)
    }

    async fn rows(&self, version: u64, from: u64) -> Result<RowStream, ReadFault> {
        let change = self.changes.of(version).await?.ok_or(ReadFault::Gone)?;
        if let Some(shape) = change.shape {
            let mut known = self.known.lock();
            // An old version tells of the table as it was.
            if known.shape.as_ref().is_none_or(|now| now.version <= shape.version) {
                (known.shape, known.mark) = (Some(shape), None);
            }
        }
        self.shape().await?;
        let schema = self.schema().ok_or_else(|| self.absent())?;
        let mut first = 0;
        let mut files = change.files;
        // Files before the place are passed over, where they say how many rows they have.
        let passed = files.iter().take_while(|file| {
            let end = file.rows().map(|rows| first + rows).filter(|end| *end <= from);
            first = end.unwrap_or(first);
            end.is_some()
        });
        let passed = passed.count();
        files.drain(..passed);
        // So are the rows of the first file that lie before the place, where it says how many it has.
        let skip = match files.first().and_then(ChangedFile::rows) {
            Some(_) => from - first,
            None => 0,
        };
        first += skip;
        let reading =
            Reading { changes: self.changes.clone(), schema, files: files.into_iter(), open: None, first, skip };
        Ok(stream::unfold(Some(reading), |reading| async move {
            let mut reading = reading?;
            match reading.next().await {
                Ok(None) => None,
                Ok(Some(rows)) => Some((Ok(rows), Some(reading))),
                Err(fault) => Some((Err(fault), None)),
            }
        })
        .boxed())
    }
}

/// The files of a version, one after the other.
struct Reading {
    changes: Changes,
    schema: SchemaRef,
    files: std::vec::IntoIter<ChangedFile>,
    open: Option<(FileRows, bool)>,
    first: u64,
    /// Rows of the next file that are passed over.
    skip: u64,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Rows>, ReadFault> {
        loop {
            let Some((rows, replaces)) = &mut self.open else {
                let Some(file) = self.files.next() else { return Ok(None) };
                let skip = std::mem::take(&mut self.skip);
                let rows = self.changes.rows(&file, &self.schema, skip).await?.ok_or(ReadFault::Gone)?;
                self.open = Some((rows, file.replaces));
                continue;
            };
            match rows.next().await.transpose()? {
                None => self.open = None,
                Some(batch) if batch.num_rows() == 0 => {}
                Some(batch) => {
                    let rows = Rows { first: self.first, replaces: *replaces, batch };
                    self.first += rows.batch.num_rows() as u64;
                    return Ok(Some(rows));
                }
            }
        }
    }
}
