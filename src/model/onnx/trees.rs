//! The trees of the tree ensembles, as the attributes of a node say them, made into a forest.

use std::collections::HashMap;

use super::super::forest::{Branch, CategoryRule, CategorySet, Forest, Missing, Real, Split, Test};
use super::node::Node;
use super::tensor::{Data, Tensor};
use super::{damaged, refused};
use crate::error::Result;

/// Categories of a set are whole numbers below this.
const MAX_CATEGORY: f64 = 65_536.0;

/// What a node of a tree asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    AtMost,
    Below,
    AtLeast,
    Above,
    Equal,
    NotEqual,
    Among,
    Leaf,
}

/// The names of the attributes of leaves.
#[derive(Debug)]
pub(super) struct LeafNames {
    pub trees: &'static str,
    pub nodes: &'static str,
    pub ids: &'static str,
    pub weights: &'static str,
    pub weights_as_tensor: &'static str,
}

/// What becomes of several numbers of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fold {
    Sum,
    Average,
    Min,
    Max,
}

/// The nodes of all trees of an ensemble, and where its trees begin.
#[derive(Debug)]
pub(super) struct Trees {
    nodes: Vec<TreeNode>,
    roots: Vec<usize>,
    /// The weights of the leaves: a target and what is added to it.
    weights: Vec<(usize, f64)>,
    /// The sets of nodes that ask for one.
    sets: Vec<Vec<f64>>,
    pub targets: usize,
}

#[derive(Debug)]
struct TreeNode {
    mode: Mode,
    feature: i64,
    threshold: f64,
    missing_is_true: bool,
    /// The nodes that follow; of a leaf the range of its weights.
    yes: usize,
    no: usize,
    /// The number of its set.
    set: usize,
}

/// Whether a target gets something of the leaves that a row reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Always,
    Never,
    Sometimes,
}

impl Trees {
    /// Those of a `TreeEnsembleRegressor` or `TreeEnsembleClassifier`.
    pub fn of_lists(node: &Node<'_>, targets: usize, names: &LeafNames) -> Result<Self> {
        let (ids, trees) = (node.ints("nodes_nodeids")?, node.ints("nodes_treeids")?);
        let (yes, no) = (node.ints("nodes_truenodeids")?, node.ints("nodes_falsenodeids")?);
        let (features, modes) = (node.ints("nodes_featureids")?, node.words("nodes_modes")?);
        let values = numbers(node, "nodes_values", "nodes_values_as_tensor")?;
        let missing = node.ints("nodes_missing_value_tracks_true")?;
        node.ignore(&["nodes_hitrates", "nodes_hitrates_as_tensor"]);
        let count = ids.len();
        let lengths = [trees.len(), yes.len(), no.len(), features.len(), modes.len(), values.len()];
        if lengths.iter().any(|length| *length != count) || (!missing.is_empty() && missing.len() != count) {
            return Err(damaged("the attributes of its nodes are not of one length"));
        }
        let mut places = HashMap::with_capacity(count);
        let mut roots = Vec::new();
        for at in 0..count {
            let is_root = at == 0 || trees[at - 1] != trees[at];
            if is_root {
                roots.push(at);
            }
            if places.insert((trees[at], ids[at]), at).is_some() {
                return Err(damaged(format!("tree {} has node {} twice", trees[at], ids[at])));
            }
        }
        let place = |tree: i64, id: i64| {
            places.get(&(tree, id)).copied().ok_or_else(|| damaged(format!("tree {tree} has no node {id}")))
        };
        let mut nodes = Vec::with_capacity(count);
        for at in 0..count {
            let mode = mode_of(&modes[at])?;
            let is_leaf = mode == Mode::Leaf;
            nodes.push(TreeNode {
                mode,
                feature: features[at],
                threshold: values[at],
                missing_is_true: missing.get(at) == Some(&1),
                yes: if is_leaf { 0 } else { place(trees[at], yes[at])? },
                no: if is_leaf { 0 } else { place(trees[at], no[at])? },
                set: 0,
            });
        }
        let mut made = Self { nodes, roots, weights: Vec::new(), sets: Vec::new(), targets };
        made.add_weights(node, names, place)?;
        Ok(made)
    }

    /// The weights of leaves, in the order of trees and nodes, else in that of the file.
    fn add_weights(
        &mut self,
        node: &Node<'_>,
        names: &LeafNames,
        place: impl Fn(i64, i64) -> Result<usize>,
    ) -> Result<()> {
        let (trees, ids, targets) = (node.ints(names.trees)?, node.ints(names.nodes)?, node.ints(names.ids)?);
        let values = numbers(node, names.weights, names.weights_as_tensor)?;
        if [trees.len(), ids.len(), values.len()].iter().any(|length| *length != targets.len()) {
            return Err(damaged("the attributes of its leaves are not of one length"));
        }
        let mut order: Vec<usize> = (0..targets.len()).collect();
        order.sort_by_key(|at| (trees[*at], ids[*at]));
        for at in order {
            let leaf = place(trees[at], ids[at])?;
            // Weights of inner nodes, which an old converter wrote, do not count.
            if self.nodes[leaf].mode != Mode::Leaf {
                continue;
            }
            let target = self.target(targets[at])?;
            if self.nodes[leaf].no == 0 {
                self.nodes[leaf].yes = self.weights.len();
            }
            self.weights.push((target, values[at]));
            self.nodes[leaf].no = self.weights.len();
        }
        match self.nodes.iter().any(|node| node.mode == Mode::Leaf && node.no == 0) {
            true => Err(damaged("a leaf has no weight")),
            false => Ok(()),
        }
    }

    fn target(&self, target: i64) -> Result<usize> {
        let found = usize::try_from(target).ok().filter(|target| *target < self.targets);
        found.ok_or_else(|| damaged(format!("a leaf is of target {target} of {}", self.targets)))
    }

    /// Those of a `TreeEnsemble`. Its leaves stand after the inner nodes.
    pub fn of_tensors(node: &Node<'_>, targets: usize) -> Result<Self> {
        let list = |name| node.tensor(name)?.map_or(Ok(Vec::new()), |tensor| floats(&tensor));
        let (features, thresholds) = (node.ints("nodes_featureids")?, list("nodes_splits")?);
        let modes = node.tensor_proto("nodes_modes")?.ok_or_else(|| damaged("it has no modes of nodes"))?;
        let modes: Vec<u8> = match (modes.data_type, modes.raw_data.is_empty()) {
            (2, false) => modes.raw_data.clone(),
            (2, true) => modes.int32_data.iter().map(|mode| u8::try_from(*mode).unwrap_or(u8::MAX)).collect(),
            _ => return Err(damaged("the modes of its nodes are not of type uint8")),
        };
        let (yes, no) = (node.ints("nodes_truenodeids")?, node.ints("nodes_falsenodeids")?);
        let (yes_leafs, no_leafs) = (node.ints("nodes_trueleafs")?, node.ints("nodes_falseleafs")?);
        let missing = node.ints("nodes_missing_value_tracks_true")?;
        node.ignore(&["nodes_hitrates"]);
        let count = features.len();
        let lengths = [thresholds.len(), modes.len(), yes.len(), no.len(), yes_leafs.len(), no_leafs.len()];
        if lengths.iter().any(|length| *length != count) || (!missing.is_empty() && missing.len() != count) {
            return Err(damaged("the attributes of its nodes are not of one length"));
        }
        let (leaf_targets, leaf_weights) = (node.ints("leaf_targetids")?, list("leaf_weights")?);
        if leaf_targets.len() != leaf_weights.len() {
            return Err(damaged("the attributes of its leaves are not of one length"));
        }
        let child = |id: i64, is_leaf: i64| {
            let (first, length) = if is_leaf == 0 { (0, count) } else { (count, leaf_targets.len()) };
            let place = usize::try_from(id).ok().filter(|id| *id < length);
            place.map(|id| first + id).ok_or_else(|| damaged(format!("a node has child {id} of {length}")))
        };
        let mut sets =
            list("membership_values")?.split(|value| value.is_nan()).map(<[f64]>::to_vec).collect::<Vec<_>>();
        sets.reverse();
        let mut made = Self { nodes: Vec::new(), roots: Vec::new(), weights: Vec::new(), sets: Vec::new(), targets };
        for at in 0..count {
            let mode = mode_of_number(modes[at])?;
            if mode == Mode::Among {
                made.sets.push(sets.pop().ok_or_else(|| damaged("a node lacks its set"))?);
            }
            made.nodes.push(TreeNode {
                mode,
                feature: features[at],
                threshold: thresholds[at],
                missing_is_true: missing.get(at) == Some(&1),
                yes: child(yes[at], yes_leafs[at])?,
                no: child(no[at], no_leafs[at])?,
                set: made.sets.len().saturating_sub(1),
            });
        }
        for (target, weight) in leaf_targets.iter().zip(leaf_weights) {
            let first = made.weights.len();
            made.weights.push((made.target(*target)?, weight));
            let leaf = TreeNode {
                mode: Mode::Leaf,
                feature: 0,
                threshold: 0.0,
                missing_is_true: false,
                yes: first,
                no: first + 1,
                set: 0,
            };
            made.nodes.push(leaf);
        }
        for root in node.ints("tree_roots")? {
            let root = child(*root, 0)?;
            let both = &made.nodes[root];
            // A tree of one leaf is a node that leads to it on both sides.
            made.roots.push(if both.yes == both.no && both.yes >= count { both.yes } else { root });
        }
        Ok(made)
    }

    pub fn count(&self) -> usize {
        self.roots.len()
    }

    /// The weights of the leaves.
    pub fn weights(&self) -> &[(usize, f64)] {
        &self.weights
    }

    /// The nodes of each tree, breadth first, with the place of the child on the yes side; the other one is the next. A
    /// node that has several parents comes as often, within a bound: what a converter makes of a set of categories is a
    /// chain of nodes with one child in common, and a hostile file has circles.
    pub fn copies(&self) -> Result<Vec<Copies>> {
        let mut left = self.nodes.len().saturating_mul(4).saturating_add(self.roots.len()).saturating_add(1000);
        let mut all = Vec::with_capacity(self.roots.len());
        for root in &self.roots {
            let mut copies: Copies = vec![(*root, 0)];
            let mut next = 0;
            while let Some((at, _)) = copies.get(next).copied() {
                let first = copies.len();
                let node = &self.nodes[at];
                if node.mode != Mode::Leaf {
                    copies[next].1 = first as u32;
                    copies.extend([(node.yes, 0), (node.no, 0)]);
                }
                next += 1;
                if copies.len() > left {
                    return Err(damaged("its trees go round in circles"));
                }
            }
            left -= copies.len();
            all.push(copies);
        }
        Ok(all)
    }

    fn leaves(&self, copies: &Copies) -> impl Iterator<Item = &[(usize, f64)]> {
        let leaves = copies.iter().map(|(at, _)| &self.nodes[*at]).filter(|node| node.mode == Mode::Leaf);
        leaves.map(|leaf| &self.weights[leaf.yes..leaf.no])
    }

    /// Which targets get something in every row: those that all leaves of one of the trees have.
    pub fn presence(&self, trees: &[Copies]) -> Vec<Presence> {
        let mut found = vec![Presence::Never; self.targets];
        // The last leaf that had the target, and how many had it.
        let mut seen = vec![(usize::MAX, 0_usize); self.targets];
        let mut number = 0;
        for copies in trees {
            seen.iter_mut().for_each(|seen| seen.1 = 0);
            let mut leaves = 0;
            for leaf in self.leaves(copies) {
                leaves += 1;
                number += 1;
                for (target, _) in leaf {
                    if seen[*target].0 != number {
                        seen[*target] = (number, seen[*target].1 + 1);
                    }
                }
            }
            for (found, (_, seen)) in found.iter_mut().zip(&seen) {
                if *seen == leaves {
                    *found = Presence::Always;
                } else if *seen > 0 && *found == Presence::Never {
                    *found = Presence::Sometimes;
                }
            }
        }
        found
    }

    /// Whether its leaves, each with a number for every target, are not out of proportion to the file.
    pub fn is_dense(&self, trees: &[Copies]) -> bool {
        let wide = trees.iter().filter(|copies| self.single_target(copies).is_none());
        let leaves: usize = wide.map(|copies| self.leaves(copies).count()).sum();
        leaves.saturating_mul(self.targets) <= self.weights.len().saturating_mul(256).saturating_add(1 << 22)
    }

    /// Adds a tree to a forest of as many sums as there are targets, or of twice as many: the second half counts.
    pub fn push<T: Real>(&self, forest: &mut Forest<T>, copies: &Copies, counts: bool, fold: Fold) -> Result<()> {
        let single = self.single_target(copies).filter(|_| !counts);
        let branch = |(at, first): &(usize, u32)| {
            let node = &self.nodes[*at];
            match (node.mode, single) {
                (Mode::Leaf, Some(_)) => Ok(Branch::Leaf(T::of(self.weights[node.yes].1))),
                (Mode::Leaf, None) => Ok(Branch::Leaves(self.leaf(node, counts, fold))),
                _ => self.split(node, *first),
            }
        };
        let branches = copies.iter().map(branch).collect::<Result<Vec<Branch<T>>>>()?;
        forest.push(&branches, single.unwrap_or(0), T::of(1.0))
    }

    /// The target of a tree whose leaves have one number each for the same one. Where there is one target alone, the
    /// first number counts (`value_or_unique_weight`).
    fn single_target(&self, copies: &Copies) -> Option<usize> {
        let first = self.leaves(copies).next()?.first()?.0;
        let is_single = |leaf: &[(usize, f64)]| matches!(leaf, [(target, _)] if *target == first);
        (self.targets == 1 || self.leaves(copies).all(is_single)).then_some(first)
    }

    fn leaf<T: Real>(&self, node: &TreeNode, counts: bool, fold: Fold) -> Box<[T]> {
        let mut values = vec![T::default(); if counts { self.targets * 2 } else { self.targets }];
        let mut seen = vec![false; self.targets];
        for (target, weight) in &self.weights[node.yes..node.no] {
            let (weight, value) = (T::of(*weight), &mut values[*target]);
            let is_first = !std::mem::replace(&mut seen[*target], true);
            match fold {
                Fold::Sum | Fold::Average => *value += weight,
                Fold::Min if is_first || weight < *value => *value = weight,
                Fold::Max if is_first || weight > *value => *value = weight,
                Fold::Min | Fold::Max => {}
            }
            if counts {
                values[self.targets + *target] = T::of(1.0);
            }
        }
        values.into()
    }

    /// A node as the forest knows it: what goes right there goes left here where the question is the other one.
    fn split<T: Real>(&self, node: &TreeNode, first: u32) -> Result<Branch<T>> {
        let feature =
            u32::try_from(node.feature).map_err(|_| damaged(format!("it splits on feature {}", node.feature)))?;
        let threshold = T::of(node.threshold);
        let (test, swapped) = match node.mode {
            Mode::AtMost => (Test::AtMost(threshold), false),
            Mode::Below => (Test::Below(threshold), false),
            Mode::AtLeast => (Test::Below(threshold), true),
            Mode::Above => (Test::AtMost(threshold), true),
            Mode::Equal => (Test::Equal(threshold), false),
            Mode::NotEqual => (Test::Equal(threshold), true),
            Mode::Among | Mode::Leaf => (among(self.sets.get(node.set).map_or(&[], Vec::as_slice))?, false),
        };
        let is_infinite = threshold.widened().is_infinite();
        let test = match test {
            // Every number is below, none is: the forest has no next number to compare with.
            Test::AtMost(threshold) if is_infinite && threshold.widened() > 0.0 => {
                Test::Among { set: CategorySet::default(), inside_left: false }
            }
            Test::Below(threshold) if is_infinite && threshold.widened() < 0.0 => {
                Test::Among { set: CategorySet::default(), inside_left: true }
            }
            test => test,
        };
        // NaN passes a question that it tracks, and that of whether it is another number than the threshold.
        let yes = node.missing_is_true || node.mode == Mode::NotEqual;
        let missing = if yes != swapped { Missing::Left } else { Missing::Right };
        let (left, right) = if swapped { (first + 1, first) } else { (first, first + 1) };
        Ok(Branch::Split(Split { feature, test, missing, left, right }))
    }
}

/// The nodes of a tree: which it is, and where its first child is.
pub(super) type Copies = Vec<(usize, u32)>;

fn among<T: Real>(set: &[f64]) -> Result<Test<T>> {
    if set.iter().any(|value| !(0.0..MAX_CATEGORY).contains(value) || value.fract() != 0.0) {
        return Err(refused("a set of categories that are not small whole numbers is not covered"));
    }
    let set = CategorySet::new(set.iter().map(|value| *value as u32), CategoryRule::Whole);
    Ok(Test::Among { set, inside_left: true })
}

fn mode_of(word: &[u8]) -> Result<Mode> {
    match word {
        b"BRANCH_LEQ" => Ok(Mode::AtMost),
        b"BRANCH_LT" => Ok(Mode::Below),
        b"BRANCH_GTE" => Ok(Mode::AtLeast),
        b"BRANCH_GT" => Ok(Mode::Above),
        b"BRANCH_EQ" => Ok(Mode::Equal),
        b"BRANCH_NEQ" => Ok(Mode::NotEqual),
        b"LEAF" => Ok(Mode::Leaf),
        other => Err(refused(format!("nodes of the mode {} are not covered", String::from_utf8_lossy(other)))),
    }
}

fn mode_of_number(number: u8) -> Result<Mode> {
    match number {
        0 => Ok(Mode::AtMost),
        1 => Ok(Mode::Below),
        2 => Ok(Mode::AtLeast),
        3 => Ok(Mode::Above),
        4 => Ok(Mode::Equal),
        5 => Ok(Mode::NotEqual),
        6 => Ok(Mode::Among),
        other => Err(refused(format!("nodes of the mode {other} are not covered"))),
    }
}

/// The numbers of a list, or of the tensor that is there instead.
pub(super) fn numbers(node: &Node<'_>, name: &'static str, as_tensor: &'static str) -> Result<Vec<f64>> {
    let list = node.floats(name)?;
    match node.tensor(as_tensor)? {
        Some(_) if !list.is_empty() => Err(damaged(format!("it has {name} and {as_tensor}"))),
        Some(tensor) => floats(&tensor),
        None => Ok(list.iter().map(|value| f64::from(*value)).collect()),
    }
}

fn floats(tensor: &Tensor<'_>) -> Result<Vec<f64>> {
    match &tensor.data {
        Data::F32(values) => Ok(values.iter().map(|value| f64::from(*value)).collect()),
        Data::F64(values) => Ok(values.clone()),
        _ => Err(damaged("an attribute is no tensor of float or double")),
    }
}
