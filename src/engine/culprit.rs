//! Which record gave the row that breaks the contract. A plan does not tell where its rows come from, so what was read
//! is halved until one record is left. That happens once, before the run ends with the violation.

use std::error::Error as _;
use std::time::Duration;

use chrono::{DateTime, Utc};
use datafusion::physical_plan::execute_stream;
use futures::StreamExt;

use super::query::StreamingQuery;
use super::runner::Read;
use super::write::violated;
use crate::contract::Violation;
use crate::error::{DataFault, Error, Result};
use crate::offsets::PartitionRange;

/// How long it is looked for: the violation itself is known already.
const PATIENCE: Duration = Duration::from_secs(60);

impl StreamingQuery {
    /// The error of a micro-batch that read `read`; when it is a violation, with the record that caused it.
    pub(crate) async fn with_culprit(&mut self, error: Error, read: Read, clock: DateTime<Utc>) -> Error {
        let Some(cause) = error.source() else { return error };
        let violation = cause.downcast_ref::<Violation>().cloned();
        if violation.is_none() && !cause.is::<DataFault>() {
            return error;
        }
        let Ok(Ok(Some((topic, range)))) = tokio::time::timeout(PATIENCE, self.culprit(read, clock)).await else {
            return error;
        };
        let (topic, partition, offset) = (self.topic_name(topic), range.partition, range.from);
        let place = format!("topic {topic}, partition {partition}, offset {offset}");
        match violation {
            Some(violation) => violated(violation).within(place).within(format!("query {}", self.name())),
            None => error.within(place),
        }
    }

    async fn culprit(&mut self, mut read: Read, clock: DateTime<Utc>) -> Result<Option<(usize, PartitionRange)>> {
        while length(&read) > 1 {
            let (first, second) = halves(&read);
            read = if self.is_broken(&first, clock).await? { first } else { second };
        }
        match read.first() {
            Some(place) if self.is_broken(&read, clock).await? => Ok(Some(*place)),
            _ => Ok(None),
        }
    }

    /// Whether a row of what `read` gives breaks the contract.
    async fn is_broken(&mut self, read: &Read, clock: DateTime<Utc>) -> Result<bool> {
        let (plan, context) = self.probe(read, clock).await?;
        let mut rows = execute_stream(plan, context)?;
        while let Some(batch) = rows.next().await {
            let batch = match batch.map_err(Error::from) {
                Ok(batch) => batch,
                Err(error) if error.source().is_some_and(|cause| cause.is::<DataFault>()) => return Ok(true),
                Err(error) => return Err(error),
            };
            if self.enforcer().enforce(batch).is_err() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn length(read: &Read) -> u64 {
    read.iter().map(|(_, range)| range.to.abs_diff(range.from)).sum()
}

/// The first half of the offsets and the rest.
fn halves(read: &Read) -> (Read, Read) {
    let mut left = length(read) / 2;
    let (mut first, mut second) = (Read::new(), Read::new());
    for &(topic, range) in read {
        let taken = left.min(range.to.abs_diff(range.from));
        left -= taken;
        let middle = range.from + taken as i64;
        first.push((topic, PartitionRange { to: middle, ..range }));
        second.push((topic, PartitionRange { from: middle, ..range }));
    }
    first.retain(|(_, range)| range.from < range.to);
    second.retain(|(_, range)| range.from < range.to);
    (first, second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_disjoint_and_whole() {
        let range = |partition, from, to| PartitionRange { partition, from, to };
        let read = vec![(0, range(0, 10, 13)), (0, range(1, 0, 1)), (1, range(0, 5, 12))];
        let (first, second) = halves(&read);
        assert_eq!(first, [(0, range(0, 10, 13)), (0, range(1, 0, 1)), (1, range(0, 5, 6))]);
        assert_eq!(second, [(1, range(0, 6, 12))]);
        assert_eq!(halves(&vec![(0, range(0, 7, 9))]), (vec![(0, range(0, 7, 8))], vec![(0, range(0, 8, 9))]));
    }
}
