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

/// A function of a model's name and types that plans like the model and cannot run: `check` needs no more.
pub(super) fn function(model: &ModelSpec) -> ScalarUDF {
    let types = match model.arguments.is_empty() {
        true => TypeSignature::Nullary,
        false => TypeSignature::Exact(model.arguments.clone()),
    };
    let (name, returns) = (model.name.clone(), model.returns.clone());
    ScalarUDF::from(Function { name, returns, signature: Signature::new(types, Volatility::Immutable) })
}

/// Whether a function that returns this may return NULL: a model that names classes has none for a row that it refuses.
pub fn may_be_null(returns: &DataType) -> bool {
    !returns.is_floating() && !matches!(returns, DataType::List(_))
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
    let signature = Signature::exact(vec![DataType::Utf8], Volatility::Immutable);
    ScalarUDF::from(Function { name: MODEL_INFO.into(), returns: DataType::Struct(model_info_fields()), signature })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Function {
    name: String,
    signature: Signature,
    returns: DataType,
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DfResult<DataType> {
        Ok(self.returns.clone())
    }

    fn return_field_from_args(&self, _args: ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
        Ok(Arc::new(Field::new(&self.name, self.returns.clone(), may_be_null(&self.returns))))
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        Err(DataFusionError::Internal(format!("model {} is not loaded", self.name)))
    }
}
