//! Plans the file's queries over stand-ins and reports everything that is unknown or does not type, not only the first.
//! What has been reported is replaced by NULL and the query planned again, so that one fault hides none behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use arrow::datatypes::{DataType, Fields};
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{
    CreateView, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, JoinConstraint, JoinOperator, Query,
    Select, SelectItem, SetExpr, Spanned, Value, visit_expressions_mut,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::View;
use super::built_in::is_function;
use super::diagnose;
use super::fault::{Fault, Faults};
use super::loader::Loader;
use super::params::{self, ParamFault};
use super::planner::{Catalogue, analyze, references};
use super::spec::ModelSpec;
use super::stand_in;
use super::statement::{Statement, calls, ignored_clauses, normal, relations, single};
use super::suggest;
use super::text::{Place, SourceText};
use crate::contract::sql_type;

/// How many faults of one query are looked for.
const MOST: usize = 32;

/// A query that planned, perhaps with parts replaced by NULL.
pub(super) struct Planned {
    /// The plan as written, parameters filled in.
    pub plan: LogicalPlan,
    /// The plan after analysis: its types are final.
    pub analyzed: LogicalPlan,
}

/// The tables, views and functions of a file, ready to plan its queries.
pub(super) struct Resolver<'a> {
    source: SourceText,
    state: &'a SessionState,
    catalogue: Catalogue<'a>,
    params: &'a BTreeMap<String, String>,
    models: &'a [ModelSpec],
    /// Names that are declared, and whether their declaration is sound.
    names: BTreeMap<String, bool>,
    functions: BTreeSet<String>,
    views: Vec<(Statement, CreateView)>,
}

impl<'a> Resolver<'a> {
    pub fn new(loader: &'a Loader<'_>, views: Vec<(Statement, CreateView)>) -> Self {
        let mut catalogue = Catalogue::new(&loader.state);
        let mut names = BTreeMap::new();
        for (name, schema) in &loader.tables {
            names.insert(name.clone(), schema.is_some());
            if let Some(schema) = schema {
                catalogue.add(name, stand_in::table(schema));
            }
        }
        Self {
            source: loader.source.clone(),
            state: &loader.state,
            catalogue,
            params: &loader.planned,
            models: &loader.models,
            names,
            functions: loader.declared_functions().map(str::to_string).collect(),
            views,
        }
    }

    /// Plans the views, in their order; those with a fault stay unusable.
    pub fn plan_views(&mut self, faults: &mut Faults) {
        for (statement, view) in self.views.clone() {
            let Some(name) = single(&view.name).map(normal) else { continue };
            let before = faults.count().0;
            if self.plan(&statement, &view.query, faults).is_none() || faults.count().0 > before {
                continue;
            }
            match self.catalogue.add_view(&name, &view) {
                Ok(()) => {
                    self.names.insert(name, true);
                }
                Err(error) => {
                    let place = statement.verb(&self.source);
                    faults.push(diagnose::fault(&self.source, &error, &place, Some(view.query.as_ref())));
                }
            }
        }
    }

    /// The views in their order, for planning again later.
    pub fn into_views(self) -> Vec<View> {
        let view = |(_, tree): (Statement, CreateView)| Some(View { name: single(&tree.name).map(normal)?, tree });
        self.views.into_iter().filter_map(view).collect()
    }

    /// The view of that name with its statement.
    pub fn view(&self, name: &str) -> Option<&(Statement, CreateView)> {
        self.views.iter().find(|(_, view)| single(&view.name).map(normal).as_deref() == Some(name))
    }

    /// The tables (not views) that a query reads, through views too, and the functions that it calls.
    pub fn reads(&self, query: &Query) -> (BTreeSet<String>, BTreeSet<String>) {
        let mut tables = BTreeSet::new();
        let mut functions: BTreeSet<String> = calls(query).iter().map(|(name, _)| normal(name)).collect();
        for name in references(query) {
            match self.view(&name) {
                Some((_, view)) => {
                    let (more, called) = self.reads(&view.query);
                    tables.extend(more);
                    functions.extend(called);
                }
                None => {
                    tables.insert(name);
                }
            }
        }
        (tables, functions)
    }

    /// Plans a query and reports what is wrong with it; `None` when there is no plan at all.
    pub fn plan(&self, statement: &Statement, query: &Query, faults: &mut Faults) -> Option<Planned> {
        self.plan_into(statement, query, &[], faults)
    }

    /// [`Resolver::plan`] of a query that fills columns of these types.
    pub fn plan_into(
        &self,
        statement: &Statement,
        query: &Query,
        columns: &[DataType],
        faults: &mut Faults,
    ) -> Option<Planned> {
        for (name, clause) in ignored_clauses(query) {
            let place = diagnose::place_of(&self.source, &name).unwrap_or_else(|| statement.verb(&self.source));
            let fault = Fault::new(&self.source, &place, format!("`{name}`: {clause} is not supported"));
            faults.push(fault.remedy("leave it out: it would be passed over"));
        }
        if !self.known_tables(query, faults) {
            return None;
        }
        let mut query = query.clone();
        let mut blanked = self.known_functions(&mut query, faults);
        for _ in 0..MOST {
            match self.attempt(&query, columns) {
                Ok(planned) => return Some(planned),
                Err(ParamFault::Type { name, wanted }) => {
                    let place = statement.parameters(&self.source).into_iter().find(|(n, _)| *n == name);
                    let place = place.map_or_else(|| statement.verb(&self.source), |(_, place)| place);
                    let fault = Fault::new(&self.source, &place, format!("--param {name}: the value is no {wanted}"));
                    faults.push(fault.remedy(format!("give a value that the query can compare with {wanted}")));
                    return None;
                }
                Err(ParamFault::Plan(error)) => {
                    // A type that does not go with the NULL put in before is no fault of the file.
                    let mut untold = Faults::default();
                    let follows = blanked && ["Null", "NULL"].iter().any(|n| error.strip_backtrace().contains(n));
                    let told = if follows { &mut untold } else { &mut *faults };
                    if !self.report(statement, &mut query, &error, told) {
                        return None;
                    }
                    blanked = true;
                }
            }
        }
        None
    }

    fn attempt(&self, query: &Query, columns: &[DataType]) -> Result<Planned, ParamFault> {
        let plan = self.catalogue.plan(query).map_err(ParamFault::Plan)?;
        let missing = |name: &String| !self.params.contains_key(name.trim_start_matches('$'));
        let names = plan.get_parameter_names().map_err(ParamFault::Plan)?;
        if names.iter().any(missing) {
            return Ok(Planned { analyzed: plan.clone(), plan });
        }
        let plan = params::fill(plan, self.params, columns)?;
        let analyzed = analyze(plan.clone(), self.state).map_err(ParamFault::Plan)?;
        Ok(Planned { plan, analyzed })
    }

    /// Whether every table is declared and sound; unknown ones are reported, faulty ones have been.
    fn known_tables(&self, query: &Query, faults: &mut Faults) -> bool {
        let mut all = true;
        for name in references(query) {
            match self.names.get(&name) {
                Some(sound) => all &= sound,
                None if self.state.table_functions().contains_key(&name) => {}
                None => {
                    all = false;
                    let same = |n: &&datafusion::sql::sqlparser::ast::ObjectName| {
                        let parts: Vec<_> = n.0.iter().filter_map(|p| p.as_ident()).map(normal).collect();
                        parts.join(".") == name
                    };
                    let place = relations(query).iter().find(same).and_then(|n| diagnose::place_of(&self.source, n));
                    let place = place.unwrap_or_else(|| diagnose::place_of(&self.source, query).unwrap_or(0..0));
                    let fault = Fault::new(&self.source, &place, format!("there is no table `{name}`"));
                    let remedy = suggest::did_you_mean(&name, self.names.keys().map(String::as_str));
                    faults.push(fault.remedy(remedy.unwrap_or_else(|| "declare it with CREATE EXTERNAL TABLE".into())));
                }
            }
        }
        all
    }

    /// Reports unknown functions and models with a wrong number of arguments, and puts NULL in their place.
    /// Whether there was one.
    fn known_functions(&self, query: &mut Query, faults: &mut Faults) -> bool {
        let mut wrong: Vec<Span> = Vec::new();
        for (ident, call) in calls(query) {
            let name = normal(&ident);
            let place = self.source.place(ident.span).unwrap_or(0..0);
            if let Some(model) = self.models.iter().find(|m| m.name == name) {
                let given = match &call {
                    Expr::Function(f) => match &f.args {
                        FunctionArguments::List(list) => list.args.len(),
                        _ => 0,
                    },
                    _ => 0,
                };
                let wanted = model.arguments.len();
                if given != wanted {
                    let message = format!("`{name}` takes {wanted} arguments, and this call has {given}");
                    let fault = Fault::new(&self.source, &place, message);
                    faults.push(fault.remedy("give one value for each feature, in the model's order"));
                    wrong.push(call.span());
                }
            } else if !is_function(self.state, &name) {
                wrong.push(call.span());
                if self.functions.contains(&name) {
                    continue;
                }
                let fault = Fault::new(&self.source, &place, format!("there is no function `{name}`"));
                let known = self.function_names();
                let meant = suggest::closest(&name, known.iter().map(String::as_str));
                let remedy = meant.map_or_else(
                    || "declare a model with CREATE FUNCTION, or use one of DataFusion's functions".to_string(),
                    |meant| format!("did you mean `{meant}`?"),
                );
                faults.push(fault.remedy(remedy));
            }
        }
        for span in &wrong {
            blank(query, |expr| matches!(expr, Expr::Function(_)) && expr.span() == *span);
        }
        !wrong.is_empty()
    }

    fn function_names(&self) -> BTreeSet<String> {
        let scalar = self.state.scalar_functions().keys();
        let aggregate = self.state.aggregate_functions().keys();
        scalar.chain(aggregate).chain(self.state.window_functions().keys()).cloned().collect()
    }

    /// Reports an error and puts NULL in place of what caused it; false when that cannot be found.
    fn report(&self, statement: &Statement, query: &mut Query, error: &DataFusionError, faults: &mut Faults) -> bool {
        let verb = statement.verb(&self.source);
        if let DataFusionError::SchemaError(schema, _) = error.find_root()
            && let SchemaError::FieldNotFound { field, .. } | SchemaError::AmbiguousReference { field } =
                schema.as_ref()
        {
            let parts = diagnose::named(&self.source, error, field, &*query);
            faults.push(diagnose::fault(&self.source, error, &verb, Some(&*query)));
            let Some(first) = parts.and_then(|parts| parts.into_iter().next()) else { return false };
            return blank(query, |expr| match expr {
                Expr::Identifier(ident) => ident.span == first.span,
                Expr::CompoundIdentifier(parts) => parts.first().is_some_and(|p| p.span == first.span),
                _ => false,
            });
        }
        if let Some((place, fault)) = self.unknown_field(query, error) {
            faults.push(fault);
            return blank(query, |expr| {
                matches!(expr, Expr::CompoundIdentifier(_) | Expr::CompoundFieldAccess { .. })
                    && diagnose::place_of(&self.source, expr)
                        .is_some_and(|p| p.start <= place.start && p.end >= place.end)
            });
        }
        match self.culprit(query, error) {
            Some((place, without)) => {
                let fault = self.bad_call(query, error, &place);
                faults.push(fault.unwrap_or_else(|| diagnose::fault(&self.source, error, &place, Some(&*query))));
                *query = without;
                true
            }
            None => {
                faults.push(diagnose::fault(&self.source, error, &verb, Some(&*query)));
                false
            }
        }
    }

    /// A function that does not take these arguments: its name's place, and what it takes.
    fn bad_call(&self, query: &Query, error: &DataFusionError, within: &Place) -> Option<Fault> {
        let message = diagnose::clean(error);
        let (_, rest) = message.split_once("a call to '")?;
        let (name, rest) = rest.split_once('\'')?;
        let named = calls(query).into_iter().filter(|(ident, _)| normal(ident) == name);
        let placed = named.filter_map(|(ident, call)| Some((self.source.place(ident.span)?, call)));
        let (place, call) = placed.into_iter().find(|(place, _)| within.contains(&place.start))?;
        let raw = rest.split_once("coercion from ").and_then(|(_, rest)| rest.split_once(" to the signature"));
        let raw = raw.map_or("these arguments", |(given, _)| given);
        let given =
            self.argument_types(query, &call).map_or(raw.to_string(), |types| format!("({})", types.join(", ")));
        if let Some(model) = self.models.iter().find(|m| m.name == name) {
            let wanted: Vec<_> = model.arguments.iter().map(sql_type).collect();
            let message = format!("`{name}` cannot be called with {given}");
            let remedy = format!("CAST the arguments: it takes ({})", wanted.join(", "));
            return Some(Fault::new(&self.source, &place, message).remedy(remedy));
        }
        let fault = Fault::new(&self.source, &place, format!("`{name}` cannot be called with {given}"));
        Some(fault.remedy("CAST the arguments to types that it takes"))
    }

    /// The types of a call's arguments, as SQL writes them.
    fn argument_types(&self, query: &Query, call: &Expr) -> Option<Vec<String>> {
        let Expr::Function(function) = call else { return None };
        let FunctionArguments::List(list) = &function.args else { return None };
        let mut query = query.clone();
        let select = leading_select_mut(&mut query.body)?;
        select.projection.clear();
        for (i, argument) in list.args.iter().enumerate() {
            let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = argument else { return None };
            select
                .projection
                .push(SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::new(format!("a{i}")) });
        }
        let planned = self.attempt(&query, &[]).ok()?;
        Some(planned.analyzed.schema().fields().iter().map(|f| sql_type(f.data_type())).collect())
    }

    /// `Field x not found in struct`: where `x` stands and which fields there are.
    fn unknown_field(&self, query: &Query, error: &DataFusionError) -> Option<(Place, Fault)> {
        let message = diagnose::clean(error);
        let field = message.strip_prefix("field ")?.strip_suffix(" not found in struct")?;
        for parts in diagnose::identifiers(query) {
            let Some(at) = parts.iter().skip(1).position(|p| normal(p) == field) else { continue };
            let (parent, ident) = (normal(&parts[at]), &parts[at + 1]);
            let place = self.source.place(ident.span)?;
            let fault = Fault::new(&self.source, &place, format!("`{parent}` has no field `{field}`"));
            let fields = self.struct_fields(query, &parent);
            let remedy = suggest::did_you_mean(field, fields.iter().map(String::as_str));
            return Some((place, fault.remedy(remedy.unwrap_or_else(|| "look at the message".into()))));
        }
        None
    }

    /// The fields of the structs called `name` in the tables that a query reads.
    fn struct_fields(&self, query: &Query, name: &str) -> Vec<String> {
        fn collect(fields: &Fields, name: &str, found: &mut Vec<String>) {
            for field in fields {
                let mut inner = field.data_type();
                while let DataType::List(item) | DataType::LargeList(item) = inner {
                    inner = item.data_type();
                }
                if let DataType::Struct(children) = inner {
                    if field.name() == name {
                        found.extend(children.iter().map(|c| c.name().clone()));
                    }
                    collect(children, name, found);
                }
            }
        }
        let mut found = Vec::new();
        for table in references(query) {
            if let Some(schema) = self.catalogue.schema(&table) {
                collect(schema.fields(), name, &mut found);
            }
        }
        found
    }

    /// The part of the leading SELECT without which the error goes away: its place, and the query without it.
    fn culprit(&self, query: &Query, error: &DataFusionError) -> Option<(Place, Query)> {
        let message = error.strip_backtrace();
        let helps = |without: &Query| match self.attempt(without, &[]) {
            Err(ParamFault::Plan(other)) => other.strip_backtrace() != message,
            _ => true,
        };
        parts(query).into_iter().find_map(|part| {
            let mut without = query.clone();
            let span = remove(leading_select_mut(&mut without.body)?, part)?;
            let place = self.source.place(span)?;
            helps(&without).then_some((place, without))
        })
    }
}

/// A part of a SELECT that can be left out.
#[derive(Clone, Copy)]
enum Part {
    Item(usize),
    Where,
    Having,
    On(usize, usize),
}

fn parts(query: &Query) -> Vec<Part> {
    let Some(select) = super::statement::leading_select(&query.body) else { return Vec::new() };
    let joins = select.from.iter().enumerate().flat_map(|(f, from)| (0..from.joins.len()).map(move |j| Part::On(f, j)));
    (0..select.projection.len()).map(Part::Item).chain([Part::Where, Part::Having]).chain(joins).collect()
}

/// Puts NULL in place of a part, or leaves a condition out; the span of what stood there.
fn remove(select: &mut Select, part: Part) -> Option<Span> {
    match part {
        Part::Item(i) => {
            let item = select.projection.get_mut(i)?;
            let (span, alias) = match item {
                SelectItem::UnnamedExpr(expr) => (expr.span(), Ident::new(format!("null_{}", i + 1))),
                SelectItem::ExprWithAlias { expr, alias } => (expr.span(), alias.clone()),
                _ => return None,
            };
            *item = SelectItem::ExprWithAlias { expr: null(), alias };
            Some(span)
        }
        Part::Where => select.selection.take().map(|e| e.span()),
        Part::Having => select.having.take().map(|e| e.span()),
        Part::On(from, join) => {
            let operator = &mut select.from.get_mut(from)?.joins.get_mut(join)?.join_operator;
            let constraint = match operator {
                JoinOperator::Join(c)
                | JoinOperator::Inner(c)
                | JoinOperator::Left(c)
                | JoinOperator::LeftOuter(c)
                | JoinOperator::Right(c)
                | JoinOperator::RightOuter(c)
                | JoinOperator::FullOuter(c)
                | JoinOperator::LeftSemi(c)
                | JoinOperator::LeftAnti(c) => c,
                _ => return None,
            };
            let JoinConstraint::On(expr) = constraint else { return None };
            let span = expr.span();
            *expr = Expr::Value(Value::Boolean(true).with_empty_span());
            Some(span)
        }
    }
}

fn leading_select_mut(body: &mut SetExpr) -> Option<&mut Select> {
    match body {
        SetExpr::Select(select) => Some(select),
        SetExpr::Query(query) => leading_select_mut(&mut query.body),
        SetExpr::SetOperation { left, .. } => leading_select_mut(left),
        _ => None,
    }
}

/// Puts NULL in place of the first expression that `is` is true of; whether there was one.
fn blank(query: &mut Query, is: impl Fn(&Expr) -> bool) -> bool {
    let found = visit_expressions_mut(query, |expr| {
        if is(expr) {
            *expr = null();
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    name_nulls(&mut query.body);
    found.is_break()
}

/// Names the columns that are NULL now, as two columns of one SELECT must not have the same name.
fn name_nulls(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => {
            for (i, item) in select.projection.iter_mut().enumerate() {
                if matches!(item, SelectItem::UnnamedExpr(Expr::Value(v)) if v.value == Value::Null) {
                    *item = SelectItem::ExprWithAlias { expr: null(), alias: Ident::new(format!("null_{}", i + 1)) };
                }
            }
        }
        SetExpr::Query(query) => name_nulls(&mut query.body),
        SetExpr::SetOperation { left, right, .. } => {
            name_nulls(left);
            name_nulls(right);
        }
        _ => {}
    }
}

fn null() -> Expr {
    Expr::Value(Value::Null.with_empty_span())
}
