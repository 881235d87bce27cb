//! What a client may ask for, and how often.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;

/// The bounds of connections, calls and messages.
#[derive(Debug, Clone)]
pub struct LimitOptions {
    /// Bytes of one message, after it is decompressed. 4 MiB.
    pub message_bytes: usize,
    /// Bytes of the headers of one call. 16 KiB.
    pub header_bytes: u32,
    /// Open connections; one more is closed at once. 10,000.
    pub connections: usize,
    /// Calls at once on one connection. 1,000.
    pub streams: u32,
    /// Bytes that a client may send on one connection before they are looked at. 1 MiB.
    pub window_bytes: u32,
    /// Messages of one stream that are not acknowledged yet; the client is slowed down then. 256.
    pub stream_messages: usize,
    /// Messages a second of one principal, or of one address without authentication. 0, which is no limit. A call
    /// beyond it is `RESOURCE_EXHAUSTED`; a stream beyond it is slowed down.
    pub rate: u32,
    /// Messages that a principal who was silent may send at once, when there is a `rate`. 0, which is as many as in a
    /// second.
    pub burst: u32,
    /// Principals whose rate is kept apart; all others share one. 10,000.
    pub principals: usize,
    /// How long the TLS handshake, the first bytes of a connection and the headers of an HTTP/1.1 request may take.
    /// 10 seconds each.
    pub handshake: Duration,
    /// How long a call of one message may take when the client gives no deadline, or a longer one. 60 seconds.
    pub call: Duration,
    /// After how long without a call a connection is closed. 5 minutes.
    pub idle: Duration,
    /// How often an HTTP/2 client is asked whether it is there. 30 seconds.
    pub keep_alive: Duration,
    /// How long it has to answer. 20 seconds.
    pub keep_alive_answer: Duration,
    /// Calls that a client may have reset before they were looked at, before its connection is closed. 20.
    pub resets: usize,
    /// Calls that the gateway may have reset since the client broke HTTP/2, before its connection is closed. 128.
    pub local_resets: usize,
    /// Calls of one connection that may be cancelled beyond those that ended, before it is closed. 1,000.
    pub cancelled: u64,
    /// How long calls may go on after the gateway was told to end. 30 seconds.
    pub drain: Duration,
}

impl Default for LimitOptions {
    fn default() -> Self {
        Self {
            message_bytes: 4 << 20,
            header_bytes: 16 << 10,
            connections: 10_000,
            streams: 1000,
            window_bytes: 1 << 20,
            stream_messages: 256,
            rate: 0,
            burst: 0,
            principals: 10_000,
            handshake: Duration::from_secs(10),
            call: Duration::from_secs(60),
            idle: Duration::from_secs(300),
            keep_alive: Duration::from_secs(30),
            keep_alive_answer: Duration::from_secs(20),
            resets: 20,
            local_resets: 128,
            cancelled: 1000,
            drain: Duration::from_secs(30),
        }
    }
}

/// The rates of all principals.
#[derive(Debug)]
pub(super) struct Rates {
    rate: f64,
    burst: f64,
    principals: usize,
    buckets: Mutex<HashMap<Arc<str>, Bucket>>,
}

/// What a principal may still send.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: DateTime<Utc>,
}

impl Rates {
    pub(super) fn new(options: &LimitOptions) -> Self {
        let burst = if options.burst == 0 { options.rate } else { options.burst };
        Self {
            rate: f64::from(options.rate),
            burst: f64::from(burst),
            principals: options.principals.max(1),
            buckets: Mutex::default(),
        }
    }

    /// Takes the right to send one message; else when there will be one.
    pub(super) fn take(&self, principal: &Arc<str>, now: DateTime<Utc>) -> Result<(), Duration> {
        if self.rate == 0.0 {
            return Ok(());
        }
        let mut buckets = self.buckets.lock();
        if !buckets.contains_key(principal) && buckets.len() >= self.principals {
            // Those who have not been here for so long that they may send all again need not be known.
            buckets.retain(|_, bucket| self.filled(*bucket, now).tokens < self.burst);
        }
        let is_known = buckets.contains_key(principal) || buckets.len() < self.principals;
        let key = if is_known { Arc::clone(principal) } else { Arc::from("") };
        let bucket = buckets.entry(key).or_insert(Bucket { tokens: self.burst, at: now });
        *bucket = self.filled(*bucket, now);
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - bucket.tokens) / self.rate))
    }

    fn filled(&self, bucket: Bucket, now: DateTime<Utc>) -> Bucket {
        // A clock that goes back fills nothing.
        let passed = (now - bucket.at).to_std().unwrap_or_default().as_secs_f64();
        Bucket { tokens: (bucket.tokens + passed * self.rate).min(self.burst), at: now }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(rate: u32, burst: u32, principals: usize) -> Rates {
        Rates::new(&LimitOptions { rate, burst, principals, ..LimitOptions::default() })
    }

    fn at(millis: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(millis).unwrap()
    }

    #[test]
    fn each_principal_has_its_own_rate() {
        let rates = rates(10, 2, 10);
        let (a, b) = (Arc::from("a"), Arc::from("b"));
        assert_eq!([rates.take(&a, at(0)), rates.take(&a, at(0))], [Ok(()), Ok(())]);
        assert_eq!(rates.take(&a, at(0)), Err(Duration::from_millis(100)));
        assert_eq!(rates.take(&b, at(0)), Ok(()));
        assert_eq!(rates.take(&a, at(100)), Ok(()));
        assert_eq!(rates.take(&a, at(100)), Err(Duration::from_millis(100)));
        assert_eq!(rates.take(&a, at(0)), Err(Duration::from_millis(100)));
        assert_eq!([rates.take(&a, at(9000)), rates.take(&a, at(9000))], [Ok(()), Ok(())]);
        assert!(rates.take(&a, at(9000)).is_err());
    }

    #[test]
    fn principals_are_bounded() {
        let rates = rates(1, 1, 3);
        for n in 0..1000 {
            let _ = rates.take(&Arc::from(n.to_string()), at(0));
        }
        assert!(rates.buckets.lock().len() <= 4);
        assert!(rates.take(&Arc::from("new"), at(0)).is_err());
        assert!(rates.take(&Arc::from("new"), at(2000)).is_ok());
        assert_eq!(rates.buckets.lock().len(), 1);
    }

    #[test]
    fn no_rate_is_no_limit() {
        let rates = rates(0, 0, 3);
        assert!((0..10_000).all(|_| rates.take(&Arc::from("a"), at(0)).is_ok()));
    }
}
