//! Brokers that do not let everybody in, through the real binary: TLS with a password, with SCRAM, with a client's
//! certificate, and what is said to those who stay outside.

mod certificates;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use certificates::Identity;

use crate::ads::impressions;
use crate::binary::{Background, Finished, finish, until, workspace};
use crate::broker::{Broker, lasting_dir};
use crate::{delta, topics};

const LISTENERS: [&str; 3] = ["PLAIN", "SCRAM", "MTLS"];
const USER: &str = "reader";
const PASSWORD: &str = "right-3e1a77";
const WRONG: &str = "wrong-90c4d2";
/// An answer that does not wait for `flumen.broker_timeout`, which is five minutes.
const AT_ONCE: Duration = Duration::from_secs(10);

/// A broker with a listener of each kind, and what its clients need.
struct Secure {
    broker: Broker,
    files: PathBuf,
}

impl Secure {
    fn shared() -> &'static Secure {
        static SHARED: OnceLock<Secure> = OnceLock::new();
        SHARED.get_or_init(Secure::start)
    }

    fn start() -> Secure {
        let files = lasting_dir("certificates");
        let dir = files.as_path();
        let authority = Identity::authority("the CA");
        let ca = authority.write_certificate(dir, "ca.pem");
        Identity::authority("another CA").write_certificate(dir, "another-ca.pem");
        let broker = authority.sign("broker").write_both(dir, "broker.pem");
        let client = authority.sign("client");
        client.write_certificate(dir, "client.pem");
        client.write_key(dir, "client.key");
        let module = "org.apache.kafka.common.security";
        let config = format!(
            "ssl.keystore.type=PEM\nssl.keystore.location={}\nssl.truststore.type=PEM\nssl.truststore.location={}\n\
             listener.name.mtls.ssl.client.auth=required\n\
             listener.name.plain.sasl.enabled.mechanisms=PLAIN\n\
             listener.name.plain.plain.sasl.jaas.config={module}.plain.PlainLoginModule required \
             user_{USER}=\"{PASSWORD}\";\n\
             listener.name.scram.sasl.enabled.mechanisms=SCRAM-SHA-512\n\
             listener.name.scram.scram-sha-512.sasl.jaas.config={module}.scram.ScramLoginModule required;\n",
            broker.display(),
            ca.display(),
        );
        let properties = dir.join("listeners.properties");
        std::fs::write(&properties, config).unwrap();
        let scram = format!("{USER}:{PASSWORD}");
        let [plain, scram_by, mtls] = ["PLAIN:SASL_SSL", "SCRAM:SASL_SSL", "MTLS:SSL"];
        let listeners = ["--listener", plain, "--listener", scram_by, "--listener", mtls];
        let more = ["--scram", &scram, "--config", properties.to_str().unwrap()];
        Secure { broker: Broker::lasting(&[&listeners[..], &more].concat()), files }
    }
}

/// A pipeline that reads a topic through one of the listeners.
struct Place {
    dir: tempfile::TempDir,
    topic: String,
    listener: &'static str,
}

impl Place {
    /// With the options of Kafka's client that the listener asks for, but for `changes`: an empty value takes one away.
    fn new(topic: &str, listener: &'static str, changes: &[(&'static str, &str)]) -> Self {
        let mut options = options_for(listener);
        options.extend(changes.iter().map(|(name, value)| (*name, (*value).to_string())));
        let given = options.iter().filter(|(_, value)| !value.is_empty());
        let options: String = given.map(|(name, value)| format!(", 'kafka.{name}' '{value}'")).collect();
        let text = format!(
            "CREATE EXTERNAL TABLE ads STORED AS KAFKA LOCATION 'kafka://${{env:KAFKA_BROKERS}}/{topic}'
             OPTIONS ('value.proto' 'proto/ads/v1/ads.proto', 'value.message' 'ads.v1.AdImpression'{options});
             CREATE EXTERNAL TABLE landed (at BIGINT NOT NULL, ad_id VARCHAR) STORED AS DELTA LOCATION 'tables/landed';
             INSERT INTO landed SELECT _offset, ad_id FROM ads;"
        );
        let dir = workspace();
        std::fs::write(dir.path().join("land.sql"), text).unwrap();
        Self { dir, topic: topic.to_string(), listener }
    }

    fn command(&self, password: &str, args: &[&str]) -> Command {
        let broker = &Secure::shared().broker;
        let mut command = broker.flumen(self.dir.path(), [&["run", "land.sql"], args].concat());
        command.env("KAFKA_BROKERS", broker.listener(self.listener)).env("PASSWORD", password);
        command
    }

    fn available_now(&self, args: &[&str]) -> Finished {
        let done = finish(&mut self.command(PASSWORD, &[&["--available-now"], args].concat()));
        tells_no_password(&done);
        done
    }

    /// A run that ends at once with this exit code and these words, and nothing was written.
    #[track_caller]
    fn is_refused(&self, password: &str, code: i32, words: &[&str]) {
        let mut run = Background::start(&mut self.command(password, &[]));
        until("its end", AT_ONCE, || !run.running());
        let failed = run.wait().exits(code);
        tells_no_password(&failed);
        let address = Secure::shared().broker.listener(self.listener);
        for word in words.iter().chain([&address, &self.topic.as_str()]) {
            assert!(failed.stderr.contains(word), "{word}: {}", failed.stderr);
        }
        assert!(!self.table().exists());
    }

    fn table(&self) -> PathBuf {
        self.dir.path().join("tables/landed")
    }

    fn position(&self) -> Option<i64> {
        delta::txns(&self.table()).get(&format!("flumen:land:landed:{}:0", self.topic)).copied()
    }
}

#[track_caller]
fn tells_no_password(done: &Finished) {
    for secret in [PASSWORD, WRONG] {
        assert!(!done.stdout.contains(secret) && !done.stderr.contains(secret), "{}", done.stderr);
    }
}

fn options_for(listener: &str) -> BTreeMap<&'static str, String> {
    let file = |name: &str| Secure::shared().files.join(name).display().to_string();
    let mut options = BTreeMap::from([("ssl.ca.location", file("ca.pem"))]);
    if listener == "MTLS" {
        options.insert("security.protocol", "SSL".into());
        options.insert("ssl.certificate.location", file("client.pem"));
        options.insert("ssl.key.location", file("client.key"));
    } else {
        options.insert("security.protocol", "SASL_SSL".into());
        options.insert("sasl.mechanism", if listener == "PLAIN" { "PLAIN" } else { "SCRAM-SHA-512" }.into());
        options.insert("sasl.username", USER.into());
        options.insert("sasl.password", "${env:PASSWORD}".into());
    }
    options
}

#[test]
fn through_each_door_a_topic_is_read_whole() {
    let broker = &Secure::shared().broker;
    let topic = topics::new_topic(broker, "doors", 1);
    topics::produce(broker, &topic, 0, &impressions(0..100));
    for listener in LISTENERS {
        let place = Place::new(&topic, listener, &[]);
        place.available_now(&[]).exits(0);
        assert_eq!(place.position(), Some(100), "{listener}");
        assert_eq!(delta::read_with_python(&place.table()).rows.len(), 100, "{listener}");
    }
    // Files are looked for beside the others that the pipeline names.
    let place = Place::new(&topic, "PLAIN", &[("ssl.ca.location", "certificates/ca.pem")]);
    std::fs::create_dir(place.dir.path().join("certificates")).unwrap();
    let ca = Secure::shared().files.join("ca.pem");
    std::fs::copy(ca, place.dir.path().join("certificates/ca.pem")).unwrap();
    place.available_now(&[]).exits(0);
    assert_eq!(place.position(), Some(100));
}

#[test]
fn a_wrong_password_or_user_is_named_at_once() {
    let topic = topics::new_topic(&Secure::shared().broker, "password", 1);
    let told = ["kafka.sasl.username", "kafka.sasl.password"];
    for listener in ["PLAIN", "SCRAM"] {
        Place::new(&topic, listener, &[]).is_refused(WRONG, 2, &told);
    }
    Place::new(&topic, "SCRAM", &[("sasl.username", "nobody")]).is_refused(PASSWORD, 2, &told);
    let told = ["kafka.sasl.mechanism", "PLAIN"];
    Place::new(&topic, "PLAIN", &[("sasl.mechanism", "SCRAM-SHA-512")]).is_refused(PASSWORD, 2, &told);
}

#[test]
fn a_broker_that_another_ca_vouches_for_is_named_at_once() {
    let topic = topics::new_topic(&Secure::shared().broker, "ca", 1);
    let another = Secure::shared().files.join("another-ca.pem").display().to_string();
    for listener in LISTENERS {
        let place = Place::new(&topic, listener, &[("ssl.ca.location", &another)]);
        place.is_refused(PASSWORD, 2, &["certificate", "kafka.ssl.ca.location"]);
    }
}

#[test]
fn a_client_without_the_certificate_that_is_asked_for_is_told_so_at_once() {
    let topic = topics::new_topic(&Secure::shared().broker, "client", 1);
    let without = [("ssl.certificate.location", ""), ("ssl.key.location", "")];
    let told = ["kafka.ssl.certificate.location", "kafka.ssl.key.location"];
    Place::new(&topic, "MTLS", &without).is_refused(PASSWORD, 2, &told);
}

#[test]
fn a_plain_client_before_a_tls_listener_is_told_what_it_may_be() {
    let topic = topics::new_topic(&Secure::shared().broker, "plain", 1);
    let place = Place::new(&topic, "MTLS", &[("security.protocol", "PLAINTEXT")]);
    let started = Instant::now();
    let failed = place.available_now(&["--set", "flumen.broker_timeout=1 second"]).exits(1);
    assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
    assert!(failed.stderr.contains("kafka.security.protocol"), "{}", failed.stderr);
}
