//! The stages before a predictor: which of them it needs, and what each of them does.

use std::collections::HashSet;

use super::covered::{is_predictor, unknown};
use super::directory::Stage;
use super::plan::Plan;
use super::{assembler, encoder, indexer, number, scaler, text};
use crate::error::Result;

/// The plan of the stages before a predictor that reads `features`.
///
/// # Errors
/// `Invalid` when a stage that is needed is not covered, or damaged.
pub(super) fn plan(stages: &[Stage], features: &str) -> Result<Plan> {
    let mut plan = Plan::new(needed(stages, features)?);
    for stage in stages {
        if outputs(stage).is_some_and(|made| made.iter().any(|output| plan.is_needed(output))) {
            add(&mut plan, stage).map_err(|error| match error.message().contains(&stage.uid) {
                true => error,
                false => error.within(format_args!("stage {}", stage.uid)),
            })?;
        }
    }
    Ok(plan)
}

fn add(plan: &mut Plan, stage: &Stage) -> Result<()> {
    match stage.kind() {
        "VectorAssembler" => assembler::add(plan, stage),
        "StringIndexerModel" => indexer::add(plan, stage),
        "VectorIndexerModel" => indexer::add_vectors(plan, stage),
        "OneHotEncoderModel" => encoder::add(plan, stage),
        "StandardScalerModel" | "RobustScalerModel" | "MaxAbsScalerModel" | "MinMaxScalerModel" => {
            scaler::add(plan, stage)
        }
        "Normalizer" => scaler::add_normalizer(plan, stage),
        "ImputerModel" => number::add_imputer(plan, stage),
        "Bucketizer" => number::add_bucketizer(plan, stage),
        "Binarizer" => number::add_binarizer(plan, stage),
        "Tokenizer" | "RegexTokenizer" => text::add_tokenizer(plan, stage),
        "StopWordsRemover" => text::add_remover(plan, stage),
        "NGram" => text::add_joiner(plan, stage),
        "HashingTF" => text::add_hashing(plan, stage),
        "CountVectorizerModel" => text::add_counter(plan, stage),
        "IDFModel" => scaler::add_idf(plan, stage),
        _ => Err(unknown(stage)),
    }
}

/// The columns that a predictor needs, directly or not.
fn needed(stages: &[Stage], features: &str) -> Result<HashSet<String>> {
    let mut needed = HashSet::from([features.to_owned()]);
    for stage in stages.iter().rev() {
        let Some(outputs) = outputs(stage) else {
            return Err(unknown(stage));
        };
        if !outputs.iter().any(|output| needed.contains(output)) {
            continue;
        }
        if is_predictor(stage) {
            return Err(stage.fault(
                "the model reads what this model predicts, which is not supported; save and score one model at a time",
            ));
        }
        if !stage.has("inputCol") && !stage.has("inputCols") {
            return Err(unknown(stage));
        }
        let inputs = stage.inputs()?;
        match inputs.len() == outputs.len() {
            // Column by column.
            true => {
                let pairs = inputs.iter().zip(&outputs);
                let inputs: Vec<String> =
                    pairs.filter(|(_, output)| needed.contains(*output)).map(|(input, _)| input.clone()).collect();
                needed.extend(inputs);
            }
            false => needed.extend(inputs),
        }
    }
    Ok(needed)
}

/// The columns that a stage makes; none if it does not say so.
fn outputs(stage: &Stage) -> Option<Vec<String>> {
    if is_predictor(stage) {
        let columns = ["predictionCol", "probabilityCol", "rawPredictionCol"];
        return Some(columns.iter().filter_map(|name| stage.text(name).ok().map(str::to_owned)).collect());
    }
    stage.outputs().ok()
}

#[cfg(test)]
mod tests {
    use super::super::plan::Plan;
    use super::*;
    use serde_json::json;

    fn assembler(inputs: &[&str], output: &str) -> Stage {
        let params = json!({"inputCols": inputs, "outputCol": output, "handleInvalid": "keep"});
        Stage::of("org.apache.spark.ml.feature.VectorAssembler", params)
    }

    fn binarizer(input: &str, output: &str) -> Stage {
        Stage::of("x.Binarizer", json!({"inputCol": input, "outputCol": output, "threshold": 0.5}))
    }

    fn names(plan: &Plan) -> Vec<&str> {
        plan.features.iter().map(|feature| feature.name.as_str()).collect()
    }

    #[test]
    fn features_are_what_no_stage_makes_in_the_order_of_the_stages() {
        let stages = [binarizer("b", "bb"), binarizer("unused", "x"), assembler(&["a", "bb", "c"], "features")];
        let made = plan(&stages, "features").unwrap();
        assert_eq!(names(&made), ["b", "a", "c"]);
        assert_eq!(made.steps.len(), 2);
    }

    #[test]
    fn of_several_columns_of_a_stage_only_those_that_are_needed_are_features() {
        let several = json!({"inputCols": ["a", "b"], "outputCols": ["aa", "bb"], "outputCol": "no", "threshold": 0.0});
        let stages = [Stage::of("x.Binarizer", several), assembler(&["bb"], "features")];
        assert_eq!(names(&plan(&stages, "features").unwrap()), ["b"]);
    }

    #[test]
    fn classes_that_are_not_covered_are_named_where_they_are_needed() {
        let pca = || Stage::of("x.PCAModel", json!({"inputCol": "a", "outputCol": "p"}));
        plan(&[pca(), assembler(&["a"], "features")], "features").unwrap();
        let error = plan(&[pca(), assembler(&["p"], "features")], "features").unwrap_err().to_string();
        assert!(error.starts_with("stage x.PCAModel_1: class x.PCAModel is not supported; build "), "{error}");
        let sql = Stage::of("x.SQLTransformer", json!({"statement": "SELECT 1"}));
        let error = plan(&[sql, assembler(&["a"], "features")], "features").unwrap_err().to_string();
        assert!(error.starts_with("stage x.SQLTransformer_1: class x.SQLTransformer is not supported"), "{error}");
    }

    #[test]
    fn a_column_is_a_number_or_text_or_a_vector() {
        let tokenizer = Stage::of("x.Tokenizer", json!({"inputCol": "a", "outputCol": "w"}));
        let hashing = json!({"inputCol": "w", "outputCol": "h", "numFeatures": 8, "binary": false});
        let stages = [tokenizer, Stage::of("x.HashingTF", hashing), assembler(&["h", "a"], "features")];
        let error = plan(&stages, "features").unwrap_err().to_string();
        assert!(error.contains("column a is text for one stage and a number for another; make two"), "{error}");
        let mut plan = plan(&[], "features").unwrap();
        let stage = assembler(&[], "x");
        assert_eq!(plan.vectors(&stage, "features", Some(3)).unwrap().shape.width, 3);
        assert_eq!(names(&plan), ["features[0]", "features[1]", "features[2]"]);
        let error = plan.vectors(&stage, "features", Some(4)).unwrap_err().to_string();
        assert!(error.contains("it takes vectors of 4 numbers and column features has 3; "), "{error}");
        let error = plan.vectors(&stage, "others", None).unwrap_err().to_string();
        assert!(error.contains("how long the vectors of column others are is not known; assemble"), "{error}");
    }

    #[test]
    fn a_column_is_made_once() {
        let stages = [binarizer("a", "x"), binarizer("b", "x"), assembler(&["x"], "features")];
        let error = plan(&stages, "features").unwrap_err().to_string();
        assert!(error.contains("there is a column x before it; save the model again"), "{error}");
    }
}
