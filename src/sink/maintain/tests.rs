//! Upkeep of tables that others write at the same time.
#![cfg(test)]

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, Int64Array, RecordBatch, StringArray};
use chrono::{DateTime, TimeDelta, Utc};

use super::bins::SmallFile;
use super::compact::Replaced;
use super::*;
use crate::clock::{self, FixedClock};
use crate::sink::fixtures::{commit, create, delta_table, files, ids, memory, open, owner, read, spec};

struct Place {
    _dir: tempfile::TempDir,
    location: String,
    upkeep: UpkeepSpec,
    now: DateTime<Utc>,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let location = dir.path().join("a table").to_str().unwrap().to_string();
        let upkeep = UpkeepSpec { max_small_files: 4, checkpoint_interval: Some(3), ..UpkeepSpec::default() };
        Self { _dir: dir, location, upkeep, now: clock::system().now() }
    }

    async fn maintainer(&self) -> Maintainer {
        self.maintainer_of(TableRole::Sink { settled: u64::MAX }).await
    }

    async fn maintainer_of(&self, role: TableRole) -> Maintainer {
        let (location, spec) = (self.location.clone(), self.upkeep.clone());
        let upkeep = TableUpkeep { location, target_file_size: 1 << 20, spec, role };
        let clock = Arc::new(FixedClock(self.now));
        Maintainer::open(upkeep, owner(), &Storage::new(), clock, memory()).await.unwrap().unwrap()
    }

    /// Commits a file for each range.
    async fn append(&self, sink: &mut DeltaSink, ranges: impl IntoIterator<Item = std::ops::Range<i64>>) {
        for range in ranges {
            let end = range.end;
            let adds = files(sink, range).await;
            sink.commit(commit(adds, &[(0, end)])).await.unwrap();
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(&self.location).join(name)
    }

    async fn live(&self) -> usize {
        delta_table(&self.location).await.snapshot().unwrap().log_data().iter().count()
    }
}

/// All small files as one bin.
async fn small(maintainer: &Maintainer) -> Vec<SmallFile> {
    let rules = super::bins::Rules { target_size: 1 << 20, max_files: 100, closed_since: i64::MAX };
    maintainer.small_files(rules).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn small_files_are_made_one_and_the_stream_goes_on() {
    let place = Place::new();
    let mut sink = create(&spec(&place.location), &Storage::new()).await;
    place.append(&mut sink, (0..6).map(|n| n * 10..n * 10 + 10)).await;
    let done = place.maintainer().await.round(Round::Due).await.unwrap();
    assert_eq!((done.files_compacted, done.files_written, done.version), (4, 1, 7));
    assert_eq!((done.checkpoint, place.live().await), (Some(7), 3));
    assert_eq!(read(&place.location, "id").await, ids(0..60));
    // The stream knows nothing of it.
    place.append(&mut sink, std::iter::once(60..70)).await;
    assert_eq!(sink.version(), Some(8));
    assert_eq!(read(&place.location, "id").await, ids(0..70));
    let again = open(&spec(&place.location), &Storage::new()).await.unwrap();
    assert_eq!((again.positions("k")[&0], again.txn("flumen:p:t:k:0")), (70, Some(70)));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_closed_partition_are_made_one() {
    let mut place = Place::new();
    let spec = SinkSpec { partition_by: vec!["name".into(), "day".into()], ..spec(&place.location) };
    let mut sink = create(&spec, &Storage::new()).await;
    let names = [Some("a b/c=%25 é"), None];
    for id in 0..4i64 {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![id, id + 10])),
            Arc::new(StringArray::from(names.to_vec())),
            Arc::new(Date32Array::from(vec![Some(20_000), None])),
        ];
        let mut writer = sink.writer(&memory());
        writer.write(&RecordBatch::try_new(sink.schema().clone(), columns).unwrap()).await.unwrap();
        let adds = writer.close().await.unwrap();
        sink.commit(commit(adds, &[(0, id)])).await.unwrap();
        if id == 2 {
            let done = place.maintainer().await.round(Round::Due).await.unwrap();
            assert_eq!(done.files_compacted, 0, "three files of an open partition are few");
        }
    }
    place.now += TimeDelta::hours(2);
    let (ids_before, days_before) = (read(&place.location, "id").await, read(&place.location, "day").await);
    let names_before = read(&place.location, "name").await;
    let done = place.maintainer().await.round(Round::Due).await.unwrap();
    assert_eq!((done.files_compacted, done.files_written, place.live().await), (8, 2, 2));
    assert_eq!(read(&place.location, "id").await, ids_before);
    assert_eq!(read(&place.location, "day").await, days_before);
    assert_eq!(read(&place.location, "name").await, names_before);
    let done = place.maintainer().await.round(Round::Due).await.unwrap();
    assert!(!done.is_any(), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_gives_up_when_another_was_faster() {
    let place = Place::new();
    let mut sink = create(&spec(&place.location), &Storage::new()).await;
    place.append(&mut sink, (0..4).map(|n| n * 10..n * 10 + 10)).await;
    let mut slow = place.maintainer().await;
    let bin = small(&slow).await;
    let written = slow.rewrite(&bin).await.unwrap().unwrap();
    let file = place.path(&written[0].path);
    assert!(file.exists());
    assert_eq!(place.maintainer().await.round(Round::Due).await.unwrap().files_compacted, 4);
    place.append(&mut sink, std::iter::once(40..50)).await;
    let mut gone = std::collections::HashSet::new();
    assert_eq!(slow.replace_files(&bin, written, &mut gone).await.unwrap(), Replaced::GivenUp);
    assert_eq!(gone.len(), 4, "also the next bin knows of them");
    assert!(!file.exists(), "nobody will ever name it");
    assert_eq!(read(&place.location, "id").await, ids(0..50));
    // Between two appends it does not have to.
    place.append(&mut sink, [50..60, 60..70]).await;
    let mut slow = place.maintainer().await;
    let bin = small(&slow).await;
    let written = slow.rewrite(&bin).await.unwrap().unwrap();
    place.append(&mut sink, std::iter::once(70..80)).await;
    assert_eq!(slow.replace_files(&bin, written, &mut gone).await.unwrap(), Replaced::Landed);
    assert_eq!(read(&place.location, "id").await, ids(0..80));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_others_are_left_alone() {
    let place = Place::new();
    let mut sink = create(&spec(&place.location), &Storage::new()).await;
    place.append(&mut sink, [0..10, 10..20]).await;
    let (_, adds) = (0, files(&sink, 20..30).await);
    let foreign = place.path(&adds[0].path);
    let rows = crate::sink::fixtures::batch(&sink, 20..30);
    let mut other = parquet::arrow::ArrowWriter::try_new(std::fs::File::create(&foreign).unwrap(), rows.schema(), None);
    other.as_mut().unwrap().write(&rows).unwrap();
    other.unwrap().close().unwrap();
    let size = std::fs::metadata(&foreign).unwrap().len() as i64;
    let adds = adds.into_iter().map(|add| deltalake::kernel::Add { size, ..add }).collect();
    sink.commit(commit(adds, &[(0, 30)])).await.unwrap();
    place.append(&mut sink, std::iter::once(30..40)).await;
    let done = place.maintainer().await.round(Round::Due).await.unwrap();
    assert_eq!((done.files_compacted, place.live().await), (0, 4));
    assert_eq!(read(&place.location, "id").await, ids(0..40));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_goes_back_to_a_checkpoint_and_no_further_than_it_has_to() {
    let mut place = Place::new();
    place.upkeep.log_retention = Some(Duration::from_secs(60 * 60));
    place.upkeep.max_small_files = 1_000;
    let mut sink = create(&spec(&place.location), &Storage::new()).await;
    place.append(&mut sink, (0..5).map(|n| n..n + 1)).await;
    let done = place.maintainer().await.round(Round::Due).await.unwrap();
    assert_eq!((done.checkpoint, done.log_files_removed), (Some(5), 0), "the entries are young");
    place.append(&mut sink, (5..9).map(|n| n..n + 1)).await;
    place.now += TimeDelta::hours(2);
    place.upkeep.max_small_files = 4;
    let done = place.maintainer().await.round(Round::Due).await.unwrap();
    assert_eq!(done.checkpoint, Some(done.version));
    assert!(done.log_files_removed >= 9, "{done:?}");
    assert!(!place.path("_delta_log/00000000000000000003.json").exists());
    assert_eq!(read(&place.location, "id").await, ids(0..9));
    let mut again = open(&spec(&place.location), &Storage::new()).await.unwrap();
    assert_eq!((again.positions("k")[&0], again.version()), (9, Some(done.version)));
    place.append(&mut again, std::iter::once(9..12)).await;
    assert_eq!(read(&place.location, "id").await, ids(0..12));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_commit_owes_stays_in_the_log() {
    let mut place = Place::new();
    place.upkeep.log_retention = Some(Duration::from_secs(60 * 60));
    place.now += TimeDelta::hours(2);
    let mut sink = create(&spec(&place.location), &Storage::new()).await;
    place.append(&mut sink, (0..4).map(|n| n..n + 1)).await;
    let mut owing = commit(files(&sink, 4..5).await, &[(0, 5)]);
    owing.txns.push((owner().side(), 5));
    sink.commit(owing).await.unwrap();
    // Whoever settled up to version 4 knows nothing of version 5.
    let done = place.maintainer_of(TableRole::Sink { settled: 4 }).await.round(Round::Due).await.unwrap();
    assert!(done.checkpoint.is_some_and(|version| version > 5), "{done:?}");
    let done = place.maintainer_of(TableRole::Sink { settled: 4 }).await.round(Round::Whole).await.unwrap();
    assert!(place.path("_delta_log/00000000000000000005.json").exists(), "{done:?}");
    place.append(&mut sink, std::iter::once(5..6)).await;
    let settled = sink.version().unwrap();
    place.maintainer_of(TableRole::Sink { settled }).await.round(Round::Whole).await.unwrap();
    assert!(!place.path("_delta_log/00000000000000000005.json").exists());
    let again = open(&spec(&place.location), &Storage::new()).await.unwrap();
    assert!(again.side_commit(&owner().side()).await.unwrap().is_none(), "the table itself says that it is settled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vacuum_takes_what_nobody_has_named_for_days() {
    let mut place = Place::new();
    let mut sink = create(&spec(&place.location), &Storage::new()).await;
    place.append(&mut sink, (0..4).map(|n| n * 10..n * 10 + 10)).await;
    let orphan = place.path("part-00000-orphan.parquet");
    std::fs::write(&orphan, "left by a crash").unwrap();
    std::fs::create_dir_all(place.path("_flumen")).unwrap();
    std::fs::write(place.path("_flumen/abc.binpb"), "a schema").unwrap();
    let inner =
        Place { location: format!("{}/inner", place.location), _dir: tempfile::tempdir().unwrap(), ..Place::new() };
    let mut nested = create(&spec(&inner.location), &Storage::new()).await;
    inner.append(&mut nested, std::iter::once(0..3)).await;
    let done = place.maintainer().await.round(Round::Whole).await.unwrap();
    assert_eq!((done.files_compacted, done.files_vacuumed), (4, 0), "all of them are young");
    place.now += TimeDelta::days(8);
    let done = place.maintainer_of(TableRole::Side).await.round(Round::Whole).await.unwrap();
    assert_eq!(done.files_vacuumed, 0, "another pipeline may still name files of a side table");
    let done = place.maintainer().await.round(Round::Whole).await.unwrap();
    assert_eq!(done.files_vacuumed, 5, "four that were made one, and what a crash left");
    assert!(!orphan.exists() && place.path("_flumen/abc.binpb").exists());
    assert_eq!(read(&place.location, "id").await, ids(0..40));
    assert_eq!(read(&inner.location, "id").await, ids(0..3));
    // Beside the stream it comes once a day.
    std::fs::write(&orphan, "again").unwrap();
    place.now += TimeDelta::hours(23);
    assert_eq!(place.maintainer().await.round(Round::Due).await.unwrap().files_vacuumed, 0);
    place.now += TimeDelta::days(8);
    assert_eq!(place.maintainer().await.round(Round::Due).await.unwrap().files_vacuumed, 1);
}

#[tokio::test]
async fn a_table_may_say_how_long_its_files_stay() {
    let (mut place, hour) = (Place::new(), Duration::from_secs(60 * 60));
    create(&spec(&place.location), &Storage::new()).await;
    let wanted = [
        ("interval 2 days", None, 48 * hour),
        ("interval 1 week", None, 168 * hour),
        ("interval 30 hours", None, 30 * hour),
        ("interval 1 hour", None, 24 * hour),
        ("interval 2 days", Some(72 * hour), 72 * hour),
    ];
    for (text, option, expected) in wanted {
        place.upkeep.vacuum_retention = option;
        let mut maintainer = place.maintainer().await;
        let state = maintainer.sink.state.as_mut().unwrap();
        let properties = &mut state.definition.metadata.configuration;
        properties.insert("delta.deletedFileRetentionDuration".into(), text.into());
        assert_eq!(maintainer.vacuum_retention(), expected, "{text}");
    }
}
