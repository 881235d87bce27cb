//! Secrets of a pipeline file and of the command line are told nowhere: not in what is printed, logged or committed.

use std::path::Path;
use std::process::Command;

use prost::Message;

use crate::ads::impression;
use crate::binary::{finish, workspace};
use crate::broker::Broker;
use crate::registry_server::RegistryServer;
use crate::topics;

const CANARY: &str = "canary-6f1d2c";
const FILE: &str = "secret.sql";

fn pipeline(topic: &str, options: &str) -> String {
    format!(
        "CREATE EXTERNAL TABLE ads STORED AS KAFKA LOCATION 'kafka://${{env:KAFKA_BROKERS}}/{topic}'
         OPTIONS ('value.proto' 'proto/ads/v1/ads.proto', 'value.message' 'ads.v1.AdImpression',
                  'kafka.sasl.password' '${{env:CANARY}}', 'kafka.ssl.key.password' '${{env:CANARY}}'{options});
         CREATE EXTERNAL TABLE kept (at BIGINT NOT NULL, ad_id VARCHAR, bid DOUBLE CHECK (bid < 1))
         STORED AS DELTA LOCATION 'tables/kept' OPTIONS ('on_violation' 'quarantine', 'quarantine_limit' '100%');
         INSERT INTO kept SELECT _offset, ad_id, bid FROM ads;"
    )
}

fn files_with_the_canary(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with_the_canary(&path));
        } else if std::fs::read(&path).unwrap().windows(CANARY.len()).any(|part| part == CANARY.as_bytes()) {
            found.push(path.display().to_string());
        }
    }
    found
}

#[test]
fn a_secret_is_told_nowhere() {
    let broker = Broker::shared();
    let topic = topics::new_topic(broker, "secrets", 1);
    let broken = [vec![0x0a, 0xff], impression(70).encode_to_vec(), impression(0).encode_to_vec()];
    topics::produce(broker, &topic, 0, &broken);
    let dir = workspace();
    let registry = RegistryServer::start();
    let framed = format!(
        ", 'value.framing' 'confluent', 'schema.registry.url' '{}',
         'schema.registry.basic.auth.user.info' 'user:${{env:CANARY}}'",
        registry.address()
    );
    std::fs::write(dir.path().join(FILE), pipeline(&topic, "")).unwrap();
    std::fs::write(dir.path().join("framed.sql"), pipeline(&topic, &framed)).unwrap();
    std::fs::write(dir.path().join("wrong.sql"), pipeline(&topic, ", 'kafka.no.such.thing' '${env:CANARY}'")).unwrap();
    let alert = format!("flumen.alert_url=http://user:{CANARY}@127.0.0.1:1/hook?token={CANARY}");
    let ask = |words: &[&str], change: &dyn Fn(&mut Command)| {
        let mut command = broker.flumen(dir.path(), ["-vvv", "-o", "json"].iter().chain(words));
        command.env("CANARY", CANARY);
        change(&mut command);
        let done = finish(&mut command);
        for (name, text) in [("stdout", &done.stdout), ("stderr", &done.stderr)] {
            let line = text.lines().find(|line| line.contains(CANARY));
            assert_eq!(line, None, "{words:?} tells it on {name}");
        }
        done
    };
    let plain = |words: &[&str]| ask(words, &|_| {});
    let run = ["run", FILE, "--available-now", "--set", &alert];
    plain(&["check", FILE]).exits(0);
    plain(&["explain", FILE]).exits(0);
    let done = plain(&run).exits(0);
    assert!(done.stdout.contains("\"quarantined\":1") && done.stderr.contains("quarantined"), "{}", done.stderr);
    plain(&["status", FILE]).exits(0);
    plain(&["sql", FILE, "SELECT count(*) FROM kept"]).exits(0);
    plain(&["dead-letters", "list", FILE]).exits(0);
    plain(&["dead-letters", "retry", FILE]).exits(0);
    plain(&["maintain", FILE]).exits(0);
    plain(&["check", "wrong.sql"]).exits(2);
    // The registry does not know us, and the broker is not there.
    registry.ask_for("Bearer nobody");
    let patience = ["--set", "flumen.broker_timeout=1 second"];
    let refused = plain(&[&["run", "framed.sql", "--available-now"][..], &patience].concat());
    assert_ne!(refused.code, Some(0));
    let away = ask(&[&run[..], &patience].concat(), &|command| _ = command.env("KAFKA_BROKERS", "127.0.0.1:1"));
    away.exits(1);
    assert_eq!(files_with_the_canary(&dir.path().join("tables")), Vec::<String>::new());
}
