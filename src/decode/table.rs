//! From a tag on the wire to what is done with it.

/// The tag belongs to no field that is read.
pub(super) const UNKNOWN: usize = u16::MAX as usize;
/// The field is read, but not with that wire type.
pub(super) const MISMATCH: usize = u16::MAX as usize - 1;

/// Fields with a smaller number are found with one look.
const DENSE: u32 = 256;

/// Finds an entry by its tag. Never sized by a field number: those go up to 536,870,911.
#[derive(Debug, Default)]
pub(super) struct TagTable {
    dense: Box<[u16]>,
    /// Tag and entry, ascending.
    sparse: Box<[(u32, u16)]>,
}

impl TagTable {
    /// A table of `tags`; each finds its own index.
    pub(super) fn new(tags: &[u32]) -> Self {
        let numbered = || tags.iter().copied().zip(0u16..);
        let small = || numbered().filter(|(tag, _)| tag >> 3 < DENSE);
        let size = small().map(|(tag, _)| (tag as usize | 7) + 1).max().unwrap_or(0);
        let mut dense = vec![UNKNOWN as u16; size];
        for (tag, _) in small() {
            let first = (tag & !7) as usize;
            dense[first..first + 8].fill(MISMATCH as u16);
        }
        small().for_each(|(tag, index)| dense[tag as usize] = index);
        let mut sparse: Vec<(u32, u16)> = numbered().filter(|(tag, _)| tag >> 3 >= DENSE).collect();
        sparse.sort_unstable();
        Self { dense: dense.into(), sparse: sparse.into() }
    }

    /// The index of `tag`, [`UNKNOWN`] or [`MISMATCH`].
    #[inline(always)]
    pub(super) fn find(&self, tag: u32) -> usize {
        match self.dense.get(tag as usize) {
            Some(index) => usize::from(*index),
            None if self.sparse.is_empty() => UNKNOWN,
            None => self.find_sparse(tag),
        }
    }

    fn find_sparse(&self, tag: u32) -> usize {
        let at = self.sparse.partition_point(|(known, _)| *known < tag & !7);
        let same = self.sparse[at..].iter().take_while(|(known, _)| known >> 3 == tag >> 3);
        let mut found = UNKNOWN;
        for (known, index) in same {
            if *known == tag {
                return usize::from(*index);
            }
            found = MISMATCH;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_found_and_wrong_wire_types_told_apart() {
        let numbers = [(1, 0), (2, 2), (2, 0), (255, 5), (256, 0), (536_870_911, 2), (536_870_911, 1)];
        let tags: Vec<u32> = numbers.iter().map(|(number, wire)| number << 3 | wire).collect();
        let table = TagTable::new(&tags);
        for (index, tag) in tags.iter().enumerate() {
            assert_eq!(table.find(*tag), index);
        }
        for (number, wire, want) in [
            (1, 2, MISMATCH),
            (3, 0, UNKNOWN),
            (256, 1, MISMATCH),
            (257, 0, UNKNOWN),
            (536_870_911, 0, MISMATCH),
            (536_870_910, 0, UNKNOWN),
            (0, 0, UNKNOWN),
        ] {
            assert_eq!(table.find(number << 3 | wire), want, "{number} {wire}");
        }
        assert!(table.dense.len() <= 2048);
        assert_eq!(TagTable::new(&[]).find(8), UNKNOWN);
    }
}
