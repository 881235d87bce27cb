//! Azure Blob Storage and Data Lake Gen 2 (the cargo feature `azure`). The account and the credentials come from the
//! environment (`AZURE_STORAGE_ACCOUNT_NAME`, `AZURE_STORAGE_ACCOUNT_KEY`, `AZURE_CLIENT_ID`, …), from the machine's
//! identity, or the account from the location. A version of a table is put only where none is (`If-None-Match`).

use std::collections::HashMap;
use std::sync::Arc;

use deltalake::logstore::{ObjectStoreFactory, ObjectStoreRef, StorageConfig};
use deltalake::{DeltaResult, DeltaTableError};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::path::Path;
use url::Url;

use super::cloud;

/// Lets tables lie in Azure.
pub(super) fn register() {
    cloud::register(&["az", "adl", "azure", "abfs", "abfss"], Arc::new(Azure));
}

struct Azure;

impl ObjectStoreFactory for Azure {
    fn parse_url_opts(&self, url: &Url, config: &StorageConfig) -> DeltaResult<(ObjectStoreRef, Path)> {
        cloud::placed(builder(url, &config.raw).build().map_err(DeltaTableError::from)?, url)
    }
}

/// The container of `url`; options win over the environment.
fn builder(url: &Url, options: &HashMap<String, String>) -> MicrosoftAzureBuilder {
    let builder = MicrosoftAzureBuilder::from_env().with_url(url.as_str());
    cloud::known(options).fold(builder, |builder, (key, value)| builder.with_config(key, value))
}

#[cfg(test)]
mod tests {
    use object_store::azure::AzureConfigKey;

    use super::*;

    #[test]
    fn options_have_the_names_of_the_store() {
        let options = [("AZURE_STORAGE_ACCOUNT_NAME", "books"), ("no_such_option", "1")];
        let options = options.map(|(key, value)| (key.to_string(), value.to_string())).into();
        let builder = builder(&Url::parse("az://landed/t").unwrap(), &options);
        assert_eq!(builder.get_config_value(&AzureConfigKey::AccountName).as_deref(), Some("books"));
    }

    #[test]
    fn the_location_may_name_the_account() {
        let url = Url::parse("abfss://landed@books.dfs.core.windows.net/t").unwrap();
        let key = ("azure_storage_account_key".to_string(), "aGlkZGVu".to_string());
        let store = builder(&url, &[key].into()).build().unwrap();
        assert_eq!(store.to_string(), "MicrosoftAzure { account: books, container: landed }");
    }
}
