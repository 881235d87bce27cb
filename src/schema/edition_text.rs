//! `.proto` texts with editions, made into ones of proto2 that the compiler takes. Features are options that it passes
//! on; what the text itself has otherwise is little: no `optional`, reserved names without quotes, and in edition 2024
//! visibility and option imports (<https://protobuf.dev/reference/protobuf/edition-2024-spec/>). The descriptor set is
//! marked as the edition's again afterwards.

use super::fault::{ProtoFault, ProtoFaultKind};

/// A text of proto2 in the place of another one.
#[derive(Debug)]
pub(super) struct Lowered {
    /// The text.
    pub(super) text: String,
    /// The number of its edition in descriptors.
    pub(super) edition: i32,
    source: String,
    /// In the order of the text: where, how many bytes were there, how many are there now.
    edits: Vec<(usize, usize, usize)>,
}

impl Lowered {
    /// The text of `source`, which says at `start` what edition it is of.
    ///
    /// # Errors
    /// An edition that is not known.
    pub(super) fn new(source: &str, start: usize) -> Result<Self, ProtoFault> {
        let mut walk = Walk { tokens: Tokens { source, at: start }, edits: Vec::new() };
        let edition = walk.edition(start)?;
        walk.file();
        let mut lowered = Self { text: String::new(), edition, source: source.to_string(), edits: Vec::new() };
        let mut at = 0;
        for (from, to, new) in walk.edits {
            lowered.text.push_str(&source[at..from]);
            lowered.text.push_str(new);
            lowered.edits.push((from, to - from, new.len()));
            at = to;
        }
        lowered.text.push_str(&source[at..]);
        Ok(lowered)
    }

    /// The same fault at its place in the text as it was.
    pub(super) fn put_back(&self, fault: ProtoFault) -> ProtoFault {
        let (Some(line), Some(column)) = (fault.line, fault.column) else { return fault };
        let start: usize = self.text.split_inclusive('\n').take(line - 1).map(str::len).sum();
        let rest = self.text.get(start..).unwrap_or_default();
        let offset = start + rest.chars().take(column - 1).map(char::len_utf8).sum::<usize>();
        // How far the new text has been longer, and shorter, than the old one.
        let (mut more, mut less) = (0, 0);
        for (from, was, is) in &self.edits {
            let begin = from + more - less;
            if offset < begin {
                break;
            }
            if offset < begin + is {
                return fault.at(&self.source, *from);
            }
            (more, less) = (more + is, less + was);
        }
        fault.at(&self.source, offset + less - more)
    }
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

/// What a `{` has opened.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Block {
    Message,
    Extend,
    Enum,
    /// A oneof, a service, a method.
    Other,
}

struct Walk<'a> {
    tokens: Tokens<'a>,
    edits: Vec<(usize, usize, &'static str)>,
}

impl Walk<'_> {
    /// `edition = "2023"`.
    fn edition(&mut self, start: usize) -> Result<i32, ProtoFault> {
        let words: Vec<(usize, &str)> = (0..3).map_while(|_| self.tokens.next()).collect();
        let [(_, "edition"), (_, "="), (at, name)] = words[..] else {
            let message = "a file with editions begins with 'edition = \"2023\";'";
            return Err(ProtoFault::new(ProtoFaultKind::Editions, message).at(self.tokens.source, start));
        };
        let edition = match name.trim_matches(['"', '\'']) {
            "2023" => 1000,
            "2024" => 1001,
            other => {
                let message = format!("edition {other} is not supported: use 2023 or 2024");
                return Err(ProtoFault::new(ProtoFaultKind::Editions, message).at(self.tokens.source, at));
            }
        };
        self.edits.push((start, at + name.len(), "syntax = \"proto2\""));
        self.tokens.statement();
        Ok(edition)
    }

    fn file(&mut self) {
        let mut blocks: Vec<Block> = Vec::new();
        while let Some((at, word)) = self.tokens.next() {
            let block = blocks.last().copied();
            let holds_types = matches!(block, None | Some(Block::Message));
            let opened = match word {
                "}" => {
                    blocks.pop();
                    continue;
                }
                ";" => continue,
                "export" | "local" if holds_types && self.tokens.peek().is_some_and(is_type) => {
                    self.edits.push((at, at + word.len(), ""));
                    continue;
                }
                "message" if holds_types => Block::Message,
                "enum" if holds_types => Block::Enum,
                "extend" if holds_types => Block::Extend,
                "oneof" if block == Some(Block::Message) => Block::Other,
                "service" if block.is_none() => Block::Other,
                "rpc" if block == Some(Block::Other) => Block::Other,
                _ => {
                    self.plain(block, at, word);
                    continue;
                }
            };
            if self.tokens.header() {
                blocks.push(opened);
            }
        }
    }

    /// A statement that ends with a `;`.
    fn plain(&mut self, block: Option<Block>, at: usize, word: &str) {
        let is_field = match (block, word) {
            (Some(Block::Message), "reserved" | "extensions" | "option" | "map") => false,
            (Some(Block::Message | Block::Extend), "repeated" | "optional" | "required") => false,
            (Some(Block::Message | Block::Extend), _) => true,
            _ => false,
        };
        if is_field {
            self.edits.push((at, at, "optional "));
        }
        match (word, self.tokens.peek()) {
            ("option", Some(name)) if is_language_feature(name) => self.leave_out(at),
            ("import", Some(name)) if LANGUAGE_FILES.contains(&name.trim_matches(['"', '\''])) => self.leave_out(at),
            ("import", Some("option")) => {
                let (at, word) = self.tokens.next().unwrap_or_default();
                self.edits.push((at, at + word.len(), ""));
                self.tokens.statement();
            }
            ("reserved", _) if matches!(block, Some(Block::Message | Block::Enum)) => self.reserved(),
            _ => self.statement(),
        }
    }

    /// Leaves out the statement that begins at `at`.
    fn leave_out(&mut self, at: usize) {
        self.tokens.statement();
        self.edits.push((at, self.tokens.at, ""));
    }

    /// Passes over the rest of a statement; of the options of a field, those about languages are left out.
    fn statement(&mut self) {
        let mut open = 0;
        while let Some((at, word)) = self.tokens.next() {
            match word {
                "[" if open == 0 => self.options(at),
                "{" => open += 1,
                "}" => open -= 1,
                ";" if open <= 0 => return,
                _ => {}
            }
        }
    }

    /// Options in brackets, the first of which was passed.
    fn options(&mut self, bracket: usize) {
        // Where each one begins and ends, and whether it is left out.
        let mut items: Vec<(usize, usize, bool)> = Vec::new();
        let (mut open, mut is_first, mut last) = (0, true, bracket + 1);
        while let Some((at, word)) = self.tokens.next() {
            match word {
                "]" if open == 0 => break,
                "," if open == 0 => is_first = true,
                _ => {
                    open += i32::from(matches!(word, "[" | "{")) - i32::from(matches!(word, "]" | "}"));
                    if std::mem::take(&mut is_first) {
                        items.push((at, at, is_language_feature(word)));
                    }
                    last = at + word.len();
                    if let Some(item) = items.last_mut() {
                        item.1 = last;
                    }
                }
            }
        }
        if items.iter().all(|(_, _, left_out)| *left_out) && last > bracket + 1 {
            self.edits.push((bracket, self.tokens.at, ""));
            return;
        }
        let mut kept = false;
        for (index, (start, end, left_out)) in items.iter().enumerate() {
            match (left_out, kept) {
                (false, _) => kept = true,
                (true, true) => self.edits.push((items[index - 1].1, *end, "")),
                (true, false) => {
                    let next = items.get(index + 1).map_or(*end, |(next, _, _)| *next);
                    self.edits.push((*start, next, ""));
                }
            }
        }
    }

    /// Names become texts: `reserved foo, bar;`.
    fn reserved(&mut self) {
        while let Some((at, word)) = self.tokens.next() {
            let is_name = word.starts_with(|c: char| c.is_alphabetic() || c == '_');
            match word {
                ";" => return,
                "to" | "max" => {}
                _ if is_name => {
                    self.edits.push((at, at, "\""));
                    self.edits.push((at + word.len(), at + word.len(), "\""));
                }
                _ => {}
            }
        }
    }
}

/// What compilers of some languages add to the features. No descriptor that is read here knows them.
const LANGUAGE_FILES: [&str; 3] =
    ["google/protobuf/cpp_features.proto", "google/protobuf/go_features.proto", "google/protobuf/java_features.proto"];

/// Whether an option that begins with this word says nothing of the wire: features of languages,
/// `features.(pb.go).…`, and those of style in edition 2024.
fn is_language_feature(word: &str) -> bool {
    matches!(word, "features." | "features.enforce_naming_style" | "features.default_symbol_visibility")
}

fn is_type(word: &str) -> bool {
    matches!(word, "message" | "enum")
}

/// The words, texts and signs of a `.proto` text. What is none of them is left to the compiler.
struct Tokens<'a> {
    source: &'a str,
    at: usize,
}

impl<'a> Tokens<'a> {
    /// The next one and where it begins.
    fn next(&mut self) -> Option<(usize, &'a str)> {
        let start = skip_blank(self.source, self.at);
        let rest = &self.source[start..];
        let first = rest.chars().next()?;
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
        let length = match first {
            '"' | '\'' => text_length(rest, first),
            c if is_part(c) => rest.find(|c| !is_part(c)).unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        self.at = start + length;
        Some((start, &rest[..length]))
    }

    /// The next one, which stays.
    fn peek(&self) -> Option<&'a str> {
        Tokens { ..*self }.next().map(|(_, word)| word)
    }

    /// Passes over the rest of a statement, with the values of options in it.
    fn statement(&mut self) {
        let mut open = 0;
        while let Some((_, word)) = self.next() {
            match word {
                "{" => open += 1,
                "}" => open -= 1,
                ";" if open <= 0 => return,
                _ => {}
            }
        }
    }

    /// Passes over what stands before a block; whether there is one.
    fn header(&mut self) -> bool {
        while let Some((_, word)) = self.next() {
            match word {
                "{" => return true,
                ";" => return false,
                _ => {}
            }
        }
        false
    }
}

/// The length of a text with its quotes.
fn text_length(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    let end = rest.char_indices().skip(1).find(|(_, c)| {
        let ends = !escaped && *c == quote;
        escaped = !escaped && *c == '\\';
        ends
    });
    end.map_or(rest.len(), |(at, c)| at + c.len_utf8())
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

    #[test]
    fn fields_get_their_label_and_reserved_names_their_quotes() {
        let source = r#"// note
edition = "2023"; import option "x.proto"; option (o) = { a: "optional; }" b: { c: 1 } };
export message A { string a = 1; .p.B b = 2 [default = "x;{"]; repeated C c = 3; map<string, D> d = 4;
  oneof e { int32 f = 5; } reserved g, h, 6 to 8; extensions 100 to max; option deprecated = true;
  local enum I { option allow_alias = true; J = 0; K = -1 [(l) = {m: 1}]; reserved N, 5; }
  message O {} /* ; */ uint32 q = 9; }
extend A { int32 r = 100; repeated int32 s = 101; }
service T { rpc U(A) returns (A) { option (v) = {w: "}"}; } rpc X(stream A) returns (A); }
message Y { Z z = 1; }"#;
        let want = r#"// note
syntax = "proto2"; import  "x.proto"; option (o) = { a: "optional; }" b: { c: 1 } };
 message A { optional string a = 1; optional .p.B b = 2 [default = "x;{"]; repeated C c = 3; map<string, D> d = 4;
  oneof e { int32 f = 5; } reserved "g", "h", 6 to 8; extensions 100 to max; option deprecated = true;
   enum I { option allow_alias = true; J = 0; K = -1 [(l) = {m: 1}]; reserved "N", 5; }
  message O {} /* ; */ optional uint32 q = 9; }
extend A { optional int32 r = 100; repeated int32 s = 101; }
service T { rpc U(A) returns (A) { option (v) = {w: "}"}; } rpc X(stream A) returns (A); }
message Y { optional Z z = 1; }"#;
        let lowered = Lowered::new(source, 8).unwrap();
        assert_eq!(lowered.text, want);
        for word in ["Z z", "q = 9", "string a", "edition", "note"] {
            let (old, new) = (source.find(word).unwrap(), want.find(word.trim_start_matches("edition")).unwrap());
            let new = if word == "edition" { want.find("syntax").unwrap() } else { new };
            let fault = ProtoFault::new(ProtoFaultKind::Invalid, "x");
            let found = lowered.put_back(fault.clone().at(want, new));
            assert_eq!(found, fault.at(source, old), "{word}");
        }
    }

    #[test]
    fn what_is_about_languages_is_left_out() {
        let source = r#"edition = "2024"; import "google/protobuf/go_features.proto"; import "other.proto";
option features.(pb.go).api_level = API_OPAQUE; option features.enforce_naming_style = STYLE2024;
message A { string a = 1 [features.(pb.cpp).string_type = VIEW]; option features.(pb.java) = { x: 1; };
  string b = 2 [features.(pb.cpp).string_type = VIEW, deprecated = true, features.(pb.go).x = Y];
  string c = 3 [deprecated = true, features.(pb.go).x = Y, features.(pb.go).y = { z: 1 }, json_name = "d"]; }"#;
        let want = r#"syntax = "proto2";  import "other.proto";
 
message A { optional string a = 1 ; 
  optional string b = 2 [deprecated = true];
  optional string c = 3 [deprecated = true, json_name = "d"]; }"#;
        assert_eq!(Lowered::new(source, 0).unwrap().text, want);
    }

    #[test]
    fn other_editions_are_named_at_their_place() {
        let fault = Lowered::new("edition = '2099';", 0).unwrap_err();
        assert_eq!((fault.line, fault.column), (Some(1), Some(11)));
        assert!(fault.message.contains("edition 2099"), "{fault}");
        assert!(Lowered::new("syntax = 'editions';", 0).is_err());
    }

    #[test]
    fn broken_texts_end() {
        for text in
            ["edition = '2023'", "edition = '2023'; message A {", "edition = '2023'; message A { string a = 1 ["]
        {
            Lowered::new(text, 0).unwrap();
        }
    }
}
