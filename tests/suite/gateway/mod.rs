//! The gateway through its port. Everything listens on loopback, and ends with its test.

mod bad_input;
mod certificates;
mod checked;
mod circle;
mod harness;
mod http2;
mod operations;
mod publishing;
mod restart;
mod rows;
mod security;
mod streams;
mod web;
