//! An object store in memory that fails: before and after it did what it was asked for, slowly, half-way through, and
//! with lists that lag behind.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt as _, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::World;

#[derive(Debug)]
pub struct FailingStore(pub Arc<World>);

impl fmt::Display for FailingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FailingStore")
    }
}

fn failed(what: &str) -> object_store::Error {
    object_store::Error::Generic { store: "simulated", source: what.into() }
}

/// A request as a place of [`World::dice`]: data files are all the same, their names are drawn by others.
fn place(what: &str, location: &Path) -> String {
    let path = location.as_ref();
    match path.split_once("/_delta_log/") {
        Some((table, name)) => {
            let plain: Vec<_> = name.split('.').filter(|part| part.len() != 36).collect();
            format!("{what} {table} {}", plain.join("."))
        }
        None => format!("{what} {}", path.split('/').next().unwrap_or_default()),
    }
}

impl FailingStore {
    async fn before(&self, what: &str, location: &Path) -> Result<()> {
        if self.0.trouble(&place(what, location)).await { Err(failed("503 Slow Down")) } else { Ok(()) }
    }

    async fn after(&self, what: &str, location: &Path) -> Result<()> {
        let done = format!("after {}", place(what, location));
        if self.0.trouble(&done).await { Err(failed("connection reset by peer")) } else { Ok(()) }
    }

    /// A list that was made before the newest version was written.
    fn lagging(&self, list: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
        let world = Arc::clone(&self.0);
        let list = list.map_ok(move |object| world.stamped(object)).boxed();
        if !self.0.struck("a list that lags", 40) {
            return list;
        }
        let world = Arc::clone(&self.0);
        let kept = list.try_filter(move |file| {
            let is_newest = world.newest_entry(&file.location);
            futures::future::ready(!is_newest)
        });
        kept.boxed()
    }
}

#[async_trait]
impl ObjectStore for FailingStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.before("put", location).await?;
        let is_new = matches!(options.mode, PutMode::Create);
        let done = self.0.store.put_opts(location, payload.clone(), options).await?;
        self.0.note_put(location, &payload, is_new);
        self.after("put", location).await?;
        Ok(done)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.before("put parts", location).await?;
        self.0.store.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.before("get", location).await?;
        let mut found = self.0.store.get_opts(location, options).await?;
        found.meta = self.0.stamped(found.meta);
        if self.0.struck(&place("get half", location), 200) && !found.range.is_empty() {
            // Half of it comes, then the connection is cut.
            let half = self.0.store.get_range(location, found.range.start..found.range.start + 1).await?;
            let parts = [Ok(half), Err(failed("connection reset while reading"))];
            found.payload = GetResultPayload::Stream(futures::stream::iter(parts).boxed());
        }
        Ok(found)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        if self.0.struck("delete", 40) {
            return futures::stream::iter([Err(failed("503 Slow Down"))]).boxed();
        }
        self.0.store.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.lagging(self.0.store.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        if self.0.struck("list", 40) {
            return futures::stream::iter([Err(failed("503 Slow Down"))]).boxed();
        }
        self.lagging(self.0.store.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.before("list of directories", prefix.unwrap_or(&Path::default())).await?;
        self.0.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.before("copy", from).await?;
        self.0.store.copy_opts(from, to, options).await
    }
}
