//! The rules that one file keeps by itself: sizes, names, no panics, no clock, no `unsafe`.

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use super::Finding;
use super::source::SourceFile;

const FILE_LINES: usize = 600;
const FUNCTION_LINES: usize = 70;
const COLUMNS: usize = 120;
/// Names that say nothing about what a module holds.
const EMPTY_NAMES: [&str; 7] = ["utils", "util", "common", "helpers", "helper", "types", "misc"];
/// Methods that end the process.
const PANICKING_METHODS: [&str; 4] = ["unwrap", "expect", "unwrap_err", "expect_err"];
/// Macros that end the process.
const PANICKING_MACROS: [&str; 7] =
    ["panic", "todo", "unimplemented", "unreachable", "assert", "assert_eq", "assert_ne"];
/// Calls that read time or chance.
const CLOCK_CALLS: [[&str; 2]; 5] =
    [["SystemTime", "now"], ["Instant", "now"], ["Utc", "now"], ["Local", "now"], ["Uuid", "new_v4"]];
/// The files that may read time and chance.
const CLOCK_FILES: [&str; 2] = ["src/clock.rs", "src/main.rs"];
/// The file that may hold `unsafe` code.
const UNSAFE_FILE: &str = "src/source/kafka/ffi.rs";

/// What is wrong in a file.
pub fn check(file: &SourceFile) -> Vec<Finding> {
    let mut checker = Checker { file, findings: Vec::new() };
    checker.lines();
    if file.code_lines > FILE_LINES {
        let what = format!("the file has {} lines before its tests, at most {FILE_LINES}: split it", file.code_lines);
        checker.add(file.code_lines, what);
    }
    if let Some(name) = file.module.last() {
        checker.name(name, 1);
    }
    file.items.iter().for_each(|item| checker.visit_item(item));
    checker.findings
}

/// What is wrong in a file that exists in tests only.
pub fn check_test_file(file: &SourceFile) -> Vec<Finding> {
    let mut checker = Checker { file, findings: Vec::new() };
    checker.lines();
    checker.findings
}

struct Checker<'a> {
    file: &'a SourceFile,
    findings: Vec<Finding>,
}

impl Checker<'_> {
    fn add(&mut self, line: usize, what: impl Into<String>) {
        self.findings.push(Finding { file: self.file.path.clone(), line, what: what.into() });
    }

    fn at(&mut self, span: Span, what: impl Into<String>) {
        self.add(span.start().line, what);
    }

    fn lines(&mut self) {
        if !self.file.text.starts_with("//!") {
            self.add(1, "the file does not say what it is, begin it with a `//!` line");
        }
        for (index, line) in self.file.text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > COLUMNS {
                self.add(index + 1, format!("the line has {columns} columns, at most {COLUMNS}: break it"));
            }
        }
    }

    fn name(&mut self, name: &str, line: usize) {
        if EMPTY_NAMES.contains(&name) {
            self.add(line, format!("a module named {name} says nothing, name it after what it holds"));
        }
    }

    fn function(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let (first, last) = (signature.span().start().line, block.span().end().line);
        let lines = last + 1 - first;
        if lines > FUNCTION_LINES {
            let name = &signature.ident;
            self.add(first, format!("function {name} has {lines} lines, at most {FUNCTION_LINES}: split it"));
        }
    }

    fn panics(&mut self, span: Span, call: &str) {
        self.at(span, format!("{call}, return an error{}", if call.ends_with('!') { "" } else { HOW_NOT_TO_UNWRAP }));
    }

    fn clock(&mut self, span: Span, call: &str) {
        if !CLOCK_FILES.contains(&self.file.path.as_str()) {
            self.at(span, format!("{call}, take a clock::Clock or a clock::Stopwatch"));
        }
    }

    fn unsafe_code(&mut self, span: Span) {
        if self.file.path != UNSAFE_FILE {
            self.at(span, format!("unsafe code, do without it or move it to {UNSAFE_FILE}"));
        }
    }

    /// A path in code: the words between its `::`.
    fn words(&mut self, words: &[String], span: Span) {
        let [.., owner, name] = words else { return };
        if words[0] == "rand" {
            self.clock(span, "rand");
        } else if CLOCK_CALLS.contains(&[owner, name]) {
            self.clock(span, &format!("{owner}::{name}"));
        } else if ["Option", "Result"].contains(&owner.as_str()) && PANICKING_METHODS.contains(&name.as_str()) {
            self.panics(span, &format!("{name}()"));
        }
    }

    /// What a macro is given is no syntax yet: its tokens are searched.
    fn tokens(&mut self, tokens: TokenStream) {
        let trees: Vec<TokenTree> = tokens.into_iter().collect();
        for (index, tree) in trees.iter().enumerate() {
            match tree {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(word) => {
                    let (before, after) = (&trees[..index], &trees[index + 1..]);
                    self.word(before, &word.to_string(), after, word.span());
                }
                _ => {}
            }
        }
    }

    fn word(&mut self, before: &[TokenTree], word: &str, after: &[TokenTree], span: Span) {
        let called = matches!(after, [TokenTree::Group(group), ..] if group.delimiter() == Delimiter::Parenthesis);
        let method = match before {
            [.., TokenTree::Ident(receiver), dot] if receiver == "self" => is_punct(dot, '.') && word != "expect",
            [.., dot] => is_punct(dot, '.'),
            [] => false,
        };
        if method && called && PANICKING_METHODS.contains(&word) {
            self.panics(span, &format!("{word}()"));
        }
        if let [bang, TokenTree::Group(_), ..] = after
            && is_punct(bang, '!')
            && PANICKING_MACROS.contains(&word)
        {
            self.panics(span, &format!("{word}!"));
        }
        if let [first, second, TokenTree::Ident(name), ..] = after
            && is_punct(first, ':')
            && is_punct(second, ':')
        {
            self.words(&[word.to_owned(), name.to_string()], span);
        }
        if word == "unsafe" {
            self.unsafe_code(span);
        }
    }
}

const HOW_NOT_TO_UNWRAP: &str = " with `?` or give a default";

fn is_punct(tree: &TokenTree, wanted: char) -> bool {
    matches!(tree, TokenTree::Punct(punct) if punct.as_char() == wanted)
}

impl<'ast> Visit<'ast> for Checker<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.name(&item.ident.to_string(), item.ident.span().start().line);
        visit::visit_item_mod(self, item);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        if let Some(word) = &signature.unsafety {
            self.unsafe_code(word.span());
        }
        visit::visit_signature(self, signature);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if let Some(word) = &item.unsafety {
            self.unsafe_code(word.span());
        }
        visit::visit_item_impl(self, item);
    }

    fn visit_item_foreign_mod(&mut self, item: &'ast syn::ItemForeignMod) {
        self.unsafe_code(item.abi.span());
        visit::visit_item_foreign_mod(self, item);
    }

    fn visit_expr_unsafe(&mut self, expression: &'ast syn::ExprUnsafe) {
        self.unsafe_code(expression.unsafe_token.span());
        visit::visit_expr_unsafe(self, expression);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        let method = call.method.to_string();
        // `self.expect(token)` is a parser's own method.
        let own = matches!(&*call.receiver, syn::Expr::Path(path) if path.path.is_ident("self")) && method == "expect";
        if PANICKING_METHODS.contains(&method.as_str()) && !own {
            self.panics(call.method.span(), &format!("{method}()"));
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let words: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.words(&words, path.span());
        visit::visit_path(self, path);
    }

    fn visit_use_path(&mut self, path: &'ast syn::UsePath) {
        if path.ident == "rand" {
            self.clock(path.ident.span(), "rand");
        }
        visit::visit_use_path(self, path);
    }

    fn visit_macro(&mut self, invocation: &'ast syn::Macro) {
        if let Some(segment) = invocation.path.segments.last() {
            let name = segment.ident.to_string();
            if PANICKING_MACROS.contains(&name.as_str()) {
                self.panics(segment.ident.span(), &format!("{name}!"));
            }
        }
        self.tokens(invocation.tokens.clone());
        visit::visit_macro(self, invocation);
    }
}
