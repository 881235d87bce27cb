//! Makes fields of recorded protobuf messages unrecognizable, so that a recording may leave the place where its records
//! may be seen.
//!
//! A value is rewritten on the wire: what is not redacted stays byte by byte, unknown fields too. Equal values become
//! equal ones, in all fields and all records of a recording, so that joins and counts stay what they are.

use prost_reflect::{Cardinality, FieldDescriptor, Kind, MessageDescriptor};

use super::disguise::{Disguise, How};
use super::rewrite::{self, Node, Rule};
use crate::error::{Error, Result};
use crate::pipeline::did_you_mean;
use crate::source::{Payloads, RawBatch};

/// What stands for the record's key and for its headers in the place of a field's path.
const KEY: &str = "_key";
const HEADERS: &str = "_headers";

/// What is redacted, and how.
#[derive(Debug)]
pub struct Redaction {
    root: Node,
    key: Option<How>,
    headers: Option<How>,
    disguise: Disguise,
    message: String,
}

/// A batch without what was redacted.
#[derive(Debug)]
pub struct Redacted {
    /// Its records.
    pub batch: RawBatch,
    /// The values that are no message, by row of the original, and why: they are not in `batch`.
    pub broken: Vec<(usize, String)>,
}

impl Redaction {
    /// Reads rules such as `user_id=hash` or `device.ip=null`, for values that are `message`. `salt` goes into every
    /// hash: who does not know it cannot try values out.
    ///
    /// # Errors
    /// `Invalid` for a rule that cannot be read or met: no such field, or one for which there is no such disguise.
    pub fn new(rules: &[String], message: Option<&MessageDescriptor>, salt: &[u8]) -> Result<Self> {
        let mut redaction = Self {
            root: Node::default(),
            key: None,
            headers: None,
            disguise: Disguise::new(salt),
            message: message.map(|m| m.full_name().to_owned()).unwrap_or_default(),
        };
        for rule in rules {
            redaction.add(rule, message).map_err(|error| error.within(format!("--redact {rule}")))?;
        }
        Ok(redaction)
    }

    fn add(&mut self, rule: &str, message: Option<&MessageDescriptor>) -> Result<()> {
        let (path, how) = rule.split_once('=').ok_or_else(|| Error::invalid("write it as FIELD=null, hash or fake"))?;
        let how: How = how.parse()?;
        match path {
            KEY => self.key = Some(how),
            HEADERS => self.headers = Some(how),
            _ => {
                let message = message.ok_or_else(|| {
                    Error::invalid("say what the values are: --proto FILE --message NAME, or --descriptor FILE")
                })?;
                place(&mut self.root, message, path, how)?;
            }
        }
        Ok(())
    }

    /// Redacts the records of a batch.
    pub fn apply(&self, batch: &RawBatch) -> Redacted {
        let mut broken = Vec::new();
        let mut values = Payloads::default();
        let mut kept: Vec<u32> = Vec::with_capacity(batch.len());
        let mut rewritten = Vec::new();
        for (row, value) in batch.values.iter().enumerate() {
            if let Some(value) = value {
                rewritten.clear();
                if let Err(error) = rewrite::message(&self.root, &self.disguise, value, &mut rewritten) {
                    broken.push((row, format!("it is no {}: {error}", self.message)));
                    continue;
                }
            }
            values.push(value.map(|_| &rewritten[..]));
            kept.push(row as u32);
        }
        let mut redacted = batch.only(&kept);
        redacted.values = values;
        self.hide_key(&mut redacted);
        self.hide_headers(&mut redacted);
        Redacted { batch: redacted, broken }
    }

    fn hide_key(&self, batch: &mut RawBatch) {
        let (Some(how), Some(keys)) = (self.key, &batch.keys) else { return };
        let mut hidden = Payloads::default();
        for key in keys.iter() {
            hidden.push(key.and_then(|key| self.disguise.payload(how, key)).as_deref());
        }
        batch.keys = Some(hidden);
    }

    fn hide_headers(&self, batch: &mut RawBatch) {
        let (Some(how), Some(headers)) = (self.headers, &mut batch.headers) else { return };
        for (_, value) in headers.iter_mut().flatten() {
            *value = value.take().and_then(|value| self.disguise.payload(how, &value));
        }
    }
}

/// Adds the rule of one path to the tree of the message.
fn place(root: &mut Node, message: &MessageDescriptor, path: &str, how: How) -> Result<()> {
    let (mut node, mut message) = (root, message.clone());
    let mut names = path.split('.').peekable();
    while let Some(name) = names.next() {
        let field = field(&message, name)?;
        let is_last = names.peek().is_none();
        let rule = node.fields.entry(field.number());
        if is_last {
            let disguised = Rule::Hide(how, kind(&field, how)?);
            if let std::collections::btree_map::Entry::Occupied(_) = rule {
                return Err(Error::invalid(format!("`{path}`, or something in it, is named twice; name it once")));
            }
            rule.or_insert(disguised);
            return Ok(());
        }
        let Kind::Message(inner) = field.kind() else {
            return Err(Error::invalid(format!("`{name}` is no message: nothing is in it; name the field alone")));
        };
        let Rule::Into(next) = rule.or_insert_with(|| Rule::Into(Node::default())) else {
            return Err(Error::invalid(format!("all of `{name}` is redacted already; name one of both")));
        };
        (node, message) = (next, inner);
    }
    Ok(())
}

fn field(message: &MessageDescriptor, name: &str) -> Result<FieldDescriptor> {
    message.get_field_by_name(name).ok_or_else(|| {
        let names: Vec<String> = message.fields().map(|field| field.name().to_owned()).collect();
        let meant = did_you_mean(name, names.iter().map(String::as_str))
            .unwrap_or_else(|| format!("it has {}", names.join(", ")));
        Error::invalid(format!("message {} has no field `{name}`; {meant}", message.full_name()))
    })
}

/// What is on the wire of a field, if it can be hidden so.
fn kind(field: &FieldDescriptor, how: How) -> Result<Kind> {
    let kind = field.kind();
    if how == How::Null {
        return match field.cardinality() {
            Cardinality::Required => Err(Error::invalid(format!(
                "`{}` is required, a message without it is broken; hash or fake it",
                field.name()
            ))),
            _ => Ok(kind),
        };
    }
    match (&kind, how) {
        (Kind::Message(message), _) => Err(Error::invalid(format!(
            "`{}` is a message ({}): set it to null, or name fields in it",
            field.name(),
            message.full_name()
        ))),
        (Kind::Bool | Kind::Enum(_), _) => Err(Error::invalid(format!(
            "`{}` has so few values that any other one tells which it was; set it to null",
            field.name()
        ))),
        (Kind::Double | Kind::Float, How::Hash) => Err(Error::invalid(format!(
            "`{}` is a floating-point number: numbers close by would have nothing in common; set it to null or fake it",
            field.name()
        ))),
        _ => Ok(kind),
    }
}
