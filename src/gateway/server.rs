//! The gateway's port.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, Request, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioExecutor;
use hyper_util::server::conn::auto::Builder;
use prost_reflect::DescriptorPool;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tonic_web::GrpcWebLayer;
use tower::{Layer, ServiceExt};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::activity::ConnectionInfo;
use super::calls::Bounds;
use super::connection::{self, Ended};
use super::drain::Drain;
use super::idempotency::{Idempotency, IdempotencyOptions, Recalling};
use super::limits::{LimitOptions, Rates};
use super::metrics::Metrics;
use super::principal::{Access, subject_of};
use super::publisher::Publisher;
use super::publishing::Means;
use super::queue::{Queue, QueueOptions};
use super::rules::GatewayPlan;
use super::service::{ForeignService, Gateway, Parts};
use super::subscriber::Subscriber;
use super::tls::{Tls, TlsOptions};
use crate::clock::Clock;
use crate::error::{Error, Result};

/// How long the listener rests when the machine gives it no connection.
const REST: Duration = Duration::from_millis(50);

/// A time that is longer is a mistake.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// For how long a browser may remember what is allowed.
const CORS_AGE: Duration = Duration::from_secs(3600);

/// How a gateway is served.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// The address. One that is not of this machine alone needs authentication, or `is_insecure`.
    pub listen: SocketAddr,
    /// Everybody who reaches the address may call.
    pub is_insecure: bool,
    /// TLS. None: plain text.
    pub tls: Option<TlsOptions>,
    /// The file of credentials. None: no tokens.
    pub credentials: Option<PathBuf>,
    /// The origins of web pages that may call, such as `https://ads.example`. `*` is all.
    pub cors: Vec<String>,
    /// Whether clients may ask for the descriptors.
    pub has_reflection: bool,
    /// The bounds of connections, calls and messages.
    pub limits: LimitOptions,
    /// The bounds of the records under way.
    pub queue: QueueOptions,
    /// The bounds of what is remembered by key.
    pub idempotency: IdempotencyOptions,
}

impl ServerOptions {
    /// The defaults, for that address.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            is_insecure: false,
            tls: None,
            credentials: None,
            cors: Vec::new(),
            has_reflection: false,
            limits: LimitOptions::default(),
            queue: QueueOptions::default(),
            idempotency: IdempotencyOptions::default(),
        }
    }
}

/// What a gateway works with.
#[derive(Debug)]
pub struct Services {
    /// Puts records into topics.
    pub publisher: Arc<dyn Publisher>,
    /// Gives rows. None: methods that subscribe are `UNIMPLEMENTED`.
    pub subscriber: Option<Arc<dyn Subscriber>>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// A gateway that listens, and serves as soon as it runs.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    port: Arc<Port>,
    health: HealthReporter,
    services: Vec<String>,
    idempotency: Arc<Idempotency>,
    subscriber: Option<Arc<dyn Subscriber>>,
}

/// What all connections share.
struct Port {
    gateway: Gateway,
    tls: Option<Tls>,
    cors: CorsLayer,
    protocol: Builder<TokioExecutor>,
    limits: LimitOptions,
    drain: Drain,
    metrics: Arc<Metrics>,
    queue: Arc<Queue>,
    connections: Arc<Semaphore>,
}

impl Server {
    /// Listens at the address. `pool` is what `plan` was made from, for reflection.
    ///
    /// # Errors
    /// `Invalid` when the options are wrong, or the address may not be served so; `Unavailable` when it cannot be had.
    pub async fn bind(
        options: ServerOptions,
        plan: &GatewayPlan,
        pool: &DescriptorPool,
        services: Services,
    ) -> Result<Self> {
        check(&options)?;
        let Services { publisher, subscriber, clock } = services;
        let has_authority = options.tls.as_ref().is_some_and(|tls| tls.client_authority.is_some());
        let access = Access::new(options.credentials.as_deref(), has_authority, Arc::clone(&clock))?;
        check_address(&options, &access)?;
        let tls = options.tls.as_ref().map(|tls| Tls::open(tls, Arc::clone(&clock))).transpose()?;
        let cors = cors(&options.cors)?;
        let limits = options.limits;
        let drain = Drain::new();
        let metrics = Arc::new(Metrics::new(plan.methods.iter().map(|method| Arc::from(method.path.as_str()))));
        let queue = Arc::new(Queue::new(publisher, options.queue));
        let idempotency = Arc::new(Idempotency::new(Arc::clone(&clock), options.idempotency));
        let means = Means {
            queue: Arc::clone(&queue),
            idempotency: Arc::clone(&idempotency),
            metrics: Arc::clone(&metrics),
            clock: Arc::clone(&clock),
        };
        let bounds = Bounds {
            drain: drain.clone(),
            rates: Arc::new(Rates::new(&limits)),
            clock,
            in_flight: limits.stream_messages,
            longest: limits.call,
        };
        let (health, mut foreign) = health();
        if options.has_reflection {
            add_reflection(pool, &mut foreign)?;
        }
        let message_bytes = limits.message_bytes;
        let rows = subscriber.clone();
        let gateway = Gateway::new(plan, Parts { access, bounds, means, subscriber, foreign, message_bytes });
        let listener = TcpListener::bind(options.listen).await.map_err(|error| {
            Error::unavailable(format!("cannot listen at {}; free the port, or listen at another", options.listen))
                .caused_by(error)
        })?;
        let address = listener.local_addr().unwrap_or(options.listen);
        let mut names: Vec<String> = plan.methods.iter().map(|method| method.service.clone()).collect();
        names.dedup();
        let protocol = connection::protocol(&limits);
        let connections = Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS)));
        let port = Port { gateway, tls, cors, protocol, limits, drain, metrics, queue, connections };
        let port = Arc::new(port);
        Ok(Self { listener, address, port, health, services: names, idempotency, subscriber: rows })
    }

    /// The address, with the port that was given when it was asked for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Messages with an idempotency key are `UNAVAILABLE` until it is told what was published before this process.
    pub fn recalling(&self) -> Recalling {
        self.idempotency.wait();
        Recalling(Arc::clone(&self.idempotency))
    }

    /// What is counted.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.port.metrics)
    }

    /// Serves until `shutdown` is over; then lets calls end. New ones are refused, what is under way is acknowledged,
    /// and streams end with `UNAVAILABLE`. Returns when all is done, or after [`LimitOptions::drain`].
    ///
    /// # Errors
    /// `Unavailable` when records were not acknowledged in that time.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<()> {
        let Self { listener, port, health, services, subscriber, .. } = self;
        set_health(&health, &services, ServingStatus::Serving).await;
        let mut connections = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => port.accepted(stream, peer, &mut connections),
                    Err(error) => {
                        tracing::warn!(%error, "no connection can be taken");
                        tokio::time::sleep(REST).await;
                    }
                },
            }
        }
        tracing::info!(connections = connections.len(), "the gateway shuts down");
        set_health(&health, &services, ServingStatus::NotServing).await;
        drop(listener);
        port.drain.start();
        subscriber.iter().for_each(|subscriber| subscriber.drain());
        let all = async { while connections.join_next().await.is_some() {} };
        let is_done = tokio::time::timeout(port.limits.drain, async {
            all.await;
            port.queue.is_empty().await;
        });
        let is_done = is_done.await.is_ok();
        connections.shutdown().await;
        let left = port.queue.length();
        if is_done || left == 0 {
            return Ok(());
        }
        Err(Error::unavailable(format!(
            "the gateway ended with {left} records that the broker has not acknowledged; their clients were not told \
             that they are published, and send them again"
        )))
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("address", &self.address)
            .field("services", &self.services)
            .finish_non_exhaustive()
    }
}

impl Port {
    /// Serves a connection in a task of its own, when there is room for it.
    fn accepted(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr, connections: &mut JoinSet<()>) {
        let Ok(permit) = Arc::clone(&self.connections).try_acquire_owned() else {
            self.metrics.refused_connections.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let port = Arc::clone(self);
        connections.spawn(async move {
            let open = OpenConnection::new(&port.metrics);
            if let Err(error) = port.connected(stream, peer).await {
                port.metrics.failed_handshakes.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%error, %peer, "no handshake");
            }
            drop((open, permit));
        });
    }

    async fn connected(&self, stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else {
            self.serve(stream, peer, None).await;
            return Ok(());
        };
        let handshake = TlsAcceptor::from(tls.current()).accept(stream);
        let stream = tokio::time::timeout(self.limits.handshake, handshake).await??;
        let certificates = stream.get_ref().1.peer_certificates();
        let subject = certificates.and_then(<[_]>::first).map(|certificate| {
            // One without a subject that can be read has the right authority, and no name.
            subject_of(certificate).unwrap_or_else(|| Arc::from(""))
        });
        self.serve(stream, peer, subject).await;
        Ok(())
    }

    async fn serve<I>(&self, stream: I, peer: SocketAddr, subject: Option<Arc<str>>)
    where
        I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let activity = connection::activity(&self.limits);
        let info = ConnectionInfo { peer, subject, activity: Arc::clone(&activity) };
        let service = self.cors.layer(GrpcWebLayer::new().layer(self.gateway.clone()));
        let service = service.map_request(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(info.clone());
            request
        });
        let ended = connection::serve(stream, service, &self.protocol, &self.limits, &activity, &self.drain).await;
        if ended == Ended::Abused {
            self.metrics.abused_connections.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%peer, "closed: too many calls were cancelled");
        }
    }
}

/// Counts a connection as long as it is open.
struct OpenConnection(Arc<Metrics>);

impl OpenConnection {
    fn new(metrics: &Arc<Metrics>) -> Self {
        metrics.connections.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(metrics))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

fn health() -> (HealthReporter, HashMap<&'static str, ForeignService>) {
    let (reporter, server) = tonic_health::server::health_reporter();
    (reporter, HashMap::from([named(server)]))
}

/// A service with its name.
fn named<S>(service: S) -> (&'static str, ForeignService)
where
    S: tower::Service<
            Request<tonic::body::Body>,
            Response = http::Response<tonic::body::Body>,
            Error = std::convert::Infallible,
        > + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    (S::NAME, ForeignService::new(service))
}

fn add_reflection(pool: &DescriptorPool, foreign: &mut HashMap<&'static str, ForeignService>) -> Result<()> {
    let files = pool.encode_to_vec();
    let builder = || tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(&files);
    let wrong = |error| Error::invalid("the descriptors cannot be shown; start without reflection").caused_by(error);
    foreign.extend([named(builder().build_v1().map_err(wrong)?), named(builder().build_v1alpha().map_err(wrong)?)]);
    Ok(())
}

async fn set_health(health: &HealthReporter, services: &[String], status: ServingStatus) {
    for service in services.iter().map(String::as_str).chain([""]) {
        health.set_service_status(service, status).await;
    }
}

/// What web pages may do.
fn cors(origins: &[String]) -> Result<CorsLayer> {
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        let parse = |origin: &String| {
            let is_origin = origin.split_once("://").is_some_and(|(_, host)| !host.is_empty() && !host.contains('/'));
            HeaderValue::from_str(origin).ok().filter(|_| is_origin).ok_or_else(|| {
                Error::invalid(format!(
                    "{origin:?} is no origin of web pages; write it as https://HOST or https://HOST:PORT"
                ))
            })
        };
        AllowOrigin::list(origins.iter().map(parse).collect::<Result<Vec<_>>>()?)
    };
    let name = HeaderName::from_static;
    let requested = [
        header::CONTENT_TYPE,
        header::AUTHORIZATION,
        name("grpc-timeout"),
        name("idempotency-key"),
        name("x-grpc-web"),
        name("x-user-agent"),
    ];
    let exposed = ["grpc-status", "grpc-message", "grpc-status-details-bin", "x-request-id"].map(name);
    Ok(CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::POST])
        .allow_headers(requested)
        .expose_headers(exposed)
        .max_age(CORS_AGE))
}

/// Refuses an address that others reach when everybody could call.
fn check_address(options: &ServerOptions, access: &Access) -> Result<()> {
    if options.is_insecure || options.listen.ip().is_loopback() {
        return Ok(());
    }
    if !access.is_required() {
        return Err(Error::invalid(format!(
            "{} can be reached from elsewhere and nobody would have to say who they are; listen at 127.0.0.1, give \
             credentials or a client authority, or say --insecure",
            options.listen
        )));
    }
    if options.tls.is_none() {
        tracing::warn!(listen = %options.listen, "tokens go over the network in plain text: give a certificate");
    }
    Ok(())
}

/// Refuses bounds with which nothing could be served.
fn check(options: &ServerOptions) -> Result<()> {
    let ServerOptions { limits, queue, idempotency, .. } = options;
    let numbers = [
        ("message bytes", limits.message_bytes),
        ("header bytes", limits.header_bytes as usize),
        ("window bytes", limits.window_bytes as usize),
        ("connections", limits.connections),
        ("streams", limits.streams as usize),
        ("messages of a stream", limits.stream_messages),
        ("principals", limits.principals),
        ("records", queue.records),
        ("bytes of records", queue.bytes),
        ("idempotency keys", idempotency.keys),
    ];
    let times = [
        ("handshake", limits.handshake),
        ("call", limits.call),
        ("idle", limits.idle),
        ("keep alive", limits.keep_alive),
        ("answer to keep alive", limits.keep_alive_answer),
        ("acknowledgement", queue.acknowledgement),
        ("idempotency window", idempotency.window),
    ];
    let none = numbers.iter().filter(|(_, number)| *number == 0).map(|(name, _)| *name);
    let none: Vec<_> = none.chain(times.iter().filter(|(_, time)| time.is_zero()).map(|(name, _)| *name)).collect();
    if !none.is_empty() {
        let none = none.join(", of ");
        return Err(Error::invalid(format!("the limit of {none} is 0, so that nothing could be served; raise it")));
    }
    match times.iter().chain(&[("drain", limits.drain), ("wait", queue.wait)]).find(|(_, time)| *time > LONGEST) {
        Some((name, _)) => Err(Error::invalid(format!("the limit of {name} is more than 365 days; lower it"))),
        None => Ok(()),
    }
}
