//! What the gateway counts.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use tonic::Code;

/// The upper bounds of the publish latency's buckets, in seconds.
const BUCKETS: [f64; 12] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

/// The gRPC codes, 0 to 16.
const CODES: usize = 17;

/// What is counted, since the gateway started. Each number only grows, but for those that say how many there are now.
#[derive(Debug)]
pub struct Metrics {
    methods: Vec<MethodCounts>,
    latency: [AtomicU64; BUCKETS.len() + 1],
    latency_micros: AtomicU64,
    pub(super) calls: AtomicI64,
    pub(super) connections: AtomicI64,
    pub(super) refused_connections: AtomicU64,
    pub(super) failed_handshakes: AtomicU64,
    pub(super) abused_connections: AtomicU64,
    pub(super) published: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) repeated: AtomicU64,
    pub(super) queue: AtomicU64,
}

/// The calls of one method, by code.
#[derive(Debug)]
struct MethodCounts {
    path: Arc<str>,
    codes: [AtomicU64; CODES],
}

impl Metrics {
    /// Counters for these methods; the last one counts all others.
    pub(super) fn new(paths: impl Iterator<Item = Arc<str>>) -> Self {
        let counts = |path| MethodCounts { path, codes: std::array::from_fn(|_| AtomicU64::new(0)) };
        Self {
            methods: paths.chain([Arc::from("other")]).map(counts).collect(),
            latency: std::array::from_fn(|_| AtomicU64::new(0)),
            latency_micros: AtomicU64::new(0),
            calls: AtomicI64::new(0),
            connections: AtomicI64::new(0),
            refused_connections: AtomicU64::new(0),
            failed_handshakes: AtomicU64::new(0),
            abused_connections: AtomicU64::new(0),
            published: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            queue: AtomicU64::new(0),
        }
    }

    /// A call of that method has ended so. None: of a method that is not known.
    pub(super) fn ended(&self, method: Option<usize>, code: Code) {
        let method = method.and_then(|index| self.methods.get(index)).or(self.methods.last());
        if let Some(count) = method.and_then(|method| method.codes.get(code as usize)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A record was acknowledged after that time.
    pub(super) fn acknowledged(&self, after: Duration) {
        let seconds = after.as_secs_f64();
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS.len());
        if let Some(bucket) = self.latency.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        let micros = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        self.latency_micros.fetch_add(micros, Ordering::Relaxed);
        self.published.fetch_add(1, Ordering::Relaxed);
    }

    /// How many calls of a method have ended so.
    pub fn calls_ended(&self, path: &str, code: Code) -> u64 {
        let method = self.methods.iter().find(|method| &*method.path == path);
        method.and_then(|method| method.codes.get(code as usize)).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// How many records are published.
    pub fn records_published(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }

    /// How many calls are open now.
    pub fn open_calls(&self) -> i64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// How many connections are open now.
    pub fn open_connections(&self) -> i64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// How many connections were closed since their calls were cancelled too often.
    pub fn connections_abused(&self) -> u64 {
        self.abused_connections.load(Ordering::Relaxed)
    }

    /// How many connections were closed at once, since there were too many.
    pub fn connections_refused(&self) -> u64 {
        self.refused_connections.load(Ordering::Relaxed)
    }

    /// How many connections were closed before they were secured.
    pub fn handshakes_failed(&self) -> u64 {
        self.failed_handshakes.load(Ordering::Relaxed)
    }

    /// All numbers in the text format of Prometheus.
    pub fn to_prometheus(&self) -> String {
        let mut text = String::from("# TYPE flumen_gateway_calls_total counter\n");
        for method in &self.methods {
            for (code, count) in method.codes.iter().enumerate() {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    let _ = writeln!(
                        text,
                        "flumen_gateway_calls_total{{method=\"{}\",code=\"{code}\"}} {count}",
                        method.path
                    );
                }
            }
        }
        text.push_str("# TYPE flumen_gateway_publish_seconds histogram\n");
        let mut sum = 0;
        for (bucket, bound) in self.latency.iter().zip(BUCKETS.iter().map(Some).chain([None])) {
            sum += bucket.load(Ordering::Relaxed);
            let bound = bound.map_or_else(|| "+Inf".to_owned(), f64::to_string);
            let _ = writeln!(text, "flumen_gateway_publish_seconds_bucket{{le=\"{bound}\"}} {sum}");
        }
        let seconds = Duration::from_micros(self.latency_micros.load(Ordering::Relaxed)).as_secs_f64();
        let _ = writeln!(text, "flumen_gateway_publish_seconds_sum {seconds}");
        let _ = writeln!(text, "flumen_gateway_publish_seconds_count {sum}");
        let counter =
            |name: &str, value: u64| format!("# TYPE flumen_gateway_{name} counter\nflumen_gateway_{name} {value}\n");
        let gauge =
            |name: &str, value: i64| format!("# TYPE flumen_gateway_{name} gauge\nflumen_gateway_{name} {value}\n");
        text.push_str(&counter("records_published_total", self.published.load(Ordering::Relaxed)));
        text.push_str(&counter("records_refused_total", self.refused.load(Ordering::Relaxed)));
        text.push_str(&counter("records_repeated_total", self.repeated.load(Ordering::Relaxed)));
        text.push_str(&counter("connections_refused_total", self.refused_connections.load(Ordering::Relaxed)));
        text.push_str(&counter("connections_abused_total", self.abused_connections.load(Ordering::Relaxed)));
        text.push_str(&counter("handshakes_failed_total", self.failed_handshakes.load(Ordering::Relaxed)));
        text.push_str(&gauge("queue_records", self.queue.load(Ordering::Relaxed) as i64));
        text.push_str(&gauge("calls", self.open_calls()));
        text.push_str(&gauge("connections", self.open_connections()));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_as_prometheus_reads_them() {
        let metrics = Metrics::new([Arc::from("/s.S/A")].into_iter());
        metrics.ended(Some(0), Code::Ok);
        metrics.ended(None, Code::Unimplemented);
        metrics.acknowledged(Duration::from_millis(3));
        metrics.acknowledged(Duration::from_secs(100));
        let text = metrics.to_prometheus();
        for line in [
            "flumen_gateway_calls_total{method=\"/s.S/A\",code=\"0\"} 1",
            "flumen_gateway_calls_total{method=\"other\",code=\"12\"} 1",
            "flumen_gateway_publish_seconds_bucket{le=\"0.002\"} 0",
            "flumen_gateway_publish_seconds_bucket{le=\"0.005\"} 1",
            "flumen_gateway_publish_seconds_bucket{le=\"+Inf\"} 2",
            "flumen_gateway_publish_seconds_sum 100.003",
            "flumen_gateway_records_published_total 2",
            "flumen_gateway_queue_records 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        assert_eq!(metrics.calls_ended("/s.S/A", Code::Ok), 1);
    }
}
