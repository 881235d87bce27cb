//! One message in, one record out.

use std::time::Duration;

use bytes::Bytes;
use flumen::gateway::Behaviour;
use prost::Message;
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic_types::StatusExt;

use super::harness::{Impression, SERVICE, Timestamp, eventually, gateway, impression};
use super::http2::{Http2, frame};

#[tokio::test]
async fn a_message_goes_on_as_the_client_sent_it() {
    let running = gateway(|_| {}).await;
    let mut client = running.client().await;
    // A field that is unknown in the middle, and a number that is longer than it need be.
    let sent = Bytes::from_static(b"\x0a\x04ad-1\xa2\x38\x04kept\x9d\x3e\x01\x02\x03\x04\x1a\x01u\xf8\x07\x81\x00");
    let response = client.unary_with(&format!("{SERVICE}AdTrack"), sent.clone(), &[]).await.unwrap();
    assert_eq!(response.metadata().get("x-request-id").unwrap().len(), 36);
    let answer = super::harness::answer(response.get_ref());
    assert_eq!((answer.code, answer.topic.as_str(), answer.offset), (0, "ad-impressions", 0));
    let records = running.records();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].key.as_deref(), Some(&b"ad-1"[..]));
    let (same, stamp) = records[0].value.split_at(sent.len());
    assert_eq!(same, sent);
    let stamped = Impression::decode(stamp).unwrap();
    assert_eq!(stamped.received_at, Some(Timestamp { seconds: 1_700_000_000, nanos: 5000 }));
    assert_eq!(running.metrics.records_published(), 1);
}

#[tokio::test]
async fn what_a_client_puts_into_a_stamped_field_is_thrown_away() {
    let running = gateway(|_| {}).await;
    let forged = Some(Timestamp { seconds: 1, nanos: 1 });
    let message = Impression { ad_id: "a".into(), received_at: forged, ..Impression::default() };
    running.client().await.send(message.encode_to_vec().into(), &[]).await.unwrap();
    let stamped = Impression::decode(running.records()[0].value.clone()).unwrap();
    assert_eq!(stamped.received_at, Some(Timestamp { seconds: 1_700_000_000, nanos: 5000 }));
}

#[tokio::test]
async fn broken_rules_are_told_with_their_fields() {
    let running = gateway(|_| {}).await;
    let message = Impression { bid: -1.0, ..Impression::default() };
    let status = running.client().await.send(message.encode_to_vec().into(), &[]).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let details = status.get_details_bad_request().unwrap();
    let fields: Vec<_> = details.field_violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, ["ad_id", "bid"]);
    assert!(status.message().starts_with("ad_id: ") && status.message().ends_with("(and 1 more)"), "{status}");
    assert_eq!(running.records(), []);
}

#[tokio::test]
async fn the_same_key_publishes_once_also_at_once() {
    let running = gateway(|_| {}).await;
    running.publisher.set(Behaviour::Slow);
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let address = running.client();
            let message = impression("a");
            (address, message)
        })
        .collect();
    let mut tasks = Vec::new();
    for (client, message) in calls {
        let mut client = client.await;
        tasks.push(tokio::spawn(async move { client.send(message, &[("idempotency-key", "k")]).await }));
    }
    running.publisher.has_taken(1).await;
    eventually(|| running.metrics.open_calls() == 10).await;
    running.publisher.set(Behaviour::Prompt);
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap().unwrap());
    }
    answers.dedup();
    assert_eq!(answers.len(), 1);
    assert_eq!(running.records().len(), 1);
    assert_eq!(running.records()[0].headers[0], ("idempotency-key", Bytes::from_static(b"k")));
    let mut client = running.client().await;
    assert_eq!(client.send(impression("a"), &[("idempotency-key", "k")]).await.unwrap(), answers[0]);
    let status = client.send(impression("b"), &[("idempotency-key", "k")]).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, "idempotency-key");
    assert_eq!(running.records().len(), 1);
    running.clock.advance(Duration::from_secs(600));
    assert_eq!(client.send(impression("b"), &[("idempotency-key", "k")]).await.unwrap().code, 0);
    assert_eq!(running.records().len(), 2);
}

#[tokio::test]
async fn a_broken_message_takes_no_key() {
    let running = gateway(|_| {}).await;
    let mut client = running.client().await;
    client.send(impression(""), &[("idempotency-key", "k")]).await.unwrap_err();
    client.send(impression("a"), &[("idempotency-key", "k")]).await.unwrap();
    running.publisher.set(Behaviour::Away);
    client.send(impression("a"), &[("idempotency-key", "l")]).await.unwrap_err();
    running.publisher.set(Behaviour::Prompt);
    client.send(impression("a"), &[("idempotency-key", "l")]).await.unwrap();
    assert_eq!(running.records().len(), 2);
}

#[tokio::test]
async fn keys_are_bounded() {
    let running = gateway(|options| options.idempotency.keys = 2).await;
    let mut client = running.client().await;
    for key in ["a", "b"] {
        client.send(impression("a"), &[("idempotency-key", key)]).await.unwrap();
    }
    let status = client.send(impression("a"), &[("idempotency-key", "c")]).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.get_details_retry_info().is_some());
    client.send(impression("a"), &[("idempotency-key", "a")]).await.unwrap();
    assert_eq!(running.records().len(), 2);
}

#[tokio::test]
async fn deadlines_are_kept_and_the_key_tells_later() {
    let running = gateway(|_| {}).await;
    let mut client = running.client().await;
    running.publisher.set(Behaviour::Slow);
    let pairs = [("grpc-timeout", "100m"), ("idempotency-key", "k")];
    let reply = Http2::connect(running.address).await.call("AdTrack", &pairs, frame(&impression("a"))).await;
    assert_eq!(reply.code(), Code::DeadlineExceeded);
    assert!(reply.message().contains("may or may not be published"), "{reply:?}");
    running.publisher.set(Behaviour::Prompt);
    let answer = client.send(impression("a"), &[("idempotency-key", "k")]).await.unwrap();
    assert_eq!((answer.code, answer.offset), (0, 0));
    assert_eq!(running.records().len(), 1);
}

#[tokio::test]
async fn a_client_that_goes_away_takes_nothing_back() {
    let running = gateway(|_| {}).await;
    running.publisher.set(Behaviour::Slow);
    let mut client = running.client().await;
    let call = tokio::spawn(async move { client.send(impression("a"), &[("idempotency-key", "k")]).await });
    running.publisher.has_taken(1).await;
    call.abort();
    eventually(|| running.metrics.open_calls() == 0).await;
    running.publisher.set(Behaviour::Prompt);
    let mut client = running.client().await;
    assert_eq!(client.send(impression("a"), &[("idempotency-key", "k")]).await.unwrap().offset, 0);
    assert_eq!(running.records().len(), 1);
}

#[tokio::test]
async fn a_broker_that_is_away_is_unavailable() {
    let running = gateway(|_| {}).await;
    running.publisher.set(Behaviour::Away);
    let mut client = running.client().await;
    let status = client.track("a").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
    running.publisher.set(Behaviour::Prompt);
    client.track("a").await.unwrap();
}

#[tokio::test]
async fn a_full_queue_is_unavailable() {
    let running = gateway(|options| {
        options.queue.records = 2;
        options.queue.wait = Duration::from_millis(50);
    })
    .await;
    running.publisher.set(Behaviour::Slow);
    let mut tasks = Vec::new();
    for n in 0..2 {
        let mut client = running.client().await;
        tasks.push(tokio::spawn(async move { client.track(&n.to_string()).await }));
    }
    running.publisher.has_taken(2).await;
    let status = running.client().await.track("third").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.get_details_retry_info().is_some());
    assert!(running.metrics.to_prometheus().contains("flumen_gateway_queue_records 2"));
    running.publisher.set(Behaviour::Prompt);
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    running.client().await.track("fourth").await.unwrap();
    assert!(!running.ads().contains(&"third".to_owned()));
}

#[tokio::test]
async fn an_acknowledgement_that_does_not_come_is_unavailable() {
    let running = gateway(|options| options.queue.acknowledgement = Duration::from_millis(50)).await;
    running.publisher.set(Behaviour::Slow);
    let status = running.client().await.track("a").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("may or may not be published"), "{status}");
    assert!(status.get_details_retry_info().is_some());
}

#[tokio::test]
async fn refusals_and_doubts_of_the_broker_are_told() {
    let running = gateway(|_| {}).await;
    let mut client = running.client().await;
    running.publisher.set(Behaviour::Refuse);
    let status = client.track("a").await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(status.get_details_error_info().unwrap().reason, "RECORD_REFUSED");
    running.publisher.set(Behaviour::Uncertain);
    let status = client.track("a").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().ends_with("the record may or may not be published"), "{status}");
    let status = client.send(impression("a"), &[("idempotency-key", "k")]).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted);
    assert_eq!(status.get_details_error_info().unwrap().reason, "OUTCOME_UNKNOWN");
    // Nobody knows, so it is not sent a second time.
    running.publisher.set(Behaviour::Prompt);
    let status = client.send(impression("a"), &[("idempotency-key", "k")]).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted);
    assert_eq!(running.records().len(), 2);
}

#[tokio::test]
async fn messages_may_be_compressed() {
    let running = gateway(|_| {}).await;
    let mut client = running.client().await;
    client.0 = client.0.send_compressed(CompressionEncoding::Gzip);
    client.track("a").await.unwrap();
    assert_eq!(running.ads(), ["a"]);
}
