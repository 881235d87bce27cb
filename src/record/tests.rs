//! Redaction and lines of JSON.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor, Value};

use super::*;
use crate::schema::Descriptors;
use crate::source::recording::{About, RecordingLog};
use crate::source::{Headers, Payloads, TopicIdentity};

const PROTO: &str = r#"edition = "2023"; package t;
    enum Kind { NONE = 0; VIEW = 1; CLICK = 5; }
    message Inner { string ip = 1; int64 port = 2; repeated Inner more = 3; }
    message M {
        string user = 1; bytes token = 2; int32 i32 = 3; sint32 s32 = 4; uint32 u32 = 5; fixed32 f32 = 6;
        sfixed32 sf32 = 7; int64 i64 = 8; sint64 s64 = 9; uint64 u64 = 10; fixed64 f64 = 11; sfixed64 sf64 = 12;
        float real = 13; double bid = 14; bool flag = 15; Kind kind = 16; Inner inner = 17;
        map<string, string> tags = 18; repeated int32 packed = 19;
        repeated string names = 20; Inner group = 21 [features.message_encoding = DELIMITED];
        repeated double unpacked = 22 [features.repeated_field_encoding = EXPANDED];
        oneof either { string a = 23; int32 b = 24; }
    }"#;

fn message() -> MessageDescriptor {
    let texts = BTreeMap::from([("t.proto".to_owned(), PROTO.to_owned())]);
    Descriptors::from_texts("t.proto", texts).unwrap().message("t.M").unwrap()
}

fn redaction(rules: &[&str]) -> Result<Redaction> {
    let rules: Vec<String> = rules.iter().map(|rule| (*rule).to_owned()).collect();
    Redaction::new(&rules, Some(&message()), b"salt")
}

fn batch(values: &[&[u8]]) -> RawBatch {
    let mut raw = RawBatch { offsets: (0..values.len() as i64).collect(), ..RawBatch::default() };
    raw.timestamps = vec![7; values.len()];
    values.iter().for_each(|value| raw.values.push(Some(value)));
    raw.keys = Some(Payloads::default());
    raw.headers = Some(vec![vec![("h".to_owned(), Some(b"v".to_vec()))]; values.len()]);
    values.iter().for_each(|_| raw.keys.as_mut().unwrap().push(Some(b"user-1")));
    raw
}

/// Redacts one value that is a message.
fn redacted(rules: &[&str], value: &[u8]) -> Vec<u8> {
    let done = redaction(rules).unwrap().apply(&batch(&[value]));
    assert!(done.broken.is_empty(), "{:?}", done.broken);
    done.batch.values.value(0).to_vec()
}

/// The text form of a message.
fn told(value: &[u8]) -> DynamicMessage {
    DynamicMessage::decode(message(), value).unwrap()
}

fn sample() -> DynamicMessage {
    let inner = message().get_field_by_name("inner").unwrap().kind().as_message().unwrap().clone();
    let mut sample = DynamicMessage::parse_text_format(
        message(),
        r#"user: "anna-17" token: "\001\002\003" i32: -1234 s32: -56 u32: 9 f32: 100 sf32: -7 i64: 1795132800
        s64: -99 u64: 18446744073709551615 f64: 5 sf64: -1000 real: 1.5 bid: 2.25 flag: true kind: CLICK
        inner { ip: "10.0.0.1" port: 443 more { ip: "10.0.0.2" } } tags { key: "k" value: "secret" }
        packed: [1, 22, 333] names: "a" names: "bb" unpacked: [1.5, 2.5] b: 3"#,
    )
    .unwrap();
    let group = DynamicMessage::parse_text_format(inner, r#"ip: "10.0.0.3" port: 8"#).unwrap();
    sample.set_field_by_name("group", Value::Message(group));
    sample
}

#[test]
fn what_is_not_redacted_stays_byte_by_byte() {
    let mut value = sample().encode_to_vec();
    // Unknown fields of every kind, and a group in a group.
    value.extend([0xa0, 0x06, 1, 0xa2, 0x06, 2, 9, 9, 0xa3, 0x06, 0xab, 0x06, 0xac, 0x06, 0xa4, 0x06]);
    value.extend([0xa5, 0x06, 1, 2, 3, 4, 0xa1, 0x06, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(redacted(&["_key=null"], &value), value);
    // A rule for a field that is not there changes nothing, nor does one inside of messages that have none of it.
    assert_eq!(redacted(&["a=hash", "inner.more.port=null"], &value), value);
    let without_user = redacted(&["user=null"], &value);
    assert_eq!(without_user, value[9..], "user is the first field: a key, a length and seven letters");
}

#[test]
fn values_are_hidden_and_keep_their_form() {
    let value = sample().encode_to_vec();
    let all = [
        "user=hash",
        "token=hash",
        "i32=fake",
        "s32=fake",
        "u32=fake",
        "f32=fake",
        "sf32=hash",
        "i64=fake",
        "s64=hash",
        "u64=fake",
        "f64=hash",
        "sf64=fake",
        "real=fake",
        "bid=fake",
        "flag=null",
        "kind=null",
        "inner.ip=fake",
        "inner.more.ip=null",
        "tags.value=hash",
        "packed=fake",
        "names=hash",
        "group.ip=fake",
        "unpacked=fake",
        "b=fake",
    ];
    let hidden = told(&redacted(&all, &value));
    let of = |name: &str| hidden.get_field_by_name(name).unwrap().into_owned();
    assert_eq!(of("user").as_str().unwrap().len(), 32);
    assert_eq!(of("token").as_bytes().unwrap().len(), 16);
    assert!((-9999..=-1000).contains(&of("i32").as_i32().unwrap()), "{hidden:?}");
    assert!((-99..=-10).contains(&of("s32").as_i32().unwrap()), "{hidden:?}");
    assert!((0..=9).contains(&of("u32").as_u32().unwrap()));
    assert!((100..=999).contains(&of("f32").as_u32().unwrap()));
    assert!(of("sf32").as_i32().unwrap() >= 0 && of("s64").as_i64().unwrap() >= 0);
    assert!((1_000_000_000..=9_999_999_999).contains(&of("i64").as_i64().unwrap()));
    assert!(of("u64").as_u64().unwrap() >= 10_000_000_000_000_000_000);
    assert!((-9999..=-1000).contains(&of("sf64").as_i64().unwrap()));
    assert!((1.0..2.0).contains(&of("real").as_f32().unwrap()) && (2.0..4.0).contains(&of("bid").as_f64().unwrap()));
    assert_eq!((of("kind").as_enum_number(), of("flag").as_bool()), (Some(0), Some(false)));
    let inner = of("inner").as_message().unwrap().clone();
    let ip = inner.get_field_by_name("ip").unwrap().as_str().unwrap().to_owned();
    assert!(ip != "10.0.0.1" && ip.len() == 8 && ip.matches('.').count() == 3, "{ip}");
    assert_eq!(inner.get_field_by_name("port").unwrap().as_i64(), Some(443));
    let more = inner.get_field_by_name("more").unwrap().as_list().unwrap()[0].as_message().unwrap().clone();
    assert_eq!(more.get_field_by_name("ip").unwrap().as_str(), Some(""));
    let tags = of("tags").as_map().unwrap().clone();
    assert_eq!(tags.values().next().unwrap().as_str().unwrap().len(), 32);
    let packed: Vec<i32> = of("packed").as_list().unwrap().iter().map(|v| v.as_i32().unwrap()).collect();
    assert!(packed[0] < 10 && (10..100).contains(&packed[1]) && (100..1000).contains(&packed[2]), "{packed:?}");
    assert_eq!(of("names").as_list().unwrap().len(), 2);
    assert_eq!(of("unpacked").as_list().unwrap().len(), 2);
    assert!(of("group").as_message().unwrap().get_field_by_name("port").unwrap().as_i64() == Some(8));
    // No byte of what was hidden is left.
    let bytes = redacted(&all, &value);
    for secret in [&b"anna"[..], b"10.0.0", b"secret", b"bb"] {
        assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{secret:?}");
    }
    // Equal values become equal ones, so that joins stay what they are.
    assert_eq!(redacted(&all, &value), bytes);
}

#[test]
fn keys_and_headers_are_hidden_too() {
    let done = redaction(&["_key=hash", "_headers=null"]).unwrap().apply(&batch(&[b"", b""])).batch;
    let keys = done.keys.unwrap();
    assert_eq!((keys.value(0).len(), keys.value(0)), (32, keys.value(1)));
    assert_eq!(done.headers.unwrap(), vec![vec![("h".to_owned(), None)]; 2]);
}

#[test]
fn rules_that_cannot_be_met_say_why() {
    let why = |rules: &[&str]| redaction(rules).unwrap_err().message().to_owned();
    assert!(why(&["user"]).contains("FIELD=null"));
    assert!(why(&["user=zero"]).contains("write null, hash or fake"));
    assert!(why(&["usr=hash"]).contains("did you mean `user`?"), "{}", why(&["usr=hash"]));
    assert!(why(&["user.name=hash"]).contains("`user` is no message"));
    assert!(why(&["inner=hash"]).contains("set it to null, or name fields in it"));
    assert!(why(&["flag=hash"]).contains("set it to null") && why(&["kind=fake"]).contains("set it to null"));
    assert!(why(&["user=hash", "user=null"]).contains("named twice"));
    assert!(why(&["inner=null", "inner.ip=null"]).contains("redacted already"));
    assert!(why(&["inner.ip=null", "inner=null"]).contains("named twice"));
    let rules = ["user=null".to_owned()];
    assert!(Redaction::new(&rules, None, b"").unwrap_err().message().contains("--proto FILE --message NAME"));
}

#[test]
fn a_value_that_is_no_message_is_told_and_not_kept() {
    let good = sample().encode_to_vec();
    let done = redaction(&["user=null"]).unwrap().apply(&batch(&[&good, &[0x0a, 200], &good]));
    assert_eq!((done.batch.offsets, done.broken.len(), done.broken[0].0), (vec![0, 2], 1, 1));
    let treatment = Treatment { redaction: Some(redaction(&["user=null"]).unwrap()), ..Treatment::default() };
    let error = treatment.apply(batch(&[&good, &[0x0a, 200]]), &Seen::default()).unwrap_err();
    assert!(error.message().contains("partition 0, offset 1: the value cannot be redacted: it is no t.M"), "{error}");
}

proptest! {
    /// Whatever the bytes are: no panic, and a value that is a message stays one.
    #[test]
    fn any_bytes_are_rewritten_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let done = redaction(&["user=fake", "inner.ip=hash", "packed=fake", "group.more.ip=hash", "bid=fake"]).unwrap();
        let done = done.apply(&batch(&[&bytes]));
        if let Ok(before) = DynamicMessage::decode(message(), &bytes[..]) {
            prop_assert!(done.broken.is_empty(), "{:?}", done.broken);
            let after = told(done.batch.values.value(0));
            let untouched = after.get_field_by_name("token") == before.get_field_by_name("token");
            prop_assert!(untouched);
        }
    }
}

fn recorded(dir: &Path, batches: &[RawBatch]) -> RecordingLog {
    let identity = TopicIdentity { topic: "t".into(), topic_id: String::new(), cluster_id: String::new() };
    let mut writer = RecordingWriter::create(dir, identity).unwrap();
    let mut ranges = Vec::new();
    for batch in batches {
        writer.write(batch).unwrap();
        let (from, to) = (batch.offsets[0], batch.offsets.last().unwrap() + 1);
        ranges.push(PartitionRange { partition: batch.partition, from, to });
    }
    writer.finish(&ranges, About::default()).unwrap();
    RecordingLog::open(dir).unwrap()
}

#[tokio::test]
async fn lines_of_json_give_the_records_back() {
    let dir = tempfile::tempdir().unwrap();
    let headers: Vec<Headers> = vec![
        vec![("a".into(), Some(b"1".to_vec())), ("b".into(), None)],
        vec![],
        vec![("bin".into(), Some(vec![0xff])), ("none".into(), None)],
    ];
    let mut one = batch(&["\u{fc}\n\"".as_bytes(), &[0xff, 0x00], b""]);
    one.headers = Some(headers);
    one.offsets = vec![4, 6, 9];
    one.timestamps = vec![-1, 0, 1_795_132_800_000];
    let mut two = batch(&[b"x"]);
    two.partition = 3;
    two.values = Payloads::default();
    two.values.push(None);
    let first = recorded(&dir.path().join("first"), &[one, two]);
    let mut lines = Vec::new();
    assert_eq!(export(&first, &mut lines).await.unwrap(), 4);
    let text = String::from_utf8(lines.clone()).unwrap();
    assert!(text.contains(r#""payload_base64":"/wA=""#), "{text}");
    let mut batches = Vec::new();
    let ranges = import(&mut &lines[..], Path::new("lines"), "t", &mut |batch| {
        batches.push(batch);
        Ok(())
    });
    let bounds: Vec<_> = ranges.unwrap().iter().map(|r| (r.partition, r.from, r.to)).collect();
    assert_eq!(bounds, [(0, 4, 10), (3, 0, 1)]);
    let second = recorded(&dir.path().join("second"), &batches);
    let hash = |log: &RecordingLog| log.manifest().unwrap().all.sha256.clone().unwrap();
    assert_eq!(hash(&first), hash(&second));
}

#[test]
fn lines_of_kcat_and_of_hands_are_read() {
    let mut batches = Vec::new();
    let mut read = |lines: &[u8]| {
        batches.clear();
        let take = &mut |batch: RawBatch| {
            batches.push(batch);
            Ok(())
        };
        import(&mut &lines[..], Path::new("lines.jsonl"), "t", take).map(|ranges| (ranges, batches.clone()))
    };
    // As kcat writes a payload that is no text: its bytes as they are.
    let kcat = b"{\"topic\":\"t\",\"partition\":1,\"offset\":5,\"tstype\":\"create\",\"ts\":12,\"broker\":0,\
        \"headers\":[\"h\",\"v\"],\"key\":\"k\",\"payload\":\"\\n\xff\\u0007\"}\n";
    let (_, batches) = read(kcat).unwrap();
    assert_eq!((batches[0].values.value(0), batches[0].timestamps[0]), (&b"\n\xff\x07"[..], 12));
    let (ranges, batches) = read(b"{\"payload\":\"a\"}\n\n{\"payload_base64\":\"/w==\"}\n{\"payload\":null}").unwrap();
    assert_eq!((ranges[0].from, ranges[0].to, &batches[0].values.nulls[..]), (0, 3, &[2][..]));
    let why = |lines: &str| {
        let error = import(&mut lines.as_bytes(), Path::new("l"), "t", &mut |_| Ok(())).unwrap_err();
        error.message().to_owned()
    };
    assert!(why("{\"payload\":null}\nnonsense").starts_with("l:2: it is no line of `kcat -J`"));
    assert!(why("{\"topic\":\"t\"}").contains("it has no payload"));
    assert!(why("{\"ad_id\":\"ad-1\"}").contains("with the value as `payload_base64`"));
    assert!(why("{\"topic\":\"u\",\"payload\":null}").contains("of topic u, not of t"));
    assert!(
        why("{\"offset\":3,\"payload\":null}\n{\"offset\":3,\"payload\":null}")
            .contains("offset 3 of partition 0 comes after offset 3")
    );
    assert!(why("{\"payload\":\"a\",\"payload_base64\":\"\"}").contains("write one of both"));
    assert!(why("{\"payload_base64\":\"*\"}").contains("payload_base64"));
    assert!(why("{\"headers\":[\"h\"],\"payload\":null}").contains("a name without a value"));
}
