//! Values in the place of values that are not to be seen.

use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// The bytes of a hash that are kept: enough that no two values of a topic meet.
const HASH_BYTES: usize = 16;

/// In which way a value is hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It is left out.
    Null,
    /// It becomes a hash of it: 32 hexadecimal digits, 16 bytes, or a number.
    Hash,
    /// It becomes one that looks like it: as long, letters for letters and digits for digits.
    Fake,
}

impl FromStr for How {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "null" => Ok(How::Null),
            "hash" => Ok(How::Hash),
            "fake" => Ok(How::Fake),
            _ => Err(Error::invalid(format!("`{text}` is no way to hide a value; write null, hash or fake"))),
        }
    }
}

/// Makes the values: always the same one for the same value and salt.
#[derive(Debug, Clone)]
pub struct Disguise {
    salted: Sha256,
}

impl Disguise {
    /// With this salt.
    pub fn new(salt: &[u8]) -> Self {
        Self { salted: Sha256::new().chain_update((salt.len() as u64).to_le_bytes()).chain_update(salt) }
    }

    fn hash(&self, value: &[u8]) -> [u8; 32] {
        self.salted.clone().chain_update(value).finalize().into()
    }

    /// 64 bits for a number.
    pub fn number(&self, value: u64) -> u64 {
        let hash = self.hash(&value.to_le_bytes());
        u64::from_le_bytes([hash[0], hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7]])
    }

    /// In the place of a text; what is empty stays so.
    pub fn text(&self, how: How, value: &str) -> String {
        match how {
            How::Hash if !value.is_empty() => hex::encode(&self.hash(value.as_bytes())[..HASH_BYTES]),
            How::Fake => self.alike(value),
            How::Hash | How::Null => String::new(),
        }
    }

    /// In the place of bytes; what is empty stays so.
    pub fn bytes(&self, how: How, value: &[u8]) -> Vec<u8> {
        match how {
            How::Hash if !value.is_empty() => self.hash(value)[..HASH_BYTES].to_vec(),
            How::Fake => self.stream(value).take(value.len()).collect(),
            How::Hash | How::Null => Vec::new(),
        }
    }

    /// In the place of a key or a header's value, which may be a text or not; `None`: it is left out.
    pub fn payload(&self, how: How, value: &[u8]) -> Option<Vec<u8>> {
        match (how, std::str::from_utf8(value)) {
            (How::Null, _) => None,
            (_, Ok(text)) => Some(self.text(how, text).into_bytes()),
            (_, Err(_)) => Some(self.bytes(how, value)),
        }
    }

    /// Letters for letters, digits for digits; the rest stays.
    fn alike(&self, value: &str) -> String {
        let mut random = self.stream(value.as_bytes());
        let mut from = |set: &[u8]| char::from(set[usize::from(random.next().unwrap_or_default()) % set.len()]);
        value
            .chars()
            .map(|c| match c {
                c if c.is_numeric() => from(b"0123456789"),
                c if c.is_uppercase() => from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
                c if c.is_alphabetic() => from(b"abcdefghijklmnopqrstuvwxyz"),
                c => c,
            })
            .collect()
    }

    /// Bytes without end that depend on the value alone.
    fn stream(&self, value: &[u8]) -> impl Iterator<Item = u8> + use<> {
        let seed = self.hash(value);
        (0_u64..).flat_map(move |block| {
            let hash: [u8; 32] = Sha256::new().chain_update(seed).chain_update(block.to_le_bytes()).finalize().into();
            hash
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_become_equal_ones_and_other_salts_other_ones() {
        let (one, two) = (Disguise::new(b"one"), Disguise::new(b"two"));
        for how in [How::Hash, How::Fake] {
            assert_eq!(one.text(how, "user-17"), one.text(how, "user-17"));
            assert_ne!(one.text(how, "user-17"), one.text(how, "user-18"));
            assert_ne!(one.text(how, "user-17"), two.text(how, "user-17"));
            assert_eq!(one.text(how, ""), "");
            assert_eq!(one.bytes(how, b""), b"");
        }
        assert_eq!(one.text(How::Hash, "user-17").len(), 32);
        assert_eq!(one.payload(How::Null, b"k"), None);
        assert_eq!(one.payload(How::Hash, b"\xff").map(|key| key.len()), Some(16));
    }

    #[test]
    fn a_fake_looks_like_what_it_hides() {
        let disguise = Disguise::new(b"s");
        let fake = disguise.text(How::Fake, "Anna.Müller+7@example.com (42)");
        let shape = |text: &str| -> String {
            let of = |c: char| match c {
                c if c.is_numeric() => '9',
                c if c.is_uppercase() => 'A',
                c if c.is_alphabetic() => 'a',
                c => c,
            };
            text.chars().map(of).collect()
        };
        assert_eq!(shape(&fake), shape("Anna.Müller+7@example.com (42)"));
        assert_ne!(fake, "Anna.Müller+7@example.com (42)");
        let long = "x".repeat(100);
        assert_eq!(disguise.text(How::Fake, &long).len(), 100);
        assert_eq!(disguise.bytes(How::Fake, &[0xff; 70]).len(), 70);
    }
}
