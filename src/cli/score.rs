//! `flumen score`: a model over the rows of a file, without a pipeline.

mod comparison;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Float64Type};
use clap::Args;
use datafusion::dataframe::DataFrame;
use datafusion::logical_expr::{Expr, ScalarUDF, ident};
use datafusion::prelude::{CsvReadOptions, ParquetReadOptions, SessionConfig, SessionContext};

use self::comparison::{Columns, Comparison};
use super::output::{print_json, print_json_rows, print_line, print_rows, print_told};
use super::{Format, Globals, Inputs, load};
use crate::error::{Error, Result};
use crate::model::{self, Language, Model, ModelUdf, Output};
use crate::observe::grouped;

/// `flumen score MODEL --input F [--expect F]`.
#[derive(Debug, Args)]
pub(crate) struct Score {
    /// The model: .json or .ubj of XGBoost, .txt of LightGBM, .onnx, or the directory of a Spark ML PipelineModel
    model: PathBuf,
    /// The rows: a .csv file with a header, or a .parquet file. Columns are found by the names of the features; when
    /// none of the names is there, by their order
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// What the training library predicts for them, row by row. A column `prediction` of numbers is compared with what
    /// RETURNS DOUBLE gives, of texts or of classes only with the class; `probability_0`, `values_0` and so on with
    /// what is printed under that name
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
    /// Predictions may differ by so much, absolutely or in relation to the larger one
    #[arg(long, value_name = "X", default_value_t = 1e-6, requires = "expect")]
    tolerance: f64,
    /// Whose model it is, where its name does not say it: XGBOOST, LIGHTGBM, ONNX or SPARK_ML
    #[arg(long, value_name = "LANGUAGE", value_parser = language)]
    language: Option<Language>,
}

fn language(word: &str) -> Result<Language, String> {
    Language::of(word).ok_or_else(|| format!("there is {}", Language::ALL.map(Language::word).join(", ")))
}

impl Score {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        if self.tolerance.is_nan() || self.tolerance < 0.0 {
            return Err(Error::invalid("--tolerance is a number from 0 on"));
        }
        let environment = load::environment(&load::root(globals)?, &Inputs::default());
        let path = environment.resolve(&self.model.to_string_lossy());
        let language = self.language.or_else(|| Language::of_path(&path));
        let language = language.ok_or_else(|| {
            Error::invalid(format!("{}: its name does not say whose model it is; say --language", path.display()))
        })?;
        let model = model::load("score", language, &path, None)?;
        print_told(&model.about().summary());
        let scored = score(&model, &environment.resolve(&self.input.to_string_lossy())).await?;
        let Some(expect) = &self.expect else { return tell(&model, &scored, globals.output) };
        let scored = flat(&scored, model.about().output.width());
        let expected = read(&context(), &environment.resolve(&expect.to_string_lossy())).await?;
        let comparison = Comparison::new(&scored, &whole(expected).await?, self.tolerance)?;
        comparison.note.iter().for_each(|note| print_told(note));
        match globals.output {
            Format::Json => print_json(&comparison.json())?,
            Format::Text => print_line(&comparison.told()),
        }
        if comparison.differ == 0 {
            return Ok(());
        }
        Err(Error::violated(format!("{} rows are not predicted as expected", grouped(comparison.differ))))
    }
}

/// The rows in their order: one stream.
fn context() -> SessionContext {
    SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1))
}

async fn read(context: &SessionContext, path: &Path) -> Result<DataFrame> {
    let named = path.to_string_lossy();
    if !path.is_file() {
        return Err(Error::invalid(format!("there is no file {named}; mend the path")));
    }
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("parquet") => Ok(context.read_parquet(named.as_ref(), ParquetReadOptions::default()).await?),
        // Everything is text until the model says what it takes: a guess would make 7 of 007.
        Some("csv") => {
            let options = CsvReadOptions::new().schema_infer_max_records(0);
            Ok(context.read_csv(named.as_ref(), options).await?)
        }
        _ => Err(Error::invalid(format!("{named} is neither .csv nor .parquet; name it so"))),
    }
}

async fn whole(frame: DataFrame) -> Result<RecordBatch> {
    let schema = Arc::new(frame.schema().as_arrow().clone());
    Ok(concat_batches(&schema, &frame.collect().await?)?)
}

/// The columns of the features: by their names, or when none of the names is there by their order, which is told.
fn columns(features: &[model::Feature], names: &[String], input: &Path) -> Result<Vec<usize>> {
    let place = |feature: &model::Feature| names.iter().position(|name| *name == feature.name);
    let places: Vec<Option<usize>> = features.iter().map(place).collect();
    let missing: Vec<&str> =
        features.iter().zip(&places).filter(|(_, place)| place.is_none()).map(|(f, _)| &f.name[..]).collect();
    if missing.is_empty() {
        return Ok(places.into_iter().flatten().collect());
    }
    if missing.len() < features.len() || names.len() < features.len() {
        return Err(Error::invalid(format!(
            "{} has {} columns ({}), and the model takes {}: column {} is missing; add it, or name all columns as the \
             model does",
            input.display(),
            names.len(),
            names.join(", "),
            features.len(),
            missing[0]
        )));
    }
    let taken: Vec<&str> = names.iter().take(features.len()).map(String::as_str).collect();
    print_told(&format!("no column has the name of a feature: taken in their order, {}", taken.join(", ")));
    Ok((0..features.len()).collect())
}

/// A column as the model takes it.
fn typed(column: &ArrayRef, name: &str, is_text: bool) -> Result<ArrayRef> {
    if is_text {
        return Ok(cast(column, &DataType::Utf8)?);
    }
    if !column.data_type().is_string() {
        return Ok(cast(column, &DataType::Float64)?);
    }
    let words = cast(column, &DataType::Utf8)?;
    let number = |(row, word): (usize, Option<&str>)| match word.map(str::trim) {
        None | Some("" | "NA" | "N/A" | "NULL" | "null" | "None") => Ok(None),
        Some("true" | "True" | "TRUE") => Ok(Some(1.0)),
        Some("false" | "False" | "FALSE") => Ok(Some(0.0)),
        Some(word) => word.parse().map(Some).map_err(|_| {
            Error::invalid(format!(
                "row {}: column {name} has `{word}`, and the model takes a number there; mend the file, or leave the \
                 cell empty",
                row + 1
            ))
        }),
    };
    let numbers: Result<Float64Array> = words.as_string::<i32>().iter().enumerate().map(number).collect();
    Ok(Arc::new(numbers?))
}

/// What the model says of each row of a file: `score`, `prediction`, and `probability` where it says one.
async fn score(model: &Arc<dyn Model>, input: &Path) -> Result<RecordBatch> {
    let context = context();
    let rows = whole(read(&context, input).await?).await?;
    let features = &model.about().features;
    let names: Vec<String> = rows.schema().fields().iter().map(|field| field.name().clone()).collect();
    let places = columns(features, &names, input)?;
    let taken = features.iter().zip(&places).enumerate().map(|(index, (feature, place))| {
        let column = typed(rows.column(*place), &names[*place], feature.is_text)?;
        Ok((format!("feature_{index}"), column, true))
    });
    let rows = RecordBatch::try_from_iter_with_nullable(taken.collect::<Result<Vec<_>>>()?)?;
    let arguments: Vec<Expr> = rows.schema().fields().iter().map(|field| ident(field.name())).collect();
    let types = rows.schema().fields().iter().map(|field| field.data_type().clone()).collect();
    let rows = context.read_batch(rows)?;
    let list = DataType::List(Arc::new(Field::new("item", DataType::Float64, true)));
    let fields = match &model.about().output {
        Output::Number => vec![("score", DataType::Float64)],
        Output::Numbers(_) => vec![("values", list)],
        Output::Classes { has_probabilities: false, .. } => {
            vec![("score", DataType::Float64), ("prediction", DataType::Utf8)]
        }
        Output::Classes { .. } => {
            vec![("score", DataType::Float64), ("prediction", DataType::Utf8), ("probability", list)]
        }
    };
    let fields: Vec<Field> = fields.into_iter().map(|(name, of)| Field::new(name, of, true)).collect();
    let udf = ModelUdf::try_new("score", types, DataType::Struct(fields.into()), Arc::clone(model))?;
    let scored = whole(rows.select(vec![ScalarUDF::from(udf).call(arguments).alias("scored")])?).await?;
    Ok(RecordBatch::from(scored.column(0).as_struct()))
}

/// The columns, a list's numbers each in a column of its own.
fn flat(scored: &RecordBatch, width: usize) -> Columns {
    let mut columns = Columns::new();
    for (field, column) in scored.schema().fields().iter().zip(scored.columns()) {
        let Some(lists) = column.as_list_opt::<i32>() else {
            columns.push((field.name().clone(), Arc::clone(column)));
            continue;
        };
        let values = lists.values().as_primitive::<Float64Type>();
        for index in 0..width {
            let numbers = values.values().iter().skip(index).step_by(width).copied();
            let numbers = Float64Array::from_iter_values(numbers);
            columns.push((format!("{}_{index}", field.name()), Arc::new(numbers)));
        }
    }
    columns
}

/// The scores as CSV, or a JSON object a row.
fn tell(model: &Arc<dyn Model>, scored: &RecordBatch, format: Format) -> Result<()> {
    if format == Format::Json {
        return print_json_rows(&[scored]);
    }
    let flat = RecordBatch::try_from_iter(flat(scored, model.about().output.width()))?;
    print_rows("CSV", |stdout| arrow::csv::Writer::new(stdout).write(&flat))
}
