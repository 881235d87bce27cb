//! Rows that are filtered and encoded together.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use bytes::Bytes;
use parking_lot::Mutex;

use super::outlet::Outlet;
use crate::error::{Error, Result};
use crate::subscribe::cursor::{Cursor, Place, TableId};
use crate::subscribe::encode::Mark;
use crate::subscribe::filter::Filter;
use crate::subscribe::options::HubOptions;
use crate::subscribe::versions::Rows;

/// Some rows of a version, one after the other.
#[derive(Debug)]
pub(super) struct Chunk {
    /// The place before the first row.
    pub(super) first: Place,
    batch: RecordBatch,
    replaces: bool,
    batch_bytes: usize,
    /// The messages of all rows, for each outlet that wanted one.
    encoded: Mutex<Vec<(usize, Arc<Encoded>)>>,
}

/// Messages, one after the other.
#[derive(Debug)]
pub(super) struct Encoded {
    bytes: Bytes,
    /// Where each message ends.
    ends: Box<[usize]>,
    /// Rows that cannot be written, with the reason; their messages are empty.
    faults: Vec<(usize, String)>,
}

/// The messages of a chunk that a subscriber wants.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) encoded: Arc<Encoded>,
    /// The row in the chunk of each message.
    pub(super) rows: Box<[u32]>,
    /// `encoded` has the messages of these rows and no others.
    is_sparse: bool,
    /// The place before the chunk.
    pub(super) first: Place,
}

impl Chunk {
    /// The chunks of some rows, as the limits have it. Of the rows, those before `place` are left out.
    pub(super) fn cut(rows: Rows, place: Place, options: &HubOptions) -> Vec<Chunk> {
        let skipped = usize::try_from(place.rows.saturating_sub(rows.first)).unwrap_or(usize::MAX);
        let (all, mut at) = (rows.batch.num_rows(), skipped.min(rows.batch.num_rows()));
        let row_bytes = (bytes_of(&rows.batch) / all.max(1)).max(1);
        let most = (options.chunk_bytes / row_bytes).clamp(1, options.chunk_rows.min(u32::MAX as usize));
        let mut chunks = Vec::with_capacity((all - at).div_ceil(most));
        while at < all {
            let batch = rows.batch.slice(at, most.min(all - at));
            let first = Place { version: place.version, rows: rows.first + at as u64 };
            at += batch.num_rows();
            chunks.push(Chunk {
                first,
                batch_bytes: row_bytes.saturating_mul(batch.num_rows()),
                batch,
                replaces: rows.replaces,
                encoded: Mutex::default(),
            });
        }
        chunks
    }

    /// The place behind the last row.
    pub(super) fn end(&self) -> Place {
        Place { version: self.first.version, rows: self.first.rows + self.batch.num_rows() as u64 }
    }

    /// What it holds, with the messages that were encoded.
    pub(super) fn bytes(&self) -> usize {
        let encoded = self.encoded.lock();
        self.batch_bytes + encoded.iter().map(|(_, encoded)| encoded.size()).sum::<usize>()
    }

    /// The wanted messages of the rows behind `place`; `None` when there are none. Of a chunk that is `shared` all rows
    /// are encoded, once for each outlet.
    pub(super) fn parcel(
        &self,
        place: Place,
        outlet: &Outlet,
        filter: &Filter,
        table: TableId,
        shared: bool,
    ) -> Result<Option<Parcel>> {
        let skipped = match place.version == self.first.version {
            true => usize::try_from(place.rows.saturating_sub(self.first.rows)).unwrap_or(usize::MAX),
            false => 0,
        };
        let range = skipped.min(self.batch.num_rows())..self.batch.num_rows();
        let rows: Box<[u32]> = match filter.select(&self.batch)? {
            None => range.map(|row| row as u32).collect(),
            Some(wanted) => range.filter(|row| wanted.value(*row)).map(|row| row as u32).collect(),
        };
        if rows.is_empty() {
            return Ok(None);
        }
        let encoded = match shared {
            true => self.shared(outlet, table)?,
            false => Arc::new(self.encode(outlet, table, rows.iter().map(|row| *row as usize))?),
        };
        Ok(Some(Parcel { encoded, rows, is_sparse: !shared, first: self.first }))
    }

    fn shared(&self, outlet: &Outlet, table: TableId) -> Result<Arc<Encoded>> {
        // Who comes second waits for what it would have to do itself.
        let mut all = self.encoded.lock();
        if let Some((_, encoded)) = all.iter().find(|(id, _)| *id == outlet.id()) {
            return Ok(encoded.clone());
        }
        let encoded = Arc::new(self.encode(outlet, table, 0..self.batch.num_rows())?);
        all.push((outlet.id(), encoded.clone()));
        Ok(encoded)
    }

    fn encode(&self, outlet: &Outlet, table: TableId, rows: impl Iterator<Item = usize>) -> Result<Encoded> {
        let encoder = outlet.encoder(self.batch.schema_ref())?;
        let writer = encoder.rows(&self.batch)?;
        let (mut bytes, mut ends, mut faults) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            let place = Place { version: self.first.version, rows: self.first.rows + row as u64 + 1 };
            let mark = Mark { cursor: Cursor { table, place }, replaces: self.replaces };
            let before = bytes.len();
            let written = writer.write(row, &mark, &mut bytes).and_then(|()| match bytes.len() - before {
                length if length > outlet.message_bytes() => Err(too_long(outlet, place, length)),
                _ => Ok(()),
            });
            if let Err(error) = written {
                bytes.truncate(before);
                faults.push((ends.len(), error.message().to_owned()));
            }
            ends.push(bytes.len());
        }
        // What was reserved too much is held as long as the slowest client holds the last message.
        bytes.shrink_to_fit();
        Ok(Encoded { bytes: bytes.into(), ends: ends.into(), faults })
    }
}

fn too_long(outlet: &Outlet, place: Place, length: usize) -> Error {
    Error::violated(format!(
        "message {}: version {}, row {}: it has {length} bytes and {} are allowed; leave such rows out in the query, \
         or raise the limit",
        outlet.message(),
        place.version,
        place.rows,
        outlet.message_bytes()
    ))
}

/// About the bytes of a batch's rows, each value written out: of a dictionary that is more than it has.
fn bytes_of(batch: &RecordBatch) -> usize {
    let size =
        |array: &dyn Array| array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_buffer_memory_size());
    let columns = batch.columns().iter().map(|column| match column.as_any_dictionary_opt() {
        Some(dictionary) => {
            let values = dictionary.values();
            (size(values.as_ref()) / values.len().max(1)).saturating_mul(column.len())
        }
        None => size(column.as_ref()),
    });
    columns.fold(0, usize::saturating_add)
}

impl Encoded {
    fn size(&self) -> usize {
        self.bytes.len() + std::mem::size_of_val(&*self.ends)
    }

    fn message(&self, at: usize) -> Option<Bytes> {
        let start = match at {
            0 => 0,
            at => *self.ends.get(at - 1)?,
        };
        Some(self.bytes.slice(start..*self.ends.get(at)?))
    }
}

impl Parcel {
    /// The message at this place in the parcel, and the place behind its row.
    pub(super) fn message(&self, at: usize) -> Option<(Bytes, Place)> {
        let row = *self.rows.get(at)?;
        let place = Place { version: self.first.version, rows: self.first.rows + u64::from(row) + 1 };
        Some((self.encoded.message(self.place_of(at)?)?, place))
    }

    /// Cuts it before the first row that cannot be written. Returns the place before that row, and the reason.
    pub(super) fn cut_at_fault(&mut self) -> Option<(Place, String)> {
        if self.encoded.faults.is_empty() {
            return None;
        }
        let faulty = |at: usize| {
            let place = self.place_of(at)?;
            self.encoded.faults.iter().find(|(row, _)| *row == place).map(|(_, reason)| reason.clone())
        };
        let (at, reason) = (0..self.rows.len()).find_map(|at| Some((at, faulty(at)?)))?;
        let row = *self.rows.get(at)?;
        self.rows = self.rows[..at].into();
        Some((Place { version: self.first.version, rows: self.first.rows + u64::from(row) }, reason))
    }

    fn place_of(&self, at: usize) -> Option<usize> {
        if self.is_sparse { Some(at) } else { self.rows.get(at).map(|row| *row as usize) }
    }
}
