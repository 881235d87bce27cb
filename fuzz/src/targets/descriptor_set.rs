//! Any bytes as a descriptor set: refused, or every message of it decodes something.

use arrow::array::Array;
use flumen::decode::{Decoder, Selection};
use flumen::schema::{Descriptors, MessageShape, changes};

/// The first byte says how many of the last bytes are a record.
pub fn run(data: &[u8]) {
    let Some((&record, set)) = data.split_first() else { return };
    let (set, record) = set.split_at(set.len() - usize::from(record).min(set.len()));
    let Ok(descriptors) = Descriptors::from_set(set) else { return };
    let mut last: Option<MessageShape> = None;
    for name in descriptors.message_names().iter().take(16) {
        // A name that no text could have is found by nobody.
        let Some(message) = descriptors.message(name) else { continue };
        let Ok(shape) = MessageShape::of(&message) else { continue };
        let columns = shape.columns();
        let names: Vec<&str> = columns.iter().map(|field| field.name().as_str()).collect();
        let mut decoder = Decoder::of_shape(&shape, &names, &Selection::All, false).unwrap();
        let rows = [b"".as_slice(), record].iter().filter(|record| decoder.push(record).is_ok()).count();
        let batch = decoder.finish().unwrap();
        assert_eq!(batch.num_rows(), rows);
        for column in batch.columns() {
            column.to_data().validate_full().unwrap();
        }
        if let Some(last) = last.replace(shape.clone()) {
            changes(&last, &shape);
        }
        assert_eq!(changes(&shape, &shape), []);
    }
}
