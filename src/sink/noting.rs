//! The store that a writer of data files sees. It notes what is written, and keeps failures to itself: the writer below
//! panics when it gives up a file that could not be completed, so it is told that all is well and whoever holds it asks
//! for the failure.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use deltalake::logstore::ObjectStoreRef;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use parking_lot::Mutex;

use crate::sink::Litter;

/// Notes files, and their first failure.
#[derive(Debug)]
pub struct NotingStore {
    store: ObjectStoreRef,
    litter: Litter,
    failure: Failure,
}

/// The first failure, until somebody takes it.
#[derive(Debug, Clone, Default)]
struct Failure(Arc<Mutex<Option<Error>>>);

impl Failure {
    /// The answer, or what stands for one that will not come.
    fn noting(&self, answer: Result<PutResult>) -> Result<PutResult> {
        Ok(answer.unwrap_or_else(|error| {
            self.0.lock().get_or_insert(error);
            PutResult { e_tag: None, version: None }
        }))
    }
}

impl NotingStore {
    /// `store`, whose files are noted in `litter`.
    pub fn new(store: ObjectStoreRef, litter: Litter) -> Self {
        Self { store, litter, failure: Failure::default() }
    }

    /// The store itself.
    pub fn inner(&self) -> &ObjectStoreRef {
        &self.store
    }

    /// The first failure since it was last taken: no file that was written since then may be relied on.
    ///
    /// # Errors
    /// That failure.
    pub fn take_failure(&self) -> Result<()> {
        self.failure.0.lock().take().map_or(Ok(()), Err)
    }
}

impl fmt::Display for NotingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for NotingStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.litter.note(&self.store, location);
        self.failure.noting(self.store.put_opts(location, payload, options).await)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.litter.note(&self.store, location);
        let upload = self.store.put_multipart_opts(location, options).await?;
        Ok(Box::new(Upload { upload, failure: self.failure.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.store.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.store.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}

/// A file in parts.
#[derive(Debug)]
struct Upload {
    upload: Box<dyn MultipartUpload>,
    failure: Failure,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (part, failure) = (self.upload.put_part(data), self.failure.clone());
        Box::pin(async move {
            let answer = part.await.map(|()| PutResult { e_tag: None, version: None });
            failure.noting(answer).map(|_| ())
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let failed = self.failure.0.lock().is_some();
        let answer = if failed { None } else { Some(self.upload.complete().await) };
        if !matches!(answer, Some(Ok(_)))
            && let Err(error) = self.upload.abort().await
        {
            tracing::debug!(%error, "an upload could not be ended; the store cleans it up in time");
        }
        self.failure.noting(answer.unwrap_or(Ok(PutResult { e_tag: None, version: None })))
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}
