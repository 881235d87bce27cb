//! A registry over HTTP. While it is away it is asked again, with growing pauses, at each of its addresses in turn.

use std::fmt;
use std::time::Duration;

use reqwest::{Certificate, StatusCode};
use url::Url;

use super::{Place, document};
use crate::clock::Stopwatch;
use crate::error::{Error, Result};
use crate::kafka::Presence;
use crate::pipeline::{RegistryAuth, RegistrySpec};
use crate::storage;

/// The time limit of a connection, and of a whole request.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const REQUEST_LIMIT: Duration = Duration::from_secs(30);
/// The pause after a failed request; each further one is twice as long, up to [`LAST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// An answer of more bytes is no schema.
const MAX_ANSWER: usize = 16 << 20;
/// The media type of the API's version.
const ACCEPT: &str = "application/vnd.schemaregistry.v1+json, application/json";

/// Asks a registry.
pub(super) struct Client {
    http: reqwest::Client,
    urls: Vec<Url>,
    auth: Option<RegistryAuth>,
    presence: Presence,
    patience: Option<Duration>,
}

/// Why a request has no answer.
enum Failure {
    /// It may have one later.
    Passing(String),
    /// It never will.
    Final(Error),
}

impl Client {
    /// A client for the declared addresses.
    ///
    /// # Errors
    /// `Invalid` when the certificates cannot be read.
    pub(super) fn new(spec: &RegistrySpec, patience: Option<Duration>) -> Result<Self> {
        let mut builder = reqwest::Client::builder().connect_timeout(CONNECT_LIMIT).timeout(REQUEST_LIMIT);
        builder = builder.user_agent(concat!("flumen/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &spec.ca {
            let invalid = |why: String| {
                Error::invalid(format!("`schema.registry.ssl.ca.location`: {}: {why}. Name a PEM file", path.display()))
            };
            let pem = std::fs::read(path).map_err(|e| invalid(e.to_string()))?;
            let certificates = Certificate::from_pem_bundle(&pem).map_err(|e| invalid(e.to_string()))?;
            if certificates.is_empty() {
                return Err(invalid("it holds no certificate".to_string()));
            }
            builder = certificates.into_iter().fold(builder, reqwest::ClientBuilder::add_root_certificate);
        }
        let http = builder.build().map_err(|e| {
            Error::unavailable("no HTTP client can be made for the schema registry: run it again").caused_by(e)
        })?;
        let presence = Presence::new(format!("schema registry {}", shown(&spec.urls)));
        Ok(Self { http, urls: spec.urls.clone(), auth: spec.auth.clone(), presence, patience })
    }

    /// The registry's answer, which may be that it does not know what is asked for.
    ///
    /// # Errors
    /// `Unavailable` when it stays away; `Invalid` when it does not let us in or is no registry.
    pub(super) async fn get(&self, place: &Place<'_>) -> Result<Vec<u8>> {
        let asked = Stopwatch::start();
        let mut pause = FIRST_PAUSE;
        loop {
            let mut reason = String::new();
            for base in &self.urls {
                match self.ask(base, place).await {
                    Ok(answer) => {
                        self.presence.back();
                        return Ok(answer);
                    }
                    Err(Failure::Final(error)) => return Err(error),
                    Err(Failure::Passing(why)) => reason = why,
                }
            }
            self.presence.gone(&reason);
            if let Some(limit) = self.patience.filter(|limit| asked.elapsed() >= *limit) {
                return Err(Error::unavailable(format!(
                    "{self} is away: {reason}; waited {:.0} s for {place} (`flumen.broker_timeout`). Nothing of this \
                     micro-batch was committed; run it again when it is back",
                    limit.as_secs_f64()
                )));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// One request to one address.
    async fn ask(&self, base: &Url, place: &Place<'_>) -> Result<Vec<u8>, Failure> {
        let mut url = base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(place.segments());
        }
        let mut request = self.http.get(url).header("Accept", ACCEPT);
        request = match &self.auth {
            Some(RegistryAuth::Basic(user, password)) => request.basic_auth(user, Some(password)),
            Some(RegistryAuth::Bearer(token)) => request.bearer_auth(token),
            None => request,
        };
        let passing = |e: reqwest::Error| Failure::Passing(in_words(e));
        let mut response = request.send().await.map_err(passing)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(passing)? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(Failure::Final(self.misunderstood(place, &format!("more than {MAX_ANSWER} bytes"))));
            }
            body.extend_from_slice(&chunk);
        }
        self.judge(status, body, place)
    }

    fn judge(&self, status: StatusCode, body: Vec<u8>, place: &Place<'_>) -> Result<Vec<u8>, Failure> {
        match status.as_u16() {
            200 => Ok(body),
            404 if document::is_not_found(&body) => Ok(body),
            401 | 403 => Err(Failure::Final(Error::invalid(format!(
                "{self} does not let us in: it answers {status} to {place}. Mend \
                 `schema.registry.basic.auth.user.info` or `schema.registry.bearer.auth.token`"
            )))),
            408 | 425 | 429 | 500.. => Err(Failure::Passing(format!("it answers {status}"))),
            _ => Err(Failure::Final(self.misunderstood(place, &status.to_string()))),
        }
    }

    /// The error of an answer that no registry gives.
    pub(super) fn misunderstood(&self, place: &Place<'_>, why: &str) -> Error {
        Error::invalid(format!("{self} is no schema registry: it answers {why} to {place}. Mend `schema.registry.url`"))
    }
}

/// The innermost cause says most; the address, which may hold a password, is left out.
fn in_words(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// The addresses without user and password.
fn shown(urls: &[Url]) -> String {
    let shown: Vec<String> = urls.iter().map(|url| storage::shown(url.as_str())).collect();
    shown.join(",")
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "schema registry {}", shown(&self.urls))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("urls", &shown(&self.urls)).finish_non_exhaustive()
    }
}
