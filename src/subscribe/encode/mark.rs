//! What a message carries besides its row, and the fields that do.

use crate::subscribe::cursor::Cursor;

/// A field of this name and of the type `string` carries the cursor of the row.
pub const CURSOR_FIELD: &str = "cursor";
/// A field of this name and of the type `bool` says whether the row is of a partition that was replaced.
pub const REPLACES_FIELD: &str = "replaces";

/// What a message carries besides its row.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    /// The place behind the row.
    pub cursor: Cursor,
    /// The row is of a partition that was replaced.
    pub replaces: bool,
}
