//! Any bytes as a record of a topic with a schema registry: taken apart without a byte lost, or refused.

use flumen::decode::{Reason, message_path, unframe};

/// The bytes are one record.
pub fn run(data: &[u8]) {
    match unframe(data) {
        Ok(framed) => {
            assert_eq!(&data[framed.position..], framed.message);
            assert_eq!(data[1..5], framed.schema.to_be_bytes());
            assert_eq!(framed.index, &data[5..framed.position]);
            let path = message_path(framed.index);
            assert!(!path.is_empty() && path.len() <= 100);
            assert_eq!(unframe(&framed_again(framed.schema, &path, framed.message)).unwrap().message, framed.message);
        }
        Err(fault) => {
            assert_eq!(fault.reason, Reason::Framing);
            assert!(fault.position <= data.len());
        }
    }
}

/// The same record in the shortest form.
fn framed_again(schema: u32, path: &[usize], message: &[u8]) -> Vec<u8> {
    let mut record = vec![0];
    record.extend(schema.to_be_bytes());
    if path == [0] {
        record.push(0);
    } else {
        for number in std::iter::once(&path.len()).chain(path) {
            let mut rest = number * 2;
            while rest >= 0x80 {
                record.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            record.push(rest as u8);
        }
    }
    record.extend(message);
    record
}
