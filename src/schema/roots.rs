//! Where `.proto` files are looked up: the import roots, then the well-known types that are built in.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use protox::Error as Compilation;
use protox::file::{File, FileResolver, GoogleFileResolver};

use super::built_in::built_in;
use super::edition_text::{Lowered, editions_at};
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
    /// The files with editions, by import name.
    pub(super) editions: BTreeMap<String, Lowered>,
}

impl Seen {
    /// A file of that import name for the compiler, which knows no editions.
    pub(super) fn file(&mut self, name: &str, source: &str) -> Result<File, Compilation> {
        let Some(start) = editions_at(source) else { return File::from_source(name, source) };
        let lowered = Lowered::new(source, start).map_err(|fault| self.refuse(fault.in_file(name)))?;
        let file = File::from_source(name, &lowered.text);
        self.editions.insert(name.to_owned(), lowered);
        file
    }

    /// The compiler's error for a fault of ours, which is kept.
    fn refuse(&mut self, fault: ProtoFault) -> Compilation {
        let error = Compilation::new(fault.clone());
        self.fault = Some(fault);
        error
    }

    /// The compiler's error as a fault of the text as it was.
    pub(super) fn fault_of(&self, error: &Compilation) -> ProtoFault {
        let mut fault = match &self.fault {
            Some(fault) => fault.clone(),
            None => {
                let fault = ProtoFault::from_compiler(error);
                let lowered = fault.file.as_deref().and_then(Path::to_str).and_then(|name| self.editions.get(name));
                match lowered {
                    Some(lowered) => lowered.put_back(fault),
                    None => fault,
                }
            }
        };
        if let Some(path) = fault.file.as_deref().and_then(Path::to_str).and_then(|name| self.paths.get(name)) {
            fault.file = Some(path.clone());
        }
        fault
    }
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
}

impl FileResolver for Resolver {
    fn open_file(&self, name: &str) -> Result<File, Compilation> {
        let Some(path) = self.roots.find(name) else {
            return built_in(name).unwrap_or_else(|| self.well_known.open_file(name));
        };
        let mut seen = self.seen.borrow_mut();
        seen.paths.insert(name.to_owned(), path.clone());
        let source = read_source(&path).map_err(|error| {
            let message = format!("proto file '{}' cannot be read: {error}", path.display());
            seen.refuse(ProtoFault::new(ProtoFaultKind::FileNotFound, message).in_file(&path))
        })?;
        seen.file(name, &source)
    }
}

fn read_source(path: &Path) -> io::Result<String> {
    let length = std::fs::metadata(path)?.len();
    if length > MAX_SOURCE {
        return Err(io::Error::other(format!("it has {length} bytes, more than {MAX_SOURCE}")));
    }
    let text = std::fs::read_to_string(path)?;
    // Some editors mark UTF-8 so.
    Ok(text.strip_prefix('\u{feff}').map(str::to_string).unwrap_or(text))
}
