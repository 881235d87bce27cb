//! Ensembles of binary decision trees over f32 features, evaluated a block of rows at a time.
//!
//! Layout: all nodes of all trees in one array, breadth first, so that the right child follows the left one and a step
//! is `left + (value >= threshold)`, without a branch. A leaf is a node that leads to itself, so that every row of a
//! block takes the same number of steps. A missing value costs nothing extra: each feature has two slots in the block,
//! one with missing = -∞ (goes left everywhere) and one with +∞ (goes right everywhere), and a node reads the slot of
//! its default direction. Several rows walk one tree in turn, which hides the latency of the loads.

use crate::error::{Error, Result};

/// Rows of a block: its slots stay in the first-level cache.
const BLOCK_ROWS: usize = 64;
/// Rows that walk a tree in turn.
const LANES: usize = 16;
/// Steps after which a walk looks whether all its rows have reached a leaf.
const STRIDE: u32 = 8;

/// A tree as its file says it: parallel arrays over the nodes, node 0 is the root.
#[derive(Debug, Clone, Copy)]
pub(super) struct TreeArrays<'a> {
    /// The left child of each node, negative for a leaf.
    pub left: &'a [i32],
    /// The right child of each node.
    pub right: &'a [i32],
    /// The feature that each inner node compares.
    pub feature: &'a [u32],
    /// The threshold of each inner node (a smaller value goes left), the value of each leaf.
    pub condition: &'a [f32],
    /// Where a missing value goes.
    pub default_left: &'a [bool],
}

/// The trees of an ensemble, ready to be walked.
#[derive(Debug)]
pub(super) struct Forest {
    features: usize,
    nodes: Vec<Node>,
    trees: Vec<Tree>,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    /// The threshold; NaN for a leaf, which no value reaches.
    threshold: f32,
    /// Twice the feature, plus one where a missing value goes right.
    slot: u32,
    /// The left child; the right one is the next. A leaf's is itself.
    left: u32,
}

#[derive(Debug)]
struct Tree {
    root: u32,
    /// Steps from the root to the deepest leaf.
    depth: u32,
    /// The value of each leaf, by its distance from `root` in the node array; 0 for inner nodes.
    values: Vec<f32>,
}

/// A block of rows: `[2 * feature + default_right][row]`.
type Slots = [[f32; BLOCK_ROWS]];

impl Forest {
    /// A forest without trees over this many features.
    pub fn new(features: usize) -> Self {
        Self { features, nodes: Vec::new(), trees: Vec::new() }
    }

    /// Adds a tree; its leaves count `weight` times.
    ///
    /// # Errors
    /// `Invalid` when the arrays do not describe a tree: lengths, children or features out of range, a node with two
    /// parents, a number that is not finite.
    pub fn push(&mut self, tree: TreeArrays<'_>, weight: f32) -> Result<()> {
        let nodes = tree.left.len();
        let lengths = [tree.right.len(), tree.feature.len(), tree.condition.len(), tree.default_left.len()];
        if nodes == 0 || lengths.iter().any(|&length| length != nodes) {
            return Err(Error::invalid(format!("its arrays have lengths {nodes} and {lengths:?}")));
        }
        let root = self.nodes.len();
        if u32::try_from(root + nodes).is_err() {
            return Err(Error::invalid("the model has more than 4 billion nodes"));
        }
        // Breadth first: `order[i]` is the file's index of our node `i`. It grows while it is walked; as no node may
        // be put into it twice, it ends.
        let mut order = vec![0_usize];
        let mut seen = vec![false; nodes];
        seen[0] = true;
        let mut values = Vec::with_capacity(nodes);
        let (mut depth, mut level_end) = (0, 1);
        let mut next = 0;
        while next < order.len() {
            if next == level_end {
                depth += 1;
                level_end = order.len();
            }
            let node = order[next];
            let condition = tree.condition[node];
            if !condition.is_finite() {
                return Err(Error::invalid(format!("node {node} has a number that is not finite")));
            }
            if tree.left[node] < 0 {
                self.nodes.push(Node { threshold: f32::NAN, slot: 0, left: (root + next) as u32 });
                values.push(condition * weight);
            } else {
                let slot = self.slot(tree, node)?;
                self.nodes.push(Node { threshold: condition, slot, left: (root + order.len()) as u32 });
                values.push(0.0);
                for child in [tree.left[node], tree.right[node]] {
                    order.push(claim(child, node, &mut seen)?);
                }
            }
            next += 1;
        }
        self.trees.push(Tree { root: root as u32, depth, values });
        Ok(())
    }

    fn slot(&self, tree: TreeArrays<'_>, node: usize) -> Result<u32> {
        let feature = tree.feature[node];
        if feature as usize >= self.features {
            return Err(Error::invalid(format!(
                "node {node} splits on feature {feature}, the model has {}",
                self.features
            )));
        }
        Ok(feature * 2 + u32::from(!tree.default_left[node]))
    }

    /// Adds the trees' values to `base`, in the trees' order, in f32: `out[row]` becomes the sum. `columns` are as in
    /// [`Model::predict`](super::Model::predict), their shape already checked.
    pub fn margins(&self, base: f32, columns: &[&[f64]], out: &mut [f32]) {
        let mut slots = vec![[0.0; BLOCK_ROWS]; self.features.max(1) * 2];
        for (block, out) in out.chunks_mut(BLOCK_ROWS).enumerate() {
            let first = block * BLOCK_ROWS;
            for (column, slots) in columns.iter().zip(slots.chunks_exact_mut(2)) {
                fill(&column[first..first + out.len()], slots);
            }
            let mut sums = [base; BLOCK_ROWS];
            for tree in &self.trees {
                for start in (0..out.len()).step_by(LANES) {
                    tree.add(&self.nodes, &slots, start, &mut sums);
                }
            }
            out.copy_from_slice(&sums[..out.len()]);
        }
    }
}

impl Tree {
    /// Adds this tree's values for the rows `start..start + LANES` of the block. Rows beyond the block's end hold
    /// what an earlier block left there: they are walked and nobody looks at them.
    #[inline]
    fn add(&self, nodes: &[Node], slots: &Slots, start: usize, sums: &mut [f32; BLOCK_ROWS]) {
        let mut at = [self.root; LANES];
        let mut left = self.depth;
        while left > 0 {
            let before = at;
            for _ in 0..left.min(STRIDE) {
                for (lane, at) in at.iter_mut().enumerate() {
                    let node = nodes[*at as usize];
                    let value = slots[node.slot as usize][(start + lane) % BLOCK_ROWS];
                    *at = node.left + u32::from(value >= node.threshold);
                }
            }
            if at == before {
                break;
            }
            left = left.saturating_sub(STRIDE);
        }
        for (lane, at) in at.iter().enumerate() {
            sums[(start + lane) % BLOCK_ROWS] += self.values[(at - self.root) as usize];
        }
    }
}

/// Marks a child as having a parent.
fn claim(child: i32, parent: usize, seen: &mut [bool]) -> Result<usize> {
    let index = usize::try_from(child).ok().filter(|&child| child < seen.len());
    let Some(index) = index else {
        return Err(Error::invalid(format!("node {parent} has child {child} of {} nodes", seen.len())));
    };
    if std::mem::replace(&mut seen[index], true) {
        return Err(Error::invalid(format!("node {index} has two parents, {parent} is one of them")));
    }
    Ok(index)
}

/// Puts a column into its two slots, which differ in what stands for a missing value.
fn fill(column: &[f64], slots: &mut [[f32; BLOCK_ROWS]]) {
    let [left, right] = slots else { return };
    for ((value, left), right) in column.iter().zip(left).zip(right) {
        let value = *value as f32;
        *left = if value.is_nan() { f32::NEG_INFINITY } else { value };
        *right = if value.is_nan() { f32::INFINITY } else { value };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A tree as a test writes it: a leaf, or feature, threshold, default and two trees.
    #[derive(Debug, Clone)]
    enum Shape {
        Leaf(f32),
        Split(u32, f32, bool, Box<Shape>, Box<Shape>),
    }

    #[derive(Debug, Default)]
    struct Arrays {
        left: Vec<i32>,
        right: Vec<i32>,
        feature: Vec<u32>,
        condition: Vec<f32>,
        default_left: Vec<bool>,
    }

    impl Arrays {
        /// Depth first, unlike the forest's own order.
        fn add(&mut self, shape: &Shape) -> i32 {
            let node = self.left.len();
            self.left.push(-1);
            self.right.push(-1);
            let (feature, condition, default_left) = match shape {
                Shape::Leaf(value) => (0, *value, false),
                Shape::Split(feature, threshold, default_left, ..) => (*feature, *threshold, *default_left),
            };
            self.feature.push(feature);
            self.condition.push(condition);
            self.default_left.push(default_left);
            if let Shape::Split(.., left, right) = shape {
                self.left[node] = self.add(left);
                self.right[node] = self.add(right);
            }
            node as i32
        }

        fn tree(&self) -> TreeArrays<'_> {
            TreeArrays {
                left: &self.left,
                right: &self.right,
                feature: &self.feature,
                condition: &self.condition,
                default_left: &self.default_left,
            }
        }
    }

    fn walk(shape: &Shape, row: &[f64]) -> f32 {
        match shape {
            Shape::Leaf(value) => *value,
            Shape::Split(feature, threshold, default_left, left, right) => {
                let value = row[*feature as usize] as f32;
                let goes_left = if value.is_nan() { *default_left } else { value < *threshold };
                walk(if goes_left { left } else { right }, row)
            }
        }
    }

    fn shapes() -> impl Strategy<Value = Shape> {
        let leaf = (-8_i8..8).prop_map(|value| Shape::Leaf(f32::from(value) / 4.0));
        leaf.prop_recursive(12, 80, 2, |inner| {
            (0_u32..3, -4_i8..4, any::<bool>(), inner.clone(), inner).prop_map(
                |(feature, threshold, default_left, left, right)| {
                    Shape::Split(feature, f32::from(threshold), default_left, Box::new(left), Box::new(right))
                },
            )
        })
    }

    fn values() -> impl Strategy<Value = f64> {
        prop_oneof![
            Just(f64::NAN),
            Just(-0.0),
            Just(1e300),
            Just(f64::NEG_INFINITY),
            (-5_i8..5).prop_map(f64::from),
            -5.0..5.0
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn blocks_give_what_a_walk_from_the_root_gives(
            trees in prop::collection::vec(shapes(), 0..6),
            rows in prop::collection::vec([values(), values(), values()], 0..200),
        ) {
            let mut forest = Forest::new(3);
            for tree in &trees {
                let mut arrays = Arrays::default();
                arrays.add(tree);
                forest.push(arrays.tree(), 0.5).unwrap();
            }
            let columns: Vec<Vec<f64>> = (0..3).map(|f| rows.iter().map(|row| row[f]).collect()).collect();
            let columns: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
            let mut out = vec![0.0; rows.len()];
            forest.margins(0.25, &columns, &mut out);
            for (row, out) in rows.iter().zip(out) {
                let expected = trees.iter().fold(0.25, |sum, tree| sum + walk(tree, row) * 0.5);
                prop_assert_eq!(out, expected);
            }
        }

        #[test]
        fn arrays_of_nonsense_are_refused_or_end(
            nodes in prop::collection::vec((-2_i32..8, -2_i32..8, 0_u32..4, any::<f32>(), any::<bool>()), 0..8),
        ) {
            let mut arrays = Arrays::default();
            for (left, right, feature, condition, default_left) in nodes {
                arrays.left.push(left);
                arrays.right.push(right);
                arrays.feature.push(feature);
                arrays.condition.push(condition);
                arrays.default_left.push(default_left);
            }
            let mut forest = Forest::new(3);
            if forest.push(arrays.tree(), 1.0).is_ok() {
                let mut out = [0.0; 3];
                forest.margins(0.0, &[&[0.0; 3], &[1.0; 3], &[f64::NAN; 3]], &mut out);
                prop_assert!(arrays.condition.contains(&out[0]));
            }
        }
    }

    #[test]
    fn a_chain_deeper_than_a_stride_is_walked_to_its_end() {
        let mut shape = Shape::Leaf(100.0);
        for level in (0..100).rev() {
            shape = Shape::Split(0, level as f32, true, Box::new(Shape::Leaf(level as f32)), Box::new(shape));
        }
        let mut arrays = Arrays::default();
        arrays.add(&shape);
        let mut forest = Forest::new(1);
        forest.push(arrays.tree(), 1.0).unwrap();
        let column: Vec<f64> = (0..120).map(f64::from).collect();
        let mut out = vec![0.0; 120];
        forest.margins(0.0, &[&column], &mut out);
        let expected: Vec<f32> = (0..120).map(|value| (value as f32 + 1.0).min(100.0)).collect();
        assert_eq!(out, expected);
    }

    #[test]
    fn what_is_no_tree_is_refused() {
        let (left, right, feature, condition) = ([1, -1, -1], [2, -1, -1], [0, 0, 0], [0.5, 1.0, 2.0]);
        let good = TreeArrays {
            left: &left,
            right: &right,
            feature: &feature,
            condition: &condition,
            default_left: &[false; 3],
        };
        let fault = |tree: TreeArrays<'_>| Forest::new(1).push(tree, 1.0).unwrap_err().to_string();
        Forest::new(1).push(good, 1.0).unwrap();
        assert_eq!(
            fault(TreeArrays { right: &[1, -1, -1], ..good }),
            "node 1 has two parents, 0 is one of them",
            "one child twice"
        );
        assert_eq!(fault(TreeArrays { right: &[0, -1, -1], ..good }), "node 0 has two parents, 0 is one of them");
        assert_eq!(fault(TreeArrays { right: &[3, -1, -1], ..good }), "node 0 has child 3 of 3 nodes");
        assert_eq!(fault(TreeArrays { right: &[-1, -1, -1], ..good }), "node 0 has child -1 of 3 nodes");
        assert_eq!(fault(TreeArrays { feature: &[7, 0, 0], ..good }), "node 0 splits on feature 7, the model has 1");
        assert_eq!(fault(TreeArrays { right: &[2], ..good }), "its arrays have lengths 3 and [1, 3, 3, 3]");
        assert_eq!(
            fault(TreeArrays { condition: &[0.5, f32::INFINITY, 0.0], ..good }),
            "node 1 has a number that is not finite"
        );
    }
}
