//! Whether a message is what its `.proto` says: it decodes, and it keeps the rules of `buf.validate`.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use prost_protovalidate::{Error as Protovalidate, Validator, ValidatorOption};
use prost_reflect::prost_types::Timestamp;
use prost_reflect::{DynamicMessage, MessageDescriptor};

use super::decodable::{Shape, Undecodable};
use crate::clock::Clock;

/// So many broken rules are told of one message: a status has to fit into a client's headers.
const MAX_TOLD: usize = 10;

/// So many characters a path or a description has at most.
const MAX_TEXT: usize = 200;

/// What the messages of one type are held against.
pub(super) struct Validation {
    message: MessageDescriptor,
    shape: Shape,
    /// Only when there are rules: they need the message decoded.
    validator: Option<Validator>,
}

/// Why a message is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The client's message is wrong.
    Wrong(Vec<BrokenRule>),
    /// A rule could not be evaluated: the `.proto` is wrong.
    Rules(String),
}

/// A rule that a message breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BrokenRule {
    /// The path of the field. Empty for the message itself.
    pub(super) field: String,
    pub(super) description: String,
}

impl Validation {
    /// What messages of that type are held against. The rules' `now` is the clock's.
    pub(super) fn new(message: &MessageDescriptor, clock: Arc<dyn Clock>) -> Self {
        let now = move || {
            let now = clock.now();
            Timestamp { seconds: now.timestamp(), nanos: now.timestamp_subsec_nanos() as i32 }
        };
        let validator = has_rules(message).then(|| validator(message, Some(Arc::new(now))));
        Self { message: message.clone(), shape: Shape::new(message), validator }
    }

    /// Whether the bytes decode as the message.
    pub(super) fn decodes(&self, bytes: &[u8]) -> Result<(), Refusal> {
        self.shape.check(bytes).map_err(|Undecodable { field, fault }| {
            let of = self.message.full_name();
            Refusal::Wrong(vec![BrokenRule { field, description: format!("it does not decode as {of}: {fault}") }])
        })
    }

    /// Whether bytes that decode keep the rules.
    pub(super) fn keeps_rules(&self, bytes: &[u8]) -> Result<(), Refusal> {
        let Some(validator) = &self.validator else { return Ok(()) };
        let message = DynamicMessage::decode(self.message.clone(), bytes).map_err(|error| {
            Refusal::Wrong(vec![BrokenRule { field: String::new(), description: error.to_string() }])
        })?;
        match validator.validate(&message) {
            Ok(()) => Ok(()),
            Err(Protovalidate::Validation(broken)) => {
                let told = broken.violations().iter().take(MAX_TOLD).map(|violation| {
                    let description =
                        if violation.message().is_empty() { violation.rule_id() } else { violation.message() };
                    BrokenRule { field: shortened(&violation.field_path()), description: shortened(description) }
                });
                Err(Refusal::Wrong(told.collect()))
            }
            Err(other) => Err(Refusal::Rules(other.to_string())),
        }
    }
}

impl fmt::Debug for Validation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has_rules = self.validator.is_some();
        f.debug_struct("Validation").field("message", &self.message.full_name()).field("has_rules", &has_rules).finish()
    }
}

/// Why the rules of a message cannot be evaluated, if so.
pub(super) fn rules_fault(message: &MessageDescriptor) -> Option<String> {
    for of in reachable(message).iter().filter(|of| has_rules(of)) {
        if let Err(Protovalidate::Compilation(error)) = validator(of, None).validate(&DynamicMessage::new(of.clone())) {
            return Some(format!("its buf.validate rules do not fit: {error}; mend or remove them"));
        }
    }
    None
}

type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

fn validator(message: &MessageDescriptor, now: Option<Now>) -> Validator {
    let mut options = vec![ValidatorOption::MessageDescriptors(vec![message.clone()])];
    options.extend(now.map(ValidatorOption::NowFn));
    // Rules that the files define themselves (`buf.validate.predefined`).
    let pool = message.parent_pool();
    if pool.all_extensions().any(|rule| rule.containing_message().full_name().starts_with("buf.validate.")) {
        options.push(ValidatorOption::AdditionalDescriptorSetBytes(pool.encode_to_vec()));
    }
    Validator::with_options(&options)
}

/// Whether a message, or one that lies in it, has rules.
fn has_rules(message: &MessageDescriptor) -> bool {
    let is_rule = |options: DynamicMessage| {
        options.extensions().any(|(extension, _)| extension.full_name().starts_with("buf.validate."))
    };
    reachable(message).iter().any(|message| {
        is_rule(message.options())
            || message.fields().any(|field| is_rule(field.options()))
            || message.oneofs().any(|oneof| is_rule(oneof.options()))
    })
}

/// The message and all that lie in it.
fn reachable(message: &MessageDescriptor) -> Vec<MessageDescriptor> {
    let mut seen = HashSet::from([message.full_name().to_owned()]);
    let mut all = vec![message.clone()];
    let mut at = 0;
    while let Some(message) = all.get(at).cloned() {
        at += 1;
        for inner in message.fields().filter_map(|field| field.kind().as_message().cloned()) {
            if seen.insert(inner.full_name().to_owned()) {
                all.push(inner);
            }
        }
    }
    all
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;
    use crate::clock::SetClock;
    use chrono::DateTime;
    use prost_reflect::prost::Message;

    fn validation(fields: &str) -> (MessageDescriptor, Validation) {
        let pool = samples::with_imports(&format!("enum E {{ A = 0; B = 1; }} message M {{ {fields} }}"));
        let message = pool.get_message_by_name("t.M").unwrap();
        let clock = Arc::new(SetClock::default());
        clock.set(DateTime::from_timestamp(1_000_000, 0).unwrap());
        (message.clone(), Validation::new(&message, clock))
    }

    /// The fields of `text`, in protobuf's text format, that break a rule.
    fn broken(fields: &str, text: &str) -> Vec<String> {
        let (of, validation) = validation(fields);
        let bytes = DynamicMessage::parse_text_format(of, text).unwrap().encode_to_vec();
        validation.decodes(&bytes).unwrap();
        match validation.keeps_rules(&bytes) {
            Ok(()) => Vec::new(),
            Err(Refusal::Wrong(broken)) => broken.into_iter().map(|rule| rule.field).collect(),
            Err(Refusal::Rules(error)) => panic!("{error}"),
        }
    }

    /// Cases of the upstream conformance suite: the fields, a message that keeps the rules, one that breaks them, and
    /// the field that is named.
    const CASES: &[(&str, &str, &str, &str)] = &[
        ("string v = 1 [(buf.validate.field).string.const = \"foo\"];", "v: \"foo\"", "v: \"bar\"", "v"),
        ("string v = 1 [(buf.validate.field).string.len = 3];", "v: \"zün\"", "v: \"zü\"", "v"),
        ("string v = 1 [(buf.validate.field).string.min_len = 1];", "v: \"a\"", "", "v"),
        ("string v = 1 [(buf.validate.field).string.max_bytes = 2];", "v: \"ü\"", "v: \"üa\"", "v"),
        ("string v = 1 [(buf.validate.field).string.pattern = \"^[a-z]+$\"];", "v: \"ab\"", "v: \"a1\"", "v"),
        ("string v = 1 [(buf.validate.field).string.prefix = \"ad-\"];", "v: \"ad-1\"", "v: \"x\"", "v"),
        ("string v = 1 [(buf.validate.field).string.not_contains = \"x\"];", "v: \"a\"", "v: \"axb\"", "v"),
        ("string v = 1 [(buf.validate.field).string = {in: [\"a\", \"b\"]}];", "v: \"b\"", "v: \"c\"", "v"),
        ("string v = 1 [(buf.validate.field).string.email = true];", "v: \"a@b.example\"", "v: \"a\"", "v"),
        (
            "string v = 1 [(buf.validate.field).string.uuid = true];",
            "v: \"6ba7b810-9dad-11d1-80b4-00c04fd430c8\"",
            "v: \"6ba7\"",
            "v",
        ),
        ("string v = 1 [(buf.validate.field).string.ip = true];", "v: \"::1\"", "v: \"1.2.3\"", "v"),
        ("string v = 1 [(buf.validate.field).string.uri = true];", "v: \"https://a.example/b?c\"", "v: \" a\"", "v"),
        ("string v = 1 [(buf.validate.field).string.hostname = true];", "v: \"a.example\"", "v: \"-a\"", "v"),
        ("bytes v = 1 [(buf.validate.field).bytes.max_len = 2];", "v: \"ab\"", "v: \"abc\"", "v"),
        ("int32 v = 1 [(buf.validate.field).int32 = {gt: 0, lte: 9}];", "v: 9", "v: 10", "v"),
        ("int32 v = 1 [(buf.validate.field).int32 = {gt: 9, lt: 0}];", "v: -1", "v: 5", "v"),
        ("sint64 v = 1 [(buf.validate.field).sint64 = {not_in: [7]}];", "v: 6", "v: 7", "v"),
        ("fixed32 v = 1 [(buf.validate.field).fixed32.lt = 5];", "v: 4", "v: 5", "v"),
        ("double v = 1 [(buf.validate.field).double.finite = true];", "v: 1.5", "v: inf", "v"),
        ("float v = 1 [(buf.validate.field).float.gte = 0];", "v: 0.5", "v: -0.5", "v"),
        ("double v = 1 [(buf.validate.field).double.gte = 0];", "", "v: nan", "v"),
        ("bool v = 1 [(buf.validate.field).bool.const = true];", "v: true", "v: false", "v"),
        ("E v = 1 [(buf.validate.field).enum.defined_only = true];", "v: B", "v: 2", "v"),
        ("E v = 1 [(buf.validate.field).enum = {not_in: [0]}];", "v: B", "", "v"),
        ("optional int32 v = 1 [(buf.validate.field).required = true];", "v: 0", "", "v"),
        ("message I { } I v = 1 [(buf.validate.field).required = true];", "v: {}", "", "v"),
        ("optional int32 v = 1 [(buf.validate.field).int32.gt = 5];", "", "v: 0", "v"),
        (
            "string v = 1 [(buf.validate.field) = {ignore: IGNORE_IF_ZERO_VALUE, string: {email: true}}];",
            "",
            "v: \"a\"",
            "v",
        ),
        ("repeated string v = 1 [(buf.validate.field).repeated.min_items = 1];", "v: \"\"", "", "v"),
        (
            "repeated string v = 1 [(buf.validate.field).repeated.unique = true];",
            "v: [\"a\", \"b\"]",
            "v: [\"a\", \"a\"]",
            "v",
        ),
        ("repeated int32 v = 1 [(buf.validate.field).repeated.items.int32.gt = 0];", "v: [1, 2]", "v: [1, 0]", "v[1]"),
        (
            "map<string, int32> v = 1 [(buf.validate.field).map.max_pairs = 1];",
            "v: {key: \"a\" value: 1}",
            "v: {key: \"a\" value: 1} v: {key: \"b\" value: 1}",
            "v",
        ),
        (
            "map<string, int32> v = 1 [(buf.validate.field).map.keys.string.min_len = 1];",
            "v: {key: \"a\"}",
            "v: {key: \"\"}",
            "v[\"\"]",
        ),
        (
            "map<string, int32> v = 1 [(buf.validate.field).map.values.int32.gt = 0];",
            "v: {key: \"a\" value: 1}",
            "v: {key: \"a\" value: 0}",
            "v[\"a\"]",
        ),
        (
            "google.protobuf.Timestamp v = 1 [(buf.validate.field).timestamp.lt_now = true];",
            "v: {seconds: 999999}",
            "v: {seconds: 1000001}",
            "v",
        ),
        (
            "google.protobuf.Timestamp v = 1 [(buf.validate.field).timestamp.within = {seconds: 60}];",
            "v: {seconds: 1000059}",
            "v: {seconds: 1000061}",
            "v",
        ),
        (
            "google.protobuf.Duration v = 1 [(buf.validate.field).duration.gte = {seconds: 1}];",
            "v: {seconds: 1}",
            "v: {nanos: 5}",
            "v",
        ),
        ("google.protobuf.StringValue v = 1 [(buf.validate.field).string.min_len = 1];", "", "v: {}", "v"),
        ("oneof o { option (buf.validate.oneof).required = true; int32 a = 1; int32 b = 2; }", "b: 0", "", "o"),
        (
            "int32 v = 1 [(buf.validate.field).cel = {id: \"even\" message: \"odd\" expression: \"this % 2 == 0\"}];",
            "v: 4",
            "v: 5",
            "v",
        ),
        (
            "option (buf.validate.message).cel = {id: \"o\" message: \"order\" expression: \"this.a <= this.b\"}; \
            int32 a = 1; int32 b = 2;",
            "a: 1 b: 2",
            "a: 2 b: 1",
            "",
        ),
        (
            "message I { string v = 1 [(buf.validate.field).string.min_len = 1]; } I i = 1; repeated I l = 2;",
            "l: [{v: \"a\"}]",
            "l: [{v: \"a\"}, {}]",
            "l[1].v",
        ),
    ];

    #[test]
    fn rules_hold_as_upstream_has_them() {
        for (fields, good, bad, named) in CASES {
            assert_eq!(broken(fields, good), [""; 0], "{fields} {good}");
            assert_eq!(broken(fields, bad), [*named], "{fields} {bad}");
        }
    }

    #[test]
    fn only_types_with_rules_are_decoded() {
        let has_rules = |fields: &str| validation(fields).1.validator.is_some();
        assert!(!has_rules("string s = 1; M m = 2; google.protobuf.Timestamp t = 3;"));
        assert!(has_rules(
            "message I { M m = 1; J j = 2; } I i = 1; \
                           message J { string s = 1 [(buf.validate.field).required = true]; }"
        ));
        assert!(has_rules("oneof o { option (buf.validate.oneof).required = true; string s = 1; }"));
    }

    #[test]
    fn rules_of_the_files_own_are_obeyed() {
        // buf.validate is proto2, so are extensions of it.
        let text = "syntax = \"proto2\"; package t; import \"buf/validate/validate.proto\"; \
            extend buf.validate.StringRules { optional bool ad = 80048954 \
            [(buf.validate.predefined).cel = \
            {id: \"ad\" message: \"no ad\" expression: \"this.startsWith('ad-')\"}]; } \
            message M { optional string v = 1 [(buf.validate.field).string.(ad) = true]; }";
        let of = samples::compiled(text).get_message_by_name("t.M").unwrap();
        let validation = Validation::new(&of, Arc::new(SetClock::default()));
        let check = |text: &str| {
            let message = DynamicMessage::parse_text_format(of.clone(), text).unwrap();
            validation.keeps_rules(&message.encode_to_vec())
        };
        assert_eq!(check("v: \"ad-1\""), Ok(()));
        let rule = BrokenRule { field: "v".into(), description: "no ad".into() };
        assert_eq!(check("v: \"1\""), Err(Refusal::Wrong(vec![rule])));
    }

    #[test]
    fn what_is_told_is_bounded() {
        let (_, many) = validation("repeated string v = 1 [(buf.validate.field).repeated.items.string.min_len = 1];");
        let Err(Refusal::Wrong(told)) = many.keeps_rules(&[0x0a, 0].repeat(1000)) else { panic!() };
        assert_eq!(told.len(), MAX_TOLD);
    }

    #[test]
    fn paths_are_short() {
        let (_, keys) = validation("map<string, int32> v = 1 [(buf.validate.field).map.values.int32.gt = 0];");
        let (mut entry, mut bytes) = (Vec::new(), Vec::new());
        super::super::wire::put_delimited(1, "ü".repeat(100_000).as_bytes(), &mut entry);
        super::super::wire::put_delimited(1, &entry, &mut bytes);
        let Err(Refusal::Wrong(told)) = keys.keeps_rules(&bytes) else { panic!() };
        assert_eq!(told[0].field.chars().count(), MAX_TEXT + 1);
    }

    #[test]
    fn deep_messages_do_not_overflow_the_stack() {
        let (_, validation) = validation("M m = 1; string s = 2 [(buf.validate.field).string.max_len = 1];");
        let mut bytes = Vec::new();
        for _ in 0..100 {
            let mut outer = Vec::new();
            super::super::wire::put_delimited(1, &bytes, &mut outer);
            bytes = outer;
        }
        let check = move || {
            validation.decodes(&bytes).unwrap();
            validation.keeps_rules(&bytes).unwrap();
        };
        std::thread::Builder::new().stack_size(2 << 20).spawn(check).unwrap().join().unwrap();
    }

    #[test]
    fn bytes_that_do_not_decode_are_told_with_their_field() {
        let (_, validation) = validation("message I { string s = 1; } I i = 1;");
        let rule =
            BrokenRule { field: "i.s".into(), description: "it does not decode as t.M: the text is not UTF-8".into() };
        assert_eq!(validation.decodes(&[0x0a, 3, 0x0a, 1, 0xff]), Err(Refusal::Wrong(vec![rule])));
    }
}
