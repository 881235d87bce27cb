//! A tree of few leaves but any depth, evaluated without walking it, as QuickScorer does (Lucchese et al., SIGIR 2015;
//! for several rows at once as in V-QuickScorer, SIGIR 2016).
//!
//! The leaves are bits, from left to right. Every node that sends a row to the right takes the leaves of its left side
//! away, whether the row comes by it or not. The lowest bit that is left is the row's leaf: what is left of it lies on
//! the left side of a node on its way that sent it to the right, and it lies itself on the left side of no such node.

use super::branch::{Real, Word as _};
use super::tree::{BLOCK_ROWS, Block, Node, Slots, Tree};

/// Rows that are evaluated at once: enough for the compiler to use wide instructions, where fewer would be unrolled.
const LANES: usize = 32;

/// A tree whose nodes are all evaluated.
#[derive(Debug)]
pub(super) struct Bits<T: Real> {
    cuts: Vec<Cut<T>>,
    /// A bit for each leaf.
    all: T::Word,
    /// The sums to which the leaves add, with the values of the leaves from the left.
    leaves: Vec<(usize, Vec<T>)>,
}

/// A node.
#[derive(Debug)]
struct Cut<T: Real> {
    threshold: T,
    /// The leaves of its left side.
    lefts: T::Word,
    slot: u8,
}

impl<T: Real> Bits<T> {
    /// The bits of a tree, unless it has more leaves than a word has bits.
    pub fn of(tree: &Tree<T>, own: &[Node<T>]) -> Option<Self> {
        if own.len().div_ceil(2) > T::Word::BITS {
            return None;
        }
        let (mut leaves, mut cuts) = (Vec::new(), Vec::new());
        // Depth first, from the left: nodes, and behind its left side each once more, with where its leaves begin.
        let mut open = vec![(0_usize, None)];
        while let Some((at, first)) = open.pop() {
            let node = own[at];
            let left = (node.left - tree.root) as usize;
            match first {
                _ if left == at => leaves.push(at),
                None => open.extend([(left + 1, None), (at, Some(leaves.len())), (left, None)]),
                Some(first) => cuts.push(Cut {
                    threshold: node.threshold,
                    lefts: T::Word::range(first, leaves.len()),
                    slot: node.slot as u8,
                }),
            }
        }
        let all = T::Word::range(0, leaves.len());
        let from_left = |values: Vec<T>| leaves.iter().map(|at| values[*at]).collect();
        let leaves = tree.sums().map(|(sum, values)| (sum, from_left(values))).collect();
        Some(Self { cuts, all, leaves })
    }

    /// Adds the tree's values to the sums of the first rows of a block, and of some rows behind them.
    pub fn add(&self, slots: &Slots<T>, rows: usize, sums: &mut [Block<T>]) {
        for chunk in 0..rows.div_ceil(LANES).min(BLOCK_ROWS / LANES) {
            let mut left = [self.all; LANES];
            for cut in &self.cuts {
                let column = &slots[cut.slot as usize].as_chunks::<LANES>().0[chunk];
                for (left, value) in left.iter_mut().zip(column) {
                    *left = left.without(cut.lefts, *value >= cut.threshold);
                }
            }
            for (sum, leaves) in &self.leaves {
                let sums = &mut sums[*sum].as_chunks_mut::<LANES>().0[chunk];
                sums.iter_mut().zip(&left).for_each(|(sum, left)| *sum += leaves[left.lowest()]);
            }
        }
    }
}
