//! `.proto` texts that lie in no directory: those of a schema registry, which knows a file's imports by their names.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use protox::Error as Compilation;
use protox::file::{File, FileResolver, GoogleFileResolver};

use super::built_in::built_in;
use super::roots::Seen;

/// Opens texts by their import names for the compiler.
pub(super) struct Texts {
    texts: BTreeMap<String, String>,
    well_known: GoogleFileResolver,
    seen: Rc<RefCell<Seen>>,
}

impl Texts {
    pub(super) fn new(texts: BTreeMap<String, String>, seen: Rc<RefCell<Seen>>) -> Self {
        Self { texts, well_known: GoogleFileResolver::new(), seen }
    }
}

impl FileResolver for Texts {
    fn open_file(&self, name: &str) -> Result<File, Compilation> {
        match self.texts.get(name) {
            Some(text) => self.seen.borrow_mut().file(name, text),
            None => built_in(name).unwrap_or_else(|| self.well_known.open_file(name)),
        }
    }
}
