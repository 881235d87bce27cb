//! Random messages: what the decoder makes of them is what prost-reflect reads.

use std::collections::BTreeMap;

use arrow::datatypes::Fields;
use proptest::prelude::*;
use prost_reflect::prost::Message;
use prost_reflect::{DynamicMessage, MessageDescriptor};

use super::cell::{Cell, actual};
use super::verdict::{compare, judge, names, row};
use crate::decode::{DecodeFault, Decoder, Selection};
use crate::schema::columns;
use crate::schema::random::{self, DEPTH, Dice, Types, Wanted};

/// A record: one message, or two of them one after the other, which is the two merged.
fn record(dice: &mut Dice, message: &MessageDescriptor) -> Vec<u8> {
    let mut payload = random::message(dice, Wanted::Anything, message, DEPTH).encode_to_vec();
    if dice.chance(30) {
        payload.extend(random::message(dice, Wanted::Anything, message, DEPTH).encode_to_vec());
    }
    payload
}

fn mutate(dice: &mut Dice, payload: &mut Vec<u8>) {
    for _ in 0..1 + dice.below(3) {
        let at = dice.below(payload.len().max(1));
        match dice.below(5) {
            0 => payload.truncate(at),
            1 => payload.insert(at.min(payload.len()), dice.next() as u8),
            2 if at < payload.len() => _ = payload.remove(at),
            3 if at < payload.len() => payload[at] = *dice.pick(&[0, 0x7f, 0x80, 0xff, 0x0b, 0x0c]),
            _ if at < payload.len() => payload[at] ^= 1 << dice.below(8),
            _ => {}
        }
    }
}

/// Some of the columns in some order, and some of what is in them.
fn narrow(dice: &mut Dice, message: &MessageDescriptor, fields: &Fields) -> (Vec<String>, Selection) {
    fn select(dice: &mut Dice, message: &MessageDescriptor, depth: usize) -> Selection {
        let mut fields = BTreeMap::new();
        for field in message.fields().filter(|_| dice.chance(40)).collect::<Vec<_>>() {
            let kind = field.kind();
            let inner = match kind.as_message() {
                Some(inner) if depth > 0 && dice.chance(70) => select(dice, inner, depth - 1),
                _ => Selection::All,
            };
            fields.insert(field.name().to_owned(), inner);
        }
        Selection::Fields(fields)
    }
    let mut names: Vec<String> = names(fields).into_iter().map(str::to_owned).collect();
    for at in (1..names.len()).rev() {
        names.swap(at, dice.below(at + 1));
    }
    names.truncate(dice.below(names.len() + 1));
    (names, select(dice, message, 4))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..Default::default() })]

    #[test]
    fn messages_are_read_as_the_oracle_reads_them(seed: u64) {
        read_whole(seed)?;
    }

    #[test]
    fn broken_records_are_refused_as_the_oracle_does_and_leave_no_trace(seed: u64) {
        read_broken(seed)?;
    }

    #[test]
    fn a_projection_is_a_part_of_the_whole(seed: u64) {
        read_part(seed)?;
    }
}

/// Seeds that were hard once.
#[test]
fn old_faults_stay_away() {
    for seed in
        [16486944419705465764, 11953234056102388114, 5445687821623166649, 7172952469875818618, 3115523587992508622]
    {
        let checks = [read_whole(seed), read_broken(seed), read_part(seed)];
        checks.into_iter().for_each(|check| check.unwrap_or_else(|fault| panic!("{seed}: {fault}")));
    }
}

fn read_whole(seed: u64) -> Result<(), TestCaseError> {
    let message = Types::message(seed, false);
    let flipped = Types::message(seed, true);
    let fields = columns(&message).unwrap();
    let mut decoder = Decoder::new(&message, &names(&fields), &Selection::All).unwrap();
    let mut dice = Dice(!seed);
    for _ in 0..2 {
        let mut want = Vec::new();
        for _ in 0..8 {
            let mut payload = record(&mut dice, &message);
            if dice.chance(30) {
                payload = DynamicMessage::decode(flipped.clone(), &payload[..]).unwrap().encode_to_vec();
            }
            want.extend(judge(&mut decoder, &message, &fields, &payload));
        }
        compare(&decoder.finish().unwrap(), &want, &message);
    }
    Ok(())
}

fn read_broken(seed: u64) -> Result<(), TestCaseError> {
    let message = Types::message(seed, false);
    let fields = columns(&message).unwrap();
    let mut decoder = Decoder::new(&message, &names(&fields), &Selection::All).unwrap();
    let mut dice = Dice(!seed);
    for _ in 0..2 {
        let mut want = Vec::new();
        for _ in 0..24 {
            let mut payload = record(&mut dice, &message);
            if dice.chance(75) {
                mutate(&mut dice, &mut payload);
            }
            want.extend(judge(&mut decoder, &message, &fields, &payload));
        }
        compare(&decoder.finish().unwrap(), &want, &message);
    }
    Ok(())
}

fn read_part(seed: u64) -> Result<(), TestCaseError> {
    let message = Types::message(seed, false);
    let fields = columns(&message).unwrap();
    let mut whole = Decoder::new(&message, &names(&fields), &Selection::All).unwrap();
    let mut dice = Dice(!seed);
    let (wanted, selection) = narrow(&mut dice, &message, &fields);
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    let mut part = Decoder::with_nullable_rows(&message, &wanted, &selection).unwrap();
    let mut rows = Vec::new();
    for _ in 0..12 {
        let mut payload = record(&mut dice, &message);
        if dice.chance(20) {
            mutate(&mut dice, &mut payload);
        }
        if dice.chance(20) {
            part.push_null();
            rows.push(None);
        }
        if whole.push(&payload).is_ok() {
            let verdict: Result<(), DecodeFault> = part.push(&payload);
            prop_assert_eq!(verdict, Ok(()), "{:02x?}", payload);
            rows.push(Some(whole.rows() - 1));
        }
    }
    let (whole, part) = (whole.finish().unwrap(), part.finish().unwrap());
    let schema = part.schema();
    prop_assert_eq!(names(schema.fields()), wanted.clone());
    prop_assert_eq!(part.num_rows(), rows.len());
    let all = Selection::All;
    for (at, source) in rows.iter().enumerate() {
        for (name, got) in wanted.iter().zip(row(&part, at, &message)) {
            let Some(source) = source else {
                prop_assert_eq!(got, Cell::Null);
                continue;
            };
            let kind = message.get_field_by_name(name).unwrap().kind();
            let want = actual(whole.column_by_name(name).unwrap(), *source, &kind);
            let selection = selection.field(name).unwrap_or(&all);
            prop_assert_eq!(got.pruned(selection), want.pruned(selection), "{}", name);
        }
    }
    Ok(())
}
