//! UBJSON, the binary form that XGBoost writes by default: <https://ubjson.org>, draft 12, with typed arrays and
//! objects. Read in place by serde, in memory that the file's own length bounds.

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

/// Values may lie in each other so deep.
const MAX_DEPTH: usize = 64;

/// What is wrong with a file.
#[derive(Debug)]
pub struct Fault(String);

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}

impl serde::de::Error for Fault {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

type Read<T> = Result<T, Fault>;

/// Reads a value from the bytes of a file.
pub fn from_slice<'de, T: serde::Deserialize<'de>>(bytes: &'de [u8]) -> Read<T> {
    let mut reader = Reader { bytes, at: 0, depth: 0 };
    let value = T::deserialize(Value { reader: &mut reader, kind: None });
    value.map_err(|fault| Fault(format!("{fault} at byte {}", reader.at)))
}

struct Reader<'de> {
    bytes: &'de [u8],
    at: usize,
    depth: usize,
}

impl<'de> Reader<'de> {
    fn take(&mut self, count: usize) -> Read<&'de [u8]> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let Some(end) = end else { return Err(Fault("it ends too early".into())) };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| Fault("it ends too early".into()))
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// The mark of a value, after those that mean nothing.
    fn mark(&mut self) -> Read<u8> {
        loop {
            let [mark] = self.array()?;
            if mark != b'N' {
                return Ok(mark);
            }
        }
    }

    /// A whole number of the kind `mark`.
    fn whole(&mut self, mark: u8) -> Read<i64> {
        Ok(match mark {
            b'i' => i64::from(i8::from_be_bytes(self.array()?)),
            b'U' => i64::from(u8::from_be_bytes(self.array()?)),
            b'I' => i64::from(i16::from_be_bytes(self.array()?)),
            b'l' => i64::from(i32::from_be_bytes(self.array()?)),
            b'L' => i64::from_be_bytes(self.array()?),
            other => return Err(Fault(format!("{:?} is no kind of whole number", char::from(other)))),
        })
    }

    /// A length, which has a mark of its own.
    fn length(&mut self) -> Read<usize> {
        let mark = self.mark()?;
        let length = self.whole(mark)?;
        usize::try_from(length).map_err(|_| Fault(format!("{length} is no length")))
    }

    fn text(&mut self) -> Read<&'de str> {
        let length = self.length()?;
        std::str::from_utf8(self.take(length)?).map_err(|_| Fault("a text is not UTF-8".into()))
    }

    /// What the head of an array or object says: the kind of its values and how many there are.
    fn head(&mut self) -> Read<Head> {
        let mut head = Head::default();
        if self.peek() == Some(b'$') {
            self.at += 1;
            let [kind] = self.array()?;
            if !is_wide(kind) {
                return Err(Fault(format!("{:?} is no kind of many values", char::from(kind))));
            }
            head.kind = Some(kind);
            if self.peek() != Some(b'#') {
                return Err(Fault("values of one kind have no count".into()));
            }
        }
        if self.peek() == Some(b'#') {
            self.at += 1;
            let count = self.length()?;
            // Each value has a byte at least.
            if count > self.bytes.len() - self.at {
                return Err(Fault(format!("{count} values are more than the file has")));
            }
            head.count = Some(count);
        }
        Ok(head)
    }
}

/// Whether a value of a kind takes any bytes: of those that take none a few bytes could name billions.
fn is_wide(kind: u8) -> bool {
    matches!(kind, b'i' | b'U' | b'I' | b'l' | b'L' | b'd' | b'D' | b'C' | b'S' | b'H' | b'[' | b'{')
}

#[derive(Default, Clone, Copy)]
struct Head {
    kind: Option<u8>,
    count: Option<usize>,
}

/// A value, whose kind may have been said by what it lies in.
struct Value<'r, 'de> {
    reader: &'r mut Reader<'de>,
    kind: Option<u8>,
}

impl<'de> Deserializer<'de> for Value<'_, 'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        let reader = self.reader;
        let kind = match self.kind {
            Some(kind) => kind,
            None => reader.mark()?,
        };
        match kind {
            b'Z' => visitor.visit_unit(),
            b'T' => visitor.visit_bool(true),
            b'F' => visitor.visit_bool(false),
            b'd' => visitor.visit_f32(f32::from_be_bytes(reader.array()?)),
            b'D' => visitor.visit_f64(f64::from_be_bytes(reader.array()?)),
            b'i' | b'U' | b'I' | b'l' | b'L' => visitor.visit_i64(reader.whole(kind)?),
            b'S' | b'H' => visitor.visit_borrowed_str(reader.text()?),
            b'C' => visitor.visit_char(char::from(reader.array::<1>()?[0])),
            b'[' | b'{' => {
                reader.depth += 1;
                if reader.depth > MAX_DEPTH {
                    return Err(Fault("its values lie too deep in each other".into()));
                }
                let head = reader.head()?;
                let items = Items { reader: &mut *reader, head, end: if kind == b'[' { b']' } else { b'}' } };
                let value = if kind == b'[' { visitor.visit_seq(items) } else { visitor.visit_map(items) };
                reader.depth -= 1;
                value
            }
            other => Err(Fault(format!("{:?} is no kind of value", char::from(other)))),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        if self.kind.is_none() && self.reader.peek() == Some(b'Z') {
            self.reader.at += 1;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Read<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct enum identifier ignored_any
    }
}

/// What lies in an array or object.
struct Items<'r, 'de> {
    reader: &'r mut Reader<'de>,
    head: Head,
    end: u8,
}

impl Items<'_, '_> {
    /// Whether there is another one.
    fn has_next(&mut self) -> Read<bool> {
        if let Some(count) = &mut self.head.count {
            let has = *count > 0;
            *count = count.saturating_sub(1);
            return Ok(has);
        }
        while self.reader.peek() == Some(b'N') {
            self.reader.at += 1;
        }
        match self.reader.peek() {
            Some(byte) if byte == self.end => {
                self.reader.at += 1;
                Ok(false)
            }
            Some(_) => Ok(true),
            None => Err(Fault::custom("it ends too early")),
        }
    }
}

impl<'de> SeqAccess<'de> for Items<'_, 'de> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Read<Option<S::Value>> {
        if !self.has_next()? {
            return Ok(None);
        }
        seed.deserialize(Value { reader: self.reader, kind: self.head.kind }).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        self.head.count
    }
}

impl<'de> MapAccess<'de> for Items<'_, 'de> {
    type Error = Fault;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Read<Option<S::Value>> {
        if !self.has_next()? {
            return Ok(None);
        }
        let key = self.reader.text()?;
        seed.deserialize(serde::de::value::BorrowedStrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Read<S::Value> {
        seed.deserialize(Value { reader: self.reader, kind: self.head.kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<serde_json::Value, String> {
        from_slice(bytes).map_err(|fault| fault.to_string())
    }

    #[test]
    fn all_kinds_of_values_are_read() {
        let mut bytes = b"{i\x01a[TFZi\xffU\xffI\x01\x00l\x00\x01\x00\x00".to_vec();
        bytes.extend(b"NSi\x02hiD");
        bytes.extend(1.5_f64.to_be_bytes());
        bytes.extend(b"]i\x01b[$d#i\x02");
        bytes.extend([0.5_f32.to_be_bytes(), (-2_f32).to_be_bytes()].concat());
        bytes.extend(b"i\x01c{#i\x01i\x01dL");
        bytes.extend(7_i64.to_be_bytes());
        bytes.extend(b"}");
        let expected = serde_json::json!({
            "a": [true, false, null, -1, 255, 256, 65536, "hi", 1.5], "b": [0.5, -2.0], "c": {"d": 7}
        });
        assert_eq!(read(&bytes), Ok(expected));
        for end in 0..bytes.len() {
            read(&bytes[..end]).unwrap_err();
        }
    }

    #[test]
    fn what_claims_too_much_is_refused() {
        let huge = [b"[$d#L".as_slice(), &i64::MAX.to_be_bytes()].concat();
        assert_eq!(read(&huge).unwrap_err(), "9223372036854775807 values are more than the file has at byte 13");
        let nothing = [b"[$Z#l".as_slice(), &i32::MAX.to_be_bytes()].concat();
        assert_eq!(read(&nothing).unwrap_err(), "'Z' is no kind of many values at byte 3");
        let negative = [b"Si".as_slice(), &[0xff]].concat();
        assert_eq!(read(&negative).unwrap_err(), "-1 is no length at byte 3");
        assert!(read(&b"[".repeat(100_000)).unwrap_err().contains("lie too deep in each other"));
        assert!(read(b"x").unwrap_err().contains("'x' is no kind of value"));
        assert!(read(b"Si\x01\xff").unwrap_err().contains("not UTF-8"));
    }
}
