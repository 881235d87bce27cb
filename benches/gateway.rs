//! How fast the gateway is, beside a service of the same kind with generated code: tonic, prost and rdkafka, which
//! decodes a message, writes its time, encodes it and produces it. Both are processes of their own before the same
//! broker; `scripts/bench-gateway` starts that.
//!
//! ```text
//! gateway serve ADDRESS BROKERS TOPIC         the other service
//! gateway load BROKERS FLUMEN PROTO TOPIC     starts both, one after the other, and prints a table
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a benchmark"
)]

use std::convert::Infallible;
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use flumen::gateway::RawCodec;
use futures::{Stream, StreamExt, stream};
use prost::Message;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};
use tokio::sync::oneshot;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codegen::http;
use tonic::server::{NamedService, StreamingService, UnaryService};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const SERVICE: &str = "/ads.v1.ClickTrackService/";
/// Calls a second, for so long.
const RATE: u64 = 1_000;
const UNARY: Duration = Duration::from_secs(10);
/// Messages of all streams, and streams.
const MESSAGES: u64 = 600_000;
const STREAMS: u64 = 4;
const IDLE: usize = 5_000;

/// What prost generates for `ads.v1.AdImpression`.
#[derive(Clone, PartialEq, Message)]
struct AdImpression {
    #[prost(string, tag = "1")]
    ad_id: String,
    #[prost(string, tag = "2")]
    context_id: String,
    #[prost(string, tag = "3")]
    user_id: String,
    #[prost(string, tag = "4")]
    session_id: String,
    #[prost(message, optional, tag = "5")]
    impressed_at: Option<Timestamp>,
    #[prost(message, optional, tag = "6")]
    placement: Option<Placement>,
    #[prost(string, repeated, tag = "7")]
    labels: Vec<String>,
    #[prost(double, tag = "8")]
    bid: f64,
    #[prost(message, optional, tag = "9")]
    received_at: Option<Timestamp>,
}

#[derive(Clone, PartialEq, Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Placement {
    #[prost(string, tag = "1")]
    page: String,
    #[prost(int32, tag = "2")]
    slot: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Answer {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(string, tag = "3")]
    topic: String,
    #[prost(int32, tag = "4")]
    partition: i32,
    #[prost(int64, tag = "5")]
    offset: i64,
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp { seconds: since.as_secs() as i64, nanos: since.subsec_nanos() as i32 }
}

/// An impression of 120 bytes.
fn impression(number: u64) -> AdImpression {
    AdImpression {
        ad_id: format!("ad-{:05}", number % 10_000),
        context_id: format!("context-{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        user_id: format!("user-{:010}", number % 200_000),
        session_id: format!("session-{number:016x}"),
        impressed_at: Some(now()),
        placement: Some(Placement { page: format!("/page/{}", number % 500), slot: (number % 12) as i32 }),
        labels: Vec::new(),
        bid: (number % 10_000) as f64 / 1000.0,
        received_at: None,
    }
}

struct Deliveries;

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<oneshot::Sender<Result<(i32, i64), Status>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, told: Self::DeliveryOpaque) {
        drop(told.send(match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => Err(Status::unavailable(error.to_string())),
        }));
    }
}

/// The other service.
#[derive(Clone)]
struct Other {
    producer: Arc<ThreadedProducer<Deliveries>>,
    topic: Arc<str>,
}

impl Other {
    /// Hands a message over; what is awaited is the broker's acknowledgement.
    fn publish(
        &self,
        mut message: AdImpression,
    ) -> Result<impl Future<Output = Result<Answer, Status>> + Send + use<>, Status> {
        if message.ad_id.is_empty() || message.bid < 0.0 {
            return Err(Status::invalid_argument("ad_id is empty, or bid is negative"));
        }
        message.received_at = Some(now());
        let value = message.encode_to_vec();
        let (told, outcome) = oneshot::channel();
        let record =
            BaseRecord::with_opaque_to(&self.topic, Box::new(told)).key(message.ad_id.as_bytes()).payload(&value);
        self.producer.send(record).map_err(|(error, _)| Status::unavailable(error.to_string()))?;
        let topic = self.topic.to_string();
        Ok(async move {
            let (partition, offset) = outcome.await.map_err(|_| Status::internal("lost"))??;
            Ok(Answer { code: 0, message: String::new(), topic, partition, offset })
        })
    }
}

type Answers = Pin<Box<dyn Stream<Item = Result<Answer, Status>> + Send>>;

impl UnaryService<AdImpression> for Other {
    type Response = Answer;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Answer>, Status>> + Send>>;

    fn call(&mut self, request: Request<AdImpression>) -> Self::Future {
        let published = self.publish(request.into_inner());
        Box::pin(async move { Ok(Response::new(published?.await?)) })
    }
}

impl StreamingService<AdImpression> for Other {
    type Response = Answer;
    type ResponseStream = Answers;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Answers>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<AdImpression>>) -> Self::Future {
        let other = self.clone();
        let answers = request.into_inner().map(move |message| message.and_then(|message| other.publish(message)));
        let answers = answers.map(|published| async move { published?.await }).buffered(256);
        Box::pin(async move { Ok(Response::new(Box::pin(answers) as Answers)) })
    }
}

impl NamedService for Other {
    const NAME: &'static str = "ads.v1.ClickTrackService";
}

impl tower::Service<http::Request<Body>> for Other {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let other = self.clone();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Answer, AdImpression>::default());
            Ok(match request.uri().path().ends_with("/AdTrack") {
                true => grpc.unary(other, request).await,
                false => grpc.streaming(other, request).await,
            })
        })
    }
}

async fn serve(address: SocketAddr, brokers: &str, topic: &str) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("enable.idempotence", "true").set("acks", "all");
    config.set("linger.ms", "0.5").set("compression.codec", "lz4").set("queue.buffering.max.messages", "1000000");
    let producer = Arc::new(config.create_with_context(Deliveries).unwrap());
    Server::builder().add_service(Other { producer, topic: Arc::from(topic) }).serve(address).await.unwrap();
}

/// A service that runs, and ends with this value.
struct Process {
    child: Child,
    address: SocketAddr,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    async fn start(command: &mut Command, address: SocketAddr) -> Self {
        let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let process = Self { child, address };
        let limit = Instant::now() + Duration::from_secs(60);
        while std::net::TcpStream::connect(address).is_err() {
            assert!(Instant::now() < limit, "{address} never listens");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        process
    }

    async fn client(&self) -> Grpc<Channel> {
        Grpc::new(Endpoint::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap())
    }

    /// CPU-seconds so far.
    fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    }

    /// Bytes resident.
    fn memory(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1024.0
    }
}

/// How long calls of one message take: p50, p99, and CPU-seconds a call.
async fn unary(process: &Process) -> (f64, f64, f64) {
    let client = process.client().await;
    let calls = RATE * UNARY.as_secs();
    let (began, cpu) = (Instant::now(), process.cpu());
    let mut tasks = Vec::new();
    for number in 0..calls {
        let due = began + Duration::from_micros(number * 1_000_000 / RATE);
        tokio::time::sleep_until(due.into()).await;
        let mut client = client.clone();
        tasks.push(tokio::spawn(async move {
            let message = Bytes::from(impression(number).encode_to_vec());
            let sent = Instant::now();
            client.ready().await.unwrap();
            let path = http::uri::PathAndQuery::from_static("/ads.v1.ClickTrackService/AdTrack");
            client.unary(Request::new(message), path, RawCodec).await.unwrap();
            sent.elapsed().as_secs_f64()
        }));
    }
    let mut took = Vec::new();
    for task in tasks {
        took.push(task.await.unwrap());
    }
    took.sort_by(f64::total_cmp);
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize] * 1e3;
    (at(0.5), at(0.99), (process.cpu() - cpu) / calls as f64)
}

/// Messages a second, and a CPU-second of the service, on bidirectional streams.
async fn streams(process: &Process) -> (f64, f64) {
    let values: Arc<[Bytes]> = (0..10_000).map(|n| Bytes::from(impression(n).encode_to_vec())).collect();
    let (began, cpu) = (Instant::now(), process.cpu());
    let mut tasks = Vec::new();
    for _ in 0..STREAMS {
        let mut client = process.client().await;
        let values = Arc::clone(&values);
        tasks.push(tokio::spawn(async move {
            client.ready().await.unwrap();
            let messages =
                stream::iter((0..MESSAGES / STREAMS).map(move |n| values[n as usize % values.len()].clone()));
            let path = http::uri::PathAndQuery::from_static("/ads.v1.ClickTrackService/AdTrackStream");
            let mut answers = client.streaming(Request::new(messages), path, RawCodec).await.unwrap().into_inner();
            let mut count = 0;
            while answers.message().await.unwrap().is_some() {
                count += 1;
            }
            assert_eq!(count, MESSAGES / STREAMS);
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), process.cpu() - cpu);
    (MESSAGES as f64 / seconds, MESSAGES as f64 / cpu)
}

/// Bytes of an idle bidirectional stream, of a thousand on each connection.
async fn idle(process: &Process) -> f64 {
    let mut open = Vec::new();
    let before = process.memory();
    for connection in 0..IDLE / 1_000 {
        let client = process.client().await;
        for _ in 0..999 {
            let mut client = client.clone();
            client.ready().await.unwrap();
            let messages =
                stream::iter([Bytes::from(impression(connection as u64).encode_to_vec())]).chain(stream::pending());
            let path = format!("{SERVICE}AdTrackStream").parse().unwrap();
            let mut answers = client.streaming(Request::new(messages), path, RawCodec).await.unwrap().into_inner();
            answers.message().await.unwrap().unwrap();
            open.push(answers);
        }
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    (process.memory() - before) / open.len() as f64
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

async fn load(brokers: &str, flumen: &str, proto: &str, topic: &str) {
    println!(
        "|  | unary p50 ms | p99 ms | CPU µs a call | streamed messages/s | a CPU-second | bytes an idle stream |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for name in ["flumen gateway", "tonic, prost, rdkafka"] {
        let address = free();
        let mut command = if name == "flumen gateway" {
            let mut command = Command::new(flumen);
            command.args(["gateway", "--proto", proto, "--listen", &address.to_string(), "--brokers", brokers]);
            command
        } else {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["serve", &address.to_string(), brokers, topic]);
            command
        };
        let process = Process::start(&mut command, address).await;
        // The first calls make connections.
        streams(&process).await;
        let (p50, p99, call) = unary(&process).await;
        let (a_second, a_cpu_second) = streams(&process).await;
        let bytes = idle(&process).await;
        let micros = call * 1e6;
        println!("| {name} | {p50:.2} | {p99:.2} | {micros:.0} | {a_second:.0} | {a_cpu_second:.0} | {bytes:.0} |");
    }
}

#[tokio::main]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match &words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", address, brokers, topic] => serve(address.parse().unwrap(), brokers, topic).await,
        ["load", brokers, flumen, proto, topic] => load(brokers, flumen, proto, topic).await,
        _ => println!("run it by scripts/bench-gateway"),
    }
}
