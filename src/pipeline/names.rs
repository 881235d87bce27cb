//! Names that go into transactions and file names.

/// Whether `name` may be the name of a pipeline or a query: `[A-Za-z0-9_.-]+`.
pub fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// What a name may look like: the remedy for those that do not.
pub const PLAIN: &str = "use letters, digits, `_`, `.` and `-` only";
