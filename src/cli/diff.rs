//! `flumen diff`: two tables, compared.

use clap::Args;

use super::difference::rows_that_differ;
use super::output::{print_json, print_line};
use super::{Format, Globals, Inputs, load};
use crate::compare::{Counts, Difference, Question, TableRef, compare};
use crate::error::{Error, Result};
use crate::memory::Memory;
use crate::observe::grouped;
use crate::pipeline::units;

/// `flumen diff A B`.
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// A Delta table (PATH or PATH@VERSION), a .parquet, .csv or .json file or a directory of them, or a recording
    left: String,
    /// What it is compared with
    right: String,
    /// Columns that tell rows apart; without it rows are compared whole
    #[arg(long, value_name = "COLUMN,…", value_delimiter = ',')]
    key: Vec<String>,
    /// Floating-point numbers may differ by so much, absolutely or in relation to the larger one
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    tolerance: f64,
    /// Rows that are shown of each kind of difference
    #[arg(long, value_name = "N", default_value_t = 20)]
    samples: usize,
    /// Bytes that sorting may hold; more is sorted on disk
    #[arg(long, value_name = "SIZE", default_value = "1 GB", value_parser = units::bytes)]
    memory_limit: u64,
}

impl Diff {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        if self.tolerance.is_nan() || self.tolerance < 0.0 {
            return Err(Error::invalid("--tolerance is a number from 0 on"));
        }
        let environment = load::environment(&load::root(globals)?, &Inputs::default());
        let table = |named: &str| TableRef::new(named, |path| environment.resolve(path).to_string_lossy().into_owned());
        let (left, right) = (table(&self.left)?, table(&self.right)?);
        let question = Question { key: self.key, tolerance: self.tolerance, samples: self.samples, columns: None };
        let difference = compare(&left, &right, &question, &Memory::new(self.memory_limit)?).await?;
        match globals.output {
            Format::Json => print_json(&difference)?,
            Format::Text => print_line(&told(&difference)),
        }
        if difference.is_none() {
            return Ok(());
        }
        Err(Error::violated(format!("{} and {} differ", left.named, right.named)))
    }
}

/// A comparison for people.
fn told(difference: &Difference) -> String {
    let Counts { left, right, common, changed, only_left, only_right } = difference.rows;
    let mut lines = vec![format!("left:  {}  {} rows", difference.tables[0], grouped(left))];
    lines.push(format!("right: {}  {} rows", difference.tables[1], grouped(right)));
    lines.extend(difference.columns_changed.iter().map(|change| format!("column {change}")));
    let pairs = if difference.columns.is_empty() { String::new() } else { format!("  {} changed", grouped(changed)) };
    let (only_left, only_right) = (grouped(only_left), grouped(only_right));
    lines.push(format!("{} common{pairs}  {only_left} only left  {only_right} only right", grouped(common)));
    if difference.is_apart() {
        lines.push("no column is in both tables: no row was compared".to_owned());
    }
    for column in &difference.columns {
        let share = column.equal as f64 * 100.0 / (column.of.max(1) as f64);
        lines.push(format!("  {share:6.2} % equal  {}", column.name));
    }
    lines.extend(rows_that_differ(&difference.samples));
    lines.join("\n")
}
