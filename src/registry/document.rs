//! What a registry answers.

use serde::Deserialize;

/// A schema as it was registered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Document {
    /// The text.
    pub(super) schema: String,
    /// The kind of schema; none means Avro.
    kind: Option<String>,
    /// What it imports.
    pub(super) references: Vec<Reference>,
}

/// An import of a schema.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Reference {
    /// The name by which it is imported.
    pub(super) name: String,
    /// Where it was registered.
    pub(super) subject: String,
    /// Which version of it.
    pub(super) version: i32,
}

/// Registries leave out what is empty, or write null.
#[derive(Deserialize)]
struct Answer {
    schema: String,
    #[serde(rename = "schemaType")]
    kind: Option<String>,
    references: Option<Vec<Reference>>,
}

impl Document {
    /// Reads an answer to either question.
    ///
    /// # Errors
    /// Why it is none.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let Answer { schema, kind, references } = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        Ok(Self { schema, kind, references: references.unwrap_or_default() })
    }

    /// The kind of schema when it is not protobuf.
    pub(super) fn other_type(&self) -> Option<&str> {
        Some(self.kind.as_deref().unwrap_or("AVRO")).filter(|kind| *kind != "PROTOBUF")
    }
}

/// Whether an answer says that what was asked for is not there: that is told by the registry's own code of an error, so
/// that another server's "not found" is none.
pub(super) fn is_not_found(bytes: &[u8]) -> bool {
    let code = |answer: serde_json::Value| answer.get("error_code")?.as_i64();
    serde_json::from_slice(bytes).ok().and_then(code).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_with_and_without_what_is_empty() {
        let full = br#"{"subject":"s","version":2,"id":7,"schemaType":"PROTOBUF","schema":"x",
            "references":[{"name":"a.proto","subject":"a","version":1}]}"#;
        let document = Document::read(full).unwrap();
        let reference = Reference { name: "a.proto".into(), subject: "a".into(), version: 1 };
        assert_eq!((document.schema.as_str(), document.other_type()), ("x", None));
        assert_eq!(document.references, [reference]);
        let avro = Document::read(br#"{"schema":"\"string\"","references":null}"#).unwrap();
        assert_eq!((avro.other_type(), avro.references.len()), (Some("AVRO"), 0));
        assert!(Document::read(b"<html>").is_err() && Document::read(b"{}").is_err());
    }
}
