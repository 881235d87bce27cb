//! A gateway that runs, and clients for it that are made of bytes.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::DateTime;
use flumen::clock::SetClock;
use flumen::error::Result as GatewayResult;
use flumen::gateway::{
    GatewayPlan, MemoryPublisher, Metrics, RawCodec, Record, Server, ServerOptions, Services, Subscriber, plan,
};
use flumen::schema::Descriptors;
use futures::Stream;
use prost::Message;
use prost_reflect::DescriptorPool;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::client::Grpc;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};

pub const SERVICE: &str = "/ads.v1.ClickTrackService/";

/// `ads.v1.AdImpression`, with a field that its `.proto` does not know.
#[derive(Clone, PartialEq, Message)]
pub struct Impression {
    #[prost(string, tag = "1")]
    pub ad_id: String,
    #[prost(string, tag = "3")]
    pub user_id: String,
    #[prost(double, tag = "8")]
    pub bid: f64,
    #[prost(message, optional, tag = "9")]
    pub received_at: Option<Timestamp>,
    #[prost(string, tag = "900")]
    pub unknown: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Timestamp {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// `ads.v1.Response`.
#[derive(Clone, PartialEq, Message)]
pub struct Answer {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
    #[prost(string, tag = "3")]
    pub topic: String,
    #[prost(int32, tag = "4")]
    pub partition: i32,
    #[prost(int64, tag = "5")]
    pub offset: i64,
}

pub fn impression(ad_id: &str) -> Bytes {
    Impression { ad_id: ad_id.into(), unknown: "kept".into(), ..Impression::default() }.encode_to_vec().into()
}

pub fn answer(bytes: &[u8]) -> Answer {
    Answer::decode(bytes).unwrap()
}

pub fn ads() -> (DescriptorPool, GatewayPlan) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/ads/v1/ads.proto");
    let pool = Descriptors::compile(&[file], &[]).unwrap().pool().clone();
    let plan = plan(&pool).unwrap();
    (pool, plan)
}

/// A gateway that runs until this is dropped.
pub struct Running {
    pub address: SocketAddr,
    pub publisher: Arc<MemoryPublisher>,
    pub clock: Arc<SetClock>,
    pub metrics: Arc<Metrics>,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<GatewayResult<()>>,
}

pub fn local() -> ServerOptions {
    ServerOptions::new("127.0.0.1:0".parse().unwrap())
}

/// A gateway with those options, changed.
pub async fn gateway(change: impl FnOnce(&mut ServerOptions)) -> Running {
    gateway_with(None, change).await
}

pub async fn gateway_with(subscriber: Option<Arc<dyn Subscriber>>, change: impl FnOnce(&mut ServerOptions)) -> Running {
    let (pool, plan) = ads();
    gateway_of(pool, plan, subscriber, change).await
}

/// A gateway of other messages.
pub async fn gateway_of(
    pool: DescriptorPool,
    plan: GatewayPlan,
    subscriber: Option<Arc<dyn Subscriber>>,
    change: impl FnOnce(&mut ServerOptions),
) -> Running {
    let mut options = local();
    change(&mut options);
    let publisher = Arc::new(MemoryPublisher::new(2));
    let clock = Arc::new(SetClock::default());
    clock.set(DateTime::from_timestamp(1_700_000_000, 5000).unwrap());
    let services = Services {
        publisher: Arc::<MemoryPublisher>::clone(&publisher),
        subscriber,
        clock: Arc::<SetClock>::clone(&clock),
    };
    let server = Server::bind(options, &plan, &pool, services).await.unwrap();
    let (address, metrics) = (server.address(), server.metrics());
    let (stop, stopped) = oneshot::channel();
    let server = tokio::spawn(server.run(async move { drop(stopped.await) }));
    Running { address, publisher, clock, metrics, stop: Some(stop), server }
}

impl Running {
    pub async fn client(&self) -> Client {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        Client::new(endpoint.connect().await.unwrap())
    }

    pub fn records(&self) -> Vec<Record> {
        self.publisher.records()
    }

    /// The ads of the records, in order.
    pub fn ads(&self) -> Vec<String> {
        let decode = |record: Record| Impression::decode(record.value).unwrap().ad_id;
        self.records().into_iter().map(decode).collect()
    }

    /// Tells it to end.
    pub fn stop(&mut self) {
        drop(self.stop.take());
    }

    /// What it ended with.
    pub async fn ended(&mut self) -> GatewayResult<()> {
        (&mut self.server).await.unwrap()
    }

    /// It still serves everybody else.
    pub async fn is_unharmed(&self) {
        let before = self.records().len();
        self.client().await.track("unharmed").await.unwrap();
        assert_eq!(self.records().len(), before + 1);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Waits until it is so.
pub async fn eventually(mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("it never is so");
}

/// A client of any method.
#[derive(Clone)]
pub struct Client(pub Grpc<Channel>);

pub fn metadata(pairs: &[(&'static str, &str)]) -> MetadataMap {
    let mut all = MetadataMap::new();
    for (name, value) in pairs {
        all.append(*name, value.parse().unwrap());
    }
    all
}

impl Client {
    pub fn new(channel: Channel) -> Self {
        Self(Grpc::new(channel))
    }

    pub async fn unary_with(
        &mut self,
        path: &str,
        message: Bytes,
        pairs: &[(&'static str, &str)],
    ) -> Result<Response<Bytes>, Status> {
        self.0.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut request = Request::new(message);
        *request.metadata_mut() = metadata(pairs);
        self.0.unary(request, path.parse().unwrap(), RawCodec).await
    }

    /// `AdTrack` of an impression.
    pub async fn send(&mut self, message: Bytes, pairs: &[(&'static str, &str)]) -> Result<Answer, Status> {
        let response = self.unary_with(&format!("{SERVICE}AdTrack"), message, pairs).await?;
        Ok(answer(response.get_ref()))
    }

    pub async fn track(&mut self, ad_id: &str) -> Result<Answer, Status> {
        self.send(impression(ad_id), &[]).await
    }

    pub async fn upload(
        &mut self,
        messages: impl Stream<Item = Bytes> + Send + 'static,
        pairs: &[(&'static str, &str)],
    ) -> Result<Answer, Status> {
        self.0.ready().await.unwrap();
        let mut request = Request::new(messages);
        *request.metadata_mut() = metadata(pairs);
        let path = format!("{SERVICE}AdTrackUpload").parse().unwrap();
        Ok(answer(self.0.client_streaming(request, path, RawCodec).await?.get_ref()))
    }

    pub async fn stream(
        &mut self,
        method: &str,
        messages: impl Stream<Item = Bytes> + Send + 'static,
        pairs: &[(&'static str, &str)],
    ) -> Result<Streaming<Bytes>, Status> {
        self.0.ready().await.unwrap();
        let mut request = Request::new(messages);
        *request.metadata_mut() = metadata(pairs);
        let path = if method.starts_with('/') { method.to_owned() } else { format!("{SERVICE}{method}") };
        Ok(self.0.streaming(request, path.parse().unwrap(), RawCodec).await?.into_inner())
    }
}

/// All answers of a stream, and how it ended.
pub async fn answers(stream: Result<Streaming<Bytes>, Status>) -> (Vec<Answer>, Option<Status>) {
    let mut all = Vec::new();
    let mut stream = match stream {
        Ok(stream) => stream,
        Err(status) => return (all, Some(status)),
    };
    loop {
        match stream.message().await {
            Ok(Some(message)) => all.push(answer(&message)),
            Ok(None) => return (all, None),
            Err(status) => return (all, Some(status)),
        }
    }
}
