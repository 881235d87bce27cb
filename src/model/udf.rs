//! A model as a SQL function.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::buffer::ScalarBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::Result as DfResult;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

use crate::error::{Error, Result};

use super::Model;

/// `CREATE FUNCTION name(arguments) RETURNS type LANGUAGE … AS 'file'`: the arguments bind to the model's features by
/// position, a NULL is a missing value, and the result is never NULL. The function is immutable: two of them are equal
/// when name, types and the SHA-256 of the model are, so a plan says which model it was made with.
#[derive(Debug)]
pub struct ModelUdf {
    name: String,
    signature: Signature,
    returns: DataType,
    model: Arc<dyn Model>,
}

impl ModelUdf {
    /// The function `name` over `model`, with the declared types.
    ///
    /// # Errors
    /// `Invalid` when the number of arguments is not that of the model's features, an argument is neither a number nor
    /// a Boolean, or the function does not return `DOUBLE` or `FLOAT`.
    pub fn try_new(
        name: impl Into<String>,
        arguments: Vec<DataType>,
        returns: DataType,
        model: Arc<dyn Model>,
    ) -> Result<Self> {
        let name = name.into();
        if arguments.len() != model.features() {
            return Err(Error::invalid(format!(
                "function {name} is declared with {} arguments and its model has {} features ({}); declare one \
                 argument for each feature",
                arguments.len(),
                model.features(),
                model.feature_names().join(", ")
            )));
        }
        if let Some(index) = arguments.iter().position(|argument| !is_number(argument)) {
            return Err(Error::invalid(format!(
                "argument {} of function {name} is {} and its model takes numbers; declare it DOUBLE",
                index + 1,
                arguments[index]
            )));
        }
        if !matches!(returns, DataType::Float64 | DataType::Float32) {
            return Err(Error::invalid(format!(
                "function {name} returns {returns} and its model predicts numbers; declare RETURNS DOUBLE"
            )));
        }
        // An exact signature of nothing is refused by the planner; a constant model has to be called f().
        let types = if arguments.is_empty() { TypeSignature::Nullary } else { TypeSignature::Exact(arguments) };
        Ok(Self { name, signature: Signature::new(types, Volatility::Immutable), returns, model })
    }

    /// The model behind the function.
    pub fn model(&self) -> &Arc<dyn Model> {
        &self.model
    }

    fn identity(&self) -> (&str, &Signature, &DataType, &str) {
        (&self.name, &self.signature, &self.returns, self.model.sha256())
    }
}

fn is_number(data_type: &DataType) -> bool {
    data_type.is_numeric() || *data_type == DataType::Boolean
}

/// The values of a column as f64, NaN for NULL. A `DOUBLE` column without NULLs is not copied.
fn numbers(column: &ArrayRef) -> DfResult<ScalarBuffer<f64>> {
    let column = cast(column, &DataType::Float64)?;
    let column = column.as_primitive::<Float64Type>();
    if column.null_count() == 0 {
        return Ok(column.values().clone());
    }
    Ok(column.iter().map(|value| value.unwrap_or(f64::NAN)).collect())
}

impl PartialEq for ModelUdf {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for ModelUdf {}

impl Hash for ModelUdf {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl ScalarUDFImpl for ModelUdf {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DfResult<DataType> {
        Ok(self.returns.clone())
    }

    fn return_field_from_args(&self, _args: ReturnFieldArgs) -> DfResult<FieldRef> {
        Ok(Arc::new(Field::new(&self.name, self.returns.clone(), false)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let rows = args.number_rows;
        let columns: Vec<ScalarBuffer<f64>> =
            args.args.iter().map(|argument| numbers(&argument.to_array(rows)?)).collect::<DfResult<_>>()?;
        let columns: Vec<&[f64]> = columns.iter().map(|column| &column[..]).collect();
        let mut scores = vec![0.0; rows];
        self.model
            .predict(&columns, &mut scores)
            .map_err(|error| error.within(format_args!("function {}", self.name)))?;
        let scores: ArrayRef = Arc::new(Float64Array::from(scores));
        Ok(ColumnarValue::Array(cast(&scores, &self.returns)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{BooleanArray, Decimal128Array, Float32Array, Int64Array, RecordBatch};
    use datafusion::logical_expr::ScalarUDF;
    use datafusion::prelude::SessionContext;
    use std::hash::DefaultHasher;

    /// Sums its features; a missing one counts 1000.
    #[derive(Debug)]
    struct Sum {
        names: Vec<String>,
        sha256: &'static str,
    }

    impl Model for Sum {
        fn feature_names(&self) -> &[String] {
            &self.names
        }

        fn sha256(&self) -> &str {
            self.sha256
        }

        fn predict(&self, columns: &[&[f64]], out: &mut [f64]) -> Result<()> {
            for (row, out) in out.iter_mut().enumerate() {
                *out = columns.iter().map(|column| if column[row].is_nan() { 1000.0 } else { column[row] }).sum();
            }
            Ok(())
        }
    }

    fn sum(features: usize, sha256: &'static str) -> Arc<dyn Model> {
        Arc::new(Sum { names: (0..features).map(|feature| format!("x{feature}")).collect(), sha256 })
    }

    fn udf(arguments: Vec<DataType>, returns: DataType) -> ScalarUDF {
        let model = sum(arguments.len(), "00");
        ScalarUDF::from(ModelUdf::try_new("f", arguments, returns, model).unwrap())
    }

    async fn answer(functions: Vec<ScalarUDF>, sql: &str) -> RecordBatch {
        let context = SessionContext::new();
        let rows = RecordBatch::try_from_iter([
            ("d", Arc::new(Float64Array::from(vec![Some(1.5), None, Some(3.0)])) as ArrayRef),
            ("i", Arc::new(Int64Array::from(vec![Some(10), Some(20), None])) as ArrayRef),
            ("b", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])) as ArrayRef),
            ("m", Arc::new(Decimal128Array::from(vec![125, 250, 375]).with_precision_and_scale(10, 2).unwrap()) as _),
            ("f32", Arc::new(Float32Array::from(vec![0.25, 0.5, 0.75])) as ArrayRef),
        ]);
        context.register_batch("t", rows.unwrap()).unwrap();
        functions.into_iter().for_each(|function| context.register_udf(function));
        let batches = context.sql(sql).await.unwrap().collect().await.unwrap();
        arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap()
    }

    #[tokio::test]
    async fn nulls_are_missing_values_and_the_result_is_never_null() {
        let function = udf(vec![DataType::Float64; 2], DataType::Float64);
        let rows = answer(vec![function], "SELECT f(d, i) AS y FROM t").await;
        assert!(!rows.schema().field(0).is_nullable());
        assert_eq!(rows.column(0).as_primitive::<Float64Type>().values(), &[11.5, 1020.0, 1003.0]);
    }

    #[tokio::test]
    async fn declared_types_are_numbers_of_any_kind() {
        let types = vec![DataType::Boolean, DataType::Decimal128(10, 2), DataType::Float32, DataType::Int64];
        let rows = answer(vec![udf(types, DataType::Float32)], "SELECT f(b, m, f32, i) AS y FROM t").await;
        let expected = Float32Array::from(vec![12.5, 23.0, 2004.5]);
        assert_eq!(rows.column(0).as_primitive(), &expected);
    }

    #[tokio::test]
    async fn constants_and_no_arguments_work() {
        let two = udf(vec![DataType::Float64; 2], DataType::Float64);
        let rows = answer(vec![two.clone()], "SELECT f(1, NULL) AS y").await;
        assert_eq!(rows.column(0).as_primitive::<Float64Type>().values(), &[1001.0]);
        let rows = answer(vec![two], "SELECT f(d, 2) AS y FROM t WHERE i = 10").await;
        assert_eq!(rows.column(0).as_primitive::<Float64Type>().values(), &[3.5]);
        let rows = answer(vec![udf(vec![], DataType::Float64)], "SELECT f() AS y FROM t").await;
        assert_eq!(rows.column(0).as_primitive::<Float64Type>().values(), &[0.0; 3]);
    }

    #[test]
    fn the_hash_of_the_model_is_part_of_the_function() {
        let make = |sha| ModelUdf::try_new("f", vec![DataType::Float64], DataType::Float64, sum(1, sha)).unwrap();
        let hash = |udf: &ModelUdf| {
            let mut hasher = DefaultHasher::new();
            udf.hash(&mut hasher);
            hasher.finish()
        };
        assert_eq!(make("aa"), make("aa"));
        assert_eq!(hash(&make("aa")), hash(&make("aa")));
        assert_ne!(make("aa"), make("bb"));
        assert_ne!(hash(&make("aa")), hash(&make("bb")));
    }

    #[test]
    fn a_declaration_that_does_not_fit_the_model_is_refused() {
        let fault = |arguments: Vec<DataType>, returns| {
            ModelUdf::try_new("f", arguments, returns, sum(2, "00")).unwrap_err().to_string()
        };
        assert_eq!(
            fault(vec![DataType::Float64], DataType::Float64),
            "function f is declared with 1 arguments and its model has 2 features (x0, x1); declare one argument for \
             each feature"
        );
        assert_eq!(
            fault(vec![DataType::Float64, DataType::Utf8], DataType::Float64),
            "argument 2 of function f is Utf8 and its model takes numbers; declare it DOUBLE"
        );
        assert_eq!(
            fault(vec![DataType::Float64; 2], DataType::Utf8),
            "function f returns Utf8 and its model predicts numbers; declare RETURNS DOUBLE"
        );
    }
}
