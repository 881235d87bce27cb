//! What was published under which `idempotency-key`, for a while: the same key publishes once.
//!
//! What is remembered lies in memory. The record carries it as a header, from which a gateway that starts learns it
//! again ([`super::recall`]).

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::publisher::{Placed, PublishError, PublishErrorKind};
use crate::clock::Clock;

/// How much is remembered.
#[derive(Debug, Clone)]
pub struct IdempotencyOptions {
    /// How long after its first message a key is remembered. 10 minutes.
    pub window: Duration,
    /// How many keys are remembered; a message on a stream counts as one. None is forgotten early: when there is no
    /// room, a message with a new key is `RESOURCE_EXHAUSTED`. 100,000, which are 30 MB.
    pub keys: usize,
}

impl Default for IdempotencyOptions {
    fn default() -> Self {
        Self { window: Duration::from_secs(600), keys: 100_000 }
    }
}

/// So many places of keys that were given up do no harm.
const SPARE: usize = 1000;

/// What is known of a record.
pub(super) type Outcome = Result<Placed, PublishError>;

/// A SHA-256.
type Hash = [u8; 32];

/// The keys that are remembered.
pub(super) struct Idempotency {
    clock: Arc<dyn Clock>,
    options: IdempotencyOptions,
    known: Mutex<Known>,
    /// It is not known yet what was published before.
    is_waiting: AtomicBool,
}

/// What was published before this process is still to be told.
#[derive(Debug)]
pub struct Recalling(pub(super) Arc<Idempotency>);

impl Recalling {
    /// It is this; how many keys are remembered now.
    pub fn is(self, remembered: Vec<Remembered>) -> usize {
        self.0.recall(remembered);
        self.0.length()
    }
}

#[derive(Default)]
struct Known {
    entries: HashMap<Hash, Entry>,
    /// The keys by age.
    order: VecDeque<(DateTime<Utc>, Hash)>,
}

struct Entry {
    payload: Hash,
    since: DateTime<Utc>,
    outcome: watch::Receiver<Option<Outcome>>,
}

/// What a message with a key has to do.
#[derive(Debug)]
pub(super) enum Claim {
    /// It is the first: it publishes.
    First(Turn),
    /// Another one published it, or does so now.
    Again(Repeat),
    /// The key belongs to another message.
    Differs,
    /// Nothing more can be remembered.
    Full,
    /// It is not known yet what was published before.
    NotYet,
}

/// What the record of a key says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    key: Hash,
    payload: Hash,
    placed: Placed,
    at: DateTime<Utc>,
}

impl Remembered {
    /// What a record with this header, at that place and of that time, says.
    pub(super) fn read(header: &[u8], placed: Placed, at: DateTime<Utc>) -> Option<Self> {
        let (key, payload) = header.split_at_checked(32)?;
        Some(Self { key: key.try_into().ok()?, payload: payload.try_into().ok()?, placed, at })
    }
}

/// The right to publish under a key. Dropped without an outcome, the key is forgotten: nothing was published.
pub(super) struct Turn {
    idempotency: Arc<Idempotency>,
    key: Hash,
    payload: Hash,
    outcome: watch::Sender<Option<Outcome>>,
    is_done: bool,
}

/// The outcome of the first message.
#[derive(Debug)]
pub(super) struct Repeat(watch::Receiver<Option<Outcome>>);

impl Idempotency {
    pub(super) fn new(clock: Arc<dyn Clock>, options: IdempotencyOptions) -> Self {
        Self { clock, options, known: Mutex::default(), is_waiting: AtomicBool::new(false) }
    }

    /// Claims `key`, as one that `principal` uses for `method`, for the message `payload`.
    pub(super) fn claim(self: &Arc<Self>, scope: [&str; 3], index: Option<u64>, payload: &[u8]) -> Claim {
        if self.is_waiting.load(Ordering::Acquire) {
            return Claim::NotYet;
        }
        let key = hash_of(scope, index);
        let payload: Hash = Sha256::digest(payload).into();
        let now = self.clock.now();
        let mut known = self.known.lock();
        known.forget_before(now, self.options.window);
        if let Some(entry) = known.entries.get(&key) {
            return if entry.payload == payload { Claim::Again(Repeat(entry.outcome.clone())) } else { Claim::Differs };
        }
        if known.entries.len() >= self.options.keys {
            return Claim::Full;
        }
        let (sender, outcome) = watch::channel(None);
        known.entries.insert(key, Entry { payload, since: now, outcome });
        known.order.push_back((now, key));
        known.shorten();
        Claim::First(Turn { idempotency: Arc::clone(self), key, payload, outcome: sender, is_done: false })
    }

    /// Nothing is claimed until [`Recalling::is`] says what was published before.
    pub(super) fn wait(&self) {
        self.is_waiting.store(true, Ordering::Release);
    }

    /// Remembers what was published before. Of a key that was published twice the first record counts. All of them are
    /// remembered, also beyond the bound: a key that is forgotten would be published again.
    fn recall(&self, mut remembered: Vec<Remembered>) {
        remembered.sort_by_key(|of| of.at);
        let mut known = self.known.lock();
        for Remembered { key, payload, placed, at } in remembered {
            if known.entries.contains_key(&key) {
                continue;
            }
            let (_, outcome) = watch::channel(Some(Ok(placed)));
            known.entries.insert(key, Entry { payload, since: at, outcome });
            known.order.push_back((at, key));
        }
        drop(known);
        self.is_waiting.store(false, Ordering::Release);
    }

    /// How many keys are remembered.
    pub(super) fn length(&self) -> usize {
        self.known.lock().entries.len()
    }
}

impl fmt::Debug for Idempotency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Idempotency").field("keys", &self.length()).finish_non_exhaustive()
    }
}

impl Known {
    /// Forgets the places of keys that were given up, when there are many of them.
    fn shorten(&mut self) {
        let Self { entries, order } = self;
        if order.len() > 2 * entries.len() + SPARE {
            order.retain(|(since, key)| entries.get(key).is_some_and(|entry| entry.since == *since));
        }
    }

    fn forget_before(&mut self, now: DateTime<Utc>, window: Duration) {
        while let Some((since, key)) = self.order.front().copied() {
            let is_over = (now - since).to_std().is_ok_and(|age| age >= window);
            let is_current = self.entries.get(&key).is_some_and(|entry| entry.since == since);
            let is_pending = is_current && self.entries.get(&key).is_some_and(|entry| entry.outcome.borrow().is_none());
            if is_current && !is_over {
                return;
            }
            self.order.pop_front();
            match self.entries.get_mut(&key) {
                // It cannot be forgotten while it is published.
                Some(entry) if is_pending => {
                    entry.since = now;
                    self.order.push_back((now, key));
                }
                Some(_) if is_current => drop(self.entries.remove(&key)),
                _ => {}
            }
        }
    }
}

impl Turn {
    /// What the record says of the key, as [`Remembered::read`] reads it.
    pub(super) fn header(&self) -> Bytes {
        Bytes::from([self.key, self.payload].concat())
    }

    /// The outcome, which those who wait get too. Only that the record was not published is not remembered.
    pub(super) fn finish(mut self, outcome: &Outcome) {
        let is_away = matches!(outcome, Err(error) if error.kind == PublishErrorKind::Away);
        self.is_done = !is_away;
        self.outcome.send_replace(Some(outcome.clone()));
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.is_done {
            self.idempotency.known.lock().entries.remove(&self.key);
        }
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Turn")
    }
}

impl Repeat {
    /// Waits for the outcome of the first. None: it gave up before it published.
    pub(super) async fn outcome(mut self) -> Option<Outcome> {
        self.0.wait_for(Option::is_some).await.ok()?.clone()
    }
}

/// What a key is known by: with the method, the caller and the number of the message.
pub(super) fn hash_of(scope: [&str; 3], index: Option<u64>) -> Hash {
    let mut hash = Sha256::new();
    for part in scope {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.update([u8::from(index.is_some())]);
    hash.update(index.unwrap_or_default().to_le_bytes());
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SetClock;

    const PLACED: Outcome = Ok(Placed { partition: 0, offset: 7 });

    fn idempotency(keys: usize) -> (Arc<SetClock>, Arc<Idempotency>) {
        let clock = Arc::new(SetClock::default());
        let options = IdempotencyOptions { keys, ..IdempotencyOptions::default() };
        (Arc::clone(&clock), Arc::new(Idempotency::new(clock, options)))
    }

    fn first(idempotency: &Arc<Idempotency>, key: &str) -> Turn {
        match idempotency.claim(["m", "p", key], None, b"x") {
            Claim::First(turn) => turn,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn the_second_waits_for_the_first() {
        let (_, all) = idempotency(10);
        let turn = first(&all, "k");
        let Claim::Again(repeat) = all.claim(["m", "p", "k"], None, b"x") else { panic!() };
        let waiting = tokio::spawn(repeat.outcome());
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        turn.finish(&PLACED);
        assert_eq!(waiting.await.unwrap(), Some(PLACED));
        let Claim::Again(repeat) = all.claim(["m", "p", "k"], None, b"x") else { panic!() };
        assert_eq!(repeat.outcome().await, Some(PLACED));
    }

    #[test]
    fn a_key_belongs_to_one_message_of_one_caller() {
        let (_, all) = idempotency(10);
        first(&all, "k").finish(&PLACED);
        assert!(matches!(all.claim(["m", "p", "k"], None, b"y"), Claim::Differs));
        for other in [["n", "p", "k"], ["m", "q", "k"], ["m", "pk", ""], ["mp", "k", ""]] {
            assert!(matches!(all.claim(other, None, b"y"), Claim::First(_)));
        }
        assert!(matches!(all.claim(["m", "p", "k"], Some(0), b"y"), Claim::First(_)));
    }

    #[tokio::test]
    async fn what_was_published_before_is_told_by_the_records() {
        let (clock, before) = idempotency(2);
        let turn = first(&before, "k");
        let at = |offset| Placed { partition: 1, offset };
        let header = turn.header();
        let again = Remembered::read(&header, at(9), clock.now()).unwrap();
        let earliest = Remembered::read(&header, at(7), clock.now() - Duration::from_secs(1)).unwrap();
        assert_eq!(Remembered::read(&header[..63], at(7), clock.now()), None);
        let others =
            ["l", "m"].map(|key| Remembered::read(&first(&idempotency(1).1, key).header(), at(8), clock.now()));
        let (_, after) = idempotency(2);
        after.wait();
        assert!(matches!(after.claim(["m", "p", "k"], None, b"x"), Claim::NotYet));
        let all = [again, earliest].into_iter().chain(others.into_iter().flatten()).collect();
        // A key that is forgotten would be published again: the bound is for new ones.
        assert_eq!(Recalling(Arc::clone(&after)).is(all), 3);
        let Claim::Again(repeat) = after.claim(["m", "p", "k"], None, b"x") else { panic!() };
        assert_eq!(repeat.outcome().await, Some(Ok(at(7))));
        assert!(matches!(after.claim(["m", "p", "k"], None, b"y"), Claim::Differs));
        assert!(matches!(after.claim(["m", "p", "new"], None, b"x"), Claim::Full));
    }

    #[tokio::test]
    async fn what_was_not_published_is_forgotten() {
        let (_, all) = idempotency(10);
        let turn = first(&all, "k");
        let Claim::Again(repeat) = all.claim(["m", "p", "k"], None, b"x") else { panic!() };
        drop(turn);
        assert_eq!(repeat.outcome().await, None);
        let away = Err(PublishError { kind: PublishErrorKind::Away, message: String::new() });
        first(&all, "k").finish(&away);
        let uncertain = Err(PublishError { kind: PublishErrorKind::Uncertain, message: String::new() });
        first(&all, "k").finish(&uncertain);
        let Claim::Again(repeat) = all.claim(["m", "p", "k"], None, b"x") else { panic!() };
        assert_eq!(repeat.outcome().await, Some(uncertain));
    }

    #[test]
    fn keys_end_after_ten_minutes_but_not_while_they_are_published() {
        let (clock, all) = idempotency(3);
        first(&all, "a").finish(&PLACED);
        let pending = first(&all, "b");
        clock.advance(Duration::from_secs(1));
        first(&all, "c").finish(&PLACED);
        assert!(matches!(all.claim(["m", "p", "d"], None, b"x"), Claim::Full));
        assert!(matches!(all.claim(["m", "p", "a"], None, b"x"), Claim::Again(_)));
        clock.advance(Duration::from_secs(599));
        assert!(matches!(all.claim(["m", "p", "b"], None, b"x"), Claim::Again(_)));
        assert!(matches!(all.claim(["m", "p", "c"], None, b"x"), Claim::Again(_)));
        assert_eq!(all.length(), 2);
        first(&all, "a").finish(&PLACED);
        pending.finish(&PLACED);
        clock.advance(Duration::from_secs(600));
        drop(first(&all, "e"));
        assert_eq!(all.length(), 0);
    }

    #[test]
    fn a_clock_that_goes_back_forgets_nothing() {
        let (clock, all) = idempotency(3);
        clock.advance(Duration::from_secs(1000));
        first(&all, "a").finish(&PLACED);
        clock.set(DateTime::UNIX_EPOCH);
        assert!(matches!(all.claim(["m", "p", "a"], None, b"x"), Claim::Again(_)));
    }

    #[test]
    fn a_key_claimed_again_after_it_was_forgotten_lives_its_own_time() {
        let (clock, all) = idempotency(3);
        drop(first(&all, "a"));
        clock.advance(Duration::from_secs(300));
        first(&all, "a").finish(&PLACED);
        clock.advance(Duration::from_secs(599));
        assert!(matches!(all.claim(["m", "p", "a"], None, b"x"), Claim::Again(_)));
        clock.advance(Duration::from_secs(1));
        assert!(matches!(all.claim(["m", "p", "a"], None, b"x"), Claim::First(_)));
    }
}
