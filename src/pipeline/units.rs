//! Values with units as people write them: durations, sizes, counts, positions in a topic.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use chrono::{DateTime, Utc};
use jiff::tz::TimeZone;
use jiff::{Span, SpanRelativeTo};
use url::Url;

use crate::offsets::Start;

/// `'1 second'`, `'200 milliseconds'`, `'5 minutes'`, `'7 days'`.
///
/// # Errors
/// What a duration looks like.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("`{text}` is no duration: write a number with its unit, such as '200 milliseconds' or '5 minutes'");
    let span = Span::from_str(text.trim()).map_err(|_| wrong())?;
    let parsed = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
    Duration::try_from(parsed).map_err(|_| wrong())
}

/// `'128 MB'` (1000 based), `'128 MiB'` (1024 based); in bytes, at least one.
///
/// # Errors
/// What a size looks like.
pub fn bytes(text: &str) -> Result<u64, String> {
    let unit = text.trim_end().ends_with(|c: char| c.is_ascii_alphabetic());
    match ByteSize::from_str(text.trim()) {
        Ok(size) if unit && size.as_u64() > 0 => Ok(size.as_u64()),
        _ => Err(format!("`{text}` is no size: write a number with its unit, such as '128 MB' or '2 GiB'")),
    }
}

/// A zone by its name in the IANA time zone database, `'America/New_York'`, or `'UTC'`.
///
/// # Errors
/// What a zone looks like.
pub fn zone(text: &str) -> Result<TimeZone, String> {
    TimeZone::get(text.trim()).map_err(|_| {
        format!("`{text}` is no zone: write its name in the IANA time zone database, such as 'America/New_York'")
    })
}

/// The names in a list with commas. One with a comma or a quotation mark stands in quotation marks, those in it twice:
/// `'account_id, "net, in cents"'`.
///
/// # Errors
/// What a list of columns looks like.
pub fn columns(text: &str) -> Result<Vec<String>, String> {
    let wrong = || format!("`{text}` is no list of columns: write their names with commas, such as 'account_id, day'");
    let mut names = Vec::new();
    let mut rest = text.trim();
    loop {
        let name = match rest.strip_prefix('"') {
            None => {
                let (name, _) = rest.split_once(',').unwrap_or((rest, ""));
                rest = &rest[name.len()..];
                name.trim_end().to_owned()
            }
            Some(quoted) => {
                let mut name = String::new();
                let mut letters = quoted.char_indices().peekable();
                let end = loop {
                    match letters.next().ok_or_else(wrong)? {
                        (_, '"') if letters.next_if(|(_, next)| *next == '"').is_some() => name.push('"'),
                        (at, '"') => break at + 1,
                        (_, letter) => name.push(letter),
                    }
                };
                rest = quoted[end..].trim_start();
                name
            }
        };
        if name.is_empty() {
            return Err(wrong());
        }
        names.push(name);
        match rest.strip_prefix(',') {
            Some(more) => rest = more.trim_start(),
            None if rest.is_empty() => return Ok(names),
            None => return Err(wrong()),
        }
    }
}

/// A count, at least one; `_` may group digits.
///
/// # Errors
/// What a count looks like.
pub fn count(text: &str) -> Result<u64, String> {
    match text.trim().replace('_', "").parse() {
        Ok(n) if n > 0 => Ok(n),
        _ => Err(format!("`{text}` is no count: write a whole number from 1 on, such as 1000000")),
    }
}

/// A whole number, from 0 on.
///
/// # Errors
/// What a number looks like.
pub fn number(text: &str) -> Result<u64, String> {
    text.trim().parse().map_err(|_| format!("`{text}` is no number: write a whole number from 0 on, such as 2"))
}

/// A share of a whole, `'10%'`; as a number from 0 to 1.
///
/// # Errors
/// What a share looks like.
pub fn share(text: &str) -> Result<f64, String> {
    let number = text.trim().strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
    match number {
        Some(percent) if (0.0..=100.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err(format!("`{text}` is no share: write a percentage from 0% to 100%, such as '10%'")),
    }
}

/// The address of a service.
///
/// # Errors
/// What such an address looks like.
pub fn http_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text.trim()).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    url.ok_or_else(|| format!("`{text}` is no address: write 'https://HOST:PORT'"))
}

/// One of a few words, with what it means.
///
/// # Errors
/// The words that are allowed.
pub fn one_of<T: Copy>(text: &str, allowed: &[(&str, T)]) -> Result<T, String> {
    allowed.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<_> = allowed.iter().map(|(name, _)| format!("'{name}'")).collect();
        format!("`{text}` is not allowed here: write {}", names.join(" or "))
    })
}

/// `earliest`, `latest`, an RFC 3339 time, or `0:12,1:40` (partition and offset).
///
/// # Errors
/// What a position looks like.
pub fn start(text: &str) -> Result<Start, String> {
    match text.trim() {
        "earliest" => return Ok(Start::Earliest),
        "latest" => return Ok(Start::Latest),
        _ => {}
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text.trim()) {
        return Ok(Start::At(time.with_timezone(&Utc)));
    }
    let wrong = || {
        format!(
            "`{text}` is no position: write earliest, latest, a time such as 2026-01-31T00:00:00Z, \
             or offsets such as 0:12,1:40"
        )
    };
    let mut offsets = BTreeMap::new();
    for pair in text.split(',') {
        let (partition, offset) = pair.split_once(':').ok_or_else(wrong)?;
        let partition: i32 = partition.trim().parse().map_err(|_| wrong())?;
        let offset: i64 = offset.trim().parse().map_err(|_| wrong())?;
        if partition < 0 || offset < 0 {
            return Err(wrong());
        }
        if offsets.insert(partition, offset).is_some() {
            return Err(format!("`{text}` names partition {partition} twice"));
        }
    }
    Ok(Start::Offsets(offsets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, expected) in [
            ("1 second", Some(1_000)),
            ("200 milliseconds", Some(200)),
            ("0 seconds", Some(0)),
            ("5 minutes", Some(300_000)),
            ("1h 30m", Some(5_400_000)),
            ("5", None),
            ("-1 second", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(duration(text).ok().map(|d| d.as_millis()), expected, "{text}");
        }
    }

    #[test]
    fn sizes_have_units() {
        for (text, expected) in
            [("128 MB", Some(128_000_000)), ("2 GiB", Some(2 << 30)), ("0 MB", None), ("128", None), ("much", None)]
        {
            assert_eq!(bytes(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn columns_are_listed_with_commas() {
        for (text, names) in [
            ("a", &["a"][..]),
            (" a , b c ", &["a", "b c"]),
            (r#""Amount ""net""", "x, y""#, &["Amount \"net\"", "x, y"]),
            (r#""a",b"#, &["a", "b"]),
        ] {
            assert_eq!(columns(text).unwrap(), names, "{text}");
        }
        for text in ["", ",", "a,", "a,,b", "\"a", "\"a\" b", "\"\""] {
            assert!(columns(text).is_err(), "{text}");
        }
    }

    #[test]
    fn counts_are_positive() {
        assert_eq!(count("1_000_000"), Ok(1_000_000));
        assert!(count("0").is_err() && count("-1").is_err() && count("many").is_err());
    }

    #[test]
    fn positions() {
        assert_eq!(start("earliest"), Ok(Start::Earliest));
        assert_eq!(start("latest"), Ok(Start::Latest));
        assert_eq!(start("0:12,1:40"), Ok(Start::Offsets(BTreeMap::from([(0, 12), (1, 40)]))));
        assert!(matches!(start("2026-01-31T00:00:00+01:00"), Ok(Start::At(_))));
        for wrong in ["", "yesterday", "0:12,0:13", "0", "-1:2", "0:-2", "2026-01-31"] {
            assert!(start(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn shares_are_percentages() {
        assert_eq!(share("10%"), Ok(0.1));
        assert_eq!(share(" 0.5 % "), Ok(0.005));
        assert_eq!(share("100%"), Ok(1.0));
        for wrong in ["10", "101%", "-1%", "x%", "%", "NaN%"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }
}
