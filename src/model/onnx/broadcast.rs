//! How tensors of different shapes come together, as in NumPy: a dimension of one is stretched.

use super::damaged;
use super::tensor::MAX_RANK;
use crate::error::Result;

/// The shape of two tensors that are stretched to each other.
pub(super) fn common(left: &[usize], right: &[usize]) -> Result<Vec<usize>> {
    let rank = left.len().max(right.len());
    let dimension = |shape: &[usize], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1, |axis| shape[axis]);
    let both = |axis| match (dimension(left, axis), dimension(right, axis)) {
        (a, b) if a == b => Ok(a),
        (1, b) => Ok(b),
        (a, 1) => Ok(a),
        _ => Err(damaged(format!("tensors of the shapes {left:?} and {right:?} do not fit together"))),
    };
    (0..rank).map(both).collect()
}

/// Where the elements of a stretched tensor are.
#[derive(Debug, PartialEq)]
pub(super) enum Places {
    /// Each where it is.
    Same,
    /// All the first.
    One,
    /// They begin anew after so many.
    Cycle(usize),
    /// Each so many times.
    Repeat(usize),
    /// Anywhere.
    List(Vec<u32>),
}

impl Places {
    /// Those of a tensor of a shape that is stretched to another one, which is not smaller.
    pub fn of(shape: &[usize], to: &[usize]) -> Self {
        let count: usize = shape.iter().product();
        let total: usize = to.iter().product();
        if count == total {
            return Places::Same;
        }
        if count == 1 {
            return Places::One;
        }
        let rank = to.len();
        let padded: Vec<usize> = std::iter::repeat_n(1, rank - shape.len()).chain(shape.iter().copied()).collect();
        // Axes before the first and after the last that is not stretched.
        let same = |axis: &usize| padded[*axis] == to[*axis];
        let first = (0..rank).find(|axis| padded[*axis] != 1).unwrap_or(0);
        let last = (0..rank).rev().find(|axis| padded[*axis] != 1).unwrap_or(0);
        if (first..=last).all(|axis| same(&axis)) {
            if (last..rank).all(|axis| same(&axis)) {
                return Places::Cycle(count);
            }
            if (0..=first).all(|axis| same(&axis)) {
                return Places::Repeat(to[last + 1..].iter().product());
            }
        }
        Places::List(list(&padded, to, total))
    }

    #[inline]
    fn at(&self, index: usize) -> usize {
        match self {
            Places::Same => index,
            Places::One => 0,
            Places::Cycle(length) => index % length,
            Places::Repeat(times) => index / times,
            Places::List(places) => places[index] as usize,
        }
    }
}

fn list(shape: &[usize], to: &[usize], total: usize) -> Vec<u32> {
    let mut strides = [0_usize; MAX_RANK];
    let mut stride = 1;
    for axis in (0..shape.len()).rev() {
        strides[axis] = if shape[axis] == 1 { 0 } else { stride };
        stride *= shape[axis];
    }
    let mut places = Vec::with_capacity(total);
    for index in 0..total {
        let (mut rest, mut place) = (index, 0);
        for axis in (0..to.len()).rev() {
            place += rest % to[axis] * strides[axis];
            rest /= to[axis];
        }
        places.push(place as u32);
    }
    places
}

/// A function of the elements of two stretched tensors.
#[inline]
pub(super) fn zip<A, B, R>(
    left: &[A],
    at: &Places,
    right: &[B],
    to: &Places,
    count: usize,
    function: impl Fn(&A, &B) -> R,
) -> Vec<R> {
    match (at, to) {
        (Places::Same, Places::Same) => left.iter().zip(right).map(|(a, b)| function(a, b)).collect(),
        (Places::Same, Places::One) => left.iter().map(|a| function(a, &right[0])).collect(),
        (Places::One, Places::Same) => right.iter().map(|b| function(&left[0], b)).collect(),
        (Places::Same, Places::Cycle(length)) if *length > 0 => {
            let mut made = Vec::with_capacity(count);
            for row in left.chunks_exact(*length) {
                made.extend(row.iter().zip(right).map(|(a, b)| function(a, b)));
            }
            made
        }
        (Places::Same, Places::Repeat(times)) if *times > 0 => {
            let mut made = Vec::with_capacity(count);
            for (row, b) in left.chunks_exact(*times).zip(right) {
                made.extend(row.iter().map(|a| function(a, b)));
            }
            made
        }
        _ => (0..count).map(|index| function(&left[at.at(index)], &right[to.at(index)])).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_stretched_to_each_other() {
        assert_eq!(common(&[3, 1], &[4]).unwrap(), [3, 4]);
        assert_eq!(common(&[], &[2]).unwrap(), [2]);
        assert_eq!(common(&[0, 2], &[1]).unwrap(), [0, 2]);
        assert!(common(&[3], &[2]).is_err());
    }

    #[test]
    fn elements_are_found_in_every_case() {
        assert_eq!(Places::of(&[2, 3], &[2, 3]), Places::Same);
        assert_eq!(Places::of(&[1, 1], &[2, 3]), Places::One);
        assert_eq!(Places::of(&[3], &[2, 3]), Places::Cycle(3));
        assert_eq!(Places::of(&[2, 1], &[2, 3]), Places::Repeat(3));
        assert_eq!(Places::of(&[2, 1, 2], &[2, 2, 2]), Places::List(vec![0, 1, 0, 1, 2, 3, 2, 3]));
        assert_eq!(Places::of(&[1, 2, 1], &[2, 2, 2]), Places::List(vec![0, 0, 1, 1, 0, 0, 1, 1]));
        assert_eq!(Places::of(&[1, 3], &[0, 3]), Places::Cycle(3));
    }

    #[test]
    fn ways_to_zip_give_the_same() {
        let shapes: [&[usize]; 8] = [&[], &[1], &[3], &[2, 1], &[2, 3], &[1, 3], &[4, 1, 3], &[4, 2, 1]];
        for left in shapes {
            for right in shapes {
                let Ok(shape) = common(left, right) else { continue };
                let count: usize = shape.iter().product();
                let numbers = |shape: &[usize]| (0..shape.iter().product::<usize>()).collect::<Vec<usize>>();
                let (a, b) = (numbers(left), numbers(right));
                let pad = |shape: &[usize]| [vec![1; 3 - shape.len()], shape.to_vec()].concat();
                let (wide, to) = ((pad(left), pad(right)), pad(&shape));
                let slow = |of: &[usize]| list(of, &to, count);
                let (at, place) = (Places::of(left, &shape), Places::of(right, &shape));
                let got = zip(&a, &at, &b, &place, count, |a, b| (*a, *b));
                let expected: Vec<(usize, usize)> =
                    slow(&wide.0).into_iter().zip(slow(&wide.1)).map(|(a, b)| (a as usize, b as usize)).collect();
                assert_eq!(got, expected, "{left:?} {right:?}");
            }
        }
    }
}
