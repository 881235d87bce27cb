//! Alerts: what somebody has to look at, as one JSON line on stderr and, with a `flumen.alert_url`, as a POST. Neither
//! ever holds up or breaks the pipeline: a service that is away loses alerts, and is told of once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use url::Url;

use crate::clock::{Clock, Stopwatch};
use crate::error::{Alarm, Error};
use crate::observe::Observer;
use crate::storage;

/// The same alert of the same query is told once in so long; what comes in between is counted.
const EVERY: Duration = Duration::from_secs(60);
/// The alerts that wait to be posted at most; later ones are left out.
const WAITING: usize = 64;
/// The time limit of a POST.
const POST_LIMIT: Duration = Duration::from_secs(5);
/// How long the end of a run waits for what is not posted yet.
const LAST_WAIT: Duration = Duration::from_secs(6);

/// Raises the alerts of one run. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Alerts {
    shared: Arc<Shared>,
    /// Whether it is an alert that another instance has moved on.
    tells_fences: bool,
}

struct Shared {
    pipeline: String,
    clock: Arc<dyn Clock>,
    observer: Arc<dyn Observer>,
    told: Mutex<HashMap<(Alarm, String), Told>>,
    post: Mutex<Option<Post>>,
}

/// When an alert was told last, and how much of it has come since.
struct Told {
    since: Stopwatch,
    count: u64,
    message: String,
}

/// The task that posts, and its queue.
struct Post {
    lines: mpsc::Sender<String>,
    task: JoinHandle<()>,
}

/// An alert as it is printed and posted.
#[derive(Serialize)]
struct Line<'a> {
    alert: &'static str,
    pipeline: &'a str,
    query: &'a str,
    time: String,
    /// How often it happened, or how many rows it is about, since it was told last.
    count: u64,
    message: &'a str,
}

impl Alerts {
    /// Alerts of `pipeline`, posted to `url` too.
    pub(crate) fn new(pipeline: &str, url: Option<&Url>, clock: Arc<dyn Clock>, observer: Arc<dyn Observer>) -> Self {
        let post = url.map(|url| {
            let (lines, waiting) = mpsc::channel(WAITING);
            Post { lines, task: tokio::spawn(post(url.clone(), waiting)) }
        });
        let shared =
            Shared { pipeline: pipeline.to_string(), clock, observer, told: Mutex::default(), post: Mutex::new(post) };
        Self { shared: Arc::new(shared), tells_fences: true }
    }

    /// The same, which raises none when another instance has moved on.
    pub(crate) fn without_fences(
        pipeline: &str,
        url: Option<&Url>,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let alerts = Self::new(pipeline, url, clock, observer);
        Self { tells_fences: false, ..alerts }
    }

    /// Raises the alert of an error, if it is one that somebody has to look at.
    pub(crate) fn error(&self, query: &str, error: &Error) {
        let alarm = error.alarm().filter(|alarm| self.tells_fences || *alarm != Alarm::Fenced);
        if let Some(alarm) = alarm {
            self.raise(alarm, query, 1, error.message());
        }
    }

    /// Raises an alert about `count` things; returns at once.
    pub(crate) fn raise(&self, alarm: Alarm, query: &str, count: u64, message: &str) {
        let mut told = self.shared.told.lock();
        let key = (alarm, query.to_string());
        if let Some(last) = told.get_mut(&key)
            && last.since.elapsed() < EVERY
        {
            last.count += count;
            last.message = message.to_string();
            return;
        }
        let kept = told.get(&key).map_or(0, |last| last.count);
        told.insert(key, Told { since: Stopwatch::start(), count: 0, message: String::new() });
        drop(told);
        self.tell(alarm, query, kept + count, message);
    }

    fn tell(&self, alarm: Alarm, query: &str, count: u64, message: &str) {
        let time = self.shared.clock.now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        let line = Line { alert: alarm.as_str(), pipeline: &self.shared.pipeline, query, time, count, message };
        let Ok(line) = serde_json::to_string(&line) else { return };
        self.shared.observer.note(&line);
        if let Some(post) = &*self.shared.post.lock()
            && post.lines.try_send(line).is_err()
        {
            tracing::debug!("an alert is not posted: {WAITING} others wait already");
        }
    }

    /// Tells what has been counted and not told, and waits a little for what is not posted yet.
    pub(crate) async fn finish(&self) {
        let left: Vec<_> = self.shared.told.lock().drain().filter(|(_, told)| told.count > 0).collect();
        for ((alarm, query), told) in left {
            self.tell(alarm, &query, told.count, &told.message);
        }
        let Some(Post { lines, mut task }) = self.shared.post.lock().take() else { return };
        drop(lines);
        if tokio::time::timeout(LAST_WAIT, &mut task).await.is_err() {
            task.abort();
        }
    }
}

/// Posts one line after the other.
async fn post(url: Url, mut lines: mpsc::Receiver<String>) {
    let shown = storage::shown(url.as_str());
    let http = match reqwest::Client::builder().timeout(POST_LIMIT).build() {
        Ok(http) => http,
        Err(error) => return tracing::warn!("alerts cannot be posted to {shown}: {error}"),
    };
    let mut is_told = false;
    while let Some(line) = lines.recv().await {
        let sent = http.post(url.clone()).header("Content-Type", "application/json").body(line).send().await;
        let failed = sent.and_then(reqwest::Response::error_for_status).err();
        if let (Some(error), false) = (&failed, is_told) {
            let status = error.status().map_or_else(|| "no answer".to_string(), |status| status.to_string());
            tracing::warn!("alerts do not reach {shown}: {status}");
        }
        is_told = failed.is_some();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::FixedClock;
    use crate::observe::Progress;

    #[derive(Default)]
    struct Heard(Mutex<Vec<serde_json::Value>>);

    impl Observer for Heard {
        fn progress(&self, _progress: &Progress) {}

        fn note(&self, text: &str) {
            self.0.lock().push(serde_json::from_str(text).unwrap());
        }
    }

    #[tokio::test]
    async fn the_same_alert_is_told_once_and_counted() {
        let heard = Arc::new(Heard::default());
        let clock = Arc::new(FixedClock(chrono::DateTime::UNIX_EPOCH));
        let alerts = Alerts::new("p", None, clock, Arc::clone(&heard) as Arc<dyn Observer>);
        for count in [3, 4, 5] {
            alerts.raise(Alarm::Quarantined, "q", count, &format!("{count} rows"));
        }
        alerts.raise(Alarm::Quarantined, "other", 1, "1 row");
        alerts.error("q", &Error::fenced("gone"));
        alerts.error("q", &Error::unavailable("away"));
        alerts.finish().await;
        let told = heard.0.lock().clone();
        let short = |line: &serde_json::Value| {
            format!("{} {} {} {}", line["alert"], line["query"], line["count"], line["message"]).replace('"', "")
        };
        assert_eq!(
            told.iter().map(short).collect::<Vec<_>>(),
            ["quarantined q 3 3 rows", "quarantined other 1 1 row", "fenced q 1 gone", "quarantined q 9 5 rows"]
        );
        assert_eq!((&told[0]["pipeline"], &told[0]["time"]), (&"p".into(), &"1970-01-01T00:00:00.000Z".into()));
    }
}
