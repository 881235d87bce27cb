//! What a Kafka client is told: the brokers, the user's librdkafka properties, and the settings that are ours.
//!
//! Properties that would break exactly once, or that belong to us, are refused by name. Values may be secrets: they
//! are handed to librdkafka and appear in no message.

use std::collections::BTreeMap;
use std::fmt;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

use crate::error::{Error, Result};

/// The group that reading needs as a label when none is given. It owns no offsets.
const DEFAULT_GROUP: &str = "flumen";

/// Refused properties (`*` at the end: all that begin so), why, and what to do in place of it.
const REFUSED: &[(&str, &str)] = &[
    ("bootstrap.servers", "the brokers are part of the table's LOCATION 'kafka://HOST:PORT[,HOST:PORT]/TOPIC'"),
    ("metadata.broker.list", "the brokers are part of the table's LOCATION 'kafka://HOST:PORT[,HOST:PORT]/TOPIC'"),
    ("auto.offset.reset", "it would skip lost records silently; the first position is the option `start`"),
    ("enable.auto.commit", COMMITS),
    ("auto.commit.*", COMMITS),
    ("enable.auto.offset.store", COMMITS),
    ("offset.store.*", COMMITS),
    ("enable.partition.eof", "a range's end is found with it; leave it out"),
    ("partition.assignment.strategy", GROUPS),
    ("group.instance.id", GROUPS),
    ("group.protocol", GROUPS),
    ("group.protocol.type", GROUPS),
    ("group.remote.assignor", GROUPS),
    ("session.timeout.ms", GROUPS),
    ("heartbeat.interval.ms", GROUPS),
    ("max.poll.interval.ms", GROUPS),
    ("coordinator.query.interval.ms", GROUPS),
    ("transactional.id", "it belongs to a producer; a source only reads"),
    ("allow.auto.create.topics", "reading never creates a topic; create it with Kafka's tools"),
    ("plugin.library.paths", "it loads foreign code into the process; leave it out"),
    ("test.mock.*", "it puts a simulated cluster in the place of the brokers; leave it out"),
    ("log_level", "librdkafka's lines go through the log at debug; set FLUMEN_LOG=librdkafka=debug"),
    ("log.queue", CALLBACKS),
    ("log.thread.name", CALLBACKS),
    ("statistics.interval.ms", CALLBACKS),
    ("enabled_events", CALLBACKS),
    ("opaque", CALLBACKS),
    ("default_topic_conf", CALLBACKS),
    ("consume.callback.max.messages", CALLBACKS),
    ("interceptors", CALLBACKS),
];

const COMMITS: &str = "positions live in the sink's own commits, Kafka's are never read; leave it out \
    (`kafka.group.id` alone mirrors them to Kafka for dashboards)";
const GROUPS: &str = "partitions are assigned by Flumen, no consumer group owns them; leave it out";
const CALLBACKS: &str = "it belongs to the program that embeds librdkafka; leave it out";

/// Refused for a producer besides: each record is published once, in order, on all replicas that are in sync.
const REFUSED_TO_PRODUCERS: [&str; 3] = ["enable.idempotence", "acks", "request.required.acks"];

/// Properties that people set, for a suggestion when a name is unknown.
const USUAL: &[&str] = &[
    "api.version.request.timeout.ms",
    "batch.num.messages",
    "batch.size",
    "broker.address.family",
    "check.crcs",
    "client.dns.lookup",
    "client.id",
    "client.rack",
    "compression.codec",
    "compression.level",
    "connections.max.idle.ms",
    "debug",
    "enable.ssl.certificate.verification",
    "fetch.error.backoff.ms",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "fetch.min.bytes",
    "fetch.queue.backoff.ms",
    "fetch.wait.max.ms",
    "group.id",
    "isolation.level",
    "linger.ms",
    "max.partition.fetch.bytes",
    "message.max.bytes",
    "message.timeout.ms",
    "metadata.max.age.ms",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "queued.max.messages.kbytes",
    "queued.min.messages",
    "receive.message.max.bytes",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "retry.backoff.ms",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.method",
    "sasl.oauthbearer.token.endpoint.url",
    "sasl.password",
    "sasl.username",
    "security.protocol",
    "socket.connection.setup.timeout.ms",
    "socket.keepalive.enable",
    "socket.receive.buffer.bytes",
    "socket.timeout.ms",
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.certificate.pem",
    "ssl.cipher.suites",
    "ssl.crl.location",
    "ssl.endpoint.identification.algorithm",
    "ssl.key.location",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "topic.metadata.refresh.interval.ms",
];

/// Settings of every client. Brokers that come back are found within a second.
const ALWAYS: &[(&str, &str)] = &[
    ("client.id", "flumen"),
    ("reconnect.backoff.max.ms", "1000"),
    ("log_level", "0"),
    ("isolation.level", COMMITTED),
];

/// Settings of a reader. An idle fetch holds up later requests on its connection for `fetch.wait.max.ms`, so that is
/// short; the queue bounds the memory that prefetching takes.
const READER: &[(&str, &str)] = &[
    ("fetch.wait.max.ms", "20"),
    ("fetch.error.backoff.ms", "50"),
    ("fetch.queue.backoff.ms", "20"),
    ("fetch.message.max.bytes", "1048576"),
    ("fetch.max.bytes", "4194304"),
    ("queued.min.messages", "20000"),
    ("queued.max.messages.kbytes", "8192"),
];

/// Settings of a producer. The partition of a key is the one that Java's clients choose. Records that come together
/// wait for each other, but not so long that somebody notices.
const PRODUCER: &[(&str, &str)] = &[
    ("linger.ms", "0.5"),
    ("compression.codec", "lz4"),
    ("partitioner", "murmur2_random"),
    ("message.timeout.ms", "120000"),
    ("queue.buffering.max.messages", "1000000"),
    ("message.max.bytes", "16777216"),
];

/// Settings of a producer that nobody may change: each record once, in order, on all replicas that are in sync.
const ONCE: &[(&str, &str)] = &[("enable.idempotence", "true"), ("acks", "all")];

/// Settings of a reader that nobody may change (see [`REFUSED`]).
const FIXED: &[(&str, &str)] = &[
    ("auto.offset.reset", "error"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("enable.partition.eof", "true"),
];

const COMMITTED: &str = "read_committed";

/// Names for one property: librdkafka's own name for it comes second.
const ALIASES: &[(&str, &str)] = &[
    ("compression.type", "compression.codec"),
    ("delivery.timeout.ms", "message.timeout.ms"),
    ("max.partition.fetch.bytes", "fetch.message.max.bytes"),
    ("queue.buffering.max.ms", "linger.ms"),
];

/// The brokers and the properties of a Kafka table, checked.
#[derive(Clone)]
pub struct KafkaConfig {
    brokers: String,
    properties: BTreeMap<String, String>,
}

/// Whether `name` (without the prefix `kafka.`) may be set to `value`. Needs no network.
///
/// # Errors
/// `Invalid` when it is refused (and why), unknown to librdkafka (with the name that looks like it), or when librdkafka
/// does not take the value; never with the value.
pub fn check_property(name: &str, value: &str) -> Result<()> {
    let refused = REFUSED.iter().find(|(known, _)| match known.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => *known == name,
    });
    if let Some((_, why)) = refused {
        return Err(Error::invalid(format!("option `kafka.{name}` is refused: {why}")));
    }
    if name == "isolation.level" && value != COMMITTED {
        return Err(Error::invalid(
            "option `kafka.isolation.level` is refused: records of aborted transactions would be rows; leave it out",
        ));
    }
    if name.ends_with("_cb") {
        return Err(Error::invalid(format!("option `kafka.{name}` is refused: {CALLBACKS}")));
    }
    match ClientConfig::new().set(name, "").create_native_config() {
        Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..) | KafkaError::Nul(_)) => {
            Err(Error::invalid(format!("option `kafka.{name}` is unknown to librdkafka: {}", suggestion(name))))
        }
        _ => check_value(name, value),
    }
}

/// What to do about an unknown name.
fn suggestion(name: &str) -> String {
    let near = USUAL.iter().map(|known| (strsim::jaro_winkler(name, known), known)).max_by(|a, b| a.0.total_cmp(&b.0));
    match near {
        Some((score, known)) if score > 0.85 => format!("did you mean `kafka.{known}`?"),
        _ => "see librdkafka's CONFIGURATION.md for the names".into(),
    }
}

impl KafkaConfig {
    /// Checks `brokers` (`HOST:PORT[,HOST:PORT]`) and `properties` (librdkafka's names, without a prefix).
    ///
    /// # Errors
    /// `Invalid`, naming the broker or the property; never with a property's value.
    pub fn new(brokers: &str, properties: &BTreeMap<String, String>) -> Result<Self> {
        brokers.split(',').try_for_each(check_broker)?;
        for (name, value) in properties {
            check_property(name, value)?;
        }
        Ok(Self { brokers: brokers.to_string(), properties: properties.clone() })
    }

    /// As [`KafkaConfig::new`], for who publishes.
    ///
    /// # Errors
    /// The same, and for properties without which a record might be published twice or lost.
    pub fn for_producer(brokers: &str, properties: &BTreeMap<String, String>) -> Result<Self> {
        if let Some(name) = REFUSED_TO_PRODUCERS.into_iter().find(|name| properties.contains_key(*name)) {
            return Err(Error::invalid(format!(
                "option `kafka.{name}` is refused: each record is published once, in order, on all replicas that are \
                 in sync; leave it out"
            )));
        }
        Self::new(brokers, properties)
    }

    /// `HOST:PORT[,HOST:PORT]`.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// The group under which committed positions are mirrored to Kafka, when the user gave one.
    pub fn group(&self) -> Option<&str> {
        self.properties.get("group.id").map(String::as_str)
    }

    /// Whether a client certificate was given.
    pub fn has_certificate(&self) -> bool {
        ["ssl.certificate.location", "ssl.certificate.pem", "ssl.keystore.location"]
            .iter()
            .any(|name| self.is_set(name))
    }

    /// The configuration of a client that only asks.
    pub fn client(&self) -> ClientConfig {
        let mut config = self.with_defaults(ALWAYS);
        config.remove("group.id");
        config
    }

    /// The configuration of a client that reads records.
    pub fn reader(&self) -> ClientConfig {
        let mut config = self.with_defaults(ALWAYS);
        for (name, value) in READER {
            if !self.is_set(name) {
                config.set(*name, *value);
            }
        }
        if self.group().is_none() {
            config.set("group.id", DEFAULT_GROUP);
        }
        for (name, value) in FIXED {
            config.set(*name, *value);
        }
        config
    }

    /// The configuration of a client that publishes records.
    pub fn producer(&self) -> ClientConfig {
        let mut config = self.with_defaults(ALWAYS);
        config.remove("group.id").remove("isolation.level");
        for (name, value) in PRODUCER {
            if !self.is_set(name) {
                config.set(*name, *value);
            }
        }
        for (name, value) in ONCE {
            config.set(*name, *value);
        }
        config
    }

    /// The bytes that a reader fetches ahead, and those of a fetch as it comes: packed and unpacked.
    pub fn fetch_bytes(&self) -> usize {
        let reader = self.reader();
        let of = |name: &str| reader.get(name).and_then(|value| value.parse::<usize>().ok()).unwrap_or(0);
        of("queued.max.messages.kbytes").saturating_mul(1024) + of("fetch.max.bytes").saturating_mul(2)
    }

    /// `text` (librdkafka's) without the values of the properties that may be secret.
    pub fn redact(&self, text: &str) -> String {
        let secret = |name: &str| ["password", "secret", "pem", "oauthbearer.config"].iter().any(|s| name.contains(s));
        self.properties
            .iter()
            .filter(|(name, value)| secret(name) && !value.is_empty())
            .fold(text.to_string(), |text, (_, value)| text.replace(value.as_str(), "***"))
    }

    /// The error of a client that could not be made.
    pub fn refused(&self, error: &KafkaError) -> Error {
        let text = match error {
            KafkaError::ClientCreation(text) => self.redact(text),
            KafkaError::ClientConfig(_, _, name, _) => format!("the value of `{name}` is not accepted"),
            other => self.redact(&other.to_string()),
        };
        Error::invalid(format!(
            "the Kafka client for {} cannot be made: {text}. Mend the `kafka.*` options",
            self.brokers
        ))
    }

    fn with_defaults(&self, defaults: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        // At creation librdkafka writes to stderr whatever its own level lets through: nothing. Afterwards the level
        // is `log_level` of the Rust configuration, and its lines go through tracing.
        config.set_log_level(if self.is_set("debug") { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Info });
        for (name, value) in defaults {
            config.set(*name, *value);
        }
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    fn is_set(&self, name: &str) -> bool {
        let alias = ALIASES.iter().find(|(_, of)| *of == name).map(|(alias, _)| *alias);
        self.properties.contains_key(name) || alias.is_some_and(|alias| self.properties.contains_key(alias))
    }
}

/// Names only: values may be secrets.
impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.properties.keys().collect();
        f.debug_struct("KafkaConfig").field("brokers", &self.brokers).field("properties", &names).finish()
    }
}

fn check_broker(broker: &str) -> Result<()> {
    let (host, port) = broker.rsplit_once(':').unwrap_or((broker, ""));
    if host.is_empty() || host.contains(char::is_whitespace) || !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Err(Error::invalid(format!("`{broker}` is not a broker: write HOST:PORT, as in localhost:9092")));
    }
    Ok(())
}

fn check_value(name: &str, value: &str) -> Result<()> {
    let Err(error) = ClientConfig::new().set(name, value).create_native_config() else { return Ok(()) };
    let why = match &error {
        KafkaError::ClientConfig(_, text, ..) if text.contains("not supported in this build") => {
            "is not supported in this build of librdkafka; TLS, SASL PLAIN and SASL SCRAM are"
        }
        _ => "has a value that librdkafka does not take: see CONFIGURATION.md for its values and range",
    };
    Err(Error::invalid(format!("option `kafka.{name}` {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(properties: &[(&str, &str)]) -> Result<KafkaConfig> {
        let properties = properties.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        KafkaConfig::new("localhost:9092", &properties)
    }

    #[test]
    fn what_is_ours_is_refused_by_name() {
        let refused = [
            ("enable.auto.commit", "positions live in the sink's own commits"),
            ("auto.commit.interval.ms", "positions live"),
            ("auto.offset.reset", "option `start`"),
            ("bootstrap.servers", "LOCATION"),
            ("metadata.broker.list", "LOCATION"),
            ("partition.assignment.strategy", "no consumer group owns them"),
            ("enable.partition.eof", "leave it out"),
            ("rebalance_cb", "belongs to the program"),
            ("test.mock.num.brokers", "simulated"),
            ("plugin.library.paths", "foreign code"),
        ];
        for (name, why) in refused {
            let message = check_property(name, "").unwrap_err().to_string();
            assert!(message.contains(&format!("`kafka.{name}` is refused")) && message.contains(why), "{message}");
        }
    }

    #[test]
    fn every_refused_and_usual_name_is_known_to_librdkafka() {
        let known = |name: &str| {
            !matches!(
                ClientConfig::new().set(name, "").create_native_config(),
                Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..))
            )
        };
        for name in USUAL.iter().chain(REFUSED.iter().map(|(name, _)| name)) {
            assert!(name.ends_with('*') || known(name), "{name}");
        }
        for name in USUAL {
            let known = check_property(name, "").err().map(|e| e.to_string()).unwrap_or_default();
            assert!(!known.contains("is unknown"), "{known}");
        }
    }

    #[test]
    fn an_unknown_property_gets_a_suggestion() {
        let message = check_property("sasl.pasword", "").unwrap_err().to_string();
        assert_eq!(
            message,
            "option `kafka.sasl.pasword` is unknown to librdkafka: did you mean `kafka.sasl.password`?"
        );
        assert!(check_property("zzz", "").unwrap_err().to_string().contains("CONFIGURATION.md"));
        assert!(check_property("a\0b", "").is_err());
    }

    #[test]
    fn values_are_in_no_message() {
        let secret = "hunter2";
        let message = config(&[("security.protocol", secret)]).unwrap_err().to_string();
        assert!(message.contains("`kafka.security.protocol`") && !message.contains(secret), "{message}");
        let config = config(&[("sasl.password", secret)]).unwrap();
        assert!(!format!("{config:?}").contains(secret));
        assert_eq!(config.redact("no hunter2 here"), "no *** here");
        let error = config.refused(&KafkaError::ClientCreation(format!("bad {secret}")));
        assert!(!error.to_string().contains(secret));
    }

    #[test]
    fn brokers_are_hosts_with_ports() {
        for good in ["a:1", "a:1,b:2", "[::1]:9092"] {
            KafkaConfig::new(good, &BTreeMap::new()).unwrap();
        }
        for bad in ["", "a", "a:", ":1", "a:0", "a:70000", "a:1,", "a:1, b:2"] {
            assert!(KafkaConfig::new(bad, &BTreeMap::new()).is_err(), "{bad}");
        }
    }

    #[test]
    fn ours_cannot_be_overridden_and_defaults_can() {
        let config = config(&[("fetch.wait.max.ms", "77"), ("group.id", "g"), ("max.partition.fetch.bytes", "999")]);
        let config = config.unwrap();
        let reader = config.reader();
        assert_eq!(reader.get("fetch.wait.max.ms"), Some("77"));
        assert_eq!(reader.get("fetch.message.max.bytes"), None);
        assert_eq!(reader.get("auto.offset.reset"), Some("error"));
        assert_eq!(reader.get("isolation.level"), Some("read_committed"));
        assert_eq!(reader.get("group.id"), Some("g"));
        assert_eq!(config.client().get("group.id"), None);
        reader.create_native_config().unwrap();
    }
}
