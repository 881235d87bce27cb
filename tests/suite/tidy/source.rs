//! Source files, each with the module that it is.

use std::fs;
use std::io;
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::{Attribute, ImplItem, Item};

/// A file under `src/`.
pub struct SourceFile {
    /// Its path from the package's root, with `/`.
    pub path: String,
    /// Its module: `["sink", "delta"]`; empty for `lib.rs`.
    pub module: Vec<String>,
    /// Its text.
    pub text: String,
    /// Its items without those that exist in tests only.
    pub items: Vec<Item>,
    /// The lines before its tests.
    pub code_lines: usize,
    /// Its modules that stand in files of their own and exist in tests only.
    pub test_modules: Vec<Vec<String>>,
}

impl SourceFile {
    /// Parses the file at `path` (from the package's root: `src/…`).
    pub fn parse(path: &str, text: &str) -> syn::Result<Self> {
        let inner = path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
        let module: Vec<String> = match inner {
            "lib" => Vec::new(),
            inner => inner.split('/').map(str::to_owned).collect(),
        };
        let mut items = syn::parse_file(text)?.items;
        let (mut code_lines, mut test_modules) = (text.lines().count(), Vec::new());
        for item in &items {
            if let Item::Mod(item) = item
                && is_test(&item.attrs)
            {
                match &item.content {
                    Some(_) => code_lines = code_lines.min(item.span().start().line - 1),
                    None => test_modules.push([module.clone(), vec![item.ident.to_string()]].concat()),
                }
            }
        }
        strip_tests(&mut items);
        Ok(Self { path: path.to_owned(), module, text: text.to_owned(), items, code_lines, test_modules })
    }
}

/// All files under `src`, in the order of their paths.
pub fn read_tree(src: &Path) -> io::Result<Vec<SourceFile>> {
    let mut files = Vec::new();
    let mut folders = vec![src.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = format!("src/{}", path.strip_prefix(src).unwrap().to_string_lossy().replace('\\', "/"));
                let parsed = SourceFile::parse(&name, &fs::read_to_string(&path)?);
                files.push(parsed.unwrap_or_else(|error| panic!("{name}:{}: {error}", error.span().start().line)));
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn strip_tests(items: &mut Vec<Item>) {
    items.retain(|item| !is_test(attributes(item)));
    for item in items {
        match item {
            Item::Mod(item) => {
                if let Some((_, items)) = &mut item.content {
                    strip_tests(items);
                }
            }
            Item::Impl(item) => item.items.retain(|item| match item {
                ImplItem::Fn(item) => !is_test(&item.attrs),
                ImplItem::Const(item) => !is_test(&item.attrs),
                _ => true,
            }),
            _ => {}
        }
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Whether what carries these attributes exists in tests only: `cfg` of `test`, and of `not` nowhere.
fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) if list.path.is_ident("cfg") => {
            let words = words(list.tokens.clone());
            words.iter().any(|word| word == "test") && !words.iter().any(|word| word == "not")
        }
        syn::Meta::Path(path) => path.is_ident("test"),
        _ => false,
    })
}

fn words(tokens: TokenStream) -> Vec<String> {
    let of_tree = |tree| match tree {
        TokenTree::Ident(word) => vec![word.to_string()],
        TokenTree::Group(group) => words(group.stream()),
        _ => vec![],
    };
    tokens.into_iter().flat_map(of_tree).collect()
}
