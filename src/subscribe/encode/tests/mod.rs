//! The encoder against `prost-reflect`: random types and values, and each type by hand.

mod columns;
mod known;
mod round_trip;
