//! `flumen check` of the gateway's rules, and a gateway that is not started.

use crate::binary::{finish, flumen, workspace};

const WRONG: &str = r#"syntax = "proto3";
package w;
import "flumen/v1/gateway.proto";
import "buf/validate/validate.proto";
import "google/protobuf/timestamp.proto";

service Wrong {
  rpc UnknownKey(Sent) returns (Told) { option (flumen.v1.publish) = { topic: "t" key: "nobody" }; }
  rpc NoTopic(Sent) returns (Told) { option (flumen.v1.publish) = { key: "id" }; }
  rpc BothAtOnce(Sent) returns (Told) {
    option (flumen.v1.publish) = { topic: "t" };
    option (flumen.v1.subscribe) = { table: "tables/scored_impressions" };
  }
}
message Sent {
  string id = 1 [(buf.validate.field).string.min_len = 1];
  int32 at = 2 [(flumen.v1.stamp) = SERVER_TIME];
}
message Told { string code = 1; }
"#;

const COLUMNS: &str = r#"syntax = "proto3";
package c;
import "flumen/v1/gateway.proto";
service Columns {
  rpc Rows(Request) returns (stream Row) { option (flumen.v1.subscribe) = { table: "TABLE" }; }
  rpc Track(stream Sent) returns (stream Row) {
    option (flumen.v1.publish) = { topic: "t" key: "id" };
    option (flumen.v1.subscribe) = { table: "TABLE" };
  }
}
message Request { string ad_id = 1; int64 colour = 2; }
message Row { string ad_id = 1; string score = 2; string shape = 3; }
message Sent { string id = 1; }
"#;

#[test]
fn every_fault_of_the_rules_is_told() {
    let dir = workspace();
    std::fs::write(dir.path().join("wrong.proto"), WRONG).unwrap();
    std::fs::write(dir.path().join("columns.proto"), COLUMNS.replace("TABLE", "tables/scored_impressions")).unwrap();
    let files = ["check", "queries/score_impressions.sql", "wrong.proto", "columns.proto"];
    let checked = finish(&mut flumen(dir.path(), files)).exits(2);
    insta::assert_snapshot!(checked.stderr);
    let started = finish(&mut flumen(dir.path(), ["gateway", "--proto", "wrong.proto", "--brokers", "x:1"])).exits(2);
    assert!(started.stderr.contains("w.Wrong.UnknownKey"), "{}", started.stderr);
}

#[test]
fn what_fits_is_counted_and_tables_of_pipelines_are_held_against_it() {
    let dir = workspace();
    let files = ["check", "queries/score_impressions.sql", "proto/ads/v1/ads.proto"];
    let checked = finish(&mut flumen(dir.path(), files)).exits(0);
    assert!(checked.stdout.contains("proto/ads/v1/ads.proto: 5 methods for the gateway"), "{}", checked.stdout);
    // The columns of a table that no pipeline of these writes are not known.
    std::fs::write(dir.path().join("columns.proto"), COLUMNS.replace("TABLE", "tables/elsewhere")).unwrap();
    finish(&mut flumen(dir.path(), ["check", "queries/score_impressions.sql", "columns.proto"])).exits(0);
}

#[test]
fn a_gateway_that_cannot_serve_says_why() {
    let dir = workspace();
    let fault = |args: &[&str]| {
        let all = [&["gateway", "--proto", "proto/ads/v1/ads.proto"], args].concat();
        finish(&mut flumen(dir.path(), all)).exits(2).stderr
    };
    let said = fault(&[]);
    assert!(said.contains("no brokers are named; say --brokers HOST:PORT"), "{said}");
    let said = fault(&["--brokers", "localhost"]);
    assert!(said.contains("is not a broker"), "{said}");
    let said = fault(&["--brokers", "x:1", "--listen", "0.0.0.0:0"]);
    assert!(said.contains("--insecure"), "{said}");
    let said = fault(&["--brokers", "x:1", "--tls-cert", "no.pem", "--tls-key", "no.key"]);
    assert!(said.contains("no.pem"), "{said}");
    let said = fault(&["--brokers", "x:1", "--kafka", "enable.idempotence=false"]);
    assert!(said.contains("enable.idempotence"), "{said}");
    let said = fault(&["--brokers", "x:1", "--kafka", "lingr.ms=5"]);
    assert!(said.contains("linger.ms"), "{said}");
}
