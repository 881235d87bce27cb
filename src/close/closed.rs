//! What a closing says of a day, once and for all.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// A day that is closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// The pipeline.
    pub job: String,
    /// The business date.
    pub date: String,
    /// The number of the closing: 1, and one more each time that the date is opened again.
    pub closing: i64,
    /// The closing that it takes the place of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reopens: Option<i64>,
    /// Why the date was opened again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The zone of the date.
    pub zone: String,
    /// The day's first moment.
    pub day_start: DateTime<Utc>,
    /// The first moment after it.
    pub day_end: DateTime<Utc>,
    /// How long records of the day were waited for after its end, in seconds.
    pub lateness_seconds: u64,
    /// What says that all records of the day are there.
    pub complete_by: CompleteBy,
    /// The clock of the closing.
    pub closed_at: DateTime<Utc>,
    /// What all final tables say of the day: the SHA-256 of their names and hashes.
    pub content_sha256: String,
    /// The pipeline file.
    pub pipeline_sha256: String,
    /// The models, by name, with their SHA-256.
    pub models: BTreeMap<String, String>,
    /// The tables that were read, by name, with their versions.
    pub lookups: BTreeMap<String, String>,
    /// The final tables.
    pub tables: Vec<FinalTable>,
    /// Where each record went.
    pub reconciled: Vec<Reconciled>,
    /// Checks of the file, none of which returned a row.
    pub checks: usize,
}

/// What says that a day is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CompleteBy {
    /// It was late enough before the ends of the topics were asked for.
    Clock,
    /// Every partition has a record from late enough.
    Records,
}

/// A day of a final table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalTable {
    /// Its name in the file.
    pub table: String,
    /// Where it lies.
    pub location: String,
    /// Its rows of the day.
    pub rows: u64,
    /// Its files of the day.
    pub files: usize,
    /// What the rows say: see [`crate::content`].
    pub sha256: String,
}

/// The records of a topic, and what became of them in one final table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconciled {
    /// The final table that keeps rows.
    pub table: String,
    /// The table that the records land in.
    pub landing: String,
    /// Where that lies.
    pub location: String,
    /// The version of it that was read.
    pub version: u64,
    /// The topic.
    pub topic: String,
    /// Kafka's topic id.
    pub topic_id: String,
    /// The column of the landing table that says of which day a row is; not in closings of old versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// Whether the log no longer said of all records how many there were: then their offsets are counted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_offsets: bool,
    /// Partition by partition.
    pub partitions: BTreeMap<i32, Figures>,
    /// All of them.
    pub total: Figures,
}

/// Records of the closing's offsets, and rows of the day.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// The first offset that no closing before has accounted for; absent in totals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<i64>,
    /// The offset after the last one of this closing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<i64>,
    /// Records that were read.
    pub records: u64,
    /// Records without a value.
    pub null: u64,
    /// Records that could not be decoded.
    pub dead: u64,
    /// Rows that broke the contract of the landing table.
    pub quarantined: u64,
    /// Rows that landed.
    pub landed: u64,
    /// Rows of the day that an earlier closing accounted for as outside its own.
    pub brought_forward: u64,
    /// Rows that landed and are of another day, or of none.
    pub outside: u64,
    /// Rows of the day that are kept.
    pub kept: u64,
    /// Rows of the day instead of which another one is kept.
    pub duplicates: u64,
    /// What adds up, by column.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sums: BTreeMap<String, Sums>,
    /// The offsets of which the rows outside are told by their days, when that is not all: others tell of the rest.
    #[serde(default, rename = "outside_offsets", skip_serializing_if = "Option::is_none")]
    pub told: Option<Vec<(i64, i64)>>,
    /// The rows outside, by their day. They have to be there when it is closed.
    #[serde(default, rename = "outside_by_day", skip_serializing_if = "BTreeMap::is_empty")]
    pub open: BTreeMap<String, Open>,
}

/// The sums of one column over the same rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// Of the rows that landed.
    pub landed: Exact,
    /// Of rows from earlier.
    pub brought_forward: Exact,
    /// Of rows of other days.
    pub outside: Exact,
    /// Of what is kept.
    pub kept: Exact,
    /// Of duplicates.
    pub duplicates: Exact,
}

/// A sum of whole numbers or decimals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exact {
    /// In units of the last digit.
    pub units: i128,
    /// Digits behind the point.
    pub scale: i8,
}

impl Exact {
    /// Adds a number.
    pub fn add(&mut self, more: Exact) {
        let scale = self.scale.max(more.scale);
        self.units = self.at(scale).saturating_add(more.at(scale));
        self.scale = scale;
    }

    /// Whether they are the same number.
    pub fn is_same(self, other: Exact) -> bool {
        let scale = self.scale.max(other.scale);
        self.at(scale) == other.at(scale)
    }

    /// In units of so many digits behind the point, at least as many as it has.
    fn at(self, scale: i8) -> i128 {
        let digits = u32::try_from(scale - self.scale).unwrap_or(0);
        self.units.saturating_mul(10i128.saturating_pow(digits))
    }
}

/// Rows of a day that is not closed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// How many.
    pub rows: u64,
    /// What they add up to, by column.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sums: BTreeMap<String, Exact>,
}

impl Open {
    /// Adds others.
    pub fn add(&mut self, more: &Open) {
        self.rows += more.rows;
        for (column, sum) in &more.sums {
            self.sums.entry(column.clone()).or_default().add(*sum);
        }
    }
}

impl std::fmt::Display for Exact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = usize::try_from(self.scale).unwrap_or(0);
        if digits == 0 {
            return write!(f, "{}", self.units);
        }
        let sign = if self.units < 0 { "-" } else { "" };
        let text = format!("{:0>width$}", self.units.unsigned_abs(), width = digits + 1);
        let (whole, part) = text.split_at(text.len() - digits);
        write!(f, "{sign}{whole}.{part}")
    }
}

/// A number where JSON keeps all its digits, else a text.
impl Serialize for Exact {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match i64::try_from(self.units) {
            Ok(units) if self.scale == 0 && units.unsigned_abs() < 1 << 53 => serializer.serialize_i64(units),
            _ => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
        let units = format!("{whole}{part}").parse().map_err(serde::de::Error::custom)?;
        Ok(Self { units, scale: i8::try_from(part.len()).map_err(serde::de::Error::custom)? })
    }
}

impl Figures {
    /// The offsets of which the rows outside are told by their days.
    pub fn vouches(&self) -> Vec<(i64, i64)> {
        match (&self.told, self.from, self.to) {
            (Some(told), _, _) => told.clone(),
            (None, Some(from), Some(to)) => vec![(from, to)],
            (None, _, _) => Vec::new(),
        }
    }

    /// Records of which it is known what became of them.
    pub fn found(&self) -> u64 {
        self.landed + self.dead + self.quarantined + self.null
    }

    /// Adds those of another partition.
    pub fn add(&mut self, more: &Figures) {
        self.records += more.records;
        self.null += more.null;
        self.dead += more.dead;
        self.quarantined += more.quarantined;
        self.landed += more.landed;
        self.brought_forward += more.brought_forward;
        self.outside += more.outside;
        self.kept += more.kept;
        self.duplicates += more.duplicates;
        for (day, open) in &more.open {
            self.open.entry(day.clone()).or_default().add(open);
        }
        for (column, sums) in &more.sums {
            let own = self.sums.entry(column.clone()).or_default();
            own.landed.add(sums.landed);
            own.brought_forward.add(sums.brought_forward);
            own.outside.add(sums.outside);
            own.kept.add(sums.kept);
            own.duplicates.add(sums.duplicates);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_different_scales_are_added() {
        let mut sum = Exact { units: 1050, scale: 2 };
        sum.add(Exact::default());
        assert_eq!(sum.to_string(), "10.50");
        let mut sum = Exact { units: 2, scale: 0 };
        sum.add(Exact { units: 5, scale: 1 });
        assert_eq!(sum.to_string(), "2.5");
        assert!(Exact { units: 20, scale: 1 }.is_same(Exact { units: 2, scale: 0 }));
    }

    #[test]
    fn who_tells_of_no_offsets_does_not_tell_of_all() {
        let all = Figures { from: Some(3), to: Some(9), ..Figures::default() };
        assert_eq!(all.vouches(), [(3, 9)]);
        let none = Figures { told: Some(Vec::new()), ..all };
        let text = serde_json::to_string(&none).unwrap();
        assert!(serde_json::from_str::<Figures>(&text).unwrap().vouches().is_empty(), "{text}");
    }

    #[test]
    fn sums_are_written_and_read_without_loss() {
        for (units, scale, text) in [
            (0, 0, "0"),
            (-12, 0, "-12"),
            (1205, 2, r#""12.05""#),
            (-5, 2, r#""-0.05""#),
            (i128::from(i64::MAX), 0, r#""9223372036854775807""#),
            (170_141_183_460_469_231_731_687_303_715_884_105_727, 6, r#""170141183460469231731687303715884.105727""#),
        ] {
            let exact = Exact { units, scale };
            assert_eq!(serde_json::to_string(&exact).unwrap(), text);
            assert_eq!(serde_json::from_str::<Exact>(text).unwrap(), exact);
        }
    }
}
