//! Which small files are made one.

use std::collections::{BTreeMap, HashMap};

use deltalake::kernel::Remove;
use object_store::path::Path;

/// A file of less than this share of the wanted size is small.
const SMALL_SHARE: u64 = 2;

/// A file that is small.
#[derive(Debug, Clone)]
pub(super) struct SmallFile {
    /// Where it lies in the table's store.
    pub(super) path: Path,
    /// Its size in bytes.
    pub(super) size: u64,
    /// Its rows.
    pub(super) rows: u64,
    /// When it was written, in milliseconds since 1970.
    pub(super) modified: i64,
    /// The action that removes it from the table.
    pub(super) remove: Remove,
}

/// When files are made one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// The size that a file is to have, in bytes.
    pub(super) target_size: u64,
    /// So many files are made one, even if they are small then.
    pub(super) max_files: usize,
    /// A partition that got no file since then, in milliseconds since 1970, is closed: what it has is made one.
    pub(super) closed_since: i64,
}

impl Rules {
    /// Whether a file is one of those that are made larger.
    pub(super) fn is_small(&self, size: u64) -> bool {
        size < self.target_size / SMALL_SHARE
    }
}

/// Which files are made one. The smallest come first, so that a file is written anew only with about as much as it has
/// itself: a byte is moved a few times and not with every round.
pub(super) fn bins(files: Vec<SmallFile>, rules: Rules) -> Vec<Vec<SmallFile>> {
    let mut partitions: BTreeMap<Vec<(String, Option<String>)>, Vec<SmallFile>> = BTreeMap::new();
    for file in files {
        partitions.entry(partition(file.remove.partition_values.as_ref())).or_default().push(file);
    }
    partitions.into_values().flat_map(|files| bins_of_partition(files, rules)).collect()
}

fn bins_of_partition(mut files: Vec<SmallFile>, rules: Rules) -> Vec<Vec<SmallFile>> {
    let is_closed = files.iter().all(|file| file.modified < rules.closed_since);
    files.sort_by(|a, b| (a.size, &a.path).cmp(&(b.size, &b.path)));
    let mut bins = Vec::new();
    let (mut bin, mut size) = (Vec::new(), 0);
    for file in files {
        size += file.size;
        bin.push(file);
        if size >= rules.target_size || bin.len() >= rules.max_files {
            bins.push(std::mem::take(&mut bin));
            size = 0;
        }
    }
    if is_closed {
        bins.push(bin);
    }
    bins.retain(|bin| bin.len() > 1);
    bins
}

/// The values of a partition in an order of their own.
fn partition(values: Option<&HashMap<String, Option<String>>>) -> Vec<(String, Option<String>)> {
    let mut values: Vec<_> = values.into_iter().flatten().map(|(name, value)| (name.clone(), value.clone())).collect();
    values.sort();
    values
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(index: usize, partition: u8, size: u64, modified: i64) -> SmallFile {
        let values = HashMap::from([("day".to_string(), Some(partition.to_string()))]);
        SmallFile {
            path: Path::from(format!("f{index}")),
            size,
            rows: 1,
            modified,
            remove: Remove {
                path: format!("f{index}"),
                data_change: false,
                deletion_timestamp: None,
                extended_file_metadata: None,
                partition_values: Some(values),
                size: None,
                deletion_vector: None,
                tags: None,
                base_row_id: None,
                default_row_commit_version: None,
            },
        }
    }

    fn sizes(files: &[(u8, u64, i64)], rules: Rules) -> Vec<Vec<u64>> {
        let files = files.iter().enumerate().map(|(index, (day, size, at))| file(index, *day, *size, *at)).collect();
        bins(files, rules).iter().map(|bin| bin.iter().map(|file| file.size).collect()).collect()
    }

    const RULES: Rules = Rules { target_size: 100, max_files: 4, closed_since: 1_000 };

    #[test]
    fn files_wait_until_they_are_enough_or_their_partition_is_closed() {
        assert_eq!(sizes(&[(1, 10, 2_000), (1, 10, 10)], RULES), Vec::<Vec<u64>>::new());
        assert_eq!(sizes(&[(1, 10, 900), (1, 20, 10)], RULES), [[10, 20]]);
        assert_eq!(sizes(&[(1, 10, 10)], RULES), Vec::<Vec<u64>>::new());
        assert_eq!(sizes(&[(1, 40, 2_000), (1, 35, 2_000), (1, 30, 2_000)], RULES), [[30, 35, 40]]);
        assert_eq!(sizes(&[(1, 40, 2_000), (2, 35, 2_000), (1, 30, 2_000)], RULES), Vec::<Vec<u64>>::new());
        let many = [(1, 1, 2_000), (1, 2, 2_000), (1, 40, 2_000), (1, 1, 2_000), (1, 1, 2_000)];
        assert_eq!(sizes(&many, RULES), [[1, 1, 1, 2]]);
    }

    proptest! {
        #[test]
        fn no_file_is_in_two_bins_and_none_is_alone(
            files in prop::collection::vec((0u8..3, 1u64..50, 0i64..2_000), 0..60)
        ) {
            let files: Vec<_> =
                files.iter().enumerate().map(|(index, (day, size, at))| file(index, *day, *size, *at)).collect();
            let bins = bins(files, RULES);
            let mut seen = std::collections::HashSet::new();
            for bin in &bins {
                prop_assert!(bin.len() > 1 && bin.len() <= RULES.max_files);
                let days: std::collections::HashSet<_> =
                    bin.iter().map(|file| partition(file.remove.partition_values.as_ref())).collect();
                prop_assert_eq!(days.len(), 1);
                prop_assert!(bin.iter().all(|file| seen.insert(file.path.clone())));
            }
        }
    }
}
