//! Which fields of a message are wanted.

use std::collections::BTreeMap;

/// The fields that are wanted, also inside of nested messages and lists of them. Maps are always read whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Selection {
    /// All fields, with all that they contain.
    #[default]
    All,
    /// These fields, and of each of them what its own selection says.
    Fields(BTreeMap<String, Selection>),
}

impl Selection {
    /// All fields.
    pub fn all() -> Self {
        Selection::All
    }

    /// No field: [`Selection::add`] adds some.
    pub fn none() -> Self {
        Selection::Fields(BTreeMap::new())
    }

    /// Adds the field at `path`, with all that it contains: `["placement", "slot"]`.
    pub fn add<S: AsRef<str>>(&mut self, path: &[S]) {
        let Selection::Fields(fields) = self else { return };
        match path {
            [] => *self = Selection::All,
            [name, rest @ ..] => fields.entry(name.as_ref().to_owned()).or_insert_with(Selection::none).add(rest),
        }
    }

    /// What is wanted of the field `name`; `None`: nothing, not even whether it is there.
    pub fn field(&self, name: &str) -> Option<&Selection> {
        match self {
            Selection::All => Some(self),
            Selection::Fields(fields) => fields.get(name),
        }
    }

    /// Whether the field at `path`, such as `placement.slot`, or something in it is wanted.
    pub fn reads(&self, path: &str) -> bool {
        let mut at = self;
        for name in path.split('.') {
            match at.field(name) {
                Some(below) => at = below,
                None => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_found_by_its_path() {
        let mut selection = Selection::none();
        selection.add(&["placement", "slot"]);
        selection.add(&["labels"]);
        assert!(selection.reads("placement") && selection.reads("placement.slot") && selection.reads("labels.text"));
        assert!(!selection.reads("placement.page") && !selection.reads("bid"));
    }

    #[test]
    fn the_wider_wish_wins() {
        let mut selection = Selection::none();
        selection.add(&["a", "b"]);
        selection.add(&["c"]);
        selection.add(&["c", "d"]);
        assert_eq!(selection.field("c"), Some(&Selection::All));
        assert_eq!(selection.field("a").and_then(|a| a.field("b")), Some(&Selection::All));
        assert_eq!(selection.field("a").and_then(|a| a.field("x")), None);
        selection.add::<&str>(&[]);
        assert_eq!(selection, Selection::All);
    }
}
