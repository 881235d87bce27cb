//! Has the linker put the functions that a run calls side by side. They are one in twenty, and strewn over more than a
//! hundred megabytes of code they bring most of it into memory, because Linux maps sixteen pages at a time.
//!
//! The names are in `x86_64-unknown-linux-gnu.symbols`, written by `scripts/link-order/update`. They fit the toolchain and
//! the `Cargo.lock` that they were written with; names that the linker does not find change nothing.

use std::path::Path;
use std::process::Command;

const TARGET: &str = "x86_64-unknown-linux-gnu";

fn main() {
    let names = format!("scripts/link-order/{TARGET}.symbols");
    println!("cargo::rerun-if-changed={names}");
    println!("cargo::rerun-if-changed=scripts/link-order/build.rs");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|is| is == value);
    if !(is("TARGET", TARGET) && is("HOST", TARGET) && is("PROFILE", "release") && links_with_lld()) {
        return;
    }
    let Ok(root) = std::env::var("CARGO_MANIFEST_DIR") else { return };
    println!("cargo::rustc-link-arg-bins=-Wl,--symbol-ordering-file={}", Path::new(&root).join(names).display());
    println!("cargo::rustc-link-arg-bins=-Wl,--no-warn-symbol-ordering");
}

/// Whether the linker is the one that comes with Rust, which knows these arguments.
fn links_with_lld() -> bool {
    let flags = std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    if std::env::var_os("RUSTC_LINKER").is_some() || flags.contains("link") {
        return false;
    }
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let Ok(told) = Command::new(rustc).args(["--print", "sysroot"]).output() else { return false };
    let sysroot = String::from_utf8_lossy(&told.stdout);
    Path::new(sysroot.trim()).join("lib/rustlib").join(TARGET).join("bin/gcc-ld/ld.lld").exists()
}
