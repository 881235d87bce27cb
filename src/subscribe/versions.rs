//! A table as a hub sees it: numbered versions, each with the rows that it added.
//!
//! # How a Delta table is one
//!
//! - [`Versions::table`]: the id in the newest `metaData` action, by [`TableId::of`]; `sink::log::TableLog::read` has
//!   it.
//! - [`Versions::newest`]: is there `_delta_log/<known + 1>.json`, `<known + 2>.json`, …: one HEAD for each poll on
//!   which nothing is new. Without `known` it is the newest entry of the listing (`TableLog::versions`).
//! - [`Versions::oldest`]: the oldest entry of the log from which on none is missing (`TableLog::versions`). That the
//!   data files of an old version were vacuumed is seen when they are read, and is [`ReadFault::Gone`] then.
//! - [`Versions::rows`]: the `add` actions of the version's entry (`TableLog::actions`) with `dataChange` not false, in
//!   the order in which they stand in the entry. Each file is read from its first row to its last, without splitting
//!   row groups over tasks: the order is what cursors count by. Rows that the add's deletion vector hides are left out
//!   and are not counted. An entry without such actions (compaction, `txn` alone, a new property) is an empty stream.
//!   With `from`, files that lie before it as a whole are passed over by `numRecords` of their statistics.
//! - Columns: only those that the hub needs ([`crate::subscribe::hub::Outlet::columns`] and `FilterPlan::columns`), by
//!   the table's newest schema: a column that a file does not have is NULL, partition values are columns like others.
//! - [`Rows::replaces`]: the entry also has `remove` actions with `dataChange` not false in the partition of the `add`
//!   (any such action, if the table is not partitioned): the rows stand for others that were there before.
//! - A data file or an entry that is not there is [`ReadFault::Gone`]; anything else that fails is an error of kind
//!   `Unavailable`, if trying again may help, else `Invalid` or `Violated`.

use arrow::array::RecordBatch;
use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::error::{Error, Result};
use crate::subscribe::cursor::TableId;

/// Some rows of a version, one after the other.
#[derive(Debug, Clone)]
pub struct Rows {
    /// How many rows of the version lie before these.
    pub first: u64,
    /// The rows.
    pub batch: RecordBatch,
    /// They stand for rows of the same partition that were there before.
    pub replaces: bool,
}

/// Why a version cannot be read.
#[derive(Debug)]
pub enum ReadFault {
    /// Its entry or one of its files is no longer there.
    Gone,
    /// Something failed.
    Failed(Error),
}

impl From<Error> for ReadFault {
    fn from(error: Error) -> Self {
        ReadFault::Failed(error)
    }
}

/// The rows of a version in their order. Two reads of a version give the same rows in the same order; how they are cut
/// into batches may differ.
pub type RowStream = BoxStream<'static, Result<Rows, ReadFault>>;

/// The versions of one table.
#[async_trait]
pub trait Versions: std::fmt::Debug + Send + Sync {
    /// What the table is called in messages: its location.
    fn name(&self) -> &str;

    /// Which table it is.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    async fn table(&self) -> Result<TableId>;

    /// The newest version. It is asked for many times a second; `known` is what it was the last time.
    ///
    /// # Errors
    /// As [`Versions::table`].
    async fn newest(&self, known: Option<u64>) -> Result<u64>;

    /// The oldest version that can be read, as far as is known without reading it.
    ///
    /// # Errors
    /// As [`Versions::table`].
    async fn oldest(&self) -> Result<u64>;

    /// The rows that a version added, but for the first `from`: the stream may begin with any row up to that one, as is
    /// easy, and says so in [`Rows::first`]. Batches have rows; none is left out in between.
    ///
    /// # Errors
    /// The version is gone, or cannot be read.
    async fn rows(&self, version: u64, from: u64) -> Result<RowStream, ReadFault>;
}
