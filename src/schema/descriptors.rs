//! Compiled `.proto` files.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use prost_reflect::prost::Message;
use prost_reflect::prost_types::field_descriptor_proto::Label;
use prost_reflect::prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet};
use prost_reflect::{DescriptorPool, MessageDescriptor};
use protox::Compiler;
use sha2::{Digest, Sha256};

use super::editions;
use super::fault::{ProtoFault, ProtoFaultKind};
use super::roots::{Resolver, Roots, Seen};
use super::texts::Texts;

/// The messages of a set of `.proto` files with all that they import. Cheap to clone.
#[derive(Clone)]
pub struct Descriptors {
    inner: Arc<Inner>,
}

struct Inner {
    pool: DescriptorPool,
    encoded: Vec<u8>,
    sha256: [u8; 32],
}

impl Descriptors {
    /// Compiles `files`, looking for what they import under `includes`, in order, and among the well-known types.
    ///
    /// A file that lies under an import root goes by its name below that root; the directory of any other file becomes
    /// a root itself, after the given ones. A relative path that does not exist is looked up under the roots.
    ///
    /// # Errors
    /// The first fault of the files, with its place.
    pub fn compile(files: &[PathBuf], includes: &[PathBuf]) -> Result<Descriptors, ProtoFault> {
        let mut roots = Roots::new(includes);
        // Sorted, so that the same files give the same set however they were listed.
        let names: BTreeSet<String> = files.iter().map(|file| roots.import_name(file)).collect::<Result<_, _>>()?;
        let seen = Rc::default();
        compiled(Compiler::with_file_resolver(Resolver::new(roots, Rc::clone(&seen))), &names, &seen)
    }

    /// Compiles the text `main` of `texts`, which holds by name what it imports.
    ///
    /// # Errors
    /// The first fault of the texts, with its place.
    pub fn from_texts(main: &str, texts: BTreeMap<String, String>) -> Result<Descriptors, ProtoFault> {
        let seen = Rc::default();
        let names = BTreeSet::from([main.to_owned()]);
        compiled(Compiler::with_file_resolver(Texts::new(texts, Rc::clone(&seen))), &names, &seen)
    }

    /// Reads an encoded `FileDescriptorSet`, as `protoc --include_imports --descriptor_set_out` writes it.
    ///
    /// # Errors
    /// The bytes are no descriptor set, an import is not in it, or its files contradict each other.
    pub fn from_set(bytes: &[u8]) -> Result<Descriptors, ProtoFault> {
        let invalid = |cause: String| {
            let message = format!("not a complete descriptor set: {cause}; make it with 'protoc --include_imports'");
            ProtoFault::new(ProtoFaultKind::Invalid, message)
        };
        let lowered = editions::lowered(bytes)?;
        let plain = lowered.as_deref().unwrap_or(bytes);
        let set = FileDescriptorSet::decode(plain).map_err(|error| invalid(error.to_string()))?;
        if let Some(name) = import_circle(&set.file) {
            return Err(invalid(format!("{name} imports itself, directly or not")));
        }
        for file in &set.file {
            // The pool must not see an unknown syntax: it panics when it makes that error.
            if !matches!(file.syntax.as_deref(), None | Some("proto2" | "proto3")) {
                let message = format!("{} is not supported: use editions, proto3 or proto2", file.syntax());
                return Err(ProtoFault::new(ProtoFaultKind::Editions, message).in_file(file.name()));
            }
            // It also takes the two fields of a map's entry for granted.
            if let Some(name) = file.message_type.iter().find_map(odd_map_entry) {
                return Err(invalid(format!("{name} is no map entry: it needs the fields key = 1 and value = 2")));
            }
        }
        let pool = DescriptorPool::decode(plain).map_err(|error| invalid(error.to_string()))?;
        let sha256 = Sha256::digest(bytes).into();
        Ok(Self { inner: Arc::new(Inner { pool, encoded: bytes.to_vec(), sha256 }) })
    }

    /// The message of that full name, such as `ads.v1.AdImpression`.
    pub fn message(&self, full_name: &str) -> Option<MessageDescriptor> {
        self.inner.pool.get_message_by_name(full_name).filter(|message| !message.is_map_entry())
    }

    /// The message at that place of a file: the index of a message of the file, then of one in it, and so on. The
    /// entries of maps, which no file spells out, are counted by some writers and not by others: so there may be two.
    pub fn messages_at(&self, file: &str, path: &[usize]) -> Vec<MessageDescriptor> {
        let find = |with_entries: bool| {
            let (first, inner) = path.split_first()?;
            let mut message = self.inner.pool.get_file_by_name(file)?.messages().nth(*first)?;
            for index in inner {
                let counts = |child: &MessageDescriptor| with_entries || !child.is_map_entry();
                let child = message.child_messages().filter(counts).nth(*index)?;
                message = child;
            }
            Some(message)
        };
        [find(false), find(true)].into_iter().flatten().collect()
    }

    /// The full names of all messages but the well-known ones, sorted.
    pub fn message_names(&self) -> Vec<String> {
        let messages = self.inner.pool.all_messages().filter(|message| !message.is_map_entry());
        let names = messages.map(|message| message.full_name().to_owned());
        let mut names: Vec<String> = names.filter(|name| !name.starts_with("google.protobuf.")).collect();
        names.sort();
        names
    }

    /// All that the files declare.
    pub fn pool(&self) -> &DescriptorPool {
        &self.inner.pool
    }

    /// The `FileDescriptorSet`: the same bytes for the same files.
    pub fn encoded(&self) -> &[u8] {
        &self.inner.encoded
    }

    /// The SHA-256 of [`Descriptors::encoded`].
    pub fn sha256(&self) -> [u8; 32] {
        self.inner.sha256
    }
}

/// A file that imports itself, directly or not: the pool would follow it for ever.
fn import_circle(files: &[FileDescriptorProto]) -> Option<&str> {
    let mut left: Vec<&FileDescriptorProto> = files.iter().collect();
    loop {
        let names: BTreeSet<&str> = left.iter().map(|file| file.name()).collect();
        let before = left.len();
        left.retain(|file| file.dependency.iter().any(|name| names.contains(name.as_str())));
        match left.first() {
            None => return None,
            Some(file) if left.len() == before => return Some(file.name()),
            Some(_) => {}
        }
    }
}

/// The name of a map entry, here or further in, that is none.
fn odd_map_entry(message: &DescriptorProto) -> Option<&str> {
    let has = |name: &str, number: i32| {
        let is_it = |field: &FieldDescriptorProto| {
            field.name() == name && field.number() == number && field.label() == Label::Optional
        };
        message.field.iter().any(is_it)
    };
    let is_entry = message.options.as_ref().is_some_and(|options| options.map_entry());
    if is_entry && !(message.field.len() == 2 && has("key", 1) && has("value", 2)) {
        return Some(message.name());
    }
    message.nested_type.iter().find_map(odd_map_entry)
}

/// Compiles files by their import names.
fn compiled(mut compiler: Compiler, names: &BTreeSet<String>, seen: &RefCell<Seen>) -> Result<Descriptors, ProtoFault> {
    compiler.include_imports(true).include_source_info(false);
    for name in names {
        compiler.open_file(name).map_err(|error| seen.borrow().fault_of(&error))?;
    }
    let encoded = compiler.encode_file_descriptor_set();
    let editions = seen.borrow().editions.iter().map(|(name, text)| (name.clone(), text.edition)).collect();
    Descriptors::from_set(&editions::marked(encoded, &editions)?)
}

impl fmt::Debug for Descriptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Descriptors").field("messages", &self.message_names()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    fn write(dir: &Path, name: &str, source: &str) -> PathBuf {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, source).unwrap();
        path
    }

    const AD: &str = "syntax = \"proto3\";\npackage ads.v1;\nimport \"ads/v1/place.proto\";\n\
        import \"google/protobuf/timestamp.proto\";\n\
        message Ad { Place place = 1; google.protobuf.Timestamp at = 2; map<string, int32> m = 3; }\n";
    const PLACE: &str = "syntax = \"proto3\";\npackage ads.v1;\nmessage Place { string slot = 1; }\n";

    #[test]
    fn files_under_a_root_go_by_their_import_name() {
        let dir = tempfile::tempdir().unwrap();
        let ad = write(dir.path(), "proto/ads/v1/ad.proto", AD);
        let place = write(dir.path(), "proto/ads/v1/place.proto", PLACE);
        let root = dir.path().join("proto");
        let one = Descriptors::compile(std::slice::from_ref(&ad), std::slice::from_ref(&root)).unwrap();
        assert_eq!(one.message_names(), ["ads.v1.Ad", "ads.v1.Place"]);
        assert!(one.message("ads.v1.Ad").is_some());
        assert!(one.message("ads.v1.Ad.MEntry").is_none());
        let listed = [place.clone(), ad.clone()];
        let both = Descriptors::compile(&listed, std::slice::from_ref(&root)).unwrap();
        let turned = [ad, place, PathBuf::from("ads/v1/ad.proto")];
        let again = Descriptors::compile(&turned, &[root]).unwrap();
        assert_eq!(both.encoded(), again.encoded());
        assert_eq!(both.sha256(), again.sha256());
        let read = Descriptors::from_set(both.encoded()).unwrap();
        assert_eq!(read.message_names(), both.message_names());
    }

    #[test]
    fn a_file_outside_of_all_roots_brings_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        let user = "syntax = \"proto3\"; import \"b.proto\"; message A { B b = 1; }";
        let file = write(dir.path(), "x/a.proto", user);
        write(dir.path(), "x/b.proto", "syntax = \"proto3\"; message B {}");
        let found = Descriptors::compile(&[file], &[dir.path().join("proto")]).unwrap();
        assert_eq!(found.message_names(), ["A", "B"]);
    }

    #[test]
    fn faults_have_their_place() {
        use ProtoFaultKind::*;
        let head = "syntax = \"proto3\";\n";
        let cases = [
            ("import \"gone.proto\";\n", ImportNotFound, Some((2, 1)), "import 'gone.proto' not found"),
            ("message A {\n  int32 x 1;\n}", Syntax, Some((3, 11)), "but found '1'"),
            ("message A { Gone g = 1; }", Invalid, Some((2, 13)), "name 'Gone' is not defined"),
            ("message A { int32 a = 1; int32 b = 1; }", Invalid, Some((2, 36)), "'1' is already used"),
            ("import \"main.proto\";", Invalid, None, "import cycle detected"),
        ];
        for (body, kind, place, words) in cases {
            let dir = tempfile::tempdir().unwrap();
            let path = write(dir.path(), "main.proto", &format!("{head}{body}"));
            let fault = Descriptors::compile(std::slice::from_ref(&path), &[dir.path().to_path_buf()]).unwrap_err();
            assert_eq!(fault.kind, kind, "{fault}");
            assert_eq!(fault.line.zip(fault.column), place, "{fault}");
            assert!(fault.message.contains(words), "{fault}");
            assert_eq!(fault.file, Some(path), "{fault}");
        }
    }

    #[test]
    fn sets_that_the_pool_does_not_bear_are_refused() {
        let file = |name: &str, imports: &[&str]| FileDescriptorProto {
            name: Some(name.into()),
            dependency: imports.iter().map(|name| name.to_string()).collect(),
            public_dependency: (0..imports.len() as i32).collect(),
            ..Default::default()
        };
        let read = |file: Vec<FileDescriptorProto>| Descriptors::from_set(&FileDescriptorSet { file }.encode_to_vec());
        assert!(read(vec![file("a", &[]), file("b", &["a"])]).is_ok());
        for circle in [vec![file("a", &["a"])], vec![file("a", &["b"]), file("b", &["c"]), file("c", &["b"])]] {
            assert!(read(circle).unwrap_err().message.contains("imports itself"));
        }
        let fault = read(vec![FileDescriptorProto { syntax: Some(String::new()), ..file("a", &[]) }]).unwrap_err();
        assert_eq!(fault.kind, ProtoFaultKind::Editions);
    }

    #[test]
    fn a_mark_of_utf_8_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(dir.path(), "main.proto", "\u{feff}syntax = \"proto3\"; message A {}");
        assert!(Descriptors::compile(&[path], &[]).unwrap().message("A").is_some());
    }

    #[test]
    fn a_fault_in_a_file_with_editions_has_its_own_place() {
        let dir = tempfile::tempdir().unwrap();
        let source = "edition = \"2023\";\nmessage A { string a = 1; Gone b = 2; }";
        let path = write(dir.path(), "main.proto", source);
        let fault = Descriptors::compile(std::slice::from_ref(&path), &[]).unwrap_err();
        assert_eq!((fault.line, fault.column, fault.file), (Some(2), Some(27), Some(path)), "{}", fault.message);
    }

    #[test]
    fn a_fault_in_an_import_names_the_import() {
        let dir = tempfile::tempdir().unwrap();
        let main = write(dir.path(), "main.proto", "syntax = \"proto3\";\nimport \"sub/b.proto\";");
        let bad = write(dir.path(), "sub/b.proto", "syntax = \"proto3\";\n\nmesage B {}");
        let fault = Descriptors::compile(std::slice::from_ref(&main), &[dir.path().into()]).unwrap_err();
        assert_eq!((fault.kind, fault.line, fault.column), (ProtoFaultKind::Syntax, Some(3), Some(1)));
        assert_eq!(fault.file, Some(bad));
    }

    #[test]
    fn texts_import_each_other_and_messages_have_their_place() {
        let main = "syntax = \"proto3\"; package p; import \"other.proto\"; import \"confluent/meta.proto\";
            message A { map<string, B> m = 1; message X { message Y { int32 n = 1; } } q.Other o = 2; }
            message B { string s = 1 [(confluent.field_meta).doc = \"text\"]; }";
        let other = "syntax = \"proto3\"; package q; message Other { int32 n = 1; }";
        let texts = |pairs: &[(&str, &str)]| pairs.iter().map(|(n, t)| (n.to_string(), t.to_string())).collect();
        let found = Descriptors::from_texts("main.proto", texts(&[("main.proto", main), ("other.proto", other)]));
        let found = found.unwrap();
        let name = |path: &[usize]| found.messages_at("main.proto", path).first().map(|m| m.full_name().to_owned());
        assert_eq!(name(&[1]).as_deref(), Some("p.B"));
        assert_eq!(name(&[0, 0]).as_deref(), Some("p.A.X"));
        assert_eq!(name(&[0, 0, 0]).as_deref(), Some("p.A.X.Y"));
        assert_eq!([name(&[2]), name(&[0, 2]), name(&[])], [None, None, None]);
        let both = found.messages_at("main.proto", &[0, 0]);
        assert_eq!(both.iter().map(|m| m.name()).collect::<Vec<_>>(), ["X", "MEntry"]);
        let fault = Descriptors::from_texts("main.proto", texts(&[("main.proto", main)])).unwrap_err();
        assert_eq!(fault.kind, ProtoFaultKind::ImportNotFound);
        let fault = Descriptors::from_texts("e", texts(&[("e", "edition = \"2099\";")])).unwrap_err();
        assert_eq!(fault.kind, ProtoFaultKind::Editions);
    }

    #[test]
    fn editions_that_nobody_knows_are_refused_and_files_that_are_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(dir.path(), "e.proto", "// new\nedition = \"2099\";\nmessage A {}");
        let fault = Descriptors::compile(std::slice::from_ref(&path), &[]).unwrap_err();
        assert_eq!((fault.kind, fault.line, fault.column), (ProtoFaultKind::Editions, Some(2), Some(11)));
        assert_eq!(fault.file.as_deref(), Some(path.as_path()));
        let gone = dir.path().join("gone.proto");
        let fault = Descriptors::compile(std::slice::from_ref(&gone), &[dir.path().into()]).unwrap_err();
        assert_eq!((fault.kind, fault.file), (ProtoFaultKind::FileNotFound, Some(gone)));
        let mut set = FileDescriptorSet::default();
        set.file.push(Default::default());
        set.file[0].syntax = Some("editions".to_owned());
        let fault = Descriptors::from_set(&set.encode_to_vec()).unwrap_err();
        assert_eq!(fault.kind, ProtoFaultKind::Editions);
        assert_eq!(Descriptors::from_set(b"\xff\xff").unwrap_err().kind, ProtoFaultKind::Invalid);
    }
}
