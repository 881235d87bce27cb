//! `.proto` texts that lie in no directory: those of a schema registry, which knows a file's imports by their names.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use protox::Error as Compilation;
use protox::file::{File, FileResolver, GoogleFileResolver};

use super::fault::{ProtoFault, ProtoFaultKind};
use super::roots::editions_at;

/// What registries know without a reference to it.
const BUILT_IN: [(&str, &str); 2] = [
    ("confluent/meta.proto", include_str!("../../proto/confluent/meta.proto")),
    ("confluent/type/decimal.proto", include_str!("../../proto/confluent/type/decimal.proto")),
];

/// Opens texts by their import names for the compiler.
pub(super) struct Texts {
    texts: BTreeMap<String, String>,
    well_known: GoogleFileResolver,
    /// A fault that was found before the compiler could look at the file.
    fault: Rc<RefCell<Option<ProtoFault>>>,
}

impl Texts {
    pub(super) fn new(texts: BTreeMap<String, String>, fault: Rc<RefCell<Option<ProtoFault>>>) -> Self {
        Self { texts, well_known: GoogleFileResolver::new(), fault }
    }
}

impl FileResolver for Texts {
    fn open_file(&self, name: &str) -> Result<File, Compilation> {
        let built_in = || BUILT_IN.iter().find(|(known, _)| *known == name).map(|(_, text)| *text);
        let Some(text) = self.texts.get(name).map(String::as_str).or_else(built_in) else {
            return self.well_known.open_file(name);
        };
        if let Some(offset) = editions_at(text) {
            let message = "a file with editions is not compiled here";
            let fault = ProtoFault::new(ProtoFaultKind::Editions, message).in_file(name).at(text, offset);
            *self.fault.borrow_mut() = Some(fault.clone());
            return Err(Compilation::new(fault));
        }
        File::from_source(name, text)
    }
}
