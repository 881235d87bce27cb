//! Many messages on one call.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use flumen::gateway::{Behaviour, Rows, SubscribePlan, Subscriber, Tracked, Wants};
use futures::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::harness::{answers, eventually, gateway, gateway_with, impression};
use super::http2::Http2;

fn impressions(count: usize) -> Vec<Bytes> {
    (0..count).map(|n| impression(&format!("ad-{n}"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn responses_come_in_the_order_of_the_requests() {
    let running = gateway(|_| {}).await;
    let messages = stream::iter(impressions(2000));
    let (all, end) = answers(running.client().await.stream("AdTrackStream", messages, &[]).await).await;
    assert!(end.is_none());
    assert_eq!(all.len(), 2000);
    let mut expected = [0, 0];
    for answer in all {
        assert_eq!(answer.offset, expected[answer.partition as usize]);
        expected[answer.partition as usize] += 1;
    }
    assert_eq!(running.ads(), (0..2000).map(|n| format!("ad-{n}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_message_that_is_refused_is_answered_and_the_stream_goes_on() {
    let running = gateway(|_| {}).await;
    let messages = vec![impression("a"), impression(""), Bytes::from_static(b"\x0a\x7f"), impression("b")];
    let stream = running.client().await.stream("AdTrackStream", stream::iter(messages), &[]).await;
    let (all, end) = answers(stream).await;
    assert!(end.is_none());
    assert_eq!(all.iter().map(|answer| answer.code).collect::<Vec<_>>(), [0, 3, 3, 0]);
    assert!(all[1].message.starts_with("ad_id: ") && all[1].topic.is_empty(), "{all:?}");
    assert!(all[2].message.starts_with("ad_id: it does not decode as ads.v1.AdImpression"), "{all:?}");
    assert_eq!(running.ads(), ["a", "b"]);
}

#[tokio::test]
async fn a_broker_that_goes_away_ends_the_stream() {
    let running = gateway(|_| {}).await;
    let (sender, messages) = mpsc::channel(10);
    let mut stream = running.client().await.stream("AdTrackStream", ReceiverStream::new(messages), &[]).await.unwrap();
    sender.send(impression("a")).await.unwrap();
    assert_eq!(super::harness::answer(&stream.message().await.unwrap().unwrap()).code, 0);
    running.publisher.set(Behaviour::Away);
    sender.send(impression("b")).await.unwrap();
    let status = stream.message().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.get_details_retry_info().is_some());
    assert_eq!(running.ads(), ["a"]);
}

#[tokio::test]
async fn messages_under_way_are_bounded() {
    let running = gateway(|options| options.limits.stream_messages = 16).await;
    running.publisher.set(Behaviour::Slow);
    let messages = stream::iter(impressions(1000));
    let mut client = running.client().await;
    let call = tokio::spawn(async move { answers(client.stream("AdTrackStream", messages, &[]).await).await });
    running.publisher.has_taken(16).await;
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(running.records().len(), 16);
    running.publisher.set(Behaviour::Prompt);
    assert_eq!(call.await.unwrap().0.len(), 1000);
}

#[tokio::test]
async fn an_upload_has_one_response() {
    let running = gateway(|_| {}).await;
    let mut client = running.client().await;
    let answer = client.upload(stream::iter(impressions(300)), &[]).await.unwrap();
    assert_eq!((answer.code, answer.message.as_str()), (0, "300 messages are published"));
    assert_eq!(answer.topic, "ad-impressions");
    assert_eq!(running.records().len(), 300);
    let answer = client.upload(stream::iter(Vec::new()), &[]).await.unwrap();
    assert_eq!((answer.message.as_str(), answer.topic.as_str()), ("0 messages are published", ""));
    let messages = vec![impression("a"), impression("b"), impression(""), impression("c")];
    let status = client.upload(stream::iter(messages), &[]).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("message 2: ad_id: "), "{status}");
    assert!(status.message().ends_with("the 2 messages before it are published"), "{status}");
    assert_eq!(running.ads()[300..], ["a", "b"], "what follows is not read");
    assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, "ad_id");
}

#[tokio::test]
async fn a_stream_that_is_sent_again_publishes_what_was_missing() {
    let running = gateway(|_| {}).await;
    let mut client = running.client().await;
    let pairs = [("idempotency-key", "k")];
    let first = client.stream("AdTrackStream", stream::iter(impressions(3)), &pairs).await;
    let (first, _) = answers(first).await;
    let again = client.stream("AdTrackStream", stream::iter(impressions(5)), &pairs).await;
    let (again, end) = answers(again).await;
    assert!(end.is_none());
    assert_eq!(again[..3], first);
    assert_eq!(running.ads(), ["ad-0", "ad-1", "ad-2", "ad-3", "ad-4"]);
    let headers = running.records()[4].headers.clone();
    assert_eq!(headers[0], ("idempotency-key", Bytes::from_static(b"k/4")));
    assert_eq!((headers[1].0, headers[1].1.len()), ("flumen-idempotency", 64));
    let other = client.stream("AdTrackStream", stream::iter([impression("other")]), &pairs).await;
    let (other, _) = answers(other).await;
    assert_eq!(other[0].code, 3);
}

#[tokio::test]
async fn a_stream_has_a_deadline() {
    let running = gateway(|_| {}).await;
    let mut client = Http2::connect(running.address).await;
    for method in ["AdTrackStream", "AdTrackUpload"] {
        let (reply, _body) = client.open(method, &[("grpc-timeout", "50m")]).await;
        assert_eq!(super::http2::reply(reply).await.code(), Code::DeadlineExceeded);
    }
}

#[tokio::test]
async fn a_stream_above_its_rate_is_slowed_down() {
    let running = gateway(|options| {
        options.limits.rate = 1000;
        options.limits.burst = 2;
    })
    .await;
    let mut client = running.client().await;
    let call =
        tokio::spawn(
            async move { answers(client.stream("AdTrackStream", stream::iter(impressions(5)), &[]).await).await },
        );
    running.publisher.has_taken(2).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(running.records().len(), 2);
    let clock = Arc::clone(&running.clock);
    let ticking = tokio::spawn(async move {
        loop {
            clock.advance(Duration::from_millis(1));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert_eq!(call.await.unwrap().0.len(), 5);
    ticking.abort();
}

/// Gives a row for each key that the client publishes, and one for each request.
#[derive(Debug)]
struct Echo;

#[async_trait]
impl Subscriber for Echo {
    async fn subscribe(&self, plan: &SubscribePlan, wants: Wants) -> Result<Rows, Status> {
        assert_eq!(plan.table, "tables/scored_impressions");
        match wants {
            Wants::Request(request) => Ok(stream::iter([Ok(request)]).chain(stream::pending()).boxed()),
            Wants::Own(Tracked { keys, .. }) => {
                let rows = stream::unfold(0, move |told| {
                    let keys = Arc::clone(&keys);
                    async move {
                        loop {
                            if let Some(key) = keys.keys().into_iter().nth(told) {
                                return Some((Ok(Bytes::from(key)), told + 1));
                            }
                            tokio::time::sleep(Duration::from_millis(2)).await;
                        }
                    }
                });
                Ok(rows.boxed())
            }
        }
    }
}

#[tokio::test]
async fn rows_go_to_who_asks_for_them() {
    let mut running = gateway_with(Some(Arc::new(Echo)), |_| {}).await;
    let mut client = running.client().await;
    let request = Bytes::from_static(b"\x0a\x01a");
    let mut rows = client.stream("Scores", stream::iter([request.clone()]), &[]).await.unwrap();
    assert_eq!(rows.message().await.unwrap().unwrap(), request);
    let wrong = client.stream("Scores", stream::iter([Bytes::from_static(b"\x0a\x01\xff")]), &[]).await;
    assert_eq!(wrong.unwrap_err().code(), Code::InvalidArgument);
    running.stop();
    let status = rows.message().await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "the gateway shuts down; reconnect"));
    running.ended().await.unwrap();
}

#[tokio::test]
async fn who_tracks_publishes_and_gets_rows() {
    let running = gateway_with(Some(Arc::new(Echo)), |_| {}).await;
    let mut client = running.client().await;
    let (sender, messages) = mpsc::channel(10);
    let mut rows = client.stream("Track", ReceiverStream::new(messages), &[]).await.unwrap();
    for ad in ["a", "b"] {
        sender.send(impression(ad)).await.unwrap();
        assert_eq!(rows.message().await.unwrap().unwrap(), ad);
    }
    assert_eq!(running.ads(), ["a", "b"]);
    sender.send(impression("")).await.unwrap();
    sender.send(impression("not read")).await.unwrap();
    assert_eq!(rows.message().await.unwrap_err().code(), Code::InvalidArgument);
    // A client that sends no more gets the rest of the rows.
    let mut rows = client.stream("Track", stream::iter([impression("c")]), &[]).await.unwrap();
    assert_eq!(rows.message().await.unwrap().unwrap(), "c");
    drop(rows);
    eventually(|| running.metrics.open_calls() == 0).await;
}

#[tokio::test]
async fn without_a_subscriber_there_are_no_rows() {
    let running = gateway(|_| {}).await;
    let mut client = running.client().await;
    for method in ["Scores", "Track"] {
        let status = client.stream(method, stream::iter([impression("a")]), &[]).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
    }
    assert_eq!(running.records(), []);
}
