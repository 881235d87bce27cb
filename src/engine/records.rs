//! Raw records into rows of a topic's table: the value's fields by the decoder, then the columns that every topic has.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{
    ArrayRef, BinaryArray, BinaryBuilder, Int32Array, Int64Array, ListBuilder, RecordBatch, RecordBatchOptions,
    StringArray, StringBuilder, StructBuilder, TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::{DataType, Fields, SchemaRef};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::record_key::KeyDecoder;
use super::row_filter::{Condition, Filter, check_size};
use super::writer_schemas::WriterSchemas;
use crate::decode::{DecodeFault, Decoder, Oddities, Selection};
use crate::error::{Alarm, Error, Result};
use crate::observe::Records;
use crate::pipeline::{DEAD_LETTERS_FREE, KeyFormat, NullValue, OnDecodeError, SourceSpec, ValueFormat};
use crate::registry::Registry;
use crate::source::{Headers, Payloads, RawBatch, Wanted};

/// Posts of dead letters that wait for their writer at most; each is of one raw batch.
const POSTS: usize = 2;

/// What became of the records of one micro-batch, counted by all the streams that decode it.
#[derive(Debug, Default)]
pub(crate) struct RecordCounts {
    read: AtomicU64,
    decoded: AtomicU64,
    null: AtomicU64,
    dead: AtomicU64,
    bytes: AtomicU64,
    widest: AtomicU64,
    /// Records read, and those of them without a value, partition by partition.
    partitions: Mutex<BTreeMap<i32, (u64, u64)>>,
    /// What was odd and is no fault.
    odd: Mutex<Oddities>,
    /// The first dead letter, for the message when there are too many.
    first: Mutex<Option<String>>,
    limit: Option<DeadLetterLimit>,
    /// Where dead letters go until the micro-batch has been read; without it they are only counted.
    post: Mutex<Option<mpsc::Sender<Letters>>>,
}

/// How large the records of a micro-batch are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// The bytes of keys and values of all of them.
    pub(crate) bytes: u64,
    /// The bytes of a record on average, in the raw batch where they are widest.
    pub(crate) widest: u64,
}

/// How many dead letters are too many: a whole topic has gone bad, or the message is another one.
#[derive(Debug, Clone, Copy)]
struct DeadLetterLimit {
    /// Of the records that are read, 0 to 1.
    share: f64,
    /// Records that the micro-batch reads at most.
    planned: u64,
}

impl RecordCounts {
    /// Counts of a topic's micro-batch of at most `planned` records, of which `share` may be dead, and where its dead
    /// letters arrive.
    pub(crate) fn posting(share: f64, planned: u64) -> (Self, mpsc::Receiver<Letters>) {
        let (post, letters) = mpsc::channel(POSTS);
        let limit = DeadLetterLimit { share, planned };
        (Self { limit: Some(limit), post: Mutex::new(Some(post)), ..Self::default() }, letters)
    }

    /// The counts so far.
    pub(crate) fn totals(&self) -> Records {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Records { read: of(&self.read), decoded: of(&self.decoded), dead: of(&self.dead), null: of(&self.null) }
    }

    /// How large the records are that were read so far.
    pub(crate) fn sizes(&self) -> Sizes {
        Sizes { bytes: self.bytes.load(Ordering::Relaxed), widest: self.widest.load(Ordering::Relaxed) }
    }

    /// Records of a partition that were read, and those of them without a value.
    pub(crate) fn of_partition(&self, partition: i32) -> (u64, u64) {
        self.partitions.lock().get(&partition).copied().unwrap_or_default()
    }

    /// Counts records that were read, of so many bytes.
    pub(crate) fn note(&self, records: u64, bytes: u64) {
        self.read.fetch_add(records, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.widest.fetch_max(bytes / records.max(1), Ordering::Relaxed);
    }

    /// What was odd and is no fault.
    pub(crate) fn oddities(&self) -> Oddities {
        *self.odd.lock()
    }

    /// Hands dead letters to their writer; waits while it is behind.
    ///
    /// # Errors
    /// `Violated` when there are too many already; `Unavailable` when the writer has ended.
    pub(crate) async fn post(&self, topic: &str, letters: Letters) -> Result<()> {
        if let Some(fault) = letters.faults.first() {
            self.first.lock().get_or_insert_with(|| {
                format!("partition {}, offset {}: {fault}", letters.raw.partition, letters.raw.offsets[0])
            });
        }
        if let Some(limit) = self.limit {
            self.check_share(topic, limit.share, limit.planned)?;
        }
        let post = self.post.lock().clone();
        let Some(post) = post else { return Ok(()) };
        post.send(letters).await.map_err(|_| {
            Error::unavailable(format!("topic {topic}: its dead letters can no longer be written; run again"))
        })
    }

    /// Ends the writer of dead letters: everything was read.
    pub(crate) fn close(&self) {
        self.post.lock().take();
    }

    /// Whether the share of dead letters is bearable, now that everything was read.
    ///
    /// # Errors
    /// `Violated`, naming the first one.
    pub(crate) fn check_limit(&self, topic: &str) -> Result<()> {
        match self.limit {
            Some(limit) => self.check_share(topic, limit.share, self.totals().read),
            None => Ok(()),
        }
    }

    /// What a query that keeps no dead letters left out of `topic`; `None` when that is nothing.
    pub(crate) fn left_out(&self, topic: &str) -> Option<String> {
        let Records { read, dead, .. } = self.totals();
        let first = self.first.lock().clone()?;
        Some(format!("topic {topic}: {dead} of {read} records cannot be decoded and are left out; the first: {first}"))
    }

    fn check_share(&self, topic: &str, share: f64, of: u64) -> Result<()> {
        let dead = self.totals().dead;
        if of <= DEAD_LETTERS_FREE || dead as f64 <= share * of as f64 {
            return Ok(());
        }
        let first = self.first.lock().clone().unwrap_or_default();
        Err(Error::violated(format!(
            "topic {topic}: at least {dead} of {of} records of a micro-batch cannot be decoded, and dead_letter_limit \
             is {}%; the first: {first}. Nothing of this micro-batch was committed. Mend the producer, `value.message` \
             or the .proto, or raise `dead_letter_limit`, then run again",
            share * 100.0
        ))
        .alarming(Alarm::LimitPassed))
    }
}

/// Records of one partition that could not be decoded, each with what is wrong with it.
#[derive(Debug)]
pub(crate) struct Letters {
    /// The records, keys and headers too.
    pub(crate) raw: RawBatch,
    /// What is wrong, record by record.
    pub(crate) faults: Vec<DecodeFault>,
}

/// A raw batch, decoded.
pub(crate) struct Decoded {
    /// The rows of the records that could be decoded.
    pub(crate) rows: RecordBatch,
    /// The records that could not.
    pub(crate) letters: Option<Letters>,
}

/// Where a column of the scan comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Column {
    /// Column `n` of what the decoder makes.
    Field(usize),
    /// The record's value as it is.
    Raw,
    Topic,
    Partition,
    Offset,
    Timestamp,
    /// The record's key as it is.
    Key,
    /// The record's key, decoded.
    DecodedKey,
    Headers,
    /// The id of the schema in the record's header.
    SchemaId,
}

/// What a scan of a topic gives.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wish {
    /// Its columns: indices into those of the topic's table.
    pub(crate) projection: Vec<usize>,
    /// Of nested messages, only what this names.
    pub(crate) selection: Selection,
    /// Several scans read the topic: each decodes what any of them wants, so that all find the same dead letters.
    pub(crate) is_shared: bool,
    /// Which rows.
    pub(crate) condition: Option<Condition>,
}

/// Turns raw batches into the projected columns of one topic. It keeps its buffers from batch to batch.
#[derive(Debug)]
pub(crate) struct RecordDecoder {
    topic: String,
    on_null_value: NullValue,
    on_decode_error: OnDecodeError,
    max_record_bytes: usize,
    columns: Vec<Column>,
    schema: SchemaRef,
    decoder: Option<Decoder>,
    filter: Option<Filter>,
    key: Option<KeyDecoder>,
    /// Takes values out of their frames, where they have some.
    writers: Option<WriterSchemas>,
    /// The schemas of the rows so far, where that is wanted.
    schema_ids: Vec<Option<i32>>,
}

impl RecordDecoder {
    /// A decoder for what `wish` names. With `is_shared` it also decodes, and holds records to, the other fields that
    /// the selection names.
    ///
    /// # Errors
    /// `Invalid` when a column has no decoder; the pipeline's check has refused that before.
    pub(crate) fn new(spec: &SourceSpec, wish: &Wish, registry: Option<&Arc<Registry>>) -> Result<Self> {
        let Wish { projection, selection, is_shared, condition } = wish;
        let schema = Arc::new(spec.schema.project(projection).map_err(|e| Error::invalid(e.to_string()))?);
        let (mut fields, mut columns) = (Vec::new(), Vec::new());
        let meta = spec.value_columns();
        for (field, &index) in schema.fields().iter().zip(projection) {
            columns.push(match (index.checked_sub(meta), &spec.format) {
                (None, ValueFormat::Raw) => Column::Raw,
                (None, ValueFormat::Protobuf { .. }) => {
                    fields.push(field.name().as_str());
                    Column::Field(fields.len() - 1)
                }
                (Some(0), _) => Column::Topic,
                (Some(1), _) => Column::Partition,
                (Some(2), _) => Column::Offset,
                (Some(3), _) => Column::Timestamp,
                (Some(4), _) if spec.key == KeyFormat::Bytes => Column::Key,
                (Some(4), _) => Column::DecodedKey,
                (Some(5), _) => Column::Headers,
                (Some(_), _) => Column::SchemaId,
            });
        }
        if *is_shared {
            let others = spec.schema.fields().iter().take(meta).enumerate();
            let others =
                others.filter(|(index, field)| !projection.contains(index) && selection.field(field.name()).is_some());
            fields.extend(others.map(|(_, field)| field.name().as_str()));
        }
        let names = condition.as_ref().map(|condition| condition.names(&spec.schema)).unwrap_or_default();
        let wants_key = columns.contains(&Column::DecodedKey) || (*is_shared && selection.field("_key").is_some());
        let key = if wants_key { KeyDecoder::new(&spec.key)? } else { None };
        // What every scan has to find, or what is only known once the frame is read, is decoded whole.
        let is_first = !is_shared && key.is_none() && registry.is_none();
        if !is_first {
            for name in &names {
                if !fields.contains(name) {
                    fields.push(name);
                }
            }
        }
        let (mut writers, mut filter) = (None, None);
        let nullable = spec.on_null_value == NullValue::Row;
        let decoder = match &spec.format {
            ValueFormat::Raw => None,
            ValueFormat::Protobuf { shape, message, shaping, .. } => {
                if let Some(condition) = condition {
                    let first = is_first.then(|| Decoder::of_shape(shape, &names, selection, nullable));
                    filter = Some(Filter::new(condition, &names, &fields, first.transpose()?));
                }
                let wanted = |name: &&str| (name.to_string(), selection.field(name).cloned().unwrap_or_default());
                let wanted = Selection::Fields(fields.iter().map(wanted).collect());
                let of = |it| WriterSchemas::new(Arc::clone(it), message, *shaping, wanted);
                writers = registry.map(of).transpose()?;
                Some(Decoder::of_shape(shape, &fields, selection, nullable)?)
            }
        };
        Ok(Self {
            topic: spec.topic.clone(),
            on_null_value: spec.on_null_value,
            on_decode_error: spec.on_decode_error,
            max_record_bytes: usize::try_from(spec.max_record_bytes).unwrap_or(usize::MAX),
            columns,
            schema,
            decoder,
            filter,
            key,
            writers,
            schema_ids: Vec::new(),
        })
    }

    /// What the reader has to copy besides values.
    pub(crate) fn wanted(&self) -> Wanted {
        // A dead letter is kept with its key and its headers.
        let decodes = self.decoder.is_some() || self.key.is_some();
        let whole = decodes && self.on_decode_error == OnDecodeError::DeadLetter;
        Wanted {
            key: whole || self.key.is_some() || self.columns.contains(&Column::Key),
            headers: whole || self.columns.contains(&Column::Headers),
        }
    }

    /// The rows of `raw` and its dead letters, counted in `counts`.
    ///
    /// # Errors
    /// With `on_decode_error = 'fail'`, `Violated` for a record that cannot be decoded, naming topic, partition, offset
    /// and field.
    pub(crate) fn decode(&mut self, raw: &RawBatch, counts: &RecordCounts) -> Result<Decoded> {
        let Values { kept, letters } = self.values(raw)?;
        let dead = letters.as_ref().map_or(0, |l| l.faults.len() as u64);
        // A tombstone with a broken key is a dead letter.
        let nulls = raw.values.nulls.len() - letters.as_ref().map_or(0, |l| l.raw.values.nulls.len());
        let nulls = nulls as u64;
        counts.note(raw.len() as u64, raw.bytes() as u64);
        counts.null.fetch_add(nulls, Ordering::Relaxed);
        counts.dead.fetch_add(dead, Ordering::Relaxed);
        counts.decoded.fetch_add(raw.len() as u64 - nulls - dead, Ordering::Relaxed);
        {
            let mut partitions = counts.partitions.lock();
            let (read, null) = partitions.entry(raw.partition).or_default();
            *read += raw.len() as u64;
            *null += nulls;
        }
        let rows = self.rows(raw, kept)?;
        let odd = match (&mut self.decoder, &mut self.filter) {
            (Some(decoder), Some(Filter::First(first))) => first.take_oddities(decoder),
            (Some(decoder), _) => decoder.take_oddities(),
            (None, _) => Oddities::default(),
        };
        if odd != Oddities::default() {
            counts.odd.lock().add(odd);
        }
        Ok(Decoded { rows, letters })
    }

    fn rows(&mut self, raw: &RawBatch, kept: Option<Vec<u32>>) -> Result<RecordBatch> {
        let rows = kept.as_ref().map_or(raw.len(), Vec::len);
        let values = match &mut self.decoder {
            Some(decoder) => Some(decoder.finish()?),
            None => None,
        };
        let keys = match (&mut self.key, &raw.keys) {
            (Some(key), Some(keys)) => Some(key.finish(keys)?),
            _ => None,
        };
        let schema_ids = std::mem::take(&mut self.schema_ids);
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.columns.len());
        for (column, field) in self.columns.iter().zip(self.schema.fields()) {
            let whole: ArrayRef = match column {
                Column::Field(index) => match &values {
                    Some(batch) => {
                        arrays.push(Arc::clone(batch.column(*index)));
                        continue;
                    }
                    None => return Err(Error::invalid("a field of a topic that has no message")),
                },
                Column::DecodedKey => {
                    arrays.push(keys.clone().unwrap_or_else(|| new_null_array(field.data_type(), rows)));
                    continue;
                }
                Column::SchemaId => {
                    arrays.push(Arc::new(Int32Array::from(schema_ids.clone())));
                    continue;
                }
                Column::Raw => Arc::new(binary(&self.topic, &raw.values)?),
                Column::Topic => Arc::new(StringArray::from_iter_values(std::iter::repeat_n(&self.topic, raw.len()))),
                Column::Partition => Arc::new(Int32Array::from_value(raw.partition, raw.len())),
                Column::Offset => Arc::new(Int64Array::from(raw.offsets.clone())),
                Column::Timestamp => Arc::new(timestamps(&raw.timestamps)),
                Column::Key => match &raw.keys {
                    Some(keys) => Arc::new(binary(&self.topic, keys)?),
                    None => Arc::new(BinaryArray::new_null(raw.len())),
                },
                Column::Headers => headers(raw.headers.as_deref().unwrap_or_default(), raw.len(), field.data_type())?,
            };
            arrays.push(match &kept {
                None => whole,
                Some(kept) => {
                    let indices = arrow::array::UInt32Array::from(kept.clone());
                    arrow::compute::take(&whole, &indices, None).map_err(|e| Error::unavailable(e.to_string()))?
                }
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let misfit = |e| Error::unavailable(format!("topic {}: columns do not fit together: {e}", self.topic));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options).map_err(misfit)?;
        match (&self.filter, &values) {
            (Some(Filter::After(condition, columns)), Some(values)) => {
                let mask = condition.mask(&values.project(columns).map_err(misfit)?)?;
                arrow::compute::filter_record_batch(&rows, &mask).map_err(misfit)
            }
            _ => Ok(rows),
        }
    }

    /// Decodes keys and values.
    fn values(&mut self, raw: &RawBatch) -> Result<Values> {
        let skip = self.on_null_value == NullValue::Skip;
        if self.decoder.is_none() && self.key.is_none() {
            return Ok(Values { kept: kept(raw, skip, &[]), letters: None });
        }
        let nulls = &raw.values.nulls;
        let mut dead = Vec::new();
        let mut chosen = None;
        if let Some(Filter::First(first)) = &mut self.filter {
            let passed = first.run(raw, skip, self.max_record_bytes)?;
            dead = passed.dead;
            if let Some((row, fault)) = dead.first().filter(|_| self.on_decode_error == OnDecodeError::Fail) {
                return Err(self.refuse(raw, *row as usize, fault));
            }
            for &row in &passed.rows {
                let is_null = !nulls.is_empty() && nulls.binary_search(&row).is_ok();
                self.keep_or_bury(raw, row, is_null, &mut dead)?;
            }
            chosen = Some(passed.rows);
            dead.sort_unstable_by_key(|(row, _)| *row);
        } else {
            let mut nulls = nulls.iter().copied().peekable();
            for row in 0..raw.len() as u32 {
                let is_null = nulls.next_if_eq(&row).is_some();
                if !(is_null && skip) {
                    self.keep_or_bury(raw, row, is_null, &mut dead)?;
                }
            }
        }
        let (dead, faults): (Vec<u32>, Vec<DecodeFault>) = dead.into_iter().unzip();
        let letters = (!dead.is_empty()).then(|| Letters { raw: raw.only(&dead), faults });
        let kept = match chosen {
            Some(mut rows) => {
                rows.retain(|row| dead.binary_search(row).is_err());
                Some(rows)
            }
            None => kept(raw, skip, &dead),
        };
        Ok(Values { kept, letters })
    }

    /// Decodes one record, or adds it to the dead.
    #[inline]
    fn keep_or_bury(
        &mut self,
        raw: &RawBatch,
        row: u32,
        is_null: bool,
        dead: &mut Vec<(u32, DecodeFault)>,
    ) -> Result<()> {
        let Err(fault) = self.record(raw, row as usize, is_null) else { return Ok(()) };
        if self.on_decode_error == OnDecodeError::Fail {
            return Err(self.refuse(raw, row as usize, &fault));
        }
        dead.push((row, fault));
        Ok(())
    }

    /// Decodes one record, whole or not at all.
    #[inline]
    fn record(&mut self, raw: &RawBatch, row: usize, is_null: bool) -> Result<(), DecodeFault> {
        if let (Some(key), Some(keys)) = (&mut self.key, &raw.keys) {
            key.push(keys, row)?;
        }
        let pushed = self.value(raw.values.value(row), is_null);
        if let (Err(_), Some(key)) = (&pushed, &mut self.key) {
            key.pop();
        }
        pushed
    }

    /// Decodes one value.
    #[inline]
    fn value(&mut self, value: &[u8], is_null: bool) -> Result<(), DecodeFault> {
        let Some(decoder) = &mut self.decoder else { return Ok(()) };
        if is_null {
            decoder.push_null();
            if self.writers.is_some() {
                self.schema_ids.push(None);
            }
            return Ok(());
        }
        check_size(value, self.max_record_bytes)?;
        let Some(writers) = &mut self.writers else { return decoder.push(value) };
        let framed = writers.unframe(value)?;
        decoder
            .push(framed.message)
            .map_err(|fault| DecodeFault { position: framed.position + fault.position, ..fault })?;
        self.schema_ids.push(i32::try_from(framed.schema).ok());
        Ok(())
    }

    /// The error of a record that cannot be decoded and must be.
    #[cold]
    fn refuse(&mut self, raw: &RawBatch, row: usize, fault: &DecodeFault) -> Error {
        // The rows before it must not turn up in the next batch.
        self.schema_ids.clear();
        drop(self.decoder.as_mut().map(Decoder::finish));
        if let (Some(key), Some(keys)) = (&mut self.key, &raw.keys) {
            drop(key.finish(keys));
        }
        Error::violated(format!(
            "topic {}, partition {}, offset {}: the record cannot be decoded: {fault}; nothing of this micro-batch was \
             committed. Mend the producer or the .proto, or set 'on_decode_error' 'dead_letter', then run again",
            self.topic, raw.partition, raw.offsets[row]
        ))
        .alarming(Alarm::ContractBroken)
    }
}

/// What became of a raw batch's values.
struct Values {
    /// The records that become rows; `None` when all do.
    kept: Option<Vec<u32>>,
    letters: Option<Letters>,
}

/// The records that become rows: not the `dead` ones, and not those without a value when they are skipped.
fn kept(raw: &RawBatch, skip_nulls: bool, dead: &[u32]) -> Option<Vec<u32>> {
    let nulls: &[u32] = if skip_nulls { &raw.values.nulls } else { &[] };
    if nulls.is_empty() && dead.is_empty() {
        return None;
    }
    let (mut nulls, mut dead) = (nulls.iter().peekable(), dead.iter().peekable());
    let stays = |row: &u32| nulls.next_if_eq(&row).is_none() & dead.next_if_eq(&row).is_none();
    Some((0..raw.len() as u32).filter(stays).collect())
}

/// The byte strings of `topic`'s records as a column.
///
/// # Errors
/// `Unavailable` when they are more than one column holds.
pub(crate) fn binary(topic: &str, payloads: &Payloads) -> Result<BinaryArray> {
    payloads.column().map_err(|e| {
        Error::unavailable(format!(
            "topic {topic}: keys or values do not fit a column: {e}; read fewer records at once"
        ))
    })
}

/// Kafka's milliseconds as microseconds; -1 is "none".
pub(crate) fn timestamps(millis: &[i64]) -> TimestampMicrosecondArray {
    let array: TimestampMicrosecondArray =
        millis.iter().map(|&ms| (ms >= 0).then(|| ms.saturating_mul(1000))).collect();
    array.with_timezone("UTC")
}

/// The headers as a list of key and value, of the type that the topic's table declares.
pub(crate) fn headers(records: &[Headers], rows: usize, data_type: &DataType) -> Result<ArrayRef> {
    let (DataType::List(item), Some(fields)) = (data_type, header_fields(data_type)) else {
        return Err(Error::invalid(format!("headers are a list of key and value, not {data_type}")));
    };
    let entry = StructBuilder::new(fields, vec![Box::new(StringBuilder::new()), Box::new(BinaryBuilder::new())]);
    let mut list = ListBuilder::new(entry).with_field(Arc::clone(item));
    for row in 0..rows {
        for (key, value) in records.get(row).map(Vec::as_slice).unwrap_or_default() {
            let entry = list.values();
            if let Some(keys) = entry.field_builder::<StringBuilder>(0) {
                keys.append_value(key);
            }
            if let Some(values) = entry.field_builder::<BinaryBuilder>(1) {
                values.append_option(value.as_deref());
            }
            entry.append(true);
        }
        list.append(true);
    }
    Ok(Arc::new(list.finish()))
}

fn header_fields(list: &DataType) -> Option<Fields> {
    match list {
        DataType::List(item) => match item.data_type() {
            DataType::Struct(fields) => Some(fields.clone()),
            _ => None,
        },
        _ => None,
    }
}
