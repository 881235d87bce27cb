//! Web pages: gRPC-Web over HTTP/1.1, and which pages may.

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::harness::{Running, SERVICE, answer, gateway, impression};
use super::http2::frame;

const PAGE: &str = "https://ads.example";

async fn http(running: &Running, head: &str, body: &[u8]) -> (String, Bytes) {
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let length = body.len();
    let head = format!("{head}\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    let end = all.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(all[..end].to_vec()).unwrap().to_ascii_lowercase();
    (head.clone(), unchunked(&head, &all[end + 4..]))
}

fn unchunked(head: &str, mut body: &[u8]) -> Bytes {
    if !head.contains("transfer-encoding: chunked") {
        return Bytes::copy_from_slice(body);
    }
    let mut all = Vec::new();
    loop {
        let end = body.windows(2).position(|window| window == b"\r\n").unwrap();
        let length = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        if length == 0 {
            return all.into();
        }
        all.extend_from_slice(&body[end + 2..end + 2 + length]);
        body = &body[end + 2 + length + 2..];
    }
}

#[tokio::test]
async fn a_web_page_publishes() {
    let running = gateway(|options| options.cors = vec![PAGE.into()]).await;
    let head = format!("POST {SERVICE}AdTrack HTTP/1.1\r\ncontent-type: application/grpc-web+proto\r\norigin: {PAGE}");
    let (head, body) = http(&running, &head, &frame(&impression("a"))).await;
    assert!(head.starts_with("http/1.1 200") && head.contains("content-type: application/grpc-web+proto"), "{head}");
    assert!(head.contains(&format!("access-control-allow-origin: {PAGE}")), "{head}");
    assert!(head.contains("access-control-expose-headers: grpc-status,grpc-message"), "{head}");
    let length = u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
    assert_eq!(answer(&body[5..5 + length]).topic, "ad-impressions");
    let trailers = &body[5 + length..];
    assert_eq!(trailers[0], 0x80);
    assert!(String::from_utf8_lossy(trailers).contains("grpc-status:0"));
    assert_eq!(running.ads(), ["a"]);
    let head = format!("POST {SERVICE}AdTrack HTTP/1.1\r\ncontent-type: application/grpc-web+proto");
    let (head, body) = http(&running, &head, &frame(&impression(""))).await;
    let all = format!("{head}{}", String::from_utf8_lossy(&body));
    assert!(all.contains("grpc-status:3") || all.contains("grpc-status: 3"), "{all}");
    assert_eq!(running.records().len(), 1);
}

#[tokio::test]
async fn only_pages_of_the_given_origins_may() {
    let running = gateway(|options| options.cors = vec![PAGE.into()]).await;
    let ask = |origin: &str| {
        format!(
            "OPTIONS {SERVICE}AdTrack HTTP/1.1\r\norigin: {origin}\r\naccess-control-request-method: POST\r\n\
             access-control-request-headers: content-type,idempotency-key"
        )
    };
    let (head, _) = http(&running, &ask(PAGE), b"").await;
    assert!(head.contains(&format!("access-control-allow-origin: {PAGE}")), "{head}");
    assert!(head.contains("access-control-allow-methods: post"), "{head}");
    assert!(head.contains("idempotency-key"), "{head}");
    let (head, _) = http(&running, &ask("https://other.example"), b"").await;
    assert!(!head.contains("access-control-allow-origin"), "{head}");
}

#[tokio::test]
async fn other_http_is_refused() {
    let running = gateway(|_| {}).await;
    for (head, code) in [
        (format!("GET {SERVICE}AdTrack HTTP/1.1\r\ncontent-type: application/grpc-web"), "405"),
        (format!("GET {SERVICE}AdTrack HTTP/1.1"), "400"),
        (format!("POST {SERVICE}AdTrack HTTP/1.1\r\ncontent-type: application/grpc"), "400"),
    ] {
        let (head, _) = http(&running, &head, b"").await;
        assert!(head.starts_with(&format!("http/1.1 {code}")), "{head}");
    }
    assert_eq!(running.records(), []);
    running.is_unharmed().await;
}
