//! `CREATE FUNCTION … LANGUAGE …`: the declaration of a model.

use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast::{CreateFunction, CreateFunctionBody, Expr, FunctionReturnType, Value};

use super::Fit;
use super::column::arrow_type;
use super::fault::Fault;
use super::language::Language;
use super::loader::Loader;
use super::spec::ModelSpec;
use super::statement::{Statement, normal, single};
use super::suggest;
use super::text::Place;

/// What a declaration looks like.
const FORM: &str = "write CREATE FUNCTION name(DOUBLE, …) RETURNS DOUBLE LANGUAGE XGBOOST AS 'path'";

impl Loader<'_> {
    /// Reads a model's declaration with the place of its name; `None` when something is wrong, which is reported.
    pub(super) fn model(&mut self, statement: &Statement, function: &CreateFunction) -> Option<ModelSpec> {
        let before = self.faults.count().0;
        let verb = statement.verb(&self.source);
        let Some(ident) = single(&function.name) else {
            self.faults
                .push(Fault::new(&self.source, &verb, "functions of a pipeline have names without dots").remedy(FORM));
            return None;
        };
        let place = self.source.place(ident.span).unwrap_or(verb);
        let name = normal(ident);
        if function.or_replace || function.if_not_exists || function.temporary || function.or_alter {
            let fault = Fault::new(&self.source, &place, "a function is declared once, in the plain form");
            self.faults.push(fault.remedy(FORM));
        }
        let language = self.language(statement, function, &place);
        let typed = |loader: &mut Self, sql: &_| match arrow_type(sql, &loader.state) {
            Ok(data_type) => Some(data_type),
            Err(why) => {
                loader.model_fault(&place, format!("`{name}`: {}", why.split(": ").next().unwrap_or(&why)));
                None
            }
        };
        let arguments = function.args.as_deref().unwrap_or_default();
        let argument_names = arguments.iter().map(|arg| arg.name.as_ref().map(|name| name.value.clone())).collect();
        let arguments: Vec<DataType> = arguments.iter().filter_map(|arg| typed(self, &arg.data_type)).collect();
        let returns = match &function.return_type {
            Some(FunctionReturnType::DataType(sql)) => typed(self, sql),
            _ => {
                self.model_fault(&place, format!("`{name}` does not say what it RETURNS"));
                None
            }
        };
        let Some((path, path_place)) = self.model_path(statement, function) else {
            self.model_fault(&place, format!("`{name}` names no model file"));
            return None;
        };
        let (path, sha256) = self.pinned(path, &path_place);
        let path = self.environment.resolve(&path);
        let model = ModelSpec { name, arguments, argument_names, returns: returns?, language: language?, path, sha256 };
        if self.faults.count().0 > before {
            return None;
        }
        self.fits(&model, &place, &path_place)?;
        Some(model)
    }

    fn model_fault(&mut self, place: &Place, message: String) {
        self.faults.push(Fault::new(&self.source, place, message).remedy(FORM));
    }

    /// The path, and the SHA-256 after it.
    fn pinned(&mut self, path: String, place: &Place) -> (String, Option<String>) {
        let Some((file, pin)) = path.split_once('#') else { return (path, None) };
        let sha256 = pin.strip_prefix("sha256=").unwrap_or_default().to_lowercase();
        if sha256.len() != 64 || !sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let fault = Fault::new(&self.source, place, format!("`#{pin}` is no SHA-256 of a model"));
            self.faults.push(fault.remedy("write 'path#sha256=' and 64 hexadecimal digits; sha256sum gives them"));
        }
        (file.to_owned(), Some(sha256))
    }

    fn language(&mut self, statement: &Statement, function: &CreateFunction, name: &Place) -> Option<Language> {
        let Some(language) = &function.language else {
            self.model_fault(name, "the function has no LANGUAGE".into());
            return None;
        };
        let place = self.source.place(language.span).unwrap_or_else(|| statement.verb(&self.source));
        if let Some(language) = Language::of(&language.value) {
            return Some(language);
        }
        let word = language.value.to_uppercase();
        let fault = Fault::new(&self.source, &place, format!("there is no language `{}`", language.value));
        let known = Language::ALL.map(Language::word);
        let remedy = suggest::did_you_mean(&word, known).unwrap_or_else(|| format!("there is {}", known.join(", ")));
        self.faults.push(fault.remedy(remedy));
        None
    }

    fn model_path(&self, statement: &Statement, function: &CreateFunction) -> Option<(String, Place)> {
        let body = match function.function_body.as_ref()? {
            CreateFunctionBody::AsBeforeOptions { body, .. } => body,
            CreateFunctionBody::AsAfterOptions(body) => body,
            _ => return None,
        };
        match body {
            Expr::Value(value) => match &value.value {
                Value::SingleQuotedString(path) => {
                    let place = self.source.place(value.span).unwrap_or_else(|| statement.verb(&self.source));
                    Some((path.clone(), place))
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// Holds the declaration against the model.
    fn fits(&mut self, model: &ModelSpec, name: &Place, path: &Place) -> Option<()> {
        match self.facts.check_model(model) {
            Err(error) => {
                let fault = Fault::new(&self.source, path, error.message());
                let remedy = format!("relative paths are relative to {}", self.environment.root.display());
                self.faults.push(fault.remedy(remedy));
                None
            }
            Ok(Fit::Differs(why)) => {
                let (message, remedy) = why.split_once("; ").unwrap_or((&why, FORM));
                self.faults.push(Fault::new(&self.source, name, message).remedy(remedy));
                None
            }
            Ok(Fit::Fits) => Some(()),
        }
    }
}
