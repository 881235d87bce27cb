//! The whole circle, by processes: a client that is not ours, the gateway, a broker, a pipeline, its table, and back to
//! the client. Each of them is killed meanwhile.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::binary::{Background, flumen, until, workspace};
use crate::broker::Broker;
use crate::delta::{self, python, read_with_python};
use crate::topics;

const PATIENCE: Duration = Duration::from_secs(120);
const COUNT: usize = 1_200;

const MESSAGES: &str = r#"syntax = "proto3";
package circle;
import "ads/v1/ads.proto";
import "flumen/v1/gateway.proto";

service Circle {
  rpc AdTrack(ads.v1.AdImpression) returns (ads.v1.Response) {
    option (flumen.v1.publish) = { topic: "TOPIC" key: "ad_id" };
  }
  rpc Scores(ScoreRequest) returns (stream Scored) {
    option (flumen.v1.subscribe) = { table: "tables/scored" };
  }
}
message ScoreRequest {
  repeated string context_id = 1;
  string start = 2;
  string cursor = 3;
}
message Scored {
  string context_id = 1;
  double score = 2;
  string cursor = 3;
}
"#;

const PIPELINE: &str = "
CREATE EXTERNAL TABLE ads STORED AS KAFKA LOCATION 'kafka://${env:KAFKA_BROKERS}/TOPIC'
OPTIONS ('value.proto' 'proto/ads/v1/ads.proto', 'value.message' 'ads.v1.AdImpression');
CREATE EXTERNAL TABLE content_with_categories STORED AS DELTA LOCATION 'queries/data/content_with_categories';
CREATE FUNCTION click_probability(DOUBLE, DOUBLE, DOUBLE) RETURNS DOUBLE
LANGUAGE XGBOOST AS 'queries/data/click_probability.json';
CREATE EXTERNAL TABLE scored (context_id VARCHAR NOT NULL, score DOUBLE NOT NULL, received_at TIMESTAMP NOT NULL)
STORED AS DELTA LOCATION 'tables/scored';
SET flumen.trigger = '50 milliseconds';
INSERT INTO scored
SELECT i.context_id, click_probability(c.rank, c.price, date_part('hour', i.impressed_at)), i.received_at
FROM ads i JOIN content_with_categories c ON i.ad_id = c.ad_id;
";

/// A port that nobody has.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

struct Circle<'a> {
    dir: &'a Path,
    broker: &'a Broker,
    address: String,
}

impl Circle<'_> {
    fn gateway(&self) -> Background {
        let brokers = self.broker.address();
        let args =
            ["gateway", "--proto", "circle.proto", "--listen", &self.address, "--brokers", brokers, "--reflection"];
        Background::start(&mut flumen(self.dir, args))
    }

    fn pipeline(&self) -> Background {
        Background::start(&mut self.broker.flumen(self.dir, ["run", "circle.sql"]))
    }

    /// How many messages are acknowledged.
    fn acknowledged(&self) -> usize {
        std::fs::read_to_string(self.dir.join("progress")).map_or(0, |lines| lines.lines().count())
    }

    #[track_caller]
    fn await_acknowledged(&self, count: usize) {
        until(&format!("{count} acknowledged"), PATIENCE, || self.acknowledged() >= count);
    }
}

#[test]
fn whatever_is_killed_each_impression_comes_back_and_is_in_the_table_once() {
    let broker = Broker::own();
    let topic = topics::new_topic(&broker, "circle", 2);
    let dir = workspace();
    for (name, text) in [("circle.proto", MESSAGES), ("circle.sql", PIPELINE)] {
        std::fs::write(dir.path().join(name), text.replace("TOPIC", &topic)).unwrap();
    }
    let circle = Circle { dir: dir.path(), broker: &broker, address: format!("127.0.0.1:{}", free_port()) };
    let gateway = circle.gateway();
    let pipeline = circle.pipeline();
    let client = Command::new(python())
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/gateway/client.py"))
        .args([&circle.address, "circle.Circle", &COUNT.to_string(), "150"])
        .arg(dir.path().join("progress"))
        .arg(PATIENCE.as_secs().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();

    circle.await_acknowledged(200);
    gateway.kill();
    let gateway = circle.gateway();
    circle.await_acknowledged(400);
    pipeline.kill();
    let pipeline = circle.pipeline();
    circle.await_acknowledged(600);
    broker.kill();
    broker.start_again();
    circle.await_acknowledged(800);
    gateway.signal("TERM");
    gateway.wait().exits(0);
    let gateway = circle.gateway();

    let ended = client.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let told: Value = serde_json::from_slice(&ended.stdout).unwrap();
    let map = |name: &str| told[name].as_object().unwrap().clone();
    let (acknowledged, came_back) = (map("acknowledged"), map("came_back"));
    assert_eq!(acknowledged.len(), COUNT);
    let missing: Vec<&String> = acknowledged.keys().filter(|context| !came_back.contains_key(*context)).collect();
    assert!(missing.is_empty(), "acknowledged and not scored: {missing:?}");
    assert!(told["retries"].as_u64().unwrap() > 0, "nothing was in the way: {told}");
    assert!(told["streams"].as_u64().unwrap() > 1, "the stream never broke: {told}");

    pipeline.signal("TERM");
    pipeline.wait().exits(0);
    gateway.signal("TERM");
    gateway.wait().exits(0);
    let mut rows: BTreeMap<String, usize> = BTreeMap::new();
    for row in read_with_python(&dir.path().join("tables/scored")).rows {
        *rows.entry(row["context_id"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    assert_eq!(rows.len(), COUNT);
    let twice: Vec<_> = rows.iter().filter(|(_, count)| **count != 1).collect();
    assert!(twice.is_empty(), "more than once: {twice:?}");
    assert!(delta::log(&dir.path().join("tables/scored")).len() > 5, "one commit proves little");
}
