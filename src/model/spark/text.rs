//! Stages that make words of text, and vectors of words: Tokenizer, RegexTokenizer, StopWordsRemover, NGram, HashingTF,
//! CountVectorizer.

use std::collections::{HashMap, HashSet};

use super::assembler::MIN_SPARSE;
use super::directory::Stage;
use super::pattern::Pattern;
use super::plan::{Form, Kind, Plan, Shape, pairs};
use super::table::{Table, check_width};
use super::vector::{Block, Made, Step, Words};
use crate::error::{Error, Result};

/// The seed of the hashes of words.
const SEED: u32 = 42;
/// Words may be joined this many at a time.
const MAX_JOINED: usize = 64;

#[derive(Debug)]
struct Tokenizer {
    name: String,
    input: usize,
    column: usize,
    pattern: Pattern,
    /// Whether the pattern is what is between words.
    is_between: bool,
    lowers: bool,
    /// Words have this many UTF-16 units.
    shortest: usize,
}

#[derive(Debug)]
struct Remover {
    input: usize,
    column: usize,
    words: HashSet<String>,
    minds_case: bool,
}

#[derive(Debug)]
struct Joiner {
    input: usize,
    column: usize,
    count: usize,
}

/// Counts words.
#[derive(Debug)]
struct Counter {
    input: usize,
    column: usize,
    width: usize,
    is_sparse: bool,
    /// Whether a count is 1.
    is_binary: bool,
    /// Smaller counts are none; below 1 it is a share of the words.
    least: f64,
    place: WordPlace,
}

/// Where a word is counted.
#[derive(Debug)]
enum WordPlace {
    Hash,
    Vocabulary(HashMap<String, u32>),
}

pub(super) fn add_tokenizer(plan: &mut Plan, stage: &Stage) -> Result<()> {
    let (pattern, is_between, lowers, shortest) = match stage.kind() {
        // `toLowerCase.split("\\s")`.
        "Tokenizer" => (Pattern::parse("\\s").ok_or_else(|| stage.fault("no pattern"))?, true, true, 0),
        _ => {
            let text = stage.text("pattern")?;
            let pattern = Pattern::parse(text).ok_or_else(|| {
                stage.fault(format_args!(
                    "pattern {text:?} is not supported; split at one set of characters such as \\W+, \\s+ or [,;]+, or \
                     use Tokenizer"
                ))
            })?;
            (pattern, stage.flag("gaps")?, stage.flag("toLowercase")?, stage.count("minTokenLength")?)
        }
    };
    for (_, name, output) in pairs(plan, stage)? {
        let input = plan.text(stage, &name)?;
        let column = plan.make(stage, &output, Kind::Words)?;
        let pattern = pattern.clone();
        plan.push(Tokenizer { name, input, column, pattern, is_between, lowers, shortest });
    }
    Ok(())
}

pub(super) fn add_remover(plan: &mut Plan, stage: &Stage) -> Result<()> {
    let minds_case = stage.flag("caseSensitive")?;
    let locale = if minds_case { "" } else { stage.text("locale")? };
    if ["tr", "az", "lt"].iter().any(|odd| locale.to_ascii_lowercase().starts_with(odd)) {
        return Err(stage.fault(format_args!(
            "the lower case of locale {locale} is not supported; train with caseSensitive, or with locale en"
        )));
    }
    let word = |word: String| if minds_case { word } else { word.to_lowercase() };
    let words: HashSet<String> = stage.texts("stopWords")?.into_iter().map(word).collect();
    for (_, input, output) in pairs(plan, stage)? {
        let input = plan.words(stage, &input)?;
        let column = plan.make(stage, &output, Kind::Words)?;
        plan.push(Remover { input, column, words: words.clone(), minds_case });
    }
    Ok(())
}

pub(super) fn add_joiner(plan: &mut Plan, stage: &Stage) -> Result<()> {
    let count = stage.count("n")?;
    if !(1..=MAX_JOINED).contains(&count) {
        return Err(stage.fault(format_args!("it joins {count} words; train with 1 to {MAX_JOINED}")));
    }
    let input = plan.words(stage, stage.text("inputCol")?)?;
    let column = plan.make(stage, stage.text("outputCol")?, Kind::Words)?;
    plan.push(Joiner { input, column, count });
    Ok(())
}

pub(super) fn add_hashing(plan: &mut Plan, stage: &Stage) -> Result<()> {
    let major = stage.version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major < 3) {
        return Err(stage.fault(format_args!(
            "the hashes of Spark {} are not supported; train with Spark 3 or later",
            stage.version
        )));
    }
    let width = stage.count("numFeatures")?;
    push_counter(plan, stage, width, 1.0, WordPlace::Hash)
}

pub(super) fn add_counter(plan: &mut Plan, stage: &Stage) -> Result<()> {
    let vocabulary = Table::read(stage)?.texts("vocabulary")?;
    let width = vocabulary.len();
    let places = (0..).zip(vocabulary).map(|(place, word)| (word, place)).collect();
    push_counter(plan, stage, width, stage.number("minTF")?, WordPlace::Vocabulary(places))
}

fn push_counter(plan: &mut Plan, stage: &Stage, width: usize, least: f64, place: WordPlace) -> Result<()> {
    check_width(stage, width)?;
    if width == 0 {
        return Err(stage.fault("its vectors have no numbers; save the model again"));
    }
    let is_binary = stage.flag("binary")?;
    let input = plan.words(stage, stage.text("inputCol")?)?;
    let is_sparse = width > MIN_SPARSE;
    let shape = Shape { width, is_sparse, form: Form::Sparse };
    let column = plan.make(stage, stage.text("outputCol")?, Kind::Vector(shape))?;
    plan.push(Counter { input, column, width, is_sparse, is_binary, least, place });
    Ok(())
}

/// Puts a text in lower case at the end of another.
fn push_lower(text: &str, into: &mut String) {
    if text.is_ascii() {
        let start = into.len();
        into.push_str(text);
        if let Some(added) = into.get_mut(start..) {
            added.make_ascii_lowercase();
        }
    } else {
        into.push_str(&text.to_lowercase());
    }
}

impl Step for Tokenizer {
    fn run(&self, block: &mut Block<'_>) -> Result<()> {
        let mut lower = String::new();
        block.make(self.column, |block, out, dropped| {
            let out = out.no_words();
            for (text, dropped) in block.texts(self.input).zip(dropped.iter()) {
                match text {
                    Some(text) if self.lowers => {
                        lower.clear();
                        push_lower(text, &mut lower);
                        self.split(&lower, out);
                    }
                    Some(text) => self.split(text, out),
                    None if *dropped => {}
                    None => {
                        return Err(Error::violated(format!(
                            "column {} is NULL, which the model's tokenizer refuses; give an empty text with \
                             coalesce({}, '')",
                            self.name, self.name
                        )));
                    }
                }
                out.end_row();
            }
            Ok(())
        })
    }
}

impl Tokenizer {
    /// The words of a text. Between matches it is as `java.util.regex.Pattern.split`: without the empty ones at the
    /// end, unless there is no match.
    fn split(&self, text: &str, out: &mut Words) {
        let push = |word: &str, out: &mut Words| {
            let is_long = word.encode_utf16().take(self.shortest).count() >= self.shortest;
            if is_long {
                out.push(word);
            }
            usize::from(is_long)
        };
        let (mut at, mut count, mut filled) = (0, 0, 0);
        while let Some((start, end)) = self.pattern.find(text, at) {
            match self.is_between {
                true => count += push(&text[at..start], out),
                false => count += push(&text[start..end], out),
            }
            if start > at {
                filled = count;
            }
            at = end;
        }
        if !self.is_between {
            return;
        }
        push(&text[at..], out);
        if at > 0 && at == text.len() {
            out.cut_row(filled);
        }
    }
}

impl Step for Remover {
    fn run(&self, block: &mut Block<'_>) -> Result<()> {
        let mut lower = String::new();
        block.make(self.column, |block, out, _| {
            let (Some(words), out) = (block.words(self.input), out.no_words()) else {
                return;
            };
            for row in 0..block.rows {
                for word in words.row(row) {
                    lower.clear();
                    match self.minds_case {
                        true => lower.push_str(word),
                        false => push_lower(word, &mut lower),
                    }
                    if !self.words.contains(lower.as_str()) {
                        out.push(word);
                    }
                }
                out.end_row();
            }
        });
        Ok(())
    }
}

impl Step for Joiner {
    fn run(&self, block: &mut Block<'_>) -> Result<()> {
        block.make(self.column, |block, out, _| {
            let (Some(words), out) = (block.words(self.input), out.no_words()) else {
                return;
            };
            for row in 0..block.rows {
                let all = words.row(row);
                for first in 0..(all.len() + 1).saturating_sub(self.count) {
                    for (at, word) in all.clone().skip(first).take(self.count).enumerate() {
                        out.push_text(if at == 0 { "" } else { " " });
                        out.push_text(word);
                    }
                    out.end_word();
                }
                out.end_row();
            }
        });
        Ok(())
    }
}

impl Step for Counter {
    fn run(&self, block: &mut Block<'_>) -> Result<()> {
        let mut places = Vec::new();
        block.make(self.column, |block, out, _| {
            let Some(words) = block.words(self.input) else {
                return;
            };
            match self.is_sparse {
                true => drop(out.no_vectors()),
                false => drop(out.zeros(self.width * block.rows)),
            }
            for row in 0..block.rows {
                let all = words.row(row);
                let least = if self.least >= 1.0 { self.least } else { all.len() as f64 * self.least };
                places.clear();
                places.extend(all.filter_map(|word| self.place(word)));
                places.sort_unstable();
                for same in places.chunk_by(|one, next| one == next) {
                    let (Some(place), count) = (same.first(), same.len() as f64) else {
                        continue;
                    };
                    if count < least {
                        continue;
                    }
                    let count = if self.is_binary { 1.0 } else { count };
                    match out.made() {
                        Made::Sparse(sparse) => {
                            sparse.indices.push(*place);
                            sparse.values.push(count);
                        }
                        Made::Dense(values) => values[*place as usize * block.rows + row] = count,
                        Made::Nothing => {}
                    }
                }
                if let Made::Sparse(sparse) = out.made() {
                    sparse.end_row();
                }
            }
        });
        Ok(())
    }
}

impl Counter {
    fn place(&self, word: &str) -> Option<u32> {
        match &self.place {
            // `Utils.nonNegativeMod`.
            WordPlace::Hash => Some((murmur3(word.as_bytes(), SEED) as i32).rem_euclid(self.width as i32) as u32),
            WordPlace::Vocabulary(places) => places.get(word).copied(),
        }
    }
}

/// `murmur3_x86_32`.
fn murmur3(bytes: &[u8], seed: u32) -> u32 {
    let mixed = |word: u32| word.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    let mut hash = seed;
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        hash = (hash ^ mixed(u32::from_le_bytes(*word))).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    if !rest.is_empty() {
        let word = rest.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
        hash ^= mixed(word);
    }
    hash ^= bytes.len() as u32;
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_murmur3() {
        assert_eq!(murmur3(b"", 0), 0);
        assert_eq!(murmur3(b"", 1), 0x514e_28b7);
        assert_eq!(murmur3(b"test", 0), 0xba6b_d213);
        assert_eq!(murmur3(b"Hello, world!", 0), 0xc036_3e43);
        assert_eq!(murmur3("The quick brown fox jumps over the lazy dog".as_bytes(), 0x9747_b28c), 0x2fa8_26cd);
    }

    fn words(pattern: &str, is_between: bool, shortest: usize, text: &str) -> Vec<String> {
        let pattern = Pattern::parse(pattern).unwrap();
        let (name, lowers) = (String::new(), true);
        let tokenizer = Tokenizer { name, input: 0, column: 0, pattern, is_between, lowers, shortest };
        let mut out = Words::default();
        tokenizer.split(text, &mut out);
        out.end_row();
        out.row(0).map(str::to_owned).collect()
    }

    #[test]
    fn texts_are_split_as_java_does() {
        assert_eq!(words("\\s", true, 0, "a  b c"), ["a", "", "b", "c"]);
        assert_eq!(words("\\s", true, 0, " a "), ["", "a"]);
        assert_eq!(words("\\s", true, 0, ""), [""]);
        assert!(words("\\s", true, 0, "   ").is_empty());
        assert_eq!(words("\\s+", true, 1, "  a  b "), ["a", "b"]);
        assert!(words("\\s+", true, 1, "").is_empty());
        assert_eq!(words("\\W+", true, 1, "schön, n'est-ce"), ["sch", "n", "n", "est", "ce"]);
        assert_eq!(words("\\w+", false, 2, "a bc, def"), ["bc", "def"]);
        assert_eq!(words("\\s+", true, 2, "x 😀"), ["😀"]);
        assert_eq!(words(",", true, 0, "a,,b,,"), ["a", "", "b"]);
    }

    #[test]
    fn lower_case_knows_more_than_ascii() {
        let lower = |text: &str| {
            let mut lower = String::from("-");
            push_lower(text, &mut lower);
            lower
        };
        assert_eq!(lower("ABc"), "-abc");
        assert_eq!(lower("ΟΔΟΣ ΣΑΣ"), "-οδος σας");
        assert_eq!(lower("İ"), "-i\u{307}");
    }
}
