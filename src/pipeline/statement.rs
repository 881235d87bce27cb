//! The statements of a pipeline file: text to syntax trees, one by one, so that a fault in one hides none in another.

use std::ops::ControlFlow;

use datafusion::error::DataFusionError;
use datafusion::sql::parser::{CreateExternalTable, DFParserBuilder, Statement as DfStatement};
use datafusion::sql::sqlparser::ast::{
    CreateFunction, CreateView, Expr, Ident, Insert, ObjectName, Query, SelectItem, Set, SetExpr,
    Statement as SqlStatement, TableFactor, TableObject, Visit, Visitor, visit_expressions, visit_relations,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

use super::fault::{Fault, Faults};
use super::text::{Place, SourceText};

/// What a pipeline file may say: the remedy for everything else.
const ALLOWED: &str = "a pipeline file may say CREATE EXTERNAL TABLE, CREATE FUNCTION … LANGUAGE …, CREATE VIEW, SET, \
                       INSERT INTO … SELECT, and SELECT (a check)";

/// A statement with its place and its tokens (blanks and comments left out; spans are those of the file).
#[derive(Debug, Clone)]
pub(super) struct Statement {
    pub kind: Kind,
    pub place: Place,
    pub tokens: Vec<TokenWithSpan>,
}

/// The kinds of statements that a pipeline file may have.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    Table(Box<CreateExternalTable>),
    Function(Box<CreateFunction>),
    View(Box<CreateView>),
    Set { name: String, value: String },
    Insert { sink: Ident, query: Box<Query> },
    Check(Box<Query>),
}

/// Parses all statements; those with a fault are left out.
pub(super) fn parse(source: &SourceText, faults: &mut Faults) -> Vec<Statement> {
    let mut statements = Vec::new();
    for place in source.statements() {
        match parse_one(source, &place) {
            Ok(statement) => statements.push(statement),
            Err(fault) => faults.push(*fault),
        }
    }
    statements
}

/// A name as DataFusion compares it: lower case unless quoted.
pub(super) fn normal(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

/// The one part of a name without dots.
pub(super) fn single(name: &ObjectName) -> Option<&Ident> {
    match name.0.as_slice() {
        [part] => part.as_ident(),
        _ => None,
    }
}

fn parse_one(source: &SourceText, place: &Place) -> Result<Statement, Box<Fault>> {
    let tokens = tokens(source, place)?;
    let mut parsed = DFParserBuilder::new(tokens.clone())
        .build()
        .and_then(|mut parser| parser.parse_statements())
        .map_err(|error| syntax_fault(source, place, &tokens, &error))?;
    let significant: Vec<_> = tokens.into_iter().filter(|t| !matches!(t.token, Token::Whitespace(_))).collect();
    let Some(tree) = parsed.pop_front() else {
        return Err(Box::new(Fault::new(source, place, "an empty statement")));
    };
    let place = place.clone();
    let kind = classify(source, &place, &significant, tree)?;
    Ok(Statement { kind, place, tokens: significant })
}

/// The tokens of a statement with spans of the whole file.
fn tokens(source: &SourceText, place: &Place) -> Result<Vec<TokenWithSpan>, Box<Fault>> {
    let (line, column) = source.position(place.start);
    let shift = |l: Location| Location {
        line: l.line + line as u64 - 1,
        column: if l.line == 1 { l.column + column as u64 - 1 } else { l.column },
    };
    let tokenized = Tokenizer::new(&GenericDialect {}, source.slice(place)).tokenize_with_location();
    let mut tokens = tokenized.map_err(|error| {
        let at = shift(error.location);
        let at = source.byte(at.line as usize, at.column as usize);
        let open = error.message.to_lowercase();
        let remedy =
            if open.contains("unterminated") { "close it with the same quote sign" } else { "mend the text there" };
        Box::new(Fault::new(source, &(at..at + 1), format!("syntax: {}", lower_first(&error.message))).remedy(remedy))
    })?;
    for token in &mut tokens {
        token.span.start = shift(token.span.start);
        token.span.end = shift(token.span.end);
    }
    Ok(tokens)
}

fn syntax_fault(source: &SourceText, place: &Place, tokens: &[TokenWithSpan], error: &DataFusionError) -> Box<Fault> {
    let message = match error.find_root() {
        DataFusionError::SQL(error, _) => match error.as_ref() {
            ParserError::ParserError(m) | ParserError::TokenizerError(m) => m.clone(),
            ParserError::RecursionLimitExceeded => "the statement is nested too deeply".to_string(),
        },
        other => other.strip_backtrace(),
    };
    let (message, at) = split_location(&message);
    let words: Vec<_> = tokens.iter().filter(|t| !matches!(t.token, Token::Whitespace(_) | Token::EOF)).collect();
    let found = at.and_then(|at| words.iter().position(|t| t.span.start == at));
    let spot = match found.and_then(|i| source.place(words[i].span)) {
        Some(spot) => spot,
        // The statement ends too early, or the fault has no place of its own.
        None if message.contains("found: EOF") => place.end..place.end,
        None => words.first().and_then(|t| source.place(t.span)).unwrap_or_else(|| place.clone()),
    };
    let text = lower_first(&message).replace("expected: ", "expected ").replace(", found: ", ", found ");
    let text = text.replace("found EOF", "found the end of the statement");
    Box::new(Fault::new(source, &spot, format!("syntax: {text}")).remedy(syntax_remedy(&message, &words, found)))
}

/// `Expected: …, found: … at Line: 3, Column: 7` in its two parts.
fn split_location(message: &str) -> (String, Option<Location>) {
    let Some((text, place)) = message.rsplit_once(" at Line: ") else { return (message.to_string(), None) };
    let location = place.split_once(", Column: ").and_then(|(line, column)| {
        let column: String = column.chars().take_while(char::is_ascii_digit).collect();
        Some(Location { line: line.trim().parse().ok()?, column: column.parse().ok()? })
    });
    (text.to_string(), location)
}

fn syntax_remedy(message: &str, words: &[&TokenWithSpan], found: Option<usize>) -> String {
    let word = |i: usize| words.get(i).map(|t| t.token.to_string().to_uppercase()).unwrap_or_default();
    if message.contains("Missing STORED AS") {
        return "say how it is stored: STORED AS KAFKA, DELTA, PARQUET, CSV or JSON".into();
    }
    if message.contains("Missing LOCATION") {
        return "say where it is: LOCATION 'kafka://HOST:PORT/TOPIC' or LOCATION 'path/to/table'".into();
    }
    match found {
        Some(i)
            if i > 0
                && ["CREATE", "INSERT", "SELECT", "SET"].contains(&word(i).as_str())
                && words[i].span.start.column == 1 =>
        {
            "end the statement before it with `;`".into()
        }
        Some(i) if i > 0 && word(i - 1) == "," => "remove the comma before it".into(),
        Some(0) => ALLOWED.into(),
        Some(i) => format!("look at `{}` and the word before it", words[i].token),
        None if message.contains("found: EOF") => {
            "the statement is not complete: write what is missing before the `;`".into()
        }
        None => "mend the statement".into(),
    }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_lowercase().chain(chars).collect())
}

fn classify(
    source: &SourceText,
    place: &Place,
    tokens: &[TokenWithSpan],
    tree: DfStatement,
) -> Result<Kind, Box<Fault>> {
    let first = tokens.first().and_then(|t| source.place(t.span)).unwrap_or_else(|| place.clone());
    let refuse = |message: String, remedy: &str| Box::new(Fault::new(source, &first, message).remedy(remedy));
    let tree = match tree {
        DfStatement::CreateExternalTable(table) => return Ok(Kind::Table(Box::new(table))),
        DfStatement::Statement(tree) => *tree,
        _ => return Err(refuse(format!("{} has no place in a pipeline file", opening(tokens)), ALLOWED)),
    };
    match tree {
        SqlStatement::CreateFunction(function) => Ok(Kind::Function(Box::new(function))),
        SqlStatement::CreateView(view) => match plain_view(&view) {
            Ok(()) => Ok(Kind::View(Box::new(view))),
            Err(what) => {
                Err(refuse(format!("a view of a pipeline cannot be {what}"), "write CREATE VIEW name AS SELECT …"))
            }
        },
        SqlStatement::Set(set) => setting(set).ok_or_else(|| {
            refuse(
                "this form of SET is not known".into(),
                "write SET flumen.name = 'value' or SET datafusion.… = value",
            )
        }),
        SqlStatement::Insert(insert) => self::insert(source, &first, insert),
        SqlStatement::Query(query) => Ok(Kind::Check(query)),
        SqlStatement::CreateTable(_) => Err(refuse(
            "CREATE TABLE has no place in a pipeline file".into(),
            "write CREATE EXTERNAL TABLE … STORED AS … LOCATION …: tables live outside of the pipeline",
        )),
        _ => Err(refuse(format!("{} has no place in a pipeline file", opening(tokens)), ALLOWED)),
    }
}

/// The first words of a statement, in capitals: `DROP TABLE`.
fn opening(tokens: &[TokenWithSpan]) -> String {
    let keyword = |t: &&TokenWithSpan| match &t.token {
        Token::Word(w) if w.quote_style.is_none() => Some(w.value.to_uppercase()),
        _ => None,
    };
    let words = ["TABLE", "VIEW", "FROM", "INTO", "DATABASE", "SCHEMA", "INDEX", "FUNCTION"];
    let mut opening: Vec<String> = tokens.iter().take(1).filter_map(|t| keyword(&t)).collect();
    opening.extend(tokens.get(1).and_then(|t| keyword(&t)).filter(|w| words.contains(&w.as_str())));
    opening.join(" ")
}

fn plain_view(view: &CreateView) -> Result<(), &'static str> {
    match () {
        () if view.materialized => Err("MATERIALIZED"),
        () if view.or_replace || view.or_alter => Err("replaced: each name is declared once"),
        () if view.temporary => Err("TEMPORARY"),
        () if view.if_not_exists => Err("declared IF NOT EXISTS: each name is declared once"),
        () => Ok(()),
    }
}

fn setting(set: Set) -> Option<Kind> {
    let Set::SingleAssignment { variable, values, scope: None, .. } = set else { return None };
    let [value] = values.as_slice() else { return None };
    let value = match value {
        Expr::Value(v) => v.value.clone().into_string().unwrap_or_else(|| v.value.to_string()),
        Expr::Identifier(ident) => ident.value.clone(),
        Expr::UnaryOp { .. } => value.to_string(),
        _ => return None,
    };
    let parts: Vec<_> = variable.0.iter().filter_map(|p| p.as_ident()).map(|i| i.value.to_lowercase()).collect();
    Some(Kind::Set { name: parts.join("."), value })
}

fn insert(source: &SourceText, first: &Place, insert: Insert) -> Result<Kind, Box<Fault>> {
    let refuse = |message: &str, remedy: &str| Err(Box::new(Fault::new(source, first, message).remedy(remedy)));
    let TableObject::TableName(name) = &insert.table else {
        return refuse("an INSERT writes a table that the file declares", "write INSERT INTO name SELECT …");
    };
    let Some(sink) = single(name) else {
        return refuse("tables of a pipeline have names without dots", "write INSERT INTO name SELECT …");
    };
    if insert.overwrite || insert.replace_into {
        return refuse(
            "an INSERT cannot say by itself that it replaces rows",
            "set the option 'mode' 'replace' on the sink",
        );
    }
    if !insert.columns.is_empty() || !insert.after_columns.is_empty() || insert.partitioned.is_some() {
        let remedy = "leave the column list out: INSERT goes by position, in the order of the contract";
        return refuse("an INSERT of a pipeline has no column list", remedy);
    }
    if insert.on.is_some() || insert.returning.is_some() || !insert.assignments.is_empty() || insert.or.is_some() {
        return refuse("this form of INSERT is not known", "write INSERT INTO name SELECT …");
    }
    match insert.source {
        Some(mut query) => {
            name_columns(&mut query.body);
            Ok(Kind::Insert { sink: sink.clone(), query })
        }
        None => refuse("the INSERT has no SELECT", "write INSERT INTO name SELECT …"),
    }
}

/// Names the computed columns of an `INSERT`'s SELECTs after their positions: an INSERT goes by position, and without
/// this `x` and `CAST(x AS DATE)` would be two columns of the same name to DataFusion.
fn name_columns(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => {
            for (i, item) in select.projection.iter_mut().enumerate() {
                if let SelectItem::UnnamedExpr(expr) = item
                    && !matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
                {
                    let alias = Ident::new(format!("column_{}", i + 1));
                    *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
                }
            }
        }
        SetExpr::Query(query) => name_columns(&mut query.body),
        SetExpr::SetOperation { left, right, .. } => {
            name_columns(left);
            name_columns(right);
        }
        _ => {}
    }
}

impl Statement {
    /// The place of the first token: the verb of the statement.
    pub fn verb(&self, source: &SourceText) -> Place {
        self.tokens.first().and_then(|t| source.place(t.span)).unwrap_or_else(|| self.place.clone())
    }

    /// The places where `word` stands as a keyword or unquoted name, in any case.
    pub fn words(&self, source: &SourceText, word: &str) -> Vec<Place> {
        let is = |t: &&TokenWithSpan| matches!(&t.token, Token::Word(w) if w.value.eq_ignore_ascii_case(word));
        self.tokens.iter().filter(is).filter_map(|t| source.place(t.span)).collect()
    }

    /// The place of the string after the keyword `word`, or of the keyword, or of the verb.
    pub fn string_after(&self, source: &SourceText, word: &str) -> Place {
        let is = |t: &TokenWithSpan| matches!(&t.token, Token::Word(w) if w.value.eq_ignore_ascii_case(word));
        let strings = |t: &&TokenWithSpan| matches!(t.token, Token::SingleQuotedString(_));
        let at = self.tokens.iter().position(is);
        let string = at.and_then(|at| self.tokens[at..].iter().find(strings));
        string.and_then(|t| source.place(t.span)).unwrap_or_else(|| self.verb(source))
    }

    /// The keys and values of `OPTIONS (…)`, in their order.
    pub fn option_places(&self, source: &SourceText) -> Vec<(Place, Place)> {
        let is_options =
            |t: &TokenWithSpan| matches!(&t.token, Token::Word(w) if w.value.eq_ignore_ascii_case("OPTIONS"));
        let Some(at) = self.tokens.iter().position(is_options) else { return Vec::new() };
        let mut places = Vec::new();
        let mut pair: Vec<Place> = Vec::new();
        let mut joined = false;
        for token in self.tokens.iter().skip(at + 2) {
            let place = source.place(token.span).unwrap_or(0..0);
            match &token.token {
                Token::Comma | Token::RParen => {
                    if let [key, .., value] = pair.as_slice() {
                        places.push((key.clone(), value.clone()));
                    }
                    pair.clear();
                    if token.token == Token::RParen {
                        break;
                    }
                }
                // `a.b.c` without quotes is one key.
                Token::Period => joined = true,
                _ if joined => {
                    joined = false;
                    if let Some(last) = pair.last_mut() {
                        last.end = place.end;
                    }
                }
                _ => pair.push(place),
            }
        }
        places
    }

    /// The parameters: names without `$`, with their places.
    pub fn parameters(&self, source: &SourceText) -> Vec<(String, Place)> {
        let name = |t: &TokenWithSpan| match &t.token {
            Token::Placeholder(p) => Some((p.trim_start_matches('$').to_string(), source.place(t.span)?)),
            _ => None,
        };
        self.tokens.iter().filter_map(name).collect()
    }
}

/// The functions that an expression or a query calls: the last part of the name and the call.
pub(super) fn calls(tree: &impl Visit) -> Vec<(Ident, Expr)> {
    let mut calls = Vec::new();
    let _ = visit_expressions(tree, |expr| {
        if let Expr::Function(function) = expr
            && let Some(name) = function.name.0.last().and_then(|part| part.as_ident())
        {
            calls.push((name.clone(), expr.clone()));
        }
        ControlFlow::<()>::Continue(())
    });
    calls
}

/// The names of the relations that a query reads, common table expressions among them.
pub(super) fn relations(query: &Query) -> Vec<ObjectName> {
    let mut names = Vec::new();
    let _ = visit_relations(query, |name| {
        names.push(name.clone());
        ControlFlow::<()>::Continue(())
    });
    names
}

/// The tables of a query with a clause that the planner passes over without a word, and the clause.
pub(super) fn ignored_clauses(query: &Query) -> Vec<(ObjectName, &'static str)> {
    struct Clauses(Vec<(ObjectName, &'static str)>);
    impl Visitor for Clauses {
        type Break = ();

        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
            if let TableFactor::Table { name, sample, version, .. } = factor {
                let clauses = [
                    sample.is_some().then_some("TABLESAMPLE"),
                    version.is_some().then_some("a version (FOR … AS OF, VERSION AS OF)"),
                ];
                self.0.extend(clauses.into_iter().flatten().map(|clause| (name.clone(), clause)));
            }
            ControlFlow::Continue(())
        }
    }
    let mut clauses = Clauses(Vec::new());
    let _ = query.visit(&mut clauses);
    clauses.0
}

/// The SELECT whose items are the query's columns: the first one of a set operation.
pub(super) fn leading_select(body: &SetExpr) -> Option<&datafusion::sql::sqlparser::ast::Select> {
    match body {
        SetExpr::Select(select) => Some(select),
        SetExpr::Query(query) => leading_select(&query.body),
        SetExpr::SetOperation { left, .. } => leading_select(left),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn parsed(text: &str) -> (SourceText, Vec<Statement>, Faults) {
        let source = SourceText::new(Path::new("q.sql"), text);
        let mut faults = Faults::default();
        let statements = parse(&source, &mut faults);
        (source, statements, faults)
    }

    #[test]
    fn a_fault_in_one_statement_hides_none_in_another() {
        let (_, statements, faults) = parsed("SELECT FROM;\nSELECT 1;\nDROP TABLE t;\nSET flumen.x = 'y'");
        assert_eq!(statements.len(), 2);
        let lines: Vec<_> = faults.iter().map(|f| f.line).collect();
        assert_eq!(lines, [Some(1), Some(3)]);
    }

    #[test]
    fn spans_are_those_of_the_file() {
        let (source, statements, _) = parsed("SELECT 1;\n  SELECT $day, $day\n FROM ünder");
        let places: Vec<_> = statements[1].parameters(&source);
        assert_eq!(places.len(), 2);
        assert_eq!(source.slice(&places[1].1), "$day");
        assert_eq!(source.slice(&statements[1].words(&source, "ÜNDER")[..].first().cloned().unwrap_or(0..0)), "");
        assert_eq!(source.slice(&statements[1].words(&source, "ünder")[0]), "ünder");
    }

    #[test]
    fn options_know_their_places() {
        let text = "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 'x' OPTIONS (format.has_header true, 'b' '2',)";
        let (source, statements, _) = parsed(text);
        let places = statements[0].option_places(&source);
        let texts: Vec<_> = places.iter().map(|(k, v)| (source.slice(k), source.slice(v))).collect();
        assert_eq!(texts, [("format.has_header", "true"), ("'b'", "'2'")]);
        assert_eq!(source.slice(&statements[0].string_after(&source, "LOCATION")), "'x'");
    }

    #[test]
    fn settings_have_plain_values() {
        let (_, statements, faults) = parsed("SET flumen.trigger = '1 second'; SET flumen.max_rows TO 5; SET a.b = on");
        let values: Vec<_> = statements
            .iter()
            .map(|s| match &s.kind {
                Kind::Set { name, value } => format!("{name}={value}"),
                _ => String::new(),
            })
            .collect();
        assert_eq!(values, ["flumen.trigger=1 second", "flumen.max_rows=5", "a.b=on"]);
        assert!(!faults.is_fatal());
    }
}
