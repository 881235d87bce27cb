//! How many rows a second the shipped models score on one thread.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark that fails may stop")]
#![allow(missing_docs, reason = "criterion makes undocumented items")]

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flumen::model::{self, Column, Language};

/// What DataFusion hands over at a time.
const ROWS: usize = 8192;

/// Values between 0 and `scale`, spread evenly, one in twenty missing.
fn column(scale: f64, step: usize) -> Vec<f64> {
    let value = |row: usize| (row * step % 997) as f64 / 997.0 * scale;
    (0..ROWS).map(|row| if (row + step).is_multiple_of(20) { f64::NAN } else { value(row) }).collect()
}

fn score(c: &mut Criterion) {
    let columns = [column(1.0, 31), column(100.0, 57), column(24.0, 73), column(3.0, 91)];
    let mut group = c.benchmark_group("model");
    group.throughput(Throughput::Elements(ROWS as u64));
    for (name, file) in [("100 trees of depth 6", "click_probability"), ("linear", "click_probability_linear")] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("queries/data/{file}.json"));
        let model = model::load(file, Language::Xgboost, &path, None).unwrap();
        let features = model.about().features.len();
        let columns: Vec<Column<'_>> = columns[..features].iter().map(|column| Column::Numbers(column)).collect();
        group.bench_function(name, |bencher| {
            bencher.iter(|| model.score(black_box(&columns), ROWS).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, score);
criterion_main!(benches);
