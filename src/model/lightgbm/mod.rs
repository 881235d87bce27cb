//! LightGBM models, from the text that `Booster.save_model` writes (versions v3 and v4: LightGBM 2.3 and later).
//!
//! The file has a header of `key=value` lines, one block of them for each tree, the parameters of the training, and as
//! its last line what Python knows of the columns that were pandas categories. Everything is added up in 64-bit floats,
//! tree by tree, as `GBDT::PredictRaw` does.

mod categories;
mod objective;
mod tree;

use std::borrow::Cow;
use std::fmt::Display;
use std::iter::Peekable;
use std::str::{FromStr, Lines};

use super::Model;
use super::about::{About, Column, Feature, Scores};
use super::codes::Codes;
use super::forest::{Branch, Forest};
use crate::error::{Error, Result};

use objective::Objective;
use tree::{LinearLeaf, TreeText};

/// What to do about a file that is damaged.
const AGAIN: &str = "save the model again with Booster.save_model";

/// `kZeroThreshold`: a `float` that is compared with doubles.
const ZERO: f64 = 1e-35_f32 as f64;

/// The words after `boosting` that LightGBM has.
const BOOSTINGS: [&str; 4] = ["gbdt", "dart", "goss", "rf"];

/// A model of LightGBM.
#[derive(Debug)]
pub(super) struct LightGbm {
    about: About,
    objective: Objective,
    /// How many sums a row has: one, or one for each class.
    groups: usize,
    /// By how much the sums are divided: the iterations of a random forest, else 1.
    divisor: f64,
    pieces: Vec<Piece>,
    /// Whether a node lets all numbers pass, +∞ too.
    has_infinite_threshold: bool,
    /// Which features were pandas categories, and their numbers.
    codes: Vec<(usize, Codes)>,
}

/// Trees that are added up one after the other.
#[derive(Debug)]
enum Piece {
    /// Trees with a number in each leaf.
    Constant(Forest<f64>),
    /// A tree with a linear model in each leaf. Its forest gives the number of the leaf.
    Linear { forest: Forest<f64>, leaves: Vec<LinearLeaf>, group: usize },
}

/// The lines before the first tree.
#[derive(Debug, Default)]
struct Header<'a> {
    version: &'a str,
    groups: usize,
    objective: Option<&'a str>,
    names: Vec<&'a str>,
    /// For each feature the range of its numbers, its categories, or `none`.
    infos: Vec<&'a str>,
    averages: bool,
    /// How many trees there are, where the file says it.
    trees: Option<usize>,
}

/// The trees of a file.
#[derive(Debug, Default)]
struct Trees {
    features: usize,
    groups: usize,
    pieces: Vec<Piece>,
    count: usize,
    /// Whether a node lets all numbers pass, +∞ too.
    has_infinite_threshold: bool,
}

/// What is of use in the lines after the last tree.
#[derive(Debug, Default)]
struct Footer<'a> {
    boosting: Option<&'a str>,
    /// The indices of the features that were trained as categories.
    categorical: Option<&'a str>,
    /// The categories of pandas, in JSON.
    pandas: Option<&'a str>,
}

/// Reads a model.
///
/// # Errors
/// `Invalid` when the file is no text model of LightGBM, is damaged or has what is not supported; the message says
/// what and what to do.
pub(super) fn parse(bytes: &[u8], sha256: String) -> Result<LightGbm> {
    let mut lines = opened(bytes)?.lines().peekable();
    let header = Header::parse(&mut lines)?;
    let Trees { pieces, count: trees, has_infinite_threshold, .. } = read_trees(&mut lines, &header)?;
    let footer = Footer::parse(lines)?;
    let objective = Objective::parse(header.objective, header.groups)?;
    let codes = match footer.pandas {
        Some(json) => categories::parse(json, &header.infos, footer.categorical)?,
        None => Vec::new(),
    };
    let mut features: Vec<Feature> = header.names.iter().map(|name| Feature::number(*name)).collect();
    for (feature, codes) in &codes {
        features[*feature].is_text = codes.are_texts();
    }
    let boosting = BOOSTINGS.iter().find(|word| footer.boosting == Some(**word));
    let boosting = boosting.unwrap_or(if header.averages { &"rf" } else { &"gbdt" });
    let about = About {
        sha256,
        kind: format!("LightGBM {} {boosting}", header.version),
        objective: objective::name(header.objective).to_owned(),
        trees,
        features,
        output: objective.output(header.groups),
    };
    let iterations = trees / header.groups;
    let divisor = if header.averages { iterations as f64 } else { 1.0 };
    Ok(LightGbm { about, objective, groups: header.groups, divisor, pieces, has_infinite_threshold, codes })
}

/// The text of a file that starts as a model does.
fn opened(bytes: &[u8]) -> Result<&str> {
    let start = bytes.trim_ascii_start();
    if start.starts_with(b"{") {
        return Err(Error::invalid("it is JSON, of dump_model perhaps; save the model with Booster.save_model"));
    }
    if start.split(|byte| *byte == b'\n').next().map(<[u8]>::trim_ascii_end) != Some(b"tree") {
        return Err(Error::invalid(
            "it does not start with the line `tree`, as a text model of LightGBM does; save the model with \
             Booster.save_model",
        ));
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        Error::invalid(format!("byte {at} is no UTF-8; rename the features, or {AGAIN}"))
    })
}

impl<'a> Header<'a> {
    /// Leaves `lines` at the line that starts the first tree.
    fn parse(lines: &mut Peekable<Lines<'a>>) -> Result<Self> {
        let mut header = Self::default();
        let (mut classes, mut groups, mut last) = (None, None, None);
        while let Some(line) = lines.next_if(|line| !starts_trees(line)) {
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            match key {
                "" | "tree" | "label_index" | "monotone_constraints" => {}
                "version" => header.version = value,
                "num_class" => classes = Some(number::<usize>(key, value)?),
                "num_tree_per_iteration" => groups = Some(number::<usize>(key, value)?),
                "max_feature_idx" => last = Some(number::<usize>(key, value)?),
                "objective" => header.objective = Some(value),
                "average_output" => header.averages = true,
                "feature_names" => header.names = value.split_ascii_whitespace().collect(),
                "feature_infos" => header.infos = value.split_ascii_whitespace().collect(),
                "tree_sizes" => header.trees = Some(value.split_ascii_whitespace().count()),
                _ => return Err(unknown("the header", line)),
            }
        }
        if !matches!(header.version, "v3" | "v4") {
            return Err(Error::invalid(format!(
                "its version is {:?}, supported are v3 and v4; save the model with LightGBM 2.3 to 4",
                shortened(header.version)
            )));
        }
        let classes = classes.ok_or_else(|| absent("num_class"))?;
        header.groups = groups.unwrap_or(classes);
        if classes != header.groups || classes == 0 {
            let groups = header.groups;
            return Err(damaged(format_args!("it has {classes} classes and {groups} trees for each iteration")));
        }
        let last = last.ok_or_else(|| absent("max_feature_idx"))?;
        for (key, found) in [("feature_names", header.names.len()), ("feature_infos", header.infos.len())] {
            if found.checked_sub(1) != Some(last) {
                return Err(damaged(format_args!("{key} has {found} words, and max_feature_idx is {last}")));
            }
        }
        Ok(header)
    }
}

fn starts_trees(line: &str) -> bool {
    line.starts_with("Tree=") || line == "end of trees"
}

/// Reads the trees. Leaves `lines` after the line that ends them.
fn read_trees<'a>(lines: &mut Peekable<Lines<'a>>, header: &Header<'a>) -> Result<Trees> {
    let (features, groups) = (header.names.len(), header.groups);
    let mut trees = Trees { features, groups, ..Trees::default() };
    // One buffer for all trees.
    let mut branches = Vec::new();
    loop {
        match lines.next() {
            Some("") => continue,
            Some("end of trees") => break,
            Some(line) if line.starts_with("Tree=") => {}
            Some(line) => return Err(unknown("what should be trees", line)),
            None => return Err(damaged("it ends before the line `end of trees`")),
        }
        TreeText::parse(lines)
            .and_then(|tree| trees.add(&tree, &mut branches))
            .map_err(|error| error.within(format_args!("tree {}", trees.count)))?;
    }
    let count = trees.count;
    if let Some(expected) = header.trees
        && expected != count
    {
        return Err(damaged(format_args!("it has {count} trees, and tree_sizes has {expected}")));
    }
    if count == 0 || !count.is_multiple_of(groups) {
        return Err(damaged(format_args!("it has {count} trees for {groups} sums")));
    }
    Ok(trees)
}

impl Trees {
    /// Adds a tree to the last piece, or as a piece of its own.
    fn add(&mut self, tree: &TreeText<'_>, branches: &mut Vec<Branch<f64>>) -> Result<()> {
        let group = self.count % self.groups;
        tree.branches(branches)?;
        self.has_infinite_threshold |= branches.iter().any(tree::has_infinite_threshold);
        let push = |forest: &mut Forest<f64>, branches: &[Branch<f64>], group| {
            forest.push(branches, group, 1.0).map_err(|error| damaged(error.message()))
        };
        if let Some(leaves) = tree.linear_leaves(branches, self.features)? {
            tree::number_leaves(branches);
            let mut forest = Forest::new(self.features, 1);
            push(&mut forest, branches, 0)?;
            self.pieces.push(Piece::Linear { forest, leaves, group });
        } else if let Some(Piece::Constant(forest)) = self.pieces.last_mut() {
            push(forest, branches, group)?;
        } else {
            let mut forest = Forest::new(self.features, self.groups);
            push(&mut forest, branches, group)?;
            self.pieces.push(Piece::Constant(forest));
        }
        self.count += 1;
        Ok(())
    }
}

impl<'a> Footer<'a> {
    fn parse(lines: Peekable<Lines<'a>>) -> Result<Self> {
        let mut footer = Self::default();
        let mut in_parameters = false;
        for line in lines {
            match line {
                "parameters:" => in_parameters = true,
                "end of parameters" => in_parameters = false,
                _ if in_parameters => {
                    let parameter = line.strip_prefix('[').and_then(|line| line.strip_suffix(']'));
                    match parameter.and_then(|parameter| parameter.split_once(": ")) {
                        Some(("boosting", value)) => footer.boosting = Some(value),
                        Some(("categorical_feature", value)) => footer.categorical = Some(value),
                        _ => {}
                    }
                }
                _ => footer.pandas = line.strip_prefix("pandas_categorical:").or(footer.pandas),
            }
        }
        // What was cut off might be the categories.
        if in_parameters {
            return Err(damaged("it ends before the line `end of parameters`"));
        }
        Ok(footer)
    }
}

impl Model for LightGbm {
    fn about(&self) -> &About {
        &self.about
    }

    fn score(&self, columns: &[Column<'_>], rows: usize) -> Result<Scores> {
        self.about.check(columns, rows)?;
        // As `RowPairFunctionFromDenseMatric` does: what is next to zero is not handed on.
        let mut numbers: Vec<Cow<'_, [f64]>> = columns
            .iter()
            .map(|column| replaced(column.numbers(), |number| number != 0.0 && number.abs() <= ZERO, 0.0))
            .collect();
        for (feature, codes) in &self.codes {
            numbers[*feature] = Cow::Owned(codes.of_column(&columns[*feature]));
        }
        let numbers: Vec<&[f64]> = numbers.iter().map(AsRef::as_ref).collect();
        let mut sums = vec![0.0; rows * self.groups];
        self.add(&numbers, &mut sums);
        // As `GBDT::Predict` does: the mean goes into the transformation.
        if self.divisor != 1.0 {
            sums.iter_mut().for_each(|sum| *sum /= self.divisor);
        }
        Ok(self.objective.scores(sums, self.groups))
    }
}

impl LightGbm {
    /// Adds the trees to the sums, in their order.
    fn add(&self, columns: &[&[f64]], sums: &mut [f64]) {
        // A forest sends +∞ to the right everywhere. Other thresholds are below 1e300.
        let is_capped = |number: f64| self.has_infinite_threshold && number == f64::INFINITY;
        let capped: Vec<Cow<'_, [f64]>> = columns.iter().map(|column| replaced(column, is_capped, f64::MAX)).collect();
        let capped: Vec<&[f64]> = capped.iter().map(AsRef::as_ref).collect();
        let mut chosen = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Constant(forest) => forest.add(&capped, sums),
                Piece::Linear { forest, leaves, group } => {
                    chosen.clear();
                    chosen.resize(sums.len() / self.groups, 0.0);
                    forest.add(&capped, &mut chosen);
                    for (row, (leaf, sums)) in chosen.iter().zip(sums.chunks_exact_mut(self.groups)).enumerate() {
                        sums[*group] += leaves[*leaf as usize].value(columns, row);
                    }
                }
            }
        }
    }
}

/// A column in which other numbers stand for some; the same one where it has none of them.
fn replaced(column: &[f64], is_one: impl Fn(f64) -> bool, by: f64) -> Cow<'_, [f64]> {
    if !column.iter().any(|number| is_one(*number)) {
        return Cow::Borrowed(column);
    }
    column.iter().map(|number| if is_one(*number) { by } else { *number }).collect()
}

fn damaged(fault: impl Display) -> Error {
    Error::invalid(format!("{fault}; {AGAIN}"))
}

fn absent(key: &str) -> Error {
    damaged(format_args!("it has no line {key}"))
}

fn unknown(section: &str, line: &str) -> Error {
    let line = shortened(line);
    Error::invalid(format!("{section} has a line that is unknown, {line:?}; {AGAIN} of LightGBM 2.3 to 4"))
}

/// The start of a text from a file, for a message.
fn shortened(text: &str) -> &str {
    text.char_indices().nth(40).map_or(text, |(end, _)| &text[..end])
}

fn number<T: FromStr>(key: &str, text: &str) -> Result<T> {
    text.trim_ascii()
        .parse()
        .map_err(|_| damaged(format_args!("{key} has {:?}, which is no such number", shortened(text))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::about::Output;
    use crate::model::damage::{self, Chance};
    use arrow::array::StringArray;
    use std::path::{Path, PathBuf};

    const HEADER: &str = "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\nmax_feature_idx=1\n\
                          objective=OBJECTIVE\nfeature_names=a b\nfeature_infos=[0:1] 2:0:1\n\n";
    const LEAF: &str = "Tree=0\nnum_leaves=1\nnum_cat=0\nsplit_feature=\nleaf_value=0.5\nis_linear=0\nshrinkage=1\n\n";
    const END: &str = "\nend of trees\n\nfeature_importances:\na=1\n";

    fn read(text: &str) -> Result<LightGbm> {
        parse(text.as_bytes(), "00".to_owned())
    }

    /// A file with this objective and these trees.
    fn file(objective: &str, trees: &str) -> String {
        format!("{}{trees}{END}", HEADER.replace("OBJECTIVE", objective))
    }

    /// A tree with one split.
    fn stump(feature: usize, threshold: &str, decision_type: u8, more: &str) -> String {
        let sets = if more.contains("cat_") { 1 } else { 0 };
        format!(
            "Tree=0\nnum_leaves=2\nnum_cat={sets}\nsplit_feature={feature}\nthreshold={threshold}\n\
             decision_type={decision_type}\nleft_child=-1\nright_child=-2\nleaf_value=1 2\n{more}shrinkage=1\n\n"
        )
    }

    fn fault(text: &str) -> String {
        read(text).unwrap_err().to_string()
    }

    fn numbers(model: &LightGbm, a: &[f64], b: &[f64]) -> Scores {
        model.score(&[Column::Numbers(a), Column::Numbers(b)], a.len()).unwrap()
    }

    /// 1 for what goes left, 2 for what goes right.
    fn sides(tree: &str, values: &[f64]) -> Vec<f64> {
        numbers(&read(&file("regression", tree)).unwrap(), values, values).predictions
    }

    #[test]
    fn what_is_missing_goes_as_the_decision_type_says() {
        let traces = -1e-35_f32 as f64;
        let values = [f64::NAN, 0.0, traces, -1.0, 2.0, f64::INFINITY, f64::NEG_INFINITY];
        let sides = |decision_type, threshold| sides(&stump(0, threshold, decision_type, ""), &values);
        assert_eq!(sides(0, "1"), [1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 1.0]);
        assert_eq!(sides(0, "-1"), [2.0, 2.0, 2.0, 1.0, 2.0, 2.0, 1.0]);
        assert_eq!(sides(4, "1"), [2.0, 2.0, 2.0, 1.0, 2.0, 2.0, 1.0]);
        assert_eq!(sides(6, "-1"), [1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 1.0]);
        assert_eq!(sides(8, "1"), [2.0, 1.0, 1.0, 1.0, 2.0, 2.0, 1.0]);
        assert_eq!(sides(10, "-1"), [1.0, 2.0, 2.0, 1.0, 2.0, 2.0, 1.0]);
        // The number next to zero is handed on as zero.
        assert_eq!(sides(8, "-1.0000000180025095e-35"), [2.0, 2.0, 2.0, 1.0, 2.0, 2.0, 1.0]);
        assert_eq!(sides(8, "inf"), [2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
        assert_eq!(sides(4, "inf"), [2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn categories_are_cut_off_and_missing_ones_go_right() {
        let values = [f64::NAN, 0.0, -0.5, -1.0, 2.9, 3.0, 40.0, 64.0, 1e300, f64::INFINITY];
        let sets = "cat_boundaries=0 3\ncat_threshold=5 256 1\n";
        let expected = [2.0, 1.0, 1.0, 2.0, 1.0, 2.0, 1.0, 1.0, 2.0, 2.0];
        for decision_type in [1, 3, 5, 9] {
            assert_eq!(sides(&stump(1, "0", decision_type, sets), &values), expected);
        }
        let wrong = |threshold, sets| fault(&file("regression", &stump(1, threshold, 1, sets)));
        assert!(wrong("1", sets).starts_with("tree 0: the categories 1 are none, or another node's too; save"));
        assert!(wrong("0.5", sets).starts_with("tree 0: the categories 0.5 are none"));
        assert!(wrong("0", "").starts_with("tree 0: the categories 0 are none"));
        assert!(wrong("0", "cat_boundaries=0 9\ncat_threshold=5\n").contains("cat_threshold has 1 numbers and should"));
        assert!(wrong("0", "cat_boundaries=3 1\ncat_threshold=5\n").contains("the categories 0 are none"));
        let two = stump(1, "0", 1, "cat_boundaries=0 1\ncat_threshold=5\n")
            .replace("num_leaves=2", "num_leaves=3")
            .replace("threshold=0", "threshold=0 0")
            .replace("split_feature=1", "split_feature=1 1")
            .replace("decision_type=1", "decision_type=1 1")
            .replace("left_child=-1", "left_child=1 -1")
            .replace("right_child=-2", "right_child=-3 -2")
            .replace("leaf_value=1 2", "leaf_value=1 2 3");
        assert!(fault(&file("regression", &two)).contains("the categories 0 are none, or another node's too"));
    }

    #[test]
    fn objectives_turn_sums_into_results() {
        let score = |objective: &str| numbers(&read(&file(objective, LEAF)).unwrap(), &[0.0], &[0.0]);
        let number = |objective: &str| score(objective).predictions[0];
        for raw in ["regression", "regression_l1", "huber sqrt", "fair", "quantile", "mape", "lambdarank", "custom"] {
            assert_eq!(number(raw), 0.5, "{raw}");
        }
        assert_eq!(number("regression sqrt"), 0.25);
        assert_eq!(number("gamma"), 0.5_f64.exp());
        assert_eq!(number("cross_entropy"), 1.0 / (1.0 + (-0.5_f64).exp()));
        assert_eq!(number("cross_entropy_lambda"), 0.5_f64.exp().ln_1p());
        let p = 1.0 / (1.0 + (-1.0_f64).exp());
        assert_eq!(score("binary sigmoid:2"), Scores { predictions: vec![1.0], values: vec![1.0 - p, p] });
        assert!(fault(&file("binary", LEAF)).starts_with("its objective has no sigmoid; save the model again"));
        assert!(fault(&file("binary sigmoid:0", LEAF)).starts_with("the sigmoid of its objective is 0"));
        assert!(fault(&file("multiclass num_class:3", LEAF)).contains("with 1 trees for each iteration"));
        assert!(fault(&file("wishful", LEAF)).starts_with("its objective \"wishful\" is unknown; train it with"));
        let model = read(&file("", LEAF).replace("objective=\n", "")).unwrap();
        assert_eq!(model.about.summary(), "LightGBM v4 gbdt, custom, 1 trees, a number, sha256 00");
    }

    #[test]
    fn several_sums_are_averaged_before_the_softmax() {
        let classes = HEADER.replace("_class=1", "_class=2").replace("iteration=1", "iteration=2\naverage_output");
        let text = |objective: &str, trees: usize| {
            format!("{}{}{END}", classes.replace("OBJECTIVE", objective), LEAF.repeat(trees))
        };
        let model = read(&text("multiclass num_class:2", 4).replacen("=0.5", "=1.5", 1)).unwrap();
        assert_eq!(model.about.kind, "LightGBM v4 rf");
        // (1.5 + 0.5) / 2 and (0.5 + 0.5) / 2.
        let (first, second) = (1.0, (0.5_f64 - 1.0).exp());
        let total = first + second;
        let expected = Scores { predictions: vec![0.0], values: vec![first / total, second / total] };
        assert_eq!(numbers(&model, &[0.0], &[0.0]), expected);
        let raw = read(&text("custom", 2)).unwrap();
        assert_eq!(raw.about.output, Output::Numbers(2));
        assert_eq!(numbers(&raw, &[0.0], &[0.0]), Scores { predictions: vec![0.5], values: vec![0.5, 0.5] });
        assert!(fault(&text("custom", 3)).starts_with("it has 3 trees for 2 sums; save"));
        assert!(fault(&text("multiclass num_class:3", 2)).starts_with("its objective is for \"3\" classes, it has 2"));
    }

    #[test]
    fn leaves_have_linear_models() {
        let linear = "is_linear=1\nleaf_const=10 20\nnum_features=2 0\nleaf_features=0 1  \nleaf_coeff=2 -1  \n";
        let tree = stump(0, "1", 8, linear);
        let model = read(&file("regression", &format!("{LEAF}{tree}"))).unwrap();
        let (a, b) = ([1.0, 0.0, 5.0, f64::NAN, f64::NEG_INFINITY], [3.0, f64::NAN, 5.0, 0.0, 0.0]);
        assert_eq!(numbers(&model, &a, &b).predictions, [9.5, 1.5, 20.5, 20.5, f64::NEG_INFINITY]);
        let wrong = tree.replace("leaf_features=0 1", "leaf_features=0 2");
        assert!(
            fault(&file("regression", &wrong)).starts_with("tree 0: leaf_features has 2, the model has 2 features")
        );
        let wrong = tree.replace("num_features=2", "num_features=18446744073709551615");
        assert!(fault(&file("regression", &wrong)).contains("leaf_features has 2 numbers and should have"));
    }

    #[test]
    fn categories_of_pandas_get_their_numbers() {
        let json = |json: &str| format!("{}\npandas_categorical:{json}\n", file("regression", &stump(1, "1", 8, "")));
        let model = read(&json(r#"[["x", "", "zü"]]"#)).unwrap();
        assert_eq!(model.about.features, [Feature::number("a"), Feature::text("b")]);
        let texts = StringArray::from(vec![Some("x"), Some(""), Some("zü"), Some("?"), None]);
        let scores = model.score(&[Column::Numbers(&[0.0; 5]), Column::Texts(&texts)], 5).unwrap();
        assert_eq!(scores.predictions, [1.0, 1.0, 2.0, 2.0, 2.0]);
        let b = [0.5, -0.0, 7.0, 1.0, f64::NAN];
        let model = read(&json("[[0.5, 0, 7]]")).unwrap();
        assert_eq!(numbers(&model, &[0.0; 5], &b).predictions, [1.0, 1.0, 2.0, 2.0, 2.0]);
        let model = read(&json("[[false, true, 3]]")).unwrap();
        assert_eq!(numbers(&model, &[0.0; 3], &[0.0, 1.0, 3.0]).predictions, [1.0, 1.0, 2.0]);
        assert!(!read(&json("null")).unwrap().about.features[1].is_text);
        assert!(fault(&json("[[1, \"x\", 2]]")).starts_with("feature 1: it has categories that are neither"));
        assert!(fault(&json("[[\"x\"")).starts_with("pandas_categorical is no JSON list"));
        assert!(fault(&json("[[\"x\", \"y\"]]")).starts_with("feature 1 has more categories than its list, so that"));
        let two = fault(&json("[[1, 2, 3], [1]]"));
        assert!(two.starts_with("it has the categories of 2 pandas columns, and 1 features were trained"), "{two}");
        // A feature with one category has no info: the parameters name it.
        let named = json("[[\"s\"], [0, 1, 2]]").replace("[0:1]", "none");
        let named = named.replace("\npandas", "parameters:\n[categorical_feature: 1,0]\nend of parameters\n\npandas");
        assert_eq!(read(&named).unwrap().about.features, [Feature::text("a"), Feature::number("b")]);
        assert!(fault(&named.replace("end of parameters\n", "")).contains("before the line `end of parameters`"));
    }

    #[test]
    fn what_is_no_model_or_is_damaged_is_refused() {
        let good = file("regression", &stump(0, "1", 8, ""));
        read(&good).unwrap();
        read(&good.replace('\n', "\r\n")).unwrap();
        let wrong = |from: &str, to: &str| fault(&good.replace(from, to));
        assert!(fault("{\"name\":\"tree\"}").starts_with("it is JSON, of dump_model perhaps"));
        assert!(fault("treehouse\n").starts_with("it does not start with the line `tree`"));
        assert!(parse(b"tree\n\xff", String::new()).unwrap_err().to_string().starts_with("byte 5 is no UTF-8"));
        assert!(wrong("=v4", "=v2").starts_with("its version is \"v2\", supported are v3 and v4; save"));
        assert!(wrong("label_index", "label_indices").starts_with("the header has a line that is unknown"));
        assert!(wrong("num_class=1", "num_class=2").starts_with("it has 2 classes and 1 trees for each iteration"));
        assert!(wrong("idx=1", "idx=18446744073709551615").starts_with("feature_names has 2 words, and max"));
        assert!(wrong("idx=1", "idx=-1").starts_with("max_feature_idx has \"-1\", which is no such number; save"));
        assert!(wrong("shrinkage", "forest").starts_with("tree 0: it has a line that is unknown, \"forest=1\""));
        assert!(wrong("num_leaves=2", "num_leaves=0").starts_with("tree 0: it has no leaves; save"));
        assert!(wrong("num_leaves=2", "num_leaves=9999999999").contains("leaf_value has 2 numbers and should have"));
        assert!(wrong("left_child=-1", "left_child=-3").contains("it has the child -3, with 1 nodes; save"));
        assert!(wrong("left_child=-1", "left_child=-2147483648").contains("it has the child -2147483648"));
        assert!(wrong("left_child=-1", "left_child=0").contains("node 0 has two parents, 0 is one of them; save"));
        assert!(wrong("split_feature=0", "split_feature=2").contains("it splits on feature 2, the model has 2; save"));
        assert!(wrong("threshold=1", "threshold=nan").contains("its threshold is no number; save"));
        assert!(wrong("leaf_value=1", "leaf_value=inf").contains("leaf_value has inf, which is not finite; train"));
        assert!(wrong("decision_type=8", "decision_type=12").contains("a decision_type 12, which is unknown; save"));
        assert!(wrong("threshold=1\n", "").starts_with("tree 0: it has no line threshold; save"));
        assert!(wrong("feature_names", "tree_sizes=1 2\nfeature_names").starts_with("it has 1 trees, and tree_sizes"));
        assert!(fault(&file("regression", "")).starts_with("it has 0 trees for 1 sums; save"));
        assert!(wrong("end of trees", "").contains("has a line that is unknown, \"feature_importances:\""));
    }

    #[test]
    fn columns_are_checked_and_no_rows_are_fine() {
        let model = read(&file("regression", LEAF)).unwrap();
        assert_eq!(numbers(&model, &[], &[]), Scores::default());
        assert!(model.score(&[Column::Numbers(&[])], 0).is_err());
        assert!(model.score(&[Column::Numbers(&[]), Column::Numbers(&[1.0])], 0).is_err());
    }

    /// The real models, one of each kind that has lines of its own.
    fn real() -> impl Iterator<Item = Vec<u8>> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/lightgbm");
        let of = move |name: &str| -> PathBuf { root.join(name).join("model.txt") };
        let names = ["binary", "categorical_multiclass", "constant", "linear_tree", "pandas_binary"];
        names.into_iter().map(move |name| std::fs::read(of(name)).unwrap())
    }

    fn survives(bytes: &[u8]) {
        damage::survives(parse(bytes, String::new()));
    }

    #[test]
    fn cut_files_are_refused_or_score() {
        for bytes in real() {
            survives(&bytes);
            // Most of a file is its parameters, of which every seventh byte is enough.
            let parameters = bytes.windows(11).position(|window| window == b"parameters:").unwrap();
            (0..parameters).chain((parameters..bytes.len()).step_by(7)).for_each(|end| survives(&bytes[..end]));
            (bytes.len() - 200..bytes.len()).for_each(|end| survives(&bytes[..end]));
        }
    }

    #[test]
    fn flipped_bytes_are_refused_or_score() {
        let mut chance = Chance::new(7);
        for bytes in real() {
            for _ in 0..1000 {
                let mut bytes = bytes.clone();
                for _ in 0..=chance.below(3) {
                    let at = chance.below(bytes.len());
                    bytes[at] = b"0123456789-. =\ne\xff[{\0"[chance.below(20)];
                }
                survives(&bytes);
            }
        }
    }
}
