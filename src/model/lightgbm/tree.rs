//! A tree of the file: its lines, and the nodes and leaves that they make.

use std::iter::Peekable;
use std::str::{FromStr, Lines};

use super::{absent, damaged, number, shortened, unknown};
use crate::error::{Error, Result};
use crate::model::forest::{Branch, CategoryRule, CategorySet, Missing, Split, Test};

/// The bits of a decision type.
const CATEGORICAL: u8 = 1;
const DEFAULT_LEFT: u8 = 2;
/// Above them, what is missing: nothing, zero, or NaN.
const MISSING_SHIFT: u8 = 2;

/// The lines of a tree that matter for scoring.
#[derive(Debug, Default)]
pub(super) struct TreeText<'a> {
    num_leaves: Option<&'a str>,
    num_cat: Option<&'a str>,
    split_feature: Option<&'a str>,
    threshold: Option<&'a str>,
    decision_type: Option<&'a str>,
    left_child: Option<&'a str>,
    right_child: Option<&'a str>,
    leaf_value: Option<&'a str>,
    cat_boundaries: Option<&'a str>,
    cat_threshold: Option<&'a str>,
    is_linear: Option<&'a str>,
    leaf_const: Option<&'a str>,
    num_features: Option<&'a str>,
    leaf_features: Option<&'a str>,
    leaf_coeff: Option<&'a str>,
}

/// The sets of categories of a tree.
#[derive(Debug, Default)]
struct Sets {
    /// Where each set starts in `words`, and where the last one ends.
    boundaries: Vec<usize>,
    words: Vec<u32>,
    is_taken: Vec<bool>,
}

/// A linear model in a leaf.
#[derive(Debug)]
pub(super) struct LinearLeaf {
    constant: f64,
    /// Features and their factors.
    terms: Box<[(usize, f64)]>,
    /// For rows where one of the features is missing.
    otherwise: f64,
}

impl LinearLeaf {
    /// As `Tree::Predict` does.
    pub fn value(&self, columns: &[&[f64]], row: usize) -> f64 {
        let mut sum = self.constant;
        for (feature, factor) in &self.terms {
            let value = columns[*feature][row];
            if value.is_nan() {
                return self.otherwise;
            }
            sum += factor * value;
        }
        sum
    }
}

impl<'a> TreeText<'a> {
    /// Of the lines up to an empty one.
    pub fn parse(lines: &mut Peekable<Lines<'a>>) -> Result<Self> {
        let mut tree = Self::default();
        for line in lines.by_ref().take_while(|line| !line.is_empty()) {
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            let field = match key {
                "num_leaves" => &mut tree.num_leaves,
                "num_cat" => &mut tree.num_cat,
                "split_feature" => &mut tree.split_feature,
                "threshold" => &mut tree.threshold,
                "decision_type" => &mut tree.decision_type,
                "left_child" => &mut tree.left_child,
                "right_child" => &mut tree.right_child,
                "leaf_value" => &mut tree.leaf_value,
                "cat_boundaries" => &mut tree.cat_boundaries,
                "cat_threshold" => &mut tree.cat_threshold,
                "is_linear" => &mut tree.is_linear,
                "leaf_const" => &mut tree.leaf_const,
                "num_features" => &mut tree.num_features,
                "leaf_features" => &mut tree.leaf_features,
                "leaf_coeff" => &mut tree.leaf_coeff,
                // The leaves' values are multiplied by the shrinkage already.
                "split_gain" | "leaf_weight" | "leaf_count" | "internal_value" | "internal_weight"
                | "internal_count" | "shrinkage" => continue,
                _ => return Err(unknown("it", line)),
            };
            *field = Some(value);
        }
        Ok(tree)
    }

    /// The nodes, then the leaves.
    pub fn branches(&self, branches: &mut Vec<Branch<f64>>) -> Result<()> {
        branches.clear();
        let leaves: usize = number("num_leaves", self.num_leaves.ok_or_else(|| absent("num_leaves"))?)?;
        let Some(nodes) = leaves.checked_sub(1) else {
            return Err(damaged("it has no leaves"));
        };
        // Says that the line has that many numbers, before anything else is counted with.
        let values = finite("leaf_value", self.leaf_value, leaves)?;
        if nodes > 0 {
            self.splits(nodes, branches)?;
        }
        branches.extend(values.into_iter().map(Branch::Leaf));
        Ok(())
    }

    fn splits(&self, nodes: usize, branches: &mut Vec<Branch<f64>>) -> Result<()> {
        let features: Vec<u32> = numbers("split_feature", self.split_feature, nodes)?;
        // LightGBM writes `inf` where all but missing values go left.
        let thresholds: Vec<f64> = numbers("threshold", self.threshold, nodes)?;
        let lefts: Vec<i32> = numbers("left_child", self.left_child, nodes)?;
        let rights: Vec<i32> = numbers("right_child", self.right_child, nodes)?;
        let types: Vec<u8> = match self.decision_type {
            Some(_) => numbers("decision_type", self.decision_type, nodes)?,
            None => vec![0; nodes],
        };
        let mut sets = self.sets()?;
        branches.reserve_exact(2 * nodes + 1);
        for node in 0..nodes {
            let (test, missing) = match types[node] & CATEGORICAL {
                0 => (Test::AtMost(thresholds[node]), missing(types[node])?),
                // A missing category goes right, whatever is missing: `Tree::CategoricalDecision`.
                _ => (Test::Among { set: sets.take(thresholds[node])?, inside_left: true }, Missing::Right),
            };
            let [left, right] = [child(lefts[node], nodes)?, child(rights[node], nodes)?];
            branches.push(Branch::Split(Split { feature: features[node], test, missing, left, right }));
        }
        Ok(())
    }

    fn sets(&self) -> Result<Sets> {
        let count: usize = number("num_cat", self.num_cat.ok_or_else(|| absent("num_cat"))?)?;
        if count == 0 {
            return Ok(Sets::default());
        }
        let boundaries: Vec<usize> = numbers("cat_boundaries", self.cat_boundaries, count.saturating_add(1))?;
        let end = boundaries.last().copied().unwrap_or_default();
        let words: Vec<u32> = numbers("cat_threshold", self.cat_threshold, end)?;
        Ok(Sets { boundaries, words, is_taken: vec![false; count] })
    }

    /// The linear models of the leaves, where it has them. `branches` are those of the tree.
    pub fn linear_leaves(&self, branches: &[Branch<f64>], features: usize) -> Result<Option<Vec<LinearLeaf>>> {
        match self.is_linear.map(str::trim_ascii) {
            None | Some("0") => return Ok(None),
            Some("1") => {}
            Some(other) => return Err(damaged(format_args!("is_linear has {:?}", shortened(other)))),
        }
        let values = branches.iter().filter_map(|branch| match branch {
            Branch::Leaf(value) => Some(*value),
            _ => None,
        });
        let values: Vec<f64> = values.collect();
        let constants = finite("leaf_const", self.leaf_const, values.len())?;
        let counts: Vec<usize> = numbers("num_features", self.num_features, values.len())?;
        let total = counts.iter().fold(0_usize, |total, count| total.saturating_add(*count));
        let of_terms: Vec<usize> = numbers("leaf_features", self.leaf_features, total)?;
        let factors = finite("leaf_coeff", self.leaf_coeff, total)?;
        if let Some(feature) = of_terms.iter().find(|feature| **feature >= features) {
            return Err(damaged(format_args!("leaf_features has {feature}, the model has {features} features")));
        }
        let mut terms = of_terms.into_iter().zip(factors);
        let leaves = values.into_iter().zip(constants).zip(counts).map(|((otherwise, constant), count)| LinearLeaf {
            constant,
            terms: terms.by_ref().take(count).collect(),
            otherwise,
        });
        Ok(Some(leaves.collect()))
    }
}

/// Whether a node lets all numbers pass.
pub(super) fn has_infinite_threshold(branch: &Branch<f64>) -> bool {
    matches!(branch, Branch::Split(Split { test: Test::AtMost(f64::INFINITY), .. }))
}

/// Makes the value of each leaf its number.
pub(super) fn number_leaves(branches: &mut [Branch<f64>]) {
    let mut next = 0.0;
    for branch in branches {
        if let Branch::Leaf(value) = branch {
            *value = next;
            next += 1.0;
        }
    }
}

impl Sets {
    /// The set that a threshold names. LightGBM writes one for each node; taking each once bounds the work by the file.
    fn take(&mut self, threshold: f64) -> Result<CategorySet> {
        let fault = || damaged(format_args!("the categories {threshold} are none, or another node's too"));
        let set = threshold as usize;
        let is_taken = self.is_taken.get_mut(set).filter(|is_taken| !**is_taken && threshold == set as f64);
        *is_taken.ok_or_else(fault)? = true;
        let range = self.boundaries.get(set..=set + 1).ok_or_else(fault)?;
        let halves = self.words.get(range[0]..range[1]).ok_or_else(fault)?;
        let word = |pair: &[u32]| pair.iter().rev().fold(0, |word, half| word << 32 | u64::from(*half));
        Ok(CategorySet { words: halves.chunks(2).map(word).collect(), rule: CategoryRule::Truncated })
    }
}

/// How `Tree::NumericalDecision` treats a missing value.
fn missing(decision_type: u8) -> Result<Missing> {
    let is_left = decision_type & DEFAULT_LEFT != 0;
    match decision_type >> MISSING_SHIFT {
        0 => Ok(Missing::AsZero),
        1 if is_left => Ok(Missing::ZeroLeft),
        1 => Ok(Missing::ZeroRight),
        2 if is_left => Ok(Missing::Left),
        2 => Ok(Missing::Right),
        _ => Err(damaged(format_args!("it has a decision_type {decision_type}, which is unknown"))),
    }
}

/// The branch of a child: -1 is the first leaf, -2 the next.
fn child(child: i32, nodes: usize) -> Result<u32> {
    let branch = if child < 0 { nodes + !child as usize } else { child as usize };
    match u32::try_from(branch) {
        Ok(found) if branch <= 2 * nodes && (child < 0 || branch < nodes) => Ok(found),
        _ => Err(damaged(format_args!("it has the child {child}, with {nodes} nodes"))),
    }
}

/// The numbers of a line, which has to have `count`.
fn numbers<T: FromStr>(key: &str, text: Option<&str>, count: usize) -> Result<Vec<T>> {
    let text = text.ok_or_else(|| absent(key))?;
    // A number and a blank are two bytes.
    let mut numbers = Vec::with_capacity(count.min(text.len() / 2 + 1));
    for word in text.split_ascii_whitespace() {
        numbers.push(number(key, word)?);
    }
    if numbers.len() != count {
        return Err(damaged(format_args!("{key} has {} numbers and should have {count}", numbers.len())));
    }
    Ok(numbers)
}

fn finite(key: &str, text: Option<&str>, count: usize) -> Result<Vec<f64>> {
    let numbers: Vec<f64> = numbers(key, text, count)?;
    match numbers.iter().find(|number| !number.is_finite()) {
        Some(number) => Err(Error::invalid(format!(
            "{key} has {number}, which is not finite; train it with a smaller learning_rate or scaled labels"
        ))),
        None => Ok(numbers),
    }
}
