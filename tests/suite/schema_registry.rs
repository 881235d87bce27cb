//! Topics whose records name schemas of a registry, through the real binary.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::binary::{Finished, finish, flumen, repository};
use crate::broker::Broker;
use crate::registry_server::RegistryServer;
use crate::{delta, topics};

const FILE: &str = "orders.sql";
const READER: &str = r#"syntax = "proto3"; package shop.v2;
    message Order { string id = 1; int64 amount = 2; Line line = 3; map<string, int32> tags = 4; Status status = 5;
      Order before = 6; }
    message Line { string sku = 1; int32 quantity = 2; }
    enum Status { OPEN = 0; PAID = 1; }"#;

struct Place {
    dir: tempfile::TempDir,
    topic: String,
}

impl Place {
    /// A topic of orders, its pipeline with these options besides the framing, and what it selects.
    fn new(name: &str, options: &str, query: &str) -> Self {
        let topic = topics::new_topic(Broker::shared(), name, 1);
        Self { dir: Self::dir(&topic, options, query), topic }
    }

    fn dir(topic: &str, options: &str, query: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            "SET flumen.broker_timeout = '1 second';
             CREATE EXTERNAL TABLE orders STORED AS KAFKA LOCATION 'kafka://${{env:KAFKA_BROKERS}}/{topic}'
             OPTIONS ('value.proto' 'order.proto', 'value.message' 'shop.v2.Order', 'value.framing' 'confluent',
                      'dead_letter_limit' '100%', {options});
             CREATE EXTERNAL TABLE landed (at BIGINT NOT NULL, schema_id INT, id VARCHAR, amount BIGINT, quantity INT)
             STORED AS DELTA LOCATION 'tables/landed';
             INSERT INTO landed {query};"
        );
        std::fs::write(dir.path().join("order.proto"), READER).unwrap();
        std::fs::write(dir.path().join(FILE), text).unwrap();
        dir
    }

    /// With the registry's address as the only option more.
    fn at(name: &str, registry: &RegistryServer) -> Self {
        Self::new(name, &url(registry), WHOLE)
    }

    fn command(&self) -> Command {
        Broker::shared().flumen(self.dir.path(), ["-o", "json", "run", FILE, "--available-now"])
    }

    fn run(&self) -> Finished {
        finish(&mut self.command())
    }

    fn table(&self, name: &str) -> PathBuf {
        self.dir.path().join("tables").join(name)
    }

    /// The rows in the order of the topic, each as `offset schema id amount quantity`.
    fn landed(&self) -> Vec<String> {
        let mut rows = delta::read_with_python(&self.table("landed")).rows;
        rows.sort_by_key(|row| row["at"].as_i64());
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
        let row = |row: &BTreeMap<String, Value>| {
            ["at", "schema_id", "id", "amount", "quantity"].map(|name| text(&row[name])).join(" ")
        };
        rows.iter().map(row).collect()
    }

    /// The dead letters in the order of the topic, each as `offset reason [field]`.
    fn letters(&self) -> Vec<String> {
        let mut rows = delta::read_with_python(&self.table("landed_dead_letters")).rows;
        rows.sort_by_key(|row| row["offset"].as_i64());
        let row = |row: &BTreeMap<String, Value>| {
            let field = row["field"].as_str().map(|field| format!(" [{field}]")).unwrap_or_default();
            format!("{} {}{field}", row["offset"], row["reason"].as_str().unwrap())
        };
        rows.iter().map(row).collect()
    }

    fn produce(&self, values: &[Vec<u8>]) {
        topics::produce(Broker::shared(), &self.topic, 0, values);
    }
}

const WHOLE: &str = "SELECT _offset, _schema_id, id, amount, line.quantity FROM orders";

fn url(registry: &RegistryServer) -> String {
    format!("'schema.registry.url' 'http://{}'", registry.address())
}

/// A record of that schema: magic byte, id, indexes, message.
fn record(schema: u32, indexes: &[u8], message: &[&[u8]]) -> Vec<u8> {
    [&[0], &schema.to_be_bytes()[..], indexes, &message.concat()].concat()
}

const FIRST: &[u8] = &[0];

/// `id = name`.
fn id(name: &str) -> Vec<u8> {
    [&[0x0a, name.len() as u8], name.as_bytes()].concat()
}

/// `line { quantity = n }`.
fn quantity(n: u8) -> Vec<u8> {
    vec![0x1a, 2, 0x10, n]
}

/// A registry with schemas 1 to 9, and one that it does not know.
fn registry(server: RegistryServer) -> RegistryServer {
    let split = READER.replace("message Line { string sku = 1; int32 quantity = 2; }", "");
    let split = split.replace("package shop.v2;", "package shop.v2; import \"shop/line.proto\";");
    server.schema(1, &split, &[("shop/line.proto", "shop/line")]);
    let line = r#"syntax = "proto3"; package shop.v2; message Line { string sku = 1; int32 quantity = 2; }"#;
    server.subject("shop/line", line);
    // Another package, a new name, a narrower number, a field more, a map before a nested message.
    server.schema(
        2,
        r#"syntax = "proto3"; package shop.v1; import "confluent/meta.proto";
           message Other { int32 n = 1; }
           message Order { string order_id = 1 [(confluent.field_meta).doc = "which"]; int32 amount = 2;
             map<string, int32> tags = 4; message Line { string sku = 1; int32 quantity = 2; } Line line = 3;
             string note = 9; }"#,
        &[],
    );
    server.schema(3, &READER.replace("int64 amount", "string amount"), &[]);
    server.schema(4, &READER.replace("int64 amount", "sint64 amount"), &[]);
    server.schema(5, &READER.replace("int32 quantity = 2", "string quantity = 2"), &[]);
    server.schema(13, &READER.replace("int64 amount = 2", "int64 amount = 7"), &[]);
    server.answer("/schemas/ids/6", serde_json::json!({"schema": "\"string\""}));
    server.schema(7, "syntax = \"proto3\"; message Order { Gone gone = 1; }", &[]);
    server.schema(8, "syntax = \"proto3\"; import \"gone.proto\";", &[("gone.proto", "gone")]);
    server.schema(9, "edition = \"2099\"; message Order {}", &[]);
    server
}

#[test]
fn records_of_many_schemas_become_rows_of_one_table() {
    let registry = registry(RegistryServer::start());
    let place = Place::at("framed", &registry);
    place.produce(&[
        record(1, FIRST, &[&id("a"), &[0x10, 5], &quantity(7)]),
        // The second message of its file, and -1 as an int32.
        record(
            2,
            &[2, 2],
            &[&id("b"), &[0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], &[0x4a, 1, b'x']],
        ),
        record(1, &[2, 0], &[&id("c")]),
        vec![],
        vec![1, 0, 0, 0, 1, 0],
        record(99, FIRST, &[&id("d")]),
        record(3, FIRST, &[&id("e")]),
        record(4, FIRST, &[&id("f")]),
        record(5, FIRST, &[&id("g")]),
        record(6, FIRST, &[&id("h")]),
        record(7, FIRST, &[&id("i")]),
        record(8, FIRST, &[&id("j")]),
        record(9, FIRST, &[&id("k")]),
        record(1, &[2, 2], &[&id("l")]),
        record(1, &[2, 18], &[&id("m")]),
        record(1, FIRST, &[&[0x0a, 9, b'n']]),
        // By its number the writer's field is one that nobody knows.
        record(13, FIRST, &[&id("o"), &[0x38, 5]]),
    ]);
    let done = place.run().exits(0);
    assert_eq!(
        done.json()[0]["records"],
        serde_json::json!({"read": 17, "decoded": 4, "dead": 13, "null": 0}),
        "{}",
        done.stderr
    );
    assert_eq!(place.landed(), ["0 1 a 5 7", "1 2 b -1 null", "2 1 c 0 null", "16 13 o 0 null"]);
    assert_eq!(
        place.letters(),
        [
            "3 framing: no header of a schema registry at byte 0",
            "4 framing: no header of a schema registry at byte 0",
            "5 schema_unknown: schema 99 is not in the registry at byte 1",
            "6 schema_mismatch: schema 3 has the field otherwise at byte 1 [amount]",
            "7 schema_mismatch: schema 4 has the field otherwise at byte 1 [amount]",
            "8 schema_mismatch: schema 5 has the field otherwise at byte 1 [line.quantity]",
            "9 schema_invalid: schema 6 cannot be compiled at byte 1",
            "10 schema_invalid: schema 7 cannot be compiled at byte 1",
            "11 schema_invalid: schema 8 cannot be compiled at byte 1",
            "12 schema_invalid: schema 9 cannot be compiled at byte 1",
            "13 schema_message: schema 1 has another message there at byte 1",
            "14 schema_message: schema 1 has another message there at byte 1",
            "15 truncated: the message ends within a field at byte 7 [id]",
        ]
    );
    let mut asked = registry.asked();
    assert!(asked.contains(&"/subjects/shop%2Fline/versions/1".to_string()), "{asked:?}");
    asked.sort();
    let times = asked.len();
    asked.dedup();
    assert_eq!(asked.len(), times, "each schema is asked for once");
    for why in
        ["schema 6 cannot be used: it is AVRO, not PROTOBUF", "schema 7 cannot be used: ", "its import gone.proto"]
    {
        assert!(done.stderr.contains(why), "{}", done.stderr);
    }
}

#[test]
fn only_the_fields_that_are_read_have_to_agree_and_letters_are_retried() {
    let registry = registry(RegistryServer::start());
    let query = "SELECT _offset, CAST(NULL AS INT), id, CAST(NULL AS BIGINT), line.quantity FROM orders";
    let place = Place::new("partly", &url(&registry), query);
    place.produce(&[
        record(3, FIRST, &[&id("a"), &[0x12, 1, b'5'], &quantity(1)]),
        record(5, FIRST, &[&id("b")]),
        record(99, FIRST, &[&id("c")]),
    ]);
    place.run().exits(0);
    assert_eq!(place.landed(), ["0 null a null 1"]);
    // The registry learns of a schema, and letters that named it are rows.
    registry.schema(99, READER, &[]);
    let mut retry = Broker::shared().flumen(place.dir.path(), ["-o", "json", "dead-letters", "retry", FILE]);
    let retried = finish(&mut retry).exits(0).json();
    assert_eq!((&retried[0]["committed"], &retried[0]["dead"]), (&1.into(), &1.into()));
    assert_eq!(place.landed(), ["0 null a null 1", "2 null c null null"]);
}

/// A message that contains itself, and extensions, are compared as the topic has them.
#[test]
fn what_a_topic_unfolds_or_extends_is_compared_too() {
    let registry = registry(RegistryServer::start());
    let options = format!("{}, 'max_recursion' '1'", url(&registry));
    let place = Place::new("unfolded", &options, "SELECT _offset, _schema_id, before.id, amount, NULL FROM orders");
    registry.schema(10, READER, &[]);
    // What lies in the unfolded message only is read there.
    let before = |message: &[u8]| [&[0x32, message.len() as u8], message].concat();
    place.produce(&[record(10, FIRST, &[&before(&id("a"))]), record(3, FIRST, &[&before(&id("b"))])]);
    place.run().exits(0);
    assert_eq!(place.landed(), ["0 10 a 0 null"]);
    assert_eq!(place.letters(), ["1 schema_mismatch: schema 3 has the field otherwise at byte 1 [amount]"]);

    let extended = |kind: &str| {
        format!(
            "syntax = \"proto2\"; package shop.v2; message Order {{ optional string id = 1; extensions 100 to 200; }}
             extend Order {{ optional {kind} amount = 100; }}"
        )
    };
    let options = format!("{}, 'extensions' 'keep'", url(&registry));
    let query = "SELECT _offset, _schema_id, id, shop_v2_amount, NULL FROM orders";
    let place = Place::new("extended", &options, query);
    std::fs::write(place.dir.path().join("order.proto"), extended("int64")).unwrap();
    registry.schema(11, &extended("int64"), &[]);
    registry.schema(12, &extended("sint64"), &[]);
    let amount = [0xa0, 6, 9];
    place.produce(&[record(11, FIRST, &[&id("a"), &amount]), record(12, FIRST, &[&id("b"), &amount])]);
    place.run().exits(0);
    assert_eq!(place.landed(), ["0 11 a 9 null"]);
    assert_eq!(place.letters(), ["1 schema_mismatch: schema 12 has the field otherwise at byte 1 [shop_v2_amount]"]);
}

#[test]
fn a_registry_that_is_away_is_waited_for() {
    let registry = registry(RegistryServer::start());
    let place = Place::at("away", &registry);
    place.produce(&[record(1, FIRST, &[&id("a")])]);
    registry.fail(&[(500, "{}"), (503, "busy"), (429, "slowly")]);
    let done = place.run().exits(0);
    assert_eq!(place.landed(), ["0 1 a 0 null"]);
    assert!(done.stderr.contains("is away (it answers 500"), "{}", done.stderr);
    assert!(done.stderr.contains("is back after"), "{}", done.stderr);
    assert_eq!(registry.asked().len(), 5);

    place.produce(&[record(2, &[2, 2], &[&id("b")])]);
    drop(registry);
    let done = place.run().exits(1);
    assert!(done.stderr.contains("Connection refused"), "{}", done.stderr);
    assert!(done.stderr.contains("Nothing of this micro-batch was committed"), "{}", done.stderr);
    assert_eq!(place.landed(), ["0 1 a 0 null"]);
}

#[test]
fn what_is_no_registry_or_does_not_let_us_in_is_told() {
    let registry = registry(RegistryServer::start());
    let place = Place::at("refused", &registry);
    place.produce(&[record(1, FIRST, &[&id("a")])]);
    registry.fail(&[(404, "<html>nothing here</html>")]);
    let done = place.run().exits(2);
    assert!(done.stderr.contains("is no schema registry: it answers 404"), "{}", done.stderr);
    registry.fail(&[(200, "<html>welcome</html>")]);
    assert!(place.run().exits(2).stderr.contains("Mend `schema.registry.url`"));

    registry.ask_for("Basic dXNlcjpzM2NyZXQ=");
    let done = place.run().exits(2);
    assert!(done.stderr.contains("does not let us in: it answers 401"), "{}", done.stderr);
    let with = |options: &str| {
        let place = Place { dir: Place::dir(&place.topic, options, WHOLE), topic: place.topic.clone() };
        let mut command = place.command();
        let done = finish(command.env("PASSWORD", "s3cret").env("TOKEN", "t0ken")).exits(0);
        assert_eq!(place.landed(), ["0 1 a 0 null"]);
        assert!(!done.stderr.contains("s3cret") && !done.stdout.contains("s3cret"));
    };
    with(&format!("{}, 'schema.registry.basic.auth.user.info' 'user:${{env:PASSWORD}}'", url(&registry)));
    with(&format!("'schema.registry.url' 'http://user:${{env:PASSWORD}}@{}'", registry.address()));
    registry.ask_for("Bearer t0ken");
    with(&format!("{}, 'schema.registry.bearer.auth.token' '${{env:TOKEN}}'", url(&registry)));
}

#[test]
fn a_cache_serves_without_a_registry() {
    let registry = registry(RegistryServer::start());
    let cached = "'schema.registry.cache' 'schemas'";
    let place = Place::new("cached", &format!("{}, {cached}", url(&registry)), WHOLE);
    place.produce(&[record(1, FIRST, &[&id("a")]), record(2, &[2, 2], &[&id("b")]), record(99, FIRST, &[&id("c")])]);
    place.run().exits(0);
    assert!(place.dir.path().join("schemas/subjects/shop%2Fline/versions/1.json").is_file());
    drop(registry);

    let again = Place { dir: Place::dir(&place.topic, cached, WHOLE), topic: place.topic.clone() };
    for (name, file) in [("ids", "1.json"), ("ids", "2.json"), ("ids", "99.json")] {
        let below = format!("schemas/schemas/{name}");
        std::fs::create_dir_all(again.dir.path().join(&below)).unwrap();
        let path = format!("{below}/{file}");
        std::fs::copy(place.dir.path().join(&path), again.dir.path().join(&path)).unwrap();
    }
    let done = again.run().exits(2);
    assert!(done.stderr.contains("does not hold version 1 of subject shop/line"), "{}", done.stderr);
    let below = "schemas/subjects/shop%2Fline/versions";
    std::fs::create_dir_all(again.dir.path().join(below)).unwrap();
    let path = format!("{below}/1.json");
    std::fs::copy(place.dir.path().join(&path), again.dir.path().join(&path)).unwrap();
    again.run().exits(0);
    assert_eq!(again.landed(), place.landed());
    assert_eq!(again.letters(), ["2 schema_unknown: schema 99 is not in the registry at byte 1"]);
}

#[test]
fn certificates_are_checked() {
    let registry = registry(RegistryServer::start_tls());
    let url = format!("'schema.registry.url' 'https://{}'", registry.address());
    let place = Place::new("secure", &url, WHOLE);
    place.produce(&[record(1, FIRST, &[&id("a")])]);
    let done = place.run().exits(1);
    assert!(done.stderr.to_lowercase().contains("certificate"), "{}", done.stderr);
    let ca = repository().join("tests/suite/tls/ca.pem");
    let options = format!("{url}, 'schema.registry.ssl.ca.location' '{}'", ca.display());
    let place = Place { dir: Place::dir(&place.topic, &options, WHOLE), topic: place.topic.clone() };
    place.run().exits(0);
    assert_eq!(place.landed(), ["0 1 a 0 null"]);
}

#[test]
fn a_check_tells_what_is_missing() {
    let registry = "'schema.registry.url' 'http://localhost:1'";
    for (options, told) in [
        ("'max_rows' '5'", "the topic has no option `schema.registry.url`"),
        ("'schema.registry.url' 'localhost:8081'", "is no address"),
        (&format!("{registry}, 'value.format' 'raw'"), "a raw topic has no `value."),
        (&format!("{registry}, 'schema.registry.basic.auth.user.info' 'me'"), "it is not `user:password`"),
        (&format!("{registry}, 'schema.registry.ulr' 'x'"), "did you mean `schema.registry.url`"),
    ] {
        let dir = Place::dir("t", options, "SELECT _offset, _schema_id, NULL, NULL, NULL FROM orders");
        let done = finish(flumen(dir.path(), ["check", FILE]).env("KAFKA_BROKERS", "localhost:1")).exits(2);
        assert!(done.stderr.contains(told), "{told}: {}", done.stderr);
    }
}
