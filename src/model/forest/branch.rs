//! Trees as their files say them, and the float types in which libraries evaluate them.

use std::fmt::Debug;
use std::ops::{AddAssign, Mul};

/// Numbers up to this are zero where a library takes zeros for missing values (LightGBM's `kZeroThreshold`).
pub(super) const ZERO: f64 = 1e-35;

/// The float types in which libraries compare and add up.
pub(in crate::model) trait Real:
    Copy + Debug + Default + PartialOrd + AddAssign + Mul<Output = Self> + Send + Sync + 'static
{
    const NAN: Self;
    const MAX: Self;
    const MIN: Self;
    /// Whole numbers of the same size.
    type Word: Word;
    /// Of a feature: rounded to nearest.
    fn of(value: f64) -> Self;
    fn widened(self) -> f64;
    /// The next bigger number.
    fn above(self) -> Self;
}

/// Bits, as many as a float has.
pub(in crate::model) trait Word: Copy + Debug + Default + PartialEq + Send + Sync + 'static {
    const BITS: usize;
    /// The bits from one place up to another, which is outside.
    fn range(from: usize, to: usize) -> Self;
    /// Without these bits, if so.
    fn without(self, others: Self, is: bool) -> Self;
    /// The place of the lowest bit; there has to be one.
    fn lowest(self) -> usize;
}

macro_rules! real {
    ($float:ty, $word:ty) => {
        impl Real for $float {
            const NAN: Self = <$float>::NAN;
            const MAX: Self = <$float>::INFINITY;
            const MIN: Self = <$float>::NEG_INFINITY;
            type Word = $word;

            #[inline]
            fn of(value: f64) -> Self {
                value as $float
            }

            #[inline]
            fn widened(self) -> f64 {
                f64::from(self)
            }

            fn above(self) -> Self {
                self.next_up()
            }
        }

        impl Word for $word {
            const BITS: usize = <$word>::BITS as usize;

            fn range(from: usize, to: usize) -> Self {
                (from..to).fold(0, |bits, place| bits | 1 << place)
            }

            #[inline]
            fn without(self, others: Self, is: bool) -> Self {
                self & if is { !others } else { <$word>::MAX }
            }

            #[inline]
            fn lowest(self) -> usize {
                self.trailing_zeros() as usize
            }
        }
    };
}

real!(f32, u32);
real!(f64, u64);

/// A node of a tree as its file says it; node 0 is the root.
#[derive(Debug, Clone)]
pub(in crate::model) enum Branch<T> {
    /// What is added to the group of the tree.
    Leaf(T),
    /// What is added to each group.
    Leaves(Box<[T]>),
    /// An inner node.
    Split(Split<T>),
}

/// An inner node.
#[derive(Debug, Clone)]
pub(in crate::model) struct Split<T> {
    /// The feature that it looks at.
    pub feature: u32,
    /// What sends a row to the left.
    pub test: Test<T>,
    /// Where a row without a value goes. Nodes that look into a set know of `Left` and `Right` alone.
    pub missing: Missing,
    /// The child of a row that passes.
    pub left: u32,
    /// The other one.
    pub right: u32,
}

/// What sends a row to the left.
#[derive(Debug, Clone)]
pub(in crate::model) enum Test<T> {
    /// A value that is smaller.
    Below(T),
    /// A value that is not bigger.
    AtMost(T),
    /// The same value.
    Equal(T),
    /// A category that is in the set, or with `inside_left: false` one that is not.
    Among { set: CategorySet, inside_left: bool },
}

/// Categories: whole numbers, as bits.
#[derive(Debug, Clone, Default)]
pub(in crate::model) struct CategorySet {
    /// Bit `c % 64` of word `c / 64` is category `c`.
    pub words: Box<[u64]>,
    /// How a value that is no whole number is one.
    pub rule: CategoryRule,
}

/// How a value becomes a category. One that becomes none is in no set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::model) enum CategoryRule {
    /// Cut off towards zero; -0.5 is category 0.
    #[default]
    Truncated,
    /// Cut off, and none below zero.
    NotNegative,
    /// Only whole numbers are categories.
    Whole,
}

/// How a node treats a missing value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::model) enum Missing {
    /// NaN goes left.
    Left,
    /// NaN goes right.
    Right,
    /// NaN is zero.
    AsZero,
    /// NaN and zero go left.
    ZeroLeft,
    /// NaN and zero go right.
    ZeroRight,
    /// NaN stays: for nodes that look into a set.
    Kept,
}

impl CategorySet {
    /// The set of these categories.
    pub fn new(categories: impl IntoIterator<Item = u32>, rule: CategoryRule) -> Self {
        let mut words = Vec::new();
        for category in categories {
            let word = category as usize / 64;
            if words.len() <= word {
                words.resize(word + 1, 0_u64);
            }
            words[word] |= 1 << (category % 64);
        }
        Self { words: words.into(), rule }
    }

    pub(super) fn holds(&self, value: f64) -> bool {
        let is_one = match self.rule {
            CategoryRule::Truncated => value > -1.0,
            CategoryRule::NotNegative => value >= 0.0,
            CategoryRule::Whole => value >= 0.0 && value.fract() == 0.0,
        };
        // A cast cuts off, and stops at the biggest number.
        let category = value as u64;
        is_one && self.words.get((category / 64) as usize).is_some_and(|word| word >> (category % 64) & 1 == 1)
    }
}
