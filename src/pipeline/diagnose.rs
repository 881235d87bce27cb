//! DataFusion's planning errors to faults: what is unknown, where it stands, what was probably meant.

use std::ops::ControlFlow;

use datafusion::common::{Column, SchemaError};
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::ast::{Expr, Ident, Spanned, Visit, visit_expressions};

use super::fault::Fault;
use super::statement::normal;
use super::suggest;
use super::text::{Place, SourceText};

/// The error's first line, without the names of DataFusion's error classes.
pub(super) fn clean(error: &DataFusionError) -> String {
    strip(&error.find_root().strip_backtrace())
}

/// A message's first line, without the names of DataFusion's error classes.
pub(super) fn strip(message: &str) -> String {
    const CLASSES: [&str; 9] = [
        "External error: ",
        "Error during planning: ",
        "Execution error: ",
        "Schema error: ",
        "This feature is not implemented: ",
        "Invalid or Unsupported Configuration: ",
        "SQL error: ",
        "Arrow error: ",
        "Optimizer rule 'type_coercion' failed\ncaused by\n",
    ];
    let mut text = message;
    while let Some(rest) = CLASSES.iter().find_map(|class| text.strip_prefix(class)) {
        text = rest;
    }
    let mut text = text.lines().next().unwrap_or(text);
    for rest in [" No function matches", " (DataType: ", " You might need"] {
        text = text.split(rest).next().unwrap_or(text);
    }
    let mut chars = text.trim().trim_end_matches('.').chars();
    let first = chars.next().map(|c| c.to_lowercase().to_string()).unwrap_or_default();
    // A name in capitals stays as it is.
    match chars.clone().next() {
        Some(second) if second.is_lowercase() => first + chars.as_str(),
        _ => text.trim().trim_end_matches('.').to_string(),
    }
}

/// The fault that an error tells of; `place` is where it stands when the error does not know better.
pub(super) fn fault(source: &SourceText, error: &DataFusionError, place: &Place, tree: Option<&impl Visit>) -> Fault {
    let span = error.diagnostic().and_then(|d| d.span).and_then(|s| source.plan_place(s));
    let at = span.unwrap_or_else(|| place.clone());
    match error.find_root() {
        DataFusionError::SchemaError(schema, _) => match schema.as_ref() {
            SchemaError::FieldNotFound { field, valid_fields } => {
                let parts = tree.and_then(|t| named(source, error, field, t)).unwrap_or_default();
                unknown_column(source, &at, &parts, field, valid_fields)
            }
            SchemaError::AmbiguousReference { field } => {
                let message = format!("column `{}` is in more than one table", field.name);
                let parts = tree.and_then(|t| named(source, error, field, t)).unwrap_or_default();
                let at = parts.last().and_then(|part| source.place(part.span)).unwrap_or(at);
                let remedy = format!("say which: write table.{}", field.name);
                Fault::new(source, &at, message).remedy(remedy)
            }
            SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
                let message = format!("two columns are called `{name}`");
                Fault::new(source, &at, message).remedy(format!("give one another name: … AS {name}_2"))
            }
        },
        root => {
            // A diagnostic is written for people; the error itself, for DataFusion's developers.
            let told = error.diagnostic().filter(|d| d.span.is_some()).map(|d| {
                let types: Vec<_> = d.notes.iter().filter_map(|n| n.message.strip_prefix("has type ")).collect();
                if types.is_empty() { d.message.clone() } else { format!("{}: {}", d.message, types.join(" and ")) }
            });
            let mut message = strip(&told.unwrap_or_else(|| root.strip_backtrace()));
            if message.to_lowercase().starts_with("dot access") {
                // What follows is a dump of the syntax tree.
                message = "a field behind an index cannot be taken with a dot".to_string();
            }
            let remedy = remedy(error, &message);
            Fault::new(source, &at, message).remedy(remedy)
        }
    }
}

fn remedy(error: &DataFusionError, message: &str) -> String {
    if let Some(help) = error.diagnostic().and_then(|d| d.helps.first()) {
        return strip(&help.message);
    }
    let lower = message.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|w| lower.contains(w));
    match () {
        () if has(&["cannot be taken with a dot"]) => "write its name in brackets: parts[1]['field']",
        () if has(&["unique expression names"]) => "give one of them another name: … AS name",
        () if has(&["group by"]) => "add the column to GROUP BY, or aggregate it",
        () if has(&["coerce", "no function matches", "argument types", "incompatible", "cannot infer common"]) => {
            "CAST one side, so that the types agree"
        }
        () if has(&["does not support", "unsupported", "not implemented", "not supported"]) => {
            "DataFusion cannot do this: write it in another way"
        }
        () => "look at the names and types that are used here",
    }
    .to_string()
}

/// The parts of the name that an error is about: the one at its place, else the first that is written like it.
pub(super) fn named(
    source: &SourceText,
    error: &DataFusionError,
    column: &Column,
    tree: &impl Visit,
) -> Option<Vec<Ident>> {
    let names = identifiers(tree);
    let span = error.diagnostic().and_then(|d| d.span).and_then(|s| source.plan_place(s));
    if let Some(at) = span
        && let Some(name) = names.iter().find(|n| source.place(n[0].span).is_some_and(|p| p.start == at.start))
    {
        return Some(name.clone());
    }
    let relation = column.relation.as_ref().map(|r| r.table().to_string());
    let alike = |name: &&Vec<Ident>| {
        let before = name.len().checked_sub(2).map(|i| normal(&name[i]));
        name.last().map(normal).as_deref() == Some(&column.name) && before == relation
    };
    names.iter().find(alike).cloned()
}

/// All names with their parts: `a.b.c` is one of three.
pub(super) fn identifiers(tree: &impl Visit) -> Vec<Vec<Ident>> {
    let mut names = Vec::new();
    let _ = visit_expressions(tree, |expr| {
        match expr {
            Expr::Identifier(ident) => names.push(vec![ident.clone()]),
            Expr::CompoundIdentifier(parts) => names.push(parts.clone()),
            _ => {}
        }
        ControlFlow::<()>::Continue(())
    });
    names
}

fn unknown_column(source: &SourceText, at: &Place, parts: &[Ident], column: &Column, valid: &[Column]) -> Fault {
    let part = |name: &str| parts.iter().find(|p| normal(p) == name).and_then(|p| source.place(p.span));
    let place_of = |name: &str| part(name).unwrap_or_else(|| at.clone());
    let relation = |c: &Column| c.relation.as_ref().map(|r| r.table().to_string());
    let names = |of: Option<&str>| -> Vec<&str> {
        valid.iter().filter(|c| of.is_none() || relation(c).as_deref() == of).map(|c| c.name.as_str()).collect()
    };
    let Some(qualifier) = &column.relation else {
        let place = place_of(&column.name);
        let fault = Fault::new(source, &place, format!("there is no column `{}`", column.name));
        return with_suggestion(fault, &column.name, names(None));
    };
    // `t.a.b` with an unknown `a` comes back as the column `b` of the table `t.a`.
    let (table, name) = match qualifier.schema() {
        Some(first) => (first, qualifier.table()),
        None => (qualifier.table(), column.name.as_str()),
    };
    let of_table = names(Some(table));
    if !of_table.is_empty() {
        let fault = Fault::new(source, &place_of(name), format!("`{table}` has no column `{name}`"));
        return with_suggestion(fault, name, of_table);
    }
    let mut tables: Vec<String> = valid.iter().filter_map(relation).collect();
    tables.dedup();
    let place = &place_of(table);
    let fault = Fault::new(source, place, format!("there is no table `{table}` here"));
    let mut columns = names(None);
    if columns.contains(&table) || suggest::closest(table, tables.iter().map(String::as_str)).is_none() {
        columns.retain(|c| suggest::closest(table, [*c]).is_some());
        if let Some(column) = columns.first() {
            let fault = Fault::new(source, place, format!("there is no table or column `{table}` here"));
            return fault.remedy(format!("did you mean `{column}`?"));
        }
    }
    with_suggestion(fault, table, tables.iter().map(String::as_str).collect())
}

fn with_suggestion(fault: Fault, name: &str, candidates: Vec<&str>) -> Fault {
    match suggest::did_you_mean(name, candidates) {
        Some(remedy) => fault.remedy(remedy),
        None => fault.remedy("there are no columns here: name a table in FROM"),
    }
}

/// The place of an expression, if it has one.
pub(super) fn place_of(source: &SourceText, tree: &impl Spanned) -> Option<Place> {
    source.place(tree.span())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_names_are_left_out() {
        let error = DataFusionError::Plan("no such thing.\nmore".into());
        assert_eq!(clean(&error), "no such thing");
        let nested = DataFusionError::Context("type_coercion".into(), Box::new(error));
        assert_eq!(clean(&nested), "no such thing");
    }
}
