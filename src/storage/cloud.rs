//! What the stores of all clouds have in common: which schemes there are, what a build must have for them, where
//! credentials are looked for, and their logs.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;

use deltalake::DeltaResult;
use deltalake::logstore::{
    LogStore, LogStoreFactory, ObjectStoreFactory, ObjectStoreRef, StorageConfig, default_logstore, logstore_factories,
    object_store_factories,
};
use object_store::ObjectStore;
use object_store::path::Path;
use url::Url;

use crate::error::Error;

/// A provider of stores.
struct Cloud {
    name: &'static str,
    schemes: &'static [&'static str],
    /// The cargo feature that a build must have; none for what every build has.
    feature: Option<&'static str>,
    credentials: &'static str,
}

/// Those that Flumen knows.
const CLOUDS: [Cloud; 3] = [
    Cloud { name: "S3", schemes: &["s3", "s3a"], feature: None, credentials: "AWS_ACCESS_KEY_ID, AWS_PROFILE, a role" },
    Cloud {
        name: "Google Cloud Storage",
        schemes: &["gs"],
        feature: Some("gcs"),
        credentials: "GOOGLE_APPLICATION_CREDENTIALS, GOOGLE_SERVICE_ACCOUNT, a role",
    },
    Cloud {
        name: "Azure Blob Storage",
        schemes: &["az", "adl", "azure", "abfs", "abfss"],
        feature: Some("azure"),
        credentials: "AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or AZURE_CLIENT_ID, a managed identity",
    },
];

fn of(scheme: &str) -> Option<&'static Cloud> {
    CLOUDS.iter().find(|cloud| cloud.schemes.contains(&scheme))
}

/// Where the credentials of a location's store are looked for.
pub(super) fn credentials(location: &str) -> &'static str {
    let scheme = location.split_once("://").map_or("", |(scheme, _)| scheme);
    of(scheme).map_or("those of the store", |cloud| cloud.credentials)
}

/// The error of a scheme that this build has no store for.
pub(super) fn missing(scheme: &str) -> Error {
    match of(scheme).and_then(|cloud| Some((cloud.name, cloud.feature?))) {
        Some((name, feature)) => Error::invalid(format!(
            "this build has no store for `{scheme}://` ({name}): build one that has it, with `cargo build --release \
             --features {feature}`"
        )),
        None => Error::invalid(format!(
            "this build has no store for `{scheme}://`; use a local path, file:// or s3://, or gs:// and az:// with \
             the features `gcs` and `azure`"
        )),
    }
}

/// Whether the user's name in a location of that scheme is no secret: Azure has the container there.
pub(super) fn has_container_as_user(scheme: &str) -> bool {
    matches!(scheme, "az" | "abfs" | "abfss")
}

/// Lets tables lie where one of these schemes leads.
pub(super) fn register(schemes: &[&str], stores: Arc<dyn ObjectStoreFactory>) {
    for scheme in schemes {
        let Ok(key) = Url::parse(&format!("{scheme}://")) else { continue };
        object_store_factories().insert(key.clone(), Arc::clone(&stores));
        logstore_factories().insert(key, Arc::new(Logs));
    }
}

/// Those of the options that a store knows, by its own keys.
pub(super) fn known<K: FromStr>(options: &HashMap<String, String>) -> impl Iterator<Item = (K, &str)> {
    options.iter().filter_map(|(key, value)| Some((key.to_lowercase().parse().ok()?, value.as_str())))
}

/// A store, and the place in it that `url` names.
pub(super) fn placed(store: impl ObjectStore, url: &Url) -> DeltaResult<(ObjectStoreRef, Path)> {
    Ok((Arc::new(store), Path::from_url_path(url.path()).map_err(object_store::Error::from)?))
}

/// Logs in stores that put a version only where none is.
struct Logs;

impl LogStoreFactory for Logs {
    fn with_options(
        &self,
        prefixed: ObjectStoreRef,
        root: ObjectStoreRef,
        location: &Url,
        options: &StorageConfig,
    ) -> DeltaResult<Arc<dyn LogStore>> {
        Ok(default_logstore(prefixed, root, location, options))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheme_without_a_store_says_how_to_get_one() {
        assert!(missing("gs").message().ends_with("`cargo build --release --features gcs`"));
        for scheme in ["az", "abfs", "abfss"] {
            assert!(missing(scheme).message().ends_with("`cargo build --release --features azure`"), "{scheme}");
        }
        assert!(missing("hdfs").message().contains("use a local path"));
    }

    #[test]
    fn credentials_are_those_of_the_cloud() {
        assert!(credentials("abfss://c@a.dfs.core.windows.net/t").starts_with("AZURE_"));
        assert!(credentials("gs://bucket/t").starts_with("GOOGLE_"));
        assert!(credentials("s3a://bucket/t").starts_with("AWS_"));
    }
}
