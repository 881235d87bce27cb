//! The patterns at which texts are split: one set of characters, or a text. That is what pipelines have; the full
//! language is not needed.

/// A pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pattern {
    /// A character of a set, or a run of some.
    Set { set: Set, repeats: bool },
    /// A text.
    Text(String),
}

/// A set of characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Set {
    parts: Vec<Part>,
    is_negated: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Range(char, char),
    /// A class as `\w` is one; only ASCII is in them, as in Java.
    Class(Class),
    /// What is not in it.
    NotClass(Class),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Word,
    Space,
    Digit,
}

impl Pattern {
    /// The pattern of a regular expression of Java; none if it is not one of those that are covered.
    pub fn parse(text: &str) -> Option<Self> {
        let mut rest: Vec<char> = text.chars().collect();
        let repeats = rest.len() > 1 && rest.ends_with(&['+']) && !rest.ends_with(&['\\', '+']);
        if repeats {
            rest.pop();
        }
        let (set, end) = match rest.first()? {
            '[' => bracket(&rest)?,
            _ => {
                let (part, end) = part(&rest, 0)?;
                (Set { parts: vec![part], is_negated: false }, end)
            }
        };
        if end == rest.len() {
            return Some(Self::Set { set, repeats });
        }
        if repeats {
            return None;
        }
        // Several characters, each for itself.
        let (mut all, mut at) = (String::new(), 0);
        while at < rest.len() {
            match part(&rest, at)? {
                (Part::Range(one, _), end) if rest.get(at) != Some(&'[') => {
                    all.push(one);
                    at = end;
                }
                _ => return None,
            }
        }
        Some(Self::Text(all))
    }

    /// The first match from there on: where it starts and ends.
    pub fn find(&self, text: &str, from: usize) -> Option<(usize, usize)> {
        let rest = text.get(from..)?;
        match self {
            Pattern::Text(wanted) => rest.find(wanted.as_str()).map(|at| (from + at, from + at + wanted.len())),
            Pattern::Set { set, repeats } => {
                let at = rest.find(|one| set.holds(one))?;
                let found = rest.get(at..)?;
                let length = match repeats {
                    true => found.find(|one| !set.holds(one)).unwrap_or(found.len()),
                    false => found.chars().next()?.len_utf8(),
                };
                Some((from + at, from + at + length))
            }
        }
    }
}

/// A set in brackets, and where it ends.
fn bracket(text: &[char]) -> Option<(Set, usize)> {
    let is_negated = text.get(1) == Some(&'^');
    let mut at = if is_negated { 2 } else { 1 };
    let mut parts = Vec::new();
    while text.get(at)? != &']' {
        // Sets in sets and the and of sets are Java's own.
        if matches!(text.get(at)?, '[' | '&' | '^') {
            return None;
        }
        let (first, end) = part_in_bracket(text, at)?;
        at = end;
        let is_range = text.get(at) == Some(&'-') && text.get(at + 1) != Some(&']');
        match first {
            Part::Range(from, _) if is_range => {
                let (Part::Range(to, _), end) = part_in_bracket(text, at + 1)? else {
                    return None;
                };
                parts.push((from <= to).then_some(Part::Range(from, to))?);
                at = end;
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then_some((Set { parts, is_negated }, at + 1))
}

fn part_in_bracket(text: &[char], at: usize) -> Option<(Part, usize)> {
    match text.get(at)? {
        '\\' => part(text, at),
        one => Some((Part::Range(*one, *one), at + 1)),
    }
}

/// A character or a class outside of brackets, and where it ends.
fn part(text: &[char], at: usize) -> Option<(Part, usize)> {
    let one = *text.get(at)?;
    if one != '\\' {
        return (!"[](){}.*+?^$|#&".contains(one)).then_some((Part::Range(one, one), at + 1));
    }
    let part = match *text.get(at + 1)? {
        'w' => Part::Class(Class::Word),
        's' => Part::Class(Class::Space),
        'd' => Part::Class(Class::Digit),
        'W' => Part::NotClass(Class::Word),
        'S' => Part::NotClass(Class::Space),
        'D' => Part::NotClass(Class::Digit),
        't' => Part::Range('\t', '\t'),
        'n' => Part::Range('\n', '\n'),
        'r' => Part::Range('\r', '\r'),
        other if other.is_ascii_punctuation() => Part::Range(other, other),
        _ => return None,
    };
    Some((part, at + 2))
}

impl Set {
    fn holds(&self, one: char) -> bool {
        self.parts.iter().any(|part| part.holds(one)) != self.is_negated
    }
}

impl Part {
    fn holds(&self, one: char) -> bool {
        match self {
            Part::Range(from, to) => (*from..=*to).contains(&one),
            Part::Class(class) => class.holds(one),
            Part::NotClass(class) => !class.holds(one),
        }
    }
}

impl Class {
    fn holds(self, one: char) -> bool {
        match self {
            Class::Word => one.is_ascii_alphanumeric() || one == '_',
            Class::Space => matches!(one, ' ' | '\t' | '\n' | '\u{b}' | '\u{c}' | '\r'),
            Class::Digit => one.is_ascii_digit(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> Vec<String> {
        let pattern = Pattern::parse(pattern).unwrap();
        let (mut at, mut all) = (0, Vec::new());
        while let Some((start, end)) = pattern.find(text, at) {
            all.push(text[start..end].to_owned());
            at = end;
        }
        all
    }

    #[test]
    fn sets_and_texts_are_found() {
        assert_eq!(matches("\\W+", "a, bö_1"), [", ", "ö"]);
        assert_eq!(matches("\\W", "a, b"), [",", " "]);
        assert_eq!(matches("[a-c_]+", "xabcd_-"), ["abc", "_"]);
        assert_eq!(matches("[^\\w']+", "it's so"), [" "]);
        assert_eq!(matches("[,;-]", "a-b;"), ["-", ";"]);
        assert_eq!(matches(", ", "a, b,c"), [", "]);
        assert_eq!(matches("\\|", "a|b"), ["|"]);
        assert_eq!(matches("\\+", "a+b"), ["+"]);
        assert_eq!(matches(" +", "a  b"), ["  "]);
    }

    #[test]
    fn other_expressions_are_not_covered() {
        for pattern in
            ["", "a*", "(a)", "a|b", ".", "\\p{L}+", "\\b", "[a&&b]", "[[a]]", "[", "[]", "\\", "ab+", "[z-a]"]
        {
            assert_eq!(Pattern::parse(pattern), None, "{pattern}");
        }
    }
}
