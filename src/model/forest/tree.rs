//! A tree of any shape: several rows walk it in turn, which hides the latency of the loads.
//!
//! Layout: the nodes of all trees in one array, each tree breadth first, so that the right child follows the left one
//! and a step is `left + (value >= threshold)`, without a branch. A leaf is a node that leads to itself, so that every
//! row takes the same number of steps. Trees that ask whether a category is in a set are walked row by row.

use super::branch::{Branch, Real, Test};
use crate::error::{Error, Result};

/// Rows of a block: its slots stay in the first-level cache.
pub(super) const BLOCK_ROWS: usize = 64;
/// Rows that walk a tree in turn.
pub(super) const LANES: usize = 16;
/// Steps after which a walk looks whether all its rows have reached a leaf.
const STRIDE: u32 = 8;
/// Marks the slot of a node that looks into a set: the rest is its number.
pub(super) const SET: u32 = 1 << 31;

/// Slots that nodes of trees in a special form may read.
pub(super) const SLOTS: usize = 256;

/// A number of each row of a block.
pub(super) type Block<T> = [T; BLOCK_ROWS];
/// The first slots of a block.
pub(super) type Slots<T> = [Block<T>; SLOTS];

#[derive(Debug, Clone, Copy)]
pub(super) struct Node<T> {
    /// The threshold; NaN for a leaf, which no value reaches.
    pub threshold: T,
    /// The slot, or with [`SET`] the number of a lookup.
    pub slot: u32,
    /// The left child; the right one is the next. A leaf's is itself.
    pub left: u32,
}

/// A node that looks for more than where a value lies.
#[derive(Debug)]
pub(super) struct Lookup<T> {
    pub slot: u32,
    pub test: Test<T>,
    pub missing_left: bool,
}

#[derive(Debug)]
pub(super) struct Tree<T> {
    pub root: u32,
    /// Steps from the root to the deepest leaf.
    pub depth: u32,
    /// The sum to which the leaves add; of no meaning where they add to all.
    pub group: usize,
    /// Whether it has lookups.
    pub looks_up: bool,
    /// How many numbers each leaf has: one, or one for each sum.
    pub width: usize,
    /// The numbers of each leaf, by its distance from `root` in the node array; 0 for inner nodes.
    pub values: Vec<T>,
}

impl<T: Real> Tree<T> {
    /// Adds the values of a leaf.
    pub fn leaf(&mut self, branch: &Branch<T>, weight: T) -> Result<()> {
        let (one, many): ([T; 1], &[T]) = match branch {
            Branch::Leaf(value) => ([*value], &[]),
            Branch::Leaves(values) => ([T::default()], values),
            Branch::Split(_) => ([T::default()], &[]),
        };
        let values = if many.is_empty() { &one[..] } else { many };
        if values.len() != self.width {
            return Err(Error::invalid(format!(
                "its leaf has {} numbers and another one {}",
                values.len(),
                self.width
            )));
        }
        if values.iter().any(|value| !value.widened().is_finite()) {
            return Err(Error::invalid("it has a number that is not finite"));
        }
        self.values.extend(values.iter().map(|value| *value * weight));
        Ok(())
    }

    /// The sums to which its leaves add, each with a value for every node.
    pub fn sums(&self) -> impl Iterator<Item = (usize, Vec<T>)> {
        let first = if self.width == 1 { self.group } else { 0 };
        let values = |own: usize| self.values.iter().skip(own).step_by(self.width).copied().collect();
        (0..self.width).map(move |own| (first + own, values(own)))
    }

    /// Its nodes, if they only look where values lie, in the first slots.
    pub fn plain<'n>(&self, nodes: &'n [Node<T>]) -> Option<&'n [Node<T>]> {
        let own = nodes.get(self.root as usize..)?;
        let is_near = |node: &Node<T>| node.slot & SET == 0 && (node.slot as usize) < SLOTS;
        (!self.looks_up && own.iter().all(is_near)).then_some(own)
    }

    /// The leaves of the rows `start..start + LANES` of the block. Rows beyond the block's end hold what an earlier
    /// block left there: they are walked and nobody looks at them.
    #[inline]
    pub fn walk(&self, nodes: &[Node<T>], slots: &[Block<T>], start: usize) -> [u32; LANES] {
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
        at
    }

    /// The same for trees with lookups.
    pub fn look_up(&self, nodes: &[Node<T>], lookups: &[Lookup<T>], slots: &[Block<T>], start: usize) -> [u32; LANES] {
        let mut leaves = [self.root; LANES];
        for (lane, at) in leaves.iter_mut().enumerate() {
            let row = (start + lane) % BLOCK_ROWS;
            for _ in 0..self.depth {
                let node = nodes[*at as usize];
                let is_leaf = node.left == *at;
                *at = match lookups.get((node.slot & !SET) as usize) {
                    _ if is_leaf => break,
                    Some(lookup) if node.slot & SET != 0 => node.left + u32::from(!lookup.passes(slots, row)),
                    _ => node.left + u32::from(slots[node.slot as usize][row] >= node.threshold),
                };
            }
        }
        leaves
    }

    /// Adds the values of leaves to the sums.
    #[inline]
    pub fn add(&self, at: &[u32; LANES], start: usize, sums: &mut [Block<T>]) {
        let leaf = |at: u32| (at - self.root) as usize * self.width;
        for (lane, at) in at.iter().enumerate() {
            let row = (start + lane) % BLOCK_ROWS;
            if self.width == 1 {
                sums[self.group][row] += self.values[leaf(*at)];
                continue;
            }
            let values = &self.values[leaf(*at)..][..self.width];
            sums.iter_mut().zip(values).for_each(|(sum, value)| sum[row] += *value);
        }
    }
}

impl<T: Real> Lookup<T> {
    fn passes(&self, slots: &[Block<T>], row: usize) -> bool {
        let value = slots[self.slot as usize][row];
        if value.widened().is_nan() {
            return self.missing_left;
        }
        match &self.test {
            Test::Below(other) => value < *other,
            Test::AtMost(other) => value <= *other,
            Test::Equal(other) => value == *other,
            Test::Among { set, inside_left } => set.holds(value.widened()) == *inside_left,
        }
    }
}
