//! Google Cloud Storage (the cargo feature `gcs`). Credentials come from the environment (`GOOGLE_SERVICE_ACCOUNT`,
//! `GOOGLE_APPLICATION_CREDENTIALS`, …), from what `gcloud` has put down, or from the machine's role. A version of a
//! table is put only where none is (`x-goog-if-generation-match: 0`).

use std::collections::HashMap;
use std::sync::Arc;

use deltalake::logstore::{ObjectStoreFactory, ObjectStoreRef, StorageConfig};
use deltalake::{DeltaResult, DeltaTableError};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use url::Url;

use super::cloud;

/// Lets tables lie in Google Cloud Storage.
pub(super) fn register() {
    cloud::register(&["gs"], Arc::new(Gcs));
}

struct Gcs;

impl ObjectStoreFactory for Gcs {
    fn parse_url_opts(&self, url: &Url, config: &StorageConfig) -> DeltaResult<(ObjectStoreRef, Path)> {
        cloud::placed(builder(url, &config.raw).build().map_err(DeltaTableError::from)?, url)
    }
}

/// The bucket of `url`; options win over the environment.
fn builder(url: &Url, options: &HashMap<String, String>) -> GoogleCloudStorageBuilder {
    let builder = GoogleCloudStorageBuilder::from_env().with_url(url.as_str());
    cloud::known(options).fold(builder, |builder, (key, value)| builder.with_config(key, value))
}

#[cfg(test)]
mod tests {
    use object_store::gcp::GoogleConfigKey;

    use super::*;

    #[test]
    fn options_have_the_names_of_the_store() {
        let options = [("GOOGLE_SERVICE_ACCOUNT", "/keys/books.json"), ("no_such_option", "1")];
        let options = options.map(|(key, value)| (key.to_string(), value.to_string())).into();
        let builder = builder(&Url::parse("gs://books/landed").unwrap(), &options);
        let value = builder.get_config_value(&GoogleConfigKey::ServiceAccount);
        assert_eq!(value.as_deref(), Some("/keys/books.json"));
    }
}
