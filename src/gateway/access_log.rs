//! One line for each call, without messages and without tokens, and the counts of calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderMap;
use tonic::Code;

use super::activity::ConnectionInfo;
use super::metrics::Metrics;
use crate::clock::Stopwatch;

/// A call that is cancelled later than this is no attack.
const PATIENT: Duration = Duration::from_secs(1);

/// So many characters of a path that is not known are logged.
const MAX_PATH: usize = 200;

/// A call, from its start to its end. Dropped without an end it was cancelled.
#[derive(Debug)]
pub(super) struct CallRecord {
    metrics: Arc<Metrics>,
    connection: ConnectionInfo,
    method: Option<usize>,
    path: String,
    principal: Option<Arc<str>>,
    request_id: Arc<str>,
    messages: Arc<AtomicU64>,
    watch: Stopwatch,
    code: Option<Code>,
}

impl CallRecord {
    /// A call of `path` starts; `method` is its index when it is known.
    pub(super) fn start(
        metrics: Arc<Metrics>,
        connection: ConnectionInfo,
        method: Option<usize>,
        path: &str,
        request_id: Arc<str>,
    ) -> Self {
        connection.activity.call_started();
        metrics.calls.fetch_add(1, Ordering::Relaxed);
        Self {
            metrics,
            connection,
            method,
            path: path.chars().take(MAX_PATH).collect(),
            principal: None,
            request_id,
            messages: Arc::default(),
            watch: Stopwatch::start(),
            code: None,
        }
    }

    /// It is known who calls.
    pub(super) fn is_by(&mut self, principal: &Arc<str>) {
        self.principal = Some(Arc::clone(principal));
    }

    /// Where the messages of the client are counted.
    pub(super) fn messages(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.messages)
    }

    /// It has ended so.
    pub(super) fn end(&mut self, code: Code) {
        self.code.get_or_insert(code);
    }

    /// It has ended as the headers or trailers say, if they do.
    pub(super) fn end_by(&mut self, headers: &HeaderMap) {
        if let Some(status) = headers.get("grpc-status") {
            self.end(Code::from_bytes(status.as_bytes()));
        }
    }
}

impl Drop for CallRecord {
    fn drop(&mut self) {
        match self.code {
            Some(_) => self.connection.activity.call_ended(),
            // A subscription ends so, and a call whose client had no more patience.
            None if self.watch.elapsed() >= PATIENT => self.connection.activity.call_ended(),
            None => self.connection.activity.call_cancelled(),
        }
        let code = self.code.unwrap_or(Code::Cancelled);
        self.metrics.calls.fetch_sub(1, Ordering::Relaxed);
        self.metrics.ended(self.method, code);
        tracing::info!(
            target: "flumen::gateway::access",
            method = ?self.path,
            code = ?code,
            principal = ?self.principal.as_deref().unwrap_or("-"),
            peer = %self.connection.peer,
            request_id = %self.request_id,
            messages = self.messages.load(Ordering::Relaxed),
            milliseconds = u64::try_from(self.watch.elapsed().as_millis()).unwrap_or(u64::MAX),
            "call"
        );
    }
}
