//! Where tables and files lie: a path or URL becomes an object store or a Delta log store. This is the one place where
//! store options and credentials come in, so that another store is configuration and never code.

mod absence;
#[cfg(feature = "azure")]
mod azure;
mod cloud;
#[cfg(feature = "gcs")]
mod gcs;
mod s3;
mod trouble;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Component, Path as FilePath, PathBuf};
use std::sync::Arc;

use deltalake::logstore::{LogStoreRef, StorageConfig, logstore_with, object_store_factories};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use parking_lot::Mutex;
use url::Url;

use crate::error::{Error, Result};

pub use absence::Absence;
pub use trouble::{failed, is_full, is_passing, is_refusal, passes};

/// Puts a store around another one.
pub type Wrapper = Arc<dyn Fn(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> + Send + Sync>;

/// What could not be done when a store is asked whether it puts only where nothing is.
const PROBED: &str = "it was not shown that the store puts only where nothing is";

/// Opens stores by location. Cheap to clone.
#[derive(Clone, Default)]
pub struct Storage {
    options: BTreeMap<String, String>,
    wrapper: Option<Wrapper>,
    absence: Option<Arc<Absence>>,
    /// The stores over a network, by scheme and host: they keep connections and credentials.
    remote: Arc<Mutex<BTreeMap<String, Arc<dyn ObjectStore>>>>,
    /// The hosts that have shown that they put only where nothing is.
    proven: Arc<Mutex<BTreeSet<String>>>,
}

impl fmt::Debug for Storage {
    /// Options may hold secrets: only their names are shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage").field("options", &self.options.keys()).finish_non_exhaustive()
    }
}

impl Storage {
    /// Stores without options of their own: local disk, memory, and the clouds of this build, as the environment has
    /// them.
    pub fn new() -> Self {
        static REGISTERED: std::sync::Once = std::sync::Once::new();
        REGISTERED.call_once(|| {
            s3::register();
            #[cfg(feature = "gcs")]
            gcs::register();
            #[cfg(feature = "azure")]
            azure::register();
        });
        Self::default()
    }

    /// The same with store options (endpoint, region, credentials), by the names that the store knows.
    #[must_use]
    pub fn with_options(mut self, options: BTreeMap<String, String>) -> Self {
        self.options = options;
        self
    }

    /// The same with every store wrapped before anything else uses it: how tests inject faults and count requests.
    #[must_use]
    pub fn with_wrapper(mut self, wrapper: Wrapper) -> Self {
        self.wrapper = Some(wrapper);
        self
    }

    /// The same for whoever waits for stores that fail.
    #[must_use]
    pub fn with_absence(mut self, absence: &Arc<Absence>) -> Self {
        self.absence = Some(Arc::clone(absence));
        self
    }

    /// How a store that fails is waited for; `None`: not at all.
    pub fn absence(&self) -> Option<&Absence> {
        self.absence.as_deref()
    }

    /// The URL of a location: a URL stays itself, a path becomes `file://`. It ends with `/` for a directory.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::error::ErrorKind::Invalid) when it is neither.
    pub fn url(&self, location: &str) -> Result<Url> {
        if location.contains("://") {
            return Url::parse(location).map_err(|e| {
                Error::invalid(format!("location `{}` is not a URL; write SCHEME://HOST/PATH", shown(location)))
                    .caused_by(e)
            });
        }
        let path = lexical(FilePath::new(location))?;
        let url = if location.ends_with('/') || path.is_dir() {
            Url::from_directory_path(&path)
        } else {
            Url::from_file_path(&path)
        };
        url.map_err(|()| Error::invalid(format!("location `{location}` is not a path; use an absolute one")))
    }

    /// The store that holds `location`, from its root, and the path inside it.
    ///
    /// # Errors
    /// `Invalid` when no store of this build serves the URL's scheme or an option is wrong.
    pub fn object_store(&self, location: &str) -> Result<(Arc<dyn ObjectStore>, Url, Path)> {
        let url = self.url(location)?;
        let (store, path) = self.root_store(&url)?;
        Ok((store, url, path))
    }

    /// The log store of the Delta table at `location`, whether the table exists or not.
    ///
    /// # Errors
    /// As [`Storage::object_store`].
    pub fn log_store(&self, location: &str) -> Result<LogStoreRef> {
        let url = self.url(location)?;
        let (store, _) = self.root_store(&url)?;
        logstore_with(store, &url, self.config()?)
            .map_err(|e| Error::invalid(format!("no Delta table can lie at `{}`", shown(location))).caused_by(e))
    }

    /// Makes the local directory of a table that is to be created; nothing on other stores, which have none.
    ///
    /// # Errors
    /// `Unavailable` when the disk is full or broken, `Invalid` when we may not.
    pub fn create_directory(&self, location: &str) -> Result<()> {
        let url = self.url(location)?;
        if url.scheme() != "file" {
            return Ok(());
        }
        let path = url.to_file_path().map_err(|()| {
            Error::invalid(format!("location `{}` is not a local path; use an absolute one", shown(location)))
        })?;
        std::fs::create_dir_all(&path).map_err(|e| failed(location, "its directory could not be made", e))
    }

    fn config(&self) -> Result<StorageConfig> {
        StorageConfig::parse_options(self.options.clone()).map_err(|e| {
            let names: Vec<_> = self.options.keys().map(String::as_str).collect();
            Error::invalid(format!("a store option has a wrong value; mend one of: {}", names.join(", "))).caused_by(e)
        })
    }

    fn root_store(&self, url: &Url) -> Result<(Arc<dyn ObjectStore>, Path)> {
        let scheme = url.scheme();
        let factory = Url::parse(&format!("{scheme}://"))
            .ok()
            .and_then(|key| object_store_factories().get(&key).map(|entry| entry.value().clone()))
            .ok_or_else(|| cloud::missing(scheme))?;
        let is_remote = !matches!(scheme, "file" | "memory");
        let host = format!("{scheme}://{}", url.authority());
        if is_remote && let Some(store) = self.remote.lock().get(&host) {
            let path = Path::from_url_path(url.path()).map_err(|e| {
                Error::invalid(format!("location `{}` is no path of a store", shown(url.as_str()))).caused_by(e)
            })?;
            return Ok((Arc::clone(store), path));
        }
        let (store, path) = factory.parse_url_opts(url, &self.config()?).map_err(|e| {
            let credentials = cloud::credentials(url.as_str());
            Error::invalid(format!(
                "the store of `{}` cannot be set up: mend the LOCATION or the credentials ({credentials})",
                shown(url.as_str())
            ))
            // In words, and without what the URL hides: its text may hold a signature.
            .caused_by(e.to_string().replace(url.as_str(), &shown(url.as_str())))
        })?;
        let store = match &self.wrapper {
            Some(wrap) => wrap(store),
            None => store,
        };
        if is_remote {
            self.remote.lock().insert(host, Arc::clone(&store));
        }
        Ok((store, path))
    }

    /// Has a store over a network show that it puts only where nothing is: a store that overwrites all the same would
    /// lose versions of a table without a word. Asked once for each host.
    ///
    /// # Errors
    /// `Invalid` when it overwrites, does not know such puts, or does not let us write; `Unavailable` when it fails.
    pub async fn prove_put_if_absent(&self, location: &str, id: uuid::Uuid) -> Result<()> {
        let (store, url, path) = self.object_store(location)?;
        let host = format!("{}://{}", url.scheme(), url.authority());
        if matches!(url.scheme(), "file" | "memory") || self.proven.lock().contains(&host) {
            return Ok(());
        }
        let probe = path.join("_flumen").join(format!("probe-{id}"));
        let create = || store.put_opts(&probe, "probe".into(), PutMode::Create.into());
        match create().await {
            // Nobody else has this id: an answer was lost, and the client asked again.
            Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => {}
            Err(e) => return Err(failed(location, PROBED, e)),
        }
        let again = create().await;
        let deleted = store.delete(&probe).await;
        match again {
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {}
            Ok(_) => {
                return Err(Error::invalid(format!(
                    "the store of `{}` overwrites what it was told to put only where nothing is: versions of a table \
                     would be lost. Use a store that knows If-None-Match",
                    shown(location)
                )));
            }
            Err(other) => return Err(failed(location, PROBED, other)),
        }
        deleted.map_err(|e| failed(location, PROBED, e))?;
        self.proven.lock().insert(host);
        Ok(())
    }
}

/// An absolute path without `.` and `..`, whether it exists or not.
fn lexical(path: &FilePath) -> Result<PathBuf> {
    let absolute = std::path::absolute(path)
        .map_err(|e| Error::invalid(format!("location `{}` is not a path ({e})", path.display())))?;
    let mut plain = PathBuf::new();
    for component in absolute.components() {
        match component {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    Ok(plain)
}

/// A location without what may be secret in a URL: user, password, query. The container of an Azure location stays.
pub fn shown(location: &str) -> String {
    let Ok(mut url) = Url::parse(location) else { return location.to_string() };
    if url.cannot_be_a_base() {
        return location.to_string();
    }
    let is_secret = !url.username().is_empty() && !cloud::has_container_as_user(url.scheme());
    let cleared = if is_secret { url.set_username("") } else { Ok(()) };
    if url.password().is_some() && url.set_password(None).is_err() || cleared.is_err() {
        return format!("{}://…", url.scheme());
    }
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_path_becomes_a_url() {
        let storage = Storage::new();
        assert_eq!(storage.url("/no/such dir/./a/../t").unwrap().as_str(), "file:///no/such%20dir/t");
        assert_eq!(storage.url("/no/such/").unwrap().as_str(), "file:///no/such/");
        assert_eq!(storage.url("memory:///t").unwrap().as_str(), "memory:///t");
    }

    #[test]
    fn an_unknown_scheme_is_named() {
        for location in ["hdfs://h/t", if cfg!(feature = "gcs") { "swift://h/t" } else { "gs://h/t" }] {
            let error = Storage::new().log_store(location).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.message().contains(&format!("`{}`", &location[..location.len() - 3])), "{error}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(shown("s3://user:secret@bucket/t?token=secret"), "s3://bucket/t");
        assert_eq!(shown("/tables/t"), "/tables/t");
        let azure = "abfss://books:secret@account.dfs.core.windows.net/t?sig=secret";
        assert_eq!(shown(azure), "abfss://books@account.dfs.core.windows.net/t");
        let options = BTreeMap::from([("aws_secret_access_key".to_string(), "secret".to_string())]);
        let text = format!("{:?}", Storage::new().with_options(options));
        assert!(text.contains("aws_secret_access_key") && !text.contains("\"secret\""), "{text}");
    }

    #[test]
    fn only_local_directories_are_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b c");
        Storage::new().create_directory(path.to_str().unwrap()).unwrap();
        assert!(path.is_dir());
        Storage::new().create_directory("memory:///no/such").unwrap();
        assert!(!FilePath::new("/no/such").exists());
    }

    #[tokio::test]
    async fn a_wrapper_sees_the_store() {
        let seen = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = seen.clone();
        let storage = Storage::new().with_wrapper(Arc::new(move |store| {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            store
        }));
        let dir = tempfile::tempdir().unwrap();
        let (_, url, path) = storage.object_store(dir.path().to_str().unwrap()).unwrap();
        storage.log_store(url.as_str()).unwrap();
        assert_eq!(seen.load(std::sync::atomic::Ordering::Relaxed), 2);
        assert_eq!(format!("/{path}"), dir.path().to_str().unwrap());
    }
}
