//! The decoder against hand-written records and against prost-reflect's messages.

mod cell;
mod hostile;
mod known;
mod oracle;
mod verdict;

use prost_reflect::MessageDescriptor;

use crate::schema::Descriptors;

/// The message `M` of a `.proto` text.
fn message(source: &str) -> MessageDescriptor {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.proto");
    std::fs::write(&path, source).unwrap();
    let descriptors = Descriptors::compile(&[path], &[]).unwrap_or_else(|fault| panic!("{fault}"));
    descriptors.message("M").unwrap()
}

/// A number as a varint.
pub(in crate::decode) fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
