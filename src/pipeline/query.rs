//! Queries and checks: which kind they are, what they read, whether they may, and whether they fit their contract.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::sql::sqlparser::ast::{ObjectName, Query, SelectItem};

use super::diagnose;
use super::fault::{Fault, Faults};
use super::loader::{Loader, Written};
use super::resolve::{Planned, Resolver};
use super::spec::{CheckSpec, OnViolation, QueryKind, QuerySpec, SinkFormat, SinkMode, SinkSpec};
use super::statement::{Kind, Statement, leading_select, normal, single};
use super::streaming;
use super::suggest;
use super::text::Place;
use crate::contract::{Misfit, sql_type};

/// Whether a name without dots is `name`.
fn is_named(tree: &ObjectName, name: &str) -> bool {
    single(tree).map(normal).as_deref() == Some(name)
}

/// Everything that the rules look at.
pub(super) struct Rules<'r, 'a, 'l> {
    loader: &'r Loader<'l>,
    statements: &'r [Statement],
    resolver: &'r mut Resolver<'a>,
    faults: &'r mut Faults,
}

impl<'r, 'a, 'l> Rules<'r, 'a, 'l> {
    pub fn new(
        loader: &'r Loader<'l>,
        statements: &'r [Statement],
        resolver: &'r mut Resolver<'a>,
        faults: &'r mut Faults,
    ) -> Self {
        Self { loader, statements, resolver, faults }
    }

    /// Reads the `INSERT`s.
    pub fn queries(&mut self, written: &[Written<'_>]) -> Vec<QuerySpec> {
        self.locations();
        let streaming = self.streaming_sinks(written);
        let mut first: BTreeMap<String, usize> = BTreeMap::new();
        let mut queries = Vec::new();
        for Written { statement, query } in written {
            let Kind::Insert { sink, .. } = &statement.kind else { continue };
            let name = normal(sink);
            let place = self.loader.source.place(sink.span).unwrap_or_else(|| statement.verb(&self.loader.source));
            let (line, _) = self.loader.source.position(statement.place.start);
            if let Some(first) = first.get(&name) {
                let message = format!("`{name}` is written by two INSERTs, first on line {first}");
                let remedy = "join them with UNION ALL: each sink has one query, named after it";
                self.fault(&place, message, remedy);
            } else if self.is_writable(&name, &place) {
                queries.extend(self.query(statement, query, &name, &place, &streaming));
            } else {
                self.resolver.plan(statement, query, self.faults);
            }
            first.entry(name).or_insert(line);
        }
        queries
    }

    /// Reads the bare `SELECT`s.
    pub fn checks(&mut self, statements: &[Statement]) -> Vec<CheckSpec> {
        let mut checks = Vec::new();
        for statement in statements {
            let Kind::Check(query) = &statement.kind else { continue };
            self.resolver.plan(statement, query, self.faults);
            let (line, _) = self.loader.source.position(statement.place.start);
            let (sources, lookups, models) = self.reads(query);
            let name = format!("check_{}", checks.len() + 1);
            let sql = self.loader.source.slice(&statement.place).to_string();
            checks.push(CheckSpec { name, line, sql, sources, lookups, models, tree: query.clone() });
        }
        checks
    }

    /// What the file has declared.
    pub fn loader(&self) -> &'r Loader<'l> {
        self.loader
    }

    /// Reports a fault.
    pub fn fault(&mut self, place: &Place, message: impl Into<String>, remedy: impl Into<String>) {
        self.faults.push(Fault::new(&self.loader.source, place, message).remedy(remedy));
    }

    /// The names that a query reads: topics, other tables, models.
    fn reads(&self, query: &Query) -> (Vec<String>, Vec<String>, Vec<String>) {
        let (tables, functions) = self.resolver.reads(query);
        let (sources, others) = tables.into_iter().partition(|t| self.is_topic(t));
        let is_table = |t: &String| self.loader.tables.contains_key(t);
        let others: Vec<String> = others;
        let is_model = |f: &String| self.loader.models.iter().any(|m| m.name == *f);
        (sources, others.into_iter().filter(is_table).collect(), functions.into_iter().filter(is_model).collect())
    }

    fn is_topic(&self, name: &str) -> bool {
        self.loader.sources.iter().any(|s| s.name == name)
    }

    /// The sinks of those queries that read a topic.
    fn streaming_sinks(&self, written: &[Written<'_>]) -> BTreeSet<String> {
        let sink = |w: &Written<'_>| match &w.statement.kind {
            Kind::Insert { sink, .. } if !self.reads(w.query).0.is_empty() => Some(normal(sink)),
            _ => None,
        };
        written.iter().filter_map(sink).collect()
    }

    /// Reports sinks that share a location.
    fn locations(&mut self) {
        let mut first: BTreeMap<&str, &str> = BTreeMap::new();
        let mut twice = Vec::new();
        for sink in &self.loader.sinks {
            if let Some(other) = first.insert(sink.location.trim_end_matches('/'), &sink.name) {
                twice.push((sink.name.clone(), other.to_string()));
            }
        }
        for (name, other) in twice {
            let place = self.loader.place_of(&name).cloned().unwrap_or(0..0);
            let message = format!("`{name}` and `{other}` have the same location");
            self.fault(&place, message, "give each sink a location of its own");
        }
    }

    /// Whether `name` is a sink without fault; what it is instead is reported.
    fn is_writable(&mut self, name: &str, place: &Place) -> bool {
        if self.loader.sinks.iter().any(|s| s.name == name) {
            return true;
        }
        let declared = self.loader.tables.contains_key(name);
        let is = |kind: fn(&Kind, &str) -> bool| self.statements.iter().any(|s| kind(&s.kind, name));
        if is(|kind, name| matches!(kind, Kind::Table(t) if t.file_type == "KAFKA" && is_named(&t.name, name))) {
            let remedy = "write into a table STORED AS DELTA";
            self.fault(place, format!("`{name}` is a topic, and an INSERT cannot write it"), remedy);
        } else if is(|kind, name| matches!(kind, Kind::View(v) if is_named(&v.name, name))) {
            let remedy = "write into a table STORED AS DELTA";
            self.fault(place, format!("`{name}` is a view, and an INSERT cannot write it"), remedy);
        } else if !declared {
            let tables = self.loader.tables.keys().map(String::as_str).filter(|t| !self.is_topic(t));
            let remedy = suggest::closest(name, tables).map(|t| format!("did you mean `{t}`?"));
            let remedy =
                remedy.unwrap_or_else(|| format!("declare it: CREATE EXTERNAL TABLE {name} (…) STORED AS DELTA …"));
            self.fault(place, format!("there is no table `{name}`"), remedy);
        }
        false
    }

    fn query(
        &mut self,
        statement: &Statement,
        query: &Query,
        name: &str,
        place: &Place,
        streaming: &BTreeSet<String>,
    ) -> Option<QuerySpec> {
        let loader = self.loader;
        let sink = loader.sinks.iter().find(|s| s.name == name)?;
        let (sources, lookups, models) = self.reads(query);
        let planned = self.resolver.plan_into(statement, query, &sink.contract.types(), self.faults);
        let kind = if sources.is_empty() { QueryKind::Batch } else { QueryKind::Streaming };
        if let (Some(planned), true) = (&planned, kind == QueryKind::Streaming && sink.landing.is_some()) {
            self.lands_each_record(planned, sink, place);
        }
        if kind == QueryKind::Streaming {
            self.row_wise(statement, query, planned.as_ref(), sink);
            self.same_topic(&sources, place);
        }
        // Which kind it is is only known when everything that it reads is.
        if kind == QueryKind::Streaming || planned.is_some() {
            self.mode(kind, sink, place);
        }
        self.read_sinks(statement, query, &lookups, name, kind, streaming);
        self.fits(query, planned.as_ref()?, sink, place);
        let (line, _) = loader.source.position(statement.place.start);
        Some(QuerySpec {
            name: name.to_string(),
            kind,
            line,
            sql: loader.source.slice(&statement.place).to_string(),
            sources,
            lookups,
            models,
            tree: Box::new(query.clone()),
        })
    }

    /// Reports what is not row by row in the topic.
    fn row_wise(&mut self, statement: &Statement, query: &Query, planned: Option<&Planned>, sink: &SinkSpec) {
        let Some(planned) = planned else { return };
        let loader = self.loader;
        let is_topic = |name: &str| loader.sources.iter().any(|s| s.name == name);
        for refusal in streaming::refusals(&planned.plan, &is_topic) {
            let spots =
                |s: &Statement| refusal.words.iter().find_map(|w| s.words(&loader.source, w).into_iter().next());
            let in_view = || self.view_statements(query).into_iter().find_map(|s| spots(&s));
            let place = spots(statement).or_else(in_view).unwrap_or_else(|| statement.verb(&loader.source));
            let message = format!("query {}: {}", sink.name, refusal.message);
            self.faults.push(Fault::new(&loader.source, &place, message).remedy(refusal.remedy));
        }
    }

    /// The statements of the views that a query reads.
    fn view_statements(&self, query: &Query) -> Vec<Statement> {
        let mut statements = Vec::new();
        for name in super::planner::references(query) {
            if let Some((statement, view)) = self.resolver.view(&name) {
                statements.push(statement.clone());
                statements.extend(self.view_statements(&view.query));
            }
        }
        statements
    }

    /// Reports one topic that is read under two tables which disagree about where it is or begins.
    fn same_topic(&mut self, sources: &[String], place: &Place) {
        let specs: Vec<_> = self.loader.sources.iter().filter(|s| sources.contains(&s.name)).collect();
        for (i, a) in specs.iter().enumerate() {
            for b in specs.iter().skip(i + 1).filter(|b| b.topic == a.topic) {
                let what = if a.brokers != b.brokers {
                    "brokers"
                } else if a.start != b.start {
                    "`start`"
                } else if !a.format.is_same(&b.format) {
                    "messages"
                } else if a.registry != b.registry {
                    "registries"
                } else {
                    continue;
                };
                let message = format!(
                    "`{}` and `{}` are the same topic with different {what}: one query has one position",
                    a.name, b.name
                );
                self.fault(place, message, "read the topic under one table, or declare both alike");
            }
        }
    }

    fn mode(&mut self, kind: QueryKind, sink: &SinkSpec, place: &Place) {
        let name = &sink.name;
        if kind == QueryKind::Batch && sink.on_violation == OnViolation::Quarantine {
            let message =
                format!("`{name}` is written by a batch job, which has no quarantine: each run would fill it");
            self.fault(place, message, "write 'on_violation' 'drop', or leave it out to stop at such a row");
        }
        if kind == QueryKind::Streaming && sink.format == SinkFormat::Parquet {
            let message = format!(
                "`{name}` is STORED AS PARQUET and written by a streaming query: a file has no commit that could hold \
                 the offsets, so after a failure rows would be there twice or not at all"
            );
            let remedy = "write STORED AS DELTA; a batch job may write a Parquet file from that table";
            return self.fault(place, message, remedy);
        }
        match (kind, sink.mode) {
            (QueryKind::Streaming, SinkMode::Append) | (QueryKind::Batch, SinkMode::Replace) => {}
            (QueryKind::Streaming, _) => {
                let message = format!("`{name}` is written by a streaming query, which can only append");
                self.fault(place, message, "leave the option `mode` out: only a batch job replaces rows");
            }
            (QueryKind::Batch, SinkMode::Append) => {
                let message = format!(
                    "`{name}` is written by a batch job, as its SELECT reads no topic: \
                     running it again would repeat all rows"
                );
                let remedy =
                    "say on the sink OPTIONS ('mode' 'replace'), or 'replace_partitions' for those that it touches";
                self.fault(place, message, remedy);
            }
            (QueryKind::Batch, SinkMode::ReplacePartitions) if sink.partition_by.is_empty() => {
                let message = format!("`{name}` has no partitions to replace");
                self.fault(place, message, "add PARTITIONED BY (…), or write 'mode' 'replace'");
            }
            (QueryKind::Batch, SinkMode::ReplacePartitions) => {}
        }
    }

    /// Reports a streaming query that reads what a streaming query of this file writes.
    fn read_sinks(
        &mut self,
        statement: &Statement,
        query: &Query,
        lookups: &[String],
        name: &str,
        kind: QueryKind,
        streaming: &BTreeSet<String>,
    ) {
        if kind == QueryKind::Batch {
            return;
        }
        for lookup in lookups.iter().filter(|l| *l == name || streaming.contains(*l)) {
            let own = lookup == name;
            let message = if own {
                format!("query {name} reads its own sink: each micro-batch would see the rows of those before it")
            } else {
                format!("query {name} reads `{lookup}`, which another streaming query of this file writes")
            };
            let source = &self.loader.source;
            // The last word of that name: the first one is the INSERT's own target.
            let mut places = statement.words(source, lookup);
            places.extend(self.view_statements(query).iter().flat_map(|s| s.words(source, lookup)));
            let place = places.get(usize::from(own)).or(places.first()).cloned();
            let place = place.unwrap_or_else(|| statement.verb(source));
            self.fault(
                &place,
                message,
                "what it reads would depend on where the micro-batches are cut: read it in a pipeline of its own",
            );
        }
    }

    /// Holds the query's columns against the contract, by position.
    fn fits(&mut self, query: &Query, planned: &Planned, sink: &SinkSpec, target: &Place) {
        let schema = planned.analyzed.schema();
        let source = &self.loader.source;
        let items: &[SelectItem] = leading_select(&query.body).map_or(&[], |s| &s.projection);
        let whole = items.first().and_then(|item| diagnose::place_of(source, item)).unwrap_or_else(|| target.clone());
        let item = |i: usize| match items.get(i).filter(|_| items.len() == schema.fields().len()) {
            Some(item) => diagnose::place_of(source, item).unwrap_or_else(|| whole.clone()),
            None => whole.clone(),
        };
        let columns = &sink.contract.columns;
        let count = schema.fields().len();
        let mut found = Vec::new();
        for misfit in sink.contract.fits(schema.as_arrow()) {
            let fault = |place: &Place, message: String| Fault::new(source, place, message);
            found.push(match misfit {
                Misfit::Missing { position } => {
                    let column = &columns[position];
                    let of = format!("`{}` wants {} columns and the SELECT has {count}", sink.name, columns.len());
                    let message = format!("{of}: `{}` {} is missing", column.name, sql_type(&column.data_type));
                    fault(target, message).remedy(format!("add an expression for it as column {}", position + 1))
                }
                // Behind a wildcard all of them stand at one place: the first one tells for the rest.
                Misfit::Extra { position, .. } if position > columns.len() && items.len() != count => continue,
                Misfit::Extra { .. } if items.len() != count => {
                    let message = format!("`{}` has {} columns, and the SELECT has {count}", sink.name, columns.len());
                    fault(&whole, message).remedy("name the columns one by one, in the order of the contract")
                }
                Misfit::Extra { position, name } => {
                    let message = format!(
                        "`{}` has {} columns: `{name}`, column {}, has no place in it",
                        sink.name,
                        columns.len(),
                        position + 1
                    );
                    fault(&item(position), message).remedy("leave it out, or declare it in the contract")
                }
                Misfit::Type { position, found } => {
                    let column = &columns[position];
                    let (want, have) = (sql_type(&column.data_type), sql_type(&found));
                    let message =
                        format!("column `{}` of `{}` is {want}, and the SELECT has {have}", column.name, sink.name);
                    fault(&item(position), message).remedy(format!("write CAST(… AS {want}), or change the contract"))
                }
                Misfit::Name { position, found } => {
                    let column = &columns[position].name;
                    let message = format!(
                        "`{found}` would go into the column `{column}` of `{}`: INSERT goes by position",
                        sink.name
                    );
                    let remedy = format!("put the columns in the order of the contract, or write AS {column}");
                    fault(&item(position), message).remedy(remedy)
                }
                Misfit::MayBeNull { position } => {
                    let column = &columns[position].name;
                    let message =
                        format!("column `{column}` of `{}` is NOT NULL, and the SELECT may give NULL", sink.name);
                    fault(&item(position), message)
                        .remedy("each row is checked when the query runs; COALESCE or WHERE … IS NOT NULL rules it out")
                        .warning()
                }
            });
        }
        for fault in found {
            self.faults.push(fault);
        }
    }
}
