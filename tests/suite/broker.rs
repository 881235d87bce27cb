//! A real Kafka for tests, through `scripts/kafka`: one for the whole test process, and more for tests that stop
//! theirs.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crate::binary::flumen;

/// The bytes of a record at most.
const LARGEST: &str = "20000000";
/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running broker.
#[derive(Debug)]
pub struct Broker {
    address: String,
    /// The other listeners: name and address.
    listeners: Vec<(String, String)>,
    dir: PathBuf,
    /// What `scripts/kafka start` was told besides.
    options: Vec<String>,
    /// Whether the value owns the process; the shared broker is ended by `--until-pid`.
    owned: bool,
}

/// A record to produce.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewRecord {
    /// Its partition.
    pub partition: i32,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value; `None` for a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Its timestamp in milliseconds.
    pub timestamp: i64,
}

impl Broker {
    /// The broker of this test process, started on first use.
    pub fn shared() -> &'static Broker {
        static SHARED: OnceLock<Broker> = OnceLock::new();
        SHARED.get_or_init(|| Broker::start(false, &[]))
    }

    /// `flumen --root ROOT ARGS…` with this broker in `KAFKA_BROKERS`, not yet started.
    pub fn flumen(&self, root: &Path, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = flumen(root, args);
        command.env("KAFKA_BROKERS", self.address());
        command
    }

    /// A broker of one's own, which ends with the value.
    pub fn own() -> Broker {
        Broker::start(true, &[])
    }

    /// A broker of one's own that lets only this user in, by SASL PLAIN. The other methods do not know the password.
    pub fn with_password(user: &str, password: &str) -> Broker {
        Broker::start(true, &["--sasl-plain", &format!("{user}:{password}")])
    }

    /// A broker that is started with these options; it ends with the test process.
    pub fn lasting(options: &[&str]) -> Broker {
        Broker::start(false, options)
    }

    /// One more broker of the cluster whose first node this is, with that number; it ends with the test process.
    pub fn join(&self, node: i32, options: &[&str]) -> Broker {
        let (dir, node) = (self.dir.to_string_lossy(), node.to_string());
        Broker::start(false, &[&["--join", &dir, "--node", &node], options].concat())
    }

    /// Gives each partition of the cluster back to the first of its replicas, where that is in sync.
    pub fn elect(&self) {
        script(&["elect", "--dir", &self.dir.to_string_lossy()]);
    }

    fn start(owned: bool, options: &[&str]) -> Broker {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
        remove_left_over(root);
        let name = format!("kafka-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = root.join(name);
        let told = start_script(&dir, "0", options);
        let mut addresses = told.lines();
        let address = addresses.next().unwrap().to_string();
        let named = |line: &str| line.split_once(' ').map(|(name, at)| (name.to_string(), at.to_string())).unwrap();
        let options = options.iter().map(ToString::to_string).collect();
        Broker { address, listeners: addresses.map(named).collect(), dir, options, owned }
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// `HOST:PORT` of the listener of that name.
    pub fn listener(&self, name: &str) -> &str {
        &self.listeners.iter().find(|(known, _)| known == name).unwrap().1
    }

    /// Stops it; its data stays.
    pub fn stop(&self) {
        script(&["stop", "--dir", &self.dir.to_string_lossy()]);
    }

    /// `kill -9`.
    pub fn kill(&self) {
        let pid = std::fs::read_to_string(self.dir.join("pid")).unwrap();
        let status = Command::new("kill").args(["-s", "KILL", pid.trim()]).status().unwrap();
        assert!(status.success(), "kill -s KILL {pid}");
    }

    /// Starts it again at the same address.
    pub fn start_again(&self) {
        let port = self.address.rsplit(':').next().unwrap();
        let options: Vec<&str> = self.options.iter().map(String::as_str).collect();
        assert_eq!(start_script(&self.dir, port, &options), self.address);
    }

    /// A new topic; its name begins with `name` and is used once.
    pub async fn new_topic(&self, name: &str, partitions: i32) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.create_topic(&name, partitions).await;
        name
    }

    /// Makes the topic. Old timestamps do not make it forget records.
    pub async fn create_topic(&self, name: &str, partitions: i32) {
        loop {
            let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1)).set("retention.ms", "-1");
            let topic = topic.set("max.message.bytes", LARGEST);
            let made = self.admin().create_topics([&topic], &options()).await.unwrap();
            match &made[0] {
                Ok(_) => return self.await_partitions(name, partitions as usize).await,
                // It is still being deleted.
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    /// Makes a topic whose partitions have these replicas, the preferred leader first.
    pub async fn create_replicated(&self, name: &str, replicas: &[&[i32]], settings: &[(&str, &str)]) {
        let topic = NewTopic::new(name, replicas.len() as i32, TopicReplication::Variable(replicas));
        let topic = settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value));
        let made = self.admin().create_topics([&topic], &options()).await.unwrap();
        assert!(made[0].is_ok(), "{made:?}");
        self.await_partitions(name, replicas.len()).await;
    }

    /// For each partition of a topic its leader, -1 for none, and the replicas that are in sync.
    pub fn leaders(&self, topic: &str) -> Vec<(i32, Vec<i32>)> {
        let metadata = self.admin().inner().fetch_metadata(Some(topic), PATIENCE).unwrap();
        let mut partitions: Vec<_> = metadata.topics()[0].partitions().iter().collect();
        partitions.sort_by_key(|partition| partition.id());
        let sorted = |isr: &[i32]| isr.iter().copied().collect::<std::collections::BTreeSet<_>>();
        partitions.iter().map(|p| (p.leader(), sorted(p.isr()).into_iter().collect())).collect()
    }

    /// Deletes the topic.
    pub async fn delete_topic(&self, name: &str) {
        let gone = self.admin().delete_topics(&[name], &options()).await.unwrap();
        assert!(gone[0].is_ok(), "{gone:?}");
    }

    /// Adds partitions, to `count` in all.
    pub async fn grow_topic(&self, name: &str, count: usize) {
        let grown = self.admin().create_partitions([&NewPartitions::new(name, count)], &options()).await.unwrap();
        assert!(grown[0].is_ok(), "{grown:?}");
        self.await_partitions(name, count).await;
    }

    /// Deletes the records before `offset`.
    pub async fn delete_records(&self, topic: &str, partition: i32, offset: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
        let left = self.admin().delete_records(&list, &options()).await.unwrap();
        left.elements()[0].error().unwrap();
    }

    /// Appends records and waits until the broker has them.
    pub fn produce(&self, topic: &str, records: &[NewRecord]) {
        let producer = self.producer(None);
        send(&producer, topic, records);
    }

    /// Appends records in one transaction, which takes one more offset in each partition.
    pub fn transact(&self, topic: &str, records: &[NewRecord], commit: bool) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let producer = self.producer(Some(&format!("tx-{}", COUNT.fetch_add(1, Ordering::Relaxed))));
        producer.init_transactions(PATIENCE).unwrap();
        producer.begin_transaction().unwrap();
        send(&producer, topic, records);
        let ended = if commit { producer.commit_transaction(PATIENCE) } else { producer.abort_transaction(PATIENCE) };
        ended.unwrap();
    }

    /// A client configuration for this broker.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address);
        config
    }

    /// A producer that never doubles a record.
    pub fn producer(&self, transactional_id: Option<&str>) -> BaseProducer {
        let mut config = self.client();
        config.set("enable.idempotence", "true").set("linger.ms", "5").set("queue.buffering.max.messages", "1000000");
        config.set("message.max.bytes", LARGEST);
        if let Some(id) = transactional_id {
            config.set("transactional.id", id);
        }
        config.create().unwrap()
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }

    async fn await_partitions(&self, topic: &str, count: usize) {
        let admin = self.admin();
        loop {
            let metadata = admin.inner().fetch_metadata(Some(topic), PATIENCE).unwrap();
            let partitions = metadata.topics()[0].partitions();
            if partitions.len() == count && partitions.iter().all(|p| p.leader() >= 0 && p.error().is_none()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if self.owned {
            self.stop();
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE))
}

/// Appends records and waits until the broker has them.
pub fn send(producer: &BaseProducer, topic: &str, records: &[NewRecord]) {
    for record in records {
        let mut headers = OwnedHeaders::new();
        for (key, value) in &record.headers {
            headers = headers.insert(Header { key, value: value.as_deref() });
        }
        let mut message = BaseRecord::<[u8], [u8]>::to(topic).partition(record.partition).timestamp(record.timestamp);
        if !record.headers.is_empty() {
            message = message.headers(headers);
        }
        if let Some(key) = &record.key {
            message = message.key(key);
        }
        if let Some(value) = &record.value {
            message = message.payload(value);
        }
        while let Err((error, again)) = producer.send(message) {
            assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
            producer.poll(Duration::from_millis(10));
            message = again;
        }
    }
    producer.flush(PATIENCE).unwrap();
}

fn start_script(dir: &Path, port: &str, options: &[&str]) -> String {
    let (pid, dir) = (std::process::id().to_string(), dir.to_string_lossy());
    script(&[&["start", "--port", port, "--dir", &dir, "--until-pid", &pid], options].concat())
}

/// Runs `scripts/kafka`; a failure's words (what to install) are the test's.
fn script(arguments: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/kafka");
    let output = Command::new(script).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_string()
}

/// A directory for what a lasting broker needs; it goes with the broker's.
pub fn lasting_dir(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("kafka-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// Removes the data of test processes that are gone.
fn remove_left_over(root: &Path) {
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix("kafka-").and_then(|rest| rest.split('-').next()).map(String::from);
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
