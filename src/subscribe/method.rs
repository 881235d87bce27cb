//! One method with `flumen.v1.subscribe`: its two messages over the columns of a table.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use prost_reflect::{DynamicMessage, MessageDescriptor};

use crate::subscribe::encode::{EncodeOptions, PlanFault};
use crate::subscribe::ending::{Code, Ending};
use crate::subscribe::filter::{Filter, FilterPlan, is_text};
use crate::subscribe::follow::Followed;
use crate::subscribe::hub::Outlet;
use crate::subscribe::start::Start;

/// The plan of one method. It needs no network: `flumen check` makes it too.
#[derive(Debug)]
pub struct SubscribeMethod {
    request: MessageDescriptor,
    requests: FilterPlan,
    outlet: Arc<Outlet>,
    /// The column by which rows belong to a stream that publishes too, and its type.
    follows: Option<(Follow, DataType)>,
}

/// By what rows belong to the stream that published their messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Follow {
    /// A column with the id that the server stamped on each message.
    RequestId(String),
    /// A column with the record's key.
    Key(String),
}

impl Follow {
    /// The column.
    pub fn column(&self) -> &str {
        match self {
            Follow::RequestId(column) | Follow::Key(column) => column,
        }
    }
}

impl SubscribeMethod {
    /// The method that takes `request` and answers with `result`, of at most so many bytes, over a table with this
    /// schema.
    ///
    /// # Errors
    /// All that is wrong with both messages, at once; each fault names its message.
    pub fn plan(
        request: &MessageDescriptor,
        result: &MessageDescriptor,
        schema: &SchemaRef,
        options: EncodeOptions,
        message_bytes: usize,
    ) -> Result<Self, Vec<PlanFault>> {
        let of = |message: &MessageDescriptor, faults: Vec<PlanFault>| {
            let name = message.full_name().to_owned();
            faults.into_iter().map(move |fault| PlanFault { field: format!("{name}.{}", fault.field), ..fault })
        };
        let requests = FilterPlan::plan(request, schema).map_err(|faults| of(request, faults));
        let outlet = Outlet::plan(result, schema, options, message_bytes).map_err(|faults| of(result, faults));
        match (requests, outlet) {
            (Ok(requests), Ok(outlet)) => Ok(Self::new(request, requests, outlet, None)),
            (requests, outlet) => {
                Err(requests.err().into_iter().flatten().chain(outlet.err().into_iter().flatten()).collect())
            }
        }
    }

    /// The method of a stream that takes `message`, publishes it, and answers with its rows as `result`. They are found
    /// by the first of `follow` that the table has a column for.
    ///
    /// # Errors
    /// All that is wrong, at once.
    pub fn track(
        message: &MessageDescriptor,
        result: &MessageDescriptor,
        follow: &[Follow],
        schema: &SchemaRef,
        message_bytes: usize,
    ) -> Result<Self, Vec<PlanFault>> {
        let outlet = Outlet::plan(result, schema, EncodeOptions::default(), message_bytes);
        let column = |follow: &Follow| {
            let field = schema.field_with_name(follow.column()).ok()?;
            let fits = match follow {
                Follow::RequestId(_) => is_text(field.data_type()),
                Follow::Key(_) => is_text(field.data_type()) || field.data_type().is_integer(),
            };
            fits.then(|| (follow.clone(), field.data_type().clone()))
        };
        let follows = follow.iter().find_map(column);
        let mut faults = outlet.as_ref().err().cloned().unwrap_or_default();
        if follows.is_none() {
            let columns: Vec<String> = follow.iter().map(|follow| format!("`{}`", follow.column())).collect();
            let message = match columns.as_slice() {
                [] => {
                    "nothing says which rows are those of a stream: set `key` of publish, or stamp a field REQUEST_ID, \
                       and let the table have a column of its name"
                        .to_owned()
                }
                columns => format!(
                    "the table has no column {} with texts, by which the rows of a stream are found; select it",
                    columns.join(" or ")
                ),
            };
            faults.push(PlanFault::new("", message));
        }
        match outlet {
            Ok(outlet) if faults.is_empty() => Ok(Self::new(message, FilterPlan::nothing(), outlet, follows)),
            _ => Err(faults),
        }
    }

    fn new(
        request: &MessageDescriptor,
        requests: FilterPlan,
        outlet: Outlet,
        follows: Option<(Follow, DataType)>,
    ) -> Self {
        Self { request: request.clone(), requests, outlet: Arc::new(outlet), follows }
    }

    /// The rows of a stream whose messages have ids that begin with `request_id`, and these keys; `None` when the
    /// method does not publish.
    pub fn of_stream(&self, request_id: &str, keys: &Arc<Followed>) -> Option<Filter> {
        let (follow, data_type) = self.follows.as_ref()?;
        Some(match follow {
            Follow::RequestId(column) => Filter::beginning_with(column, data_type, request_id),
            Follow::Key(column) => Filter::following(column, data_type, Arc::clone(keys)),
        })
    }

    /// What a request on the wire asks for.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`, with what to change.
    pub fn read(&self, request: &[u8]) -> Result<(Filter, Start), Ending> {
        let wrong = |why: String| Ending::new(Code::InvalidArgument, why);
        let request = DynamicMessage::decode(self.request.clone(), request).map_err(|e| {
            wrong(format!("the request is no {}: {e}; send a message of that type", self.request.full_name()))
        })?;
        let filter = self.requests.filter(&request).map_err(|error| wrong(error.message().to_owned()))?;
        let start = Start::of_request(&request).map_err(|error| wrong(error.message().to_owned()))?;
        Ok((filter, start))
    }

    /// What the rows become.
    pub fn outlet(&self) -> &Arc<Outlet> {
        &self.outlet
    }

    /// The columns that have to be read for it.
    pub fn columns(&self) -> BTreeSet<String> {
        let followed = self.follows.iter().map(|(follow, _)| follow.column().to_owned());
        self.outlet.columns().into_iter().chain(self.requests.columns().map(str::to_owned)).chain(followed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subscribe::tests::message_of;
    use arrow::datatypes::{DataType, Field, Schema};
    use prost_reflect::prost::Message as _;
    use prost_reflect::{ReflectMessage as _, Value};

    fn schema() -> SchemaRef {
        let field = |name: &str, of| Field::new(name, of, true);
        Arc::new(Schema::new(vec![
            field("ad_id", DataType::Utf8),
            field("score", DataType::Float64),
            field("unused", DataType::Utf8),
            field("user_id", DataType::Utf8),
        ]))
    }

    #[test]
    fn faults_of_both_messages_are_told() {
        let request = message_of("message M { string ad = 1; int32 start = 2; }");
        let result = message_of("message M { string ad_id = 1; int64 score = 2; }");
        let faults = SubscribeMethod::plan(&request, &result, &schema(), EncodeOptions::default(), 100).unwrap_err();
        let fields: Vec<&str> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, ["M.start", "M.ad", "M.score"]);
    }

    #[test]
    fn a_request_is_read() {
        let request = message_of("message M { string user_id = 1; string start = 2; }");
        let result = message_of("message M { string ad_id = 1; double score = 2; string cursor = 3; }");
        let method = SubscribeMethod::plan(&request, &result, &schema(), EncodeOptions::default(), 100).unwrap();
        assert_eq!(method.columns().into_iter().collect::<Vec<_>>(), ["ad_id", "score", "user_id"]);
        assert!(method.outlet().carries_cursor());
        let mut message = DynamicMessage::new(request);
        assert_eq!(message.descriptor().full_name(), "M");
        message.set_field_by_name("start", Value::String("earliest".into()));
        let (filter, start) = method.read(&message.encode_to_vec()).unwrap();
        assert!(filter.is_empty());
        assert_eq!(start, Start::Earliest);
        for (bytes, says) in [(&[0x0a, 9][..], "the request is no M"), (&[0x12, 1, b'x'], "`start` is none of")] {
            let ending = method.read(bytes).unwrap_err();
            assert_eq!(ending.code, Code::InvalidArgument);
            assert!(ending.message.contains(says), "{ending}");
        }
    }
}
