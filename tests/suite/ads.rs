//! Ad impressions for tests, as `proto/ads/v1/ads.proto` has them.

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub struct AdImpression {
    #[prost(string, tag = "1")]
    pub ad_id: String,
    #[prost(string, tag = "2")]
    pub context_id: String,
    #[prost(string, tag = "3")]
    pub user_id: String,
    #[prost(string, tag = "4")]
    pub session_id: String,
    #[prost(message, optional, tag = "5")]
    pub impressed_at: Option<Timestamp>,
    #[prost(message, optional, tag = "6")]
    pub placement: Option<Placement>,
    #[prost(string, repeated, tag = "7")]
    pub labels: Vec<String>,
    #[prost(double, tag = "8")]
    pub bid: f64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Timestamp {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Placement {
    #[prost(string, tag = "1")]
    pub page: String,
    #[prost(int32, tag = "2")]
    pub slot: i32,
}

/// 2026-11-20T00:00:00Z.
const DAY: i64 = 1_795_132_800;

/// Impression `n`: ad `n` modulo 12,000, of which the lookup knows the first 10,000; one a second.
pub fn impression(n: u64) -> AdImpression {
    AdImpression {
        ad_id: format!("ad-{:05}", n % 12_000),
        context_id: format!("ctx-{n}"),
        user_id: format!("user-{}", n % 100),
        session_id: format!("session-{n}"),
        impressed_at: Some(Timestamp { seconds: DAY + n as i64, nanos: 0 }),
        placement: (!n.is_multiple_of(3)).then(|| Placement { page: format!("/p/{n}"), slot: (n % 7) as i32 }),
        labels: (0..n % 3).map(|i| format!("label-{i}")).collect(),
        bid: n as f64 / 8.0,
    }
}

/// Impressions `range`, encoded.
pub fn impressions(range: std::ops::Range<u64>) -> Vec<Vec<u8>> {
    range.map(|n| impression(n).encode_to_vec()).collect()
}
