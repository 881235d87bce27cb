//! Where `.proto` files are looked up: the import roots, then the well-known types that are built in.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use protox::Error as Compilation;
use protox::file::{File, FileResolver, GoogleFileResolver};

use super::fault::{ProtoFault, ProtoFaultKind};

/// A `.proto` file larger than this is a mistake: 16 MiB.
const MAX_SOURCE: u64 = 16 << 20;

/// The import roots, in the order in which they are searched.
#[derive(Debug, Default)]
pub(super) struct Roots {
    roots: Vec<PathBuf>,
}

impl Roots {
    pub(super) fn new(includes: &[PathBuf]) -> Self {
        Self { roots: includes.to_vec() }
    }

    /// The import name of a file that is given by its path. The directory of a file outside of all roots becomes one.
    pub(super) fn import_name(&mut self, file: &Path) -> Result<String, ProtoFault> {
        let missing = || {
            let message = format!("proto file '{}' does not exist", file.display());
            ProtoFault::new(ProtoFaultKind::FileNotFound, message).in_file(file)
        };
        let given = if file.is_file() {
            file.to_path_buf()
        } else {
            // As `protoc` has it, a path may also be relative to an import root.
            let rooted = self.roots.iter().map(|root| root.join(file)).find(|path| path.is_file());
            rooted.filter(|_| file.is_relative()).ok_or_else(missing)?
        };
        let real = real_path(&given).ok_or_else(missing)?;
        for root in &self.roots {
            let Some(name) = root.canonicalize().ok().and_then(|root| name_below(&root, &real)) else { continue };
            if self.find(&name).and_then(|found| real_path(&found)).as_deref() == Some(real.as_path()) {
                return Ok(name);
            }
        }
        let parent = match given.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
            _ => PathBuf::from("."),
        };
        let name = given.file_name().and_then(|name| name.to_str()).ok_or_else(missing)?.to_owned();
        if let Some(other) = self.find(&name).filter(|other| real_path(other).as_ref() != Some(&real)) {
            let message = format!(
                "'{name}' is also found as '{}': give the directory of '{}' as an import root before it",
                other.display(),
                file.display()
            );
            return Err(ProtoFault::new(ProtoFaultKind::Invalid, message).in_file(file));
        }
        self.roots.push(parent);
        Ok(name)
    }

    /// The first file of that import name.
    fn find(&self, name: &str) -> Option<PathBuf> {
        self.roots.iter().map(|root| root.join(name)).find(|path| path.is_file())
    }
}

/// The path with its directory resolved; the last component stays, so that a linked file keeps its name.
fn real_path(file: &Path) -> Option<PathBuf> {
    let parent = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    Some(parent.canonicalize().ok()?.join(file.file_name()?))
}

/// `file` relative to `root`, with forward slashes.
fn name_below(root: &Path, file: &Path) -> Option<String> {
    let parts: Option<Vec<&str>> = file.strip_prefix(root).ok()?.iter().map(|part| part.to_str()).collect();
    parts.filter(|parts| !parts.is_empty()).map(|parts| parts.join("/"))
}

/// What the resolver saw: the compiler takes it by value, and its errors carry less than is needed.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The files that were read, by import name.
    pub(super) paths: BTreeMap<String, PathBuf>,
    /// A fault that was found before the compiler could look at the file.
    pub(super) fault: Option<ProtoFault>,
}

/// Opens files for the compiler.
pub(super) struct Resolver {
    roots: Roots,
    well_known: GoogleFileResolver,
    seen: Rc<RefCell<Seen>>,
}

impl Resolver {
    pub(super) fn new(roots: Roots, seen: Rc<RefCell<Seen>>) -> Self {
        Self { roots, well_known: GoogleFileResolver::new(), seen }
    }

    fn refuse(&self, fault: ProtoFault) -> Compilation {
        let error = Compilation::new(fault.clone());
        self.seen.borrow_mut().fault = Some(fault);
        error
    }
}

impl FileResolver for Resolver {
    fn open_file(&self, name: &str) -> Result<File, Compilation> {
        let Some(path) = self.roots.find(name) else { return self.well_known.open_file(name) };
        self.seen.borrow_mut().paths.insert(name.to_owned(), path.clone());
        let source = read_source(&path).map_err(|error| {
            let message = format!("proto file '{}' cannot be read: {error}", path.display());
            self.refuse(ProtoFault::new(ProtoFaultKind::FileNotFound, message).in_file(&path))
        })?;
        if let Some(offset) = editions_at(&source) {
            let message = "a file with editions is not compiled here, a descriptor set of it is read";
            let fault = ProtoFault::new(ProtoFaultKind::Editions, message).in_file(&path);
            return Err(self.refuse(fault.at(&source, offset)));
        }
        File::from_source(name, &source)
    }
}

fn read_source(path: &Path) -> io::Result<String> {
    let length = std::fs::metadata(path)?.len();
    if length > MAX_SOURCE {
        return Err(io::Error::other(format!("it has {length} bytes, more than {MAX_SOURCE}")));
    }
    std::fs::read_to_string(path)
}

/// Where a file says that it uses editions: `edition = "2023"` or `syntax = "editions"` as its first statement.
pub(super) fn editions_at(source: &str) -> Option<usize> {
    let start = skip_blank(source, 0);
    let rest = &source[start..];
    if let Some(after) = rest.strip_prefix("edition") {
        return after.starts_with(|c: char| c.is_whitespace() || c == '=' || c == '/').then_some(start);
    }
    let equals = skip_blank(source, start + rest.strip_prefix("syntax").map(|_| "syntax".len())?);
    source[equals..].strip_prefix('=')?;
    let text = source[skip_blank(source, equals + 1)..].strip_prefix(['"', '\''])?;
    text.starts_with("editions").then_some(start)
}

/// The offset of the first byte from `from` on that is neither space nor comment.
fn skip_blank(source: &str, from: usize) -> usize {
    let mut rest = source[from..].trim_start_matches('\u{feff}');
    loop {
        rest = rest.trim_start();
        rest = if let Some(comment) = rest.strip_prefix("//") {
            comment.find('\n').map_or("", |end| &comment[end..])
        } else if let Some(comment) = rest.strip_prefix("/*") {
            comment.find("*/").map_or("", |end| &comment[end + 2..])
        } else {
            return source.len() - rest.len();
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn editions_are_seen_behind_comments() {
        for (source, at) in [
            ("edition = \"2023\";", Some(0)),
            ("// note\n/* a\n b */ edition=\"2023\";", Some(19)),
            ("\nsyntax /* x */ = 'editions';", Some(1)),
            ("syntax = \"proto3\";", None),
            ("message edition {}", None),
            ("editions", None),
            ("", None),
            ("/* open", None),
        ] {
            assert_eq!(editions_at(source), at, "{source:?}");
        }
    }
}
