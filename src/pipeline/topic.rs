//! `STORED AS KAFKA`: the declaration of a topic.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};

use super::fault::Fault;
use super::loader::{Loader, TableStatement};
use super::spec::{DataLoss, KeyFormat, META_COLUMNS, NullValue, OnDecodeError, SCHEMA_ID, SourceSpec, ValueFormat};
use super::suggest;
use super::text::{Place, SourceText};
use super::units;
use crate::offsets::Start;
use crate::schema::{Descriptors, MessageShape, ProtoFault, ProtoFaultKind, Shaping};

/// The options that a topic has now.
const OPTIONS: [&str; 26] = [
    "value.proto",
    "value.message",
    "value.descriptor",
    "proto.include",
    "value.format",
    "value.framing",
    "schema.registry.url",
    "schema.registry.cache",
    "schema.registry.basic.auth.user.info",
    "schema.registry.bearer.auth.token",
    "schema.registry.ssl.ca.location",
    "max_recursion",
    "oneof_case",
    "extensions",
    "unknown_fields",
    "key.format",
    "key.proto",
    "key.message",
    "start",
    "max_rows",
    "on_decode_error",
    "dead_letters",
    "dead_letter_limit",
    "max_record_bytes",
    "on_data_loss",
    "on_null_value",
];
/// When a whole topic has gone bad.
const DEAD_LETTER_LIMIT: f64 = 0.1;
/// No decoder is fed more than this.
const MAX_RECORD_BYTES: u64 = 16_000_000;

/// The options that come later.
const LATER: [&str; 2] = ["watermark.column", "watermark.delay"];

/// The columns that every topic has after its message's fields.
pub fn meta_fields(key: &KeyFormat) -> Vec<Field> {
    let header =
        Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Binary, true)]);
    let headers = DataType::List(Arc::new(Field::new("element", DataType::Struct(header), false)));
    let types = [
        (DataType::Utf8, false),
        (DataType::Int32, false),
        (DataType::Int64, false),
        (DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        (key.data_type(), true),
        (headers, true),
    ];
    let field = |(name, (data_type, nullable)): (&str, (DataType, bool))| Field::new(name, data_type, nullable);
    META_COLUMNS.into_iter().zip(types).map(field).collect()
}

impl Loader<'_> {
    /// Reads a topic's declaration; `None` when something is wrong with it, which is reported.
    pub(super) fn topic(&mut self, mut table: TableStatement<'_>) -> Option<SourceSpec> {
        let before = self.faults.count().0;
        if let Some(column) = table.tree.columns.first() {
            let place = self.source.place(column.name.span).unwrap_or_else(|| table.statement.verb(&self.source));
            let fault = Fault::new(&self.source, &place, "a topic declares no columns");
            self.faults.push(fault.remedy("leave the columns out: they are the fields of the message"));
        }
        let address = self.address(&table);
        let options = &mut table.options;
        let faults = &mut self.faults;
        let on_error = [("dead_letter", OnDecodeError::DeadLetter), ("fail", OnDecodeError::Fail)];
        let on_decode_error = options.take("on_decode_error", faults, |v| units::one_of(v, &on_error));
        let dead_letters = options.text("dead_letters").and_then(|(location, _)| location);
        let dead_letter_limit = options.take("dead_letter_limit", faults, units::share);
        let max_record_bytes = options.take("max_record_bytes", faults, units::bytes);
        let losses = [("fail", DataLoss::Fail), ("skip", DataLoss::Skip)];
        let on_data_loss = options.take("on_data_loss", faults, |v| units::one_of(v, &losses));
        let on_null = [("skip", NullValue::Skip), ("row", NullValue::Row)];
        let on_null_value = options.take("on_null_value", faults, |v| units::one_of(v, &on_null));
        let start = options.take("start", faults, units::start);
        let max_rows = options.take("max_rows", faults, units::count);
        options.refuse_later(&LATER, faults);
        let kafka = self.kafka_properties(&mut table);
        let include = table.options.text("proto.include").and_then(|(value, _)| value);
        let format = self.value_format(&mut table, include.as_deref());
        let registry = self.registry(&mut table);
        let key = self.key_format(&mut table, include.as_deref());
        table.options.finish("a topic", &OPTIONS, &mut self.faults);
        let (brokers, topic) = address?;
        let (format, key) = (format?, key?);
        let on_null_value = on_null_value.unwrap_or(NullValue::Skip);
        let mut schema = self.topic_schema(&format, &key, on_null_value, &table.options_place)?;
        if registry.is_some() {
            if matches!(format, ValueFormat::Raw) {
                let fault = Fault::new(&self.source, &table.options_place, "a raw topic has no `value.framing`");
                self.faults.push(fault.remedy("leave it out: the column `value` holds the header too"));
            }
            let fields =
                schema.fields().iter().cloned().chain([Arc::new(Field::new(SCHEMA_ID, DataType::Int32, true))]);
            schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        }
        (self.faults.count().0 == before).then_some(SourceSpec {
            name: table.name,
            brokers,
            topic,
            format,
            registry,
            key,
            start: start.unwrap_or(Start::Earliest),
            max_rows,
            on_data_loss: on_data_loss.unwrap_or(DataLoss::Fail),
            on_null_value,
            on_decode_error: on_decode_error.unwrap_or(OnDecodeError::DeadLetter),
            dead_letters: dead_letters.map(|location| self.locate(&location)),
            dead_letter_limit: dead_letter_limit.unwrap_or(DEAD_LETTER_LIMIT),
            max_record_bytes: max_record_bytes.unwrap_or(MAX_RECORD_BYTES),
            kafka,
            schema,
        })
    }

    /// `kafka://HOST:PORT[,HOST:PORT]/TOPIC` in its two parts.
    fn address(&mut self, table: &TableStatement<'_>) -> Option<(String, String)> {
        let location = table.location.as_ref()?;
        let parts = location.strip_prefix("kafka://").and_then(|rest| rest.split_once('/'));
        let host =
            |h: &str| h.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        let place = &table.location_place;
        let wrong = match parts {
            None => "the location of a topic is not `kafka://HOST:PORT/TOPIC`".to_string(),
            Some((brokers, _)) if !brokers.split(',').all(host) => "a broker in the location is not `HOST:PORT`".into(),
            Some((_, topic)) if !is_topic(topic) => "the location names no topic after the brokers".into(),
            Some((brokers, topic)) => return Some((brokers.to_string(), topic.to_string())),
        };
        let remedy = "write LOCATION 'kafka://HOST:PORT[,HOST:PORT]/TOPIC'";
        self.faults.push(Fault::new(&self.source, place, wrong).remedy(remedy));
        None
    }

    fn kafka_properties(&mut self, table: &mut TableStatement<'_>) -> BTreeMap<String, String> {
        let mut properties = BTreeMap::new();
        for (key, value, place, _) in table.options.with_prefix("kafka.") {
            match self.facts.check_kafka_property(&key, &value) {
                // A file, but for the word that has librdkafka look for one.
                Ok(()) if key.ends_with(".location") && !value.is_empty() && value != "probe" => {
                    properties.insert(key, self.environment.resolve(&value).to_string_lossy().into_owned());
                }
                Ok(()) => {
                    properties.insert(key, value);
                }
                Err(why) => {
                    let (what, remedy) = why
                        .split_once(": did you mean ")
                        .map_or((why.as_str(), None), |(what, near)| (what, Some(format!("did you mean {near}"))));
                    let fault = Fault::new(&self.source, &place, format!("option `kafka.{key}`: {what}"));
                    self.faults.push(fault.remedy(remedy.unwrap_or_else(|| "leave it out".into())));
                }
            }
        }
        properties
    }

    fn value_format(&mut self, table: &mut TableStatement<'_>, include: Option<&str>) -> Option<ValueFormat> {
        let formats = [("protobuf", false), ("raw", true)];
        let recursion = table.options.take("max_recursion", &mut self.faults, units::number);
        let yes_or_no = [("true", true), ("false", false)];
        let case = table.options.take("oneof_case", &mut self.faults, |v| units::one_of(v, &yes_or_no));
        let kept = [("drop", false), ("keep", true)];
        let [extensions, unknown_fields] = ["extensions", "unknown_fields"]
            .map(|key| table.options.take(key, &mut self.faults, |v| units::one_of(v, &kept)).unwrap_or(false));
        let raw = table.options.take("value.format", &mut self.faults, |v| units::one_of(v, &formats));
        let [proto, set, message] =
            ["value.proto", "value.descriptor", "value.message"].map(|key| table.options.text(key));
        if raw == Some(true) {
            for (key, given) in [("value.proto", &proto), ("value.descriptor", &set), ("value.message", &message)] {
                if let Some((_, place)) = given {
                    let fault = Fault::new(&self.source, place, format!("a raw topic has no `{key}`"));
                    self.faults.push(fault.remedy("leave it out, or leave out 'value.format' 'raw'"));
                }
            }
            return Some(ValueFormat::Raw);
        }
        if proto.is_none() && set.is_none() || message.is_none() {
            let missing = if message.is_none() { "value.message" } else { "value.proto" };
            let fault = Fault::new(&self.source, &table.options_place, format!("the topic has no option `{missing}`"));
            let remedy = "write OPTIONS ('value.proto' 'FILE.proto', 'value.message' 'package.Message'), or \
                          'value.format' 'raw'";
            self.faults.push(fault.remedy(remedy));
        }
        let descriptors = match (proto, set) {
            (Some(_), Some((_, place))) => {
                let fault = Fault::new(&self.source, &place, "the topic has both `value.proto` and `value.descriptor`");
                self.faults.push(fault.remedy("keep one of them"));
                return None;
            }
            (Some((file, place)), None) => self.compile(&file?, include, &place)?,
            (None, Some((file, place))) => self.descriptor_set(&file?, &place)?,
            (None, None) => return None,
        };
        let (name, place) = message?;
        let name = name?;
        let Some(message) = descriptors.message(&name) else {
            let names = descriptors.message_names();
            let own = names.iter().map(String::as_str).filter(|n| !n.starts_with("google.protobuf."));
            let mut fault = Fault::new(&self.source, &place, format!("message `{name}` is not in the proto files"));
            if let Some(remedy) = suggest::did_you_mean(&name, own) {
                fault = fault.remedy(remedy);
            }
            self.faults.push(fault);
            return None;
        };
        let max_recursion = usize::try_from(recursion.unwrap_or(0)).unwrap_or(usize::MAX);
        let oneof_case = case.unwrap_or(false);
        let shaping = Shaping { max_recursion, oneof_case, extensions, unknown_fields };
        match MessageShape::with(&message, shaping) {
            Ok(shape) => Some(ValueFormat::Protobuf { descriptors, message, shape: Arc::new(shape), shaping }),
            Err(error) => {
                let fault = Fault::new(&self.source, &place, error.message());
                self.faults.push(fault.remedy("change the message, or read it with 'value.format' 'raw'"));
                None
            }
        }
    }

    fn key_format(&mut self, table: &mut TableStatement<'_>, include: Option<&str>) -> Option<KeyFormat> {
        let words = [("bytes", 0), ("string", 1), ("protobuf", 2)];
        let format = table.options.take("key.format", &mut self.faults, |v| units::one_of(v, &words)).unwrap_or(0);
        let (proto, message) = (table.options.text("key.proto"), table.options.text("key.message"));
        let (proto, message) = match (format, proto, message) {
            (0, None, None) => return Some(KeyFormat::Bytes),
            (1, None, None) => return Some(KeyFormat::Text),
            (2, Some(proto), Some(message)) => (proto, message),
            (2, _, _) => {
                let wrong = "the key has no `key.proto` or no `key.message`";
                let fault = Fault::new(&self.source, &table.options_place, wrong);
                self.faults.push(fault.remedy("write 'key.proto' 'FILE.proto', 'key.message' 'package.Message'"));
                return None;
            }
            (_, proto, message) => {
                let (_, place) = proto.or(message)?;
                let fault = Fault::new(&self.source, &place, "only a protobuf key has a message");
                self.faults.push(fault.remedy("write 'key.format' 'protobuf', or leave it out"));
                return None;
            }
        };
        let descriptors = self.compile(&proto.0?, include, &proto.1)?;
        let name = message.0?;
        let shape = descriptors.message(&name).map(|message| MessageShape::of(&message));
        let why = match shape {
            Some(Ok(shape)) => return Some(KeyFormat::Message(Arc::new(shape))),
            Some(Err(error)) => error.message().to_string(),
            None => format!("message `{name}` is not in the proto files"),
        };
        let names = descriptors.message_names();
        let remedy = suggest::did_you_mean(&name, names.iter().map(String::as_str));
        let fault = Fault::new(&self.source, &message.1, why);
        self.faults.push(fault.remedy(remedy.unwrap_or_else(|| "name another message".into())));
        None
    }

    /// Compiles a `.proto` file; the same file with the same include roots only once.
    pub(super) fn compile(&mut self, file: &str, include: Option<&str>, place: &Place) -> Option<Arc<Descriptors>> {
        let path = self.environment.resolve(file);
        let mut includes: Vec<PathBuf> = include
            .unwrap_or("proto")
            .split(',')
            .map(|part| self.environment.resolve(part.trim()))
            .filter(|dir| include.is_some() || dir.is_dir())
            .collect();
        if !includes.iter().any(|dir| path.starts_with(dir)) {
            includes.extend(path.parent().map(Path::to_path_buf));
        }
        let key = (path.clone(), includes.clone());
        if let Some(known) = self.compiled.get(&key) {
            return known.clone();
        }
        let compiled = Descriptors::compile(std::slice::from_ref(&path), &includes).map(Arc::new);
        let compiled = compiled.map_err(|fault| self.proto_fault(file, place, fault)).ok();
        self.compiled.insert(key, compiled.clone());
        compiled
    }

    fn descriptor_set(&mut self, file: &str, place: &Place) -> Option<Arc<Descriptors>> {
        let path = self.environment.resolve(file);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) => {
                let message = format!("descriptor set `{file}` cannot be read: {error}");
                let remedy = format!("relative paths are relative to {}", self.environment.root.display());
                self.faults.push(Fault::new(&self.source, place, message).remedy(remedy));
                return None;
            }
        };
        Descriptors::from_set(&bytes).map(Arc::new).map_err(|fault| self.proto_fault(file, place, fault)).ok()
    }

    /// A fault of a `.proto` file: at its own line where it has one, else where the pipeline names the file.
    fn proto_fault(&mut self, file: &str, place: &Place, fault: ProtoFault) {
        let (line, _) = self.source.position(place.start);
        let named = format!("{}:{line}", self.source.file().display());
        let root = self.environment.root.display();
        let (message, remedy) = match fault.kind {
            ProtoFaultKind::FileNotFound => {
                (format!("proto file `{file}` does not exist"), format!("relative paths are relative to {root}"))
            }
            ProtoFaultKind::ImportNotFound => (
                fault.message,
                format!("add the directory that it is relative to: 'proto.include' 'proto,other' ({named})"),
            ),
            ProtoFaultKind::Syntax | ProtoFaultKind::Invalid => {
                (format!("proto: {}", fault.message), format!("mend the proto file; {named} names it"))
            }
            ProtoFaultKind::Editions => (
                format!("proto: {}", fault.message),
                "write edition = \"2023\", or syntax = \"proto3\" or \"proto2\"".into(),
            ),
        };
        let own = fault.file.zip(fault.line).and_then(|(path, line)| {
            let text = std::fs::read_to_string(&path).ok()?;
            let shown = path.strip_prefix(&self.environment.root).unwrap_or(&path);
            let source = SourceText::new(shown, &text);
            let at = source.byte(line, fault.column.unwrap_or(1));
            let rest = &text[at..];
            let first = rest.chars().next().map_or(1, char::len_utf8);
            let word =
                rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '.').unwrap_or(rest.len()).max(first);
            Some(Fault::new(&source, &(at..at + word), message.clone()))
        });
        let fault = own.unwrap_or_else(|| Fault::new(&self.source, place, message));
        self.faults.push(fault.remedy(remedy));
    }

    fn topic_schema(
        &mut self,
        format: &ValueFormat,
        key: &KeyFormat,
        on_null_value: NullValue,
        place: &Place,
    ) -> Option<SchemaRef> {
        let value: Vec<Arc<Field>> = match format {
            ValueFormat::Raw => vec![Arc::new(Field::new("value", DataType::Binary, true))],
            ValueFormat::Protobuf { shape, .. } => {
                // A tombstone that becomes a row has no value at all, whatever the message says of its fields.
                shape.columns_within(on_null_value == NullValue::Row).iter().cloned().collect()
            }
        };
        let is_ours = |name: &str| META_COLUMNS.contains(&name) || name == SCHEMA_ID;
        if let Some(taken) = value.iter().find(|field| is_ours(field.name())) {
            let message =
                format!("the message has a field `{}`, and every topic has a column of that name", taken.name());
            let fault = Fault::new(&self.source, place, message);
            self.faults.push(fault.remedy("rename the field, or read it with 'value.format' 'raw'"));
            return None;
        }
        let fields: Vec<_> = value.into_iter().chain(meta_fields(key).into_iter().map(Arc::new)).collect();
        Some(Arc::new(Schema::new(fields)))
    }
}

/// Whether Kafka takes `name` as a topic's.
fn is_topic(name: &str) -> bool {
    super::names::is_plain(name) && name.len() <= 249 && name != "." && name != ".."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_have_kafkas_names() {
        assert!(is_topic("ad-impressions") && is_topic("a.b_c") && is_topic(&"x".repeat(249)));
        assert!(!is_topic("") && !is_topic("a/b") && !is_topic("..") && !is_topic(&"x".repeat(250)));
    }

    #[test]
    fn meta_columns_are_those_of_the_contract() {
        let fields = meta_fields(&KeyFormat::Bytes);
        let names: Vec<_> = fields.iter().map(|f| f.name().as_str()).collect();
        assert_eq!(names, META_COLUMNS);
        assert!(!fields[2].is_nullable() && fields[3].is_nullable());
    }
}
