//! What a file with a `close_zone` has to be: landing tables that a topic fills row by row, and final tables by date.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan};

use super::day;
use super::loader::Written;
use super::query::Rules;
use super::resolve::Planned;
use super::spec::{LandingSpec, OnViolation, QueryKind, QuerySpec, SinkFormat, SinkMode, SinkSpec};
use super::suggest;
use super::text::Place;
use crate::contract::sql_type;

/// A fault that is about a table: what, and the remedy.
type Found = (String, String);

fn found(message: String, remedy: impl Into<String>) -> Found {
    (message, remedy.into())
}

impl Rules<'_, '_, '_> {
    /// Reports what a close of books could not account for.
    pub fn closing(&mut self, written: &[Written<'_>], queries: &[QuerySpec]) {
        let loader = self.loader();
        let mut told: Vec<(String, Found)> = Vec::new();
        let mut places: Vec<(Place, Found)> = Vec::new();
        let sink_of = |query: &QuerySpec| loader.sinks.iter().find(|sink| sink.name == query.name);
        let landings: Vec<&str> =
            loader.sinks.iter().filter(|sink| sink.landing.is_some()).map(|sink| sink.name.as_str()).collect();
        let is_closing = loader.draft.settings.close_zone.is_some();
        for sink in loader.sinks.iter().filter(|sink| !is_closing && (sink.landing.is_some() || sink.rows_of.is_some()))
        {
            let message =
                format!("`{}` has options of a close of books, and the file has no zone for its days", sink.name);
            told.push((sink.name.clone(), found(message, "write SET flumen.close_zone = 'America/New_York'")));
        }
        for query in queries.iter().filter(|_| is_closing) {
            let Some(sink) = sink_of(query) else { continue };
            let of_sink = match query.kind {
                QueryKind::Streaming => landing(sink, query),
                QueryKind::Batch => {
                    let kept = loader.sinks.iter().find(|landing| Some(&landing.name) == sink.rows_of.as_ref());
                    final_table(sink, kept, &landings)
                }
            };
            told.extend(of_sink.into_iter().map(|found| (sink.name.clone(), found)));
            let statement = written.iter().find(|w| loader.source.position(w.statement.place.start).0 == query.line);
            if let (QueryKind::Streaming, Some(written)) = (query.kind, statement) {
                let days = written.statement.parameters(&loader.source);
                places.extend(days.into_iter().filter(|(name, _)| day::is_of_day(name)).map(|(name, place)| {
                    let message =
                        format!("query {}: `${name}` is the day of a close, and a stream has none", sink.name);
                    (place, found(message, "ask for the day in a batch job over the table that the stream fills"))
                }));
            }
        }
        if is_closing {
            for sink in loader.sinks.iter().filter(|sink| sink.landing.is_some()) {
                if !loader.sinks.iter().any(|other| other.rows_of.as_ref() == Some(&sink.name)) {
                    let message = format!("no final table keeps the rows of `{}`", sink.name);
                    let remedy = format!("say on the table of a batch job OPTIONS ('close.rows_of' '{}')", sink.name);
                    told.push((sink.name.clone(), found(message, remedy)));
                }
            }
        }
        let nothing = !loader.sinks.iter().any(|sink| sink.rows_of.is_some() || sink.landing.is_some());
        let place_of = |name: &str| loader.place_of(name).cloned().unwrap_or(0..0);
        places.extend(told.into_iter().map(|(name, found)| (place_of(&name), found)));
        if is_closing && nothing && !queries.is_empty() {
            let message = "the file has a `flumen.close_zone` and nothing to close".to_owned();
            let remedy = "say on the table that the topic fills OPTIONS ('close.time' …, 'close.key' …), and on the \
                          final one ('close.rows_of' …); or leave the setting out";
            places.push((0..0, found(message, remedy)));
        }
        for (place, (message, remedy)) in places {
            self.fault(&place, message, remedy);
        }
    }
}

impl Rules<'_, '_, '_> {
    /// Reports a landing query that does not make one row of each record, or does not say which one it was.
    pub(super) fn lands_each_record(&mut self, planned: &Planned, sink: &SinkSpec, place: &Place) {
        let mut wrong = Vec::new();
        let walked = planned.plan.apply(|node| {
            wrong.extend(match node {
                LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::TableScan(_) => None,
                LogicalPlan::Filter(_) => Some("a WHERE"),
                LogicalPlan::Join(_) => Some("a join"),
                LogicalPlan::Union(_) => Some("a UNION"),
                LogicalPlan::Unnest(_) => Some("an UNNEST"),
                _ => Some("more than a SELECT of columns"),
            });
            Ok(TreeNodeRecursion::Continue)
        });
        let mut found = Vec::new();
        if let (Ok(_), Some(what)) = (walked, wrong.first()) {
            let message = format!("query {} has {what}, and a close accounts for each record as one row", sink.name);
            found.push((message, "let each record land, and leave rows out in the batch job"));
        }
        if let LogicalPlan::Projection(projection) = &planned.plan {
            for column in ["_partition", "_offset"] {
                let at = sink.contract.columns.iter().position(|own| own.name == column);
                let expr = at.and_then(|at| projection.expr.get(at)).map(|expr| expr.clone().unalias());
                if expr.is_some_and(|expr| !matches!(expr, Expr::Column(own) if own.name == column)) {
                    let message = format!("`{column}` of `{}` is not that of the record", sink.name);
                    found.push((message, "write the topic's own column there: it says which record a row came from"));
                }
            }
        }
        for (message, remedy) in found {
            self.fault(place, message, remedy);
        }
    }
}

/// What is wrong with the table of a streaming query.
fn landing(sink: &SinkSpec, query: &QuerySpec) -> Vec<Found> {
    let mut all = Vec::new();
    let name = &sink.name;
    if sink.rows_of.is_some() {
        let message = format!("`{name}` is written by a streaming query: no close keeps rows in it");
        all.push(found(message, "say 'close.rows_of' on the table of a batch job"));
    }
    let Some(LandingSpec { time, key, sums }) = &sink.landing else { return all };
    if query.sources.len() != 1 {
        let message = format!("`{name}` has rows of {} topics, and a close accounts for one", query.sources.len());
        all.push(found(message, "let each topic land in a table of its own"));
    }
    if sink.on_violation == OnViolation::Drop {
        let message = format!("`{name}` drops rows that break its contract, and a close accounts for each");
        all.push(found(message, "write 'on_violation' 'quarantine'"));
    }
    let is_time = |t: &DataType| matches!(t, DataType::Timestamp(..));
    all.extend(lacks(sink, time, "TIMESTAMP", is_time, "close.time"));
    if sink.contract.columns.iter().any(|column| column.name == *time && column.nullable) {
        let message = format!("column `{time}` of `{name}` may be NULL, and such rows would be of no day");
        all.push(found(
            message,
            format!("declare it NOT NULL, with 'on_violation' 'quarantine': {time} TIMESTAMP NOT NULL"),
        ));
    }
    for (option, columns) in [("close.key", key), ("close.sums", sums)] {
        if let Some(twice) = columns.iter().enumerate().find_map(|(at, c)| columns[..at].contains(c).then_some(c)) {
            all.push(found(format!("`{option}` of `{name}` names `{twice}` twice"), "name it once"));
        }
    }
    all.extend(key.iter().flat_map(|column| lacks(sink, column, "", |t| !t.is_nested(), "close.key")));
    all.extend(sums.iter().flat_map(|column| lacks(sink, column, "BIGINT or DECIMAL", is_exact, "close.sums")));
    all.extend(origin(sink));
    all
}

/// What is wrong with the table of a batch job; `kept` is the landing table that it names.
fn final_table(sink: &SinkSpec, kept: Option<&SinkSpec>, landings: &[&str]) -> Vec<Found> {
    let mut all = Vec::new();
    let name = &sink.name;
    if sink.format == SinkFormat::Parquet {
        let message = format!("`{name}` is one Parquet file, which has no day that could be closed");
        return vec![found(message, "write STORED AS DELTA … PARTITIONED BY the date")];
    }
    if sink.mode != SinkMode::ReplacePartitions || sink.date_column().is_none() {
        let message = format!("`{name}` is written by a close, and has no partition for the date");
        let remedy = "declare a column of type DATE, PARTITIONED BY it, with OPTIONS ('mode' 'replace_partitions')";
        all.push(found(message, remedy));
    }
    if sink.date_columns().count() > 1 {
        let dates: Vec<&str> = sink.date_columns().collect();
        let message = format!("`{name}` has partitions by {} dates: {}", dates.len(), dates.join(", "));
        all.push(found(message, "keep the business date as the one partition column of type DATE"));
    }
    if sink.on_violation != OnViolation::Fail {
        let message = format!("`{name}` is written by a close, which accounts for each row, and sets some apart");
        all.push(found(message, "leave 'on_violation' out: a close ends where a row breaks the contract"));
    }
    if sink.landing.is_some() {
        let message = format!("`{name}` is written by a batch job: no records land in it");
        all.push(found(message, "say 'close.time' and 'close.key' on the table of a streaming query"));
    }
    let Some(of) = &sink.rows_of else { return all };
    let Some(landing) = kept.and_then(|kept| kept.landing.as_ref()) else {
        let message = format!("`{name}` keeps rows of `{of}`, which is no table that a topic's records land in");
        let near = suggest::closest(of, landings.iter().copied()).map(|near| format!("did you mean `{near}`?"));
        let remedy = near.unwrap_or_else(|| "name a table with the options 'close.time' and 'close.key'".into());
        all.push(found(message, remedy));
        return all;
    };
    all.extend(origin(sink));
    all.extend(landing.sums.iter().flat_map(|column| lacks(sink, column, "BIGINT or DECIMAL", is_exact, "close.sums")));
    all
}

/// The columns that say which record a row came from.
fn origin(sink: &SinkSpec) -> Vec<Found> {
    let partition = lacks(sink, "_partition", "INT", |t| *t == DataType::Int32, "a close of books");
    let offset = lacks(sink, "_offset", "BIGINT", |t| *t == DataType::Int64, "a close of books");
    partition.into_iter().chain(offset).collect()
}

/// Whether numbers of a type add up exactly, in whatever order.
fn is_exact(data_type: &DataType) -> bool {
    data_type.is_integer() || matches!(data_type, DataType::Decimal128(..))
}

/// A column that is not there, or of another type than `wanted`.
fn lacks(sink: &SinkSpec, column: &str, wanted: &str, is_it: impl Fn(&DataType) -> bool, who: &str) -> Option<Found> {
    let name = &sink.name;
    match sink.contract.columns.iter().find(|other| other.name == column) {
        Some(other) if is_it(&other.data_type) => None,
        Some(other) => {
            let is = sql_type(&other.data_type);
            let message = format!("column `{column}` of `{name}` is {is}, and {who} wants {wanted}");
            Some(found(message, "declare it so, or name another column"))
        }
        None => {
            let message = format!("`{name}` has no column `{column}`, which {who} wants");
            let remedy = match wanted {
                "" => "declare it, or name another column".to_owned(),
                wanted => format!("declare it: {column} {wanted}"),
            };
            Some(found(message, remedy))
        }
    }
}
