//! Reads a pipeline file: statement by statement, every fault collected on the way.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::execution::{FunctionRegistry, SessionState, SessionStateBuilder};
use datafusion::prelude::SessionConfig;
use datafusion::sql::parser::CreateExternalTable;
use datafusion::sql::sqlparser::ast::{CreateView, Query};
use jiff::tz::TimeZone;

use super::built_in::is_function;
use super::day::{self, BusinessDay};
use super::fault::{Fault, Faults};
use super::options::Options;
use super::planner::references;
use super::secret::{Environment, Secret};
use super::settings::Draft;
use super::spec::{LookupSpec, ModelSpec, SinkSpec, SourceSpec};
use super::stand_in;
use super::statement::{Kind, Statement, normal, single};
use super::text::{Place, SourceText};
use super::{Facts, names};
use crate::schema::Descriptors;

/// What a file has declared so far, and what is wrong with it.
pub(super) struct Loader<'a> {
    pub source: SourceText,
    pub environment: &'a Environment,
    pub facts: &'a dyn Facts,
    pub faults: Faults,
    pub state: SessionState,
    /// The `.proto` files that are compiled already, by file and include roots; `None` for those with a fault.
    pub compiled: HashMap<(PathBuf, Vec<PathBuf>), Option<Arc<Descriptors>>>,
    pub draft: Draft,
    /// The values of parameters: those of the arguments, and those that follow from a date.
    pub params: BTreeMap<String, String>,
    /// The same with those that only a close gives: what the file is checked with.
    pub planned: BTreeMap<String, String>,
    /// The business day, when a date is given.
    pub day: Option<BusinessDay>,
    /// What stood in `${…}`: taken out of every message.
    secrets: Vec<Secret>,
    /// The first place of each table's or view's name.
    names: BTreeMap<String, Place>,
    functions: BTreeMap<String, Place>,
    /// What can be named in FROM: `None` where the declaration has a fault.
    pub tables: BTreeMap<String, Option<SchemaRef>>,
    pub sources: Vec<SourceSpec>,
    pub lookups: Vec<LookupSpec>,
    pub models: Vec<ModelSpec>,
    pub sinks: Vec<SinkSpec>,
}

/// A `CREATE EXTERNAL TABLE` with what every kind of table needs.
pub(super) struct TableStatement<'s> {
    pub statement: &'s Statement,
    pub tree: &'s CreateExternalTable,
    pub name: String,
    pub name_place: Place,
    /// The location with `${…}` filled in; `None` when that failed, which is reported.
    pub location: Option<String>,
    pub location_place: Place,
    pub options: Options,
    /// Where an option that is missing should have stood.
    pub options_place: Place,
}

/// An `INSERT` or a check, to be planned.
pub(super) struct Written<'s> {
    pub statement: &'s Statement,
    pub query: &'s Query,
}

impl<'a> Loader<'a> {
    pub fn new(source: SourceText, environment: &'a Environment, facts: &'a dyn Facts) -> Self {
        let mut config = SessionConfig::new();
        config.options_mut().sql_parser.collect_spans = true;
        let state = SessionStateBuilder::new().with_config(config).with_default_features().build();
        Self {
            source,
            environment,
            facts,
            faults: Faults::default(),
            state,
            compiled: HashMap::new(),
            draft: Draft::default(),
            params: environment.params.clone(),
            planned: environment.params.clone(),
            day: None,
            secrets: Vec::new(),
            names: BTreeMap::new(),
            functions: BTreeMap::new(),
            tables: BTreeMap::new(),
            sources: Vec::new(),
            lookups: Vec::new(),
            models: Vec::new(),
            sinks: Vec::new(),
        }
    }

    /// Reads the `SET`s and the settings of the arguments.
    pub fn settings(&mut self, statements: &[Statement]) {
        for statement in statements {
            let Kind::Set { name, value } = &statement.kind else { continue };
            let options = self.state.config_mut().options_mut();
            if let Err((in_value, message, remedy)) = self.draft.set(options, name, value) {
                let verb = statement.verb(&self.source);
                let token = if in_value {
                    statement.tokens.iter().rev().find(|t| t.span.end.line > 0)
                } else {
                    statement.tokens.get(1)
                };
                let mut place = token.and_then(|t| self.source.place(t.span)).unwrap_or(verb);
                if !in_value {
                    // The whole dotted name.
                    let rest = &self.source.text()[place.start..];
                    let width = rest.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(rest.len());
                    place.end = place.start + width;
                }
                self.faults.push(Fault::new(&self.source, &place, message).remedy(remedy));
            }
        }
        for (key, value) in &self.environment.settings {
            let options = self.state.config_mut().options_mut();
            if let Err((_, message, remedy)) = self.draft.set(options, &key.to_lowercase(), value) {
                self.faults.push(Fault::in_arguments(self.source.file(), format!("--set: {message}")).remedy(remedy));
            }
        }
        self.state.config_mut().options_mut().sql_parser.collect_spans = true;
    }

    /// Takes the business day from its date.
    pub fn business_day(&mut self) {
        let Some(zone) = self.draft.settings.close_zone.clone() else { return };
        let fault = |text: String| {
            let (what, remedy) = text.split_once(": ").unwrap_or((&text, "write another"));
            Fault::in_arguments(self.source.file(), format!("--param date: {what}")).remedy(remedy)
        };
        match self.params.remove(day::DATE).map(|date| BusinessDay::new(&date, &zone)) {
            None => {}
            Some(Err(why)) => self.faults.push(fault(why)),
            Some(Ok(day)) => self.day = Some(day),
        }
        for (name, value) in self.day.iter().flat_map(BusinessDay::params) {
            self.params.entry(name.to_owned()).or_insert(value);
        }
        // Without a date some day tells whether the file makes sense.
        self.planned = self.params.clone();
        let some_day = BusinessDay::new("1970-01-01", &TimeZone::UTC).ok();
        for (name, value) in some_day.iter().flat_map(BusinessDay::params) {
            self.planned.entry(name.to_owned()).or_insert(value);
        }
    }

    /// Whether a parameter is given, or is one that a close gives.
    fn is_given(&self, name: &str) -> bool {
        self.params.contains_key(name) || (self.draft.settings.close_zone.is_some() && day::is_of_day(name))
    }

    /// Reports parameters that have no value and values that have no parameter.
    pub fn parameters(&mut self, statements: &[Statement]) {
        let mut used: BTreeSet<String> = BTreeSet::new();
        for statement in statements {
            for (name, place) in statement.parameters(&self.source) {
                let fault = |message: String| Fault::new(&self.source, &place, message);
                if !matches!(statement.kind, Kind::Insert { .. } | Kind::View(_) | Kind::Check(_)) {
                    let fault = fault(format!("`${name}` cannot stand here: a parameter is a value in a SELECT"));
                    self.faults.push(fault.remedy("in LOCATION and OPTIONS write ${env:NAME}"));
                } else if name.starts_with(|c: char| c.is_ascii_digit()) {
                    self.faults.push(fault(format!("parameter `${name}` has a number")).remedy("give it a name: $day"));
                } else if !self.is_given(&name) && !used.contains(&name) {
                    let meant = super::suggest::closest(&name, self.environment.params.keys().map(String::as_str));
                    let remedy = match meant {
                        Some(meant) => format!("write --param {name}=VALUE; did you mean `{meant}`?"),
                        None => format!("write --param {name}=VALUE"),
                    };
                    self.faults.push(fault(format!("parameter `${name}` has no value")).remedy(remedy));
                }
                used.insert(name);
            }
        }
        let is_day = |name: &str| self.draft.settings.close_zone.is_some() && day::is_of_day(name);
        for name in self.environment.params.keys().filter(|name| !used.contains(*name) && !is_day(name)) {
            let fault =
                Fault::in_arguments(self.source.file(), format!("--param: the file has no parameter `${name}`"));
            let remedy = super::suggest::did_you_mean(name, used.iter().map(String::as_str));
            self.faults.push(fault.remedy(remedy.unwrap_or_else(|| "leave it out: the file has no parameters".into())));
        }
    }

    /// Reads tables and functions; returns the `INSERT`s.
    pub fn declarations<'s>(&mut self, statements: &'s [Statement]) -> Vec<Written<'s>> {
        let mut written = Vec::new();
        let mut targets = BTreeSet::new();
        for statement in statements {
            if let Kind::Insert { sink, query } = &statement.kind {
                targets.insert(normal(sink));
                written.push(Written { statement, query });
            }
        }
        for statement in statements {
            match &statement.kind {
                Kind::Table(tree) => self.table(statement, tree, &targets),
                Kind::Function(tree) => {
                    if let Some(name) = single(&tree.name) {
                        let place = self.source.place(name.span).unwrap_or_else(|| statement.verb(&self.source));
                        let name = normal(name);
                        if is_function(&self.state, &name) {
                            let message = format!("there is a function `{name}` already, which every query has");
                            self.faults
                                .push(Fault::new(&self.source, &place, message).remedy("give the model another name"));
                        }
                        if !self.declare(&name, place, true) {
                            continue;
                        }
                    }
                    let model = self.model(statement, tree);
                    self.models.extend(model);
                }
                _ => {}
            }
        }
        written
    }

    /// Reports lookups that shall lie elsewhere and that the file does not have.
    pub fn replaced_tables(&mut self) {
        for name in self.environment.tables.keys().filter(|name| !self.lookups.iter().any(|l| l.name == **name)) {
            let message = format!("--table: the file has no lookup `{name}`");
            let known = self.lookups.iter().map(|lookup| lookup.name.as_str());
            let remedy = super::suggest::did_you_mean(name, known).unwrap_or_else(|| "leave it out".into());
            self.faults.push(Fault::in_arguments(self.source.file(), message).remedy(remedy));
        }
    }

    /// Notes a name; false when it is taken, which is reported.
    fn declare(&mut self, name: &str, place: Place, function: bool) -> bool {
        let (names, what) =
            if function { (&mut self.functions, "function") } else { (&mut self.names, "table or view") };
        if let Some(first) = names.get(name) {
            let (line, _) = self.source.position(first.start);
            let fault =
                Fault::new(&self.source, &place, format!("{what} `{name}` is declared twice, first on line {line}"));
            self.faults.push(fault.remedy("give one of them another name"));
            return false;
        }
        names.insert(name.to_string(), place);
        true
    }

    fn table(&mut self, statement: &Statement, tree: &CreateExternalTable, targets: &BTreeSet<String>) {
        let verb = statement.verb(&self.source);
        let Some(ident) = single(&tree.name) else {
            let fault = Fault::new(&self.source, &verb, format!("`{}` has dots in its name", tree.name));
            self.faults.push(fault.remedy("tables of a pipeline have names without dots"));
            return;
        };
        let name = normal(ident);
        let name_place = self.source.place(ident.span).unwrap_or_else(|| verb.clone());
        if !self.declare(&name, name_place.clone(), false) {
            return;
        }
        self.tables.insert(name.clone(), None);
        if tree.or_replace || tree.if_not_exists || tree.temporary || tree.unbounded || !tree.order_exprs.is_empty() {
            let message = "only the plain form of CREATE EXTERNAL TABLE is known";
            let remedy = "leave out OR REPLACE, IF NOT EXISTS, TEMPORARY, UNBOUNDED and WITH ORDER";
            self.faults.push(Fault::new(&self.source, &verb, message).remedy(remedy));
        }
        let table = self.table_statement(statement, tree, name, name_place);
        let name = table.name.clone();
        let schema = match tree.file_type.as_str() {
            _ if targets.contains(&name) && tree.file_type != "KAFKA" => self.sink(table).map(|sink| {
                let schema = sink.contract.arrow_schema();
                self.sinks.push(sink);
                schema
            }),
            "KAFKA" => self.topic(table).map(|topic| {
                let schema = Arc::clone(&topic.schema);
                self.sources.push(topic);
                schema
            }),
            "DELTA" | "PARQUET" | "CSV" | "JSON" => self.lookup_with_schema(table),
            other => {
                let place = statement.words(&self.source, other).pop().unwrap_or(verb);
                let kinds = ["KAFKA", "DELTA", "PARQUET", "CSV", "JSON"];
                let fault = Fault::new(&self.source, &place, format!("STORED AS {other} is not known"));
                self.faults.push(fault.remedy(super::suggest::did_you_mean(other, kinds).unwrap_or_default()));
                None
            }
        };
        self.tables.insert(name, schema);
    }

    fn table_statement<'s>(
        &mut self,
        statement: &'s Statement,
        tree: &'s CreateExternalTable,
        name: String,
        name_place: Place,
    ) -> TableStatement<'s> {
        let location_place = statement.string_after(&self.source, "LOCATION");
        let location = match tree.locations.as_slice() {
            [location] => self.environment.expand(location, &mut self.secrets).map_err(|r| (r.message, r.remedy)),
            _ => Err(("a table has one location".to_string(), "write LOCATION 'path'".to_string())),
        };
        let location = location
            .map_err(|(message, remedy)| {
                self.faults.push(Fault::new(&self.source, &location_place, message).remedy(remedy));
            })
            .ok();
        let options = Options::read(
            &self.source,
            statement,
            &tree.options,
            self.environment,
            &mut self.secrets,
            &mut self.faults,
        );
        let options_place = statement.words(&self.source, "OPTIONS").pop().unwrap_or_else(|| name_place.clone());
        TableStatement { statement, tree, name, name_place, location, location_place, options, options_place }
    }

    fn lookup_with_schema(&mut self, table: TableStatement<'_>) -> Option<SchemaRef> {
        let place = table.location_place.clone();
        let lookup = self.lookup(table)?;
        let schema = match &lookup.declared {
            Some(declared) => Some(Arc::clone(declared)),
            None => match self.facts.lookup_schema(&lookup) {
                Ok(schema) => Some(schema),
                Err(error) => {
                    let remedy =
                        "check the location, or declare the columns: CREATE EXTERNAL TABLE name (column TYPE, …)";
                    self.faults.push(Fault::new(&self.source, &place, error.message()).remedy(remedy));
                    None
                }
            },
        };
        self.lookups.push(lookup);
        schema
    }

    /// The views in an order in which each reads only those before it; cycles are reported and left out.
    pub fn views(&mut self, statements: &[Statement]) -> Vec<(Statement, CreateView)> {
        let mut views: BTreeMap<String, (&Statement, &CreateView)> = BTreeMap::new();
        for statement in statements {
            let Kind::View(view) = &statement.kind else { continue };
            let verb = statement.verb(&self.source);
            let Some(ident) = single(&view.name) else {
                let fault = Fault::new(&self.source, &verb, format!("`{}` has dots in its name", view.name));
                self.faults.push(fault.remedy("views of a pipeline have names without dots"));
                continue;
            };
            let name = normal(ident);
            let place = self.source.place(ident.span).unwrap_or(verb);
            if self.declare(&name, place, false) {
                self.tables.insert(name.clone(), None);
                views.insert(name, (statement, view));
            }
        }
        let reads: BTreeMap<String, BTreeSet<String>> =
            views.iter().map(|(name, (_, view))| (name.clone(), references(&view.query))).collect();
        let mut ordered: Vec<String> = Vec::new();
        let mut left: Vec<String> = views.keys().cloned().collect();
        while let Some(at) = left.iter().position(|v| !reads[v].iter().any(|r| left.contains(r))) {
            ordered.push(left.remove(at));
        }
        for name in &left {
            let Some(path) = cycle(name, &reads) else { continue };
            let place = self.names.get(name).cloned().unwrap_or(0..0);
            let fault = Fault::new(&self.source, &place, format!("view `{name}` reads itself: {}", path.join(" -> ")));
            self.faults.push(fault.remedy("break the circle: one of them must read tables only"));
        }
        ordered.into_iter().map(|name| (views[&name].0.clone(), views[&name].1.clone())).collect()
    }

    /// Lets queries be planned with the declared models.
    pub fn register_models(&mut self) {
        for model in &self.models {
            let stand_in = Arc::new(stand_in::function(model));
            if let Err(error) = self.state.register_udf(stand_in) {
                let place = self.functions.get(&model.name).cloned().unwrap_or(0..0);
                self.faults.push(Fault::new(&self.source, &place, super::diagnose::clean(&error)));
            }
        }
        if let Err(error) = self.state.register_udf(Arc::new(stand_in::model_info())) {
            self.faults.push(Fault::new(&self.source, &(0..0), super::diagnose::clean(&error)));
        }
    }

    /// `SET flumen.pipeline`, else the file's stem.
    pub fn pipeline_name(&mut self) -> String {
        if let Some(name) = &self.draft.pipeline {
            return name.clone();
        }
        let stem = self.source.file().file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        if !names::is_plain(&stem) {
            let message = format!("the pipeline is named after its file, and `{stem}` cannot be a name");
            let remedy = format!("{}; or write SET flumen.pipeline = 'name'", names::PLAIN);
            self.faults.push(Fault::in_arguments(self.source.file(), message).remedy(remedy));
        }
        stem
    }

    /// What stood in `${…}`.
    pub fn secrets(&self) -> &[Secret] {
        &self.secrets
    }

    /// The first place of a table's or view's name.
    pub fn place_of(&self, name: &str) -> Option<&Place> {
        self.names.get(name)
    }

    /// The names of functions that are declared, also those with a fault.
    pub fn declared_functions(&self) -> impl Iterator<Item = &str> {
        self.functions.keys().map(String::as_str)
    }
}

/// The way from `name` back to itself, if there is one.
fn cycle(name: &str, reads: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    let mut seen = BTreeSet::new();
    let mut paths = vec![vec![name.to_string()]];
    while let Some(path) = paths.pop() {
        let last = path.last()?;
        for next in reads.get(last).into_iter().flatten() {
            let mut longer = path.clone();
            longer.push(next.clone());
            if next == name {
                return Some(longer);
            }
            if seen.insert(next.clone()) {
                paths.push(longer);
            }
        }
    }
    None
}
