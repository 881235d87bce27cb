//! Leaders that move and leaders that lose records, through the real binary on a cluster: node 1 is its controller,
//! nodes 2 and 3 hold the topics, and the tests stop and start these two.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::json;

use crate::ads::impressions;
use crate::binary::{Background, Finished, finish, flumen, until, workspace};
use crate::broker::{Broker, lasting_dir, send};
use crate::{delta, topics};

const PATIENCE: Duration = Duration::from_secs(60);

struct Cluster {
    controller: Broker,
    second: Broker,
    third: Broker,
}

impl Cluster {
    /// The cluster, for one test at a time.
    fn shared() -> (&'static Cluster, MutexGuard<'static, ()>) {
        static ALONE: Mutex<()> = Mutex::new(());
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let cluster = SHARED.get_or_init(|| {
            // A broker that was killed is missed soon, not after nine seconds.
            let soon = lasting_dir("cluster").join("soon.properties");
            std::fs::write(&soon, "broker.session.timeout.ms=4000\nbroker.heartbeat.interval.ms=500\n").unwrap();
            let options = ["--config", soon.to_str().unwrap()];
            let controller = Broker::lasting(&options);
            let [second, third] = [2, 3].map(|node| controller.join(node, &options));
            Cluster { controller, second, third }
        });
        // A test that failed may have left one of them stopped.
        cluster.second.start_again();
        cluster.third.start_again();
        (cluster, alone)
    }

    /// Waits until every partition of the topic has the leader, and the replicas in sync, that are asked for.
    #[track_caller]
    fn await_leaders(&self, topic: &str, leaders: &[i32], in_sync: &[i32]) {
        until(&format!("{topic}: {leaders:?} lead, {in_sync:?} are in sync"), PATIENCE, || {
            let are = self.controller.leaders(topic);
            are.iter().map(|(leader, _)| leader).eq(leaders) && are.iter().all(|(_, isr)| isr == in_sync)
        });
    }

    fn produce(&self, topic: &str, partition: i32, numbers: std::ops::Range<u64>) {
        topics::produce(&self.controller, topic, partition, &impressions(numbers));
    }
}

struct Place {
    dir: tempfile::TempDir,
    topic: String,
    brokers: String,
}

impl Place {
    /// `options`: more of the topic's.
    fn new(cluster: &Cluster, topic: &str, options: &str) -> Self {
        let dir = workspace();
        let text = format!(
            "CREATE EXTERNAL TABLE ads STORED AS KAFKA LOCATION 'kafka://${{env:KAFKA_BROKERS}}/{topic}'
             OPTIONS ('value.proto' 'proto/ads/v1/ads.proto', 'value.message' 'ads.v1.AdImpression'{options});
             CREATE EXTERNAL TABLE landed (part INT NOT NULL, at BIGINT NOT NULL, context_id VARCHAR)
             STORED AS DELTA LOCATION 'tables/landed';
             INSERT INTO landed SELECT _partition, _offset, context_id FROM ads;"
        );
        std::fs::write(dir.path().join("land.sql"), text).unwrap();
        let brokers = format!("{},{}", cluster.second.address(), cluster.third.address());
        Self { dir, topic: topic.to_string(), brokers }
    }

    fn run(&self, args: &[&str]) -> Command {
        let mut command = flumen(self.dir.path(), [&["run", "land.sql"], args].concat());
        command.env("KAFKA_BROKERS", &self.brokers);
        command
    }

    fn available_now(&self) -> Finished {
        finish(&mut self.run(&["--available-now"]))
    }

    fn table(&self) -> PathBuf {
        self.dir.path().join("tables/landed")
    }

    /// The positions by partition.
    fn positions(&self) -> Vec<i64> {
        let prefix = format!("flumen:land:landed:{}:", self.topic);
        let txns = delta::txns(&self.table());
        txns.iter().filter(|(id, _)| id.starts_with(&prefix)).map(|(_, offset)| *offset).collect()
    }

    fn committed(&self) -> u64 {
        self.positions().iter().sum::<i64>() as u64
    }
}

/// Publishes ten records after the other, to each partition in turn.
struct Producing {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

impl Producing {
    fn start(cluster: &Cluster, topic: &str, partitions: u64) -> Self {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (told, counted, topic) = (Arc::clone(&stop), Arc::clone(&acknowledged), topic.to_string());
        let producer = cluster.controller.producer(None);
        let thread = std::thread::spawn(move || {
            for round in (0..).take_while(|_| !told.load(Ordering::Relaxed)) {
                let values = impressions(round * 10..round * 10 + 10);
                send(&producer, &topic, &topics::records((round % partitions) as i32, &values));
                counted.fetch_add(10, Ordering::Relaxed);
            }
        });
        Self { stop, acknowledged, thread }
    }

    fn so_far(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// How many records there are in all.
    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.acknowledged.load(Ordering::Relaxed)
    }
}

#[test]
fn leaders_move_and_each_record_is_there_once() {
    let (cluster, _alone) = Cluster::shared();
    topics::create_replicated(&cluster.controller, "moved", &[&[2, 3], &[3, 2], &[2, 3], &[3, 2]], &[]);
    let place = Place::new(cluster, "moved", "");
    let mut run = Background::start(&mut place.run(&["--set", "flumen.trigger=20 milliseconds"]));
    let producing = Producing::start(cluster, "moved", 4);
    let reads_on = |what: &str| {
        // Each partition has had its turn since.
        let goal = producing.so_far() + 80;
        until(what, PATIENCE, || place.committed() > goal);
    };
    reads_on("the first records");
    cluster.second.kill();
    cluster.await_leaders("moved", &[3, 3, 3, 3], &[3]);
    reads_on("records of the new leaders");
    cluster.second.start_again();
    cluster.await_leaders("moved", &[3, 3, 3, 3], &[2, 3]);
    cluster.controller.elect();
    cluster.await_leaders("moved", &[2, 3, 2, 3], &[2, 3]);
    reads_on("records of the leaders that are back");
    cluster.third.stop();
    cluster.await_leaders("moved", &[2, 2, 2, 2], &[2]);
    reads_on("records of the one that is left");
    let all = producing.end();
    until("the rest", PATIENCE, || place.committed() == all);
    assert!(run.running());
    run.signal("TERM");
    let told = run.wait().exits(0).stderr;
    assert!(told.matches("is away").count() <= 3, "once for each time that they moved, at most:\n{told}");

    let rows = delta::read_with_python(&place.table()).rows;
    let places: BTreeSet<_> = rows.iter().map(|row| (row["part"].as_i64(), row["at"].as_i64())).collect();
    let records: BTreeSet<_> = rows.iter().map(|row| row["context_id"].as_str()).collect();
    assert_eq!((rows.len() as u64, places.len() as u64, records.len() as u64), (all, all, all));
}

const UNCLEAN: [(&str, &str); 2] = [("min.insync.replicas", "1"), ("unclean.leader.election.enable", "true")];

/// A leader goes that has records of which its only follower knows nothing, and the follower leads.
///
/// What is not seen by a run that starts afterwards: a log that has grown beyond the position again. The numbers look
/// as ever, and only the epochs of leaders, which a position does not have, would tell.
#[test]
fn a_log_that_lost_its_end_is_named_exactly() {
    let (cluster, _alone) = Cluster::shared();
    topics::create_replicated(&cluster.controller, "cut", &[&[2, 3], &[2, 3]], &UNCLEAN);
    let (place, skips) = (Place::new(cluster, "cut", ""), Place::new(cluster, "cut", ", 'on_data_loss' 'skip'"));
    cluster.produce("cut", 0, 0..10);
    cluster.produce("cut", 1, 0..10);
    cluster.third.stop();
    cluster.await_leaders("cut", &[2, 2], &[2]);
    cluster.produce("cut", 0, 10..20);
    cluster.produce("cut", 1, 10..15);
    for place in [&place, &skips] {
        place.available_now().exits(0);
        assert_eq!(place.positions(), [20, 15]);
    }
    cluster.second.stop();
    cluster.third.start_again();
    cluster.await_leaders("cut", &[3, 3], &[3]);

    let is_refused = |parts: [&str; 2]| {
        let failed = place.available_now().exits(3);
        let ways = ["topic cut", "land", "'on_data_loss' 'skip'", "SET flumen.pipeline", "\"alert\":\"offsets_lost\""];
        for part in parts.iter().chain(&ways) {
            assert!(failed.stderr.contains(part), "{part}: {}", failed.stderr);
        }
        assert_eq!(place.positions(), [20, 15]);
    };
    is_refused([
        "partition 0: offsets [10, 20) are gone, which the table has",
        "partition 1: offsets [10, 15) are gone, which",
    ]);
    // Records that come later have the numbers of those that are gone; there are fewer of them.
    cluster.produce("cut", 0, 100..104);
    is_refused([
        "partition 0: offsets [14, 20) are gone, which the table has",
        "partition 1: offsets [10, 15) are gone, which",
    ]);

    let told = skips.available_now().exits(0).stderr;
    assert!(told.contains("\"alert\":\"offsets_lost\""), "{told}");
    assert_eq!(skips.positions(), [14, 10]);
    let lost: Vec<_> =
        delta::commit_infos(&skips.table()).iter().filter_map(|info| info.get("lost").cloned()).collect();
    let gone = [(0, 14, 20), (1, 10, 15)].map(|(partition, from, to)| {
        json!({"topic": "cut", "partition": partition, "from": from, "to": to, "cut_off": true})
    });
    assert_eq!(lost, [json!(gone)]);
    cluster.produce("cut", 0, 104..110);
    assert!(!skips.available_now().exits(0).stderr.contains("are gone"), "it is said once");
    assert_eq!(skips.positions(), [20, 10]);
    assert_eq!(delta::read_with_python(&skips.table()).rows.len(), 20 + 15 + 6);
}

#[test]
fn a_log_that_was_cut_off_and_grew_again_is_noticed_by_whoever_read_it_before() {
    let (cluster, _alone) = Cluster::shared();
    topics::create_replicated(&cluster.controller, "regrown", &[&[2, 3]], &UNCLEAN);
    let place = Place::new(cluster, "regrown", "");
    cluster.produce("regrown", 0, 0..10);
    cluster.third.stop();
    cluster.await_leaders("regrown", &[2], &[2]);
    cluster.produce("regrown", 0, 10..20);
    let mut run = Background::start(&mut place.run(&["--set", "flumen.trigger=20 milliseconds"]));
    until("the first records", PATIENCE, || place.committed() == 20);
    // It sleeps while the log is shorter than its position.
    run.signal("STOP");
    cluster.second.stop();
    cluster.third.start_again();
    cluster.await_leaders("regrown", &[3], &[3]);
    cluster.produce("regrown", 0, 100..130);
    run.signal("CONT");
    until("its end", PATIENCE, || !run.running());
    let told = run.wait().exits(3).stderr;
    for part in ["topic regrown partition 0: its log was cut off below 20", "\"alert\":\"offsets_lost\""] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert_eq!(place.positions(), [20]);
}
