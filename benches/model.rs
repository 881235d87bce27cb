//! How many rows a second models score on one thread: the shipped ones, and those in the directory that
//! `FLUMEN_BENCH_MODELS` names (`scripts/bench-models`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark that fails may stop")]
#![allow(missing_docs, reason = "criterion makes undocumented items")]

use std::hint::black_box;
use std::path::{Path, PathBuf};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flumen::clock::Stopwatch;
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

/// The models of a directory, by their names; in `large` there are more.
fn models(directory: &Path) -> Vec<(PathBuf, Language)> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let own = entries.filter(|path| !path.ends_with("large"));
    let mut models: Vec<_> = own.filter_map(|path| Language::of_path(&path).map(|language| (path, language))).collect();
    models.sort_by(|(a, _), (b, _)| a.cmp(b));
    models
}

/// `NAME.rows` has the values of model `NAME`, column after column, as 64-bit floats.
fn given(c: &mut Criterion) {
    let Some(directory) = std::env::var_os("FLUMEN_BENCH_MODELS").map(PathBuf::from) else { return };
    let mut group = c.benchmark_group("given");
    group.throughput(Throughput::Elements(ROWS as u64));
    for (path, language) in models(&directory) {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let model = model::load(&name, language, &path, None).unwrap();
        let bytes = std::fs::read(path.with_extension("rows")).unwrap();
        let values: Vec<f64> = bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
        let columns: Vec<&[f64]> = values.chunks(values.len() / model.about().features.len()).collect();
        let batch = |first: usize| columns.iter().map(|column| Column::Numbers(&column[first..first + ROWS])).collect();
        let batches: Vec<Vec<Column<'_>>> = (0..columns[0].len() / ROWS).map(|at| batch(at * ROWS)).collect();
        let mut next = (0..batches.len()).cycle();
        group.bench_function(name, |bencher| {
            bencher.iter(|| model.score(black_box(&batches[next.next().unwrap()]), ROWS).unwrap());
        });
    }
    group.finish();
    for (path, language) in models(&directory.join("large")) {
        let bytes = path.metadata().unwrap().len();
        let start = Stopwatch::start();
        let model = model::load("large", language, &path, None).unwrap();
        let (took, trees) = (start.elapsed(), model.about().trees);
        println!("load {} of {} MB, {trees} trees: {took:.2?}", path.file_name().unwrap().display(), bytes / 1_000_000);
    }
}

criterion_group!(benches, score, given);
criterion_main!(benches);
