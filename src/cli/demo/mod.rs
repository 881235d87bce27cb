//! `flumen demo`: the whole architecture on one machine with nothing installed.

mod calls;
mod client;
mod cluster;
mod impressions;
mod publish;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use include_dir::{Dir, include_dir};
use tokio::sync::watch;

use super::output::{Printer, print_line};
use super::{Format, Globals, Inputs, gateway, load, run, table};
use crate::clock::Stopwatch;
use crate::engine::{self, QuerySession, RunOptions, SessionParts};
use crate::error::{Error, Result};
use crate::observe::{Observer, Progress, grouped};
use crate::pipeline::Pipeline;
use calls::Calls;
use impressions::Impressions;
use publish::{Pace, Publisher, Records};

static PROTO: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/proto");
static QUERIES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/queries");

const TOPIC: &str = "ad-impressions";
const PARTITIONS: i32 = 2;
const FILE: &str = "queries/score_impressions.sql";
const SINK: &str = "scored_impressions";
const MESSAGES: &str = "proto/ads/v1/ads.proto";
/// The scores that the client shows, where there are so many.
const SCORES: usize = 3;

const CALLS: &str = "call-summaries";

/// What is made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Made {
    /// Ad impressions, over two days
    Impressions,
    /// Call summaries of 2026-11-22 in New York, one of five about a call that was told of before
    Calls,
}

/// `flumen demo`.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Ad impressions to publish
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    records: u64,
    /// Where the files and tables of the demo go; when it exists, a fresh one beside it
    #[arg(long, value_name = "DIR", default_value = "flumen-demo")]
    dir: PathBuf,
    /// Only publish the ad impressions, to these brokers, so that a real Kafka has something to read; makes the topic
    #[arg(long, value_name = "HOST:PORT")]
    publish_to: Option<String>,
    /// Whose records are published, for --publish-to
    #[arg(long, value_name = "JOB", value_enum, default_value_t = Made::Impressions, requires = "publish_to")]
    job: Made,
    /// The topic for --publish-to; otherwise ad-impressions, or call-summaries
    #[arg(long, value_name = "TOPIC", requires = "publish_to")]
    topic: Option<String>,
    /// Publish so many records a second, each stamped with the time, for --publish-to; otherwise as fast as it goes
    #[arg(long, value_name = "RECORDS", requires = "publish_to", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Make records of about so many bytes, for --publish-to: fields are left out, or labels added
    #[arg(long, value_name = "BYTES", requires = "publish_to", value_parser = clap::value_parser!(u32).range(50..))]
    record_bytes: Option<u32>,
}

impl Demo {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        if let Some(brokers) = &self.publish_to {
            return self.publish(brokers).await;
        }
        let root = fresh_directory(&load::root(globals)?.join(&self.dir))?;
        write_files(&root)?;
        let say = |text: String| {
            if globals.output == Format::Text {
                print_line(&text);
            }
        };
        say(format!("A fresh directory for this demo: {}", root.display()));
        let cluster = cluster::Cluster::start(TOPIC, PARTITIONS)?;
        say(format!(
            "A Kafka broker in this process: {}, topic {TOPIC} with {PARTITIONS} partitions",
            cluster.brokers()
        ));
        let mut environment = load::environment(&root, &Inputs::default());
        environment.variables.insert("KAFKA_BROKERS".into(), cluster.brokers().to_owned());
        environment.settings.push(("flumen.trigger".into(), "0 seconds".into()));
        let pipeline = load::pipeline(&environment, Path::new(FILE)).await?;
        let descriptors = load::descriptors(&environment, &[PathBuf::from(MESSAGES)], &[])?;
        let locate = |table: &str| gateway::located(&environment, table);
        let gateway = client::Gateway::start(cluster.brokers(), descriptors, locate).await?;
        say(format!("A gateway in this process: {}, with the methods of {MESSAGES}", gateway.address));
        say(format!(
            "Sending {} ad impressions through it while {FILE} runs on them, unchanged\n",
            grouped(self.records)
        ));
        let watch = Stopwatch::start();
        let (totals, scores) = self.stream(globals, &pipeline, &gateway).await?;
        let seconds = watch.elapsed().as_secs_f64();
        say(format!(
            "\n{} records read, {} rows written in {seconds:.2} s: {} records/s, each exactly once\n",
            grouped(totals.0),
            grouped(totals.1),
            grouped((totals.0 as f64 / seconds.max(1e-3)) as u64)
        ));
        gateway.end().await?;
        if globals.output == Format::Text {
            print_line("The first scores that came back to the client, by ads.v1.ClickTrackService/Scores:");
            scores.iter().for_each(|score| print_line(&format!("  {score}")));
            print_line("");
            show(&pipeline, &root).await?;
        }
        Ok(())
    }

    async fn publish(&self, brokers: &str) -> Result<()> {
        let watch = Stopwatch::start();
        let (named, what) = match self.job {
            Made::Impressions => (TOPIC, "ad impressions"),
            Made::Calls => (CALLS, "call summaries"),
        };
        let topic = self.topic.as_deref().unwrap_or(named);
        publish::make_topic(brokers, topic, PARTITIONS).await?;
        let made_up: Box<dyn Records> = match self.job {
            Made::Impressions => {
                Box::new(Impressions::new(self.records, self.record_bytes.map(|bytes| bytes as usize)))
            }
            Made::Calls => Box::new(Calls::new(self.records)),
        };
        let pace = self.rate.map_or(Pace::Unbound, Pace::Rate);
        let publisher = Publisher::new(brokers, topic, self.records, made_up, pace)?;
        let counts = tokio::task::spawn_blocking(move || publisher.publish())
            .await
            .map_err(|e| Error::unavailable(format!("the publisher failed: {e}")))??;
        print_line(&format!(
            "{} {what} published to topic {topic} in {:.2} s, {} bytes each on average",
            grouped(counts.records),
            watch.elapsed().as_secs_f64(),
            counts.bytes / counts.records.max(1)
        ));
        Ok(())
    }

    /// Sends impressions and runs at the same time until every record is in the table; records read and rows written,
    /// and the first scores.
    async fn stream(
        &self,
        globals: &Globals,
        pipeline: &Arc<Pipeline>,
        gateway: &client::Gateway,
    ) -> Result<((u64, u64), Vec<String>)> {
        let (sender, mut receiver) = watch::channel((0u64, 0u64));
        let observer = Arc::new(Following { printer: Printer::new(globals.output), done: sender });
        let (stopper, stop) = engine::stopper();
        let deps =
            load::deps(pipeline, Arc::clone(&observer) as Arc<dyn Observer>, Some(pipeline.settings.broker_timeout))?;
        let impressions = Box::new(Impressions::new(self.records, None));
        let all = self.records;
        let scores = tokio::spawn(gateway.client()?.scores(SCORES));
        let publishing = gateway.client()?.publish(all, impressions, receiver.clone());
        let until_all_read = async {
            let acknowledged = publishing.await?;
            debug_assert_eq!(acknowledged, all);
            if receiver.wait_for(|(read, _)| *read >= all).await.is_err() {
                return Err(Error::unavailable("the run ended before every record was read"));
            }
            stopper.stop();
            Ok(())
        };
        let mut running = std::pin::pin!(engine::run(Arc::clone(pipeline), RunOptions::default(), deps, stop));
        let result = tokio::select! {
            // Ended before every record was read: by an error, or by a signal's stop.
            ended = &mut running => ended,
            published = until_all_read => match published {
                Ok(()) => running.await,
                Err(error) => Err(error),
            },
            killed = run::stop_on_signals(stopper.clone()) => killed,
        };
        observer.printer.finish();
        result?;
        let totals = *observer.done.borrow();
        if totals.1 < SCORES as u64 {
            scores.abort();
            return Ok((totals, Vec::new()));
        }
        let scores = scores.await.map_err(|error| Error::unavailable(format!("the client failed: {error}")))??;
        Ok((totals, scores))
    }
}

/// Prints progress and tells the publisher how far the pipeline is.
struct Following {
    printer: Printer,
    done: watch::Sender<(u64, u64)>,
}

impl Observer for Following {
    fn progress(&self, progress: &Progress) {
        self.printer.progress(progress);
        self.done.send_modify(|(read, written)| {
            *read += progress.records.read;
            *written += progress.rows.written;
        });
    }

    fn note(&self, text: &str) {
        self.printer.note(text);
    }
}

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014): a number from a number.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// `dir`, or where that exists, `dir-2`, `dir-3`, …
fn fresh_directory(dir: &Path) -> Result<PathBuf> {
    let name = dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_else(|| "flumen-demo".to_owned());
    for number in 1..=10_000 {
        let candidate = if number == 1 { dir.to_owned() } else { dir.with_file_name(format!("{name}-{number}")) };
        if let Some(parent) = candidate.parent() {
            std::fs::create_dir_all(parent)
                .map_err(|e| Error::invalid(format!("{}: {e}; choose another --dir", parent.display())))?;
        }
        match std::fs::create_dir(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(Error::invalid(format!("{}: {error}; choose another --dir", candidate.display())));
            }
        }
    }
    Err(Error::invalid(format!("{} and 10,000 more exist; choose another --dir", dir.display())))
}

fn write_files(root: &Path) -> Result<()> {
    for (name, dir) in [("proto", &PROTO), ("queries", &QUERIES)] {
        let target = root.join(name);
        std::fs::create_dir_all(&target)
            .and_then(|()| dir.extract(&target))
            .map_err(|e| Error::unavailable(format!("{}: {e}; choose another --dir", target.display())))?;
    }
    Ok(())
}

/// Ten rows of the table, where it lies, and what to try next.
async fn show(pipeline: &Pipeline, root: &Path) -> Result<()> {
    let deps = load::deps(pipeline, Arc::new(crate::observe::Silent), Some(pipeline.settings.broker_timeout))?;
    let parts = SessionParts::everything(pipeline).only(&[SINK.to_owned()].into());
    let session = QuerySession::new(&deps, pipeline, parts).await?;
    let ten = session.context().sql(&format!("SELECT * FROM {SINK} ORDER BY impressed_at, ad_id LIMIT 10")).await?;
    let schema = ten.schema().as_arrow().clone();
    print_line(&table::render(&schema, &ten.collect().await?, 10)?);
    let location = pipeline.sink(SINK).map(|sink| sink.location.clone()).unwrap_or_default();
    let dir = root.display();
    let flumen = std::env::current_exe().map_or_else(|_| "flumen".to_owned(), |path| path.display().to_string());
    print_line(&format!(
        "\nThe Delta table is {location}: any Delta reader opens it.\n\nTry next:\n  \
         {flumen} --root {dir} sql {FILE} \"SELECT category, count(*), avg(score) FROM {SINK} GROUP BY category\"\n  \
         {flumen} --root {dir} check {FILE}\n  \
         {flumen} --root {dir} explain {FILE}\n\
         and on a real Kafka (scripts/kafka start gives you one):\n  \
         {flumen} demo --publish-to 127.0.0.1:9092\n  \
         KAFKA_BROKERS=127.0.0.1:9092 {flumen} run {FILE}"
    ));
    Ok(())
}
