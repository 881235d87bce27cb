//! What the fuzzer has found and was given, once more for every change: each file of `fuzz/corpus/` is run as the fuzzer
//! runs it.

#[path = "../../fuzz/src/targets/mod.rs"]
#[allow(dead_code, reason = "the fuzzer's own binaries use more of it")]
mod targets;

use crate::binary::repository;

fn replay(target: &str, run: fn(&[u8])) {
    let mut files: Vec<_> = std::fs::read_dir(repository().join("fuzz/corpus").join(target))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "the corpus of {target} is empty");
    for file in files {
        let name = file.display();
        std::panic::catch_unwind(|| run(&std::fs::read(&file).unwrap())).unwrap_or_else(|_| panic!("{name} fails"));
    }
}

#[test]
fn wire() {
    replay("wire", targets::wire::run);
}

#[test]
fn descriptor_sets() {
    replay("descriptor_set", targets::descriptor_set::run);
}

#[test]
fn framing() {
    replay("framing", targets::framing::run);
}

#[test]
fn recordings() {
    replay("recording", targets::recording::run);
}
