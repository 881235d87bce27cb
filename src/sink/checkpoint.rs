//! A checkpoint's `txn`, `metaData` and `protocol`: three columns of a Parquet file, read without its file list.

use datafusion::error::DataFusionError;
use datafusion::logical_expr::Expr;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext, ident};
use deltalake::logstore::{LogStore as _, LogStoreRef};
use futures::TryStreamExt as _;
use object_store::{ObjectMeta, ObjectStoreExt as _};

use crate::error::{Error, Result};
use crate::sink::entry::Entry;

const COLUMNS: [&str; 3] = ["txn", "metaData", "protocol"];

/// Reads one file of a checkpoint. Sidecars of a V2 checkpoint hold files only and are left alone.
pub async fn read(log: &LogStoreRef, file: &ObjectMeta) -> Result<Entry> {
    let path = &file.location;
    let lines = if path.as_ref().ends_with(".json") {
        let bytes = match log.object_store(None).get(path).await {
            Ok(found) => found.bytes().await,
            Err(e) => Err(e),
        };
        bytes.map_err(|e| unreadable(file).caused_by(e))?.to_vec()
    } else {
        read_parquet(log, file).await.map_err(|e| unreadable(file).caused_by(e))?
    };
    Entry::parse(&lines)
        .map_err(|e| Error::invalid(format!("checkpoint `{path}` is damaged; repair the table")).caused_by(e))
}

/// The rows that have one of the columns, as lines of a log entry.
async fn read_parquet(log: &LogStoreRef, file: &ObjectMeta) -> Result<Vec<u8>, DataFusionError> {
    let mut config = SessionConfig::new().with_target_partitions(1);
    config.options_mut().execution.parquet.schema_force_view_types = false;
    let session = SessionContext::new_with_config(config);
    session.register_object_store(log.root_url(), log.root_object_store(None));
    let url = format!("{}/{}", log.root_url().as_str().trim_end_matches('/'), file.location);
    let rows = session.read_parquet(url, ParquetReadOptions::default()).await?;
    let names: Vec<&str> =
        COLUMNS.into_iter().filter(|name| rows.schema().has_column_with_unqualified_name(name)).collect();
    // Every checkpoint has these columns: without them there is no file, because a clean-up took it a moment ago.
    if !names.contains(&"protocol") || !names.contains(&"metaData") {
        return Err(DataFusionError::External("it is not there, or is no checkpoint".into()));
    }
    let Some(any) = names.iter().map(|name| ident(*name).is_not_null()).reduce(Expr::or) else {
        return Ok(Vec::new());
    };
    let mut batches = rows.select_columns(&names)?.filter(any)?.execute_stream().await?;
    let mut lines = arrow::json::LineDelimitedWriter::new(Vec::new());
    while let Some(batch) = batches.try_next().await? {
        lines.write(&batch)?;
    }
    lines.finish()?;
    Ok(lines.into_inner())
}

fn unreadable(file: &ObjectMeta) -> Error {
    Error::unavailable(format!("checkpoint `{}` could not be read; check the store and run it again", file.location))
}
