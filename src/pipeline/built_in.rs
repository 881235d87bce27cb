//! The functions that every query has.

use datafusion::execution::SessionState;

/// Functions that DataFusion plans without registering them.
const BUILT_IN: [&str; 4] = ["unnest", "grouping", "struct", "exists"];

/// Whether there is a function of that name without the file.
pub(super) fn is_function(state: &SessionState, name: &str) -> bool {
    BUILT_IN.contains(&name)
        || state.scalar_functions().contains_key(name)
        || state.aggregate_functions().contains_key(name)
        || state.window_functions().contains_key(name)
        || state.higher_order_functions().contains_key(name)
        || state.table_functions().contains_key(name)
}
