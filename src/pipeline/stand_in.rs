//! What stands for tables and models while a file is only checked: their types without what is behind them.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::logical_plan::builder::LogicalTableSource;
use datafusion::logical_expr::{ScalarUDF, Volatility, create_udf};

use super::spec::ModelSpec;

/// A table of the catalogue with nothing but a schema.
pub(super) fn table(schema: &SchemaRef) -> Arc<LogicalTableSource> {
    Arc::new(LogicalTableSource::new(Arc::clone(schema)))
}

/// A function of a model's name and types that plans like the model and cannot run: `check` needs no more.
pub(super) fn function(model: &ModelSpec) -> ScalarUDF {
    let name = model.name.clone();
    let run = move |_: &[_]| Err(DataFusionError::Internal(format!("model {name} is not loaded")));
    let run = Arc::new(run);
    create_udf(&model.name, model.arguments.clone(), model.returns.clone(), Volatility::Immutable, run)
}
