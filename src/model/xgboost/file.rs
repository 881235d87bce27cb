//! What a model's file has, in JSON or in UBJSON: the same fields.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, Unexpected, Visitor};

use super::damaged;
use crate::error::{Error, Result};
use crate::model::Feature;
use crate::model::codes::{Codes, bits};
use crate::model::forest::{Branch, CategoryRule, CategorySet, Missing, Split, Test};

/// A model may have this many features: each one costs 256 bytes of a block or more.
const MAX_FEATURES: usize = 65_536;
/// A model may give this many numbers.
const MAX_GROUPS: usize = 16_384;

#[derive(Deserialize)]
pub(super) struct ModelFile {
    pub learner: Learner,
    #[serde(default)]
    pub version: Vec<u32>,
}

#[derive(Deserialize)]
pub(super) struct Learner {
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    #[serde(default)]
    pub feature_names: Vec<String>,
    pub gradient_booster: BoosterFile,
    #[serde(rename = "learner_model_param")]
    pub model_param: ModelParam,
    pub objective: Objective,
}

#[derive(Deserialize)]
pub(super) struct Objective {
    pub name: String,
}

/// XGBoost writes these numbers as strings; `base_score` is a list in brackets since 3.1.
#[derive(Deserialize)]
pub(super) struct ModelParam {
    pub base_score: String,
    pub num_feature: String,
    #[serde(default)]
    pub num_class: Option<String>,
    #[serde(default)]
    pub num_target: Option<String>,
}

impl Learner {
    pub fn features(&self) -> Result<usize> {
        let text = &self.model_param.num_feature;
        match text.parse() {
            Ok(features) if features <= MAX_FEATURES => Ok(features),
            Ok(features) => {
                Err(Error::invalid(format!("it has {features} features; at most {MAX_FEATURES} are supported")))
            }
            Err(_) => Err(damaged(format!("num_feature is {text:?}"))),
        }
    }

    /// The features by their names.
    pub fn named(&self, features: usize) -> Result<Vec<Feature>> {
        match self.feature_names.len() {
            0 => Ok(Feature::unnamed(features)),
            names if names == features => Ok(self.feature_names.iter().map(Feature::number).collect()),
            names => Err(damaged(format!("{names} feature names for {features} features"))),
        }
    }

    /// How the values of each feature become codes; `None` where they are compared as they are.
    pub fn codes(&self, features: usize) -> Result<Vec<Option<Codes>>> {
        let inner = self.gradient_booster.gbtree.as_ref().map(|inner| &inner.model);
        let encodings = self.gradient_booster.model.as_ref().or(inner).map(|model| &model.cats.enc);
        let mut codes = encodings.into_iter().flatten().map(Encoding::codes).collect::<Result<Vec<_>>>()?;
        if !codes.is_empty() && codes.len() != features {
            return Err(damaged(format!("categories of {} features, and it has {features}", codes.len())));
        }
        codes.resize_with(features, || None);
        Ok(codes)
    }

    /// How many sums a row has: one for each class or target.
    pub fn groups(&self) -> Result<usize> {
        let count = |name: &str, text: &Option<String>| match text.as_deref() {
            None => Ok(1),
            Some(text) => text.parse::<usize>().map_err(|_| damaged(format!("{name} is {text:?}"))),
        };
        let classes = count("num_class", &self.model_param.num_class)?;
        let targets = count("num_target", &self.model_param.num_target)?;
        let groups = classes.max(1).saturating_mul(targets.max(1));
        if groups > MAX_GROUPS {
            return Err(Error::invalid(format!("it gives {groups} numbers; at most {MAX_GROUPS} are supported")));
        }
        Ok(groups)
    }

    /// The intercepts, as predictions: one for each sum.
    pub fn base_scores(&self, groups: usize) -> Result<Vec<f32>> {
        let text = &self.model_param.base_score;
        let list = text.trim().trim_start_matches('[').trim_end_matches(']');
        let numbers: Result<Vec<f32>, _> = list.split(',').map(|number| number.trim().parse()).collect();
        match numbers {
            Ok(one) if one.len() == 1 => Ok(vec![one[0]; groups]),
            Ok(many) if many.len() == groups => Ok(many),
            _ => Err(damaged(format!("base_score is {text:?}, and a row has {groups} sums"))),
        }
    }

    /// The last round that counts, where training stopped early.
    pub fn best_iteration(&self) -> Result<Option<usize>> {
        let Some(text) = self.attributes.get("best_iteration") else { return Ok(None) };
        text.parse().map(Some).map_err(|_| damaged(format!("best_iteration is {text:?}")))
    }
}

/// All kinds of booster at once: `gbtree` and `gblinear` have `model`, `dart` has a `gbtree` and each tree's weight.
#[derive(Deserialize)]
pub(super) struct BoosterFile {
    pub name: String,
    pub model: Option<BoosterModel>,
    pub gbtree: Option<InnerBooster>,
    pub weight_drop: Option<Vec<f32>>,
}

#[derive(Deserialize)]
pub(super) struct InnerBooster {
    pub model: BoosterModel,
}

#[derive(Deserialize)]
pub(super) struct BoosterModel {
    pub trees: Option<Vec<TreeFile>>,
    #[serde(default)]
    pub tree_info: Vec<i64>,
    /// Where the trees of each round begin; not in old files.
    #[serde(default)]
    pub iteration_indptr: Vec<i64>,
    #[serde(rename = "gbtree_model_param")]
    pub param: Option<BoosterParam>,
    pub weights: Option<Vec<f32>>,
    /// The names of categories, where it was trained with names; since 3.1.
    #[serde(default)]
    pub cats: Categories,
}

/// The categories of the features.
#[derive(Deserialize, Default)]
pub(super) struct Categories {
    #[serde(default)]
    pub enc: Vec<Encoding>,
}

/// The categories of a feature, in the order of their codes: texts, as the bytes between offsets, or whole numbers.
#[derive(Deserialize, Default)]
pub(super) struct Encoding {
    #[serde(default)]
    offsets: Vec<i64>,
    #[serde(default)]
    values: Vec<f64>,
}

impl Encoding {
    /// How values of the feature become codes; `None` where they are codes, or no categories. XGBoost 3.1 and 3.2
    /// count characters where they cut bytes, so that names with others than ASCII are too short in the file.
    fn codes(&self) -> Result<Option<Codes>> {
        if self.values.is_empty() && self.offsets.is_empty() {
            return Ok(None);
        }
        if self.offsets.is_empty() {
            let mut codes = HashMap::new();
            for (code, value) in self.values.iter().enumerate() {
                codes.entry(bits(*value)).or_insert(code as f64);
            }
            return Ok(Some(Codes::Numbers(codes)));
        }
        // Bytes are written as signed numbers.
        let bytes: Vec<u8> = self.values.iter().map(|value| *value as i64 as u8).collect();
        let mut codes = HashMap::new();
        for (code, ends) in self.offsets.windows(2).enumerate() {
            let ends = usize::try_from(ends[0]).ok().zip(usize::try_from(ends[1]).ok());
            let text = ends.and_then(|(from, to)| bytes.get(from..to));
            let text = text.ok_or_else(|| damaged(format!("category {code} is not there")))?;
            codes.insert(text.to_vec(), code as f64);
        }
        Ok(Some(Codes::Texts { codes, may_be_cut: true }))
    }
}

#[derive(Deserialize)]
pub(super) struct BoosterParam {
    #[serde(default)]
    num_parallel_tree: Option<String>,
}

impl BoosterModel {
    /// How many trees the rounds up to `best` have.
    pub fn trees_until(&self, best: usize, groups: usize) -> Option<usize> {
        if let Some(end) = self.iteration_indptr.get(best.checked_add(1)?) {
            return usize::try_from(*end).ok();
        }
        let parallel = self.param.as_ref().and_then(|param| param.num_parallel_tree.as_deref()).unwrap_or("1");
        best.checked_add(1)?.checked_mul(parallel.parse().ok()?)?.checked_mul(groups)
    }
}

#[derive(Deserialize)]
pub(super) struct TreeFile {
    left_children: Vec<i32>,
    right_children: Vec<i32>,
    split_indices: Vec<u32>,
    split_conditions: Vec<Real>,
    default_left: Vec<Flag>,
    #[serde(default)]
    split_type: Vec<u8>,
    /// Nodes that look into a set, and where their sets are among `categories`.
    #[serde(default)]
    categories_nodes: Vec<u32>,
    #[serde(default)]
    categories_segments: Vec<u64>,
    #[serde(default)]
    categories_sizes: Vec<u64>,
    #[serde(default)]
    categories: Vec<u32>,
    /// What the leaves give, where they give several numbers: by node until 3.1, then by leaf.
    #[serde(default)]
    base_weights: Vec<f32>,
    #[serde(default)]
    leaf_weights: Vec<f32>,
    tree_param: Option<TreeParam>,
}

#[derive(Deserialize)]
struct TreeParam {
    size_leaf_vector: Option<String>,
}

/// A category is below this (XGBoost's `OutOfRangeCat`).
const MAX_CATEGORY: u32 = 1 << 24;

impl TreeFile {
    /// The nodes of the tree.
    pub fn branches(&self, groups: usize) -> Result<Vec<Branch<f32>>> {
        let nodes = self.left_children.len();
        let lengths =
            [self.right_children.len(), self.split_indices.len(), self.split_conditions.len(), self.default_left.len()];
        if nodes == 0 || lengths.iter().any(|&length| length != nodes) {
            return Err(damaged(format!("its arrays have lengths {nodes} and {lengths:?}")));
        }
        if !self.split_type.is_empty() && self.split_type.len() != nodes {
            return Err(damaged(format!("{} kinds of split for {nodes} nodes", self.split_type.len())));
        }
        let size = self.tree_param.as_ref().and_then(|param| param.size_leaf_vector.as_deref()).unwrap_or("1");
        let width: usize = size.parse().map_err(|_| damaged(format!("size_leaf_vector is {size:?}")))?;
        if width > 1 && width != groups {
            return Err(damaged(format!("its leaves have {width} numbers, and a row has {groups} sums")));
        }
        let sets = self.sets()?;
        (0..nodes).map(|node| self.branch(node, width, &sets)).collect()
    }

    fn branch(&self, node: usize, width: usize, sets: &BTreeMap<usize, CategorySet>) -> Result<Branch<f32>> {
        let condition = self.split_conditions[node].0;
        if self.left_children[node] < 0 {
            if width <= 1 {
                return Ok(Branch::Leaf(condition));
            }
            // The right child of a leaf is its number.
            let (weights, index) = match self.leaf_weights.is_empty() {
                true => (&self.base_weights, node),
                false => (&self.leaf_weights, usize::try_from(self.right_children[node]).unwrap_or(usize::MAX / width)),
            };
            let end = index.saturating_add(1).saturating_mul(width);
            let weights = weights.get(index.saturating_mul(width)..end);
            let weights = weights.ok_or_else(|| damaged(format!("node {node} has no numbers")))?;
            return Ok(Branch::Leaves(weights.into()));
        }
        let test = match self.split_type.get(node) {
            None | Some(0) if condition.is_finite() => Test::Below(condition),
            None | Some(0) => return Err(damaged(format!("node {node} has a number that is not finite"))),
            // What is in the set goes right (XGBoost's `common::Decision`).
            Some(1) => {
                let set = sets.get(&node).cloned();
                let set = set.ok_or_else(|| damaged(format!("node {node} has no categories")))?;
                Test::Among { set, inside_left: false }
            }
            Some(other) => return Err(Error::invalid(format!("node {node} has a split of the unknown kind {other}"))),
        };
        let missing = if self.default_left[node].0 { Missing::Left } else { Missing::Right };
        let child = |children: &[i32]| children[node] as u32;
        let (left, right) = (child(&self.left_children), child(&self.right_children));
        Ok(Branch::Split(Split { feature: self.split_indices[node], test, missing, left, right }))
    }

    fn sets(&self) -> Result<BTreeMap<usize, CategorySet>> {
        let mut sets = BTreeMap::new();
        if self.categories_segments.len() != self.categories_nodes.len()
            || self.categories_sizes.len() != self.categories_nodes.len()
        {
            return Err(damaged("its nodes with categories do not fit their sets"));
        }
        for ((node, first), size) in
            self.categories_nodes.iter().zip(&self.categories_segments).zip(&self.categories_sizes)
        {
            let end = first.saturating_add(*size);
            let categories = usize::try_from(*first).ok().zip(usize::try_from(end).ok());
            let categories = categories.and_then(|(first, end)| self.categories.get(first..end));
            let Some(categories) = categories.filter(|all| all.iter().all(|category| *category < MAX_CATEGORY)) else {
                return Err(damaged(format!("node {node} has categories {first} to {end}, which are not there")));
            };
            sets.insert(*node as usize, CategorySet::new(categories.iter().copied(), CategoryRule::NotNegative));
        }
        Ok(sets)
    }
}

/// XGBoost 1.x writes `true` and `false`, later ones 1 and 0.
pub(super) struct Flag(pub bool);

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

            fn visit_i64<E: serde::de::Error>(self, flag: i64) -> Result<Flag, E> {
                self.visit_u64(u64::try_from(flag).unwrap_or(u64::MAX))
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

/// A number, which may be written as none: nodes that look into a set have no threshold.
struct Real(f32);

impl<'de> Deserialize<'de> for Real {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RealVisitor;

        impl Visitor<'_> for RealVisitor {
            type Value = Real;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a number")
            }

            fn visit_unit<E>(self) -> Result<Real, E> {
                Ok(Real(f32::NAN))
            }

            fn visit_f32<E>(self, number: f32) -> Result<Real, E> {
                Ok(Real(number))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Real, E> {
                Ok(Real(number as f32))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Real, E> {
                Ok(Real(number as f32))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Real, E> {
                Ok(Real(number as f32))
            }
        }

        deserializer.deserialize_any(RealVisitor)
    }
}
