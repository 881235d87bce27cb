//! The binary: logs to stderr, one exit code for each kind of error.

use std::io::Write;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match flumen::cli::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = error.to_string();
            // The faults of a file begin with a word of their own.
            let told = ["error:", "warning:"].iter().any(|word| text.starts_with(word));
            // Whoever listened may have gone away.
            drop(writeln!(std::io::stderr(), "{}{text}", if told { "" } else { "error: " }));
            ExitCode::from(error.kind().exit_code())
        }
    }
}
