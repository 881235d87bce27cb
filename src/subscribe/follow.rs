//! Which rows belong to a stream that publishes too: those of the messages that it sent.

use std::collections::{HashSet, VecDeque};

use parking_lot::Mutex;

/// Keys that one stream follows at once; beyond it the oldest is forgotten.
pub const MAX_KEYS: usize = 10_000;

/// The keys of the records that a stream has published, the newest 10,000 of them.
#[derive(Debug, Default)]
pub struct Followed(Mutex<Recent>);

#[derive(Debug, Default)]
struct Recent {
    keys: HashSet<Box<str>>,
    order: VecDeque<Box<str>>,
}

impl Followed {
    /// Follows the rows of a key. It is called before the record is published: no row comes earlier.
    pub fn add(&self, key: &str) {
        let mut recent = self.0.lock();
        if recent.keys.contains(key) {
            // It is a new one again.
            if let Some(at) = recent.order.iter().rposition(|known| **known == *key) {
                recent.order.remove(at);
                recent.order.push_back(key.into());
            }
            return;
        }
        if recent.keys.len() >= MAX_KEYS
            && let Some(oldest) = recent.order.pop_front()
        {
            recent.keys.remove(&oldest);
        }
        recent.keys.insert(key.into());
        recent.order.push_back(key.into());
    }

    /// The keys, oldest first.
    pub fn keys(&self) -> Vec<String> {
        self.0.lock().order.iter().map(|key| key.to_string()).collect()
    }

    /// Which of the values are followed.
    pub(super) fn contains_each<'v>(&self, values: impl Iterator<Item = &'v str>) -> Vec<bool> {
        let recent = self.0.lock();
        values.map(|value| recent.keys.contains(value)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_keys_are_followed() {
        let followed = Followed::default();
        for key in ["a", "b", "a"] {
            followed.add(key);
        }
        assert_eq!(followed.keys(), ["b", "a"]);
        assert_eq!(followed.contains_each(["b", "c", "a"].into_iter()), [true, false, true]);
        (0..MAX_KEYS - 1).for_each(|key| followed.add(&key.to_string()));
        assert_eq!(followed.keys()[0], "a");
        assert_eq!(followed.contains_each(["a", "b"].into_iter()), [true, false]);
    }
}
