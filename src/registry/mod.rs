//! Schema registries: from the id in a record's header to the schema that it was written with.
//!
//! The wire is Confluent's (<https://docs.confluent.io/platform/current/schema-registry/develop/api.html>): a schema is
//! asked for by its id, what it imports by subject and version. Schemas never change, so each is asked for once and
//! kept, in memory and, where there is a directory for it, on disk, from where a run without a registry reads it again.

mod cache;
mod client;
mod document;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

use self::cache::Cache;
use self::client::Client;
use self::document::{Document, Reference};
use crate::clock::Stopwatch;
use crate::error::{Error, Result};
use crate::pipeline::RegistrySpec;
use crate::schema::Descriptors;

/// The schemas that are known at once; a registry of more is not read.
const MAX_SCHEMAS: usize = 10_000;
/// The files that a schema may import, directly or not.
const MAX_FILES: usize = 200;
/// A schema that is not there may have been registered meanwhile: after so long it is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// A registry, and what it has answered.
#[derive(Debug)]
pub struct Registry {
    /// Where it is asked; none: only the cache is.
    client: Option<Client>,
    cache: Option<Cache>,
    known: RwLock<HashMap<u32, (Schema, Stopwatch)>>,
    /// Held while one asks, so that nobody asks for the same.
    asking: tokio::sync::Mutex<()>,
}

/// A schema of a registry.
#[derive(Debug, Clone)]
pub enum Schema {
    /// It was compiled; its own file is [`SCHEMA_FILE`].
    Compiled(Arc<Descriptors>),
    /// It is there, but it is not protobuf, or not complete: why.
    Invalid(Arc<str>),
    /// The registry does not know it.
    Unknown,
}

/// The name of a schema's own file in [`Schema::Compiled`]: none that another one imports it by.
pub const SCHEMA_FILE: &str = "(schema).proto";

impl Registry {
    /// A registry as declared; nothing is asked yet. One that is away is waited for `patience` long (`None`: for ever).
    ///
    /// # Errors
    /// `Invalid` when its certificates cannot be read.
    pub fn open(spec: &RegistrySpec, patience: Option<Duration>) -> Result<Self> {
        let client = if spec.urls.is_empty() { None } else { Some(Client::new(spec, patience)?) };
        let cache = spec.cache.clone().map(Cache::new);
        Ok(Self { client, cache, known: RwLock::default(), asking: tokio::sync::Mutex::default() })
    }

    /// What has been answered about the schema `id`.
    pub fn known(&self, id: u32) -> Option<Schema> {
        let known = self.known.read();
        let (schema, since) = known.get(&id)?;
        let stale = matches!(schema, Schema::Unknown) && since.elapsed() >= ASK_AGAIN;
        (!stale).then(|| schema.clone())
    }

    /// Makes sure that these schemas are known.
    ///
    /// # Errors
    /// `Unavailable` when the registry stays away; `Invalid` when it does not let us in or is no registry, and when a
    /// cache without a registry does not hold a schema.
    pub async fn learn(&self, ids: impl IntoIterator<Item = u32>) -> Result<()> {
        for id in ids {
            if self.known(id).is_some() {
                continue;
            }
            let _asking = self.asking.lock().await;
            if self.known(id).is_some() {
                continue;
            }
            let schema = self.schema(id).await?;
            if let Schema::Invalid(why) = &schema {
                tracing::warn!("{}: schema {id} cannot be used: {why}", self.place());
            }
            let mut known = self.known.write();
            if known.len() >= MAX_SCHEMAS {
                // Ids that are not there cost nothing to ask for again.
                known.retain(|_, (schema, _)| !matches!(schema, Schema::Unknown));
            }
            if known.len() >= MAX_SCHEMAS {
                return Err(Error::unavailable(format!(
                    "{}: the records name more than {MAX_SCHEMAS} schemas. Read fewer topics at once, or run it again",
                    self.place()
                )));
            }
            known.insert(id, (schema, Stopwatch::start()));
        }
        Ok(())
    }

    async fn schema(&self, id: u32) -> Result<Schema> {
        let Some(main) = self.document(&Place::Id(id)).await? else { return Ok(Schema::Unknown) };
        let invalid = |why: String| Ok(Schema::Invalid(why.into()));
        if let Some(other) = main.other_type() {
            return invalid(format!("it is {other}, not PROTOBUF"));
        }
        let mut texts = BTreeMap::from([(SCHEMA_FILE.to_string(), main.schema)]);
        let mut open: Vec<Reference> = main.references;
        while let Some(Reference { name, subject, version }) = open.pop() {
            if texts.contains_key(&name) {
                continue;
            }
            if texts.len() > MAX_FILES {
                return invalid(format!("it imports more than {MAX_FILES} files"));
            }
            let Some(document) = self.document(&Place::Version(&subject, version)).await? else {
                return invalid(format!("the registry does not know its import {name} (subject {subject} {version})"));
            };
            open.extend(document.references);
            texts.insert(name, document.schema);
        }
        let compiled = Descriptors::from_texts(SCHEMA_FILE, texts);
        compiled.map_or_else(|fault| invalid(fault.to_string()), |found| Ok(Schema::Compiled(Arc::new(found))))
    }

    /// What the cache holds, or else the registry answers; kept then.
    async fn document(&self, place: &Place<'_>) -> Result<Option<Document>> {
        if let Some(cache) = &self.cache
            && let Some(bytes) = cache.read(place)?
        {
            match (document::is_not_found(&bytes), &self.client) {
                (false, _) => return Document::read(&bytes).map(Some).map_err(|why| cache.broken(place, &why)),
                (true, None) => return Ok(None),
                // It may have been registered since.
                (true, Some(_)) => {}
            }
        }
        let Some(client) = &self.client else {
            return Err(Error::invalid(format!(
                "{}: it does not hold {place}, and no registry is named. Run once with `schema.registry.url`, which \
                 fills it",
                self.place()
            )));
        };
        let bytes = client.get(place).await?;
        let is_known = !document::is_not_found(&bytes);
        let document = is_known.then(|| Document::read(&bytes)).transpose();
        let document = document.map_err(|why| client.misunderstood(place, &why))?;
        if let Some(cache) = &self.cache {
            cache.write(place, &bytes)?;
        }
        Ok(document)
    }

    /// What it is, for messages.
    fn place(&self) -> String {
        match (&self.client, &self.cache) {
            (Some(client), _) => client.to_string(),
            (None, Some(cache)) => cache.to_string(),
            (None, None) => "schema registry".to_string(),
        }
    }
}

/// What is asked for.
#[derive(Debug)]
pub(crate) enum Place<'a> {
    /// A schema by its id.
    Id(u32),
    /// A version of a subject.
    Version(&'a str, i32),
}

impl Place<'_> {
    /// The parts of its path below the registry's address, not encoded yet.
    fn segments(&self) -> Vec<String> {
        let text = |part: &str| part.to_string();
        match self {
            Place::Id(id) => vec![text("schemas"), text("ids"), id.to_string()],
            Place::Version(subject, version) => {
                vec![text("subjects"), text(subject), text("versions"), version.to_string()]
            }
        }
    }
}

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Id(id) => write!(f, "schema {id}"),
            Place::Version(subject, version) => write!(f, "version {version} of subject {subject}"),
        }
    }
}
