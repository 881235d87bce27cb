//! A topic of a query: the tables over it, and where the query stands in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::logical_expr::LogicalPlan;

use super::position::Lost;
use super::runner::Share;
use super::selection;
use super::topic::{Slice, TopicTable};
use crate::error::Result;
use crate::observe::{SourceProgress, TopicOffsets};
use crate::source::{Log, TopicIdentity};

/// A topic of a query.
pub(crate) struct Topic {
    /// The tables under which the query reads it: mostly one. The first one counts.
    pub(crate) tables: Vec<Arc<TopicTable>>,
    pub(crate) identity: TopicIdentity,
    /// The next offset of each partition that is not planned yet.
    pub(crate) next: BTreeMap<i32, i64>,
    /// What was due and is gone, since the last commit.
    pub(crate) lost: Vec<Lost>,
    /// The first 63 bits of the descriptor set's hash; none for raw values.
    pub(crate) schema: Option<i64>,
}

impl Topic {
    /// Lets the next plan read this slice under each of the topic's tables.
    ///
    /// # Errors
    /// What the plan's expressions return.
    pub(crate) fn prepare(&self, plan: &LogicalPlan, slice: &Slice) -> Result<()> {
        let scans = selection::scans(plan, self.tables.iter().map(|table| table.spec().name.as_str()))?;
        for (index, table) in self.tables.iter().enumerate() {
            let counts = if index == 0 { Arc::clone(&slice.counts) } else { Arc::default() };
            table.prepare(Slice { is_shared: scans > 1, counts, ..slice.clone() });
        }
        Ok(())
    }

    /// What a micro-batch read of it.
    pub(crate) fn progress(&self, share: &Share) -> SourceProgress {
        let spec = self.tables[0].spec();
        let of = |offsets| TopicOffsets::from([(spec.topic.clone(), offsets)]);
        let odd = share.counts.oddities();
        SourceProgress {
            description: format!("kafka://{}/{}", spec.brokers, spec.topic),
            start_offset: of(share.ranges.iter().map(|r| (r.partition, r.from)).collect()),
            end_offset: of(share.next.clone()),
            latest_offset: of(share.latest.clone()),
            num_input_rows: share.counts.totals().read,
            num_unknown_fields: odd.unknown_fields,
            num_nameless_enum_numbers: odd.nameless_numbers,
            num_impossible_dates: odd.impossible_dates,
        }
    }

    /// The reader that tells bounds and identity.
    ///
    /// # Errors
    /// What opening it returns.
    pub(crate) fn log(&self) -> Result<Arc<dyn Log>> {
        self.tables[0].log(0)
    }
}
