//! The targets. The oracle is the one of the decoder's own tests.

#[path = "../../../src/decode/tests/cell.rs"]
mod cell;
#[path = "../../../src/schema/random.rs"]
pub mod random;
#[path = "../../../src/decode/tests/verdict.rs"]
pub mod verdict;

pub mod descriptor_set;
pub mod framing;
pub mod recording;
pub mod wire;
