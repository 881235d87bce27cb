//! What those who run a gateway need: health, reflection, its end, its log.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flumen::gateway::Behaviour;
use futures::stream;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic_types::StatusExt;

use super::harness::{SERVICE, answer, eventually, gateway, impression};

#[tokio::test]
async fn health_says_that_it_serves_and_then_that_it_does_not() {
    let mut running = gateway(|_| {}).await;
    let mut client = running.client().await;
    for service in [&b""[..], b"\x0a\x18ads.v1.ClickTrackService"] {
        let request = Bytes::copy_from_slice(service);
        let response = client.unary_with("/grpc.health.v1.Health/Check", request, &[]).await.unwrap();
        assert_eq!(response.get_ref().as_ref(), b"\x08\x01");
    }
    let request = Bytes::from_static(b"\x0a\x01x");
    let status = client.unary_with("/grpc.health.v1.Health/Check", request, &[]).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let path = "/grpc.health.v1.Health/Watch";
    let mut watch = client.stream(path, stream::iter([Bytes::new()]), &[]).await.unwrap();
    assert_eq!(watch.message().await.unwrap().unwrap().as_ref(), b"\x08\x01");
    running.stop();
    // It is told, or the stream is already over.
    match watch.message().await {
        Ok(Some(message)) => {
            assert_eq!(message.as_ref(), b"\x08\x02");
            assert_eq!(watch.message().await.unwrap_err().code(), Code::Unavailable);
        }
        other => assert_eq!(other.unwrap_err().code(), Code::Unavailable),
    }
    running.ended().await.unwrap();
}

#[tokio::test]
async fn reflection_shows_the_services_when_it_is_on() {
    let running = gateway(|options| options.has_reflection = true).await;
    let mut client = running.client().await;
    for version in ["v1", "v1alpha"] {
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        // `list_services`, and `file_containing_symbol`.
        let asked = [&b"\x3a\x00"[..], b"\x22\x13ads.v1.AdImpression"].map(Bytes::from_static);
        let mut replies = client.stream(&path, stream::iter(asked), &[]).await.unwrap();
        let services = replies.message().await.unwrap().unwrap();
        assert!(String::from_utf8_lossy(&services).contains("ads.v1.ClickTrackService"));
        let file = replies.message().await.unwrap().unwrap();
        assert!(String::from_utf8_lossy(&file).contains("impressed_at"));
    }
}

#[tokio::test]
async fn what_is_under_way_is_acknowledged_at_the_end() {
    let mut running = gateway(|_| {}).await;
    let mut client = running.client().await;
    let (sender, messages) = mpsc::channel(10);
    let mut answers = client.stream("AdTrackStream", ReceiverStream::new(messages), &[]).await.unwrap();
    running.publisher.set(Behaviour::Slow);
    sender.send(impression("streamed")).await.unwrap();
    running.publisher.has_taken(1).await;
    let mut other = running.client().await;
    let unary = tokio::spawn(async move { other.track("unary").await });
    running.publisher.has_taken(2).await;
    running.stop();
    // No new connections.
    let address = running.address;
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    running.publisher.set(Behaviour::Prompt);
    assert_eq!(answer(&answers.message().await.unwrap().unwrap()).code, 0);
    let status = answers.message().await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "the gateway shuts down; reconnect"));
    assert!(status.get_details_retry_info().is_some());
    assert_eq!(unary.await.unwrap().unwrap().code, 0);
    running.ended().await.unwrap();
    assert_eq!(running.ads(), ["streamed", "unary"]);
}

#[tokio::test]
async fn the_end_does_not_wait_for_ever() {
    let mut running = gateway(|options| options.limits.drain = Duration::from_millis(100)).await;
    running.publisher.set(Behaviour::Slow);
    let mut client = running.client().await;
    let call = tokio::spawn(async move { client.track("a").await });
    running.publisher.has_taken(1).await;
    running.stop();
    let error = running.ended().await.unwrap_err();
    assert!(error.message().starts_with("the gateway ended with 1 records that the broker has not"), "{error}");
    call.await.unwrap().unwrap_err();
}

#[tokio::test]
async fn a_principal_has_a_rate() {
    let running = gateway(|options| options.limits.rate = 2).await;
    let mut client = running.client().await;
    client.track("a").await.unwrap();
    client.track("b").await.unwrap();
    let status = client.track("c").await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    let retry = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert_eq!(retry, Duration::from_millis(500));
    running.clock.advance(retry);
    client.track("d").await.unwrap();
    assert_eq!(running.ads(), ["a", "b", "d"]);
}

#[tokio::test]
async fn calls_are_counted_by_method_and_code() {
    let running = gateway(|_| {}).await;
    let mut client = running.client().await;
    client.track("a").await.unwrap();
    client.track("").await.unwrap_err();
    let path = format!("{SERVICE}AdTrack");
    eventually(|| running.metrics.open_calls() == 0).await;
    assert_eq!(running.metrics.calls_ended(&path, Code::Ok), 1);
    assert_eq!(running.metrics.calls_ended(&path, Code::InvalidArgument), 1);
    let text = running.metrics.to_prometheus();
    assert!(text.contains("flumen_gateway_records_published_total 1"), "{text}");
    assert!(text.contains("flumen_gateway_records_refused_total 1"), "{text}");
    assert!(text.contains("flumen_gateway_connections 1"), "{text}");
}

/// What is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_log_has_a_line_for_each_call_and_no_secrets() {
    let log = Log::default();
    let writer = log.clone();
    // The one of the process: it has the lines of the other tests too.
    tracing_subscriber::fmt()
        .with_env_filter("gateway=trace,flumen=trace")
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    let file = tempfile::NamedTempFile::new().unwrap();
    let hash = hex::encode(<sha2::Sha256 as sha2::Digest>::digest("canary-token"));
    std::fs::write(file.path(), format!("ad-server sha256 {hash} *")).unwrap();
    let running = gateway(|options| options.credentials = Some(file.path().into())).await;
    let mut client = running.client().await;
    let pairs = [("authorization", "Bearer canary-token"), ("idempotency-key", "canary-key")];
    client.send(impression("canary-payload"), &pairs).await.unwrap();
    client.send(impression("canary-payload"), &[("authorization", "Bearer canary-token-2")]).await.unwrap_err();
    let status = client.unary_with("/x.Y/a%0Ab", impression("canary-payload"), &pairs[..1]).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    eventually(|| running.metrics.open_calls() == 0).await;
    let text = String::from_utf8(log.0.lock().clone()).unwrap();
    let first = text.lines().find(|line| line.contains("principal=\"ad-server\"")).unwrap();
    let peer = first.split(' ').find(|word| word.starts_with("peer=")).unwrap();
    let calls: Vec<&str> =
        text.lines().filter(|line| line.contains(peer) && line.contains("gateway::access")).collect();
    assert_eq!(calls.len(), 3, "{calls:#?}");
    assert!(
        calls[0]
            .contains("method=\"/ads.v1.ClickTrackService/AdTrack\" code=Ok principal=\"ad-server\" peer=127.0.0.1:")
    );
    assert!(calls[0].contains("messages=1"), "{}", calls[0]);
    assert!(calls[1].contains("code=Unauthenticated principal=\"-\""), "{}", calls[1]);
    assert!(!text.contains("canary") && !text.contains(&hash), "{text}");
}
