//! `dead-letters list`: what is wrong with the letters that are open, grouped, with samples.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int32Type, Int64Type};
use serde::Serialize;

use super::Deps;
use super::letter_box::LetterBox;
use crate::error::{Error, Result};
use crate::pipeline::{Pipeline, QueryKind, QuerySpec};

/// Open letters with the same fault in the same field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LetterGroup {
    /// The query that met them.
    pub query: String,
    /// The topic.
    pub topic: String,
    /// The code of the reason.
    pub reason: String,
    /// The path of the field; none outside of the fields that were read.
    pub field: Option<String>,
    /// How many there are.
    pub count: i64,
    /// When the first one was met: the micro-batch's clock, RFC 3339.
    pub first: String,
    /// When the last one was met.
    pub last: String,
    /// A few of them.
    pub samples: Vec<LetterSample>,
}

/// One letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LetterSample {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// What is wrong, in words.
    pub reason: String,
    /// The value in hex, when it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
}

/// What to show of letters.
#[derive(Debug, Clone, Default)]
pub struct LetterView {
    /// Only this query.
    pub query: Option<String>,
    /// Samples of each group.
    pub samples: usize,
    /// With the samples' values: they may be personal data.
    pub payload: bool,
}

/// The open letters of a pipeline's queries, the largest groups first.
///
/// # Errors
/// `Invalid` when the file has no such query; `Unavailable` when the store fails.
pub async fn list_letters(deps: &Deps, pipeline: &Pipeline, view: &LetterView) -> Result<Vec<LetterGroup>> {
    let mut groups = Vec::new();
    for query in super::chosen_queries(pipeline, view.query.as_deref())? {
        if query.kind != QueryKind::Streaming {
            continue;
        }
        let Some(letters) = LetterBox::open(deps, pipeline, &query).await? else { continue };
        for location in letters.locations() {
            let found = list(deps, &letters, location, view).await?;
            groups.extend(found);
        }
    }
    groups.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.topic.cmp(&b.topic)));
    Ok(groups)
}

/// How many letters of a query are open. Nothing is changed.
///
/// # Errors
/// `Unavailable` when the store fails.
pub(crate) async fn count_letters(deps: &Deps, pipeline: &Pipeline, query: &QuerySpec) -> Result<u64> {
    let mut open = 0;
    let Some(letters) = LetterBox::look(deps, pipeline, query).await? else { return Ok(open) };
    for location in letters.locations() {
        for rows in letters.select(deps, location, "count(*)", "").await?.collect().await? {
            let counts = rows.column(0).as_primitive_opt::<Int64Type>();
            open += counts.map_or(0, |counts| counts.values().iter().sum::<i64>().unsigned_abs());
        }
    }
    Ok(open)
}

async fn list(deps: &Deps, letters: &LetterBox, location: &str, view: &LetterView) -> Result<Vec<LetterGroup>> {
    let code = "split_part(l.reason, ':', 1)";
    let columns = format!(
        "arrow_cast(l.topic, 'Utf8'), arrow_cast({code}, 'Utf8'), arrow_cast(l.field, 'Utf8'), count(*), \
         arrow_cast(CAST(min(l.clock) AS VARCHAR), 'Utf8'), arrow_cast(CAST(max(l.clock) AS VARCHAR), 'Utf8')"
    );
    let rest = format!("GROUP BY l.topic, {code}, l.field");
    let mut groups = Vec::new();
    for rows in letters.select(deps, location, &columns, &rest).await?.collect().await? {
        let text = |column: usize, row: usize| {
            let texts = rows.column(column).as_string_opt::<i32>();
            texts.filter(|texts| texts.is_valid(row)).map(|texts| texts.value(row).to_string())
        };
        for row in 0..rows.num_rows() {
            groups.push(LetterGroup {
                query: letters.owner.query.clone(),
                topic: text(0, row).unwrap_or_default(),
                reason: text(1, row).unwrap_or_default(),
                field: text(2, row),
                count: rows.column(3).as_primitive_opt::<Int64Type>().map_or(0, |counts| counts.value(row)),
                first: text(4, row).unwrap_or_default(),
                last: text(5, row).unwrap_or_default(),
                samples: Vec::new(),
            });
        }
    }
    for group in &mut groups {
        group.samples = samples(deps, letters, location, group, view).await?;
    }
    Ok(groups)
}

async fn samples(
    deps: &Deps,
    letters: &LetterBox,
    location: &str,
    group: &LetterGroup,
    view: &LetterView,
) -> Result<Vec<LetterSample>> {
    let payload = if view.payload { "encode(l.value, 'hex')" } else { "CAST(NULL AS VARCHAR)" };
    let columns = format!("l.\"partition\", l.\"offset\", arrow_cast(l.reason, 'Utf8'), arrow_cast({payload}, 'Utf8')");
    let field = match &group.field {
        Some(field) => format!("l.field = {}", quoted(field)),
        None => "l.field IS NULL".to_string(),
    };
    let rest = format!(
        "AND l.topic = {} AND split_part(l.reason, ':', 1) = {} AND {field} ORDER BY 1, 2 LIMIT {}",
        quoted(&group.topic),
        quoted(&group.reason),
        view.samples
    );
    let mut samples = Vec::new();
    for rows in letters.select(deps, location, &columns, &rest).await?.collect().await? {
        let wrong = || Error::invalid(format!("dead letters at {location} have other columns; name another table"));
        let partitions = rows.column(0).as_primitive_opt::<Int32Type>().ok_or_else(wrong)?;
        let offsets = rows.column(1).as_primitive_opt::<Int64Type>().ok_or_else(wrong)?;
        let reasons = rows.column(2).as_string_opt::<i32>().ok_or_else(wrong)?;
        let payloads = rows.column(3).as_string_opt::<i32>().ok_or_else(wrong)?;
        samples.extend((0..rows.num_rows()).map(|row| LetterSample {
            partition: partitions.value(row),
            offset: offsets.value(row),
            reason: reasons.value(row).to_string(),
            payload: payloads.is_valid(row).then(|| payloads.value(row).to_string()),
        }));
    }
    Ok(samples)
}

/// A text as SQL writes it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
