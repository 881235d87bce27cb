//! The messages of ONNX files that are read, declared by hand after `onnx.proto`. What is left out is skipped.

use std::collections::HashSet;

use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::{damaged, refused};
use crate::error::Result;

/// A file may have this many nodes, attributes, tensors, inputs and outputs.
const MAX_MESSAGES: usize = 1 << 18;
/// A file may have this many strings in its attributes, tensors and nodes.
const MAX_STRINGS: usize = 1 << 24;

#[derive(Clone, PartialEq, Message)]
pub(super) struct ModelProto {
    #[prost(int64, tag = "1")]
    pub ir_version: i64,
    #[prost(string, tag = "2")]
    pub producer_name: String,
    #[prost(string, tag = "3")]
    pub producer_version: String,
    #[prost(message, optional, tag = "7")]
    pub graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<OperatorSetProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OperatorSetProto {
    #[prost(string, tag = "1")]
    pub domain: String,
    #[prost(int64, tag = "2")]
    pub version: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<NodeProto>,
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<ValueProto>,
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<ValueProto>,
    #[prost(bytes = "vec", repeated, tag = "15")]
    pub sparse_initializer: Vec<Vec<u8>>,
}

impl GraphProto {
    /// What is given for each row, each name once. Old files list constants among the inputs.
    pub fn given(&self) -> impl Iterator<Item = &ValueProto> {
        let mut seen: HashSet<&str> = self.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
        self.input.iter().filter(move |value| seen.insert(&value.name))
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(string, tag = "4")]
    pub op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<AttributeProto>,
    #[prost(string, tag = "7")]
    pub domain: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct AttributeProto {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(float, tag = "2")]
    pub f: f32,
    #[prost(int64, tag = "3")]
    pub i: i64,
    #[prost(bytes = "vec", tag = "4")]
    pub s: Vec<u8>,
    #[prost(message, optional, tag = "5")]
    pub t: Option<TensorProto>,
    #[prost(bytes = "vec", optional, tag = "6")]
    pub g: Option<Vec<u8>>,
    #[prost(float, repeated, tag = "7")]
    pub floats: Vec<f32>,
    #[prost(int64, repeated, tag = "8")]
    pub ints: Vec<i64>,
    #[prost(bytes = "vec", repeated, tag = "9")]
    pub strings: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "11")]
    pub graphs: Vec<Vec<u8>>,
    #[prost(int32, tag = "20")]
    pub kind: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TensorProto {
    #[prost(int64, repeated, tag = "1")]
    pub dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub data_type: i32,
    #[prost(float, repeated, tag = "4")]
    pub float_data: Vec<f32>,
    #[prost(int32, repeated, tag = "5")]
    pub int32_data: Vec<i32>,
    #[prost(bytes = "vec", repeated, tag = "6")]
    pub string_data: Vec<Vec<u8>>,
    #[prost(int64, repeated, tag = "7")]
    pub int64_data: Vec<i64>,
    #[prost(string, tag = "8")]
    pub name: String,
    #[prost(bytes = "vec", tag = "9")]
    pub raw_data: Vec<u8>,
    #[prost(double, repeated, tag = "10")]
    pub double_data: Vec<f64>,
    #[prost(int32, tag = "14")]
    pub data_location: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ValueProto {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub kind: Option<TypeProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TypeProto {
    #[prost(message, optional, tag = "1")]
    pub tensor: Option<TensorTypeProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TensorTypeProto {
    #[prost(int32, tag = "1")]
    pub elements: i32,
    #[prost(message, optional, tag = "2")]
    pub shape: Option<ShapeProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ShapeProto {
    #[prost(message, repeated, tag = "1")]
    pub dim: Vec<DimensionProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DimensionProto {
    #[prost(int64, tag = "1")]
    pub value: i64,
}

/// A message of the format, as far as [`count`] looks into it: the fields that are messages, and those that are strings
/// of which there may be many.
struct Layout {
    messages: &'static [(u32, &'static Layout)],
    strings: &'static [u32],
}

const PLAIN: Layout = Layout { messages: &[], strings: &[] };
const TENSOR: Layout = Layout { messages: &[], strings: &[6] };
const ATTRIBUTE: Layout = Layout { messages: &[(5, &TENSOR)], strings: &[9, 11] };
const NODE: Layout = Layout { messages: &[(5, &ATTRIBUTE)], strings: &[1, 2] };
const SHAPE: Layout = Layout { messages: &[(1, &PLAIN)], strings: &[] };
const TENSOR_TYPE: Layout = Layout { messages: &[(2, &SHAPE)], strings: &[] };
const TYPE: Layout = Layout { messages: &[(1, &TENSOR_TYPE)], strings: &[] };
const VALUE: Layout = Layout { messages: &[(2, &TYPE)], strings: &[] };
const GRAPH: Layout = Layout { messages: &[(1, &NODE), (5, &TENSOR), (11, &VALUE), (12, &VALUE)], strings: &[15] };
const MODEL: Layout = Layout { messages: &[(7, &GRAPH), (8, &PLAIN)], strings: &[] };

#[derive(Default)]
struct Counts {
    messages: usize,
    strings: usize,
}

/// Counts what would be allocated for: an empty message takes two bytes of the file and hundreds of memory.
fn count(mut bytes: &[u8], layout: &Layout, counts: &mut Counts) -> Result<()> {
    let broken = |_| damaged("it is no protobuf message of ONNX");
    while !bytes.is_empty() {
        let (tag, wire) = decode_key(&mut bytes).map_err(broken)?;
        if wire != WireType::LengthDelimited {
            skip_field(wire, tag, &mut bytes, DecodeContext::default()).map_err(broken)?;
            continue;
        }
        let length = decode_varint(&mut bytes).map_err(broken)?;
        let Some((field, rest)) = usize::try_from(length).ok().and_then(|length| bytes.split_at_checked(length)) else {
            return Err(damaged("it is cut off"));
        };
        bytes = rest;
        if layout.strings.contains(&tag) {
            counts.strings += 1;
        }
        if let Some((_, inner)) = layout.messages.iter().find(|(of, _)| *of == tag) {
            counts.messages += 1;
            count(field, inner, counts)?;
        }
        if counts.messages > MAX_MESSAGES || counts.strings > MAX_STRINGS {
            return Err(refused(format!(
                "it has more than {MAX_MESSAGES} nodes, attributes and tensors or {MAX_STRINGS} strings"
            )));
        }
    }
    Ok(())
}

/// Reads the messages of a file.
pub(super) fn read(bytes: &[u8]) -> Result<ModelProto> {
    if bytes.is_empty() {
        return Err(damaged("it is empty"));
    }
    count(bytes, &MODEL, &mut Counts::default())?;
    ModelProto::decode(bytes).map_err(|error| damaged("it is no protobuf message of ONNX").caused_by(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_empty_messages_is_refused_before_it_is_read() {
        let nodes = [0x0a, 0x00].repeat(MAX_MESSAGES + 1);
        let mut bytes = vec![0x3a];
        prost::encoding::encode_varint(nodes.len() as u64, &mut bytes);
        bytes.extend(nodes);
        let error = read(&bytes).unwrap_err().to_string();
        assert!(error.starts_with("it has more than 262144 nodes"), "{error}");
    }

    #[test]
    fn what_is_no_protobuf_is_refused() {
        let fault = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
        assert_eq!(fault(b""), "it is empty; export the model again");
        assert_eq!(fault(b":\xff\x01a"), "it is cut off; export the model again");
        assert_eq!(fault(b"{\"learner\": 1}"), "it is no protobuf message of ONNX; export the model again");
    }
}
