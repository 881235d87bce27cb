//! Ensembles of binary decision trees, evaluated a block of rows at a time in the float type of their library.
//!
//! A missing value costs nothing extra: a feature has a slot in the block for each way in which nodes treat a missing
//! one (as -∞, which goes left everywhere, as +∞, which goes right, as zero), and a node reads the slot that it means.

mod bits;
mod branch;
mod perfect;
mod tree;

use std::collections::HashMap;

use self::bits::Bits;
use self::branch::ZERO;
use self::perfect::Perfect;
use self::tree::{BLOCK_ROWS, Block, LANES, Lookup, Node, SET, SLOTS, Tree};
use crate::error::{Error, Result};

pub(super) use self::branch::{Branch, CategoryRule, CategorySet, Missing, Real, Split, Test};

/// The trees of an ensemble, ready to be walked.
#[derive(Debug)]
pub(super) struct Forest<T: Real> {
    features: usize,
    groups: usize,
    /// The nodes of the trees that are in no special form.
    nodes: Vec<Node<T>>,
    trees: Vec<Shape<T>>,
    /// Features as nodes look at them.
    slots: Vec<(u32, Missing)>,
    slot_of: HashMap<(u32, Missing), u32>,
    lookups: Vec<Lookup<T>>,
}

/// The form in which a tree is fastest.
#[derive(Debug)]
enum Shape<T: Real> {
    Any(Tree<T>),
    Perfect(Perfect<T>),
    Bits(Bits<T>),
}

impl<T: Real> Forest<T> {
    /// A forest without trees over this many features, whose trees add up to this many sums.
    pub fn new(features: usize, groups: usize) -> Self {
        Self {
            features,
            groups: groups.max(1),
            nodes: Vec::new(),
            trees: Vec::new(),
            slots: Vec::new(),
            slot_of: HashMap::new(),
            lookups: Vec::new(),
        }
    }

    /// How many trees it has.
    pub fn trees(&self) -> usize {
        self.trees.len()
    }

    /// Adds a tree whose leaves add to the sum `group`; they count `weight` times.
    ///
    /// # Errors
    /// `Invalid` when the nodes are no tree: children, features or the group out of range, a node with two parents,
    /// leaves of different lengths, a threshold that is NaN, a leaf that is not finite.
    pub fn push(&mut self, branches: &[Branch<T>], group: usize, weight: T) -> Result<()> {
        let root = self.nodes.len();
        if branches.is_empty() || group >= self.groups {
            return Err(Error::invalid(format!("{} nodes for sum {group} of {}", branches.len(), self.groups)));
        }
        if root + branches.len() >= SET as usize {
            return Err(Error::invalid("the model has more than 2 billion nodes"));
        }
        let mut tree = Tree { root: root as u32, depth: 0, group, looks_up: false, width: 1, values: Vec::new() };
        let is_wide = branches.iter().any(|branch| matches!(branch, Branch::Leaves(_)));
        tree.width = if is_wide { self.groups } else { 1 };
        // Breadth first: `order[i]` is the file's index of our node `i`. It grows while it is walked; as no node may
        // be put into it twice, it ends.
        let mut order = vec![0_usize];
        let mut seen = vec![false; branches.len()];
        seen[0] = true;
        let (mut level_end, mut next) = (1, 0);
        while next < order.len() {
            if next == level_end {
                tree.depth += 1;
                level_end = order.len();
            }
            let node = order[next];
            let left = (root + order.len()) as u32;
            match &branches[node] {
                Branch::Split(split) => {
                    let made = self.split(split, left).map_err(|error| error.within(format_args!("node {node}")))?;
                    tree.looks_up |= made.slot & SET != 0;
                    self.nodes.push(made);
                    tree.values.resize(tree.values.len() + tree.width, T::default());
                    for child in [split.left, split.right] {
                        order.push(claim(child, node, &mut seen)?);
                    }
                }
                leaf => {
                    self.nodes.push(Node { threshold: T::NAN, slot: 0, left: (root + next) as u32 });
                    tree.leaf(leaf, weight).map_err(|error| error.within(format_args!("node {node}")))?;
                }
            }
            next += 1;
        }
        let special = tree.plain(&self.nodes).and_then(|own| {
            let perfect = Perfect::of(&tree, own).map(Shape::Perfect);
            perfect.or_else(|| Bits::of(&tree, own).map(Shape::Bits))
        });
        if special.is_some() {
            self.nodes.truncate(root);
        }
        self.trees.push(special.unwrap_or(Shape::Any(tree)));
        Ok(())
    }

    fn split(&mut self, split: &Split<T>, left: u32) -> Result<Node<T>> {
        if split.feature as usize >= self.features {
            return Err(Error::invalid(format!(
                "it splits on feature {}, the model has {}",
                split.feature, self.features
            )));
        }
        let threshold = match &split.test {
            Test::Below(threshold) => *threshold,
            Test::AtMost(threshold) => threshold.above(),
            Test::Equal(_) | Test::Among { .. } => {
                let slot = self.slot(split.feature, Missing::Kept);
                let missing_left = split.missing == Missing::Left;
                self.lookups.push(Lookup { slot, test: split.test.clone(), missing_left });
                return Ok(Node { threshold: T::default(), slot: SET | (self.lookups.len() - 1) as u32, left });
            }
        };
        if threshold.widened().is_nan() {
            return Err(Error::invalid("its threshold is no number"));
        }
        Ok(Node { threshold, slot: self.slot(split.feature, split.missing), left })
    }

    fn slot(&mut self, feature: u32, missing: Missing) -> u32 {
        let slots = &mut self.slots;
        *self.slot_of.entry((feature, missing)).or_insert_with(|| {
            slots.push((feature, missing));
            (slots.len() - 1) as u32
        })
    }

    /// Adds the trees' values to what is in `sums`, in the trees' order, row by row `groups` numbers. The columns are
    /// those of the features, all of the length of the rows; NaN is a missing value.
    pub fn add(&self, columns: &[&[f64]], sums: &mut [T]) {
        let mut slots = vec![[T::default(); BLOCK_ROWS]; self.slots.len().max(SLOTS)];
        let mut block = vec![[T::default(); BLOCK_ROWS]; self.groups];
        for (index, sums) in sums.chunks_mut(BLOCK_ROWS * self.groups).enumerate() {
            let (first, rows) = (index * BLOCK_ROWS, sums.len() / self.groups);
            for ((feature, missing), slot) in self.slots.iter().zip(&mut slots) {
                fill(&columns[*feature as usize][first..first + rows], *missing, slot);
            }
            for (row, sums) in sums.chunks(self.groups).enumerate() {
                block.iter_mut().zip(sums).for_each(|(block, sum)| block[row] = *sum);
            }
            self.add_block(&slots, rows, &mut block);
            for (row, sums) in sums.chunks_mut(self.groups).enumerate() {
                block.iter().zip(sums).for_each(|(block, sum)| *sum = block[row]);
            }
        }
    }

    /// The same for a block. Sums behind the rows get something that nobody looks at.
    fn add_block(&self, slots: &[Block<T>], rows: usize, sums: &mut [Block<T>]) {
        for tree in &self.trees {
            match (tree, slots.first_chunk()) {
                (Shape::Perfect(perfect), Some(slots)) => perfect.add(slots, rows, sums),
                (Shape::Bits(bits), Some(slots)) => bits.add(slots, rows, sums),
                (Shape::Any(tree), _) => {
                    for start in (0..rows).step_by(LANES) {
                        let at = match tree.looks_up {
                            false => tree.walk(&self.nodes, slots, start),
                            true => tree.look_up(&self.nodes, &self.lookups, slots, start),
                        };
                        tree.add(&at, start, sums);
                    }
                }
                (Shape::Perfect(_) | Shape::Bits(_), None) => {}
            }
        }
    }
}

/// Marks a child as having a parent.
fn claim(child: u32, parent: usize, seen: &mut [bool]) -> Result<usize> {
    let index = child as usize;
    if index >= seen.len() {
        return Err(Error::invalid(format!("node {parent} has child {} of {} nodes", child as i32, seen.len())));
    }
    if std::mem::replace(&mut seen[index], true) {
        return Err(Error::invalid(format!("node {index} has two parents, {parent} is one of them")));
    }
    Ok(index)
}

/// Puts a column into a slot, each value as `of` makes it.
fn put<T: Real>(column: &[f64], slot: &mut Block<T>, of: impl Fn(T) -> T) {
    column.iter().zip(slot).for_each(|(value, slot)| *slot = of(T::of(*value)));
}

/// Puts a column into a slot as nodes look at it.
fn fill<T: Real>(column: &[f64], missing: Missing, slot: &mut Block<T>) {
    let is_nan = |value: T| value.widened().is_nan();
    let is_zero = |value: T| is_nan(value) || value.widened().abs() <= ZERO;
    match missing {
        Missing::Left => put(column, slot, |value| if is_nan(value) { T::MIN } else { value }),
        Missing::Right => put(column, slot, |value| if is_nan(value) { T::MAX } else { value }),
        Missing::AsZero => put(column, slot, |value| if is_nan(value) { T::default() } else { value }),
        Missing::ZeroLeft => put(column, slot, |value| if is_zero(value) { T::MIN } else { value }),
        Missing::ZeroRight => put(column, slot, |value| if is_zero(value) { T::MAX } else { value }),
        Missing::Kept => put(column, slot, |value| value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A tree as a test writes it: a leaf, or feature, threshold, default and two trees.
    #[derive(Debug, Clone)]
    enum Drawn {
        Leaf(f32),
        Split(u32, f32, bool, Box<Drawn>, Box<Drawn>),
    }

    /// Depth first, unlike the forest's own order.
    fn branches(shape: &Drawn) -> Vec<Branch<f32>> {
        fn add(shape: &Drawn, all: &mut Vec<Branch<f32>>) -> u32 {
            let node = all.len();
            all.push(Branch::Leaf(0.0));
            all[node] = match shape {
                Drawn::Leaf(value) => Branch::Leaf(*value),
                Drawn::Split(feature, threshold, default_left, left, right) => {
                    let (left, right) = (add(left, all), add(right, all));
                    let missing = if *default_left { Missing::Left } else { Missing::Right };
                    Branch::Split(Split { feature: *feature, test: Test::Below(*threshold), missing, left, right })
                }
            };
            node as u32
        }
        let mut all = Vec::new();
        add(shape, &mut all);
        all
    }

    fn walk(shape: &Drawn, row: &[f64]) -> f32 {
        match shape {
            Drawn::Leaf(value) => *value,
            Drawn::Split(feature, threshold, default_left, left, right) => {
                let value = row[*feature as usize] as f32;
                let goes_left = if value.is_nan() { *default_left } else { value < *threshold };
                walk(if goes_left { left } else { right }, row)
            }
        }
    }

    fn shapes() -> impl Strategy<Value = Drawn> {
        let leaf = (-8_i8..8).prop_map(|value| Drawn::Leaf(f32::from(value) / 4.0));
        leaf.prop_recursive(12, 80, 2, |inner| {
            (0_u32..3, -4_i8..4, any::<bool>(), inner.clone(), inner).prop_map(
                |(feature, threshold, default_left, left, right)| {
                    Drawn::Split(feature, f32::from(threshold), default_left, Box::new(left), Box::new(right))
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

    /// A full tree of so many levels.
    fn full(level: u32, levels: u32, next: &mut i32) -> Drawn {
        *next += 1;
        if level == levels {
            return Drawn::Leaf(*next as f32);
        }
        let (feature, threshold, default_left) = (level % 3, (*next * 7 % 11 - 5) as f32, *next % 2 == 0);
        let [left, right] = [0, 1].map(|_| Box::new(full(level + 1, levels, next)));
        Drawn::Split(feature, threshold, default_left, left, right)
    }

    /// A tree that has a leaf on each level, now on the left and then on the right.
    fn chain(levels: u32) -> Drawn {
        (0..levels).fold(Drawn::Leaf(-1.0), |below, level| {
            let mut sides = [Box::new(Drawn::Leaf(level as f32)), Box::new(below)];
            sides.rotate_left(level as usize % 2);
            let [left, right] = sides;
            Drawn::Split(level % 3, (level * 7 % 11) as f32 - 5.0, level % 2 == 0, left, right)
        })
    }

    /// A leaf of two numbers instead of one.
    fn doubled(branch: Branch<f32>) -> Branch<f32> {
        match branch {
            Branch::Leaf(value) => Branch::Leaves([value, value * 2.0].into()),
            other => other,
        }
    }

    #[test]
    fn every_form_of_a_tree_gives_what_a_walk_from_the_root_gives() {
        let rows: Vec<[f64; 3]> = (0..150_u32)
            .map(|row| {
                [5, 7, 13].map(|step| if row * step % 17 == 3 { f64::NAN } else { f64::from(row * step % 12) - 6.0 })
            })
            .collect();
        let columns: Vec<Vec<f64>> = (0..3).map(|f| rows.iter().map(|row| row[f]).collect()).collect();
        let columns: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
        let trees = (0..=10).map(|levels| full(0, levels, &mut 0)).chain((1..40).map(chain));
        let mut forms = [0; 3];
        for tree in trees {
            let mut forest = Forest::new(3, 1);
            forest.push(&branches(&tree), 0, 1.0).unwrap();
            forms[match forest.trees[0] {
                Shape::Perfect(_) => 0,
                Shape::Bits(_) => 1,
                Shape::Any(_) => 2,
            }] += 1;
            for count in [0, 1, 15, 64, 100, 150] {
                let columns: Vec<&[f64]> = columns.iter().map(|column| &column[..count]).collect();
                let mut out = vec![0.25; count];
                forest.add(&columns, &mut out);
                let leaves: Vec<f32> = rows[..count].iter().map(|row| walk(&tree, row)).collect();
                let expected: Vec<f32> = leaves.iter().map(|leaf| 0.25 + leaf).collect();
                assert_eq!(out, expected, "{tree:?}");
                // And with leaves of several numbers.
                let mut forest = Forest::new(3, 2);
                forest.push(&branches(&tree).into_iter().map(doubled).collect::<Vec<_>>(), 0, 1.0).unwrap();
                let mut out = vec![0.25; count * 2];
                forest.add(&columns, &mut out);
                let expected: Vec<f32> = leaves.iter().flat_map(|leaf| [0.25 + leaf, 0.25 + leaf * 2.0]).collect();
                assert_eq!(out, expected, "{tree:?}");
            }
        }
        assert_eq!(forms, [15, 25, 10]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn blocks_give_what_a_walk_from_the_root_gives(
            trees in prop::collection::vec(shapes(), 0..6),
            rows in prop::collection::vec([values(), values(), values()], 0..200),
        ) {
            let mut forest = Forest::new(3, 1);
            for tree in &trees {
                forest.push(&branches(tree), 0, 0.5).unwrap();
            }
            let columns: Vec<Vec<f64>> = (0..3).map(|f| rows.iter().map(|row| row[f]).collect()).collect();
            let columns: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
            let mut out = vec![0.25; rows.len()];
            forest.add(&columns, &mut out);
            for (row, out) in rows.iter().zip(out) {
                let expected = trees.iter().fold(0.25, |sum, tree| sum + walk(tree, row) * 0.5);
                prop_assert_eq!(out, expected);
            }
        }

        #[test]
        fn nodes_of_nonsense_are_refused_or_end(
            nodes in prop::collection::vec((0_u32..8, 0_u32..8, 0_u32..4, any::<f32>(), 0..3), 0..8),
        ) {
            let branches: Vec<Branch<f32>> = nodes.iter().map(|(left, right, feature, number, kind)| {
                let missing = Missing::Left;
                let test = if *kind == 1 { Test::Below(*number) } else { Test::Equal(*number) };
                let split = Split { feature: *feature, test, missing, left: *left, right: *right };
                if *kind == 0 { Branch::Leaf(*number) } else { Branch::Split(split) }
            }).collect();
            let mut forest = Forest::new(3, 1);
            if forest.push(&branches, 0, 1.0).is_ok() {
                let mut out = [0.0; 3];
                forest.add(&[&[0.0; 3], &[1.0; 3], &[f64::NAN; 3]], &mut out);
                prop_assert!(nodes.iter().any(|node| node.3 == out[0]));
            }
        }
    }

    fn split(feature: u32, test: Test<f64>, missing: Missing) -> Vec<Branch<f64>> {
        let split = Split { feature, test, missing, left: 1, right: 2 };
        vec![Branch::Split(split), Branch::Leaf(1.0), Branch::Leaf(2.0)]
    }

    /// 1 for what goes left, 2 for what goes right.
    fn sides(test: Test<f64>, missing: Missing, values: &[f64]) -> Vec<f64> {
        let mut forest = Forest::new(1, 1);
        forest.push(&split(0, test, missing), 0, 1.0).unwrap();
        let mut out = vec![0.0; values.len()];
        forest.add(&[values], &mut out);
        out
    }

    #[test]
    fn libraries_treat_what_is_missing_in_their_own_way() {
        let values = [f64::NAN, 0.0, 1e-36, -1.0, 2.0, f64::INFINITY];
        let below = || Test::Below(0.5);
        assert_eq!(sides(below(), Missing::Left, &values), [1.0, 1.0, 1.0, 1.0, 2.0, 2.0]);
        assert_eq!(sides(below(), Missing::Right, &values), [2.0, 1.0, 1.0, 1.0, 2.0, 2.0]);
        assert_eq!(sides(Test::Below(-0.5), Missing::AsZero, &values), [2.0, 2.0, 2.0, 1.0, 2.0, 2.0]);
        assert_eq!(sides(below(), Missing::ZeroRight, &values), [2.0, 2.0, 2.0, 1.0, 2.0, 2.0]);
        assert_eq!(sides(Test::Below(-0.5), Missing::ZeroLeft, &values), [1.0, 1.0, 1.0, 1.0, 2.0, 2.0]);
        assert_eq!(sides(Test::AtMost(2.0), Missing::Left, &[2.0, 2.0_f64.next_up()]), [1.0, 2.0]);
    }

    #[test]
    fn categories_are_looked_up() {
        let values = [f64::NAN, 1.0, 2.0, 2.7, -0.5, 0.0, -1.0, 70.0, 1e300, f64::INFINITY];
        let among = |rule, inside_left| Test::Among { set: CategorySet::new([0, 2, 70], rule), inside_left };
        let left = |rule| sides(among(rule, true), Missing::Right, &values);
        assert_eq!(left(CategoryRule::Truncated), [2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 2.0, 1.0, 2.0, 2.0]);
        assert_eq!(left(CategoryRule::NotNegative), [2.0, 2.0, 1.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 2.0]);
        assert_eq!(left(CategoryRule::Whole), [2.0, 2.0, 1.0, 2.0, 2.0, 1.0, 2.0, 1.0, 2.0, 2.0]);
        let right = sides(among(CategoryRule::Truncated, false), Missing::Left, &values);
        assert_eq!(right, [1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 1.0, 2.0, 1.0, 1.0]);
        assert_eq!(sides(Test::Equal(2.0), Missing::Left, &values[..4]), [1.0, 2.0, 1.0, 2.0]);
    }

    #[test]
    fn trees_of_several_sums_and_leaves_of_several_numbers_add_up() {
        let mut forest = Forest::new(2, 2);
        forest.push(&split(0, Test::Below(0.0), Missing::Left), 1, 10.0).unwrap();
        let mut wide = split(1, Test::Below(0.0), Missing::Left);
        wide[1] = Branch::Leaves([0.25, 0.5].into());
        assert_eq!(
            forest.push(&wide, 0, 1.0).unwrap_err().to_string(),
            "node 2: its leaf has 1 numbers and another one 2"
        );
        wide[2] = Branch::Leaves([4.0, 8.0].into());
        let mut forest = Forest::new(2, 2);
        forest.push(&split(0, Test::Below(0.0), Missing::Left), 1, 10.0).unwrap();
        forest.push(&wide, 0, 1.0).unwrap();
        let mut out = [100.0, 200.0, 100.0, 200.0];
        forest.add(&[&[-1.0, 1.0], &[1.0, -1.0]], &mut out);
        assert_eq!(out, [104.0, 218.0, 100.25, 220.5]);
        assert_eq!(forest.trees(), 2);
    }

    #[test]
    fn a_chain_deeper_than_a_stride_is_walked_to_its_end() {
        let mut shape = Drawn::Leaf(100.0);
        for level in (0..100).rev() {
            shape = Drawn::Split(0, level as f32, true, Box::new(Drawn::Leaf(level as f32)), Box::new(shape));
        }
        let mut forest = Forest::new(1, 1);
        forest.push(&branches(&shape), 0, 1.0).unwrap();
        let column: Vec<f64> = (0..120).map(f64::from).collect();
        let mut out = vec![0.0; 120];
        forest.add(&[&column], &mut out);
        let expected: Vec<f32> = (0..120).map(|value| (value as f32 + 1.0).min(100.0)).collect();
        assert_eq!(out, expected);
    }

    #[test]
    fn what_is_no_tree_is_refused() {
        let split = |feature, threshold, left, right| {
            Branch::Split(Split { feature, test: Test::Below(threshold), missing: Missing::Left, left, right })
        };
        let leaf = || Branch::Leaf(1.0_f32);
        let fault = |nodes: &[Branch<f32>]| Forest::new(1, 1).push(nodes, 0, 1.0).unwrap_err().to_string();
        Forest::new(1, 1).push(&[split(0, 0.5, 1, 2), leaf(), leaf()], 0, 1.0).unwrap();
        assert_eq!(fault(&[split(0, 0.5, 1, 1), leaf()]), "node 1 has two parents, 0 is one of them");
        assert_eq!(fault(&[split(0, 0.5, 0, 1), leaf()]), "node 0 has two parents, 0 is one of them");
        assert_eq!(fault(&[split(0, 0.5, 1, 2), leaf()]), "node 0 has child 2 of 2 nodes");
        assert_eq!(fault(&[split(0, 0.5, 1, u32::MAX), leaf()]), "node 0 has child -1 of 2 nodes");
        assert_eq!(fault(&[split(7, 0.5, 1, 2), leaf(), leaf()]), "node 0: it splits on feature 7, the model has 1");
        assert_eq!(fault(&[split(0, f32::NAN, 1, 2), leaf(), leaf()]), "node 0: its threshold is no number");
        assert_eq!(fault(&[Branch::Leaf(f32::INFINITY)]), "node 0: it has a number that is not finite");
        assert_eq!(fault(&[]), "0 nodes for sum 0 of 1");
    }
}
