//! A share of the keys of a topic: all records of a key, or none.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::source::RawBatch;

/// `1/100`: about every hundredth key. Whether a key is one of them depends on the key alone, so that recordings of
/// topics with the same keys fit together. A record without a key goes by its partition and offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    kept: u64,
    of: u64,
}

impl FromStr for Sample {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts =
            text.split_once('/').and_then(|(kept, of)| Some((kept.trim().parse().ok()?, of.trim().parse().ok()?)));
        match parts {
            Some((kept, of)) if 0 < kept && kept <= of => Ok(Self { kept, of }),
            _ => Err(Error::invalid(format!("`{text}` is no share; write it as 1/100"))),
        }
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kept, self.of)
    }
}

impl Sample {
    /// The rows of `batch`, which has keys, that are in it.
    pub(super) fn rows(self, batch: &RawBatch) -> Vec<u32> {
        let is_in = |bytes: &[u8]| {
            let hash = Sha256::digest(bytes);
            let mut first = [0; 8];
            first.copy_from_slice(&hash[..8]);
            u64::from_le_bytes(first) % self.of < self.kept
        };
        let of_place = |row: usize| {
            let mut place = batch.partition.to_le_bytes().to_vec();
            place.extend(batch.offsets[row].to_le_bytes());
            is_in(&place)
        };
        let row_is_in = |row: usize| match batch.keys.as_ref().and_then(|keys| keys.get(row)) {
            Some(key) => is_in(key),
            None => of_place(row),
        };
        (0..batch.len()).filter(|&row| row_is_in(row)).map(|row| row as u32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Payloads;

    #[test]
    fn a_key_is_in_it_with_all_its_records_or_not_at_all() {
        let mut keys = Payloads::default();
        for n in 0..30_000 {
            keys.push((n % 3 > 0).then(|| format!("key {}", n % 1000)).as_ref().map(|key| key.as_bytes()));
        }
        let batch = RawBatch { offsets: (0..30_000).collect(), keys: Some(keys), ..RawBatch::default() };
        let rows = "1/10".parse::<Sample>().unwrap().rows(&batch);
        let keyless = rows.iter().filter(|&&row| row % 3 == 0).count();
        assert!((800..1200).contains(&keyless), "{keyless} of 10,000");
        let keys = batch.keys.as_ref().unwrap();
        let keyed: Vec<&u32> = rows.iter().filter(|&&row| row % 3 > 0).collect();
        let chosen: std::collections::BTreeSet<&[u8]> = keyed.iter().map(|&&row| keys.value(row as usize)).collect();
        assert!((60..140).contains(&chosen.len()), "{} of 1,000", chosen.len());
        assert_eq!(keyed.len(), chosen.len() * 20);
        assert_eq!("3/3".parse::<Sample>().unwrap().rows(&batch).len(), 30_000);
    }

    #[test]
    fn what_is_no_share_is_refused() {
        for text in ["", "1", "0/5", "2/1", "a/b", "1/0", "-1/3"] {
            assert!(text.parse::<Sample>().is_err(), "{text}");
        }
        assert_eq!(" 1 / 100".parse::<Sample>().unwrap().to_string(), "1/100");
    }
}
