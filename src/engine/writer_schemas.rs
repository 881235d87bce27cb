//! The schemas that records were written with, held against the topic's message: which of them can be read as it.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use prost_reflect::MessageDescriptor;

use crate::decode::{DecodeFault, Framed, Reason, SchemaFault, Selection, message_path, unframe};
use crate::error::Result;
use crate::registry::{Registry, SCHEMA_FILE, Schema};
use crate::schema::{MessageShape, Shaping, changes};
use crate::source::RawBatch;

/// The verdicts that are kept. More only come of records that nobody can read.
const KEPT: usize = 1000;

/// Takes records out of their frames when they can be read: the fields that are wanted have the same numbers and types
/// in the schema that they were written with, so that the topic's own plan reads them.
pub(crate) struct WriterSchemas {
    registry: Arc<Registry>,
    reader: MessageShape,
    shaping: Shaping,
    /// The name of the reader's message in its package.
    name: String,
    wanted: Selection,
    verdicts: HashMap<(u32, Box<[u8]>), Verdict>,
    /// Schema and index that were fine the last time: mostly those of the next record.
    last: Option<(u32, Box<[u8]>)>,
}

/// `Err`: why its records cannot be read, and the field.
type Verdict = Result<(), (SchemaFault, String)>;

impl fmt::Debug for WriterSchemas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriterSchemas").field("last", &self.last).finish_non_exhaustive()
    }
}

impl WriterSchemas {
    /// Records of `reader`'s message whose `wanted` fields are read.
    ///
    /// # Errors
    /// None that the pipeline's check has not refused before.
    pub(crate) fn new(
        registry: Arc<Registry>,
        message: &MessageDescriptor,
        shaping: Shaping,
        wanted: Selection,
    ) -> Result<Self> {
        let (name, shaping) = (local_name(message).to_string(), shaping.to_compare());
        let reader = MessageShape::with(message, shaping)?;
        Ok(Self { registry, reader, shaping, name, wanted, verdicts: HashMap::new(), last: None })
    }

    /// The message in a record, when it can be read.
    ///
    /// # Errors
    /// What is wrong with its header or its schema.
    #[inline]
    pub(crate) fn unframe<'a>(&mut self, record: &'a [u8]) -> Result<Framed<'a>, DecodeFault> {
        let framed = unframe(record)?;
        match &self.last {
            Some((schema, index)) if *schema == framed.schema && **index == *framed.index => Ok(framed),
            _ => self.judge(framed),
        }
    }

    #[inline(never)]
    fn judge<'a>(&mut self, framed: Framed<'a>) -> Result<Framed<'a>, DecodeFault> {
        let key = (framed.schema, Box::from(framed.index));
        let known = self.verdicts.get(&key).cloned();
        let verdict = known.unwrap_or_else(|| {
            let verdict = self.verdict(&framed);
            // A schema that is not there may be there the next time.
            if !matches!(verdict, Err((SchemaFault::Unknown, _))) {
                if self.verdicts.len() >= KEPT {
                    self.verdicts.clear();
                }
                self.verdicts.insert(key.clone(), verdict.clone());
            }
            verdict
        });
        match verdict {
            Ok(()) => {
                self.last = Some(key);
                Ok(framed)
            }
            Err((fault, field)) => {
                Err(DecodeFault { reason: Reason::Schema { id: framed.schema, fault }, position: 1, field })
            }
        }
    }

    fn verdict(&self, framed: &Framed<'_>) -> Verdict {
        let refuse = |fault| Err((fault, String::new()));
        let descriptors = match self.registry.known(framed.schema) {
            Some(Schema::Compiled(descriptors)) => descriptors,
            Some(Schema::Invalid(_)) => return refuse(SchemaFault::Invalid),
            Some(Schema::Unknown) | None => return refuse(SchemaFault::Unknown),
        };
        // A package is renamed from version to version.
        let candidates = descriptors.messages_at(SCHEMA_FILE, &message_path(framed.index));
        let Some(message) = candidates.iter().find(|message| local_name(message) == self.name) else {
            let found = candidates.first().map_or("none", MessageDescriptor::full_name);
            tracing::warn!("records of schema {} are of message {found}, not {}", framed.schema, self.name);
            return refuse(SchemaFault::Message);
        };
        let Ok(writer) = MessageShape::with(message, self.shaping) else { return refuse(SchemaFault::Invalid) };
        let changes = changes(&writer, &self.reader);
        let misread = changes.into_iter().find(|c| c.rule.is_misread() && self.wanted.reads(&c.field));
        misread.map_or(Ok(()), |change| {
            tracing::warn!("records of schema {} cannot be read as {}: {change}", framed.schema, self.name);
            Err((SchemaFault::Mismatch, change.field))
        })
    }
}

/// The name of a message in its package.
fn local_name(message: &MessageDescriptor) -> &str {
    let local = message.full_name().strip_prefix(message.package_name());
    local.map_or(message.full_name(), |rest| rest.trim_start_matches('.'))
}

/// The schemas that the records of a batch name.
pub(crate) fn schemas_of(raw: &RawBatch) -> BTreeSet<u32> {
    let mut ids = BTreeSet::new();
    let mut last = None;
    for row in 0..raw.len() {
        // Magic byte, id: what is no header is told when it is decoded.
        let [0, a, b, c, d, ..] = raw.values.value(row) else { continue };
        let id = u32::from_be_bytes([*a, *b, *c, *d]);
        if last.replace(id) != Some(id) {
            ids.insert(id);
        }
    }
    ids
}
