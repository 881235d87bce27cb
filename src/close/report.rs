//! A closing, for people.

use std::fmt::Write as _;

use super::Outcome;
use super::closed::{Closed, CompleteBy, Figures, Reconciled};
use crate::observe::grouped;

/// A figure by its name.
type Named = (&'static str, fn(&Figures) -> u64);

/// Names of figures, in the order in which they add up.
pub(super) const FIGURES: [Named; 9] = [
    ("records", |f| f.records),
    ("without a value", |f| f.null),
    ("dead letters", |f| f.dead),
    ("quarantined", |f| f.quarantined),
    ("landed", |f| f.landed),
    ("brought forward", |f| f.brought_forward),
    ("outside the day", |f| f.outside),
    ("duplicates", |f| f.duplicates),
    ("kept", |f| f.kept),
];

/// The closing in some lines.
pub fn text(outcome: &Outcome) -> String {
    let Outcome { closed, adjustments, .. } = outcome;
    let mut text = format!("{} {} ({})\n", closed.job, closed.date, headline(closed));
    for table in &closed.tables {
        let rows = grouped(table.rows);
        let _ = writeln!(text, "  {}: {rows} rows in {} files, sha256 {}", table.table, table.files, table.sha256);
    }
    for own in &closed.reconciled {
        let _ = writeln!(text, "  {}", accounted(own));
    }
    let _ = writeln!(text, "  {}; content sha256 {}", checks(closed), closed.content_sha256);
    if *adjustments > 0 {
        let _ = writeln!(text, "  {} rows came too late for it: they are in the adjustments", grouped(*adjustments));
    }
    text.trim_end().to_owned()
}

/// Which closing it is.
pub(super) fn headline(closed: &Closed) -> String {
    let Closed { closing, zone, .. } = closed;
    let hours = (closed.day_end - closed.day_start).num_hours();
    let by = match closed.complete_by {
        CompleteBy::Clock => "complete by the clock",
        CompleteBy::Records => "complete by its records",
    };
    let again = match (closed.reopens, &closed.why) {
        (Some(before), Some(why)) => format!(", in the place of closing {before}: {why}"),
        _ => String::new(),
    };
    format!("{hours} hours of {zone}, closing {closing}, {by}{again}")
}

/// Where the records of a topic went, in one line.
pub(super) fn accounted(own: &Reconciled) -> String {
    let parts = FIGURES.iter().map(|(name, of)| (name, of(&own.total)));
    let parts: Vec<String> = parts
        .filter(|(name, count)| *count > 0 || ["records", "kept", "duplicates"].contains(name))
        .map(|(name, count)| format!("{name} {}", grouped(count)))
        .collect();
    let sums = own.total.sums.iter().map(|(column, sums)| format!(", {column} kept {}", sums.kept));
    format!("{} from topic {}: {}{}", own.table, own.topic, parts.join(", "), sums.collect::<String>())
}

pub(super) fn checks(closed: &Closed) -> String {
    match closed.checks {
        0 => "no checks".to_owned(),
        1 => "1 check holds".to_owned(),
        many => format!("{many} checks hold"),
    }
}
