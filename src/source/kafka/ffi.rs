//! The calls to librdkafka that the safe wrapper does not have. This is the only file with `unsafe`.
//!
//! A record costs half when a callback gets it straight from the queue: no event, clock, lock or `Arc` for each. The
//! consumer's queue is not joined with the client's main queue (as `BaseConsumer` does), so that only records and
//! consumer errors ever reach the callback; log lines and connection errors stay on the main queue.
#![allow(unsafe_code, reason = "the one file that talks to librdkafka directly")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::slice;
use std::time::Duration;

use rdkafka::client::{Client, ClientContext, DefaultClientContext};
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::message::BorrowedMessage;
use rdkafka::types::{RDKafkaRespErr, RDKafkaType};
use rdkafka::{Offset, TopicPartitionList};
use rdkafka_sys as sys;

use super::delivery::{Flow, PartitionError, Receive, Record};
use crate::source::Headers;

/// A consumer whose partitions are assigned by hand and whose records go to a callback.
pub struct Consumer {
    /// Records and errors of partitions. Dropped before `client`, which it points into.
    records: Queue,
    /// Log lines and errors of connections. Dropped before `client`, which it points into.
    main: Queue,
    /// Owns librdkafka's threads; dropping it ends them.
    client: Client<DefaultClientContext>,
}

/// Whether a record that was not acknowledged may be in its topic all the same.
pub fn may_be_there(record: &BorrowedMessage<'_>) -> bool {
    // SAFETY: the message is librdkafka's own, borrowed as long as the wrapper is, and is only read.
    let status = unsafe { sys::rd_kafka_message_status(record.ptr()) };
    status != sys::rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_NOT_PERSISTED
}

/// One of librdkafka's queues.
struct Queue(NonNull<sys::rd_kafka_queue_t>);

// SAFETY: librdkafka's queues are locked inside; a handle may be used and destroyed on any thread.
unsafe impl Send for Queue {}

impl Queue {
    /// Owns the handle `pointer`.
    ///
    /// # Safety
    /// `pointer` is null or a handle that nobody else destroys, and its client outlives it.
    unsafe fn new(pointer: *mut sys::rd_kafka_queue_t) -> KafkaResult<Self> {
        let pointer = NonNull::new(pointer);
        pointer.map(Queue).ok_or_else(|| KafkaError::ClientCreation("the client has no such queue".into()))
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: we own the handle (see `new`) and this is its last use.
        unsafe { sys::rd_kafka_queue_destroy(self.0.as_ptr()) }
    }
}

/// Something on the main queue.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A log line.
    Log(String),
    /// An error of connections.
    Error(Code, String),
}

/// A record while its callback runs.
struct Message<'a> {
    raw: &'a sys::rd_kafka_message_t,
}

impl Record for Message<'_> {
    #[inline]
    fn partition(&self) -> i32 {
        self.raw.partition
    }

    #[inline]
    fn offset(&self) -> i64 {
        self.raw.offset
    }

    #[inline]
    fn timestamp(&self) -> i64 {
        // SAFETY: `raw` is a live message; a null type pointer is allowed.
        unsafe { sys::rd_kafka_message_timestamp(self.raw, ptr::null_mut()) }
    }

    #[inline]
    fn value(&self) -> Option<&[u8]> {
        // SAFETY: librdkafka keeps `len` bytes at `payload` until the callback returns.
        unsafe { bytes(self.raw.payload, self.raw.len) }
    }

    #[inline]
    fn key(&self) -> Option<&[u8]> {
        // SAFETY: librdkafka keeps `key_len` bytes at `key` until the callback returns.
        unsafe { bytes(self.raw.key, self.raw.key_len) }
    }

    fn headers(&self) -> Headers {
        let mut list = ptr::null_mut();
        // SAFETY: `raw` is a live message; the list belongs to it and is not kept.
        let code = unsafe { sys::rd_kafka_message_headers(self.raw, &mut list) };
        let mut headers = Headers::new();
        if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR || list.is_null() {
            return headers;
        }
        loop {
            let (mut name, mut value, mut size) = (ptr::null::<c_char>(), ptr::null::<c_void>(), 0usize);
            // SAFETY: `list` is live, the out pointers are ours; past the last header it answers with an error.
            let code = unsafe { sys::rd_kafka_header_get_all(list, headers.len(), &mut name, &mut value, &mut size) };
            if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR || name.is_null() {
                return headers;
            }
            // SAFETY: `name` is NUL-terminated and `value` has `size` bytes, both as long as the message lives.
            let (name, value) = unsafe { (CStr::from_ptr(name), bytes(value, size)) };
            headers.push((name.to_string_lossy().into_owned(), value.map(<[u8]>::to_vec)));
        }
    }
}

/// # Safety
/// `data` is null or has `size` bytes that live and do not change as long as `'a`.
unsafe fn bytes<'a>(data: *const c_void, size: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise; null is told apart.
    (!data.is_null()).then(|| unsafe { slice::from_raw_parts(data.cast::<u8>(), size) })
}

/// What the callback gets: where the records go, and the client that it may tell to stop.
struct Delivery<'a, R> {
    receiver: &'a mut R,
    client: *mut sys::rd_kafka_t,
    _client: PhantomData<&'a ()>,
}

/// Librdkafka calls this for each record and each error of a partition. A panic in a receiver ends the process.
///
/// # Safety
/// `message` is a live message and `opaque` the `Delivery<R>` of the running call, which nothing else uses meanwhile.
unsafe extern "C" fn deliver<R: Receive>(message: *mut sys::rd_kafka_message_t, opaque: *mut c_void) {
    // SAFETY: the contract above; the message is only read.
    let (raw, delivery) = unsafe { (&*message.cast_const(), &mut *opaque.cast::<Delivery<'_, R>>()) };
    // SAFETY: the field is read as the number it is: a code of a newer broker is no value of the Rust enum.
    let code = unsafe { ptr::addr_of!((*message).err).cast::<i32>().read() };
    let flow = if code == 0 {
        delivery.receiver.record(&Message { raw })
    } else {
        // SAFETY: an error's payload is its text of `len` bytes.
        let text = unsafe { bytes(raw.payload, raw.len) }.unwrap_or_default();
        delivery.receiver.error(PartitionError {
            partition: raw.partition,
            offset: raw.offset,
            code: code_of(code),
            text: &String::from_utf8_lossy(text),
        })
    };
    if flow == Flow::Stop {
        // SAFETY: the client lives as long as the running call; the rest of the queue stays where it is.
        unsafe { sys::rd_kafka_yield(delivery.client) }
    }
}

/// Librdkafka's number as the wrapper's code.
fn code_of(code: i32) -> Code {
    RDKafkaRespErr::try_from(code).map_or(Code::Unknown, Code::from)
}

fn check(code: RDKafkaRespErr) -> KafkaResult<()> {
    match code {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        code => Err(KafkaError::Global(code.into())),
    }
}

fn millis(time: Duration) -> c_int {
    c_int::try_from(time.as_millis()).unwrap_or(c_int::MAX)
}

impl Consumer {
    /// A consumer without an assignment.
    ///
    /// # Errors
    /// librdkafka's, when it does not take the configuration.
    pub fn new(config: &ClientConfig) -> KafkaResult<Self> {
        let native = config.create_native_config()?;
        // SAFETY: `native` is a live configuration. Errors of connections become events of the main queue.
        unsafe { sys::rd_kafka_conf_set_events(native.ptr(), sys::RD_KAFKA_EVENT_ERROR) };
        let client = Client::new(config, native, RDKafkaType::RD_KAFKA_CONSUMER, DefaultClientContext)?;
        // SAFETY: the client is live; both calls give a handle of our own, and the fields' order drops it first.
        let (records, main) = unsafe {
            (
                Queue::new(sys::rd_kafka_queue_get_consumer(client.native_ptr()))?,
                Queue::new(sys::rd_kafka_queue_get_main(client.native_ptr()))?,
            )
        };
        Ok(Self { records, main, client })
    }

    /// Reads these partitions from these offsets, and nothing else any more. What was fetched before is dropped, and
    /// its fetching has stopped when this returns.
    ///
    /// librdkafka stops a partition twice, and aborts the process, when it is taken away again before its first stop
    /// is done (<https://github.com/confluentinc/librdkafka/issues/5573>), be it by the next assignment or by the end
    /// of the client.
    ///
    /// # Errors
    /// librdkafka's.
    pub fn assign(&self, list: &TopicPartitionList) -> KafkaResult<()> {
        // SAFETY: client and list are live; the list is copied.
        check(unsafe { sys::rd_kafka_assign(self.client.native_ptr(), list.ptr()) })?;
        // The stop and its answer are two messages in the queue of librdkafka's main thread, which answers in order:
        // one question is answered behind the first, the next one behind the second.
        self.await_main_thread()?;
        self.await_main_thread()
    }

    /// Waits until librdkafka's main thread has done what was in its queue.
    fn await_main_thread(&self) -> KafkaResult<()> {
        let mut list = ptr::null_mut();
        // SAFETY: the client is live; the list is ours, and destroyed once.
        unsafe {
            let code = sys::rd_kafka_assignment(self.client.native_ptr(), &mut list);
            if !list.is_null() {
                sys::rd_kafka_topic_partition_list_destroy(list);
            }
            check(code)
        }
    }

    /// Stops fetching these partitions; their prefetched records are dropped and fetched again after
    /// [`Consumer::resume`].
    ///
    /// # Errors
    /// librdkafka's.
    pub fn pause(&self, list: &TopicPartitionList) -> KafkaResult<()> {
        // SAFETY: client and list are live; only the list's errors are written.
        check(unsafe { sys::rd_kafka_pause_partitions(self.client.native_ptr(), list.ptr()) })
    }

    /// Goes on fetching these partitions.
    ///
    /// # Errors
    /// librdkafka's.
    pub fn resume(&self, list: &TopicPartitionList) -> KafkaResult<()> {
        // SAFETY: client and list are live; only the list's errors are written.
        check(unsafe { sys::rd_kafka_resume_partitions(self.client.native_ptr(), list.ptr()) })
    }

    /// Fills in up to where each partition has been consumed, control records included; invalid before the first one.
    ///
    /// # Errors
    /// librdkafka's.
    pub fn positions(&self, list: &mut TopicPartitionList) -> KafkaResult<()> {
        // SAFETY: client and list are live; the list is ours to change.
        check(unsafe { sys::rd_kafka_position(self.client.native_ptr(), list.ptr()) })
    }

    /// Tells Kafka these offsets under the client's group, without waiting for an answer.
    ///
    /// # Errors
    /// librdkafka's.
    pub fn commit(&self, list: &TopicPartitionList) -> KafkaResult<()> {
        // SAFETY: client and list are live; the list is copied. The last argument: do not wait.
        check(unsafe { sys::rd_kafka_commit(self.client.native_ptr(), list.ptr(), 1) })
    }

    /// Hands records and errors to `receiver` until it says stop, the queue is empty, or nothing came for `wait`.
    /// Gives how many there were.
    pub fn consume<R: Receive>(&mut self, wait: Duration, receiver: &mut R) -> usize {
        let mut delivery = Delivery { receiver, client: self.client.native_ptr(), _client: PhantomData };
        let opaque = ptr::from_mut(&mut delivery).cast::<c_void>();
        // SAFETY: `deliver` is called on this thread during this call only, with `opaque`, which lives that long and
        // is not used otherwise meanwhile. The queue belongs to the live client.
        let count = unsafe {
            sys::rd_kafka_consume_callback_queue(self.records.0.as_ptr(), millis(wait), Some(deliver::<R>), opaque)
        };
        usize::try_from(count).unwrap_or(0)
    }

    /// The next log line or error of the main queue, if there is one; never waits.
    pub fn event(&self) -> Option<Event> {
        loop {
            let event = Answer::poll(&self.main, Duration::ZERO)?;
            if let Some(event) = event.as_event() {
                return Some(event);
            }
        }
    }
}

/// An event of librdkafka; dropped when read.
struct Answer(NonNull<sys::rd_kafka_event_t>);

impl Answer {
    fn poll(queue: &Queue, wait: Duration) -> Option<Self> {
        // SAFETY: the queue is live; the event is ours.
        NonNull::new(unsafe { sys::rd_kafka_queue_poll(queue.0.as_ptr(), millis(wait)) }).map(Answer)
    }

    fn kind(&self) -> c_int {
        // SAFETY: the event is live.
        unsafe { sys::rd_kafka_event_type(self.0.as_ptr()) }
    }

    /// Log lines and errors; `None` for other kinds.
    fn as_event(&self) -> Option<Event> {
        match self.kind() {
            sys::RD_KAFKA_EVENT_LOG => {
                let (mut facility, mut line, mut level) = (ptr::null(), ptr::null(), 0);
                // SAFETY: the event is live and of this kind; the texts live as long as it and are copied.
                let read = unsafe { sys::rd_kafka_event_log(self.0.as_ptr(), &mut facility, &mut line, &mut level) };
                // SAFETY: as above.
                (read == 0).then(|| Event::Log(unsafe { format!("{}: {}", text(facility), text(line)) }))
            }
            sys::RD_KAFKA_EVENT_ERROR => {
                // SAFETY: the event is live and of this kind; its text is copied.
                let (code, reason) = unsafe {
                    let event = self.0.as_ptr();
                    (sys::rd_kafka_event_error(event), text(sys::rd_kafka_event_error_string(event)))
                };
                Some(Event::Error(code.into(), reason))
            }
            _ => None,
        }
    }

    /// The id of the first topic of an answer to `DescribeTopics`.
    fn as_topic_id(&self) -> KafkaResult<Option<String>> {
        // SAFETY: the event is live; what is read lives as long as it and is copied; every pointer is checked.
        unsafe {
            check(sys::rd_kafka_event_error(self.0.as_ptr()))?;
            let result = sys::rd_kafka_event_DescribeTopics_result(self.0.as_ptr());
            if result.is_null() {
                return Ok(None);
            }
            let mut count = 0;
            let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
            if topics.is_null() || count == 0 {
                return Ok(None);
            }
            let error = sys::rd_kafka_TopicDescription_error(*topics);
            if !error.is_null() {
                check(sys::rd_kafka_error_code(error))?;
            }
            let id = sys::rd_kafka_TopicDescription_topic_id(*topics);
            if id.is_null()
                || (sys::rd_kafka_Uuid_most_significant_bits(id) == 0 && {
                    sys::rd_kafka_Uuid_least_significant_bits(id) == 0
                })
            {
                return Ok(None);
            }
            Ok(Some(text(sys::rd_kafka_Uuid_base64str(id))))
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: we own the event and this is its last use.
        unsafe { sys::rd_kafka_event_destroy(self.0.as_ptr()) }
    }
}

/// # Safety
/// `text` is null or NUL-terminated.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// The topic's id in base64; `None` when the broker has none. Asks the cluster and waits for `limit` at most.
///
/// # Errors
/// librdkafka's: the topic is not there, the cluster does not answer.
pub fn topic_id<C: ClientContext>(client: &Client<C>, topic: &str, limit: Duration) -> KafkaResult<Option<String>> {
    let native = client.native_ptr();
    let name = CString::new(topic)?;
    let mut names = [name.as_ptr()];
    // SAFETY: the client is live and outlives `queue`; the name lives until the collection has copied it. The request
    // is copied before the call returns, then options and collection are destroyed once.
    let queue = unsafe {
        let queue = Queue::new(sys::rd_kafka_queue_new(native))?;
        let options =
            sys::rd_kafka_AdminOptions_new(native, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        let mut why = [0; 128];
        sys::rd_kafka_AdminOptions_set_request_timeout(options, millis(limit), why.as_mut_ptr(), why.len());
        let topics = sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        sys::rd_kafka_DescribeTopics(native, topics, options, queue.0.as_ptr());
        sys::rd_kafka_TopicCollection_destroy(topics);
        sys::rd_kafka_AdminOptions_destroy(options);
        queue
    };
    match Answer::poll(&queue, limit + Duration::from_millis(500)) {
        Some(answer) if answer.kind() == sys::RD_KAFKA_EVENT_DESCRIBETOPICS_RESULT => answer.as_topic_id(),
        _ => Err(KafkaError::Global(Code::OperationTimedOut)),
    }
}

/// `topic`'s partitions with offsets, as librdkafka wants them.
///
/// # Errors
/// librdkafka's, for an offset that is negative.
pub fn list(topic: &str, offsets: impl Iterator<Item = (i32, i64)>) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        list.add_partition_offset(topic, partition, Offset::Offset(offset))?;
    }
    Ok(list)
}
