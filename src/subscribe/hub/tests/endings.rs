//! How subscriptions end, and which do not begin.

use std::time::Duration;

use super::*;
use crate::subscribe::cursor::{Place, TableId};
use crate::subscribe::ending::Code;

fn cursor(table: &str, version: u64, rows: u64) -> Start {
    Start::Cursor(Cursor { table: TableId::of(table), place: Place { version, rows } })
}

#[tokio::test(start_paused = true)]
async fn places_that_cannot_be_read_are_refused() {
    let stage = Stage::new(HubOptions::default());
    for _ in 0..5 {
        stage.commit(&[2]);
    }
    stage.table.vacuum(3);
    for (start, code, says) in [
        (cursor("first", 2, 1), Code::OutOfRange, "the oldest version is 3"),
        (Start::Version(0), Code::OutOfRange, "the oldest version is 3"),
        (Start::Version(6), Code::OutOfRange, "no version 6 yet; the newest is 5"),
        (cursor("first", 6, 1), Code::OutOfRange, "the newest is 5"),
        (cursor("first", 900, 0), Code::OutOfRange, "the newest is 5"),
        (cursor("other", 4, 0), Code::FailedPrecondition, "of another table"),
    ] {
        let ending = stage.refused(start).await;
        assert_eq!(ending.code, code, "{ending}");
        assert!(ending.message.contains(says), "{ending}");
    }
    assert_eq!(stage.hub.metrics().subscribers, 0, "who is refused takes no seat");
    let mut earliest = stage.subscribe(Start::Earliest).await;
    assert_eq!(stage.ids(&mut earliest, 6).await, [4, 5, 6, 7, 8, 9]);
    let mut head = stage.subscribe(cursor("first", 6, 0)).await;
    let mut end = stage.subscribe(cursor("first", 5, 2)).await;
    stage.commit(&[1]);
    assert_eq!(stage.ids(&mut head, 1).await, [10]);
    assert_eq!(stage.ids(&mut end, 1).await, [10]);
}

#[tokio::test(start_paused = true)]
async fn a_version_that_goes_while_one_reads_ends_it() {
    let stage = Stage::new(HubOptions::default());
    for _ in 0..4 {
        stage.commit(&[2]);
    }
    stage.table.lose(3);
    let mut subscription = stage.subscribe(Start::Version(2)).await;
    assert_eq!(stage.ids(&mut subscription, 2).await, [2, 3]);
    let ending = next(&mut subscription).await.unwrap_err();
    assert_eq!((ending.code, ending.cursor.unwrap().place), (Code::OutOfRange, Place::before(3)));
    assert!(ending.message.contains("the oldest version is 4"), "{ending}");
}

#[tokio::test(start_paused = true)]
async fn a_table_that_is_made_again_is_another_one() {
    let stage = Stage::new(HubOptions::default());
    let mut subscription = stage.subscribe(Start::Latest).await;
    stage.commit(&[1]);
    let message = next(&mut subscription).await.unwrap();
    stage.table.make_again("second");
    for _ in 0..3 {
        stage.commit(&[1]);
    }
    let ending = loop {
        match next(&mut subscription).await {
            // Between two looks its rows may still be taken for the old one's.
            Ok(message) => assert!(message.cursor.place.version > 1),
            Err(ending) => break ending,
        }
    };
    assert_eq!(ending.code, Code::FailedPrecondition);
    assert!(ending.message.contains("made again"), "{ending}");
    assert_eq!(stage.refused(Start::Cursor(message.cursor)).await.code, Code::FailedPrecondition);
    let mut again = stage.subscribe(Start::Version(1)).await;
    assert_eq!(next(&mut again).await.unwrap().cursor.table, TableId::of("second"));
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_is_waited_for_and_a_long_one_ends_all() {
    let stage = Stage::new(HubOptions::default());
    let mut subscription = stage.subscribe(Start::Latest).await;
    stage.commit(&[1]);
    assert_eq!(stage.ids(&mut subscription, 1).await, [0]);
    stage.table.set_away(true);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(stage.refused(Start::Latest).await.code, Code::Unavailable);
    stage.table.set_away(false);
    stage.commit(&[1]);
    assert_eq!(stage.ids(&mut subscription, 1).await, [1]);
    stage.table.set_away(true);
    let ending = next(&mut subscription).await.unwrap_err();
    assert_eq!((ending.code, ending.message.as_str()), (Code::Unavailable, "the store is away: try again"));
    assert!(stage.hub.metrics().read_failures > 10);
    stage.table.set_away(false);
    stage.commit(&[1]);
    let mut again = stage.subscribe(Start::Cursor(ending.cursor.unwrap())).await;
    assert_eq!(stage.ids(&mut again, 1).await, [2]);
}

#[tokio::test(start_paused = true)]
async fn a_drain_sends_what_waits_and_then_says_goodbye() {
    let stage = Stage::new(HubOptions { chunk_rows: 1, queue_chunks: 3, ..HubOptions::default() });
    let mut quick = stage.subscribe(Start::Latest).await;
    let mut slow = stage.subscribe(Start::Latest).await;
    stage.commit(&[10]);
    assert_eq!(stage.ids(&mut quick, 10).await.len(), 10);
    stage.hub.drain();
    let ending = next(&mut quick).await.unwrap_err();
    assert_eq!(ending.code, Code::Unavailable);
    assert_eq!(stage.ids(&mut slow, 3).await, [0, 1, 2]);
    let ending = next(&mut slow).await.unwrap_err();
    assert_eq!(ending.code, Code::Unavailable);
    assert_eq!(ending.cursor.unwrap().place, Place { version: 1, rows: 3 });
    assert_eq!(stage.refused(Start::Latest).await.code, Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_row_that_does_not_fit_ends_those_who_want_it() {
    let table = Arc::new(VersionsInMemory::new("first"));
    let small = "message M { int32 id = 1; string ad = 2; }";
    let stage = Stage::on(table, HubOptions::default(), small);
    let filter = stage.ads(&["ad-1"]);
    let mut careful = stage.hub.subscribe(&stage.outlet, filter, Start::Latest).await.unwrap();
    let mut all = stage.subscribe(Start::Latest).await;
    let big = i64::from(i32::MAX);
    assert_eq!(big % 10, 7);
    stage.table.commit(vec![(rows(big - 1..big + 5), false)]);
    for _ in 0..2 {
        next(&mut all).await.unwrap();
    }
    let ending = next(&mut all).await.unwrap_err();
    assert_eq!((ending.code, ending.cursor.unwrap().place.rows), (Code::FailedPrecondition, 2));
    assert!(ending.message.contains("column id: 2147483648 does not fit into int32"), "{ending}");
    assert!(ending.message.contains("version 1, row 3"), "{ending}");
    // `ad-1` is behind the rows that do not fit, and does not fit either.
    assert_eq!(next(&mut careful).await.unwrap_err().code, Code::FailedPrecondition);
    let filter = stage.ads(&["ad-6"]);
    let mut other = stage.hub.subscribe(&stage.outlet, filter, Start::Version(1)).await.unwrap();
    next(&mut other).await.unwrap();
    is_quiet(&mut other).await;
}
