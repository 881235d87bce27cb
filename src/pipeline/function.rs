//! `CREATE FUNCTION … LANGUAGE …`: the declaration of a model.

use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast::{CreateFunction, CreateFunctionBody, Expr, FunctionReturnType, Value};

use super::column::arrow_type;
use super::fault::Fault;
use super::loader::Loader;
use super::spec::ModelSpec;
use super::statement::{Statement, normal, single};
use super::suggest;
use super::text::Place;

/// The languages that there are.
const LANGUAGES: [&str; 1] = ["XGBOOST"];
/// The languages that come later.
const LATER: [&str; 3] = ["LIGHTGBM", "ONNX", "SPARK_ML"];
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
        let numeric = |loader: &mut Self, sql: &_| match arrow_type(sql, &loader.state) {
            Ok(t) if t.is_numeric() => Some(t),
            Ok(_) => {
                loader.model_fault(&place, format!("`{name}`: a model takes and returns numbers, not {sql}"));
                None
            }
            Err(why) => {
                loader.model_fault(&place, format!("`{name}`: {}", why.split(": ").next().unwrap_or(&why)));
                None
            }
        };
        let arguments = function.args.as_deref().unwrap_or_default();
        let arguments: Vec<DataType> = arguments.iter().filter_map(|arg| numeric(self, &arg.data_type)).collect();
        let returns = match &function.return_type {
            Some(FunctionReturnType::DataType(sql)) => numeric(self, sql),
            _ => {
                self.model_fault(&place, format!("`{name}` does not say what it RETURNS"));
                None
            }
        };
        let Some((path, path_place)) = self.model_path(statement, function) else {
            self.model_fault(&place, format!("`{name}` names no model file"));
            return None;
        };
        let path = self.environment.resolve(&path);
        let model = ModelSpec { name, arguments, returns: returns?, language: language?, path };
        if self.faults.count().0 > before {
            return None;
        }
        self.features(&model, &place, &path_place)?;
        Some(model)
    }

    fn model_fault(&mut self, place: &Place, message: String) {
        self.faults.push(Fault::new(&self.source, place, message).remedy(FORM));
    }

    fn language(&mut self, statement: &Statement, function: &CreateFunction, name: &Place) -> Option<String> {
        let Some(language) = &function.language else {
            self.model_fault(name, "the function has no LANGUAGE".into());
            return None;
        };
        let place = self.source.place(language.span).unwrap_or_else(|| statement.verb(&self.source));
        let word = language.value.to_uppercase();
        let fault = if LANGUAGES.contains(&word.as_str()) {
            return Some(word);
        } else if LATER.contains(&word.as_str()) {
            Fault::new(&self.source, &place, format!("LANGUAGE {word} is not supported yet")).remedy("use XGBOOST")
        } else {
            let fault = Fault::new(&self.source, &place, format!("there is no language `{}`", language.value));
            fault.remedy(suggest::did_you_mean(&word, LANGUAGES).unwrap_or_default())
        };
        self.faults.push(fault);
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

    /// Holds the number of arguments against the number of features.
    fn features(&mut self, model: &ModelSpec, name: &Place, path: &Place) -> Option<()> {
        match self.facts.model_arity(model) {
            Err(error) => {
                let fault = Fault::new(&self.source, path, error.message());
                let remedy = format!("relative paths are relative to {}", self.environment.root.display());
                self.faults.push(fault.remedy(remedy));
                None
            }
            Ok(features) if features != model.arguments.len() => {
                let message = format!(
                    "`{}` is declared with {} arguments, and the model has {features} features",
                    model.name,
                    model.arguments.len()
                );
                let fault = Fault::new(&self.source, name, message);
                self.faults.push(fault.remedy("declare one argument for each feature, in the model's order"));
                None
            }
            Ok(_) => Some(()),
        }
    }
}
