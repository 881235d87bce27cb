//! Everything is bounded.

use std::time::Duration;

use super::*;
use crate::subscribe::ending::Code;

#[tokio::test(start_paused = true)]
async fn there_are_no_more_subscribers_than_allowed() {
    let stage = Stage::new(HubOptions { max_subscribers: 2, ..HubOptions::default() });
    let one = stage.subscribe(Start::Latest).await;
    let _two = stage.subscribe(Start::Latest).await;
    let ending = stage.refused(Start::Latest).await;
    assert_eq!(ending.code, Code::ResourceExhausted);
    assert!(ending.message.contains("2 subscribers, which is the limit"), "{ending}");
    drop(one);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut three = stage.subscribe(Start::Latest).await;
    stage.commit(&[1]);
    assert_eq!(stage.ids(&mut three, 1).await, [0]);
}

#[tokio::test(start_paused = true)]
async fn the_ring_has_no_more_than_allowed_and_who_fell_behind_reads_alone() {
    let options = HubOptions { ring_versions: 3, chunk_rows: 2, queue_chunks: 1, ..HubOptions::default() };
    let stage = Stage::new(options);
    let mut quick = stage.subscribe(Start::Latest).await;
    let mut slow = stage.subscribe(Start::Latest).await;
    for version in 0..20 {
        stage.commit(&[5]);
        assert_eq!(stage.ids(&mut quick, 5).await, (version * 5..version * 5 + 5).collect::<Vec<_>>());
        assert!(stage.hub.metrics().ring_chunks <= 9);
    }
    assert!(stage.hub.metrics().max_lag_versions >= 19);
    assert_eq!(stage.ids(&mut slow, 100).await, (0..100).collect::<Vec<_>>());
    let metrics = stage.hub.metrics();
    assert!(metrics.versions_read_alone >= 16, "{metrics:?}");
    assert_eq!((metrics.versions_read, metrics.sent_back), (20, 0));
    stage.commit(&[1]);
    assert_eq!(stage.ids(&mut slow, 1).await, [100]);
    assert_eq!(stage.table.reads(21), 1, "it is back in the ring");
}

#[tokio::test(start_paused = true)]
async fn the_bytes_of_the_ring_are_bounded() {
    let stage = Stage::new(HubOptions { ring_bytes: 20_000, chunk_rows: 50, ..HubOptions::default() });
    let mut subscription = stage.subscribe(Start::Latest).await;
    for _ in 0..20 {
        stage.commit(&[100, 100]);
    }
    assert_eq!(stage.ids(&mut subscription, 4000).await, (0..4000).collect::<Vec<_>>());
    let bytes = stage.hub.metrics().ring_bytes;
    // A chunk has about 1.6 kB of columns and 2 kB of messages, which come after it was put in.
    assert!((5_000..=24_000).contains(&bytes), "{bytes}");
}

#[tokio::test(start_paused = true)]
async fn chunks_are_cut_by_bytes_and_long_messages_are_refused() {
    let options = HubOptions { chunk_bytes: 4_000, message_bytes: 1_000, ..HubOptions::default() };
    let stage = Stage::new(options);
    let mut subscription = stage.subscribe(Start::Latest).await;
    let texts = (0..10).map(|n| "x".repeat(if n == 7 { 2_000 } else { 900 }));
    let columns: Vec<arrow::array::ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(0..10)),
        Arc::new(StringArray::from_iter_values(texts)),
        Arc::new(Int64Array::from(vec![None; 10])),
    ];
    stage.table.commit(vec![(RecordBatch::try_new(schema(), columns).unwrap(), false)]);
    assert_eq!(stage.ids(&mut subscription, 7).await, (0..7).collect::<Vec<_>>());
    let ending = next(&mut subscription).await.unwrap_err();
    assert!(ending.message.contains("version 1, row 8: it has 20"), "{ending}");
    assert!(stage.hub.metrics().ring_chunks >= 3);
}

#[test]
fn a_limit_of_nothing_is_refused() {
    let options = HubOptions { readers: 0, stall_limit: Duration::ZERO, ..HubOptions::default() };
    let error = Hub::new(Arc::new(VersionsInMemory::new("t")), options).unwrap_err();
    assert!(error.message().starts_with("readers, stall_limit: 0 is no limit"), "{error}");
}
