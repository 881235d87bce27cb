//! Every broken pipeline file of `tests/faults/` against what is told about it: message, place, caret, remedy.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use flumen::error::{Error, Result};
use flumen::pipeline::{Environment, Facts, Fit, LookupSpec, ModelSpec, Pipeline};

const ROOT: &str = "tests/faults";

/// One lookup and one model exist.
struct Known;

impl Facts for Known {
    fn lookup_schema(&self, lookup: &LookupSpec) -> Result<SchemaRef> {
        match lookup.location.ends_with("categories") {
            true => Ok(Arc::new(Schema::new(vec![Field::new("ad_id", DataType::Utf8, true)]))),
            false => {
                Err(Error::invalid(format!("lookup {}: there is no Delta table at {}", lookup.name, lookup.location)))
            }
        }
    }

    fn check_model(&self, model: &ModelSpec) -> Result<Fit> {
        let (name, count) = (&model.name, model.arguments.len());
        if !model.path.ends_with("click.json") {
            return Err(Error::invalid(format!("model {name}: there is no file {}", model.path.display())));
        }
        let differs = format!(
            "`{name}` is declared with {count} arguments, and the model has 3 features; declare one argument for each feature, in the model's order"
        );
        Ok(if count == 3 { Fit::Fits } else { Fit::Differs(differs) })
    }

    fn check_kafka_property(&self, name: &str, _value: &str) -> Result<(), String> {
        match name {
            "enable.auto.commit" => Err("Flumen keeps the offsets itself".into()),
            _ => Ok(()),
        }
    }
}

/// What the comment lines `-- param name=value` and `-- set key=value` say.
fn environment(text: &str) -> Environment {
    let directives = |word: &'static str| {
        let pairs = text.lines().filter_map(move |line| line.strip_prefix(word)?.split_once('='));
        pairs.map(|(name, value)| (name.to_string(), value.to_string()))
    };
    Environment {
        root: ROOT.into(),
        params: directives("-- param ").collect(),
        settings: directives("-- set ").collect(),
        ..Environment::default()
    }
}

fn told(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let file = Path::new(path.file_name().unwrap());
    match Pipeline::load(&text, file, &environment(&text), &Known) {
        Ok(pipeline) => {
            assert!(!pipeline.warnings.is_empty(), "{} has no fault", path.display());
            pipeline.warnings.iter().map(|w| w.render(false)).collect::<Vec<_>>().join("\n\n")
        }
        Err(faults) => faults.render(false),
    }
}

#[test]
fn every_fault_is_told_with_its_place_and_remedy() {
    let mut files: Vec<_> = std::fs::read_dir(ROOT).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "sql"));
    files.sort();
    assert!(files.len() >= 30, "only {} broken files", files.len());
    let mut settings = insta::Settings::clone_current();
    settings.set_omit_expression(true);
    settings.bind(|| {
        for path in files {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let told = told(&path);
            for line in told.split("\n\n") {
                assert!(line.contains("= help: "), "{name}: no remedy in\n{line}");
            }
            insta::assert_snapshot!(name, told);
        }
    });
}
