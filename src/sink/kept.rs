//! What lies beside the data: files by content hash under `_flumen/`, and what the last commit says of itself.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat};
use futures::TryStreamExt as _;
use object_store::{ObjectStore as _, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::sink::DeltaSink;
use crate::storage;

/// Commits that are looked through for the last one of a query.
const LOOKED_THROUGH: u64 = 20;

/// The last commit of a query that the log still holds.
#[derive(Debug, Clone)]
pub struct LastCommit {
    /// Its version.
    pub version: u64,
    /// When it was made, RFC 3339.
    pub time: String,
    /// The object `flumen` of its `commitInfo`.
    pub flumen: Value,
}

impl LastCommit {
    /// Name and version of each lookup that it used.
    pub fn lookups(&self) -> BTreeMap<String, String> {
        self.named("lookups", "table", "version")
    }

    /// Name and SHA-256 of each model that it used.
    pub fn models(&self) -> BTreeMap<String, String> {
        self.named("models", "name", "sha256")
    }

    fn named(&self, list: &str, key: &str, value: &str) -> BTreeMap<String, String> {
        let entries = self.flumen.get(list).and_then(Value::as_array).into_iter().flatten();
        let text = |entry: &Value, key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
        entries.filter_map(|entry| Some((text(entry, key)?, text(entry, value)?))).collect()
    }
}

impl DeltaSink {
    /// Keeps a file beside the table, under a name that its content decides; a file that is there stays.
    ///
    /// # Errors
    /// `Unavailable` when the store fails.
    pub async fn keep_file(&self, name: &str, content: &[u8]) -> Result<()> {
        self.storage.create_directory(&self.spec.location)?;
        let (store, _, root) = self.storage.object_store(&self.spec.location)?;
        let path = name.split('/').fold(root, |path, part| path.join(part));
        let payload = PutPayload::from(content.to_vec());
        match store.put_opts(&path, payload, PutOptions::from(PutMode::Create)).await {
            Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
            Err(error) => Err(storage::failed(&self.location(), &format!("{name} could not be written"), error)),
        }
    }

    /// The descriptor set that was kept with [`hash63`](crate::sink::hash63) `hash`; none when somebody removed it.
    ///
    /// # Errors
    /// `Unavailable` when the store fails.
    pub async fn kept_descriptors(&self, hash: i64) -> Result<Option<Vec<u8>>> {
        let (store, _, root) = self.storage.object_store(&self.spec.location)?;
        let failed = |error: object_store::Error| {
            Error::unavailable(format!(
                "table `{}`: _flumen/ could not be read; check the store and run again",
                self.location()
            ))
            .caused_by(error)
        };
        let kept: Vec<_> = store.list(Some(&root.join("_flumen"))).try_collect().await.map_err(failed)?;
        let first = |name: &str| u64::from_str_radix(name.get(..16)?, 16).ok();
        let is_it = |name: &str| name.ends_with(".binpb") && first(name).is_some_and(|n| (n >> 1) as i64 == hash);
        let Some(file) = kept.iter().find(|file| file.location.filename().is_some_and(is_it)) else { return Ok(None) };
        let found = store.get(&file.location).await.map_err(failed)?;
        Ok(Some(found.bytes().await.map_err(failed)?.to_vec()))
    }

    /// The last commit of this sink's query among the newest versions; none when others have written all of those.
    ///
    /// # Errors
    /// `Unavailable` when the store fails.
    pub async fn last_commit(&self) -> Result<Option<LastCommit>> {
        self.last_commit_with("query").await
    }

    /// The last one that says what the query used, which one that only maintains the table does not.
    ///
    /// # Errors
    /// `Unavailable` when the store fails.
    pub async fn last_written(&self) -> Result<Option<LastCommit>> {
        self.last_commit_with("models").await
    }

    async fn last_commit_with(&self, key: &str) -> Result<Option<LastCommit>> {
        let Some(newest) = self.version() else { return Ok(None) };
        for version in (newest.saturating_sub(LOOKED_THROUGH)..=newest).rev() {
            let Some(info) = self.log.commit_info(version).await? else { continue };
            let Some(flumen) = info.get("flumen") else { continue };
            let of = |key: &str| flumen.get(key).and_then(Value::as_str).unwrap_or_default();
            let is_ours = of("pipeline") == self.owner.pipeline && of("query") == self.owner.query;
            if is_ours && flumen.get(key).is_some() {
                let millis = info.get("timestamp").and_then(Value::as_i64).unwrap_or_default();
                let time = DateTime::from_timestamp_millis(millis).unwrap_or_default();
                let time = time.to_rfc3339_opts(SecondsFormat::Millis, true);
                return Ok(Some(LastCommit { version, time, flumen: flumen.clone() }));
            }
        }
        Ok(None)
    }
}
