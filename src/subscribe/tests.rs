//! What several tests share.

use std::collections::BTreeMap;

use prost_reflect::MessageDescriptor;

use crate::schema::Descriptors;

/// The imports of [`message_of`].
const IMPORTS: &str = "
    import \"google/protobuf/any.proto\"; import \"google/protobuf/duration.proto\";
    import \"google/protobuf/empty.proto\"; import \"google/protobuf/field_mask.proto\";
    import \"google/protobuf/struct.proto\"; import \"google/protobuf/timestamp.proto\";
    import \"google/protobuf/wrappers.proto\"; import \"google/type/date.proto\";
    import \"google/type/timeofday.proto\";";

/// The message `M` of a file with this body; proto3, unless it says its syntax.
pub fn message_of(body: &str) -> MessageDescriptor {
    let (syntax, body) = match body.strip_prefix("proto2") {
        Some(body) => ("proto2", body),
        None => ("proto3", body),
    };
    let source = format!("syntax = \"{syntax}\"; {IMPORTS} {body}");
    let texts = BTreeMap::from([("t.proto".to_owned(), source)]);
    Descriptors::from_texts("t.proto", texts).unwrap().message("M").unwrap()
}
