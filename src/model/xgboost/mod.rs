//! XGBoost models as XGBoost 1.0 to 3.x save them: JSON (`model.json`) and UBJSON (`model.ubj`).
//!
//! Format: <https://xgboost.readthedocs.io/en/stable/tutorials/saving_model.html>. Predictions are those of XGBoost's
//! CPU predictor: features, thresholds and sums are f32, a sum begins with the intercept and goes through the trees in
//! their order. Where training stopped early, the trees after the best round do not count. A file may be cut off or
//! hostile: everything in it is checked before the first row is scored.

mod file;
mod objective;
mod ubjson;

use std::borrow::Cow;

use self::file::{BoosterFile, BoosterModel, ModelFile};
use self::objective::{Link, Objective, logistic, softmax};
use super::codes::Codes;
use super::forest::Forest;
use super::linear::Linear;
use super::{About, Column, Model, Output, Scores, biggest};
use crate::error::{Error, Result};

/// Rows whose f32 sums are kept before they become f64 predictions.
const CHUNK_ROWS: usize = 1024;

/// A model that XGBoost has trained.
#[derive(Debug)]
pub(super) struct XgboostModel {
    about: About,
    /// The sums that every row starts with.
    base: Vec<f32>,
    booster: Booster,
    link: Link,
    /// How the values of each feature become codes; `None` where they are compared as they are.
    codes: Vec<Option<Codes>>,
}

#[derive(Debug)]
enum Booster {
    Trees(Forest<f32>),
    Linear(Linear),
}

impl Model for XgboostModel {
    fn about(&self) -> &About {
        &self.about
    }

    fn score(&self, columns: &[Column<'_>], rows: usize) -> Result<Scores> {
        self.about.check(columns, rows)?;
        let groups = self.base.len();
        let width = self.about.output.width();
        let mut scores =
            Scores { predictions: Vec::with_capacity(rows), values: Vec::with_capacity(rows.saturating_mul(width)) };
        let mut sums = vec![0.0; CHUNK_ROWS.min(rows) * groups];
        let mut chunk: Vec<&[f64]> = Vec::with_capacity(columns.len());
        let coded = columns.iter().zip(&self.codes).map(|(column, codes)| match codes {
            Some(codes) => Cow::Owned(codes.of_column(column)),
            None => Cow::Borrowed(column.numbers()),
        });
        let columns: Vec<Cow<'_, [f64]>> = coded.collect();
        for first in (0..rows).step_by(CHUNK_ROWS) {
            let count = CHUNK_ROWS.min(rows - first);
            chunk.clear();
            chunk.extend(columns.iter().map(|column| &column[first..first + count]));
            let sums = &mut sums[..count * groups];
            match self.base[..] {
                [base] => sums.fill(base),
                _ => sums.chunks_exact_mut(groups).for_each(|row| row.copy_from_slice(&self.base)),
            }
            match &self.booster {
                Booster::Trees(forest) => forest.add(&chunk, sums),
                Booster::Linear(linear) => linear.add(&chunk, sums),
            }
            self.tell(sums, &mut scores);
        }
        Ok(scores)
    }
}

impl XgboostModel {
    /// Makes predictions of sums.
    fn tell(&self, sums: &mut [f32], scores: &mut Scores) {
        let is_binary = matches!(self.about.output, Output::Classes { .. });
        let groups = self.base.len();
        match self.link {
            Link::Softmax => {
                for row in sums.chunks_exact_mut(groups) {
                    softmax(row);
                    let first = scores.values.len();
                    scores.values.extend(row.iter().map(|value| f64::from(*value)));
                    scores.predictions.push(biggest(&scores.values[first..]) as f64);
                }
            }
            Link::Logistic if is_binary => {
                for sum in sums.iter() {
                    let score = logistic(*sum);
                    scores.values.extend([f64::from(1.0 - score), f64::from(score)]);
                    scores.predictions.push(f64::from(u8::from(score > 0.5)));
                }
            }
            link => {
                let number = |sum: &f32| f64::from(prediction(link, *sum));
                scores.predictions.extend(sums.iter().step_by(groups).map(number));
                if groups > 1 {
                    scores.values.extend(sums.iter().map(number));
                }
            }
        }
    }
}

/// The prediction of one sum.
fn prediction(link: Link, sum: f32) -> f32 {
    match link {
        Link::Identity | Link::Softmax => sum,
        Link::Logistic => logistic(sum),
        Link::Exponential => sum.exp(),
        Link::Hinge => f32::from(u8::from(sum > 0.0)),
    }
}

/// Reads a model from the bytes of its file.
///
/// # Errors
/// `Invalid` when the bytes are no XGBoost model, are damaged, or say something that is not supported.
pub(super) fn parse(bytes: &[u8], sha256: String) -> Result<XgboostModel> {
    let file = read(bytes)?;
    let learner = file.learner;
    let objective = Objective::of(&learner.objective.name)?;
    let (features, groups) = (learner.features()?, learner.groups()?);
    let mut base = learner.base_scores(groups)?;
    base.iter_mut().for_each(|score| *score = (objective.to_margin)(*score));
    if base.iter().any(|base| !base.is_finite()) {
        return Err(damaged(format!("base_score {} is not possible", learner.model_param.base_score)));
    }
    if learner.gradient_booster.name == "gblinear" {
        // It adds the first one to all sums (`GBLinear::Pred`).
        base = vec![base[0]; groups];
    }
    let output = match objective.link {
        Link::Softmax => classes(groups, true),
        link if objective.is_binary && groups == 1 => classes(2, link == Link::Logistic),
        _ if groups == 1 => Output::Number,
        _ => Output::Numbers(groups),
    };
    let codes = learner.codes(features)?;
    let mut named = learner.named(features)?;
    for (feature, codes) in named.iter_mut().zip(&codes) {
        feature.is_text = codes.as_ref().is_some_and(Codes::are_texts);
    }
    let booster = learner.gradient_booster.build(features, groups, learner.best_iteration()?)?;
    let trees = match &booster {
        Booster::Trees(forest) => forest.trees(),
        Booster::Linear(_) => 0,
    };
    let version: Vec<String> = file.version.iter().map(u32::to_string).collect();
    let about = About {
        sha256,
        kind: format!("XGBoost {} {}", version.join("."), learner.gradient_booster.name).replace("  ", " "),
        objective: learner.objective.name.clone(),
        trees,
        features: named,
        output,
    };
    Ok(XgboostModel { about, base, booster, link: objective.link, codes })
}

fn read(bytes: &[u8]) -> Result<ModelFile> {
    if bytes.starts_with(b"binf") {
        return Err(Error::invalid("it is in XGBoost's old binary form; save the model as .json or .ubj"));
    }
    let no_model = |form: &str, error: &dyn std::fmt::Display| {
        Error::invalid(format!("it is no XGBoost model in {form}: {error}; save the model again as .json or .ubj"))
    };
    match bytes {
        // UBJSON puts the kind of the first name's length where JSON has a quotation mark or a space.
        [b'{', kind, ..] if kind.is_ascii_alphabetic() || *kind == b'$' || *kind == b'#' => {
            ubjson::from_slice(bytes).map_err(|error| no_model("UBJSON", &error))
        }
        _ => serde_json::from_slice(&without_nan(bytes)).map_err(|error| no_model("JSON", &error)),
    }
}

/// The bytes with `null` for what XGBoost 1 and 2 write for a number that is none, and JSON does not know.
fn without_nan(bytes: &[u8]) -> Cow<'_, [u8]> {
    const NAN: &[u8] = b"NaN";
    if !bytes.windows(NAN.len()).any(|window| window == NAN) {
        return Cow::Borrowed(bytes);
    }
    let mut mended = Vec::with_capacity(bytes.len() + bytes.len() / 8);
    let (mut in_text, mut left) = (false, bytes);
    while let Some((&byte, rest)) = left.split_first() {
        match (in_text, byte) {
            (true, b'\\') => {
                mended.extend_from_slice(&left[..left.len().min(2)]);
                left = &left[left.len().min(2)..];
            }
            (false, b'N') if left.starts_with(NAN) => {
                mended.extend_from_slice(b"null");
                left = &left[NAN.len()..];
            }
            _ => {
                in_text ^= byte == b'"';
                mended.push(byte);
                left = rest;
            }
        }
    }
    mended.into()
}

fn classes(count: usize, has_probabilities: bool) -> Output {
    Output::Classes { labels: (0..count).map(|class| class.to_string()).collect(), has_probabilities }
}

fn damaged(what: impl std::fmt::Display) -> Error {
    Error::invalid(format!("it is damaged: {what}; save the model again"))
}

impl BoosterFile {
    fn build(&self, features: usize, groups: usize, best: Option<usize>) -> Result<Booster> {
        let inner = self.gbtree.as_ref().map(|inner| &inner.model);
        let missing = || damaged(format!("booster {} has no model", self.name));
        let own = || self.model.as_ref().ok_or_else(missing);
        match self.name.as_str() {
            "gbtree" => Ok(Booster::Trees(own()?.forest(features, groups, best, None)?)),
            "dart" => {
                let weights = self.weight_drop.as_deref().ok_or_else(missing)?;
                Ok(Booster::Trees(inner.ok_or_else(missing)?.forest(features, groups, best, Some(weights))?))
            }
            "gblinear" => Ok(Booster::Linear(own()?.linear(features, groups)?)),
            other => Err(Error::invalid(format!("booster {other} is unknown; train with gbtree, dart or gblinear"))),
        }
    }
}

impl BoosterModel {
    fn forest(
        &self,
        features: usize,
        groups: usize,
        best: Option<usize>,
        weights: Option<&[f32]>,
    ) -> Result<Forest<f32>> {
        let trees = self.trees.as_deref().ok_or_else(|| damaged("the booster has no trees"))?;
        if weights.is_some_and(|weights| weights.len() != trees.len() || weights.iter().any(|w| !w.is_finite())) {
            return Err(damaged(format!("the weights do not fit the {} trees", trees.len())));
        }
        let used = match best {
            None => trees.len(),
            Some(best) => {
                let until = self.trees_until(best, groups).filter(|used| *used <= trees.len());
                until.ok_or_else(|| damaged(format!("it has no round {best}, which it says is the best")))?
            }
        };
        let mut forest = Forest::new(features, groups);
        for (index, tree) in trees[..used].iter().enumerate() {
            let weight = weights.map_or(1.0, |weights| weights[index]);
            let group = self.tree_info.get(index).copied().unwrap_or(0);
            let group = usize::try_from(group).ok().filter(|group| *group < groups);
            let group = group.ok_or_else(|| damaged(format!("tree {index} is of no class")))?;
            let planted = tree
                .branches(groups)
                .and_then(|branches| forest.push(&branches, group, weight).map_err(|error| damaged(error.message())));
            planted.map_err(|error| error.within(format_args!("tree {index}")))?;
        }
        Ok(forest)
    }

    fn linear(&self, features: usize, groups: usize) -> Result<Linear> {
        let weights = self.weights.as_deref().ok_or_else(|| damaged("the linear booster has no weights"))?;
        if weights.len() != (features + 1) * groups {
            return Err(damaged(format!("{} weights for {features} features and a bias", weights.len())));
        }
        if weights.iter().any(|weight| !weight.is_finite()) {
            return Err(damaged("a weight is not finite"));
        }
        let (weights, bias) = weights.split_at(features * groups);
        Ok(Linear { weights: weights.to_vec(), bias: bias.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Feature;
    use crate::model::damage::{self, Chance};
    use serde_json::{Value, json};
    use std::path::PathBuf;

    fn root() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR"))
    }

    fn model(path: &str) -> XgboostModel {
        parse(&std::fs::read(root().join(path)).unwrap(), String::new()).unwrap()
    }

    /// The probability of the second class, or the number.
    fn scored(model: &XgboostModel, columns: &[&[f64]], rows: usize) -> Vec<f64> {
        let columns: Vec<_> = columns.iter().map(|column| Column::Numbers(column)).collect();
        let scores = model.score(&columns, rows).unwrap();
        match scores.values.is_empty() {
            true => scores.predictions,
            false => scores.values.into_iter().skip(1).step_by(2).collect(),
        }
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
        let features: Vec<&str> = model.about.features.iter().map(|feature| feature.name.as_str()).collect();
        assert_eq!(features, &names[..names.len() - 1], "{model_path}");
        assert_eq!(expected.len(), rows, "{golden_path}");
        let columns: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
        let out = scored(&model, &columns, rows);
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
        let expected = scored(&model, &whole, 2500);
        for (from, to) in [(0, 1), (0, 2500), (1, 66), (1000, 2049), (2499, 2500), (7, 7)] {
            let part: Vec<&[f64]> = columns.iter().map(|column| &column[from..to]).collect();
            assert_eq!(scored(&model, &part, to - from), expected[from..to], "{from}..{to}");
        }
    }

    #[test]
    fn a_wrong_shape_is_an_error() {
        let model = model("queries/data/click_probability.json");
        let column = Column::Numbers(&[1.0]);
        assert!(model.score(&[column, column], 1).is_err());
        assert!(model.score(&[column, column, Column::Numbers(&[1.0, 2.0])], 1).is_err());
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
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let parent = file.pointer_mut(parent).unwrap();
        match parent.as_array_mut() {
            Some(list) => list[name.parse::<usize>().unwrap()] = value,
            None => parent[name] = value,
        }
        file
    }

    const TREE: &str = "/learner/gradient_booster/model/trees/0";

    #[test]
    fn older_files_load_too() {
        let booleans = with(&format!("{TREE}/default_left"), json!([true, false, false]));
        for file in [tiny(), booleans] {
            let model = parse(file.to_string().as_bytes(), String::new()).unwrap();
            assert_eq!(model.about.features, Feature::unnamed(1));
            assert_eq!(scored(&model, &[&[0.0, 0.5, f64::NAN]], 3), [1.0, 2.0, 1.0]);
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
            (tree("split_conditions", json!([1e300, 0, 0])), "node 0 has a number that is not finite"),
            (tree("default_left", json!([2, 0, 0])), "expected true, false, 0 or 1"),
            (param("num_feature", json!("-1")), "damaged: num_feature is \"-1\""),
            (param("num_feature", json!("99999999999")), "at most 65536 are supported"),
            (param("base_score", json!("[0.1,0.2]")), "damaged: base_score is \"[0.1,0.2]\", and a row has 1 sums"),
            (param("num_class", json!("99999999999")), "it gives 99999999999 numbers"),
            (param("num_class", json!("-3")), "damaged: num_class is \"-3\""),
            (param("base_score", json!("many")), "damaged: base_score is \"many\""),
            (tree("split_type", json!([1, 0, 0])), "damaged: node 0 has no categories"),
            (tree("split_type", json!([1])), "damaged: 1 kinds of split for 3 nodes"),
            (tree("split_type", json!([7, 0, 0])), "a split of the unknown kind 7"),
            (with("/learner/objective/name", json!("binary:logistic")), "base_score 0E0 is not possible"),
            (with("/learner/gradient_booster/name", json!("forest")), "booster forest is unknown"),
            (with("/learner/gradient_booster/name", json!("dart")), "booster dart has no model"),
            (with("/learner/gradient_booster/name", json!("gblinear")), "has no weights"),
            (with("/learner/gradient_booster/model/tree_info", json!([1])), "tree 0 is of no class"),
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

    #[test]
    fn files_with_wrong_bytes_are_refused_or_score() {
        let mut chance = Chance::new(7);
        for path in ["binary_logistic/model.json", "binary_logistic_ubj/model.ubj", "strings_binary_ubj/model.ubj"] {
            let whole = std::fs::read(root().join("tests/models/xgboost").join(path)).unwrap();
            parse(&whole, String::new()).unwrap();
            for _ in 0..300 {
                let mut bytes = whole.clone();
                for _ in 0..=chance.below(3) {
                    let at = chance.below(bytes.len());
                    bytes[at] = chance.below(256) as u8;
                }
                bytes.truncate(bytes.len() - chance.below(2) * chance.below(whole.len()));
                damage::survives(parse(&bytes, String::new()));
            }
        }
    }
}
