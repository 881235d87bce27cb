//! Writes inputs to begin with into `corpus/`: `cargo +nightly run --bin seeds`.

use std::fs;
use std::path::Path;

use flumen::offsets::PartitionRange;
use flumen::source::TopicIdentity;
use flumen::source::recording::RecordingWriter;
use flumen::source::{Payloads, RawBatch};
use flumen_fuzz::targets::random::{self, Dice, Types, Wanted};
use prost_reflect::prost::Message;
use prost_reflect::prost_types::FileDescriptorSet;

fn main() {
    for seed in 0..512u16 {
        let message = Types::message(u64::from(seed), false);
        let mut dice = Dice(u64::from(seed));
        let record = random::message(&mut dice, Wanted::Anything, &message, 3).encode_to_vec();
        let [low, high] = seed.to_le_bytes();
        if seed % 8 == 0 {
            save("wire", seed, &[&[low, high, (record.len() / 2).min(255) as u8], record.as_slice()].concat());
        }
        if seed % 32 == 0 {
            let mut set = FileDescriptorSet::default();
            let file = message.parent_file();
            set.file.extend(file.dependencies().map(|file| file.file_descriptor_proto().clone()));
            set.file.push(file.file_descriptor_proto().clone());
            let tail = &record[..record.len().min(255)];
            save("descriptor_set", seed, &[&[tail.len() as u8], set.encode_to_vec().as_slice(), tail].concat());
        }
    }
    for (at, header) in [&[0u8, 0, 0, 0, 7, 0, 8, 1][..], &[0, 0, 0, 1, 2, 4, 2, 0, 9], &[1, 2, 3]].iter().enumerate() {
        save("framing", at as u16, header);
    }
    for (at, with_manifest) in [true, false].iter().enumerate() {
        save("recording", at as u16, &recording(*with_manifest));
    }
}

fn save(target: &str, number: u16, bytes: &[u8]) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join(format!("seed-{number:03}")), bytes).unwrap();
}

fn recording(with_manifest: bool) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let identity = TopicIdentity { topic: "t".into(), topic_id: "i".into(), cluster_id: "c".into() };
    let mut writer = RecordingWriter::create(&dir.path().join("r"), identity).unwrap();
    let payloads = |texts: [Option<&str>; 3]| {
        let mut payloads = Payloads::default();
        texts.iter().for_each(|text| payloads.push(text.map(str::as_bytes)));
        payloads
    };
    let header = |name: &str| vec![(name.to_string(), Some(b"v".to_vec())), (name.to_string(), None)];
    let batch = RawBatch {
        partition: 1,
        offsets: vec![3, 4, 9],
        timestamps: vec![-1, 0, 1_700_000_000_000],
        values: payloads([Some("a"), None, Some("")]),
        keys: Some(payloads([None, Some("k"), Some("k")])),
        headers: Some(vec![header("x"), Vec::new(), header("")]),
    };
    writer.write(&batch).unwrap();
    writer
        .finish(&[PartitionRange { partition: 0, from: 0, to: 0 }, PartitionRange { partition: 1, from: 2, to: 12 }])
        .unwrap();
    let mut files: Vec<_> = fs::read_dir(dir.path().join("r")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let manifest = if with_manifest { fs::read(&files[0]).unwrap() } else { Vec::new() };
    let part = fs::read(&files[1]).unwrap();
    [&(manifest.len() as u16).to_le_bytes(), manifest.as_slice(), part.as_slice()].concat()
}
