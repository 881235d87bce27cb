//! The message of a topic against the one that the sink's last commit was made with: what is new is said, what would
//! make old records mean something else stops the query before anything is read.

use crate::decode::Selection;
use crate::error::{Error, Result};
use crate::observe::Observer;
use crate::pipeline::{SourceSpec, ValueFormat};
use crate::schema::{Change, Descriptors, MessageShape, changes};
use crate::sink::{DeltaSink, hash63};

/// What a query says of a changed message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Versions<'a> {
    /// The sink, whose commits carry the hash of the descriptors and which keeps them.
    pub(crate) sink: &'a DeltaSink,
    /// The fields that the query uses.
    pub(crate) used: &'a Selection,
    /// Whether breaking changes are accepted (`SET flumen.schema_change = 'accept'`).
    pub(crate) accept: bool,
}

impl Versions<'_> {
    /// Compares the message of `source` with the last commit's and keeps its descriptors. The hash for the next commit;
    /// none for raw values.
    ///
    /// # Errors
    /// `Invalid` with the differences when a field that the query uses has changed so that old records are no longer
    /// understood; `Unavailable` when the store fails.
    pub(crate) async fn compare(&self, source: &SourceSpec, observer: &dyn Observer) -> Result<Option<i64>> {
        let ValueFormat::Protobuf { descriptors, message, shaping, .. } = &source.format else { return Ok(None) };
        let hash = hash63(descriptors.encoded());
        let then = self.sink.txn(&self.sink.owner().schema(&source.topic));
        if then == Some(hash) {
            return Ok(Some(hash));
        }
        if let Some(then) = then
            && let Some(old) = self.sink.kept_descriptors(then).await?
        {
            let old = Descriptors::from_set(&old)
                .map_err(|e| Error::invalid(format!("table {}: its kept descriptors: {e}", self.sink.location())))?;
            match old.message(message.full_name()) {
                Some(old) => {
                    let [old, new] = [&old, message].map(|message| MessageShape::with(message, shaping.to_compare()));
                    self.judge(source, &changes(&old?, &new?), observer)?;
                }
                None => observer.note(&format!(
                    "query {}: topic {}: message {} is not the one of the last commit",
                    self.sink.owner().query,
                    source.topic,
                    message.full_name()
                )),
            }
        }
        let hex = hex::encode(descriptors.sha256());
        self.sink.keep_file(&format!("_flumen/{hex}.binpb"), descriptors.encoded()).await?;
        Ok(Some(hash))
    }

    /// Warns of changes since the last commit that make old records mean something else: a retry of dead letters
    /// decodes by today's message, whatever they were written as.
    ///
    /// # Errors
    /// `Unavailable` when the store fails.
    pub(crate) async fn warn(&self, source: &SourceSpec) -> Result<()> {
        let ValueFormat::Protobuf { message, shaping, .. } = &source.format else { return Ok(()) };
        let Some(then) = self.sink.txn(&self.sink.owner().schema(&source.topic)) else { return Ok(()) };
        let Some(old) = self.sink.kept_descriptors(then).await? else { return Ok(()) };
        let old = Descriptors::from_set(&old).ok().and_then(|old| old.message(message.full_name()));
        let Some(old) = old else { return Ok(()) };
        let [old, new] = [&old, message].map(|message| MessageShape::with(message, shaping.to_compare()));
        for change in changes(&old?, &new?) {
            if change.rule.is_misread() && self.used.reads(&change.field) {
                let topic = &source.topic;
                tracing::warn!("topic {topic}: letters are read by today's message, and it has changed: {change}");
            }
        }
        Ok(())
    }

    fn judge(&self, source: &SourceSpec, changes: &[Change], observer: &dyn Observer) -> Result<()> {
        let query = &self.sink.owner().query;
        let (breaking, rest): (Vec<&Change>, Vec<&Change>) =
            changes.iter().partition(|change| change.rule.is_breaking() && self.used.reads(&change.field));
        let lines = |changes: &[&Change]| changes.iter().map(|c| format!("\n  {c}")).collect::<String>();
        if !breaking.is_empty() && !self.accept {
            return Err(Error::invalid(format!(
                "topic {}: the message is no longer the one of the last commit to {}, and the query uses what \
                 changed:{}\nNothing was read. Put the old fields back and give new ones new numbers, or, when all \
                 records that are still to be read are of the new form, accept it: --set flumen.schema_change=accept",
                source.topic,
                self.sink.location(),
                lines(&breaking)
            ))
            .within(format!("query {query}")));
        }
        if !changes.is_empty() {
            let accepted = if breaking.is_empty() { String::new() } else { format!("{} (accepted)", lines(&breaking)) };
            observer.note(&format!(
                "query {query}: topic {}: the message has changed since the last commit:{}{accepted}",
                source.topic,
                lines(&rest)
            ));
        }
        Ok(())
    }
}
