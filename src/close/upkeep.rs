//! Tables that a close writes are kept in order by it: a checkpoint now and then, clean-up of the log, vacuum.

use crate::engine::Deps;
use crate::sink::{DeltaSink, Maintainer, Round, TableUpkeep};

/// Does what is due for a table. An error is told and breaks nothing: the rows are there all the same.
pub async fn keep_in_order(deps: &Deps, sink: &DeltaSink) {
    let spec = sink.spec();
    if !spec.upkeep.auto || !sink.is_upkeep_due(&spec.upkeep) {
        return;
    }
    let upkeep = TableUpkeep::of_sink(spec, sink.version().unwrap_or_default());
    let (owner, memory) = (sink.owner().clone(), deps.memory.clone());
    let kept = match Maintainer::open(upkeep, owner, &deps.storage, deps.clock.clone(), memory).await {
        Ok(Some(mut maintainer)) => maintainer.round(Round::Due).await.map(|_| ()),
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = kept {
        tracing::warn!(table = %sink.location(), %error, "upkeep failed; the next closing takes it up");
    }
}
