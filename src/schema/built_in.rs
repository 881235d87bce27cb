//! `.proto` files that everybody may import: the words of the gateway, the rules of protovalidate, the schema
//! registry's own and the small ones of `google.type`.

use protox::Error as Compilation;
use protox::file::File;

/// What files import without having it, besides `google/protobuf`.
const BUILT_IN: [(&str, &str); 13] = [
    ("confluent/meta.proto", include_str!("../../proto/confluent/meta.proto")),
    ("confluent/type/decimal.proto", include_str!("../../proto/confluent/type/decimal.proto")),
    ("flumen/v1/gateway.proto", include_str!("../../proto/flumen/v1/gateway.proto")),
    ("google/type/date.proto", include_str!("../../proto/google/type/date.proto")),
    ("google/type/datetime.proto", include_str!("../../proto/google/type/datetime.proto")),
    ("google/type/dayofweek.proto", include_str!("../../proto/google/type/dayofweek.proto")),
    ("google/type/decimal.proto", include_str!("../../proto/google/type/decimal.proto")),
    ("google/type/fraction.proto", include_str!("../../proto/google/type/fraction.proto")),
    ("google/type/interval.proto", include_str!("../../proto/google/type/interval.proto")),
    ("google/type/latlng.proto", include_str!("../../proto/google/type/latlng.proto")),
    ("google/type/money.proto", include_str!("../../proto/google/type/money.proto")),
    ("google/type/month.proto", include_str!("../../proto/google/type/month.proto")),
    ("google/type/timeofday.proto", include_str!("../../proto/google/type/timeofday.proto")),
];

/// The file of protovalidate, which its own crate has compiled.
const VALIDATE: &str = "buf/validate/validate.proto";

/// A file that is built in.
pub(super) fn built_in(name: &str) -> Option<Result<File, Compilation>> {
    if name == VALIDATE {
        let file = prost_protovalidate_types::DESCRIPTOR_POOL.get_file_by_name(name)?;
        return Some(Ok(File::from_file_descriptor_proto(file.file_descriptor_proto().clone())));
    }
    BUILT_IN.iter().find(|(known, _)| *known == name).map(|(_, text)| File::from_source(name, text))
}
