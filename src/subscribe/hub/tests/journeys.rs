//! Clients that lose their connection, read slowly and come back, by chance that follows from a seed.

use std::time::Duration;

use super::*;
use crate::subscribe::ending::Code;

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// What a client wants to have got, and how it goes about it.
struct Client {
    dice: Dice,
    ads: Vec<String>,
    last: Option<Cursor>,
    got: Vec<i64>,
    reconnects: u32,
    pace: u64,
}

/// So many milliseconds, at a pace: with the real clock things happen faster.
fn time(milliseconds: u64, pace: u64) -> Duration {
    Duration::from_micros(milliseconds * 1_000 / pace)
}

impl Client {
    /// Reads until it has all ids below `end` that it wants; `end` is known when the writer is done.
    async fn travel(mut self, stage: Arc<Stage>, end: tokio::sync::watch::Receiver<Option<i64>>) -> Self {
        let ads: Vec<&str> = self.ads.iter().map(String::as_str).collect();
        let filter = if ads.is_empty() { Filter::default() } else { stage.ads(&ads) };
        loop {
            let start = self.last.map_or(Start::Earliest, Start::Cursor);
            let mut subscription = match stage.hub.subscribe(&stage.outlet, filter.clone(), start).await {
                Ok(subscription) => subscription,
                Err(ending) if ending.code == Code::Unavailable => {
                    tokio::time::sleep(time(50, self.pace)).await;
                    continue;
                }
                Err(ending) => panic!("{ending}"),
            };
            let lifetime = self.dice.below(80);
            for _ in 0..lifetime {
                if self.dice.below(10) == 0 {
                    let nap = if self.dice.below(20) == 0 { 40_000 } else { self.dice.below(300) };
                    tokio::time::sleep(time(nap, self.pace)).await;
                }
                match tokio::time::timeout(time(500, self.pace), next(&mut subscription)).await {
                    Ok(Ok(message)) => {
                        self.got.push(stage.id(&message));
                        self.last = Some(message.cursor);
                    }
                    Ok(Err(ending)) => {
                        assert!([Code::Aborted, Code::Unavailable].contains(&ending.code), "{ending}");
                        self.last = ending.cursor;
                        break;
                    }
                    Err(_) => {
                        let wanted = |end: i64| (0..end).filter(|id| self.wants(*id)).count();
                        if end.borrow().is_some_and(|end| self.got.len() >= wanted(end)) {
                            return self;
                        }
                    }
                }
            }
            self.reconnects += 1;
        }
    }

    fn wants(&self, id: i64) -> bool {
        self.ads.is_empty() || self.ads.contains(&format!("ad-{}", id % 10))
    }
}

async fn journey(seed: u64, pace: u64) -> (u64, u32) {
    let mut dice = Dice(seed);
    let options = HubOptions {
        ring_versions: 1 + dice.below(6) as usize,
        ring_bytes: 1_000 + dice.below(30_000) as usize,
        chunk_rows: 1 + dice.below(8) as usize,
        queue_chunks: 1 + dice.below(4) as usize,
        readers: 1 + dice.below(3) as usize,
        stall_limit: time(30_000, pace),
        poll_interval: time(20, pace),
        idle_interval: time(40, pace),
        ..HubOptions::default()
    };
    let stage = Arc::new(Stage::new(options));
    let (done, end) = tokio::sync::watch::channel(None);
    let clients: Vec<_> = (0..12)
        .map(|number| {
            let ads = (0..dice.below(3)).map(|_| format!("ad-{}", dice.below(10))).collect();
            let client =
                Client { dice: Dice(seed << 8 | number), ads, last: None, got: Vec::new(), reconnects: 0, pace };
            tokio::spawn(client.travel(stage.clone(), end.clone()))
        })
        .collect();
    let mut total = 0;
    for _ in 0..60 {
        let sizes: Vec<i64> = (0..dice.below(4)).map(|_| 1 + dice.below(12) as i64).collect();
        total += sizes.iter().sum::<i64>();
        // Without any it is a compaction.
        stage.commit(&sizes);
        if dice.below(8) == 0 {
            stage.table.set_away(true);
            tokio::time::sleep(time(dice.below(200), pace)).await;
            stage.table.set_away(false);
        }
        tokio::time::sleep(time(dice.below(400), pace)).await;
    }
    done.send_replace(Some(total));
    let mut reconnects = 0;
    for client in clients {
        let client = client.await.unwrap();
        let want: Vec<i64> = (0..total).filter(|id| client.wants(*id)).collect();
        assert!(client.got == want, "seed {seed}: got {:?} of {} rows", client.got.len(), want.len());
        reconnects += client.reconnects;
    }
    let metrics = stage.hub.metrics();
    (metrics.versions_read_alone, reconnects)
}

#[test]
fn whoever_comes_back_gets_exactly_the_rows_behind_its_cursor() {
    let (mut alone, mut reconnects) = (0, 0);
    for seed in 0..20 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (a, r) = runtime.block_on(journey(seed, 1));
        (alone, reconnects) = (alone + a, reconnects + r);
    }
    assert!(alone > 100 && reconnects > 100, "{alone} read alone, {reconnects} times connected again");
}

#[test]
fn nor_does_it_depend_on_the_clock_or_on_threads() {
    for seed in 100..104 {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_time().build().unwrap();
        runtime.block_on(async { tokio::spawn(journey(seed, 40)).await.unwrap() });
    }
}
