//! Made-up ad impressions: record `n` is always the same.

use chrono::{DateTime, Utc};
use prost::Message;

use super::mix;
use super::publish::Records;

/// `ads.v1.AdImpression`, as `proto/ads/v1/ads.proto` has it.
#[derive(Clone, PartialEq, Message)]
struct AdImpression {
    #[prost(string, tag = "1")]
    ad_id: String,
    #[prost(string, tag = "2")]
    context_id: String,
    #[prost(string, tag = "3")]
    user_id: String,
    #[prost(string, tag = "4")]
    session_id: String,
    #[prost(message, optional, tag = "5")]
    impressed_at: Option<Timestamp>,
    #[prost(message, optional, tag = "6")]
    placement: Option<Placement>,
    #[prost(string, repeated, tag = "7")]
    labels: Vec<String>,
    #[prost(double, tag = "8")]
    bid: f64,
}

impl AdImpression {
    /// Leaves fields out, or adds labels, until it has about so many `bytes`.
    fn resize(&mut self, bytes: usize, draw: u64) {
        let leave_out: [fn(&mut Self); 4] = [
            |message| message.labels.clear(),
            |message| message.session_id.clear(),
            |message| message.context_id.clear(),
            |message| message.placement = None,
        ];
        for field in leave_out {
            if self.encoded_len() > bytes {
                field(self);
            }
        }
        let lacking = bytes.saturating_sub(self.encoded_len());
        let padding = |index| format!("{:0PADDING$x}", mix(draw ^ index));
        self.labels.extend((0..(lacking / PADDING) as u64).map(padding));
    }
}

/// `google.protobuf.Timestamp`.
#[derive(Clone, PartialEq, Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// `ads.v1.Placement`.
#[derive(Clone, PartialEq, Message)]
struct Placement {
    #[prost(string, tag = "1")]
    page: String,
    #[prost(int32, tag = "2")]
    slot: i32,
}

/// 2026-11-20T00:00:00Z, in seconds since the epoch.
const FIRST_SECOND: i64 = 1_795_132_800;
/// The impressions are spread over two days.
const SPAN_MILLIS: u64 = 2 * 86_400_000;
/// The lookup knows ads 0 to 9,999: 83 % of these.
const ADS: u64 = 12_000;

/// A label that only makes a record larger has so many characters.
const PADDING: usize = 100;

/// The impressions of one run.
pub(crate) struct Impressions {
    total: u64,
    /// About how large a record shall be; `None`: as it comes.
    bytes: Option<usize>,
    message: AdImpression,
}

impl Impressions {
    /// `total` impressions, spread evenly over two days; of about so many `bytes`, where that is said.
    pub(crate) fn new(total: u64, bytes: Option<usize>) -> Self {
        Self { total: total.max(1), bytes, message: AdImpression::default() }
    }
}

impl Records for Impressions {
    fn encode(&mut self, number: u64, now: Option<DateTime<Utc>>, key: &mut Vec<u8>, value: &mut Vec<u8>) {
        use std::fmt::Write;
        let draw = mix(number);
        let millis = (u128::from(number) * u128::from(SPAN_MILLIS) / u128::from(self.total)) as i64;
        let its_own = Timestamp { seconds: FIRST_SECOND + millis / 1000, nanos: (millis % 1000) as i32 * 1_000_000 };
        let message = &mut self.message;
        let text = |field: &mut String, arguments: std::fmt::Arguments<'_>| {
            field.clear();
            // Writing into a String does not fail.
            let _ = field.write_fmt(arguments);
        };
        text(&mut message.ad_id, format_args!("ad-{:05}", draw % ADS));
        text(&mut message.context_id, format_args!("context-{:016x}", mix(draw >> 16)));
        text(&mut message.user_id, format_args!("user-{:010}", (draw >> 24) % 200_000));
        text(&mut message.session_id, format_args!("session-{:016x}", mix(draw)));
        let now = now.map(|now| Timestamp { seconds: now.timestamp(), nanos: now.timestamp_subsec_nanos() as i32 });
        message.impressed_at = Some(now.unwrap_or(its_own));
        let placement = message.placement.get_or_insert_default();
        text(&mut placement.page, format_args!("/page/{}", (draw >> 40) % 500));
        placement.slot = ((draw >> 50) % 12) as i32;
        const LABELS: [&str; 4] = ["mobile", "sale", "evening", "returning"];
        message.labels.clear();
        message.labels.extend((0..(draw >> 60) % 3).map(|i| LABELS[((draw >> 58) + i) as usize % 4].to_owned()));
        message.bid = ((draw >> 32) % 10_000) as f64 / 1000.0;
        if let Some(bytes) = self.bytes {
            message.resize(bytes, draw);
        }
        key.clear();
        key.extend_from_slice(message.ad_id.as_bytes());
        value.clear();
        value.extend(message.encode_to_vec());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_n_is_always_the_same() {
        let (mut key, mut first, mut again) = (Vec::new(), Vec::new(), Vec::new());
        let mut impressions = Impressions::new(1000, None);
        impressions.encode(7, None, &mut key, &mut first);
        impressions.encode(8, None, &mut key, &mut again);
        assert_ne!(first, again);
        impressions.encode(7, None, &mut key, &mut again);
        assert_eq!(first, again);
        let message = AdImpression::decode(first.as_slice()).unwrap();
        assert_eq!(message.ad_id.as_bytes(), key);
        assert!(message.impressed_at.unwrap().seconds >= FIRST_SECOND);
        let now = DateTime::from_timestamp(5, 7_000).unwrap();
        impressions.encode(7, Some(now), &mut key, &mut again);
        let stamped = AdImpression::decode(again.as_slice()).unwrap();
        assert_eq!(stamped.impressed_at, Some(Timestamp { seconds: 5, nanos: 7_000 }));
        assert_eq!(stamped.user_id, message.user_id);
    }

    #[test]
    fn records_have_about_the_size_that_is_asked_for() {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        for bytes in [50, 100, 500, 50_000] {
            let mut impressions = Impressions::new(100, Some(bytes));
            for number in 0..100 {
                impressions.encode(number, None, &mut key, &mut value);
                assert!((bytes / 2..=bytes + bytes / 10).contains(&value.len()), "{bytes}: {}", value.len());
                let message = AdImpression::decode(value.as_slice()).unwrap();
                assert!(message.ad_id.as_bytes() == key && message.impressed_at.is_some() && message.bid >= 0.0);
            }
        }
    }

    #[test]
    fn the_average_size_is_that_of_the_reference_job() {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let mut impressions = Impressions::new(10_000, None);
        let bytes: usize = (0..10_000)
            .map(|n| {
                impressions.encode(n, None, &mut key, &mut value);
                value.len()
            })
            .sum();
        assert!((120..130).contains(&(bytes / 10_000)), "{}", bytes / 10_000);
    }
}
