//! A model as a SQL function.

use std::fmt::Display;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, ListArray, StringArray, StructArray};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Float64Type};
use datafusion::common::Result as DfResult;
use datafusion::logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature};

use super::{About, Column, Model, Output, Scores, is_number};
use crate::error::{Error, Result};
use crate::pipeline::Declared;

/// `CREATE FUNCTION name(arguments) RETURNS type LANGUAGE … AS 'file'`: the arguments bind to the model's features by
/// position, and a NULL is a missing value. The function is immutable: two of them are equal when name, types and the
/// SHA-256 of the model are, so a plan says which model it was made with.
///
/// It returns what is declared: `DOUBLE` or `REAL`, the probability of the second of two classes, else the prediction,
/// never NULL; `DOUBLE[]`, the probability of each class or each of several numbers; `VARCHAR`, the class by its name;
/// `STRUCT` of any of `score DOUBLE`, `prediction DOUBLE` or `VARCHAR`, `probability DOUBLE[]`, `values DOUBLE[]`.
#[derive(Debug)]
pub struct ModelUdf {
    declared: Declared,
    model: Arc<dyn Model>,
    /// The classes as numbers, where their names are all numbers, else their indices.
    classes: Vec<f64>,
}

/// One of the things that a model says of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// The probability of the second of two classes, else the prediction.
    Score,
    /// The number, or the class as a number.
    Prediction,
    /// The class by its name.
    Label,
    /// All numbers.
    Values,
}

impl ModelUdf {
    /// The function `name` over `model`, with the declared types.
    ///
    /// # Errors
    /// `Invalid` when the number of arguments is not that of the model's features, an argument has not the type of its
    /// feature, or the model does not give what is returned.
    pub fn try_new(
        name: impl Into<String>,
        arguments: Vec<DataType>,
        returns: DataType,
        model: Arc<dyn Model>,
    ) -> Result<Self> {
        let name = name.into();
        check(&name, &arguments, &returns, model.about())?;
        let classes = match &model.about().output {
            Output::Classes { labels, .. } => {
                let numbers: Option<Vec<f64>> = labels.iter().map(|label| label.parse().ok()).collect();
                numbers.unwrap_or_else(|| (0..labels.len()).map(|class| class as f64).collect())
            }
            Output::Number | Output::Numbers(_) => Vec::new(),
        };
        Ok(Self { declared: Declared::new(&name, &arguments, returns), model, classes })
    }

    /// The model behind the function.
    pub fn model(&self) -> &Arc<dyn Model> {
        &self.model
    }

    fn identity(&self) -> (&Declared, &str) {
        (&self.declared, &self.model.about().sha256)
    }

    fn array(&self, scores: &Told, data_type: &DataType, part: Part) -> DfResult<ArrayRef> {
        let output = &self.model.about().output;
        let numbers = |numbers: ScalarBuffer<f64>| -> ArrayRef { Arc::new(Float64Array::new(numbers, None)) };
        let array = match (part, output) {
            (Part::Score, Output::Classes { labels, has_probabilities: true }) if labels.len() == 2 => {
                numbers(scores.values.iter().skip(1).step_by(2).copied().collect())
            }
            (Part::Score | Part::Prediction, Output::Classes { .. }) => {
                let class = |class: &f64| self.classes.get(*class as usize).filter(|_| !class.is_nan());
                numbers(scores.predictions.iter().map(|of| class(of).copied().unwrap_or(f64::NAN)).collect())
            }
            (Part::Score | Part::Prediction, _) => numbers(scores.predictions.clone()),
            (Part::Label, Output::Classes { labels, .. }) => {
                let label = |class: &f64| labels.get(*class as usize).filter(|_| !class.is_nan());
                Arc::new(scores.predictions.iter().map(label).collect::<StringArray>())
            }
            (Part::Label, _) => cast(&numbers(scores.predictions.clone()), &DataType::Utf8)?,
            (Part::Values, output) => {
                let DataType::List(item) = data_type else { return Ok(numbers(scores.values.clone())) };
                let (values, width) = match output.width() {
                    0 => (scores.predictions.clone(), 1),
                    width => (scores.values.clone(), width),
                };
                let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(width, scores.predictions.len()));
                let values = cast(&numbers(values), item.data_type())?;
                return Ok(Arc::new(ListArray::try_new(Arc::clone(item), offsets, values, None)?));
            }
        };
        Ok(cast(&array, data_type)?)
    }

    fn told(&self, scores: Scores) -> DfResult<ArrayRef> {
        let scores = Told { predictions: scores.predictions.into(), values: scores.values.into() };
        let DataType::Struct(fields) = &self.declared.returns else {
            let part = part_of("score", &self.declared.returns).unwrap_or(Part::Score);
            return self.array(&scores, &self.declared.returns, part);
        };
        let column = |field: &FieldRef| {
            let part = part_of(field.name(), field.data_type()).unwrap_or(Part::Prediction);
            self.array(&scores, field.data_type(), part)
        };
        let columns = fields.iter().map(column).collect::<DfResult<Vec<_>>>()?;
        Ok(Arc::new(StructArray::try_new(fields.clone(), columns, None)?))
    }
}

/// [`Scores`] whose numbers columns share.
struct Told {
    predictions: ScalarBuffer<f64>,
    values: ScalarBuffer<f64>,
}

/// Holds a declaration against the model.
fn check(name: &str, arguments: &[DataType], returns: &DataType, about: &About) -> Result<()> {
    if arguments.len() != about.features.len() {
        return Err(Error::invalid(format!(
            "`{name}` is declared with {} arguments, and the model has {} features ({}); declare one argument \
             for each feature, in the model's order",
            arguments.len(),
            about.features.len(),
            about.feature_names(),
        )));
    }
    for (index, (argument, feature)) in arguments.iter().zip(&about.features).enumerate() {
        let fits = if feature.is_text { is_text(argument) } else { is_number(argument) };
        if !fits {
            let (takes, write) = if feature.is_text { ("texts", "VARCHAR") } else { ("numbers", "DOUBLE") };
            return Err(Error::invalid(format!(
                "argument {} of `{name}` is {}, and the model's feature {} takes {takes}; declare it {write}",
                index + 1,
                crate::contract::sql_type(argument),
                feature.name
            )));
        }
    }
    match returns {
        DataType::Struct(fields) => fields.iter().try_for_each(|field| {
            let part = part_of(field.name(), field.data_type()).ok_or_else(|| {
                refused(
                    name,
                    format_args!("a STRUCT with {} {}", field.name(), crate::contract::sql_type(field.data_type())),
                )
            })?;
            given(name, part, &about.output)
        }),
        simple => {
            let told = crate::contract::sql_type(simple);
            given(name, part_of("score", simple).ok_or_else(|| refused(name, told))?, &about.output)
        }
    }
}

/// Whether a model gives it.
fn given(name: &str, part: Part, output: &Output) -> Result<()> {
    match (part, output) {
        (Part::Label, Output::Number | Output::Numbers(_)) => {
            Err(Error::invalid(format!("`{name}`: the model gives numbers and no class; declare RETURNS DOUBLE")))
        }
        (Part::Score | Part::Prediction, Output::Numbers(count)) => {
            Err(Error::invalid(format!("`{name}`: the model gives {count} numbers; declare RETURNS DOUBLE[]")))
        }
        (Part::Values, Output::Classes { has_probabilities: false, .. }) => Err(Error::invalid(format!(
            "`{name}`: the model says no probabilities; declare RETURNS VARCHAR, or DOUBLE for the class as a number"
        ))),
        _ => Ok(()),
    }
}

fn refused(name: &str, returns: impl Display) -> Error {
    Error::invalid(format!(
        "`{name}` returns {returns}, and a model returns DOUBLE (a score), DOUBLE[] (all probabilities), VARCHAR (the \
         class) or a STRUCT of some of score DOUBLE, prediction DOUBLE or VARCHAR, probability DOUBLE[], values \
         DOUBLE[]; declare one of these"
    ))
}

/// What a column of a name and type has of what a model says.
fn part_of(name: &str, data_type: &DataType) -> Option<Part> {
    match (name, data_type) {
        ("score", other) if is_float(other) => Some(Part::Score),
        ("prediction", other) if is_float(other) => Some(Part::Prediction),
        ("score" | "prediction", other) if is_text(other) => Some(Part::Label),
        ("score" | "probability" | "values", DataType::List(item)) if is_float(item.data_type()) => Some(Part::Values),
        _ => None,
    }
}

fn is_float(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Float64 | DataType::Float32)
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8)
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

/// A column that is ready for the model.
enum Ready {
    Numbers(ScalarBuffer<f64>),
    Texts(StringArray),
}

impl Ready {
    fn new(column: &ArrayRef, is_text: bool) -> DfResult<Self> {
        if is_text {
            return Ok(Ready::Texts(cast(column, &DataType::Utf8)?.as_string::<i32>().clone()));
        }
        Ok(Ready::Numbers(numbers(column)?))
    }

    fn column(&self) -> Column<'_> {
        match self {
            Ready::Numbers(numbers) => Column::Numbers(numbers),
            Ready::Texts(texts) => Column::Texts(texts),
        }
    }
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
        &self.declared.name
    }

    fn signature(&self) -> &Signature {
        &self.declared.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DfResult<DataType> {
        Ok(self.declared.returns.clone())
    }

    fn return_field_from_args(&self, _args: ReturnFieldArgs) -> DfResult<FieldRef> {
        Ok(self.declared.field())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let rows = args.number_rows;
        let features = &self.model.about().features;
        let ready = args.args.iter().zip(features);
        let ready = ready.map(|(argument, feature)| Ready::new(&argument.to_array(rows)?, feature.is_text));
        let ready = ready.collect::<DfResult<Vec<_>>>()?;
        let columns: Vec<Column<'_>> = ready.iter().map(Ready::column).collect();
        let scores = self.model.score(&columns, rows);
        let scores = scores.map_err(|error| error.within(format_args!("function {}", self.declared.name)))?;
        Ok(ColumnarValue::Array(self.told(scores)?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Feature;
    use super::*;
    use arrow::array::{BooleanArray, Decimal128Array, Float32Array, Int64Array, RecordBatch};
    use arrow::datatypes::Field;
    use datafusion::logical_expr::ScalarUDF;
    use datafusion::prelude::SessionContext;
    use std::hash::DefaultHasher;

    /// Sums its features; a missing one counts 1000, a text its length. Of several classes it is the one of that index.
    #[derive(Debug)]
    struct Sum(About);

    impl Model for Sum {
        fn about(&self) -> &About {
            &self.0
        }

        fn score(&self, columns: &[Column<'_>], rows: usize) -> Result<Scores> {
            self.0.check(columns, rows)?;
            let value = |column: &Column<'_>, row: usize| match column {
                Column::Numbers(numbers) => numbers[row],
                Column::Texts(texts) if texts.is_null(row) => f64::NAN,
                Column::Texts(texts) => texts.value(row).len() as f64,
            };
            let one = |value: f64| if value.is_nan() { 1000.0 } else { value };
            let sum = |row| columns.iter().map(|column| one(value(column, row))).sum();
            let predictions: Vec<f64> = (0..rows).map(sum).collect();
            let width = self.0.output.width();
            let values = predictions.iter().flat_map(|sum| (0..width).map(move |n| sum / 8.0 + n as f64)).collect();
            Ok(Scores { predictions, values })
        }
    }

    fn model(features: Vec<Feature>, output: Output, sha256: &str) -> Arc<dyn Model> {
        let (sha256, kind, objective) = (sha256.to_owned(), "Sum".to_owned(), "none".to_owned());
        Arc::new(Sum(About { sha256, kind, objective, trees: 0, features, output }))
    }

    fn sum(features: usize, sha256: &'static str) -> Arc<dyn Model> {
        model((0..features).map(|feature| Feature::number(format!("x{feature}"))).collect(), Output::Number, sha256)
    }

    fn classes(labels: &[&str], has_probabilities: bool) -> Output {
        Output::Classes { labels: labels.iter().map(|&label| label.to_owned()).collect(), has_probabilities }
    }

    fn list() -> DataType {
        DataType::List(Arc::new(Field::new("element", DataType::Float64, true)))
    }

    fn parts() -> DataType {
        let field = |name: &str, data_type| Field::new(name, data_type, true);
        DataType::Struct(
            vec![
                field("prediction", DataType::Utf8View),
                field("score", DataType::Float32),
                field("probability", list()),
            ]
            .into(),
        )
    }

    /// What `f(i)` returns of 1, 0 and 1 as JSON; `output` is what its model gives.
    async fn returned(output: Output, returns: DataType) -> String {
        let model = model(vec![Feature::number("x")], output, "00");
        let udf = ModelUdf::try_new("f", vec![DataType::Int64], returns, model).unwrap();
        let sql = "SELECT f(i) AS y FROM (VALUES (1), (0), (1)) AS v (i)";
        let rows = answer(vec![ScalarUDF::from(udf)], sql).await;
        let mut json = Vec::new();
        let mut writer = arrow::json::ArrayWriter::new(&mut json);
        writer.write(&rows).unwrap();
        writer.finish().unwrap();
        String::from_utf8(json).unwrap()
    }

    #[tokio::test]
    async fn what_is_declared_is_returned() {
        let (no_yes, numbers) = (classes(&["no", "yes"], true), classes(&["3", "5"], false));
        let double = DataType::Float64;
        for (output, returns, expected) in [
            (Output::Number, double.clone(), r#"[{"y":1.0},{"y":0.0},{"y":1.0}]"#),
            (Output::Number, list(), r#"[{"y":[1.0]},{"y":[0.0]},{"y":[1.0]}]"#),
            (Output::Numbers(2), list(), r#"[{"y":[0.125,1.125]},{"y":[0.0,1.0]},{"y":[0.125,1.125]}]"#),
            (no_yes.clone(), double.clone(), r#"[{"y":1.125},{"y":1.0},{"y":1.125}]"#),
            (no_yes.clone(), DataType::Utf8, r#"[{"y":"yes"},{"y":"no"},{"y":"yes"}]"#),
            (numbers.clone(), double.clone(), r#"[{"y":5.0},{"y":3.0},{"y":5.0}]"#),
            (classes(&["a", "b", "c"], true), double, r#"[{"y":1.0},{"y":0.0},{"y":1.0}]"#),
            (
                no_yes,
                parts(),
                concat!(
                    r#"[{"y":{"prediction":"yes","score":1.125,"probability":[0.125,1.125]}},"#,
                    r#"{"y":{"prediction":"no","score":1.0,"probability":[0.0,1.0]}},"#,
                    r#"{"y":{"prediction":"yes","score":1.125,"probability":[0.125,1.125]}}]"#
                ),
            ),
        ] {
            assert_eq!(returned(output, returns).await, expected);
        }
    }

    #[tokio::test]
    async fn texts_reach_the_model() {
        let model = model(vec![Feature::text("city"), Feature::number("x")], Output::Number, "00");
        let udf = ModelUdf::try_new("f", vec![DataType::Utf8View, DataType::Float64], DataType::Float64, model);
        let sql = "SELECT f(city, 1) AS y FROM (VALUES ('Bern'), (NULL)) AS v (city)";
        let rows = answer(vec![ScalarUDF::from(udf.unwrap())], sql).await;
        assert_eq!(rows.column(0).as_primitive::<Float64Type>().values(), &[5.0, 1001.0]);
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
            "`f` is declared with 1 arguments, and the model has 2 features (x0, x1); declare one argument for each \
             feature, in the model's order"
        );
        assert_eq!(
            fault(vec![DataType::Float64, DataType::Utf8], DataType::Float64),
            "argument 2 of `f` is VARCHAR, and the model's feature x1 takes numbers; declare it DOUBLE"
        );
        let two = || vec![DataType::Float64; 2];
        assert_eq!(fault(two(), DataType::Utf8), "`f`: the model gives numbers and no class; declare RETURNS DOUBLE");
        assert!(fault(two(), DataType::Date32).starts_with("`f` returns DATE, and a model returns DOUBLE (a score)"));
        let of = |output, returns| {
            let model = model(vec![Feature::text("city")], output, "00");
            ModelUdf::try_new("f", vec![DataType::Utf8], returns, model).unwrap_err().to_string()
        };
        assert_eq!(
            of(Output::Numbers(3), DataType::Float64),
            "`f`: the model gives 3 numbers; declare RETURNS DOUBLE[]"
        );
        assert!(of(classes(&["a", "b"], false), list()).contains("the model says no probabilities"));
        let other = DataType::Struct(vec![Field::new("label", DataType::Utf8, true)].into());
        assert!(of(classes(&["a", "b"], true), other).contains("returns a STRUCT with label VARCHAR"));
    }
}
