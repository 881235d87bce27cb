//! Tables in S3, on a server that speaks like it, through the real binary.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::ads::impressions;
use crate::binary::{Background, finish, until, workspace};
use crate::broker::Broker;
use crate::chance::Chance;
use crate::faulty_proxy::FaultyProxy;
use crate::{delta, topics};

const FILE: &str = "land.sql";

fn python() -> Command {
    Command::new(std::env::var("FLUMEN_PYTHON").expect("FLUMEN_PYTHON names a Python: run the tests with scripts/test"))
}

/// An S3 with one bucket, `books`; ended when dropped.
struct S3 {
    child: Child,
    port: u16,
}

impl S3 {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = python();
        command.args(["-c", "import sys; from moto.server import main; main(['-H', '127.0.0.1', '-p', sys.argv[1]])"]);
        let child = command.arg(port.to_string()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let s3 = Self { child, port };
        until("the S3 server answers", Duration::from_secs(60), || s3.make_bucket());
        s3
    }

    fn make_bucket(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let request = "PUT /books HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let mut answer = String::new();
        stream.write_all(request.as_bytes()).is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && answer.starts_with("HTTP/1.1 200")
    }

    /// The environment of whoever uses it.
    fn environment<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command
            .env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", self.port))
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "id")
            .env("AWS_SECRET_ACCESS_KEY", "canary-secret")
    }

    /// Each of the 600 records of a test is in one table, once: the bid of impression n is n / 8, and number 7 is broken.
    #[track_caller]
    fn check_rows(&self) {
        let offsets = |table: &str, column: &str| -> Vec<i64> {
            let mut offsets: Vec<i64> = self.read(table).rows.iter().map(|row| row[column].as_i64().unwrap()).collect();
            offsets.sort_unstable();
            offsets
        };
        assert_eq!(offsets("landed", "at"), (0..400).filter(|n| *n != 7).collect::<Vec<_>>());
        assert_eq!(offsets("landed_quarantine", "at"), (400..600).collect::<Vec<_>>());
        assert_eq!(offsets("landed_dead_letters", "offset"), [7]);
    }

    fn read(&self, table: &str) -> delta::Foreign {
        delta::read_by(self.environment(python().args(["-c", delta::READ, &format!("s3://books/{table}")])))
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn place(topic: &str, location: &str) -> tempfile::TempDir {
    let dir = workspace();
    let text = format!(
        "CREATE EXTERNAL TABLE ads STORED AS KAFKA LOCATION 'kafka://${{env:KAFKA_BROKERS}}/{topic}'
         OPTIONS ('value.proto' 'proto/ads/v1/ads.proto', 'value.message' 'ads.v1.AdImpression', 'max_rows' '100',
                  'dead_letter_limit' '100%');
         CREATE EXTERNAL TABLE landed (at BIGINT NOT NULL, ad_id VARCHAR, bid DOUBLE CHECK (bid < 50))
         STORED AS DELTA LOCATION '{location}'
         OPTIONS ('on_violation' 'quarantine', 'quarantine_limit' '100%');
         INSERT INTO landed SELECT _offset, ad_id, bid FROM ads;"
    );
    std::fs::write(dir.path().join(FILE), text).unwrap();
    dir
}

#[test]
fn a_table_in_s3_is_written_exactly_once() {
    let s3 = S3::start();
    let topic = topics::new_topic(Broker::shared(), "in-s3", 1);
    let mut values = impressions(0..600);
    values[7] = vec![0x0a, 0xff];
    topics::produce(Broker::shared(), &topic, 0, &values);
    let dir = place(&topic, "s3://books/landed");
    let run = || {
        let mut command = Broker::shared().flumen(dir.path(), ["-o", "json", "run", FILE, "--available-now"]);
        s3.environment(&mut command);
        command
    };
    let mut chance = Chance::new(3);
    for _ in 0..6 {
        let run = Background::start(&mut run());
        std::thread::sleep(Duration::from_millis(200 + chance.below(700)));
        run.kill();
    }
    let done = finish(&mut run()).exits(0);
    assert!(!done.stderr.contains("canary-secret") && !done.stdout.contains("canary-secret"));
    s3.check_rows();
    let mut status = Broker::shared().flumen(dir.path(), ["-o", "json", "status", FILE]);
    let status = finish(s3.environment(&mut status)).exits(0).json();
    assert_eq!((&status[0]["topics"][0]["partitions"][0]["lag"], &status[0]["dead_letters"]), (&json!(0), &json!(1)));
    assert!(finish(&mut run()).exits(0).stdout.is_empty(), "nothing is left to do");
}

/// What was put is sometimes told to have failed, and what failed is sometimes there.
#[test]
fn a_store_that_goes_wrong_at_random_gets_each_record_once() {
    let topic = topics::new_topic(Broker::shared(), "wrong-s3", 1);
    let mut values = impressions(0..600);
    values[7] = vec![0x0a, 0xff];
    topics::produce(Broker::shared(), &topic, 0, &values);
    let mut faults = 0;
    for seed in 17..20 {
        let s3 = S3::start();
        let dir = place(&topic, "s3://books/landed");
        let proxy = FaultyProxy::start(&format!("127.0.0.1:{}", s3.port), 3, seed);
        let mut command = Broker::shared().flumen(dir.path(), ["-o", "json", "run", FILE, "--available-now"]);
        let command = s3.environment(&mut command).env("AWS_ENDPOINT_URL", format!("http://{}", proxy.address()));
        let done = finish(command).exits(0);
        faults += proxy.faults();
        s3.check_rows();
        assert_eq!(done.json().len(), 6, "seed {seed}: one version for each micro-batch\n{}", done.stderr);
    }
    assert!(faults > 20, "only {faults} requests went wrong");
}

#[test]
fn a_store_that_is_not_there_or_does_not_let_us_in_is_named() {
    let s3 = S3::start();
    let topic = topics::new_topic(Broker::shared(), "no-s3", 1);
    topics::produce(Broker::shared(), &topic, 0, &impressions(0..10));
    let dir = place(&topic, "s3://nobody/landed");
    let mut command = Broker::shared().flumen(dir.path(), ["run", FILE, "--available-now"]);
    let failed = finish(s3.environment(&mut command)).exits(2);
    assert!(failed.stderr.contains("make the bucket, or mend the LOCATION"), "{}", failed.stderr);

    // One that forbids, and one that takes every put.
    for (answers, told) in [
        (&[(403, "<Error><Code>AccessDenied</Code></Error>")][..], "does not let us in"),
        (&[(200, ""), (200, ""), (204, "")], "overwrites what it was told to put only where nothing is"),
    ] {
        let server = crate::registry_server::RegistryServer::start();
        server.fail(answers);
        let mut command = Broker::shared().flumen(dir.path(), ["run", FILE, "--available-now"]);
        let command = s3.environment(&mut command).env("AWS_ENDPOINT_URL", format!("http://{}", server.address()));
        let failed = finish(command).exits(2);
        assert!(failed.stderr.contains(told), "{told}: {}", failed.stderr);
        assert_eq!(server.asked().len(), answers.len(), "what is refused is not asked again");
    }
}
