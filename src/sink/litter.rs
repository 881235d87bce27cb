//! Files that a version may never name. They are noted as they are written, so that an attempt that fails takes them
//! away again: on a full disk attempts would else fill what is left, and a vacuum comes days later.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use deltalake::logstore::ObjectStoreRef;
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt as _};
use parking_lot::Mutex;

/// How long files are taken away at most: what stays, because the store is away, is for the vacuum.
const LIMIT: Duration = Duration::from_secs(10);

/// What one attempt has written. Clones share it.
#[derive(Clone, Default)]
pub struct Litter(Arc<Mutex<Vec<(ObjectStoreRef, Path)>>>);

impl fmt::Debug for Litter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Litter").field(&self.0.lock().len()).finish()
    }
}

impl Litter {
    /// A version names what was written, or may: nothing of it may be taken away.
    pub fn keep(&self) {
        self.0.lock().clear();
    }

    /// Takes away what was written. No version may name it, now or later.
    pub async fn remove(&self) {
        let files = std::mem::take(&mut *self.0.lock());
        let removed = tokio::time::timeout(LIMIT, async {
            for (store, path) in files {
                match store.delete(&path).await {
                    Ok(()) | Err(Error::NotFound { .. }) => {}
                    Err(error) => return tracing::debug!(%path, %error, "files of a failed attempt stay"),
                }
            }
        });
        if removed.await.is_err() {
            tracing::debug!("files of a failed attempt stay: the store takes too long");
        }
    }

    /// A file is about to be written.
    pub(super) fn note(&self, store: &ObjectStoreRef, path: &Path) {
        self.0.lock().push((Arc::clone(store), path.clone()));
    }
}
