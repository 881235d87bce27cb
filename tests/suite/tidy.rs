//! The rules of the house, held for every file under `src/`. ARCHITECTURE.md says why they are there.
//!
//! The checks read the syntax tree, so that a word in a comment or a string is no finding. What stands under
//! `#[cfg(test)]` is free of all rules but the length of lines.

mod code;
mod layers;
mod source;

use std::path::Path;

use source::{SourceFile, read_tree};

/// The layers from low to high. A module uses lower rows only; modules in one row never use each other.
const LAYERS: [&[&str]; 9] = [
    &["error"],
    &["clock", "fault_point", "memory", "offsets", "observe"],
    &["kafka", "storage", "schema", "contract", "content"],
    &["pipeline"],
    &["source", "decode", "model", "lookup", "registry", "state", "sink"],
    &["engine", "compare", "subscribe"],
    &["gateway", "record", "replay", "cases", "close", "console"],
    &["cli"],
    &["main"],
];

#[test]
fn the_house_is_tidy() {
    let files = read_tree(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    assert!(files.len() > 5, "only {} files were found", files.len());
    let findings = findings(&files);
    assert!(findings.is_empty(), "{} findings\n{}\n", findings.len(), findings.join("\n"));
}

#[test]
fn promises_name_tests_that_there_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let promises = std::fs::read_to_string(root.join("docs/guarantees.md")).unwrap();
    let named: Vec<_> = promises.split('`').skip(1).step_by(2).filter_map(|word| word.split_once("::")).collect();
    assert!(named.len() > 20, "only {} tests are named", named.len());
    for (module, test) in named {
        let path = root.join(format!("tests/suite/{module}.rs"));
        let source = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(source.contains(&format!("fn {test}(")), "docs/guarantees.md names {module}::{test}: there is none");
    }
}

/// One line for each: `file:line: what is wrong, what to do`.
fn findings(files: &[SourceFile]) -> Vec<String> {
    let test_modules: Vec<_> = files.iter().flat_map(|file| &file.test_modules).collect();
    let in_tests = |file: &&SourceFile| test_modules.iter().any(|module| file.module.starts_with(module));
    let (test_files, code): (Vec<&SourceFile>, Vec<&SourceFile>) = files.iter().partition(in_tests);
    let mut all: Vec<Finding> = code.iter().flat_map(|file| code::check(file)).collect();
    all.extend(test_files.iter().flat_map(|file| code::check_test_file(file)));
    all.extend(layers::check(&code, &LAYERS));
    all.sort();
    all.dedup();
    all.iter().map(Finding::to_string).collect()
}

/// Something against the rules.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    file: String,
    line: usize,
    what: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The findings in a tree of files, each a path and its text; `//!` is put before each.
    fn check(files: &[(&str, &str)]) -> Vec<String> {
        let file = |(path, text): &(&str, &str)| SourceFile::parse(path, &format!("//! A file.\n{text}")).unwrap();
        findings(&files.iter().map(file).collect::<Vec<_>>())
    }

    fn check_one(text: &str) -> Vec<String> {
        check(&[("src/clock_user.rs", text)]).into_iter().filter(|finding| !finding.contains("layer table")).collect()
    }

    #[test]
    fn lower_rows_may_be_used() {
        let files = [
            ("src/main.rs", "fn main() { flumen::cli::run(); }"),
            ("src/cli/mod.rs", "use crate::{engine::Engine, error::{Error, Result}};"),
            ("src/engine/mod.rs", "mod batch; pub use batch::Batch; use crate::sink::Sink;"),
            ("src/engine/batch.rs", "use super::Engine; use crate::error; pub struct Batch;"),
            ("src/sink/mod.rs", "fn f() -> crate::error::Result<()> { Ok(()) }"),
            ("src/error.rs", "pub struct Error;"),
        ];
        assert_eq!(check(&files), [""; 0]);
    }

    #[test]
    fn higher_rows_and_siblings_may_not() {
        let files = [
            ("src/sink/mod.rs", "use crate::source::Log;\nfn f() { crate::engine::run(); }"),
            ("src/error.rs", "use crate::{clock, cli::{self, Cli}};"),
            ("src/sink/delta.rs", "use super::super::engine::Engine;"),
        ];
        assert_eq!(
            check(&files),
            [
                "src/error.rs:2: error uses cli, a higher row: move the code down or hand it in as an argument",
                "src/error.rs:2: error uses clock, a higher row: move the code down or hand it in as an argument",
                "src/sink/delta.rs:2: sink uses engine, a higher row: move the code down or hand it in as an argument",
                "src/sink/mod.rs:2: sink uses source, its own row: siblings never meet, join them one row up",
                "src/sink/mod.rs:3: sink uses engine, a higher row: move the code down or hand it in as an argument",
            ]
        );
    }

    #[test]
    fn a_macro_hides_no_use() {
        let files = [("src/error.rs", "fn f() -> String { format!(\"{}\", crate::sink::NAME) }"), ("src/sink.rs", "")];
        let expected = "src/error.rs:2: error uses sink, a higher row: move the code down or hand it in as an argument";
        assert_eq!(check(&files), [expected]);
    }

    #[test]
    fn modules_that_the_table_does_not_know_are_named() {
        let expected = "src/misfit.rs:1: module misfit is not in the layer table: give it a row in tests/suite/tidy.rs";
        assert_eq!(check(&[("src/misfit.rs", "")]), [expected]);
    }

    #[test]
    fn modules_of_a_folder_form_no_circle() {
        let files = [
            ("src/sink/mod.rs", "mod a; mod b; mod c; pub use b::Thing;"),
            ("src/sink/a.rs", "use super::Thing;"),
            ("src/sink/b.rs", "use super::c::C; pub struct Thing;"),
            ("src/sink/c.rs", "\nfn f() { crate::sink::a::go(); }"),
        ];
        let expected = "src/sink/a.rs:2: modules use each other in a circle: sink::a -> sink::b -> sink::c -> sink::a: \
                        move what they share into a module of its own";
        assert_eq!(check(&files), [expected]);
    }

    #[test]
    fn tests_may_use_what_they_like() {
        let test = "#[cfg(test)] mod tests { use crate::cli; fn f() { None::<u8>.unwrap(); panic!() } }";
        assert_eq!(check(&[("src/error.rs", test)]), [""; 0]);
        let files = [
            ("src/sink/mod.rs", "#[cfg(test)] mod cases;"),
            ("src/sink/cases.rs", "use crate::cli; fn f() { None::<u8>.unwrap(); }"),
        ];
        assert_eq!(check(&files), [""; 0]);
        let not_test = "#[cfg(not(test))] mod real { fn f() { None::<u8>.unwrap(); } }";
        assert_eq!(check(&[("src/error.rs", not_test)]).len(), 1);
    }

    #[test]
    fn nothing_ends_the_process() {
        let text =
            "fn f() {\n a.unwrap();\n a.expect(\"b\");\n panic!();\n todo!();\n unreachable!();\n assert!(a);\n}";
        let lines: Vec<String> = check_one(text).iter().map(|l| l.split(',').next().unwrap().to_owned()).collect();
        assert_eq!(
            lines,
            [
                "src/clock_user.rs:3: unwrap()",
                "src/clock_user.rs:4: expect()",
                "src/clock_user.rs:5: panic!",
                "src/clock_user.rs:6: todo!",
                "src/clock_user.rs:7: unreachable!",
                "src/clock_user.rs:8: assert!",
            ]
        );
        assert_eq!(
            check_one("fn f() {\n vec![a.unwrap(), g(panic!())];\n}"),
            [
                "src/clock_user.rs:3: panic!, return an error",
                "src/clock_user.rs:3: unwrap(), return an error with `?` or give a default",
            ]
        );
    }

    #[test]
    fn words_and_own_methods_are_no_findings() {
        let text = "// a.unwrap() panic!\nfn f() { let s = \"x.unwrap()\"; self.expect(s)?; debug_assert!(s); \
                    s.unwrap_or(1); info!(\"panic! {}\", s); }";
        assert_eq!(check_one(text), [""; 0]);
    }

    #[test]
    fn time_and_chance_come_from_the_clock() {
        let text = "fn f() { SystemTime::now(); }\nfn g() { std::time::Instant::now(); }\nfn h() { Utc::now(); }\n\
                    fn i() { rand::random(); }\nuse rand::Rng;\nfn j() { Uuid::new_v4(); }\n\
                    fn k() { format!(\"{:?}\", Instant::now()); }";
        let found = check_one(text);
        let what: Vec<&str> = found.iter().map(|line| line.split(&[' ', ','][..]).nth(1).unwrap()).collect();
        assert_eq!(
            what,
            ["SystemTime::now", "Instant::now", "Utc::now", "rand", "rand", "Uuid::new_v4", "Instant::now"]
        );
        assert_eq!(check(&[("src/clock.rs", text), ("src/main.rs", text)]), [""; 0]);
    }

    #[test]
    fn unsafe_code_has_one_place() {
        let text = "fn f() { unsafe { g() } }\nunsafe fn g() {}\nunsafe impl Send for X {}\nextern \"C\" { fn h(); }";
        assert_eq!(check(&[("src/kafka.rs", text)]).len(), 4);
        assert_eq!(check(&[("src/source/kafka/ffi.rs", text)]), [""; 0]);
    }

    #[test]
    fn names_say_what_is_in_them() {
        assert_eq!(
            check_one("mod inner { mod utils {} }"),
            ["src/clock_user.rs:2: a module named utils says nothing, name it after what it holds"]
        );
        assert_eq!(
            check(&[("src/sink/helpers.rs", "")]),
            ["src/sink/helpers.rs:1: a module named helpers says nothing, name it after what it holds"]
        );
    }

    #[test]
    fn sizes_are_bounded() {
        let body = "    g();\n".repeat(70);
        let long = format!("fn f() {{\n{body}}}\nfn short() {{\n}}");
        assert_eq!(check_one(&long), ["src/clock_user.rs:2: function f has 72 lines, at most 70: split it"]);
        let wide = format!("#[cfg(test)]\nmod tests {{\n    // {}\n}}", "x".repeat(120));
        assert_eq!(check_one(&wide), ["src/clock_user.rs:4: the line has 127 columns, at most 120: break it"]);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}", "// a test\n".repeat(700));
        assert_eq!(check_one(&format!("{}{tests}", "// code\n".repeat(599))), [""; 0]);
        let found = check_one(&format!("{}{tests}", "// code\n".repeat(600)));
        assert_eq!(found, ["src/clock_user.rs:601: the file has 601 lines before its tests, at most 600: split it"]);
    }

    #[test]
    fn a_file_says_what_it_is() {
        let file = SourceFile::parse("src/error.rs", "use std::fmt;\n").unwrap();
        let expected = "src/error.rs:1: the file does not say what it is, begin it with a `//!` line";
        assert_eq!(findings(&[file]), [expected]);
    }
}
