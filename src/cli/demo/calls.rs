//! Made-up call summaries: record `n` is always the same. One of five is a second, longer summary of a call.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use prost::Message;

use super::publish::Records;

/// `calls.v1.CallSummary`, as `proto/calls/v1/calls.proto` has it.
#[derive(Clone, PartialEq, Message)]
struct CallSummary {
    #[prost(string, tag = "1")]
    call_id: String,
    #[prost(string, tag = "2")]
    account_id: String,
    #[prost(message, optional, tag = "3")]
    started_at: Option<Timestamp>,
    #[prost(message, optional, tag = "4")]
    ended_at: Option<Timestamp>,
    #[prost(int64, tag = "5")]
    seconds: i64,
    #[prost(int64, tag = "6")]
    cost_micros: i64,
    #[prost(int32, tag = "7")]
    outcome: i32,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// 2026-11-22T05:00:00Z: the day 2026-11-22 of New York begins.
const FIRST_SECOND: i64 = 1_795_323_600;
/// The calls end within that day.
const SPAN_MILLIS: u64 = 86_400_000 - 20_000;
/// Who makes them.
const ACCOUNTS: u64 = 5_000;
/// One record of so many tells of a call again.
const AGAIN: u64 = 5;

/// The call summaries of one run.
pub(crate) struct Calls {
    total: u64,
    message: CallSummary,
    sent: i64,
}

impl Calls {
    /// `total` summaries, spread evenly over 2026-11-22 in New York.
    pub(crate) fn new(total: u64) -> Self {
        Self { total: total.max(1), message: CallSummary::default(), sent: 0 }
    }
}

impl Records for Calls {
    fn encode(&mut self, number: u64, now: Option<DateTime<Utc>>, key: &mut Vec<u8>, value: &mut Vec<u8>) {
        let is_again = number % AGAIN == AGAIN - 1;
        let call = if is_again { number - 1 } else { number };
        let draw = super::mix(call);
        let place = (u128::from(number) * u128::from(SPAN_MILLIS) / u128::from(self.total)) as i64;
        let ended = now.map_or(FIRST_SECOND * 1000 + place, |now| now.timestamp_millis());
        let seconds = (draw >> 20) as i64 % 600 + if is_again { 7 } else { 0 };
        let time = |millis: i64| Timestamp { seconds: millis / 1000, nanos: (millis % 1000) as i32 * 1_000_000 };
        let message = &mut self.message;
        message.call_id.clear();
        message.account_id.clear();
        // Writing into a String does not fail.
        let _ = write!(message.call_id, "call-{:016x}", super::mix(draw));
        let _ = write!(message.account_id, "account-{:05}", draw % ACCOUNTS);
        message.started_at = Some(time(ended - seconds * 1000));
        message.ended_at = Some(time(ended));
        message.seconds = seconds;
        message.cost_micros = seconds * 450;
        message.outcome = ((draw >> 40) % 4) as i32 + 1;
        self.sent = ended;
        key.clear();
        key.extend_from_slice(message.call_id.as_bytes());
        value.clear();
        value.extend(message.encode_to_vec());
    }

    fn sent(&self) -> Option<i64> {
        Some(self.sent)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn one_of_five_tells_of_a_call_again() {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let mut calls = Calls::new(1_000);
        let mut ids = BTreeSet::new();
        let (mut last, mut ends) = (CallSummary::default(), BTreeSet::new());
        for number in 0..1_000 {
            calls.encode(number, None, &mut key, &mut value);
            let message = CallSummary::decode(value.as_slice()).unwrap();
            assert_eq!(message.call_id.as_bytes(), key);
            if !ids.insert(message.call_id.clone()) {
                assert_eq!((&message.call_id, message.seconds), (&last.call_id, last.seconds + 7));
            }
            ends.insert(message.ended_at.unwrap().seconds);
            last = message;
        }
        assert_eq!(ids.len(), 800);
        assert!(*ends.first().unwrap() >= FIRST_SECOND && *ends.last().unwrap() < FIRST_SECOND + 86_400);
    }
}
