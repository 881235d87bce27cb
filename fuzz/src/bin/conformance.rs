//! A testee of protobuf's own conformance suite: `scripts/conformance` runs it. A message is accepted when the decoder
//! accepts it; its columns are then compared with what prost-reflect reads, and the message is written back by
//! prost-reflect, which passes all of the suite itself. Formats other than the binary one are skipped.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::path::PathBuf;

use arrow::datatypes::Fields;
use flumen::decode::{Decoder, Selection};
use flumen::schema::{Descriptors, columns};
use flumen_fuzz::targets::verdict::{names, oracle, row};
use prost_reflect::prost::Message;
use prost_reflect::{DynamicMessage, MessageDescriptor, Value};

const FILES: [&str; 5] = [
    "google/protobuf/test_messages_proto2.proto",
    "google/protobuf/test_messages_proto3.proto",
    "google/protobuf/test_messages_proto2_editions.proto",
    "google/protobuf/test_messages_proto3_editions.proto",
    "google/protobuf/test_messages_edition2023.proto",
];

struct Testee {
    message: MessageDescriptor,
    fields: Fields,
    decoder: Decoder,
}

fn main() {
    let include = PathBuf::from(std::env::args().nth(1).expect("the directory of the suite's .proto files"));
    let compile = |file: &str| {
        let includes = std::slice::from_ref(&include);
        Descriptors::compile(&[include.join(file)], includes).unwrap_or_else(|fault| panic!("{fault}"))
    };
    let all: Vec<Descriptors> = FILES.iter().map(|file| compile(file)).collect();
    let suite = compile("conformance/conformance.proto");
    let [request, response] = ["ConformanceRequest", "ConformanceResponse"]
        .map(|name| suite.message(&format!("conformance.{name}")).expect("the suite's own messages"));
    let mut testees = HashMap::new();
    while let Some(bytes) = next_request() {
        let asked = DynamicMessage::decode(request.clone(), &bytes[..]).expect("a request");
        let name = asked.get_field_by_name("message_type").unwrap().as_str().unwrap().to_string();
        let testee = testees.entry(name.clone()).or_insert_with(|| {
            let message = all.iter().find_map(|of| of.message(&name)).unwrap_or_else(|| panic!("no message {name}"));
            let fields = columns(&message).unwrap();
            let decoder = Decoder::new(&message, &names(&fields), &Selection::All).unwrap();
            Testee { message, fields, decoder }
        });
        let (field, value) = testee.answer(&asked);
        let mut answer = DynamicMessage::new(response.clone());
        answer.set_field_by_name(field, value);
        let bytes = answer.encode_to_vec();
        let mut out = std::io::stdout().lock();
        out.write_all(&(bytes.len() as u32).to_le_bytes()).and_then(|()| out.write_all(&bytes)).expect("a reader");
        out.flush().expect("a reader");
    }
}

fn next_request() -> Option<Vec<u8>> {
    let mut input = std::io::stdin().lock();
    let mut length = [0; 4];
    match input.read_exact(&mut length) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return None,
        read => read.expect("a request"),
    }
    let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
    input.read_exact(&mut bytes).expect("a request");
    Some(bytes)
}

impl Testee {
    /// The field of the response and its value.
    fn answer(&mut self, asked: &DynamicMessage) -> (&'static str, Value) {
        let binary = asked.get_field_by_name("requested_output_format").unwrap().as_enum_number() == Some(1);
        if !asked.has_field_by_name("protobuf_payload") || !binary {
            return ("skipped", Value::String("another format".into()));
        }
        let payload = asked.get_field_by_name("protobuf_payload").unwrap().as_bytes().unwrap().clone();
        if let Err(fault) = self.decoder.push(&payload) {
            return ("parse_error", Value::String(fault.to_string()));
        }
        let batch = self.decoder.finish().unwrap();
        match DynamicMessage::decode(self.message.clone(), &payload[..]) {
            Err(error) => ("runtime_error", Value::String(format!("accepted, the oracle says: {error}"))),
            Ok(message) if row(&batch, 0, &self.message) == oracle(&message, &self.fields) => {
                ("protobuf_payload", Value::Bytes(message.encode_to_vec().into()))
            }
            Ok(message) => {
                let (ours, theirs) = (row(&batch, 0, &self.message), oracle(&message, &self.fields));
                let differs = ours.iter().zip(&theirs).position(|(a, b)| a != b).unwrap_or(0);
                let text = format!(
                    "{}: {:?}, the oracle reads {:?}",
                    self.fields[differs].name(),
                    ours[differs],
                    theirs[differs]
                );
                ("runtime_error", Value::String(text))
            }
        }
    }
}
