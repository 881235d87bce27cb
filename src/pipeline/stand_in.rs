//! What stands for tables and models while a file is only checked: their types without what is behind them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, SchemaRef};
use datafusion::common::Result as DfResult;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::logical_plan::builder::LogicalTableSource;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

use super::spec::ModelSpec;

/// A table of the catalogue with nothing but a schema.
pub(super) fn table(schema: &SchemaRef) -> Arc<LogicalTableSource> {
    Arc::new(LogicalTableSource::new(Arc::clone(schema)))
}

/// A function as it is declared: its name, what it takes, what it returns.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Declared {
    /// Its name.
    pub name: String,
    /// What it takes.
    pub signature: Signature,
    /// What it returns.
    pub returns: DataType,
}

impl Declared {
    /// A function of a model.
    pub fn new(name: &str, arguments: &[DataType], returns: DataType) -> Self {
        // An exact signature of nothing is refused by the planner; a constant model has to be called f().
        let types = match arguments.is_empty() {
            true => TypeSignature::Nullary,
            false => TypeSignature::Exact(arguments.to_vec()),
        };
        Self { name: name.to_owned(), signature: Signature::new(types, Volatility::Immutable), returns }
    }

    /// The column that it gives. It is never NULL, but that a model that names classes has none for a row that it
    /// refuses.
    pub fn field(&self) -> FieldRef {
        let is_null = !self.returns.is_floating() && !matches!(self.returns, DataType::List(_));
        Arc::new(Field::new(&self.name, self.returns.clone(), is_null))
    }
}

/// A function of a model's name and types that plans like the model and cannot run: `check` needs no more.
pub(super) fn function(model: &ModelSpec) -> ScalarUDF {
    ScalarUDF::from(Function(Declared::new(&model.name, &model.arguments, model.returns.clone())))
}

/// The name of the function that tells of models.
pub const MODEL_INFO: &str = "model_info";

/// What it returns.
pub fn model_info_fields() -> Fields {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let features = DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)));
    Fields::from(vec![
        text("name"),
        text("kind"),
        text("objective"),
        Field::new("trees", DataType::Int64, true),
        Field::new("features", features, true),
        text("output"),
        text("sha256"),
    ])
}

/// What stands for that function.
pub(super) fn model_info() -> ScalarUDF {
    let returns = DataType::Struct(model_info_fields());
    ScalarUDF::from(Function(Declared::new(MODEL_INFO, &[DataType::Utf8], returns)))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Function(Declared);

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn signature(&self) -> &Signature {
        &self.0.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DfResult<DataType> {
        Ok(self.0.returns.clone())
    }

    fn return_field_from_args(&self, _args: ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
        Ok(self.0.field())
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        Err(DataFusionError::Internal(format!("model {} is not loaded", self.0.name)))
    }
}
