//! `/metrics` over plain HTTP, for Prometheus.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tonic::body::Body;

use crate::error::{Error, Result};

/// Connections at once; others wait.
const CONNECTIONS: usize = 16;
/// How long a request may take to come.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the listener rests when the machine gives it no connection.
const REST: Duration = Duration::from_millis(50);

/// What a page says when somebody asks.
type Text = dyn Fn() -> String + Send + Sync;

/// A page that listens.
pub struct MetricsPage {
    listener: TcpListener,
    address: SocketAddr,
    text: Arc<Text>,
}

impl MetricsPage {
    /// Listens at `address` for requests, which `text` answers.
    ///
    /// # Errors
    /// `Unavailable` when the address cannot be had.
    pub async fn bind(address: SocketAddr, text: impl Fn() -> String + Send + Sync + 'static) -> Result<Self> {
        let listener = TcpListener::bind(address).await.map_err(|error| {
            Error::unavailable(format!("cannot listen for metrics at {address}; free the port, or name another"))
                .caused_by(error)
        })?;
        let address = listener.local_addr().unwrap_or(address);
        Ok(Self { listener, address, text: Arc::new(text) })
    }

    /// The address, with the port that was given when it was asked for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers for ever.
    pub async fn run(self) {
        let turns = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "no connection can be taken");
                    tokio::time::sleep(REST).await;
                    continue;
                }
            };
            let text = Arc::clone(&self.text);
            let respond = service_fn(move |request| {
                let response = respond(&request, &*text);
                async move { Ok::<_, Infallible>(response) }
            });
            tokio::spawn(async move {
                let mut protocol = http1::Builder::new();
                protocol.timer(TokioTimer::new()).header_read_timeout(PATIENCE).keep_alive(false);
                drop(protocol.serve_connection(TokioIo::new(stream), respond).await);
                drop(turn);
            });
        }
    }
}

fn respond(request: &Request<Incoming>, text: &Text) -> Response<Body> {
    let (status, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => (StatusCode::OK, text()),
        (&Method::GET, _) => (StatusCode::NOT_FOUND, "the metrics are at /metrics\n".to_owned()),
        _ => (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned()),
    };
    let mut response = Response::new(Body::new(http_body_util::Full::new(Bytes::from(body))));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

impl std::fmt::Debug for MetricsPage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MetricsPage").field("address", &self.address).finish_non_exhaustive()
    }
}
