//! Random types, random values: what is encoded is decoded to the same columns.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use prost_reflect::prost::Message as _;
use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, ReflectMessage as _};

use super::super::{EncodeOptions, Encoder, Mark};
use super::columns::batch;
use crate::schema::random::{DEPTH, Dice, Types, Wanted, message};
use crate::subscribe::cursor::{Cursor, Place, TableId};

pub fn mark(rows: u64) -> Mark {
    let place = Place { version: 7, rows };
    Mark { cursor: Cursor { table: TableId::of("t"), place }, replaces: false }
}

/// Each row's message.
pub fn encode(batch: &RecordBatch, message: &MessageDescriptor) -> Vec<Vec<u8>> {
    let encoder = Encoder::plan(&batch.schema(), message, &EncodeOptions::default()).unwrap();
    let rows = encoder.rows(batch).unwrap();
    let write = |row: usize| {
        let mut out = Vec::new();
        rows.write(row, &mark(row as u64 + 1), &mut out).unwrap();
        out
    };
    (0..batch.num_rows()).map(write).collect()
}

/// The same values in other types: views, large ones, dictionaries.
fn disguised(batch: &RecordBatch, dice: &mut Dice) -> RecordBatch {
    let columns: Vec<ArrayRef> = batch
        .columns()
        .iter()
        .map(|column| {
            let dictionary = |of: DataType| DataType::Dictionary(Box::new(DataType::Int16), Box::new(of));
            let target = match (column.data_type(), dice.below(4)) {
                (DataType::Utf8, 0) => DataType::Utf8View,
                (DataType::Utf8, 1) => DataType::LargeUtf8,
                (DataType::Utf8, 2) => dictionary(DataType::Utf8),
                (DataType::Binary, 0) => DataType::BinaryView,
                (DataType::Binary, 1) => DataType::LargeBinary,
                (DataType::Int64, 0) => dictionary(DataType::Int64),
                (DataType::Int64, 1) => DataType::Decimal128(20, 0),
                (DataType::Int32, 0) => DataType::Int64,
                (DataType::List(element), 0) => DataType::LargeList(element.clone()),
                (same, _) => same.clone(),
            };
            cast(column, &target).unwrap()
        })
        .collect();
    let fields: Vec<Field> = batch
        .schema()
        .fields()
        .iter()
        .zip(&columns)
        .map(|(field, column)| Field::new(field.name(), column.data_type().clone(), true))
        .collect();
    match columns.is_empty() {
        true => batch.clone(),
        false => RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap(),
    }
}

/// Whether all required fields are there, as a column says it: a date that no calendar has is not.
fn has_required(message: &DynamicMessage) -> bool {
    let one = batch(&message.descriptor(), std::slice::from_ref(message));
    let encoder = Encoder::plan(&one.schema(), &message.descriptor(), &EncodeOptions::default()).unwrap();
    match encoder.rows(&one).unwrap().write(0, &mark(1), &mut Vec::new()) {
        Ok(()) => true,
        Err(error) => {
            assert!(error.message().contains("the message requires the field"), "{error}");
            false
        }
    }
}

/// Whether every message of the type has one form only on the wire.
fn is_canonical(message: &MessageDescriptor, depth: usize) -> bool {
    depth == 0
        || message.fields().all(|field| match field.kind() {
            _ if field.is_map() => false,
            Kind::Message(inner) => inner.full_name() != "google.protobuf.Struct" && is_canonical(&inner, depth - 1),
            _ => true,
        })
}

#[test]
fn random_messages_survive() {
    let (mut rows, mut compared) = (0, 0);
    for seed in 0..600 {
        let descriptor = Types::message(seed, false);
        let mut dice = Dice(seed ^ 0xabcd);
        let mut messages: Vec<DynamicMessage> =
            (0..12).map(|_| message(&mut dice, Wanted::Lasting, &descriptor, DEPTH)).collect();
        messages.retain(has_required);
        let plain = batch(&descriptor, &messages);
        let disguised = disguised(&plain, &mut dice);
        let encoded = encode(&disguised, &descriptor);
        let skipped = dice.below(messages.len() + 1);
        let slice = disguised.slice(skipped, messages.len() - skipped);
        assert!(encode(&slice, &descriptor) == encoded[skipped..], "seed {seed}: a slice");
        assert!(encoded == encode(&plain, &descriptor), "seed {seed}");
        let decoded: Vec<DynamicMessage> = encoded
            .iter()
            .map(|bytes| {
                DynamicMessage::decode(descriptor.clone(), &bytes[..]).unwrap_or_else(|e| panic!("{seed}: {e}"))
            })
            .collect();
        let again = batch(&descriptor, &decoded);
        assert_eq!(plain.schema(), again.schema(), "seed {seed}");
        for (column, field) in plain.columns().iter().zip(plain.schema().fields()) {
            let other = again.column_by_name(field.name()).unwrap();
            if let Some(row) =
                (0..column.len()).find(|row| column.slice(*row, 1).to_data() != other.slice(*row, 1).to_data())
            {
                let (was, is) = (column.slice(row, 1), other.slice(row, 1));
                let told = |array: ArrayRef| format!("{array:?}").chars().take(2000).collect::<String>();
                panic!("seed {seed}: {}, row {row}:\n{}\n{}", field.name(), told(was), told(is));
            }
        }
        for (bytes, message) in encoded.iter().zip(&decoded) {
            rows += 1;
            let size = message.encoded_len();
            assert!(bytes.len() >= size, "seed {seed}");
            if is_canonical(&descriptor, 6) {
                compared += 1;
                assert!(*bytes == message.encode_to_vec(), "seed {seed}");
            }
        }
    }
    assert!(rows > 5000 && compared > 1500, "{rows} rows, {compared} compared byte by byte");
}
