//! From the options of `flumen/v1/gateway.proto` to a plan: what is done with the messages of each method. Nothing is
//! read or opened, so that `flumen check` can do it too.

use std::collections::HashSet;
use std::fmt;

use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, MessageDescriptor, MethodDescriptor, Value};

use super::key::Key;
use super::response::ResponseLayout;
use super::stamp::StampField;
use super::validate::rules_fault;

const PUBLISH: &str = "flumen.v1.publish";
const SUBSCRIBE: &str = "flumen.v1.subscribe";
const STAMP: &str = "flumen.v1.stamp";

/// Kafka's own limit for the name of a topic.
const MAX_TOPIC_LENGTH: usize = 249;

/// What the gateway does with each method that has a rule.
#[derive(Debug, Clone)]
pub struct GatewayPlan {
    /// The methods, in the order of the files.
    pub methods: Vec<MethodPlan>,
}

/// What is done with the messages of one method.
#[derive(Debug, Clone)]
pub struct MethodPlan {
    /// The path of a call, such as `/ads.v1.ClickTrackService/AdTrack`.
    pub path: String,
    /// The full name of the service.
    pub service: String,
    /// How many messages go in and come out.
    pub shape: CallShape,
    /// What is done.
    pub action: Action,
}

/// How many messages a call has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallShape {
    /// One in, one out.
    Unary,
    /// Many in, one out.
    ClientStreaming,
    /// One in, many out.
    ServerStreaming,
    /// Many in, many out.
    Bidirectional,
}

/// What is done with the messages of a method.
#[derive(Debug, Clone)]
pub enum Action {
    /// They become records.
    Publish(PublishPlan),
    /// They ask for rows.
    Subscribe(SubscribePlan),
    /// They become records, and rows come back.
    Track(PublishPlan, SubscribePlan),
}

/// How messages become records.
#[derive(Debug, Clone)]
pub struct PublishPlan {
    /// The topic.
    pub topic: String,
    /// The record's key. None: records have no key.
    pub key: Option<Key>,
    /// The type of the messages.
    pub message: MessageDescriptor,
    /// The fields that the server writes.
    pub stamps: Vec<StampField>,
    /// What the response says.
    pub response: ResponseLayout,
}

/// Which rows go to the client.
#[derive(Debug, Clone)]
pub struct SubscribePlan {
    /// The path of the method's calls.
    pub path: String,
    /// The table's location.
    pub table: String,
    /// The type of the request, whose fields filter.
    pub request: MessageDescriptor,
    /// The type of a row.
    pub row: MessageDescriptor,
}

/// What is wrong with a rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RuleFault {
    /// The full name of the method or the field.
    pub subject: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for RuleFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.message)
    }
}

impl MethodPlan {
    /// How its messages become records, if they do.
    pub fn publish(&self) -> Option<&PublishPlan> {
        match &self.action {
            Action::Publish(publish) | Action::Track(publish, _) => Some(publish),
            Action::Subscribe(_) => None,
        }
    }

    /// Which rows go to the client, if any.
    pub fn subscribe(&self) -> Option<&SubscribePlan> {
        match &self.action {
            Action::Subscribe(subscribe) | Action::Track(_, subscribe) => Some(subscribe),
            Action::Publish(_) => None,
        }
    }
}

/// The plan of the methods in `pool`.
///
/// # Errors
/// All faults of all rules.
pub fn plan(pool: &DescriptorPool) -> Result<GatewayPlan, Vec<RuleFault>> {
    let mut faults = Faults::default();
    let mut methods = Vec::new();
    for service in pool.services() {
        methods.extend(service.methods().filter_map(|method| method_plan(&method, &mut faults)));
    }
    if methods.is_empty() && faults.all.is_empty() {
        let message = "no method has the option (flumen.v1.publish) or (flumen.v1.subscribe); import \
                       \"flumen/v1/gateway.proto\" and set one";
        faults.add("gateway", message);
    }
    if faults.all.is_empty() { Ok(GatewayPlan { methods }) } else { Err(faults.all) }
}

/// The faults so far; a fault that several methods share is told once.
#[derive(Default)]
struct Faults {
    all: Vec<RuleFault>,
    seen: HashSet<RuleFault>,
    /// The messages whose `buf.validate` rules were looked at.
    messages: HashSet<String>,
}

impl Faults {
    fn add(&mut self, subject: &str, message: impl Into<String>) {
        let fault = RuleFault { subject: subject.to_owned(), message: message.into() };
        if self.seen.insert(fault.clone()) {
            self.all.push(fault);
        }
    }
}

fn method_plan(method: &MethodDescriptor, faults: &mut Faults) -> Option<MethodPlan> {
    let options = method.options();
    let publish = rule(method, &options, PUBLISH, faults);
    let subscribe = rule(method, &options, SUBSCRIBE, faults);
    let shape = match (method.is_client_streaming(), method.is_server_streaming()) {
        (false, false) => CallShape::Unary,
        (true, false) => CallShape::ClientStreaming,
        (false, true) => CallShape::ServerStreaming,
        (true, true) => CallShape::Bidirectional,
    };
    if let Some(fault) = shape_fault(shape, publish.is_some(), subscribe.is_some()) {
        faults.add(method.full_name(), fault);
    }
    let publish = publish.map(|rule| publish_plan(method, &rule, subscribe.is_none(), faults));
    let subscribe = subscribe.map(|rule| subscribe_plan(method, &rule, faults));
    let action = match (publish, subscribe) {
        (Some(publish), Some(subscribe)) => Action::Track(publish, subscribe),
        (Some(publish), None) => Action::Publish(publish),
        (None, Some(subscribe)) => Action::Subscribe(subscribe),
        (None, None) => return None,
    };
    let service = method.parent_service().full_name().to_owned();
    Some(MethodPlan { path: format!("/{service}/{}", method.name()), service, shape, action })
}

/// The message of the option of that name, if the method has it.
fn rule(
    method: &MethodDescriptor,
    options: &DynamicMessage,
    name: &str,
    faults: &mut Faults,
) -> Option<DynamicMessage> {
    let extension = method.parent_pool().get_extension_by_name(name)?;
    if !options.has_extension(&extension) {
        return None;
    }
    match options.get_extension(&extension).into_owned() {
        Value::Message(rule) => Some(rule),
        _ => {
            let message = format!("({name}) is not the option of flumen/v1/gateway.proto; import that file");
            faults.add(method.full_name(), message);
            None
        }
    }
}

fn shape_fault(shape: CallShape, publishes: bool, subscribes: bool) -> Option<&'static str> {
    match (publishes, subscribes, shape) {
        (true, true, CallShape::Bidirectional) => None,
        (true, true, _) => Some(
            "with both publish and subscribe it must be bidirectional: write `stream` before both messages, or keep \
             one of the two rules",
        ),
        (true, false, CallShape::ServerStreaming) => {
            Some("it publishes one message and returns a stream; return one response, or take a stream too")
        }
        (false, true, CallShape::ServerStreaming) => None,
        (false, true, _) => Some("with subscribe it must take one request and return a stream; write it so"),
        _ => None,
    }
}

fn publish_plan(method: &MethodDescriptor, rule: &DynamicMessage, responds: bool, faults: &mut Faults) -> PublishPlan {
    let message = method.input();
    let topic = text(rule, "topic");
    if let Some(fault) = topic_fault(&topic) {
        faults.add(method.full_name(), fault);
    }
    let key = match text(rule, "key") {
        path if path.is_empty() => None,
        path => match Key::find(&message, &path) {
            Ok(key) => Some(key),
            Err(fault) => {
                faults.add(method.full_name(), fault);
                None
            }
        },
    };
    let mut wrong = Vec::new();
    let response = if responds { ResponseLayout::new(&method.output(), &mut wrong) } else { ResponseLayout::default() };
    wrong.into_iter().for_each(|fault| faults.add(method.full_name(), fault));
    if faults.messages.insert(message.full_name().to_owned())
        && let Some(fault) = rules_fault(&message)
    {
        faults.add(message.full_name(), fault);
    }
    let stamps = stamps(&message, faults);
    PublishPlan { topic, key, message, stamps, response }
}

fn subscribe_plan(method: &MethodDescriptor, rule: &DynamicMessage, faults: &mut Faults) -> SubscribePlan {
    let table = text(rule, "table");
    if table.is_empty() {
        faults.add(method.full_name(), "subscribe names no table; set `table` to the table's location");
    }
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    SubscribePlan { path, table, request: method.input(), row: method.output() }
}

fn text(rule: &DynamicMessage, field: &str) -> String {
    let value = rule.get_field_by_name(field);
    value.as_deref().and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn topic_fault(topic: &str) -> Option<String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if topic.is_empty() {
        return Some("publish names no topic; set `topic`".to_owned());
    }
    if topic.len() > MAX_TOPIC_LENGTH || !topic.chars().all(is_allowed) || topic == "." || topic == ".." {
        return Some(format!(
            "topic {topic:?} is no name of a topic; use at most {MAX_TOPIC_LENGTH} letters, digits, `.`, `_` and `-`"
        ));
    }
    None
}

/// The fields of a published message that the server writes.
fn stamps(message: &MessageDescriptor, faults: &mut Faults) -> Vec<StampField> {
    let mut fields = Vec::new();
    for field in message.fields() {
        let Some(name) = stamp_name(&field) else { continue };
        match StampField::new(&field, &name) {
            Ok(field) => fields.push(field),
            Err(fault) => faults.add(field.full_name(), fault),
        }
    }
    let mut seen = HashSet::new();
    let mut open = inner_messages(message);
    while let Some(inner) = open.pop() {
        if !seen.insert(inner.full_name().to_owned()) {
            continue;
        }
        for field in inner.fields().filter(|field| stamp_name(field).is_some()) {
            let (field, of) = (field.full_name().to_owned(), message.full_name());
            faults.add(
                &field,
                format!(
                    "it is stamped and lies inside the published message {of}; only fields of the \
                                        published message itself can be stamped: move it there"
                ),
            );
        }
        open.extend(inner_messages(&inner));
    }
    fields
}

/// The name of the field's stamp, or its number when that has no name.
fn stamp_name(field: &FieldDescriptor) -> Option<String> {
    let extension = field.parent_message().parent_pool().get_extension_by_name(STAMP)?;
    let options = field.options();
    if !options.has_extension(&extension) {
        return None;
    }
    let number = options.get_extension(&extension).as_enum_number()?;
    let name = extension.kind().as_enum().and_then(|of| of.get_value(number)).map(|value| value.name().to_owned());
    (number != 0).then(|| name.unwrap_or_else(|| number.to_string()))
}

fn inner_messages(message: &MessageDescriptor) -> Vec<MessageDescriptor> {
    message.fields().filter_map(|field| field.kind().as_message().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        let found = plan(&samples::with_imports(text)).err().unwrap_or_default();
        found.iter().map(RuleFault::to_string).collect()
    }

    /// The faults of a method that publishes `M`, which has those fields.
    fn of_fields(key: &str, fields: &str) -> Vec<String> {
        faults(&format!(
            "message R {{ }} message M {{ {fields} }} \
             message I {{ string p = 1 [(flumen.v1.stamp) = PEER]; M m = 2; }} \
             service S {{ rpc P(M) returns (R) {{ option (flumen.v1.publish) = {{topic: \"a\" key: \"{key}\"}}; }} }}"
        ))
    }

    #[test]
    fn the_ads_have_a_plan() {
        let plan = plan(&samples::ads()).unwrap();
        let told: Vec<_> = plan.methods.iter().map(|method| (method.path.as_str(), method.shape)).collect();
        assert_eq!(
            told,
            [
                ("/ads.v1.ClickTrackService/AdTrack", CallShape::Unary),
                ("/ads.v1.ClickTrackService/AdTrackStream", CallShape::Bidirectional),
                ("/ads.v1.ClickTrackService/AdTrackUpload", CallShape::ClientStreaming),
                ("/ads.v1.ClickTrackService/Scores", CallShape::ServerStreaming),
                ("/ads.v1.ClickTrackService/Track", CallShape::Bidirectional),
            ]
        );
        let publish = plan.methods[0].publish().unwrap();
        assert_eq!((publish.topic.as_str(), publish.key.as_ref().unwrap().path()), ("ad-impressions", "ad_id"));
        assert_eq!(publish.stamps.len(), 1);
        assert!(publish.response.has_code());
        assert_eq!(plan.methods[3].subscribe().unwrap().table, "tables/scored_impressions");
        assert!(plan.methods[4].publish().is_some() && plan.methods[4].subscribe().is_some());
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let found = faults(
            "message R { string code = 1; } \
             message M { string s = 1; int32 at = 2 [(flumen.v1.stamp) = SERVER_TIME]; double d = 3; } \
             message N { M m = 1; } \
             service S { \
               rpc A(M) returns (R) { option (flumen.v1.publish) = {topic: \"a\" key: \"x\"}; } \
               rpc B(M) returns (R) { option (flumen.v1.publish) = {topic: \"a b\" key: \"d\"}; } \
               rpc C(M) returns (stream R) { option (flumen.v1.publish) = {}; } \
               rpc D(N) returns (N) { option (flumen.v1.publish) = {topic: \"a\"}; } \
               rpc E(N) returns (N) { option (flumen.v1.subscribe) = {}; } \
               rpc F(N) returns (stream N) { option (flumen.v1.publish) = {topic: \"a\"}; \
                 option (flumen.v1.subscribe) = {table: \"t\"}; } \
               rpc G(N) returns (stream N); \
             }",
        );
        let expected = [
            "t.S.A: key \"x\": t.M has no field \"x\"; name one of s, at, d",
            "t.S.A: the response t.R has a field \"code\", which the gateway fills and which is not an integer; change \
             its type or its name",
            "t.M.at: stamp SERVER_TIME needs a google.protobuf.Timestamp or an int64 of microseconds; change the \
             field's type",
            "t.S.B: topic \"a b\" is no name of a topic; use at most 249 letters, digits, `.`, `_` and `-`",
            "t.S.B: key \"d\" is of the type double, which is no key; name a string, bytes or an integer",
            "t.S.B: the response t.R has a field \"code\", which the gateway fills and which is not an integer; change \
             its type or its name",
            "t.S.C: it publishes one message and returns a stream; return one response, or take a stream too",
            "t.S.C: publish names no topic; set `topic`",
            "t.S.C: the response t.R has a field \"code\", which the gateway fills and which is not an integer; change \
             its type or its name",
            "t.M.at: it is stamped and lies inside the published message t.N; only fields of the published message \
             itself can be stamped: move it there",
            "t.S.E: with subscribe it must take one request and return a stream; write it so",
            "t.S.E: subscribe names no table; set `table` to the table's location",
            "t.S.F: with both publish and subscribe it must be bidirectional: write `stream` before both messages, or \
             keep one of the two rules",
        ];
        assert_eq!(found, expected, "{found:#?}");
    }

    #[test]
    fn two_rules_and_unknown_words_do_not_compile() {
        let method = |rules: &str| {
            samples::refused(&samples::imports(&format!(
                "message M {{ string s = 1 [(flumen.v1.stamp) = NOW]; }} \
                 service S {{ rpc A(M) returns (M) {{ {rules} }} }}"
            )))
        };
        assert!(method("").contains("NOW"), "{}", method(""));
        let twice = "option (flumen.v1.publish) = {topic: \"a\"}; option (flumen.v1.publish) = {topic: \"b\"};";
        let text = samples::imports(&format!("message M {{ }} service S {{ rpc A(M) returns (M) {{ {twice} }} }}"));
        let error = samples::refused(&text);
        assert!(error.contains("publish"), "{error}");
        let unknown = samples::imports(
            "message M { } service S { rpc A(M) returns (M) { option (flumen.v1.publish) = {subject: \"a\"}; } }",
        );
        let error = samples::refused(&unknown);
        assert!(error.contains("invalid value of type 'flumen.v1.Publish'"), "{error}");
    }

    #[test]
    fn stamps_are_where_only_the_server_writes() {
        assert_eq!(of_fields("s", "string s = 1; optional string p = 2 [(flumen.v1.stamp) = PEER];"), [""; 0]);
        let id = "string id = 1 [(flumen.v1.stamp) = REQUEST_ID];";
        assert_eq!(of_fields("id", id), [""; 0], "a stamp may be the key");
        assert!(of_fields("", "map<string, I> m = 1;")[0].starts_with("t.I.p: it is stamped and lies inside"));
        // A message inside itself would carry what a client wrote.
        assert!(of_fields("", &format!("{id} repeated M more = 2;"))[0].starts_with("t.M.id: it is stamped and lies"));
        assert!(
            of_fields("", "oneof o { string p = 1 [(flumen.v1.stamp) = PEER]; }")[0].contains("of the oneof \"o\"")
        );
        assert_eq!(of_fields("", "int32 i = 1 [(flumen.v1.stamp) = STAMP_UNSPECIFIED];"), [""; 0]);
    }

    #[test]
    fn rules_that_cannot_be_evaluated_are_named() {
        let wrong = of_fields("", "string s = 1 [(buf.validate.field).int32.gt = 1];");
        assert!(wrong[0].starts_with("t.M: its buf.validate rules do not fit: "), "{wrong:?}");
        let cel = "string s = 1 [(buf.validate.field).cel = {id: \"x\" expression: \"this.(\"}];";
        assert!(of_fields("", cel)[0].starts_with("t.M: its buf.validate rules do not fit: "));
        let inner = "message J { string s = 1 [(buf.validate.field).bytes.len = 1]; } repeated J j = 1;";
        assert!(of_fields("", inner)[0].starts_with("t.M: its buf.validate rules do not fit: "));
    }

    #[test]
    fn nothing_to_serve_is_a_fault() {
        let found = faults("message M { } service S { rpc A(M) returns (M); }");
        assert!(found[0].starts_with("gateway: no method has the option"), "{found:?}");
    }

    #[test]
    fn two_methods_may_publish_different_messages_to_one_topic() {
        let text = "message M { } message N { } service S { \
            rpc A(M) returns (M) { option (flumen.v1.publish) = {topic: \"a\"}; } \
            rpc B(N) returns (M) { option (flumen.v1.publish) = {topic: \"a\"}; } }";
        assert_eq!(plan(&samples::with_imports(text)).unwrap().methods.len(), 2);
    }
}
