//! Where subscriptions begin, and what they share.

use std::time::Duration;

use futures::StreamExt as _;
use tokio::time::Instant;

use super::*;
use crate::subscribe::cursor::{Place, TableId};
use crate::subscribe::ending::Code;

#[tokio::test(start_paused = true)]
async fn a_subscription_begins_where_it_is_told() {
    let stage = Stage::new(HubOptions::default());
    stage.commit(&[3]);
    stage.commit(&[2, 2]);
    let mut latest = stage.subscribe(Start::Latest).await;
    let mut earliest = stage.subscribe(Start::Earliest).await;
    let mut second = stage.subscribe(Start::Version(2)).await;
    stage.commit(&[1]);
    assert_eq!(stage.ids(&mut latest, 1).await, [7]);
    assert_eq!(stage.ids(&mut earliest, 8).await, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(stage.ids(&mut second, 2).await, [3, 4]);
    let message = next(&mut second).await.unwrap();
    assert_eq!((stage.id(&message), message.cursor.place), (5, Place { version: 2, rows: 3 }));
    drop(second);
    let mut again = stage.subscribe(Start::Cursor(message.cursor)).await;
    assert_eq!(stage.ids(&mut again, 2).await, [6, 7]);
    is_quiet(&mut again).await;
}

#[tokio::test(start_paused = true)]
async fn a_thousand_share_one_read_and_one_that_is_stuck_harms_nobody() {
    let stage = Stage::new(HubOptions { queue_chunks: 2, ..HubOptions::default() });
    let mut all = Vec::new();
    for _ in 0..1000 {
        all.push(stage.subscribe(Start::Latest).await);
    }
    let mut stuck = stage.subscribe(Start::Latest).await;
    let started = Instant::now();
    for version in 1..=8 {
        let before = Instant::now();
        stage.commit(&[3, 2]);
        for subscription in &mut all {
            let first = (version - 1) * 5;
            assert_eq!(stage.ids(subscription, 5).await, (first..first + 5).collect::<Vec<i64>>());
        }
        assert!(before.elapsed() <= Duration::from_millis(50), "{:?}", before.elapsed());
        assert_eq!(stage.table.reads(version as u64), 1);
    }
    assert!(started.elapsed() < HubOptions::default().stall_limit);
    // Not before its time is over is the stuck one sent back, and it is the only one.
    let metrics = stage.hub.metrics();
    assert_eq!((metrics.subscribers, metrics.sent_back, metrics.versions_read), (1001, 0, 8));
    tokio::time::sleep(Duration::from_secs(31)).await;
    let metrics = stage.hub.metrics();
    assert_eq!((metrics.subscribers, metrics.sent_back, metrics.max_lag_versions), (1000, 1, 0));
    let mut got = Vec::new();
    let ending = loop {
        match next(&mut stuck).await {
            Ok(message) => got.push(stage.id(&message)),
            Err(ending) => break ending,
        }
    };
    assert_eq!(ending.code, Code::Aborted);
    assert!(ending.message.contains("connect again with the last cursor"), "{ending}");
    assert!(stuck.next().await.is_none());
    assert_eq!(got, (0..got.len() as i64).collect::<Vec<_>>());
    assert!(!got.is_empty() && got.len() < 40);
    let mut again = stage.subscribe(Start::Cursor(ending.cursor.unwrap())).await;
    assert_eq!(stage.ids(&mut again, 40 - got.len()).await, (got.len() as i64..40).collect::<Vec<_>>());
    assert_eq!(stage.hub.metrics().rows_sent, 40_000 + 40);
}

#[tokio::test(start_paused = true)]
async fn messages_of_a_row_are_one_and_the_same_bytes() {
    let stage = Stage::new(HubOptions::default());
    let mut one = stage.subscribe(Start::Latest).await;
    let filter = stage.ads(&["ad-3"]);
    let mut other = stage.hub.subscribe(&stage.outlet, filter, Start::Latest).await.unwrap();
    stage.commit(&[10]);
    let all: Vec<Message> = {
        let mut all = Vec::new();
        for _ in 0..10 {
            all.push(next(&mut one).await.unwrap());
        }
        all
    };
    let wanted = next(&mut other).await.unwrap();
    assert_eq!(stage.id(&wanted), 3);
    assert_eq!(wanted.cursor, all[3].cursor);
    assert_eq!(wanted.payload.as_ptr(), all[3].payload.as_ptr());
    is_quiet(&mut other).await;
}

#[tokio::test(start_paused = true)]
async fn a_compaction_repeats_nothing_and_replaced_rows_are_marked() {
    let stage = Stage::new(HubOptions::default());
    let mut subscription = stage.subscribe(Start::Latest).await;
    stage.commit(&[2]);
    stage.table.commit(Vec::new());
    stage.table.commit(vec![(rows(0..2), true), (rows(9..10), false)]);
    assert_eq!(stage.ids(&mut subscription, 2).await, [0, 1]);
    let mut marks = Vec::new();
    for _ in 0..3 {
        let message = next(&mut subscription).await.unwrap();
        assert_eq!(message.cursor.place.version, 3);
        let decoded = stage.decode(&message);
        let replaces = decoded.get_field_by_name("replaces").unwrap().as_bool().unwrap();
        marks.push((stage.id(&message), replaces));
    }
    assert_eq!(marks, [(0, true), (1, true), (9, false)]);
    is_quiet(&mut subscription).await;
}

#[tokio::test(start_paused = true)]
async fn a_message_without_a_cursor_field_still_has_one_beside_it() {
    let table = Arc::new(VersionsInMemory::new("first"));
    let stage = Stage::on(table, HubOptions::default(), "message M { int64 id = 1; }");
    assert!(!stage.outlet.carries_cursor());
    assert_eq!(stage.outlet.columns(), ["id"]);
    let mut subscription = stage.subscribe(Start::Latest).await;
    stage.commit(&[1]);
    let message = next(&mut subscription).await.unwrap();
    let place = Place { version: 1, rows: 1 };
    assert_eq!(message.cursor, Cursor { table: TableId::of("first"), place });
    assert_eq!(&message.payload[..], [0u8; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_table_may_get_columns_meanwhile() {
    let stage = Stage::new(HubOptions::default());
    let mut subscription = stage.subscribe(Start::Latest).await;
    stage.commit(&[1]);
    let wider = Arc::new(Schema::new(vec![
        Field::new("new", DataType::Int64, false),
        Field::new("ad", DataType::Utf8View, true),
        Field::new("id", DataType::Int64, false),
    ]));
    let columns: Vec<arrow::array::ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![7])),
        Arc::new(arrow::array::StringViewArray::from(vec!["x"])),
        Arc::new(Int64Array::from(vec![1])),
    ];
    stage.table.commit(vec![(RecordBatch::try_new(wider, columns).unwrap(), false)]);
    assert_eq!(stage.ids(&mut subscription, 2).await, [0, 1]);
    let narrower = rows(0..1).project(&[0]).unwrap();
    stage.table.commit(vec![(narrower, false)]);
    let ending = next(&mut subscription).await.unwrap_err();
    assert_eq!(ending.code, Code::FailedPrecondition);
    assert!(ending.message.contains("field ad: the table has no column `ad`"), "{ending}");
    assert_eq!(ending.cursor.unwrap().place, Place { version: 3, rows: 0 });
}

#[tokio::test(start_paused = true)]
async fn without_subscribers_nothing_is_read() {
    let stage = Stage::new(HubOptions::default());
    let mut subscription = stage.subscribe(Start::Latest).await;
    stage.commit(&[1]);
    assert_eq!(stage.ids(&mut subscription, 1).await, [0]);
    drop(subscription);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(stage.hub.metrics().subscribers, 0);
    for _ in 0..5 {
        stage.commit(&[1]);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!((1..=6).map(|version| stage.table.reads(version)).collect::<Vec<_>>(), [1, 0, 0, 0, 0, 0]);
    let mut later = stage.subscribe(Start::Latest).await;
    is_quiet(&mut later).await;
    stage.commit(&[1]);
    assert_eq!(stage.ids(&mut later, 1).await, [6]);
}

#[tokio::test(start_paused = true)]
async fn news_that_are_told_come_at_once() {
    let slow = Duration::from_secs(20);
    let stage = Stage::new(HubOptions { poll_interval: slow, idle_interval: slow, ..HubOptions::default() });
    let mut subscription = stage.subscribe(Start::Latest).await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    let before = Instant::now();
    stage.commit(&[1]);
    stage.hub.tell_news();
    assert_eq!(stage.ids(&mut subscription, 1).await, [0]);
    assert_eq!(before.elapsed(), Duration::ZERO);
}
