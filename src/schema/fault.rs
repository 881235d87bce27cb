//! What can be wrong with a `.proto` file, with the place in that file.

use std::fmt;
use std::path::PathBuf;

use protox::Error as Compilation;

/// What is wrong with a `.proto` file or a descriptor set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProtoFaultKind {
    /// A file that was asked for does not exist or cannot be read.
    FileNotFound,
    /// A file imports one that lies under none of the import roots.
    ImportNotFound,
    /// The text is not protobuf.
    Syntax,
    /// The text parses, but names, numbers or options contradict each other.
    Invalid,
    /// The file is of an edition, or a syntax, that is not known.
    Editions,
}

/// Why `.proto` files could not be compiled. Line and column count from 1 and belong to `file`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtoFault {
    /// What is wrong.
    pub kind: ProtoFaultKind,
    /// The fault in words, without the place.
    pub message: String,
    /// The file that has to be mended.
    pub file: Option<PathBuf>,
    /// The line in `file`.
    pub line: Option<usize>,
    /// The column in `file`, in characters.
    pub column: Option<usize>,
}

impl ProtoFault {
    pub(super) fn new(kind: ProtoFaultKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), file: None, line: None, column: None }
    }

    /// The same fault in `file`.
    pub(super) fn in_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.file = Some(file.into());
        self
    }

    /// The same fault at the byte `offset` of `source`.
    pub(super) fn at(mut self, source: &str, offset: usize) -> Self {
        let before = source.get(..offset).unwrap_or(source);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        self.line = Some(before.matches('\n').count() + 1);
        self.column = Some(before[start..].chars().count() + 1);
        self
    }

    /// The fault that the compiler reports; the name of its file is still the import name.
    ///
    /// The compiler keeps its spans to itself, but its `Debug` text begins with `file:line:column: `.
    pub(super) fn from_compiler(error: &Compilation) -> Self {
        let message = error.to_string();
        let kind = if message.starts_with("import '") && message.ends_with("' not found") {
            ProtoFaultKind::ImportNotFound
        } else if error.is_file_not_found() || error.is_io() {
            ProtoFaultKind::FileNotFound
        } else if error.is_parse() {
            ProtoFaultKind::Syntax
        } else {
            ProtoFaultKind::Invalid
        };
        let mut fault = ProtoFault::new(kind, message);
        if let Some(file) = error.file() {
            fault.file = Some(PathBuf::from(file));
            if let Some((line, column)) = leading_place(&format!("{error:?}"), file) {
                fault.line = Some(line);
                fault.column = Some(column);
            }
        }
        fault
    }
}

/// The line and the column of a text such as `a.proto:3:7: message`.
fn leading_place(text: &str, file: &str) -> Option<(usize, usize)> {
    let rest = text.strip_prefix(file)?.strip_prefix(':')?;
    let (line, rest) = rest.split_once(':')?;
    let (column, _) = rest.split_once(':')?;
    Some((line.parse().ok()?, column.parse().ok()?))
}

impl fmt::Display for ProtoFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}:", file.display())?;
            if let (Some(line), Some(column)) = (self.line, self.column) {
                write!(f, "{line}:{column}:")?;
            }
            f.write_str(" ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for ProtoFault {}
