//! Any bytes as records of many message types: the decoder and prost-reflect accept the same ones and read the same.

use std::cell::RefCell;
use std::collections::HashMap;

use arrow::datatypes::Fields;
use flumen::decode::{Decoder, Selection};
use flumen::schema::columns;
use prost_reflect::MessageDescriptor;

use super::random::Types;
use super::verdict::{compare, judge, names};

/// The message types that are kept.
const KEPT: usize = 512;

struct Kept {
    message: MessageDescriptor,
    fields: Fields,
    decoder: Decoder,
}

thread_local! {
    static KEPT_TYPES: RefCell<HashMap<u16, Kept>> = RefCell::default();
}

/// The first two bytes choose the message type, one of 512 random ones; the third one says where the rest is cut into
/// two records, so that a broken one has a neighbour.
pub fn run(data: &[u8]) {
    let [low, high, cut, rest @ ..] = data else { return };
    let seed = u16::from_le_bytes([*low, *high]) % KEPT as u16;
    KEPT_TYPES.with_borrow_mut(|kept| {
        let kept = kept.entry(seed).or_insert_with(|| {
            let message = Types::message(u64::from(seed), false);
            let fields = columns(&message).unwrap();
            let decoder = Decoder::new(&message, &names(&fields), &Selection::All).unwrap();
            Kept { message, fields, decoder }
        });
        let cut = usize::from(*cut).min(rest.len());
        let mut rows = Vec::new();
        for record in [&rest[..cut], &rest[cut..], rest] {
            rows.extend(judge(&mut kept.decoder, &kept.message, &kept.fields, record));
        }
        compare(&kept.decoder.finish().unwrap(), &rows, &kept.message);
    });
}
