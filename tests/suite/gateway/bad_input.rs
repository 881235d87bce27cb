//! What clients should not send: the right code, nothing published, and others unharmed.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;
use tonic_types::StatusExt;

use super::harness::{Running, SERVICE, eventually, gateway, impression};
use super::http2::{Http2, frame, framed, reply};

async fn nothing_happened(running: &Running) {
    assert_eq!(running.records(), []);
    running.is_unharmed().await;
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn truncated_frames() {
    let running = gateway(|_| {}).await;
    let mut client = Http2::connect(running.address).await;
    for method in ["AdTrack", "AdTrackStream", "AdTrackUpload"] {
        for body in [framed(0, 10, b"abc"), Bytes::from_static(b"\0\0\0"), framed(2, 1, b"a"), framed(1, 1, b"a")] {
            let reply = client.call(method, &[], body).await;
            assert_eq!(reply.code(), Code::Internal, "{reply:?}");
            assert_eq!(reply.status().get_details_error_info().unwrap().reason, "BROKEN_FRAME");
        }
    }
    nothing_happened(&running).await;
}

#[tokio::test]
async fn bytes_that_are_no_such_message() {
    let running = gateway(|_| {}).await;
    let mut client = running.client().await;
    let wrong: [(&[u8], &str); 6] = [
        (b"\x32\x02\x0a\xff", "placement.page"),
        (b"\x0a\x01\xff", "ad_id"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "ad_id"),
        (b"\x30\x01", "placement"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", ""),
        (b"\x41\x00", "bid"),
    ];
    for (bytes, field) in wrong {
        let status = client.send(Bytes::from_static(bytes), &[]).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, field, "{status}");
    }
    let deep = Bytes::from([0x9b, 0x06].repeat(100_000));
    assert_eq!(client.send(deep, &[]).await.unwrap_err().code(), Code::InvalidArgument);
    nothing_happened(&running).await;
}

#[tokio::test]
async fn methods_that_do_not_exist() {
    let running = gateway(|_| {}).await;
    let mut client = running.client().await;
    for path in [
        &format!("{SERVICE}Unknown"),
        "/x.Y/AdTrack",
        "/x",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    ] {
        let status = client.unary_with(path, impression("a"), &[]).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{path}");
    }
    assert!(running.metrics.to_prometheus().contains("method=\"other\",code=\"12\"} 4"));
    nothing_happened(&running).await;
}

#[tokio::test]
async fn too_few_and_too_many_messages() {
    let running = gateway(|_| {}).await;
    let mut client = Http2::connect(running.address).await;
    assert_eq!(client.call("AdTrack", &[], Bytes::new()).await.code(), Code::InvalidArgument);
    let two = [frame(&impression("a")), frame(&impression("b"))].concat();
    assert_eq!(client.call("AdTrack", &[], two.into()).await.code(), Code::InvalidArgument);
    nothing_happened(&running).await;
}

#[tokio::test]
async fn large_messages_and_compressed_bombs() {
    let running = gateway(|options| options.limits.message_bytes = 1000).await;
    let mut client = Http2::connect(running.address).await;
    let large = vec![0_u8; 1001];
    let bomb = gzipped(&vec![0; 50 << 20]);
    let gzip = [("grpc-encoding", "gzip")];
    for method in ["AdTrack", "AdTrackStream", "AdTrackUpload"] {
        let reply = client.call(method, &[], frame(&large)).await;
        assert_eq!(reply.code(), Code::ResourceExhausted, "{reply:?}");
        // The length alone is enough to refuse it.
        let reply = client.call(method, &[], framed(0, u32::MAX, b"")).await;
        assert_eq!(reply.code(), Code::ResourceExhausted, "{reply:?}");
        let small_bomb = gzipped(&large);
        for bomb in [&small_bomb, &bomb] {
            if bomb.len() <= 1000 {
                let reply = client.call(method, &gzip, framed(1, bomb.len() as u32, bomb)).await;
                assert_eq!(reply.code(), Code::ResourceExhausted, "{reply:?}");
            }
        }
        let reply = client.call(method, &gzip, framed(1, 3, b"abc")).await;
        assert_eq!(reply.code(), Code::Internal, "{reply:?}");
        let reply = client.call(method, &[("grpc-encoding", "snappy")], framed(1, 3, b"abc")).await;
        assert_eq!(reply.code(), Code::Unimplemented, "{reply:?}");
    }
    nothing_happened(&running).await;
}

#[tokio::test]
async fn a_bomb_of_four_mebibytes_is_not_blown_up() {
    let running = gateway(|_| {}).await;
    let mut client = Http2::connect(running.address).await;
    let bomb = gzipped(&vec![0; 200 << 20]);
    assert!(bomb.len() < 1 << 20);
    let (response, mut sender) = client.open("AdTrack", &[("grpc-encoding", "gzip")]).await;
    sender.send_data(framed(1, bomb.len() as u32, &bomb), true).unwrap();
    assert_eq!(reply(response).await.code(), Code::ResourceExhausted);
    nothing_happened(&running).await;
}

#[tokio::test]
async fn metadata_that_is_wrong() {
    let running = gateway(|_| {}).await;
    let mut client = Http2::connect(running.address).await;
    for (name, value) in [("grpc-timeout", "soon"), ("idempotency-key", ""), ("idempotency-key", "a b")] {
        let reply = client.call("AdTrack", &[(name, value)], frame(&impression("a"))).await;
        assert_eq!(reply.code(), Code::InvalidArgument);
        assert_eq!(reply.status().get_details_bad_request().unwrap().field_violations[0].field, name);
    }
    let reply = client.call("AdTrack", &[("content-type", "application/json")], Bytes::from_static(b"{}")).await;
    assert_eq!(reply.http, 415);
    let huge = "x".repeat(20_000);
    let reply = client.call("AdTrack", &[("x-huge", &huge)], frame(&impression("a"))).await;
    assert_eq!(reply.http, 431);
    nothing_happened(&running).await;
}

#[tokio::test]
async fn slow_clients_are_closed() {
    let running = gateway(|options| options.limits.handshake = Duration::from_millis(100)).await;
    // Nothing, a part of what HTTP/2 begins with, a part of HTTP/1.1's headers, garbage.
    for first in
        [&b""[..], b"PRI * HTTP/2.0\r\n", b"POST /a HTTP/1.1\r\nhost: a\r\nx-slow: ", b"PO", b"\x16\x03\x01\x00\xff"]
    {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(first).await.unwrap();
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "{first:?} is still open");
    }
    eventually(|| running.metrics.open_connections() == 0).await;
    nothing_happened(&running).await;
}

#[tokio::test]
async fn a_call_that_is_sent_too_slowly_ends() {
    let running = gateway(|options| options.limits.call = Duration::from_millis(100)).await;
    let mut client = Http2::connect(running.address).await;
    let (response, mut sender) = client.open("AdTrack", &[]).await;
    sender.send_data(frame(&impression("a")).slice(..7), false).unwrap();
    assert_eq!(reply(response).await.code(), Code::DeadlineExceeded);
    nothing_happened(&running).await;
}

#[tokio::test]
async fn headers_that_never_end_are_closed() {
    let running = gateway(|options| {
        options.limits.keep_alive = Duration::from_millis(50);
        options.limits.keep_alive_answer = Duration::from_millis(50);
    })
    .await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    // The preface, empty settings, and headers without their end.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    stream.write_all(b"\0\0\x01\x01\0\0\0\0\x01\x83").await.unwrap();
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "still open");
    nothing_happened(&running).await;
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let running = gateway(|options| options.limits.idle = Duration::from_millis(50)).await;
    let client = Http2::connect(running.address).await;
    eventually(|| running.metrics.open_connections() == 1).await;
    eventually(|| running.metrics.open_connections() == 0).await;
    drop(client);
    let mut client = Http2::connect(running.address).await;
    // A call that is open keeps its connection.
    let (response, mut sender) = client.open("AdTrackStream", &[]).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    sender.send_data(frame(&impression("a")), true).unwrap();
    assert_eq!(reply(response).await.code(), Code::Ok);
    assert_eq!(running.ads(), ["a"]);
}

#[tokio::test]
async fn too_many_connections_are_closed_at_once() {
    let running = gateway(|options| options.limits.connections = 50).await;
    let mut client = running.client().await;
    client.track("first").await.unwrap();
    let mut open = Vec::new();
    for _ in 0..500 {
        open.push(TcpStream::connect(running.address).await.unwrap());
    }
    eventually(|| running.metrics.connections_refused() >= 451).await;
    assert_eq!(running.metrics.open_connections(), 50);
    client.track("second").await.unwrap();
    drop(open);
    eventually(|| running.metrics.open_connections() == 1).await;
    running.is_unharmed().await;
}

#[tokio::test]
async fn rapid_resets_close_the_connection() {
    let running = gateway(|options| options.limits.cancelled = 100).await;
    let mut other = running.client().await;
    other.track("first").await.unwrap();
    let mut client = Http2::connect(running.address).await;
    let mut resets = 0;
    while client.reset("AdTrackStream").await.is_ok() && resets < 100_000 {
        resets += 1;
        tokio::task::yield_now().await;
    }
    assert!(resets < 100_000, "it is still open");
    eventually(|| running.metrics.open_connections() == 1).await;
    other.track("second").await.unwrap();
    assert_eq!(running.ads(), ["first", "second"]);
}

#[tokio::test]
async fn calls_at_once_are_bounded() {
    let running = gateway(|options| options.limits.streams = 3).await;
    let mut client = Http2::connect(running.address).await;
    // Until the server's settings are known, a client may open what it likes; the server refuses what is too much.
    let first = client.call("AdTrack", &[], frame(&impression("a"))).await;
    assert_eq!(first.code(), Code::Ok);
    assert_eq!(client.requests.current_max_send_streams(), 3);
}

#[tokio::test]
async fn a_stream_with_a_broken_frame_loses_only_what_follows() {
    let running = gateway(|_| {}).await;
    let mut client = Http2::connect(running.address).await;
    let body = [frame(&impression("a")), frame(&impression("b")), framed(0, 100, b"cut")].concat();
    let reply = client.call("AdTrackStream", &[], body.into()).await;
    assert_eq!(reply.code(), Code::Internal);
    assert_eq!(running.ads(), ["a", "b"]);
    let (response, sender) = client.open("AdTrackStream", &[]).await;
    drop((response, sender));
    running.is_unharmed().await;
    let (all, _) = super::harness::answers(
        running.client().await.stream("AdTrackStream", stream::iter([impression("c")]), &[]).await,
    )
    .await;
    assert_eq!(all.len(), 1);
}
