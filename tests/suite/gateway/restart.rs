//! What a gateway knows of the one before it, and what it tells Prometheus: the real binary on a real broker.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use tonic::Code;
use tonic::transport::Endpoint;

use super::circle::free_port;
use super::harness::{Client, answer, impression};
use crate::binary::{Background, flumen, until, workspace};
use crate::broker::Broker;
use crate::topics;

const PATIENCE: Duration = Duration::from_secs(60);

const MESSAGES: &str = r#"syntax = "proto3";
package again;
import "ads/v1/ads.proto";
import "flumen/v1/gateway.proto";
service S {
  rpc Send(ads.v1.AdImpression) returns (ads.v1.Response) {
    option (flumen.v1.publish) = { topic: "TOPIC" key: "ad_id" };
  }
}
"#;

/// What a page says.
fn page(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_known_after_the_gateway_was_killed() {
    let broker = Broker::shared();
    let topic = topics::new_topic(broker, "again", 2);
    let dir = workspace();
    std::fs::write(dir.path().join("again.proto"), MESSAGES.replace("TOPIC", &topic)).unwrap();
    let (address, metrics) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
    let start = || {
        let options = ["--listen", &address, "--brokers", broker.address(), "--metrics", &metrics];
        let args = [&["gateway", "--proto", "again.proto"], &options[..]].concat();
        let gateway = Background::start(&mut flumen(dir.path(), args));
        until("the gateway listens", PATIENCE, || TcpStream::connect(&address).is_ok());
        gateway
    };
    let send = async |ad: &str, key: &str| {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let mut client = Client::new(endpoint.connect().await.unwrap());
        loop {
            let sent = client.unary_with("/again.S/Send", impression(ad), &[("idempotency-key", key)]).await;
            match sent {
                // It reads what the one before it has published.
                Err(status) if status.code() == Code::Unavailable => {
                    tokio::time::sleep(Duration::from_millis(20)).await
                }
                sent => return sent.map(|response| answer(response.get_ref())),
            }
        }
    };
    let gateway = start();
    let first = send("a", "k").await.unwrap();
    let second = send("b", "l").await.unwrap();
    gateway.kill();
    let gateway = start();
    assert_eq!(send("a", "k").await.unwrap(), first);
    assert_eq!(send("b", "l").await.unwrap(), second);
    assert_eq!(send("c", "k").await.unwrap_err().code(), Code::InvalidArgument);
    let third = send("a", "new").await.unwrap();
    assert!(third.partition == first.partition && third.offset > first.offset, "{third:?}");

    let told = page(&metrics, "/metrics");
    assert!(told.starts_with("HTTP/1.1 200 OK") && told.contains("text/plain; version=0.0.4"), "{told}");
    for line in [
        "flumen_gateway_records_published_total 1",
        "flumen_gateway_records_repeated_total 2",
        "flumen_gateway_calls_total{method=\"/again.S/Send\",code=\"3\"} 1",
        "flumen_gateway_publish_seconds_count 1",
    ] {
        assert!(told.lines().any(|found| found == line), "{line} in {told}");
    }
    assert!(page(&metrics, "/").starts_with("HTTP/1.1 404"));
    gateway.signal("TERM");
    let ended = gateway.wait().exits(0);
    assert!(ended.stderr.contains("knows 2 idempotency keys of before"), "{}", ended.stderr);
}
