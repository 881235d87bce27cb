//! A shallow tree, filled up to a perfect one: each row takes the same steps, and the children of node `i` are `2i` and
//! `2i + 1`, so that no link has to be loaded. The upper levels are evaluated whole, for several rows at once: below a
//! handful of nodes comparing with all of them costs less than finding the one that counts.
//!
//! Arrays of a fixed length, and indexes that are masked to it, need no check.

use super::branch::Real;
use super::tree::{BLOCK_ROWS, Block, LANES, Node, Slots, Tree};

/// Levels that are evaluated whole.
const WHOLE: u32 = 3;
/// Levels of the deepest perfect tree.
const MOST: u32 = 8;
/// A tree may be filled up to so many times its nodes.
const FILLED: usize = 8;
/// Rows that walk the lower levels in turn.
const TURN: usize = 8;

#[derive(Debug)]
pub(super) enum Perfect<T> {
    Three(Levels<T, 8>),
    Four(Levels<T, 16>),
    Five(Levels<T, 32>),
    Six(Levels<T, 64>),
    Seven(Levels<T, 128>),
    Eight(Levels<T, 256>),
}

/// A tree with as many leaves as places. The root is node 1, node 0 is none.
#[derive(Debug)]
pub(super) struct Levels<T, const N: usize> {
    nodes: Box<Nodes<T, N>>,
    /// The sums to which the leaves add, with the values of the leaves at the lowest places.
    leaves: Vec<(usize, [T; N])>,
}

#[derive(Debug)]
struct Nodes<T, const N: usize> {
    thresholds: [T; N],
    slots: [u8; N],
}

impl<T: Real> Perfect<T> {
    /// The perfect tree of a tree, unless that would be too big.
    pub fn of(tree: &Tree<T>, own: &[Node<T>]) -> Option<Self> {
        let depth = tree.depth.max(WHOLE);
        if depth > MOST || (1 << depth) > own.len() * FILLED {
            return None;
        }
        Some(match depth {
            3 => Perfect::Three(Levels::of(tree, own)),
            4 => Perfect::Four(Levels::of(tree, own)),
            5 => Perfect::Five(Levels::of(tree, own)),
            6 => Perfect::Six(Levels::of(tree, own)),
            7 => Perfect::Seven(Levels::of(tree, own)),
            _ => Perfect::Eight(Levels::of(tree, own)),
        })
    }

    /// Adds the tree's values to the sums of the first rows of a block, and of some rows behind them.
    pub fn add(&self, slots: &Slots<T>, rows: usize, sums: &mut [Block<T>]) {
        match self {
            Perfect::Three(levels) => levels.add(slots, rows, sums),
            Perfect::Four(levels) => levels.add(slots, rows, sums),
            Perfect::Five(levels) => levels.add(slots, rows, sums),
            Perfect::Six(levels) => levels.add(slots, rows, sums),
            Perfect::Seven(levels) => levels.add(slots, rows, sums),
            Perfect::Eight(levels) => levels.add(slots, rows, sums),
        }
    }
}

impl<T: Real, const N: usize> Levels<T, N> {
    const DEPTH: u32 = N.ilog2();

    fn of(tree: &Tree<T>, own: &[Node<T>]) -> Self {
        let mut nodes = Nodes { thresholds: [T::NAN; N], slots: [0; N] };
        // Which node of the tree stands at each place. Below a leaf there is only that leaf.
        let mut places = vec![0_u32; 2 * N];
        for place in 1..N {
            let at = places[place];
            let node = own[at as usize];
            let left = node.left - tree.root;
            let is_leaf = left == at;
            if !is_leaf {
                nodes.thresholds[place] = node.threshold;
                nodes.slots[place] = node.slot as u8;
            }
            places[2 * place] = left;
            places[2 * place + 1] = left + u32::from(!is_leaf);
        }
        let lowest = |values: Vec<T>| std::array::from_fn(|place| values[places[N + place] as usize]);
        let leaves = tree.sums().map(|(sum, values)| (sum, lowest(values))).collect();
        Self { nodes: Box::new(nodes), leaves }
    }

    fn add(&self, slots: &Slots<T>, rows: usize, sums: &mut [Block<T>]) {
        let nodes = &*self.nodes;
        for chunk in 0..rows.div_ceil(LANES).min(BLOCK_ROWS / LANES) {
            let mut at = [0_u32; LANES];
            nodes.whole(slots, chunk, &mut at);
            let (turns, _) = at.as_chunks_mut::<TURN>();
            for (turn, at) in turns.iter_mut().enumerate() {
                let first = chunk % (BLOCK_ROWS / LANES) * LANES + turn % (LANES / TURN) * TURN;
                for _ in WHOLE..Self::DEPTH {
                    for (lane, at) in at.iter_mut().enumerate() {
                        let node = *at as usize & (N - 1);
                        let value = slots[nodes.slots[node] as usize][first + lane];
                        *at = 2 * *at + u32::from(value >= nodes.thresholds[node]);
                    }
                }
            }
            for (sum, leaves) in &self.leaves {
                let sums = &mut sums[*sum].as_chunks_mut::<LANES>().0[chunk];
                sums.iter_mut().zip(&at).for_each(|(sum, at)| *sum += leaves[*at as usize & (N - 1)]);
            }
        }
    }
}

impl<T: Real, const N: usize> Nodes<T, N> {
    /// Walks the upper levels.
    #[inline]
    fn whole(&self, slots: &Slots<T>, chunk: usize, at: &mut [u32; LANES]) {
        let column = |node: usize| &slots[self.slots[node] as usize].as_chunks::<LANES>().0[chunk];
        let [a, b, c, d, e, f, g] = [column(1), column(2), column(3), column(4), column(5), column(6), column(7)];
        let threshold = |node: usize| self.thresholds[node];
        let [ta, tb, tc, td, te, tf, tg] =
            [threshold(1), threshold(2), threshold(3), threshold(4), threshold(5), threshold(6), threshold(7)];
        // Bits instead of conditions: nothing to predict, and several rows fit into an instruction.
        let bit = |column: &[T; LANES], threshold: T, lane: usize| u32::from(column[lane] >= threshold);
        let choose = |right: u32, is: u32, other: u32| other ^ ((is ^ other) & right.wrapping_neg());
        for (lane, at) in at.iter_mut().enumerate() {
            let first = bit(a, ta, lane);
            let second = choose(first, bit(c, tc, lane), bit(b, tb, lane));
            let left = choose(second, bit(e, te, lane), bit(d, td, lane));
            let right = choose(second, bit(g, tg, lane), bit(f, tf, lane));
            *at = 8 | first << 2 | second << 1 | choose(first, right, left);
        }
    }
}
