//! The rules between files: who may use whom.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

use super::Finding;
use super::source::SourceFile;

/// The words of a module's or an item's path, without `crate`.
type Path = Vec<String>;

/// What is wrong between files. `layers` are rows from low to high.
pub fn check(files: &[&SourceFile], layers: &[&[&str]]) -> Vec<Finding> {
    let house = House::new(files);
    let mut findings = unknown_modules(files, layers);
    for (file, uses) in files.iter().zip(&house.uses) {
        findings.extend(uses.iter().filter_map(|used| against_layers(&house, layers, file, used)));
    }
    findings.extend(circles(files, &house));
    findings
}

fn row(layers: &[&[&str]], module: &str) -> Option<usize> {
    layers.iter().position(|row| row.contains(&module))
}

fn unknown_modules(files: &[&SourceFile], layers: &[&[&str]]) -> Vec<Finding> {
    let mut unknown = BTreeMap::new();
    for file in files {
        if let Some(top) = file.module.first()
            && row(layers, top).is_none()
        {
            unknown.entry(top.clone()).or_insert_with(|| file.path.clone());
        }
    }
    let finding = |(top, file)| {
        let what = format!("module {top} is not in the layer table: give it a row in tests/suite/tidy.rs");
        Finding { file, line: 1, what }
    };
    unknown.into_iter().map(finding).collect()
}

fn against_layers(house: &House, layers: &[&[&str]], file: &SourceFile, used: &Use) -> Option<Finding> {
    let from = file.module.first()?;
    let to = used.path.first().filter(|top| row(layers, top).is_some()).cloned();
    let to = to.or_else(|| house.resolve(&used.path).first().cloned())?;
    let (from_row, to_row) = (row(layers, from)?, row(layers, &to)?);
    let what = match to_row.cmp(&from_row) {
        _ if *from == to => return None,
        std::cmp::Ordering::Less => return None,
        std::cmp::Ordering::Equal => "its own row: siblings never meet, join them one row up",
        std::cmp::Ordering::Greater => "a higher row: move the code down or hand it in as an argument",
    };
    Some(Finding { file: file.path.clone(), line: used.line, what: format!("{from} uses {to}, {what}") })
}

/// Modules that use each other in a circle. A module and the modules inside it count as one: a folder's `mod.rs` says
/// what the folder is, and its files say how.
fn circles(files: &[&SourceFile], house: &House) -> Vec<Finding> {
    let mut edges: BTreeMap<Path, BTreeMap<Path, usize>> = BTreeMap::new();
    for (file, uses) in files.iter().zip(&house.uses) {
        for used in uses {
            let to = house.resolve(&used.path);
            if !to.is_empty() && !to.starts_with(&file.module) && !file.module.starts_with(&to) {
                edges.entry(file.module.clone()).or_default().entry(to).or_insert(used.line);
            }
        }
    }
    let mut found = BTreeSet::new();
    let mut done = BTreeSet::new();
    for start in edges.keys() {
        walk(&edges, &mut vec![start.clone()], &mut done, &mut found);
    }
    let finding = |circle: Vec<Path>| {
        let file =
            files.iter().find(|file| file.module == circle[0]).map_or_else(String::new, |file| file.path.clone());
        let names: Vec<String> = circle.iter().chain([&circle[0]]).map(|module| module.join("::")).collect();
        let what = format!(
            "modules use each other in a circle: {}: move what they share into a module of its own",
            names.join(" -> ")
        );
        Finding { file, line: edges[&circle[0]][&circle[1]], what }
    };
    found.into_iter().map(finding).collect()
}

/// Depth first from the last module of `path`; a module that stands in `path` again closes a circle.
fn walk(
    edges: &BTreeMap<Path, BTreeMap<Path, usize>>,
    path: &mut Vec<Path>,
    done: &mut BTreeSet<Path>,
    found: &mut BTreeSet<Vec<Path>>,
) {
    let Some(last) = path.last().cloned() else { return };
    if done.contains(&last) {
        return;
    }
    for next in edges.get(&last).into_iter().flat_map(BTreeMap::keys) {
        if let Some(start) = path.iter().position(|module| module == next) {
            let mut circle = path[start..].to_vec();
            let least = (0..circle.len()).min_by_key(|&index| circle[index].clone()).unwrap_or(0);
            circle.rotate_left(least);
            found.insert(circle);
        } else {
            path.push(next.clone());
            walk(edges, path, done, found);
            path.pop();
        }
    }
    done.insert(last);
}

/// All files, what they use, and what names they bring into their modules.
struct House {
    modules: BTreeSet<Path>,
    /// For each file, in the files' order.
    uses: Vec<Vec<Use>>,
    /// What `use` makes of a name in a module.
    imports: BTreeMap<(Path, String), Path>,
}

struct Use {
    /// From the crate's root.
    path: Path,
    line: usize,
}

impl House {
    fn new(files: &[&SourceFile]) -> Self {
        let modules: BTreeSet<Path> = files.iter().map(|file| file.module.clone()).collect();
        let mut imports = BTreeMap::new();
        let mut uses = Vec::new();
        for file in files {
            let mut collector = Collector::new(&modules, file.module.clone());
            file.items.iter().for_each(|item| collector.visit_item(item));
            uses.push(collector.uses);
            imports.extend(collector.imports);
        }
        Self { modules, uses, imports }
    }

    /// The module that holds what this path names, through re-exports.
    fn resolve(&self, path: &[String]) -> Path {
        let mut path = path.to_vec();
        // Re-exports form no endless chain in code that compiles; the limit is for code that does not.
        for _ in 0..16 {
            let known = (0..=path.len()).rev().find(|&length| self.modules.contains(&path[..length])).unwrap_or(0);
            let import = path.get(known).and_then(|name| self.imports.get(&(path[..known].to_vec(), name.clone())));
            match import {
                Some(target) => path = [target, &path[known + 1..]].concat(),
                None => return path[..known].to_vec(),
            }
        }
        path
    }
}

/// Finds the paths in a file.
struct Collector<'a> {
    modules: &'a BTreeSet<Path>,
    /// The module that is being looked at, inline modules included.
    current: Path,
    uses: Vec<Use>,
    imports: BTreeMap<(Path, String), Path>,
}

impl<'a> Collector<'a> {
    fn new(modules: &'a BTreeSet<Path>, current: Path) -> Self {
        Self { modules, current, uses: Vec::new(), imports: BTreeMap::new() }
    }

    /// The path from the crate's root, when these words name something of this crate.
    fn absolute(&self, words: &[String]) -> Option<Path> {
        let (first, mut rest) = words.split_first()?;
        let mut base = match first.as_str() {
            "crate" | "flumen" => Path::new(),
            "self" => self.current.clone(),
            "super" => self.parent(&self.current),
            child => {
                let child = [self.current.clone(), vec![child.to_owned()]].concat();
                return self.modules.contains(&child).then(|| [&child, rest].concat());
            }
        };
        while let Some((word, after)) = rest.split_first()
            && word == "super"
        {
            base = self.parent(&base);
            rest = after;
        }
        Some([&base, rest].concat())
    }

    fn parent(&self, module: &[String]) -> Path {
        module[..module.len().saturating_sub(1)].to_vec()
    }

    fn add(&mut self, words: &[String], line: usize) {
        if let Some(path) = self.absolute(words) {
            self.uses.push(Use { path, line });
        }
    }

    fn use_tree(&mut self, tree: &syn::UseTree, words: &mut Vec<String>) {
        match tree {
            syn::UseTree::Path(path) => {
                words.push(path.ident.to_string());
                self.use_tree(&path.tree, words);
                words.pop();
            }
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.use_tree(tree, words)),
            syn::UseTree::Glob(glob) => self.add(words, glob.star_token.spans[0].start().line),
            syn::UseTree::Name(name) => self.import(words, &name.ident, &name.ident),
            syn::UseTree::Rename(rename) => self.import(words, &rename.ident, &rename.rename),
        }
    }

    fn import(&mut self, words: &[String], name: &syn::Ident, renamed: &syn::Ident) {
        let mut words = words.to_vec();
        let mut renamed = renamed.to_string();
        if name != "self" {
            words.push(name.to_string());
        } else if renamed == "self" {
            renamed = words.last().cloned().unwrap_or_default();
        }
        self.add(&words, name.span().start().line);
        if let Some(target) = self.absolute(&words)
            && [self.current.clone(), vec![renamed.clone()]].concat() != target
        {
            self.imports.insert((self.current.clone(), renamed), target);
        }
    }

    /// What a macro is given is no syntax yet: paths from `crate` are found in its tokens.
    fn tokens(&mut self, tokens: TokenStream) {
        let trees: Vec<TokenTree> = tokens.into_iter().collect();
        for (index, tree) in trees.iter().enumerate() {
            match tree {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(word) if word == "crate" => {
                    // `crate :: a :: b`: a word, then two colons, and so on.
                    let mut words = vec!["crate".to_owned()];
                    let mut rest = &trees[index + 1..];
                    while let [TokenTree::Punct(_), TokenTree::Punct(_), TokenTree::Ident(name), after @ ..] = rest {
                        words.push(name.to_string());
                        rest = after;
                    }
                    self.add(&words, word.span().start().line);
                }
                _ => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Collector<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.current.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.current.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.use_tree(&item.tree, &mut Vec::new());
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let words: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if let Some(first) = path.segments.first()
            && ["crate", "flumen", "self", "super"].contains(&words[0].as_str())
            && words.len() > 1
        {
            self.add(&words, first.ident.span().start().line);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, invocation: &'ast syn::Macro) {
        self.tokens(invocation.tokens.clone());
        visit::visit_macro(self, invocation);
    }
}
