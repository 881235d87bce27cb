//! Pipelines and models that Spark ML has saved (Spark 3.5 and 4), read from their directory without Spark: a plan of
//! steps is made of the stages once, and blocks of rows go through it.

mod assembler;
mod bayes;
mod clusters;
mod covered;
mod directory;
mod encoder;
mod indexer;
mod linear;
mod number;
mod pattern;
mod plan;
mod predictor;
mod predictors;
mod scaler;
mod stages;
mod table;
mod text;
mod trees;
mod vector;

use std::path::{Path, PathBuf};

use super::about::{About, Column, Output, Scores};
use crate::error::{Error, Result};

use directory::Stage;
use predictor::Loaded;
use vector::{BLOCK_ROWS, Block, Step};

/// A pipeline, or a model alone.
///
/// Its features are the columns that no stage makes, in the order in which the stages that the prediction needs name
/// them; a vector that comes from outside is a feature for each number. What Spark does with NULL it does with a
/// missing value. Where a stage's `handleInvalid` is `skip`, Spark leaves a row out; here its prediction and its
/// probabilities are NaN. Where it is `error`, the call fails.
#[derive(Debug)]
pub(super) struct SparkModel {
    about: About,
    steps: Vec<Box<dyn Step>>,
    /// How many columns the steps make.
    made: usize,
    model: Loaded,
}

/// The files that make the model in a directory, sorted.
///
/// # Errors
/// `Invalid` when the directory is none that Spark ML saves, or damaged.
pub(super) fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    directory::files(directory)
}

/// Reads a model from the directory that `model.write().save(…)` made.
///
/// # Errors
/// `Invalid` when the directory is damaged, or has a stage that is not covered.
pub(super) fn parse(directory: &Path, sha256: String) -> Result<SparkModel> {
    let stages = directory::stages(directory)?;
    let Some((at, stage)) = stages.iter().enumerate().rfind(|(_, stage)| covered::is_predictor(stage)) else {
        return Err(no_model(&stages));
    };
    let (before, after) = (&stages[..at], stages.get(at + 1..).unwrap_or_default());
    // A class that is not covered says so before the stages before it do.
    let mut plan = stages::plan(before, stage.text("featuresCol")?)?;
    let model = predictors::load(&mut plan, stage).map_err(|error| match error.message().contains(&stage.uid) {
        true => error,
        false => error.within(format_args!("stage {}", stage.uid)),
    })?;
    let output = match model.classes {
        None => Output::Number,
        Some(classes) => Output::Classes {
            labels: labels(before, stage, after, classes)?,
            has_probabilities: model.has_probabilities,
        },
    };
    let about = About {
        sha256,
        kind: format!("Spark {} {}", stage.version, stage.kind().trim_end_matches("Model")),
        objective: model.objective.clone(),
        trees: model.trees,
        features: plan.features,
        output,
    };
    Ok(SparkModel { about, steps: plan.steps, made: plan.made, model })
}

/// The error for stages that have no model among them.
fn no_model(stages: &[Stage]) -> Error {
    if let [stage] = stages {
        if ["CrossValidatorModel", "TrainValidationSplitModel"].contains(&stage.kind()) {
            return Error::invalid(format!("class {} is not supported; save its bestModel", stage.class));
        }
        return Error::invalid(format!(
            "class {} gives no prediction or is not supported; save a pipeline that was fitted and ends with one of {}",
            stage.class,
            covered::PREDICTORS
        ));
    }
    // A stage that is not covered may be the model.
    match stages.last() {
        Some(stage) => Error::invalid(format!(
            "none of its stages is a model that gives a prediction, the last one is a {}; save a pipeline that was \
             fitted and has one of {}",
            stage.kind(),
            covered::PREDICTORS
        )),
        None => Error::invalid("the pipeline has no stages; save one that was fitted"),
    }
}

/// The names of the classes: those of an IndexToString, or those of the labels' StringIndexer where it has none, else
/// their numbers.
fn labels(before: &[Stage], model: &Stage, after: &[Stage], classes: usize) -> Result<Vec<String>> {
    let prediction = model.text("predictionCol")?;
    let names_them =
        |stage: &&Stage| stage.kind() == "IndexToString" && stage.text("inputCol").ok() == Some(prediction);
    let mut names = Vec::new();
    if let Some(stage) = after.iter().find(names_them) {
        if stage.has("labels") {
            names = stage.texts("labels")?;
        }
        if names.is_empty()
            && let Ok(label) = model.text("labelCol")
        {
            names = indexed(before, label)?;
        }
    }
    if classes > MAX_CLASSES {
        return Err(model.fault(format_args!("it has {classes} classes; {MAX_CLASSES} is the most, train with fewer")));
    }
    Ok((0..classes).map(|class| names.get(class).cloned().unwrap_or_else(|| class.to_string())).collect())
}

/// A model may have this many classes.
const MAX_CLASSES: usize = 1 << 16;

/// The labels that a StringIndexer has for a column that it makes.
fn indexed(stages: &[Stage], column: &str) -> Result<Vec<String>> {
    for stage in stages.iter().filter(|stage| stage.kind() == "StringIndexerModel") {
        if let Some(at) = stage.outputs()?.iter().position(|output| output == column) {
            return Ok(indexer::labels(stage)?.into_iter().nth(at).unwrap_or_default());
        }
    }
    Ok(Vec::new())
}

impl super::Model for SparkModel {
    fn about(&self) -> &About {
        &self.about
    }

    fn score(&self, columns: &[Column<'_>], rows: usize) -> Result<Scores> {
        self.about.check(columns, rows)?;
        let width = self.about.output.width();
        let mut scores = Scores { predictions: vec![0.0; rows], values: vec![0.0; rows * width] };
        let mut block = Block::new(columns, self.made);
        for start in (0..rows).step_by(BLOCK_ROWS) {
            let end = rows.min(start + BLOCK_ROWS);
            block.go_to(start, end - start);
            for step in &self.steps {
                step.run(&mut block)?;
            }
            let predictions = &mut scores.predictions[start..end];
            let values = &mut scores.values[start * width..end * width];
            let vectors = block.vectors(self.model.column);
            self.model.predictor.predict(&vectors, &block, predictions, values)?;
            for (row, prediction) in predictions.iter_mut().enumerate().filter(|(row, _)| block.dropped()[*row]) {
                *prediction = f64::NAN;
                values[row * width..][..width].fill(f64::NAN);
            }
        }
        Ok(scores)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use arrow::array::StringArray;
    use tempfile::TempDir;

    use super::super::Model as _;
    use super::super::damage::Chance;
    use super::*;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/spark_ml").join(name).join("model")
    }

    /// A copy of a fixture that may be changed.
    fn copy(name: &str) -> TempDir {
        let copy = TempDir::new().unwrap();
        let from = fixture(name);
        for file in files(&from).unwrap() {
            let to = copy.path().join(file.strip_prefix(&from).unwrap());
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(file, to).unwrap();
        }
        copy
    }

    fn file(directory: &Path, part: &str) -> PathBuf {
        let file = files(directory).unwrap().into_iter().find(|file| file.to_string_lossy().contains(part));
        file.unwrap_or_else(|| panic!("no {part}"))
    }

    fn refusal(directory: &Path) -> String {
        parse(directory, String::new()).unwrap_err().to_string()
    }

    /// Scores some rows, whatever the features are.
    fn score(model: &SparkModel) -> Result<Scores> {
        let numbers = [1.0, f64::NAN, -0.5, f64::INFINITY, 0.0];
        let texts = StringArray::from(vec![Some("Lyon"), None, Some(""), Some("great phone"), Some("İ")]);
        let features = &model.about.features;
        let columns: Vec<Column<'_>> = features
            .iter()
            .map(|feature| if feature.is_text { Column::Texts(&texts) } else { Column::Numbers(&numbers) })
            .collect();
        model.score(&columns, numbers.len())
    }

    #[test]
    fn a_model_says_what_it_is() {
        let model = parse(&fixture("random_forest_classifier"), "ab".to_owned()).unwrap();
        let about = model.about();
        assert_eq!((about.kind.as_str(), about.trees), ("Spark 4.1.1 RandomForestClassification", 5));
        assert!(about.features.iter().any(|feature| feature.is_text), "{about:?}");
        let expected = Output::Classes { labels: vec!["0".into(), "1".into()], has_probabilities: true };
        assert_eq!(about.output, expected);
        let scores = model.score(&[], 0).unwrap_err().to_string();
        assert!(scores.starts_with("the model takes 4 columns and got 0; "), "{scores}");
    }

    #[test]
    fn no_rows_are_scored_too() {
        let model = parse(&fixture("text"), String::new()).unwrap();
        let none = StringArray::from(Vec::<&str>::new());
        assert_eq!(model.score(&[Column::Texts(&none)], 0).unwrap(), Scores::default());
    }

    #[test]
    fn rows_that_are_skipped_are_nan() {
        let model = parse(&fixture("lr_binary_skip"), String::new()).unwrap();
        let scores = score(&model).unwrap();
        assert!(scores.predictions[1].is_nan() && scores.values[2..4].iter().all(|value| value.is_nan()), "{scores:?}");
    }

    #[test]
    fn the_files_are_those_that_spark_reads() {
        let copy = copy("gbt_regressor");
        let before = files(copy.path()).unwrap();
        for other in ["metadata/_SUCCESS", "metadata/.part-0.crc", "notes.txt"] {
            fs::write(copy.path().join(other), "x").unwrap();
        }
        assert_eq!(files(copy.path()).unwrap(), before);
        // The pipeline's and two stages' metadata, the trees and their weights.
        assert_eq!(before.len(), 5);
        assert!(before.is_sorted());
    }

    #[test]
    fn a_stage_alone_is_a_model_over_a_vector() {
        let copy = copy("linear_regression");
        let stages = fs::read_dir(copy.path().join("stages")).unwrap();
        let mut stages: Vec<PathBuf> = stages.map(|entry| entry.unwrap().path()).collect();
        stages.sort();
        let model = parse(stages.last().unwrap(), String::new()).unwrap();
        let names: Vec<&str> = model.about.features.iter().map(|feature| feature.name.as_str()).collect();
        assert_eq!(names, ["features[0]", "features[1]", "features[2]", "features[3]"]);
        assert_eq!(score(&model).unwrap().predictions.len(), 5);
        let error = refusal(&stages[0]);
        assert!(error.starts_with("class org.apache.spark.ml.feature.ImputerModel gives no prediction"), "{error}");
    }

    #[test]
    fn what_is_missing_is_named() {
        let empty = TempDir::new().unwrap();
        assert!(refusal(empty.path()).contains("is no directory that Spark ML saves: it has no metadata; "));
        let copy = copy("linear_regression");
        fs::remove_file(file(copy.path(), "LinearRegression_")).unwrap();
        assert!(refusal(copy.path()).contains("LinearRegression_"), "{}", refusal(copy.path()));
    }

    #[test]
    fn a_class_that_is_not_covered_is_named() {
        let copy = copy("linear_regression");
        let metadata = copy.path().join("stages").read_dir().unwrap().map(|entry| entry.unwrap().path());
        let last = metadata.max().unwrap();
        let metadata = file(&last, "metadata");
        let text = fs::read_to_string(&metadata).unwrap();
        fs::write(&metadata, text.replace("regression.LinearRegressionModel", "regression.FMRegressionModel")).unwrap();
        let error = refusal(copy.path());
        assert!(error.contains("class org.apache.spark.ml.regression.FMRegressionModel is not supported; "), "{error}");
    }

    #[test]
    fn a_pipeline_in_itself_ends() {
        let copy = copy("linear_regression");
        let mut at = copy.path().to_owned();
        let line = concat!(
            r#"{"class":"org.apache.spark.ml.PipelineModel","uid":"P","#,
            r#""sparkVersion":"4","paramMap":{"stageUids":["P"]}}"#
        );
        for _ in 0..20 {
            fs::create_dir_all(at.join("metadata")).unwrap();
            for old in fs::read_dir(at.join("metadata")).unwrap() {
                fs::remove_file(old.unwrap().path()).unwrap();
            }
            fs::write(at.join("metadata/part-0"), line).unwrap();
            at = at.join("stages/0_P");
        }
        assert!(
            refusal(copy.path()).contains("pipelines are in pipelines more than 8 deep; "),
            "{}",
            refusal(copy.path())
        );
    }

    /// Damages each file of a model in turn: each time it is refused or scores.
    fn damage(name: &str, truncations: usize, flips: usize) {
        let copy = copy(name);
        let mut chance = Chance::new(7);
        let survives = || match parse(copy.path(), String::new()) {
            Ok(model) => drop(score(&model)),
            Err(error) => assert!(error.to_string().contains(';'), "{error}"),
        };
        for file in files(copy.path()).unwrap() {
            let bytes = fs::read(&file).unwrap();
            for at in 0..truncations {
                fs::write(&file, &bytes[..bytes.len() * at / truncations]).unwrap();
                survives();
            }
            for _ in 0..flips {
                let mut damaged = bytes.clone();
                for _ in 0..=chance.below(3) {
                    let at = chance.below(damaged.len());
                    damaged[at] ^= 1 << chance.below(8);
                }
                fs::write(&file, &damaged).unwrap();
                survives();
            }
            fs::write(&file, &bytes).unwrap();
        }
    }

    #[test]
    fn damaged_files_are_refused_or_score() {
        for name in ["lr_binary", "random_forest_classifier", "text_count", "kmeans", "naive_bayes_gaussian"] {
            damage(name, 20, 60);
        }
    }
}
