//! What a reader of model files does with bytes that nobody meant to be a model: it refuses them with an error that says
//! what to do, or the model scores. `FLUMEN_FUZZ` names the language; of SPARK_ML the bytes are a file in the directory of
//! a model that is whole, first the number of that file.
#![no_main]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use arrow::array::StringArray;
use flumen::model::{Column, Feature, Language, load};
use libfuzzer_sys::{Corpus, fuzz_target};

/// Where the bytes become files.
struct Place {
    language: Language,
    model: PathBuf,
    /// The files of a directory, with what stands in them when they are whole.
    files: Vec<(PathBuf, Vec<u8>)>,
}

static PLACE: LazyLock<Place> = LazyLock::new(|| {
    let told = std::env::var("FLUMEN_FUZZ").expect("FLUMEN_FUZZ names a language");
    let language = Language::of(&told).expect("a language");
    let model = std::env::temp_dir().join(format!("flumen-fuzz-{}", std::process::id()));
    let mut files = Vec::new();
    if language == Language::SparkMl {
        let whole = PathBuf::from(std::env::var_os("FLUMEN_FUZZ_WHOLE").expect("FLUMEN_FUZZ_WHOLE names a model"));
        copy(&whole, &model, &mut files);
        files.sort();
    }
    Place { language, model, files }
});

fn copy(from: &Path, to: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry").path();
        let place = to.join(entry.file_name().expect("a name"));
        if entry.is_dir() {
            copy(&entry, &place, files);
            continue;
        }
        let bytes = fs::read(&entry).expect("a file");
        fs::write(&place, &bytes).expect("a file");
        // What begins with a dot or an underscore is not read.
        if !place.file_name().is_some_and(|name| name.to_string_lossy().starts_with(['.', '_'])) {
            files.push((place, bytes));
        }
    }
}

/// Writes the bytes to where the model is, and takes them away when it is done.
fn with_file(data: &[u8], run: impl FnOnce(&Place)) -> Corpus {
    let place = &*PLACE;
    let Some(number) = data.first().filter(|_| !place.files.is_empty()) else {
        if !place.files.is_empty() {
            return Corpus::Reject;
        }
        fs::write(&place.model, data).expect("a file");
        run(place);
        return Corpus::Keep;
    };
    let (path, whole) = &place.files[usize::from(*number) % place.files.len()];
    fs::write(path, &data[1..]).expect("a file");
    run(place);
    fs::write(path, whole).expect("a file");
    Corpus::Keep
}

fuzz_target!(
    init: {
        // The Parquet crate panics on some files, and the reader catches that: only what comes out of it counts.
        std::panic::set_hook(Box::new(|_| {}));
    },
    |data: &[u8]| -> Corpus {
        with_file(data, |place| {
            let model = match load("fuzzed", place.language, &place.model, None) {
                Ok(model) => model,
                Err(error) => return assert!(error.to_string().contains("; "), "{error}"),
            };
            let texts = StringArray::from(vec![Some("Oslo"), None, Some("phone")]);
            let numbers = [1.5, f64::NAN, f64::INFINITY];
            let column = |feature: &Feature| match feature.is_text {
                true => Column::Texts(&texts),
                false => Column::Numbers(&numbers),
            };
            let columns: Vec<Column<'_>> = model.about().features.iter().map(column).collect();
            // A row may be refused; what is scored is whole.
            if let Ok(scores) = model.score(&columns, 3) {
                assert_eq!(scores.predictions.len(), 3);
            }
        })
    }
);
