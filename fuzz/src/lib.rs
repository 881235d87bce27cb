//! What is fuzzed: each module has one `run` that takes any bytes and panics when a promise is broken. The targets under
//! `fuzz_targets/` call them, and the product's own suite does so for every file of the corpus.

pub mod targets;

// What the oracle's files name as `crate::…`.
use flumen::decode;
