//! What several tests share.

use prost_reflect::prost::Message as _;
use prost_reflect::{DescriptorPool, MessageDescriptor};

/// The imports of [`message_of`].
const IMPORTS: &str = "
    import \"google/protobuf/any.proto\"; import \"google/protobuf/duration.proto\";
    import \"google/protobuf/empty.proto\"; import \"google/protobuf/field_mask.proto\";
    import \"google/protobuf/struct.proto\"; import \"google/protobuf/timestamp.proto\";
    import \"google/protobuf/wrappers.proto\"; import \"google/type/date.proto\";
    import \"google/type/timeofday.proto\";";

struct Calendar;

impl protox::file::FileResolver for Calendar {
    fn open_file(&self, name: &str) -> Result<protox::file::File, protox::Error> {
        let source = match name {
            "google/type/date.proto" => "message Date { int32 year = 1; int32 month = 2; int32 day = 3; }",
            "google/type/timeofday.proto" => {
                "message TimeOfDay { int32 hours = 1; int32 minutes = 2; int32 seconds = 3; int32 nanos = 4; }"
            }
            _ => return Err(protox::Error::file_not_found(name)),
        };
        protox::file::File::from_source(name, &format!("syntax = \"proto3\"; package google.type; {source}"))
    }
}

struct Text(String);

impl protox::file::FileResolver for Text {
    fn open_file(&self, name: &str) -> Result<protox::file::File, protox::Error> {
        match name {
            "t.proto" => protox::file::File::from_source(name, &self.0),
            _ => Err(protox::Error::file_not_found(name)),
        }
    }
}

/// The message `M` of a file with this body; proto3, unless it says its syntax.
pub fn message_of(body: &str) -> MessageDescriptor {
    let (syntax, body) = match body.strip_prefix("proto2") {
        Some(body) => ("proto2", body),
        None => ("proto3", body),
    };
    let source = format!("syntax = \"{syntax}\"; {IMPORTS} {body}");
    let mut resolver = protox::file::ChainFileResolver::new();
    resolver.add(Text(source));
    resolver.add(Calendar);
    resolver.add(protox::file::GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).open_file("t.proto").unwrap();
    let set = compiler.file_descriptor_set();
    let pool = DescriptorPool::decode(set.encode_to_vec().as_slice()).unwrap();
    pool.get_message_by_name("M").unwrap()
}
