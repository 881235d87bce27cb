//! One instance sleeps while others write its table: what it does when it wakes up, through the real binary.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::ads::impressions;
use crate::binary::{Background, finish, until, workspace};
use crate::broker::Broker;
use crate::{delta, topics};

const FILE: &str = "land.sql";
const PATIENCE: Duration = Duration::from_secs(60);

struct Place {
    dir: tempfile::TempDir,
    topic: String,
}

impl Place {
    fn new(name: &str) -> Self {
        let topic = topics::new_topic(Broker::shared(), name, 1);
        let dir = workspace();
        let text = format!(
            "CREATE EXTERNAL TABLE ads STORED AS KAFKA LOCATION 'kafka://${{env:KAFKA_BROKERS}}/{topic}'
             OPTIONS ('value.proto' 'proto/ads/v1/ads.proto', 'value.message' 'ads.v1.AdImpression');
             CREATE EXTERNAL TABLE landed (at BIGINT NOT NULL, ad_id VARCHAR) STORED AS DELTA LOCATION 'tables/landed';
             INSERT INTO landed SELECT _offset, ad_id FROM ads;"
        );
        std::fs::write(dir.path().join(FILE), text).unwrap();
        Self { dir, topic }
    }

    fn run(&self, args: &[&str]) -> Command {
        Broker::shared().flumen(self.dir.path(), [&["-o", "json", "run", FILE], args].concat())
    }

    fn table(&self) -> PathBuf {
        self.dir.path().join("tables/landed")
    }

    fn position(&self) -> i64 {
        let id = format!("flumen:land:landed:{}:0", self.topic);
        delta::txns(&self.table()).get(&id).copied().unwrap_or(-1)
    }

    fn produce(&self, range: std::ops::Range<u64>) {
        topics::produce(Broker::shared(), &self.topic, 0, &impressions(range));
    }

    /// An instance that has committed ten records and was stopped by a signal.
    fn asleep(&self) -> Background {
        self.produce(0..10);
        let run = Background::start(&mut self.run(&["--set", "flumen.trigger=20 milliseconds"]));
        until("the first records", PATIENCE, || self.position() == 10);
        run.signal("STOP");
        run
    }

    /// Does something to the table with the Python package.
    fn python(&self, code: &str) {
        let code = format!(
            "import sys, os\nfrom deltalake import DeltaTable, write_deltalake\nt = sys.argv[1]\n{code}\nos._exit(0)"
        );
        let python = std::env::var("FLUMEN_PYTHON").expect("scripts/test names a Python");
        let output = Command::new(python).args(["-c", &code]).arg(self.table()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The offsets in the table, sorted; foreign rows are -1.
    fn rows(&self) -> Vec<i64> {
        let mut rows: Vec<i64> =
            delta::read_with_python(&self.table()).rows.iter().map(|row| row["at"].as_i64().unwrap()).collect();
        rows.sort_unstable();
        rows
    }
}

#[test]
fn whoever_wakes_up_behind_another_instance_stops() {
    let place = Place::new("asleep");
    let sleeper = place.asleep();
    place.produce(10..20);
    finish(&mut place.run(&["--available-now"])).exits(0);
    let versions = delta::log(&place.table()).len();
    place.produce(30..40);
    sleeper.signal("CONT");
    let woken = sleeper.wait().exits(4);
    assert!(woken.stderr.contains("another instance"), "{}", woken.stderr);
    assert_eq!(delta::log(&place.table()).len(), versions, "it commits nothing after the other one");
    finish(&mut place.run(&["--available-now"])).exits(0);
    assert_eq!(place.rows(), (0..30).collect::<Vec<_>>());
}

#[test]
fn a_table_that_was_made_again_is_left_alone() {
    let place = Place::new("made-again");
    let sleeper = place.asleep();
    std::fs::remove_dir_all(place.table()).unwrap();
    finish(&mut place.run(&["--available-now"])).exits(0);
    let (versions, files) = (delta::log(&place.table()), std::fs::read_dir(place.table()).unwrap().count());
    place.produce(10..20);
    sleeper.signal("CONT");
    sleeper.wait().exits(4);
    assert_eq!(delta::log(&place.table()), versions);
    assert_eq!(place.rows(), (0..10).collect::<Vec<_>>());
    assert!(std::fs::read_dir(place.table()).unwrap().count() <= files + 1, "a file of the one that stopped at most");
}

#[test]
fn a_log_that_was_cleaned_up_below_is_left_alone() {
    let place = Place::new("cleaned");
    let sleeper = place.asleep();
    place.python("DeltaTable(t).create_checkpoint()");
    for entry in std::fs::read_dir(place.table().join("_delta_log")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            std::fs::remove_file(path).unwrap();
        }
    }
    place.produce(10..20);
    sleeper.signal("CONT");
    let woken = sleeper.wait().exits(4);
    assert!(woken.stderr.contains("cleaned up"), "{}", woken.stderr);
    // Started again it reads the checkpoint and goes on.
    finish(&mut place.run(&["--available-now"])).exits(0);
    assert_eq!(place.rows(), (0..20).collect::<Vec<_>>());
}

#[test]
fn foreign_writers_are_stepped_over_and_a_foreign_definition_is_not() {
    let place = Place::new("foreign");
    let sleeper = place.asleep();
    place.python(
        "import pyarrow as pa
write_deltalake(t, pa.table({'at': pa.array([-1, -1], pa.int64()), 'ad_id': ['x', 'y']}), mode='append')
DeltaTable(t).optimize.compact()
DeltaTable(t).alter.set_table_properties({'delta.logRetentionDuration': 'interval 9 days'})",
    );
    place.produce(10..20);
    sleeper.signal("CONT");
    until("it goes on", PATIENCE, || place.position() == 20);
    assert_eq!(place.rows(), [-1, -1].into_iter().chain(0..20).collect::<Vec<_>>());
    sleeper.signal("STOP");
    place.python("DeltaTable(t).alter.add_constraint({'below': 'at < 1000'})");
    place.produce(20..30);
    sleeper.signal("CONT");
    until("it holds its rows against the new constraint and goes on", PATIENCE, || place.position() == 30);
    sleeper.signal("STOP");
    place.python(
        "from deltalake import Field
from deltalake.schema import PrimitiveType
DeltaTable(t).alter.add_columns([Field('more', PrimitiveType('long'), nullable=True)])",
    );
    place.produce(20..30);
    sleeper.signal("CONT");
    let woken = sleeper.wait().exits(3);
    for part in ["no longer is what the contract says", "more", "\"alert\":\"contract_broken\""] {
        assert!(woken.stderr.contains(part), "{part}: {}", woken.stderr);
    }
    assert_eq!(place.position(), 30);
}

#[test]
fn rows_are_held_against_a_foreign_constraint() {
    let place = Place::new("foreign-check");
    let sleeper = place.asleep();
    place.python("DeltaTable(t).alter.add_constraint({'below': 'at < 15'})");
    place.produce(10..20);
    sleeper.signal("CONT");
    let woken = sleeper.wait().exits(3);
    assert!(woken.stderr.contains("check below (at < 15) is broken"), "{}", woken.stderr);
    assert_eq!(place.position(), 10);
}
