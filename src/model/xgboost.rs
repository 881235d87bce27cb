//! XGBoost models in its JSON form (`save_model("x.json")`), as XGBoost 1.0 to 3.x write it.
//!
//! Format: <https://xgboost.readthedocs.io/en/stable/tutorials/saving_model.html>. Predictions are those of XGBoost's
//! CPU predictor: features, thresholds and sums are f32, the sum begins with the intercept and goes through the trees
//! in their order. A file may be cut off or hostile: everything in it is checked before the first row is scored.

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, Unexpected, Visitor};

use crate::error::{Error, Result};

use super::forest::{Forest, TreeArrays};
use super::linear::Linear;
use super::{Model, check_shape};

/// A model may have this many features: each one costs 512 bytes of a block.
const MAX_FEATURES: usize = 65_536;
/// Rows whose f32 sums are kept before they become f64 predictions.
const CHUNK_ROWS: usize = 1024;

/// A model that XGBoost has trained.
#[derive(Debug)]
pub(super) struct XgboostModel {
    feature_names: Vec<String>,
    sha256: String,
    /// The sum that every row starts with.
    base: f32,
    booster: Booster,
    link: Link,
}

#[derive(Debug)]
enum Booster {
    Trees(Forest),
    Linear(Linear),
}

/// How a sum becomes a prediction: the objective's inverse link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Identity,
    Logistic,
    Exponential,
}

impl Model for XgboostModel {
    fn feature_names(&self) -> &[String] {
        &self.feature_names
    }

    fn sha256(&self) -> &str {
        &self.sha256
    }

    fn predict(&self, columns: &[&[f64]], out: &mut [f64]) -> Result<()> {
        check_shape(self.features(), columns, out.len())?;
        let mut sums = [0.0; CHUNK_ROWS];
        let mut chunk: Vec<&[f64]> = Vec::with_capacity(columns.len());
        for (index, out) in out.chunks_mut(CHUNK_ROWS).enumerate() {
            let first = index * CHUNK_ROWS;
            chunk.clear();
            chunk.extend(columns.iter().map(|column| &column[first..first + out.len()]));
            let sums = &mut sums[..out.len()];
            match &self.booster {
                Booster::Trees(forest) => forest.margins(self.base, &chunk, sums),
                Booster::Linear(linear) => linear.margins(self.base, &chunk, sums),
            }
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = f64::from(self.link.prediction(*sum));
            }
        }
        Ok(())
    }
}

/// The link itself: from a prediction, as the file states the intercept, to a sum.
type ToMargin = fn(f32) -> f32;

impl Link {
    fn of(objective: &str) -> Result<(Self, ToMargin)> {
        Ok(match objective {
            "binary:logistic" | "reg:logistic" => (Link::Logistic, |score| -(1.0 / score - 1.0).ln()),
            "count:poisson" => (Link::Exponential, f32::ln),
            "reg:squarederror" | "reg:linear" | "binary:logitraw" => (Link::Identity, |score| score),
            other => {
                return Err(Error::invalid(format!(
                    "objective {other} is not supported; train with binary:logistic, binary:logitraw, reg:logistic, \
                     reg:squarederror or count:poisson"
                )));
            }
        })
    }

    /// The logistic function is XGBoost's own: the exponent is cut off where an f32 would overflow.
    fn prediction(self, sum: f32) -> f32 {
        match self {
            Link::Identity => sum,
            Link::Logistic => 1.0 / ((-sum).min(88.7).exp() + 1.0),
            Link::Exponential => sum.exp(),
        }
    }
}

/// Reads a model from the bytes of its file.
///
/// # Errors
/// `Invalid` when the bytes are not an XGBoost model in JSON, are damaged, or say something that is not supported.
pub(super) fn parse(bytes: &[u8], sha256: String) -> Result<XgboostModel> {
    if is_binary(bytes) {
        return Err(Error::invalid("it is in XGBoost's binary form (UBJSON); save the model as .json"));
    }
    let file: ModelFile = serde_json::from_slice(bytes).map_err(|error| {
        Error::invalid(format!("it is no XGBoost model in JSON: {error}; save the model again as .json"))
    })?;
    let learner = file.learner;
    let features = learner.features()?;
    let (link, to_margin) = Link::of(&learner.objective.name)?;
    let base = to_margin(learner.base_score()?);
    if !base.is_finite() {
        return Err(damaged(format!("base_score {} is not possible", learner.model_param.base_score)));
    }
    let booster = learner.gradient_booster.build(features)?;
    Ok(XgboostModel { feature_names: learner.names(features)?, sha256, base, booster, link })
}

/// UBJSON puts the type and length of the first name where JSON has a quotation mark; older binary files begin `binf`.
fn is_binary(bytes: &[u8]) -> bool {
    match bytes {
        [b'{', kind, ..] => kind.is_ascii_alphabetic() || *kind == b'$' || *kind == b'#',
        _ => bytes.starts_with(b"binf"),
    }
}

fn damaged(what: impl std::fmt::Display) -> Error {
    Error::invalid(format!("it is damaged: {what}; save the model again as .json"))
}

#[derive(Deserialize)]
struct ModelFile {
    learner: Learner,
}

#[derive(Deserialize)]
struct Learner {
    #[serde(default)]
    feature_names: Vec<String>,
    gradient_booster: BoosterFile,
    #[serde(rename = "learner_model_param")]
    model_param: ModelParam,
    objective: Objective,
}

#[derive(Deserialize)]
struct Objective {
    name: String,
}

/// XGBoost writes these numbers as strings; `base_score` is a list in brackets since 3.1.
#[derive(Deserialize)]
struct ModelParam {
    base_score: String,
    num_feature: String,
    #[serde(default)]
    num_class: Option<String>,
    #[serde(default)]
    num_target: Option<String>,
}

impl Learner {
    fn features(&self) -> Result<usize> {
        let text = &self.model_param.num_feature;
        match text.parse() {
            Ok(features) if features <= MAX_FEATURES => Ok(features),
            Ok(features) => {
                Err(Error::invalid(format!("it has {features} features; at most {MAX_FEATURES} are supported")))
            }
            Err(_) => Err(damaged(format!("num_feature is {text:?}"))),
        }
    }

    fn names(self, features: usize) -> Result<Vec<String>> {
        match self.feature_names.len() {
            0 => Ok((0..features).map(|feature| format!("f{feature}")).collect()),
            names if names == features => Ok(self.feature_names),
            names => Err(damaged(format!("{names} feature names for {features} features"))),
        }
    }

    /// The intercept, as a prediction.
    fn base_score(&self) -> Result<f32> {
        let many = |count: &Option<String>| count.as_deref().is_some_and(|count| count != "0" && count != "1");
        let text = &self.model_param.base_score;
        if many(&self.model_param.num_class) || many(&self.model_param.num_target) || text.contains(',') {
            return Err(Error::invalid(
                "it predicts several classes or targets, which is not supported; train one model for each",
            ));
        }
        let number = text.trim().trim_start_matches('[').trim_end_matches(']');
        number.parse().map_err(|_| damaged(format!("base_score is {text:?}")))
    }
}

/// All kinds of booster at once: `gbtree` and `gblinear` have `model`, `dart` has a `gbtree` and each tree's weight.
#[derive(Deserialize)]
struct BoosterFile {
    name: String,
    model: Option<BoosterModel>,
    gbtree: Option<InnerBooster>,
    weight_drop: Option<Vec<f32>>,
}

#[derive(Deserialize)]
struct InnerBooster {
    model: BoosterModel,
}

#[derive(Deserialize)]
struct BoosterModel {
    trees: Option<Vec<TreeFile>>,
    #[serde(default)]
    tree_info: Vec<i64>,
    weights: Option<Vec<f32>>,
}

#[derive(Deserialize)]
struct TreeFile {
    left_children: Vec<i32>,
    right_children: Vec<i32>,
    split_indices: Vec<u32>,
    split_conditions: Vec<f32>,
    default_left: Vec<Flag>,
    #[serde(default)]
    split_type: Vec<u8>,
    tree_param: Option<TreeParam>,
}

#[derive(Deserialize)]
struct TreeParam {
    size_leaf_vector: Option<String>,
}

impl BoosterFile {
    fn build(&self, features: usize) -> Result<Booster> {
        let inner = self.gbtree.as_ref().map(|inner| &inner.model);
        let missing = || damaged(format!("booster {} has no model", self.name));
        match self.name.as_str() {
            "gbtree" => Ok(Booster::Trees(self.model.as_ref().ok_or_else(missing)?.forest(features, None)?)),
            "dart" => {
                let weights = self.weight_drop.as_deref().ok_or_else(missing)?;
                Ok(Booster::Trees(inner.ok_or_else(missing)?.forest(features, Some(weights))?))
            }
            "gblinear" => Ok(Booster::Linear(self.model.as_ref().ok_or_else(missing)?.linear(features)?)),
            other => Err(Error::invalid(format!("booster {other} is unknown; train with gbtree, dart or gblinear"))),
        }
    }
}

impl BoosterModel {
    fn forest(&self, features: usize, weights: Option<&[f32]>) -> Result<Forest> {
        let trees = self.trees.as_deref().ok_or_else(|| damaged("the booster has no trees"))?;
        if weights.is_some_and(|weights| weights.len() != trees.len() || weights.iter().any(|w| !w.is_finite())) {
            return Err(damaged(format!("the weights do not fit the {} trees", trees.len())));
        }
        if self.tree_info.iter().any(|&group| group != 0) {
            return Err(damaged("it has trees of several classes and says that it has one"));
        }
        let mut forest = Forest::new(features);
        for (index, tree) in trees.iter().enumerate() {
            let weight = weights.map_or(1.0, |weights| weights[index]);
            tree.plant(&mut forest, weight).map_err(|error| error.within(format_args!("tree {index}")))?;
        }
        Ok(forest)
    }

    fn linear(&self, features: usize) -> Result<Linear> {
        match self.weights.as_deref() {
            Some([weights @ .., bias]) if weights.len() == features => {
                if weights.iter().chain([bias]).any(|weight| !weight.is_finite()) {
                    return Err(damaged("a weight is not finite"));
                }
                Ok(Linear { weights: weights.to_vec(), bias: *bias })
            }
            Some(weights) => Err(damaged(format!("{} weights for {features} features and a bias", weights.len()))),
            None => Err(damaged("the linear booster has no weights")),
        }
    }
}

impl TreeFile {
    fn plant(&self, forest: &mut Forest, weight: f32) -> Result<()> {
        if self.split_type.iter().any(|&kind| kind != 0) {
            return Err(Error::invalid(
                "it splits on a categorical feature, which is not supported; encode the categories as numbers",
            ));
        }
        let vector = self.tree_param.as_ref().and_then(|param| param.size_leaf_vector.as_deref());
        if vector.is_some_and(|size| size != "0" && size != "1") {
            return Err(Error::invalid("its leaves hold vectors, which is not supported; train one model a target"));
        }
        let default_left: Vec<bool> = self.default_left.iter().map(|flag| flag.0).collect();
        let arrays = TreeArrays {
            left: &self.left_children,
            right: &self.right_children,
            feature: &self.split_indices,
            condition: &self.split_conditions,
            default_left: &default_left,
        };
        forest.push(arrays, weight).map_err(|error| damaged(error.message()))
    }
}

/// XGBoost 1.x writes `true` and `false`, later ones 1 and 0.
struct Flag(bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FlagVisitor;

        impl Visitor<'_> for FlagVisitor {
            type Value = Flag;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("true, false, 0 or 1")
            }

            fn visit_bool<E>(self, flag: bool) -> Result<Flag, E> {
                Ok(Flag(flag))
            }

            fn visit_u64<E: serde::de::Error>(self, flag: u64) -> Result<Flag, E> {
                match flag {
                    0 | 1 => Ok(Flag(flag == 1)),
                    other => Err(E::invalid_value(Unexpected::Unsigned(other), &self)),
                }
            }
        }

        deserializer.deserialize_any(FlagVisitor).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::path::PathBuf;

    fn root() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR"))
    }

    fn model(path: &str) -> XgboostModel {
        parse(&std::fs::read(root().join(path)).unwrap(), String::new()).unwrap()
    }

    fn fault_of(bytes: &[u8]) -> String {
        let error = parse(bytes, String::new()).unwrap_err();
        assert_eq!(error.kind(), crate::error::ErrorKind::Invalid);
        error.to_string()
    }

    /// The CSV's columns; the last one is what the training library predicts. An empty cell is a missing value.
    fn golden(path: &str) -> (Vec<String>, Vec<Vec<f64>>) {
        let text = std::fs::read_to_string(root().join(path)).unwrap();
        let mut lines = text.lines();
        let names: Vec<String> = lines.next().unwrap().split(',').map(str::to_owned).collect();
        let mut columns = vec![Vec::new(); names.len()];
        for line in lines {
            for (cell, column) in line.split(',').zip(&mut columns) {
                column.push(if cell.is_empty() { f64::NAN } else { cell.parse().unwrap() });
            }
        }
        (names, columns)
    }

    fn assert_golden(model_path: &str, golden_path: &str, rows: usize) {
        let model = model(model_path);
        let (names, mut columns) = golden(golden_path);
        let expected = columns.pop().unwrap();
        assert_eq!(model.feature_names(), &names[..names.len() - 1], "{model_path}");
        assert_eq!(expected.len(), rows, "{golden_path}");
        let columns: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
        let mut out = vec![0.0; expected.len()];
        model.predict(&columns, &mut out).unwrap();
        for (row, (out, expected)) in out.iter().zip(&expected).enumerate() {
            // Without a link the prediction is the sum itself, which is the library's to the bit.
            let same = match model.link {
                Link::Identity => *out as f32 == *expected as f32,
                _ => (out - expected).abs() <= 1e-6 * expected.abs().max(1.0),
            };
            assert!(same, "{model_path} row {row}: {out}, the library says {expected}");
        }
    }

    #[test]
    fn the_shipped_models_predict_as_the_library_does() {
        assert_golden("queries/data/click_probability.json", "tests/data/click_probability.csv", 500);
        assert_golden("queries/data/click_probability_linear.json", "tests/data/click_probability_linear.csv", 300);
    }

    #[test]
    fn every_kind_of_model_predicts_as_the_library_does() {
        for kind in [
            "dart",
            "linear_regression",
            "logitraw",
            "lopsided",
            "poisson",
            "random_forest",
            "reg_logistic",
            "squarederror",
            "stump",
        ] {
            assert_golden(&format!("tests/data/xgboost/{kind}.json"), &format!("tests/data/xgboost/{kind}.csv"), 108);
        }
    }

    #[test]
    fn rows_do_not_depend_on_their_batch() {
        let model = model("queries/data/click_probability.json");
        let columns: Vec<Vec<f64>> =
            (1..4).map(|f| (0..2500).map(|row| f64::from((row * 37 * f) % 101) / 40.0).collect()).collect();
        let whole: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
        let mut expected = vec![0.0; 2500];
        model.predict(&whole, &mut expected).unwrap();
        for (from, to) in [(0, 1), (0, 2500), (1, 66), (1000, 2049), (2499, 2500), (7, 7)] {
            let part: Vec<&[f64]> = columns.iter().map(|column| &column[from..to]).collect();
            let mut out = vec![0.0; to - from];
            model.predict(&part, &mut out).unwrap();
            assert_eq!(out, expected[from..to], "{from}..{to}");
        }
    }

    #[test]
    fn a_wrong_shape_is_an_error() {
        let model = model("queries/data/click_probability.json");
        assert!(model.predict(&[&[1.0], &[1.0]], &mut [0.0]).is_err());
        assert!(model.predict(&[&[1.0], &[1.0], &[1.0, 2.0]], &mut [0.0]).is_err());
    }

    #[test]
    fn kinds_that_are_not_supported_name_the_way_out() {
        let refused =
            |name: &str| fault_of(&std::fs::read(root().join("tests/data/xgboost/refused").join(name)).unwrap());
        assert_eq!(refused("binary.ubj"), "it is in XGBoost's binary form (UBJSON); save the model as .json");
        assert_eq!(
            refused("categorical.json"),
            "tree 0: it splits on a categorical feature, which is not supported; encode the categories as numbers"
        );
        assert!(refused("multiclass.json").contains("objective multi:softprob is not supported"));
    }

    /// A model of one split that predicts 1 or 2.
    fn tiny() -> Value {
        json!({"learner": {
            "gradient_booster": {"name": "gbtree", "model": {"tree_info": [0], "trees": [{
                "left_children": [1, -1, -1], "right_children": [2, -1, -1], "split_indices": [0, 0, 0],
                "split_conditions": [0.5, 1.0, 2.0], "default_left": [1, 0, 0]}]}},
            "learner_model_param": {"base_score": "0E0", "num_class": "0", "num_feature": "1"},
            "objective": {"name": "reg:squarederror"}}})
    }

    fn with(pointer: &str, value: Value) -> Value {
        let mut file = tiny();
        *file.pointer_mut(pointer).unwrap() = value;
        file
    }

    const TREE: &str = "/learner/gradient_booster/model/trees/0";

    #[test]
    fn older_files_load_too() {
        let booleans = with(&format!("{TREE}/default_left"), json!([true, false, false]));
        for file in [tiny(), booleans] {
            let model = parse(file.to_string().as_bytes(), String::new()).unwrap();
            assert_eq!(model.feature_names(), ["f0"]);
            let mut out = [0.0; 3];
            model.predict(&[&[0.0, 0.5, f64::NAN]], &mut out).unwrap();
            assert_eq!(out, [1.0, 2.0, 1.0]);
        }
    }

    #[test]
    fn hostile_files_are_refused() {
        let tree = |field: &str, value: Value| with(&format!("{TREE}/{field}"), value);
        let param = |field: &str, value: Value| with(&format!("/learner/learner_model_param/{field}"), value);
        let cases = [
            (tree("left_children", json!([0, -1, -1])), "damaged: node 0 has two parents"),
            (tree("left_children", json!([99, -1, -1])), "damaged: node 0 has child 99 of 3 nodes"),
            (tree("left_children", json!([i64::MAX, -1, -1])), "is no XGBoost model in JSON"),
            (tree("left_children", json!([])), "damaged: its arrays have lengths"),
            (tree("right_children", json!([2])), "damaged: its arrays have lengths"),
            (tree("split_indices", json!([4_000_000_000_u32, 0, 0])), "splits on feature 4000000000, the model has 1"),
            (tree("split_conditions", json!([1e300, 0, 0])), "number out of range"),
            (tree("default_left", json!([2, 0, 0])), "expected true, false, 0 or 1"),
            (param("num_feature", json!("-1")), "damaged: num_feature is \"-1\""),
            (param("num_feature", json!("99999999999")), "at most 65536 are supported"),
            (param("base_score", json!("[0.1,0.2]")), "several classes or targets"),
            (param("num_class", json!("3")), "several classes or targets"),
            (param("base_score", json!("many")), "damaged: base_score is \"many\""),
            (with("/learner/objective/name", json!("binary:logistic")), "base_score 0E0 is not possible"),
            (with("/learner/gradient_booster/name", json!("forest")), "booster forest is unknown"),
            (with("/learner/gradient_booster/name", json!("dart")), "booster dart has no model"),
            (with("/learner/gradient_booster/name", json!("gblinear")), "has no weights"),
            (with("/learner/gradient_booster/model/tree_info", json!([1])), "trees of several classes"),
            (json!({}), "missing field `learner`"),
        ];
        for (file, expected) in cases {
            let fault = fault_of(file.to_string().as_bytes());
            assert!(fault.contains(expected), "{fault}\nshould say: {expected}");
        }
    }

    #[test]
    fn a_file_that_is_cut_off_anywhere_is_refused() {
        let whole = tiny().to_string();
        for end in 0..whole.len() {
            parse(&whole.as_bytes()[..end], String::new()).unwrap_err();
        }
        assert!(fault_of(b"").contains("it is no XGBoost model in JSON"));
        let deep = format!("{{\"learner\":{}", "[".repeat(100_000));
        assert!(fault_of(deep.as_bytes()).contains("it is no XGBoost model in JSON"));
    }
}
