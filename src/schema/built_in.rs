//! `.proto` files that everybody may import: the schema registry's own and the small ones of `google.type`.

/// What files import without having it, besides `google/protobuf`.
const BUILT_IN: [(&str, &str); 12] = [
    ("confluent/meta.proto", include_str!("../../proto/confluent/meta.proto")),
    ("confluent/type/decimal.proto", include_str!("../../proto/confluent/type/decimal.proto")),
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

/// The text of a file that is built in.
pub(super) fn built_in(name: &str) -> Option<&'static str> {
    BUILT_IN.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}
