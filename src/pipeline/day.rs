//! The business day of a close of books: a date in the zone `SET flumen.close_zone`, from its first moment to that of
//! the next day. Where clocks are put forward or back it has 23 or 25 hours.

use chrono::{DateTime, SecondsFormat, Utc};
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// The parameter that a close gives a file: the date.
pub const DATE: &str = "date";
/// The parameters that follow from it: the day's first moment, and that of the next day.
pub const BOUNDS: [&str; 2] = ["day_start", "day_end"];

/// A date and when it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BusinessDay {
    /// The date, in its zone.
    pub date: Date,
    /// Its first moment.
    pub start: DateTime<Utc>,
    /// The first moment after it.
    pub end: DateTime<Utc>,
}

impl BusinessDay {
    /// The day of `date`, written as `2026-11-22`, in `zone`.
    ///
    /// # Errors
    /// Why there is no such day.
    pub fn new(date: &str, zone: &TimeZone) -> Result<Self, String> {
        let shaped = date.len() == 10
            && date.bytes().enumerate().all(|(at, byte)| match at {
                4 | 7 => byte == b'-',
                _ => byte.is_ascii_digit(),
            });
        let parsed: Date = date
            .parse()
            .ok()
            .filter(|_| shaped)
            .ok_or_else(|| format!("`{date}` is no date: write one that the calendar has, such as 2026-11-22"))?;
        let beyond = |_| format!("`{date}` is beyond the calendar: write another date");
        let start = parsed.to_zoned(zone.clone()).map_err(beyond)?;
        let end = parsed.tomorrow().and_then(|next| next.to_zoned(zone.clone())).map_err(beyond)?;
        let day = Self { date: parsed, start: moment(&start), end: moment(&end) };
        if day.start >= day.end || start.date() != parsed {
            let zone = zone.iana_name().unwrap_or("its zone");
            return Err(format!("`{date}` is no day of {zone}, whose clocks passed over it: write another date"));
        }
        Ok(day)
    }

    /// The values of the parameters that a close gives, by name.
    pub fn params(&self) -> [(&'static str, String); 3] {
        let text = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::AutoSi, true);
        [(DATE, self.date.to_string()), (BOUNDS[0], text(self.start)), (BOUNDS[1], text(self.end))]
    }

    /// How many hours it has, rounded down.
    pub fn hours(&self) -> i64 {
        (self.end - self.start).num_hours()
    }
}

/// Whether a parameter is one that a close gives.
pub fn is_of_day(name: &str) -> bool {
    name == DATE || BOUNDS.contains(&name)
}

fn moment(time: &jiff::Zoned) -> DateTime<Utc> {
    let time = time.timestamp();
    DateTime::from_timestamp(time.as_second(), time.subsec_nanosecond().unsigned_abs()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(date: &str, zone: &str) -> Result<(String, String, i64), String> {
        let day = BusinessDay::new(date, &TimeZone::get(zone).unwrap())?;
        let [_, (_, start), (_, end)] = day.params();
        Ok((start, end, day.hours()))
    }

    #[test]
    fn days_have_the_hours_that_their_zone_gives_them() {
        for (date, zone, start, end, hours) in [
            ("2026-11-22", "UTC", "2026-11-22T00:00:00Z", "2026-11-23T00:00:00Z", 24),
            ("2026-11-22", "America/New_York", "2026-11-22T05:00:00Z", "2026-11-23T05:00:00Z", 24),
            ("2026-11-01", "America/New_York", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z", 25),
            ("2026-03-08", "America/New_York", "2026-03-08T05:00:00Z", "2026-03-09T04:00:00Z", 23),
            ("2026-03-29", "Europe/Berlin", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z", 23),
            // Clocks go forward at midnight: the day begins at one.
            ("2018-11-04", "America/Sao_Paulo", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z", 23),
            ("2026-11-22", "Asia/Kathmandu", "2026-11-21T18:15:00Z", "2026-11-22T18:15:00Z", 24),
        ] {
            assert_eq!(day(date, zone), Ok((start.to_owned(), end.to_owned(), hours)), "{date} {zone}");
        }
    }

    #[test]
    fn a_date_that_there_is_not_is_refused() {
        for date in ["2026-02-30", "2026-13-01", "22.11.2026", "2026-11-22T00:00:00Z", "20261122", "today", ""] {
            let why = day(date, "UTC").unwrap_err();
            assert!(why.contains("is no date"), "{date}: {why}");
        }
        // Samoa went from one side of the date line to the other.
        let why = day("2011-12-30", "Pacific/Apia").unwrap_err();
        assert!(why.contains("no day of Pacific/Apia"), "{why}");
        assert!(day("9999-12-31", "UTC").unwrap_err().contains("beyond the calendar"));
    }
}
