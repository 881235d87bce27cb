//! Exactly once, first proof: killed at random moments, run twice at once, and with the broker away.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use datafusion::prelude::SessionContext;

use crate::ads::impressions;
use crate::binary::{Background, finish, flumen, until, workspace};
use crate::broker::Broker;
use crate::chance::Chance;
use crate::{delta, topics};

const FILE: &str = "land.sql";

/// Every field that shows a lost or doubled record: the record's own place in the topic.
fn pipeline(topic: &str) -> String {
    format!(
        "CREATE EXTERNAL TABLE ads STORED AS KAFKA LOCATION 'kafka://${{env:KAFKA_BROKERS}}/{topic}'
         OPTIONS ('value.proto' 'proto/ads/v1/ads.proto', 'value.message' 'ads.v1.AdImpression');
         CREATE EXTERNAL TABLE landed (part INT NOT NULL, at BIGINT NOT NULL, ad_id VARCHAR, context_id VARCHAR)
         STORED AS DELTA LOCATION 'tables/landed';
         INSERT INTO landed SELECT _partition, _offset, ad_id, context_id FROM ads;"
    )
}

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new(topic: &str) -> Self {
        let dir = workspace();
        std::fs::write(dir.path().join(FILE), pipeline(topic)).unwrap();
        Self { dir }
    }

    fn run(&self, address: &str, args: &[&str]) -> Command {
        let mut words = vec!["-o", "json", "run", FILE];
        words.extend(args);
        let mut command = flumen(self.dir.path(), words);
        command.env("KAFKA_BROKERS", address);
        command
    }

    fn table(&self) -> PathBuf {
        self.dir.path().join("tables/landed")
    }

    fn committed(&self, topic: &str) -> i64 {
        let prefix = format!("flumen:land:landed:{topic}:");
        delta::txns(&self.table()).iter().filter(|(id, _)| id.starts_with(&prefix)).map(|(_, offset)| offset).sum()
    }
}

/// Rows in one table and not in the other, as multisets.
async fn difference(left: &Path, right: &Path) -> (usize, usize) {
    let context = SessionContext::new();
    for (name, path) in [("l", left), ("r", right)] {
        let url = url::Url::from_directory_path(path).unwrap();
        let table = deltalake::open_table(url).await.unwrap();
        context.register_table(name, table.table_provider().await.unwrap()).unwrap();
    }
    let grouped = |t: &str| format!("SELECT part, at, ad_id, context_id, count(*) AS n FROM {t} GROUP BY 1, 2, 3, 4");
    let only = async |a: &str, b: &str| {
        let sql = format!("SELECT count(*) FROM ({} EXCEPT {})", grouped(a), grouped(b));
        let batches = context.sql(&sql).await.unwrap().collect().await.unwrap();
        let count = batches[0].column(0).as_any().downcast_ref::<arrow::array::Int64Array>().unwrap();
        count.value(0) as usize
    };
    (only("l", "r").await, only("r", "l").await)
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_thirty_times_the_table_equals_the_uninterrupted_run() {
    const RECORDS: u64 = 500_000;
    let broker = Broker::shared();
    let topic = topics::new_topic(broker, "killed", 2);
    let values = impressions(0..RECORDS / 2);
    topics::produce(broker, &topic, 0, &values);
    topics::produce(broker, &topic, 1, &values);
    let rows = ["--available-now", "--set", "flumen.max_rows=5000"];

    let calm = Place::new(&topic);
    finish(&mut calm.run(broker.address(), &rows)).exits(0);

    let killed = Place::new(&topic);
    let mut kills = 0;
    let mut position = 0;
    let mut chance = Chance::new(1);
    loop {
        let mut run = Background::start(&mut killed.run(broker.address(), &rows));
        // Let it come a little further than last time, then kill it at a moment that the commit does not know of.
        let goal = position + 5_000 * chance.below(3) as i64;
        until("progress", Duration::from_secs(60), || killed.committed(&topic) > goal || !run.running());
        tokio::time::sleep(Duration::from_micros(chance.below(60_000))).await;
        let alive = run.running();
        run.kill();
        position = killed.committed(&topic);
        kills += usize::from(alive);
        if kills == 30 || !alive {
            break;
        }
    }
    assert_eq!(kills, 30, "the run was over before it was killed 30 times");
    finish(&mut killed.run(broker.address(), &rows)).exits(0);

    assert_eq!(difference(&calm.table(), &killed.table()).await, (0, 0));
    for place in [&calm, &killed] {
        assert_eq!(place.committed(&topic), RECORDS as i64);
        let infos = delta::commit_infos(&place.table());
        assert_eq!(infos.len(), delta::log(&place.table()).len());
        // Upkeep has versions of its own.
        let infos: Vec<_> = infos.into_iter().filter(|info| info.get("records").is_some()).collect();
        let batches = infos.iter().filter(|i| i["records"]["read"].as_u64().unwrap() > 0).count();
        assert_eq!(batches + 1, infos.len(), "one version for each micro-batch, and the first");
        let read: u64 = infos.iter().map(|i| i["records"]["read"].as_u64().unwrap()).sum();
        assert_eq!(read, RECORDS, "no record was committed twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_instances_one_is_fenced_and_rows_are_there_once() {
    let broker = Broker::shared();
    let topic = topics::new_topic(broker, "fenced", 2);
    let place = Place::new(&topic);
    let args = ["--set", "flumen.trigger=20 milliseconds"];
    let mut runs = [
        Background::start(&mut place.run(broker.address(), &args)),
        Background::start(&mut place.run(broker.address(), &args)),
    ];
    let mut sent = 0;
    // Records keep coming until one of the two has met the other's commit.
    while runs.iter_mut().all(Background::running) && sent < 400 {
        topics::produce(broker, &topic, (sent % 2) as i32, &impressions(sent * 10..sent * 10 + 10));
        sent += 1;
    }
    until("one is fenced", Duration::from_secs(60), || !runs.iter_mut().all(Background::running));
    topics::produce(broker, &topic, 0, &impressions(90_000..90_010));
    let all = sent as i64 * 10 + 10;
    until("the other goes on", Duration::from_secs(60), || place.committed(&topic) == all);
    let [mut first, second] = runs;
    let (fenced, left) = if first.running() { (second, first) } else { (first, second) };
    let fenced = fenced.wait().exits(4);
    assert!(fenced.stderr.contains("another instance") || fenced.stderr.contains("fenced"), "{}", fenced.stderr);
    left.signal("TERM");
    left.wait().exits(0);

    let calm = Place::new(&topic);
    finish(&mut calm.run(broker.address(), &["--available-now"])).exits(0);
    assert_eq!(difference(&calm.table(), &place.table()).await, (0, 0));
}

#[test]
fn a_broker_that_goes_away_is_waited_for() {
    let broker = Broker::own();
    let topic = topics::new_topic(&broker, "away", 1);
    topics::produce(&broker, &topic, 0, &impressions(0..100));
    let place = Place::new(&topic);
    let run = Background::start(&mut place.run(broker.address(), &["--set", "flumen.trigger=20 milliseconds"]));
    until("the first records", Duration::from_secs(60), || place.committed(&topic) == 100);
    broker.stop();
    broker.start_again();
    topics::produce(&broker, &topic, 0, &impressions(100..150));
    until("the rest", Duration::from_secs(120), || place.committed(&topic) == 150);
    run.signal("TERM");
    let finished = run.wait().exits(0);
    let waits = finished.stderr.lines().filter(|line| line.contains("WARN") && line.contains("is away")).count();
    assert!(waits <= 2, "said once, not again and again:\n{}", finished.stderr);
}

#[test]
fn a_bounded_run_gives_up_on_a_broker_after_its_timeout() {
    let place = Place::new("nobody");
    // Nothing listens on the discard port of the loopback interface.
    let args = ["--available-now", "--set", "flumen.broker_timeout=1 second"];
    let failed = finish(&mut place.run("127.0.0.1:9", &args)).exits(1);
    assert!(failed.stderr.contains("127.0.0.1:9"), "{}", failed.stderr);
    assert!(!place.table().exists());
}
