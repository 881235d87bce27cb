//! `flumen record`: a slice of a topic, or lines of JSON, into a recording; and a recording into lines of JSON.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chrono::SecondsFormat;
use clap::Args;
use prost_reflect::MessageDescriptor;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::output::{Meter, print_json, print_line, unless_gone};
use super::run::stop_on_signals;
use super::{Format, Globals, Inputs, load, pair};
use crate::clock::{self, Stopwatch};
use crate::engine;
use crate::error::{Error, Result};
use crate::kafka::KafkaConfig;
use crate::observe::grouped;
use crate::offsets::{PartitionRange, Start};
use crate::pipeline::{Environment, units};
use crate::record::{self, Redaction, Sample, Seen, Slice, Treatment};
use crate::schema::Descriptors;
use crate::source::kafka::KafkaLog;
use crate::source::recording::{About, Journal, Manifest, RecordingLog, RecordingWriter, ValueAbout};
use crate::source::{Log, TopicIdentity};

/// `flumen record`.
#[derive(Debug, Args)]
pub(crate) struct Record {
    /// The brokers of the topic
    #[arg(long, value_name = "HOST:PORT", requires = "topic", required_unless_present_any = ["from_kcat", "recording"])]
    brokers: Option<String>,
    /// The topic
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// A property of the Kafka client, such as security.protocol=SSL; ${env:NAME} and ${file:PATH} are filled in
    #[arg(long = "kafka", value_name = "NAME=VALUE", value_parser = pair)]
    kafka: Vec<(String, String)>,
    /// Where it begins: earliest, latest, an RFC 3339 time, or offsets such as 0:12,1:40
    #[arg(long, value_name = "POSITION", default_value = "earliest", conflicts_with_all = ["from_kcat", "recording"])]
    from: Start,
    /// Where it ends, before the record there; offsets also say which partitions
    #[arg(long, value_name = "POSITION", default_value = "latest", conflicts_with_all = ["from_kcat", "recording"])]
    to: Start,
    /// Offsets at most, shared over the partitions in proportion to what they hold
    #[arg(long, value_name = "N", conflicts_with_all = ["from_kcat", "recording"])]
    limit: Option<u64>,
    /// How long to wait for brokers that are away
    #[arg(long, value_name = "TIME", default_value = "1 minute", value_parser = units::duration)]
    broker_timeout: Duration,
    /// In the place of a topic: lines as `kcat -J` prints them, from this file (-: stdin)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["brokers", "recording"], requires = "topic")]
    from_kcat: Option<PathBuf>,
    /// In the place of a topic: a recording, for --to-kcat
    #[arg(long, value_name = "DIR", conflicts_with_all = ["brokers", "into"], requires = "to_kcat")]
    recording: Option<PathBuf>,
    /// The directory of the recording; one that was interrupted is gone on with
    #[arg(long, value_name = "DIR", required_unless_present = "recording")]
    into: Option<PathBuf>,
    /// Write lines as `kcat -J` prints them to this file (-: stdout)
    #[arg(long, value_name = "FILE", requires = "recording")]
    to_kcat: Option<PathBuf>,
    /// Only a share of the keys, such as 1/100: all records of a key or none
    #[arg(long, value_name = "N/M", conflicts_with = "recording")]
    sample: Option<Sample>,
    /// Hide a field of the message, _key or _headers: null leaves it out, hash tells equal values, fake looks alike
    #[arg(long, value_name = "FIELD=null|hash|fake", conflicts_with = "recording")]
    redact: Vec<String>,
    /// What hashes and fakes depend on besides the value, for recordings that fit together; otherwise drawn by chance
    #[arg(long, value_name = "TEXT", requires = "redact")]
    redact_salt: Option<String>,
    /// Leave values out that cannot be redacted because they are no such message
    #[arg(long, requires = "redact")]
    skip_broken: bool,
    /// The .proto file of the values, kept beside the recording
    #[arg(long, value_name = "FILE", requires = "message", conflicts_with = "descriptor")]
    proto: Option<PathBuf>,
    /// Where imports of it are looked for
    #[arg(long, value_name = "DIR", default_value = "proto")]
    proto_include: Vec<PathBuf>,
    /// A descriptor set in the place of --proto
    #[arg(long, value_name = "FILE", requires = "message")]
    descriptor: Option<PathBuf>,
    /// The full name of the message
    #[arg(long, value_name = "NAME", conflicts_with = "recording")]
    message: Option<String>,
}

/// What was recorded, for `-o json`.
#[derive(Serialize)]
struct Recorded<'a> {
    into: &'a Path,
    seconds: f64,
    /// Values that were left out because they could not be redacted.
    broken: u64,
    #[serde(flatten)]
    manifest: &'a Manifest,
}

/// What the values are.
struct Values {
    descriptors: Descriptors,
    message: MessageDescriptor,
}

impl Record {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        let environment = load::environment(&load::root(globals)?, &Inputs::default());
        if let (Some(recording), Some(to)) = (&self.recording, &self.to_kcat) {
            return export(&resolved(&environment, recording), to, &environment).await;
        }
        let (Some(topic), Some(into)) = (&self.topic, &self.into) else {
            return Err(Error::invalid("say what is recorded and where to: --topic TOPIC --into DIR"));
        };
        let into = resolved(&environment, into);
        let values = self.values(&environment)?;
        let watch = Stopwatch::start();
        let seen = Arc::new(Seen::default());
        let (writer, ranges) = match (&self.from_kcat, &self.brokers) {
            (Some(lines), _) => self.import(&environment, lines, topic, &into, values.as_ref(), &seen)?,
            (None, Some(brokers)) => {
                let kafka = load::filled(&environment, &self.kafka)?;
                let config = KafkaConfig::new(&environment.fill(brokers)?, &kafka)?;
                let log = KafkaLog::open(config, topic, Some(self.broker_timeout))?;
                self.read(globals, &environment, &log, &into, values.as_ref(), &seen).await?
            }
            (None, None) => return Err(Error::invalid("say from where: --brokers HOST:PORT, or --from-kcat FILE")),
        };
        let manifest = self.finish(writer, &ranges, values.as_ref())?;
        let broken = seen.broken.load(Ordering::Relaxed);
        let seconds = watch.elapsed().as_secs_f64();
        match globals.output {
            Format::Json => print_json(&Recorded { into: &into, seconds, broken, manifest: &manifest })?,
            Format::Text => print_line(&told(&manifest, &into, seconds, broken)),
        }
        Ok(())
    }

    /// Reads the topic; ends the process's work with an error when it is stopped.
    async fn read(
        &self,
        globals: &Globals,
        environment: &Environment,
        log: &KafkaLog,
        into: &Path,
        values: Option<&Values>,
        seen: &Arc<Seen>,
    ) -> Result<(RecordingWriter, Vec<PartitionRange>)> {
        let identity = log.identity().await?;
        let salt = self.salt(environment)?;
        let asked = self.asked(values, salt.as_deref());
        let before = Journal::read(into)?.filter(|before| before.asked == asked && before.identity() == identity);
        let journal = match before {
            Some(before) => before,
            None => {
                let slice = Slice { from: self.from.clone(), to: self.to.clone(), limit: self.limit };
                let ranges = slice.resolve(log, &identity.topic).await?;
                // One that is given is given again by whoever goes on: it stays out of the file.
                let drawn = if salt.is_none() { drawn_salt() } else { String::new() };
                Journal { asked, salt: drawn, ..Journal::new(&identity, &ranges) }
            }
        };
        let ranges = journal.ranges();
        let treatment = self.treatment(values, salt.as_deref().unwrap_or(&journal.salt))?;
        let writer = RecordingWriter::begin(into, journal)?;
        let all = ranges.iter().map(|range| range.to.abs_diff(range.from)).sum();
        let meter = Meter::start(globals.output, all, Arc::clone(seen), |seen| {
            (seen.offsets.load(Ordering::Relaxed), seen.records.load(Ordering::Relaxed))
        });
        let (stopper, stop) = engine::stopper();
        let recorded = tokio::select! {
            recorded = record::record(log, &ranges, writer, treatment, Arc::clone(seen), stop) => recorded,
            killed = stop_on_signals(stopper) => killed.map(|()| None),
        };
        meter.finish();
        match recorded? {
            Some(writer) => Ok((writer, ranges)),
            None => Err(Error::unavailable(format!(
                "stopped with {} of {} offsets in {}; the same command goes on",
                grouped(seen.offsets.load(Ordering::Relaxed)),
                grouped(all),
                into.display()
            ))),
        }
    }

    /// Reads lines of JSON.
    fn import(
        &self,
        environment: &Environment,
        lines: &Path,
        topic: &str,
        into: &Path,
        values: Option<&Values>,
        seen: &Seen,
    ) -> Result<(RecordingWriter, Vec<PartitionRange>)> {
        let salt = self.salt(environment)?;
        let treatment = self.treatment(values, &salt.unwrap_or_else(drawn_salt))?;
        let path = resolved(environment, lines);
        let mut input: Box<dyn BufRead> = match lines.to_str() {
            Some("-") => Box::new(io::stdin().lock()),
            _ => {
                let unread = |e| Error::invalid(format!("--from-kcat {}: {e}; name a readable file", path.display()));
                Box::new(BufReader::new(File::open(&path).map_err(unread)?))
            }
        };
        let identity = TopicIdentity { topic: topic.to_owned(), topic_id: String::new(), cluster_id: String::new() };
        // Nobody can go on in the middle of lines: what another try has left goes.
        let asked = BTreeMap::from([("from-kcat".to_owned(), lines.display().to_string())]);
        if let Some(before) = Journal::read(into)?.filter(|before| before.asked.contains_key("from-kcat")) {
            RecordingWriter::begin(into, before)?.discard()?;
        }
        let mut writer = RecordingWriter::begin(into, Journal { asked, ..Journal::new(&identity, &[]) })?;
        let ranges =
            record::import(&mut *input, lines, topic, &mut |batch| writer.write(&treatment.apply(batch, seen)?));
        match ranges {
            Ok(ranges) => Ok((writer, ranges)),
            Err(error) => writer.discard().and(Err(error)),
        }
    }

    fn finish(&self, writer: RecordingWriter, ranges: &[PartitionRange], values: Option<&Values>) -> Result<Manifest> {
        let value = match values {
            None => None,
            Some(Values { descriptors, message }) => {
                let descriptor = format!("{}.binpb", hex::encode(descriptors.sha256()));
                writer.keep(&descriptor, descriptors.encoded())?;
                Some(ValueAbout { message: message.full_name().to_owned(), descriptor })
            }
        };
        let about = About {
            value,
            sample: self.sample.map(|sample| sample.to_string()),
            redacted: self.redact.clone(),
            tool: concat!("flumen ", env!("CARGO_PKG_VERSION")).to_owned(),
            recorded_at: clock::system().now().to_rfc3339_opts(SecondsFormat::Secs, true),
        };
        writer.finish(ranges, about)
    }

    fn values(&self, environment: &Environment) -> Result<Option<Values>> {
        let Some(name) = &self.message else { return Ok(None) };
        let descriptors = match (&self.proto, &self.descriptor) {
            (Some(proto), _) => {
                let includes: Vec<PathBuf> = self.proto_include.iter().map(|dir| resolved(environment, dir)).collect();
                Descriptors::compile(&[resolved(environment, proto)], &includes)
            }
            (None, Some(set)) => {
                let path = resolved(environment, set);
                let unread = |e| Error::invalid(format!("--descriptor {}: {e}; name a readable file", path.display()));
                Descriptors::from_set(&std::fs::read(&path).map_err(unread)?)
            }
            (None, None) => {
                return Err(Error::invalid("say where --message is declared: --proto or --descriptor FILE"));
            }
        };
        let descriptors = descriptors.map_err(|fault| Error::invalid(format!("{fault}; mend it, then record")))?;
        let message = descriptors.message(name).ok_or_else(|| {
            let names = descriptors.message_names();
            let meant = crate::pipeline::did_you_mean(name, names.iter().map(String::as_str)).unwrap_or_default();
            Error::invalid(format!("--message: there is no message `{name}`; {meant}"))
        })?;
        Ok(Some(Values { descriptors, message }))
    }

    /// The salt that is given.
    fn salt(&self, environment: &Environment) -> Result<Option<String>> {
        self.redact_salt.as_ref().map(|salt| environment.fill(salt)).transpose()
    }

    fn treatment(&self, values: Option<&Values>, salt: &str) -> Result<Treatment> {
        let message = values.map(|values| &values.message);
        let redaction = match self.redact.is_empty() {
            true => None,
            false => Some(Redaction::new(&self.redact, message, salt.as_bytes())?),
        };
        Ok(Treatment { sample: self.sample, redaction, skip_broken: self.skip_broken })
    }

    /// What was asked for, word by word: whoever goes on has to ask for the same.
    fn asked(&self, values: Option<&Values>, salt: Option<&str>) -> BTreeMap<String, String> {
        let mut asked = BTreeMap::from([
            ("from".to_owned(), self.from.to_string()),
            ("to".to_owned(), self.to.to_string()),
            ("redact".to_owned(), self.redact.join(" ")),
            ("skip-broken".to_owned(), self.skip_broken.to_string()),
        ]);
        let mut add = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                asked.insert(name.to_owned(), value);
            }
        };
        add("limit", self.limit.map(|limit| limit.to_string()));
        add("sample", self.sample.map(|sample| sample.to_string()));
        add("message", values.map(|values| values.message.full_name().to_owned()));
        add("descriptor", values.map(|values| hex::encode(values.descriptors.sha256())));
        add("redact-salt", salt.map(|salt| hex::encode(&Sha256::digest(salt)[..8])));
        asked
    }
}

fn drawn_salt() -> String {
    clock::system().new_id().to_string()
}

fn resolved(environment: &Environment, path: &Path) -> PathBuf {
    environment.resolve(&path.to_string_lossy())
}

/// Lines for somebody who may go away.
struct Listened<W>(W);

impl<W: Write> Write for Listened<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.write(bytes) {
            Err(error) => unless_gone(Err(error)).map(|()| bytes.len()),
            written => written,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        unless_gone(self.0.flush())
    }
}

async fn export(recording: &Path, to: &Path, environment: &Environment) -> Result<()> {
    let log = RecordingLog::open(recording)?;
    log.verify()?;
    if to.to_str() == Some("-") {
        return record::export(&log, &mut Listened(BufWriter::new(io::stdout()))).await.map(|_| ());
    }
    let path = resolved(environment, to);
    if path.exists() {
        return Err(Error::invalid(format!("--to-kcat {}: it is there already; name another file", path.display())));
    }
    let unwritten = |e| Error::invalid(format!("--to-kcat {}: {e}; name a file that can be made", path.display()));
    let mut aside = path.clone().into_os_string();
    aside.push(".tmp");
    let mut out = BufWriter::new(File::create(&aside).map_err(unwritten)?);
    let records = record::export(&log, &mut out).await?;
    std::fs::rename(&aside, &path).map_err(unwritten)?;
    print_line(&format!("{} records in {}", grouped(records), path.display()));
    Ok(())
}

fn told(manifest: &Manifest, into: &Path, seconds: f64, broken: u64) -> String {
    let left_out = if broken == 0 { String::new() } else { format!(", {} values left out", grouped(broken)) };
    format!(
        "{}: {} records of {} partitions, {} bytes{left_out}, in {seconds:.2} s; sha256 {}; {}",
        manifest.topic,
        grouped(manifest.all.records),
        manifest.partitions.len(),
        grouped(manifest.all.bytes),
        manifest.all.sha256.as_deref().unwrap_or_default(),
        into.display()
    )
}
