//! A seeded simulation: the loop, its planner, both kinds of log, and an object store that fails, in one process with a
//! clock of its own. Instances start, stop, are killed in the middle of whatever they do, and run side by side; the
//! topic grows; others write to the table. After every step the laws of the log hold, and in the end each record is in
//! one place.
//!
//! `scripts/test` takes 200 seeds, `scripts/simulate` 10,000. One seed again: `scripts/simulate SEED 1`. What goes wrong
//! is decided by the seed, the place (such as a put of an entry of the log) and how often it was passed, not by who comes
//! first: hash maps and threads of libraries have a chance of their own, and it seldom matters.

mod laws;
mod store;
mod topic;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore as _, PutMode, PutPayload};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use flumen::clock::Clock;
use flumen::engine::{self, Deps, Facts, RunOptions, Stopper};
use flumen::error::{Error, ErrorKind};
use flumen::memory::Memory;
use flumen::observe::Silent;
use flumen::pipeline::{Environment, Pipeline};
use flumen::storage::Storage;

use self::store::FailingStore;
use self::topic::{Growth, Topics};
use crate::binary::repository;
use crate::chance::Chance;

const SEEDS: u64 = 200;
const STEPS: usize = 14;
/// A try after all trouble is over may still meet what was left; no more than so many do.
const LAST_TRIES: usize = 4;

const PIPELINE: &str = "
SET flumen.pipeline = 'p';
SET flumen.trigger = '0 seconds';
SET flumen.max_rows = 20;
SET flumen.store_timeout = '0 seconds';
CREATE EXTERNAL TABLE ads STORED AS KAFKA LOCATION 'kafka://nowhere:9092/ads'
OPTIONS ('value.proto' 'proto/ads/v1/ads.proto', 'value.message' 'ads.v1.AdImpression', 'dead_letter_limit' '100%');
CREATE EXTERNAL TABLE landed (partition INT NOT NULL, \"offset\" BIGINT NOT NULL, ad_id VARCHAR, bid DOUBLE CHECK (bid >= 0))
STORED AS DELTA LOCATION 'memory:///landed'
OPTIONS ('on_violation' 'quarantine', 'quarantine_limit' '100%', 'checkpoint_interval' '4', 'max_small_files' '3',
         'log_retention' '10 minutes');
INSERT INTO landed SELECT _partition, _offset, ad_id, bid FROM ads;
";

/// Everything that a seed decides.
#[derive(Debug)]
pub struct World {
    seed: u64,
    /// Decides the steps.
    chance: Mutex<Chance>,
    /// How often each place was passed.
    passed: Mutex<BTreeMap<String, u64>>,
    /// Whether anything fails.
    troubled: AtomicBool,
    store: InMemory,
    /// When each object was written, by the simulated clock.
    times: Mutex<BTreeMap<Path, DateTime<Utc>>>,
    /// Every log entry that was ever written, by table and version: clean-up does not take them from here.
    entries: Mutex<BTreeMap<(String, u64), Vec<u8>>>,
    growth: Growth,
    is_recorded: bool,
    start: DateTime<Utc>,
    began: tokio::time::Instant,
    /// The thread whose clock is simulated. Libraries have threads of their own.
    thread: std::thread::ThreadId,
    happened: Happened,
}

/// What has happened so far.
#[derive(Debug, Default)]
struct Happened {
    faults: AtomicU64,
    kills: AtomicU64,
    unavailable: AtomicU64,
    fenced: AtomicU64,
    micro_batches: AtomicU64,
    compactions: AtomicU64,
}

impl Happened {
    fn counts(&self) -> [(&'static str, u64); 6] {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [
            ("faults", of(&self.faults)),
            ("kills", of(&self.kills)),
            ("runs that failed", of(&self.unavailable)),
            ("runs that were fenced", of(&self.fenced)),
            ("micro-batches", of(&self.micro_batches)),
            ("compactions", of(&self.compactions)),
        ]
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        Self {
            seed,
            is_recorded: chance.below(2) == 0,
            passed: Mutex::default(),
            chance: Mutex::new(chance),
            troubled: AtomicBool::new(true),
            store: InMemory::new(),
            times: Mutex::default(),
            entries: Mutex::default(),
            growth: Growth::new(),
            start: Utc::now(),
            began: tokio::time::Instant::now(),
            thread: std::thread::current().id(),
            happened: Happened::default(),
        }
    }

    pub fn below(&self, end: u64) -> u64 {
        self.chance.lock().below(end)
    }

    /// What happens this time at a place.
    pub fn dice(&self, place: &str) -> Chance {
        let mut passed = self.passed.lock();
        let count = passed.entry(place.to_string()).or_default();
        *count += 1;
        let mut chance = Chance::new(self.seed);
        for byte in place.bytes().map(u64::from).chain([*count]) {
            chance = Chance::new(chance.draw() ^ byte);
        }
        chance
    }

    /// Once in so many times, as long as there is trouble.
    pub fn strikes(&self, dice: &mut Chance, of: u64) -> bool {
        let happens = dice.below(of) == 0 && self.troubled.load(Ordering::Relaxed);
        self.happened.faults.fetch_add(u64::from(happens), Ordering::Relaxed);
        happens
    }

    /// [`World::strikes`] at a place.
    pub fn struck(&self, place: &str, of: u64) -> bool {
        self.strikes(&mut self.dice(place), of)
    }

    /// Takes its time at times; whether it goes wrong.
    pub async fn trouble(&self, place: &str) -> bool {
        let mut dice = self.dice(place);
        if self.strikes(&mut dice, 6) {
            let longest = if self.strikes(&mut dice, 20) { 20_000 } else { 60 };
            if std::thread::current().id() == self.thread {
                tokio::time::sleep(Duration::from_millis(dice.below(longest))).await;
            }
        }
        self.strikes(&mut dice, 60)
    }

    /// Whether that is the newest entry of its log, and not the first.
    pub fn newest_entry(&self, location: &Path) -> bool {
        let Some((table, version)) = entry_of(location) else { return false };
        let entries = self.entries.lock();
        let newest =
            entries.range(..=(table.clone(), u64::MAX)).next_back().map(|((name, version), _)| (name, *version));
        version > 0 && newest == Some((&table, version))
    }

    pub fn note_put(&self, location: &Path, payload: &PutPayload, is_new: bool) {
        self.times.lock().insert(location.clone(), self.now());
        let Some(entry) = entry_of(location) else { return };
        assert!(is_new, "{location} is put over what is there");
        let bytes: Vec<u8> = payload.iter().flat_map(|part| part.to_vec()).collect();
        let text = String::from_utf8_lossy(&bytes);
        let counted = [("\"OPTIMIZE\"", &self.happened.compactions), ("\"batch\"", &self.happened.micro_batches)];
        for (word, count) in counted {
            count.fetch_add(u64::from(text.contains(word)), Ordering::Relaxed);
        }
        let known = self.entries.lock().insert(entry, bytes);
        assert_eq!(known, None, "{location} was there before");
    }

    /// What is known of an object, with the time at which it was written here.
    pub fn stamped(&self, mut object: ObjectMeta) -> ObjectMeta {
        object.last_modified = *self.times.lock().entry(object.location.clone()).or_insert_with(|| self.now());
        object
    }

    fn now(&self) -> DateTime<Utc> {
        self.start + TimeDelta::from_std(self.began.elapsed()).unwrap()
    }

    fn storage(self: &Arc<Self>) -> Storage {
        let world = Arc::clone(self);
        Storage::new().with_wrapper(Arc::new(move |_| Arc::new(FailingStore(Arc::clone(&world)))))
    }

    fn deps(self: &Arc<Self>) -> Deps {
        Deps {
            storage: self.storage(),
            clock: Arc::new(SimulatedClock(Arc::clone(self))),
            observer: Arc::new(Silent),
            memory: Memory::new(1_000_000_000).unwrap(),
            topics: Arc::new(Topics(Arc::clone(self))),
            patience: None,
            cuts: None,
        }
    }
}

/// Table and version of a log entry.
fn entry_of(location: &Path) -> Option<(String, u64)> {
    let (table, name) = location.as_ref().split_once("/_delta_log/")?;
    Some((table.to_string(), name.strip_suffix(".json")?.parse().ok()?))
}

#[derive(Debug)]
struct SimulatedClock(Arc<World>);

impl Clock for SimulatedClock {
    fn now(&self) -> DateTime<Utc> {
        self.0.now()
    }

    fn new_id(&self) -> uuid::Uuid {
        let mut chance = self.0.dice("an id");
        uuid::Uuid::from_u64_pair(chance.draw(), chance.draw())
    }
}

/// A running instance of the pipeline.
struct Instance {
    task: JoinHandle<flumen::error::Result<()>>,
    stopper: Stopper,
}

impl Instance {
    fn start(world: &Arc<World>, pipeline: &Arc<Pipeline>, available_now: bool) -> Self {
        let (stopper, stop) = engine::stopper();
        let options = RunOptions { available_now, ..RunOptions::default() };
        let task = tokio::spawn(engine::run(Arc::clone(pipeline), options, world.deps(), stop));
        Self { task, stopper }
    }

    /// Killed: whatever it was doing stops there.
    async fn kill(self, world: &World) {
        self.task.abort();
        match self.task.await {
            Ok(ended) => check_end(world, ended),
            Err(killed) => {
                assert!(killed.is_cancelled(), "{killed}");
                world.happened.kills.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    async fn stop(self, world: &World) {
        self.stopper.stop();
        check_end(world, self.task.await.expect("no panic"));
    }
}

/// What a run may end with when stores and brokers fail and others are about.
fn check_end(world: &World, ended: flumen::error::Result<()>) {
    let Err(error) = ended else { return };
    let count = match error.kind() {
        ErrorKind::Unavailable => &world.happened.unavailable,
        ErrorKind::Fenced => &world.happened.fenced,
        _ => panic!("{error:?}"),
    };
    count.fetch_add(1, Ordering::Relaxed);
}

/// Another program writes the next version: nothing that matters, or a property of the table.
async fn foreign_commit(world: &World) {
    let table = "landed";
    let (version, metadata) = {
        let entries = world.entries.lock();
        let of_table = entries.iter().filter(|((name, _), _)| name == table);
        let mut newest = None;
        let mut metadata = None;
        for ((_, version), bytes) in of_table {
            newest = Some(*version);
            let text = String::from_utf8_lossy(bytes);
            let line = text.lines().rfind(|line| line.starts_with("{\"metaData\""));
            metadata = line.map(str::to_string).or(metadata);
        }
        (newest, metadata)
    };
    let (Some(version), Some(metadata)) = (version, metadata) else { return };
    let other = match world.below(3) {
        0 => {
            let mut value: serde_json::Value = serde_json::from_str(&metadata).unwrap();
            value["metaData"]["configuration"]["note"] = world.below(1_000).to_string().into();
            value.to_string()
        }
        _ => format!("{{\"txn\":{{\"appId\":\"somebody:else\",\"version\":{version}}}}}"),
    };
    let text = format!("{{\"commitInfo\":{{\"operation\":\"OTHER\"}}}}\n{other}\n");
    let path = Path::from(format!("{table}/_delta_log/{:020}.json", version + 1));
    let payload = PutPayload::from(text.into_bytes());
    if world.store.put_opts(&path, payload.clone(), PutMode::Create.into()).await.is_ok() {
        world.note_put(&path, &payload, true);
    }
}

async fn simulate(seed: u64) -> [(&'static str, u64); 6] {
    let world = Arc::new(World::new(seed));
    let environment = Environment { root: repository(), ..Environment::default() };
    let pipeline = Pipeline::load(PIPELINE, "p.sql".as_ref(), &environment, &Facts { storage: &world.storage() });
    let pipeline = Arc::new(pipeline.unwrap_or_else(|faults| panic!("{faults}")));
    let mut running: [Option<Instance>; 2] = [None, None];
    for _ in 0..STEPS {
        let which = usize::from(world.below(4) == 0);
        match world.below(10) {
            0..4 if running[which].is_none() => {
                running[which] = Some(Instance::start(&world, &pipeline, world.below(2) == 0));
            }
            0..6 => {
                if let Some(instance) = running[which].take() {
                    instance.kill(&world).await;
                }
            }
            6 => {
                if let Some(instance) = running[which].take() {
                    instance.stop(&world).await;
                }
            }
            7 => foreign_commit(&world).await,
            8 => {
                // Two at once, beside what runs.
                let deps = [world.deps(), world.deps()];
                let [first, second] = deps.each_ref().map(|deps| engine::maintain(deps, &pipeline, None));
                let (first, second) = tokio::join!(first, second);
                check_end(&world, first.map(|_| ()));
                check_end(&world, second.map(|_| ()));
            }
            _ => tokio::time::sleep(Duration::from_secs(world.below(1_200))).await,
        }
        world.growth.grow(world.below(3) as i32, world.below(30) as i64);
        tokio::time::sleep(Duration::from_millis(world.below(400))).await;
        for place in &mut running {
            if place.as_ref().is_some_and(|instance| instance.task.is_finished()) {
                check_end(&world, place.take().expect("it runs").task.await.expect("no panic"));
            }
        }
        laws::check(&world);
    }
    for instance in running.into_iter().flatten() {
        instance.kill(&world).await;
    }
    world.troubled.store(false, Ordering::Relaxed);
    world.growth.finish();
    let mut last = Err(Error::unavailable("not tried"));
    for _ in 0..LAST_TRIES {
        last = Instance::start(&world, &pipeline, true).task.await.expect("no panic");
        if last.is_ok() {
            break;
        }
    }
    last.expect("without trouble it comes to its end");
    laws::check(&world);
    laws::check_rows(&world).await;
    world.happened.counts()
}

#[cfg(feature = "faults")]
fn run(seed: u64) -> [(&'static str, u64); 6] {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(simulate(seed))
}

#[cfg(not(feature = "faults"))]
fn run(seed: u64) -> [(&'static str, u64); 6] {
    drop(simulate(seed));
    panic!("the time that it moves on needs the feature: cargo test --features faults");
}

/// The environment variable `FLUMEN_SIMULATE`: the first seed and how many, `1 200`.
#[test]
fn whatever_happens_each_record_is_in_one_place() {
    let wish = std::env::var("FLUMEN_SIMULATE").unwrap_or_else(|_| format!("1 {SEEDS}"));
    let numbers: Vec<u64> = wish.split_whitespace().map(|word| word.parse().expect("a number")).collect();
    let [first, count] = numbers[..] else { panic!("FLUMEN_SIMULATE is `FIRST COUNT`") };
    let next = Mutex::new(first..first + count);
    let failed = Mutex::new(Vec::new());
    let happened = Mutex::new(BTreeMap::<&str, u64>::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(seed) = next.lock().next() else { return };
                    match std::panic::catch_unwind(|| run(seed)) {
                        Ok(counts) => {
                            counts.iter().for_each(|(what, n)| *happened.lock().entry(*what).or_default() += n)
                        }
                        Err(_) => {
                            eprintln!("seed {seed} fails: scripts/simulate {seed} 1");
                            failed.lock().push(seed);
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    assert!(failed.is_empty(), "of {count} seeds these fail: {failed:?}; again: scripts/simulate {} 1", failed[0]);
    let happened = happened.into_inner();
    println!("{count} seeds from {first} on: {happened:?}");
    assert!(count < SEEDS || happened.values().all(|n| *n > count / 10), "too little happened");
}
