//! Any bytes as the files of a recording: refused with an error, or read to the end of what it says it holds.

use std::fs;
use std::path::Path;
use std::sync::Once;

use flumen::offsets::PartitionRange;
use flumen::source::recording::RecordingLog;
use flumen::source::{Log, Wanted};

/// The reader of Parquet panics at some damaged files: that must come out as an error. The fuzzer would stop at any
/// panic, wherever it is caught.
fn bear_panics_that_are_caught() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|_| {})));
}

/// The first two bytes are the length of the manifest (0: none), then it comes, then a Parquet file.
pub fn run(data: &[u8]) {
    let [low, high, rest @ ..] = data else { return };
    bear_panics_that_are_caught();
    let (manifest, part) = rest.split_at(usize::from(u16::from_le_bytes([*low, *high])).min(rest.len()));
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    if !manifest.is_empty() {
        fs::write(dir.path().join("manifest.json"), manifest).unwrap();
    }
    if !part.is_empty() {
        fs::write(dir.path().join("part.parquet"), part).unwrap();
    }
    let Ok(log) = RecordingLog::open(dir.path()) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let Ok(bounds) = log.bounds().await else { return };
        let ranges: Vec<PartitionRange> =
            bounds.iter().map(|b| PartitionRange { partition: b.partition, from: b.low, to: b.high }).collect();
        let Ok(mut stream) = log.read(&ranges, Wanted { key: true, headers: true }) else { return };
        let mut records = 0u64;
        while let Some(Ok(batch)) = stream.recv().await {
            assert!(ranges.iter().any(|range| range.partition == batch.partition));
            records += batch.len() as u64;
            assert!(records <= data.len() as u64 * 100_000, "more records than any file of this size can hold");
        }
    });
}
