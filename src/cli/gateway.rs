//! `flumen gateway`: gRPC in and out, as the options of `.proto` files say.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::output::print_told;
use super::{Globals, Inputs, load, pair, run};
use crate::clock;
use crate::error::{Error, Result};
use crate::gateway::{
    self, GatewayPlan, IdempotencyOptions, KafkaPublisher, LimitOptions, MetricsPage, QueueOptions, Recalling,
    RuleFault, Server, ServerOptions, Services, Subscriber, Tables, TlsOptions,
};
use crate::kafka::KafkaConfig;
use crate::observe::grouped;
use crate::pipeline::{Environment, units};
use crate::schema::Descriptors;
use crate::storage::Storage;
use crate::subscribe::HubOptions;

/// How long brokers that are away are waited for at the start.
const BROKERS_PATIENCE: Duration = Duration::from_secs(300);

/// `flumen gateway --proto FILE… --listen ADDR --brokers B`.
#[derive(Debug, Args)]
pub(crate) struct GatewayVerb {
    /// The .proto files whose methods have the options of flumen/v1/gateway.proto
    #[arg(long, required = true, value_name = "FILE", num_args = 1..)]
    proto: Vec<PathBuf>,
    /// Where the files' imports are looked for, beside their own directories and proto/
    #[arg(long, value_name = "DIR")]
    include: Vec<PathBuf>,
    /// Where it listens. Beyond this machine it needs --credentials or --client-ca, or --insecure
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:50051")]
    listen: SocketAddr,
    /// The Kafka brokers, HOST:PORT[,HOST:PORT]; without them only methods that subscribe alone are served
    #[arg(long, value_name = "BROKERS")]
    brokers: Option<String>,
    /// A librdkafka property of the producer, as in --kafka compression.codec=zstd
    #[arg(long = "kafka", value_name = "NAME=VALUE", value_parser = pair)]
    kafka: Vec<(String, String)>,
    /// Prometheus metrics at http://ADDR/metrics
    #[arg(long, value_name = "ADDR")]
    metrics: Option<SocketAddr>,
    #[command(flatten)]
    security: Security,
    #[command(flatten)]
    limits: Limits,
}

/// Who may call.
#[derive(Debug, Args)]
#[command(next_help_heading = "Who may call")]
struct Security {
    /// The server's certificate and those that signed it, PEM; read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Clients need a certificate that one of these authorities signed, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    client_ca: Option<PathBuf>,
    /// Clients may come without a certificate when they have a token
    #[arg(long, requires_all = ["client_ca", "credentials"])]
    client_cert_optional: bool,
    /// Who may call what: lines of name, `sha256` and the hash of a token or `subject` and that of a certificate, and
    /// methods
    #[arg(long, value_name = "FILE")]
    credentials: Option<PathBuf>,
    /// Serve everybody who reaches the address
    #[arg(long)]
    insecure: bool,
    /// Web pages of this origin may call by gRPC-Web, such as https://ads.example; `*` is every one
    #[arg(long, value_name = "ORIGIN")]
    cors: Vec<String>,
    /// Clients may ask for the descriptors (gRPC reflection)
    #[arg(long)]
    reflection: bool,
}

/// The bounds.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
struct Limits {
    /// Of one message
    #[arg(long, value_name = "SIZE", default_value = "4 MiB", value_parser = units::bytes)]
    max_message: u64,
    /// Open connections; one more is closed at once
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    max_connections: usize,
    /// Calls at once on one connection
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    max_streams: u32,
    /// Messages of one stream that are not acknowledged yet
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_in_flight: usize,
    /// Messages a second of one caller; 0 is no limit
    #[arg(long, value_name = "N", default_value_t = 0)]
    rate: u32,
    /// How long a call of one message may take
    #[arg(long, value_name = "DURATION", default_value = "60 seconds", value_parser = units::duration)]
    call_timeout: Duration,
    /// After how long without a call a connection is closed
    #[arg(long, value_name = "DURATION", default_value = "5 minutes", value_parser = units::duration)]
    idle_timeout: Duration,
    /// How long calls may go on after a signal to end
    #[arg(long, value_name = "DURATION", default_value = "30 seconds", value_parser = units::duration)]
    drain_timeout: Duration,
    /// Records that the brokers have not acknowledged
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    max_queued: usize,
    /// Their bytes
    #[arg(long, value_name = "SIZE", default_value = "64 MiB", value_parser = units::bytes)]
    max_queued_bytes: u64,
    /// How long a message waits for room in that queue
    #[arg(long, value_name = "DURATION", default_value = "1 second", value_parser = units::duration)]
    queue_timeout: Duration,
    /// How long a call waits for the brokers' acknowledgement
    #[arg(long, value_name = "DURATION", default_value = "30 seconds", value_parser = units::duration)]
    acknowledge_timeout: Duration,
    /// How long an idempotency-key is remembered
    #[arg(long, value_name = "DURATION", default_value = "10 minutes", value_parser = units::duration)]
    idempotency_window: Duration,
    /// How many of them
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    idempotency_keys: usize,
    /// Subscribers of one table at once
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    max_subscribers: usize,
    /// Recent rows of one table that its subscribers share
    #[arg(long, value_name = "SIZE", default_value = "64 MiB", value_parser = units::bytes)]
    shared_rows: u64,
    /// How long a subscriber may take nothing before it is sent back to its cursor
    #[arg(long, value_name = "DURATION", default_value = "30 seconds", value_parser = units::duration)]
    stall_timeout: Duration,
    /// How long a table's store may be away before its subscriptions end
    #[arg(long, value_name = "DURATION", default_value = "30 seconds", value_parser = units::duration)]
    outage_timeout: Duration,
}

impl GatewayVerb {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        let environment = load::environment(&load::root(globals)?, &Inputs::default());
        let descriptors = load::descriptors(&environment, &self.proto, &self.include)?;
        let plan = plan(&descriptors)?;
        let storage = Storage::new();
        let tables = Tables::open(&plan, |table| located(&environment, table), &storage, &self.limits.hub())?;
        let tables = Arc::new(tables);
        let services = Services {
            publisher: self.publisher(&plan, &environment)?,
            subscriber: Some(Arc::clone(&tables) as Arc<dyn Subscriber>),
            clock: clock::system(),
        };
        let server = Server::bind(self.options(&environment), &plan, descriptors.pool(), services).await?;
        let recalling = self.recall(server.recalling(), &plan, &environment);
        let counted = server.metrics();
        let page = match self.metrics {
            Some(address) => {
                let text = move || counted.to_prometheus() + &tables.to_prometheus();
                Some(MetricsPage::bind(address, text).await?)
            }
            None => None,
        };
        announce(&server, &plan, page.as_ref());
        let page = page.map(|page| tokio::spawn(page.run()));
        let ended = server.run(async { drop(run::signal().await) });
        let result = tokio::select! {
            result = ended => result,
            killed = second_signal() => killed,
            // It ends only when it fails.
            Err(error) = recalling => Err(error),
        };
        page.iter().for_each(tokio::task::JoinHandle::abort);
        result
    }

    /// Learns the keys of what was published before.
    async fn recall(&self, recalling: Recalling, plan: &GatewayPlan, environment: &Environment) -> Result<()> {
        let topics: BTreeSet<String> =
            plan.methods.iter().filter_map(|method| method.publish().map(|publish| publish.topic.clone())).collect();
        let topics: Vec<String> = topics.into_iter().collect();
        let known = match &self.brokers {
            Some(brokers) if !topics.is_empty() => {
                let since = clock::system().now() - self.limits.idempotency_window;
                gateway::recall(&self.kafka(brokers, environment)?, &topics, since, BROKERS_PATIENCE).await?
            }
            _ => Vec::new(),
        };
        match recalling.is(known) {
            0 => {}
            keys => print_told(&format!("gateway: knows {} idempotency keys of before", grouped(keys as u64))),
        }
        Ok(())
    }

    fn kafka(&self, brokers: &str, environment: &Environment) -> Result<KafkaConfig> {
        KafkaConfig::for_producer(&environment.fill(brokers)?, &load::filled(environment, &self.kafka)?)
    }

    fn publisher(&self, plan: &GatewayPlan, environment: &Environment) -> Result<Arc<dyn gateway::Publisher>> {
        let publishes = plan.methods.iter().find(|method| method.publish().is_some());
        match (&self.brokers, publishes) {
            (Some(brokers), _) => Ok(Arc::new(KafkaPublisher::new(self.kafka(brokers, environment)?)?)),
            (None, None) => Ok(Arc::new(gateway::NoPublisher)),
            (None, Some(method)) => Err(Error::invalid(format!(
                "{} publishes to Kafka and no brokers are named; say --brokers HOST:PORT",
                method.path
            ))),
        }
    }

    fn options(&self, environment: &Environment) -> ServerOptions {
        let path = |path: &PathBuf| environment.resolve(&path.to_string_lossy());
        let Security { tls_cert, tls_key, client_ca, client_cert_optional, .. } = &self.security;
        let tls = tls_cert.as_ref().zip(tls_key.as_ref()).map(|(certificate, key)| TlsOptions {
            certificate: path(certificate),
            key: path(key),
            client_authority: client_ca.as_ref().map(path),
            is_client_certificate_optional: *client_cert_optional,
        });
        ServerOptions {
            is_insecure: self.security.insecure,
            tls,
            credentials: self.security.credentials.as_ref().map(path),
            cors: self.security.cors.clone(),
            has_reflection: self.security.reflection,
            limits: self.limits.calls(),
            queue: self.limits.queue(),
            idempotency: IdempotencyOptions {
                window: self.limits.idempotency_window,
                keys: self.limits.idempotency_keys,
            },
            ..ServerOptions::new(self.listen)
        }
    }
}

impl Limits {
    fn calls(&self) -> LimitOptions {
        LimitOptions {
            message_bytes: whole(self.max_message),
            connections: self.max_connections,
            streams: self.max_streams,
            stream_messages: self.max_in_flight,
            rate: self.rate,
            call: self.call_timeout,
            idle: self.idle_timeout,
            drain: self.drain_timeout,
            ..LimitOptions::default()
        }
    }

    fn queue(&self) -> QueueOptions {
        QueueOptions {
            records: self.max_queued,
            bytes: whole(self.max_queued_bytes),
            wait: self.queue_timeout,
            acknowledgement: self.acknowledge_timeout,
        }
    }

    fn hub(&self) -> HubOptions {
        HubOptions {
            max_subscribers: self.max_subscribers,
            ring_bytes: whole(self.shared_rows),
            message_bytes: whole(self.max_message),
            stall_limit: self.stall_timeout,
            outage_limit: self.outage_timeout,
            ..HubOptions::default()
        }
    }
}

fn whole(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// A table's location: a URL stays, a path is relative to the root.
pub(super) fn located(environment: &Environment, table: &str) -> String {
    if table.contains("://") {
        return table.to_owned();
    }
    environment.resolve(table).to_string_lossy().into_owned()
}

/// What is done with the methods.
///
/// # Errors
/// `Invalid` with every fault of the rules.
pub(super) fn plan(descriptors: &Descriptors) -> Result<GatewayPlan> {
    gateway::plan(descriptors.pool()).map_err(|faults| {
        let lines: Vec<String> = faults.iter().map(RuleFault::to_string).collect();
        Error::invalid(lines.join("\n"))
    })
}

/// Says what is served, and where.
fn announce(server: &Server, plan: &GatewayPlan, page: Option<&MetricsPage>) {
    for method in &plan.methods {
        let to = method.publish().map(|publish| format!(" -> topic {}", publish.topic)).unwrap_or_default();
        let from = method.subscribe().map(|subscribe| format!(" <- table {}", subscribe.table)).unwrap_or_default();
        print_told(&format!("gateway: {}{to}{from}", method.path));
    }
    if let Some(page) = page {
        print_told(&format!("gateway: metrics at http://{}/metrics", page.address()));
    }
    print_told(&format!("gateway: serves at {}", server.address()));
}

/// The second signal ends it at once.
async fn second_signal() -> Result<()> {
    run::signal().await?;
    run::signal().await?;
    Err(Error::unavailable(
        "ended at once by a second signal; clients whose messages were not acknowledged send them again",
    ))
}
