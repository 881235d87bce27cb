//! One method of a service: the message that the rows of a table become.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::datatypes::SchemaRef;
use parking_lot::Mutex;
use prost_reflect::MessageDescriptor;

use crate::error::Result;
use crate::subscribe::encode::{EncodeOptions, Encoder, PlanFault};

static NEXT: AtomicUsize = AtomicUsize::new(0);

/// What the rows of a table become for the subscribers of one method. They share what is encoded.
#[derive(Debug)]
pub struct Outlet {
    id: usize,
    message: MessageDescriptor,
    options: EncodeOptions,
    message_bytes: usize,
    /// For the schema that came last: a table may get columns while it is read.
    encoder: Mutex<Arc<Encoder>>,
}

impl Outlet {
    /// The rows of a table with this schema as `message`, each of at most so many bytes.
    ///
    /// # Errors
    /// All faults of the plan.
    pub fn plan(
        message: &MessageDescriptor,
        schema: &SchemaRef,
        options: EncodeOptions,
        message_bytes: usize,
    ) -> Result<Self, Vec<PlanFault>> {
        let encoder = Encoder::plan(schema, message, &options)?;
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Self { id, message: message.clone(), options, message_bytes, encoder: Mutex::new(Arc::new(encoder)) })
    }

    /// The columns that the messages are made of.
    pub fn columns(&self) -> Vec<String> {
        self.encoder.lock().columns().map(str::to_owned).collect()
    }

    /// Whether each message carries its cursor.
    pub fn carries_cursor(&self) -> bool {
        self.encoder.lock().carries_cursor()
    }

    /// The name of the message.
    pub fn message(&self) -> &str {
        self.message.full_name()
    }

    pub(super) fn message_bytes(&self) -> usize {
        self.message_bytes
    }

    pub(super) fn id(&self) -> usize {
        self.id
    }

    /// The encoder for rows of this schema.
    pub(super) fn encoder(&self, schema: &SchemaRef) -> Result<Arc<Encoder>> {
        let mut encoder = self.encoder.lock();
        if encoder.schema() != schema {
            let planned = Encoder::plan(schema, &self.message, &self.options).map_err(|faults| {
                PlanFault::together(&format!("message {} no longer fits the table", self.message.full_name()), &faults)
            })?;
            *encoder = Arc::new(planned);
        }
        Ok(encoder.clone())
    }
}
