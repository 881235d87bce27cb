//! Every model under `tests/models` against what its own library says of the same rows (`scripts/make-models`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow::array::StringArray;
use flumen::model::{Column, Language, Output, load};
use serde_json::Value;

use crate::ads::impressions;
use crate::binary::{Background, Finished, finish, flumen, repository, until, workspace};
use crate::broker::Broker;
use crate::{delta, topics};

/// A table of texts: the columns by their names.
fn read_csv(path: &Path) -> BTreeMap<String, Vec<String>> {
    let text = fs::read_to_string(path).unwrap();
    let mut lines = text.lines().map(cells);
    let names = lines.next().unwrap();
    let mut columns = vec![Vec::new(); names.len()];
    for line in lines {
        assert_eq!(line.len(), names.len(), "{}: {line:?}", path.display());
        line.into_iter().zip(&mut columns).for_each(|(cell, column)| column.push(cell));
    }
    names.into_iter().zip(columns).collect()
}

fn cells(line: &str) -> Vec<String> {
    let (mut cells, mut quoted) = (vec![String::new()], false);
    for character in line.chars() {
        match character {
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(String::new()),
            other => cells.last_mut().unwrap().push(other),
        }
    }
    cells
}

/// A number of a file: NaN is null, infinities are texts.
fn number(value: &Value) -> f64 {
    match value {
        Value::Null => f64::NAN,
        Value::String(text) => text.parse().unwrap(),
        other => other.as_f64().unwrap(),
    }
}

/// How far apart, in steps of the float type; 0 for two that are no numbers.
fn ulps(a: f64, b: f64, float: u64) -> f64 {
    if a == b || (a.is_nan() && b.is_nan()) {
        return 0.0;
    }
    if !a.is_finite() || !b.is_finite() {
        return f64::INFINITY;
    }
    if float == 32 {
        let bits = |value: f64| {
            let bits = i64::from((value as f32).to_bits() as i32);
            if bits < 0 { i64::from(i32::MIN) - bits } else { bits }
        };
        return bits(a).abs_diff(bits(b)) as f64;
    }
    let bits = |value: f64| {
        let bits = i128::from(value.to_bits() as i64);
        if bits < 0 { i128::from(i64::MIN) - bits } else { bits }
    };
    bits(a).abs_diff(bits(b)) as f64
}

/// A model of the corpus, with what its library says.
struct Case {
    name: String,
    dir: PathBuf,
    expected: Value,
}

fn cases(library: &str) -> Vec<Case> {
    let dir = repository().join("tests/models").join(library);
    let mut dirs: Vec<PathBuf> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    dirs.sort();
    let case = |dir: PathBuf| {
        let text = fs::read_to_string(dir.join("expected.json")).unwrap();
        let name = dir.file_name().unwrap().to_str().unwrap().to_owned();
        Case { name, expected: serde_json::from_str(&text).unwrap(), dir }
    };
    dirs.into_iter().map(case).collect()
}

/// A column as the model takes it.
enum Ready {
    Numbers(Vec<f64>),
    Texts(StringArray),
}

impl Case {
    fn texts(&self, key: &str) -> Vec<String> {
        let list = self.expected[key].as_array().unwrap_or_else(|| panic!("{}: no {key}", self.name));
        list.iter().map(|value| value.as_str().unwrap().to_owned()).collect()
    }

    /// What is wrong, and the largest difference in steps of the library's float type.
    fn compare(&self) -> Result<f64, String> {
        let language = Language::of(self.expected["language"].as_str().unwrap()).unwrap();
        let path = self.dir.join(self.expected["model"].as_str().unwrap());
        let model = load("f", language, &path, None).map_err(|error| error.to_string())?;
        let about = model.about();
        let table = read_csv(&repository().join("tests/models").join(self.expected["rows"].as_str().unwrap()));
        let inputs = self.texts("inputs");
        if about.features.len() != inputs.len() {
            return Err(format!("features {:?}, expected {inputs:?}", about.features));
        }
        let skipped: Vec<usize> = self.expected["skip_rows"]
            .as_array()
            .map_or_else(Vec::new, |rows| rows.iter().map(|row| row.as_u64().unwrap() as usize).collect());
        let list = |key: &str| self.expected.get(key).and_then(Value::as_array);
        // Of several numbers none is the prediction.
        let rows = list("prediction").or(list("values")).unwrap().len();
        let kept: Vec<usize> = (0..rows).filter(|row| !skipped.contains(row)).collect();
        let columns: Vec<Ready> = inputs
            .iter()
            .zip(&about.features)
            .map(|(name, feature)| {
                let cells = kept.iter().map(|row| table[name][*row].as_str());
                if feature.is_text {
                    // Only a comment is empty, another cell is missing then.
                    let is_kept = |cell: &&str| !cell.is_empty() || name == "comment";
                    return Ready::Texts(cells.map(|cell| Some(cell).filter(is_kept)).collect());
                }
                Ready::Numbers(
                    cells.map(|cell| if cell.is_empty() { f64::NAN } else { cell.parse().unwrap() }).collect(),
                )
            })
            .collect();
        let columns: Vec<Column<'_>> = columns
            .iter()
            .map(|column| match column {
                Ready::Numbers(numbers) => Column::Numbers(numbers),
                Ready::Texts(texts) => Column::Texts(texts),
            })
            .collect();
        let scores = model.score(&columns, kept.len()).map_err(|error| error.to_string())?;
        // Where each expected class is among the model's.
        let mut classes: Vec<usize> = (0..about.output.width()).collect();
        if let (Output::Classes { labels, .. }, Some(_)) = (&about.output, self.expected.get("labels")) {
            let expected = self.texts("labels");
            let wrong = || format!("labels {labels:?}, expected {expected:?}");
            let place = |label: &String| labels.iter().position(|own| own == label).ok_or_else(wrong);
            classes = expected.iter().map(place).collect::<Result<_, _>>()?;
            // Only ONNX's ZipMap may name the classes in another order than the labels.
            if classes.len() != labels.len() || (language != Language::Onnx && *labels != expected) {
                return Err(wrong());
            }
        }
        let float = self.expected["float"].as_u64().unwrap();
        let width = about.output.width();
        let mut most = 0.0_f64;
        for (index, row) in kept.iter().enumerate() {
            let found = scores.predictions[index];
            let expected = list("prediction").map_or(found, |list| number(&list[*row]));
            let is_class = matches!(about.output, Output::Classes { .. }) && self.expected.get("labels").is_some();
            let expected = if is_class { classes[expected as usize] as f64 } else { expected };
            let apart = if matches!(about.output, Output::Classes { .. }) {
                ulps(found, expected, 64) * 1e9
            } else {
                ulps(found, expected, float)
            };
            if apart > 1e6 {
                return Err(format!("row {row}: prediction {found}, expected {expected}"));
            }
            most = most.max(apart);
            let Some(values) = self.expected.get("values").and_then(|values| values[*row].as_array()) else { continue };
            if width == 0 && MARGINS.contains(&self.name.as_str()) {
                continue;
            }
            if values.len() != width {
                return Err(format!("row {row}: {width} values, expected {}", values.len()));
            }
            for (at, expected) in classes.iter().zip(values.iter().map(number)) {
                let found = scores.values[index * width + at];
                let apart = ulps(found, expected, float);
                // Of a probability near zero the distance from one counts.
                let apart = apart.min((found - expected).abs() / if float == 32 { 6e-8 } else { 1.1e-16 });
                if apart > 1e6 {
                    return Err(format!("row {row}: value {found}, expected {expected}"));
                }
                most = most.max(apart);
            }
        }
        // The empty batch.
        let none: Vec<Column<'_>> = columns
            .iter()
            .map(|column| match column {
                Column::Numbers(numbers) => Column::Numbers(&numbers[..0]),
                Column::Texts(texts) => Column::Texts(texts),
            })
            .collect();
        if none.iter().all(|column| matches!(column, Column::Numbers(_))) {
            assert!(model.score(&none, 0).map_err(|error| error.to_string())?.predictions.is_empty());
        }
        Ok(most)
    }
}

/// Classifiers of ONNX whose numbers are no probabilities.
const MARGINS: [&str; 4] = ["kmeans", "linear_classifier_probit", "logistic_regression_raw", "svc_linear_multi"];

/// Models whose sums of 32-bit floats stand in an exponent, with how many steps their probabilities may be apart.
const EXPONENTS: [(&str, f64); 1] = [("onnx gaussian_nb", 16.0)];

fn agree(library: &str, at_least: usize, most: f64) {
    let (mut wrong, mut told) = (Vec::new(), Vec::new());
    let cases = cases(library);
    assert!(cases.len() >= at_least, "{} models of {library}", cases.len());
    for case in &cases {
        let by = case.expected["made_by"].as_str().unwrap();
        let known = EXPONENTS.iter().find(|(name, _)| *name == format!("{library} {}", case.name));
        let most = known.map_or(most, |(_, most)| *most);
        match case.compare() {
            Ok(apart) if apart <= most => told.push(format!("{library} {:40} {by:20} {apart:.1}", case.name)),
            Ok(apart) => wrong.push(format!("{} ({by}): {apart} steps apart", case.name)),
            Err(why) => wrong.push(format!("{} ({by}): {why}", case.name)),
        }
    }
    eprintln!("{}", told.join("\n"));
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn xgboost_models_say_what_xgboost_says() {
    agree("xgboost", 60, 2.0);
}

#[test]
fn lightgbm_models_say_what_lightgbm_says() {
    agree("lightgbm", 40, 1.0);
}

#[test]
fn onnx_models_say_what_onnx_runtime_says() {
    agree("onnx", 68, 2.0);
}

/// Where the Python environment of the tests has ONNX Runtime's library.
#[cfg(feature = "onnxruntime")]
fn onnx_runtime() -> String {
    let python = "import glob, onnxruntime, os; \
                  print(glob.glob(os.path.dirname(onnxruntime.__file__) + '/capi/libonnxruntime.so*')[0])";
    let found = finish(std::process::Command::new(delta::python()).args(["-c", python]));
    assert_eq!(found.code, Some(0), "there is no onnxruntime; run scripts/test, which installs it: {}", found.stderr);
    found.stdout.trim().to_owned()
}

#[cfg(feature = "onnxruntime")]
#[test]
fn neural_graphs_are_run_by_onnx_runtime() {
    let dir = tempfile::tempdir().unwrap();
    let library = onnx_runtime();
    let cases = cases("onnx_neural");
    assert_eq!(cases.len(), 2);
    for case in cases {
        let model = format!("tests/models/onnx_neural/{}/model.onnx", case.name);
        let rows = "tests/models/numbers.csv";
        let expect = dir.path().join("expected.csv");
        let values = case.expected.get("prediction").or(case.expected.get("values")).unwrap().as_array().unwrap();
        let of = |value: &Value| number(if value.is_array() { &value[0] } else { value }).to_string();
        fs::write(&expect, format!("prediction\n{}\n", values.iter().map(of).collect::<Vec<_>>().join("\n"))).unwrap();
        let mut command =
            flumen(&repository(), ["score", &model, "--input", rows, "--expect", expect.to_str().unwrap()]);
        let scored = finish(command.env("ORT_DYLIB_PATH", &library)).exits(0);
        assert!(scored.stdout.contains("120 rows, 0 differ"), "{}: {}", case.name, scored.stdout);
        assert!(scored.stderr.contains(", by ONNX Runtime, "), "{}", scored.stderr);
        let mut command = flumen(&repository(), ["score", &model, "--input", rows]);
        let without = finish(command.env("ORT_DYLIB_PATH", "no/such.so")).exits(2);
        for part in ["is not covered, and ONNX Runtime is not there", "name its library in ORT_DYLIB_PATH"] {
            assert!(without.stderr.contains(part), "{part}: {}", without.stderr);
        }
    }
}

#[cfg(not(feature = "onnxruntime"))]
#[test]
fn neural_graphs_are_refused_with_their_operator() {
    for (name, operator) in [("perceptron", "LayerNormalization"), ("convolution", "Conv")] {
        let model = format!("tests/models/onnx_neural/{name}/model.onnx");
        let refused = score(&[&model, "--input", "tests/models/numbers.csv"]).exits(2);
        for part in [format!("operator {operator}: it is not covered; "), "cargo feature onnxruntime".to_owned()] {
            assert!(refused.stderr.contains(&part), "{part}: {}", refused.stderr);
        }
    }
}

fn score(args: &[&str]) -> Finished {
    finish(&mut flumen(&repository(), [&["score"], args].concat()))
}

#[test]
fn a_file_is_scored_and_compared_from_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let case = cases("xgboost").into_iter().find(|case| case.name == "binary_logistic").unwrap();
    let model = "tests/models/xgboost/binary_logistic/model.json";
    // XGBoost refuses infinities.
    let text = fs::read_to_string(repository().join("tests/models/numbers.csv")).unwrap();
    let given = case.expected["values"].as_array().unwrap();
    let kept = |(row, _): &(usize, &str)| *row == 0 || !given[*row - 1].is_null();
    let lines: Vec<&str> = text.lines().enumerate().filter(kept).map(|(_, line)| line).collect();
    let rows = dir.path().join("rows.csv");
    fs::write(&rows, lines.join("\n")).unwrap();
    let rows = rows.to_str().unwrap();
    let values: Vec<f64> = given.iter().filter(|row| !row.is_null()).map(|row| row[1].as_f64().unwrap()).collect();
    let scored = score(&[model, "--input", rows]).exits(0);
    assert!(scored.stderr.contains("XGBoost 3.2.0 gbtree, binary:logistic"), "{}", scored.stderr);
    let mut lines = scored.stdout.lines();
    assert_eq!(lines.next(), Some("score,prediction,probability_0,probability_1"));
    let first: Vec<f64> = lines.map(|line| line.split(',').next().unwrap().parse().unwrap()).collect();
    assert_eq!(first, values);
    let json = finish(&mut flumen(&repository(), ["-o", "json", "score", model, "--input", rows]));
    assert_eq!(json.exits(0).json()[0]["score"], values[0]);
    // What the library says, and then something else.
    let expect = dir.path().join("expected.csv");
    let file = |values: &[f64]| {
        let lines: Vec<String> = values.iter().map(f64::to_string).collect();
        fs::write(&expect, format!("prediction\n{}\n", lines.join("\n"))).unwrap();
        score(&[model, "--input", rows, "--expect", expect.to_str().unwrap()])
    };
    let same = file(&values).exits(0);
    assert!(
        same.stdout.starts_with(&format!("{} rows, 0 differ, largest difference 0e0", values.len())),
        "{}",
        same.stdout
    );
    let mut other = values.clone();
    other[7] += 0.25;
    let differs = file(&other).exits(3);
    assert!(
        differs.stdout.contains(&format!("{} rows, 1 differ, largest difference 2.5e-1\nrow 8: ", values.len())),
        "{}",
        differs.stdout
    );
    assert!(file(&values[1..]).exits(2).stderr.contains(&format!("--expect has {} rows", values.len() - 1)));
    for (args, part) in [
        (vec!["tests/models/numbers.csv", "--input", rows], "its name does not say whose model it is"),
        (vec![model, "--input", "no.csv"], "there is no file"),
        (vec![model, "--input", model], "is neither .csv nor .parquet"),
        (vec!["tests/models/mixed.csv", "--language", "xgboost", "--input", rows], "it is no XGBoost model in JSON"),
    ] {
        let fault = score(&args).exits(2);
        assert!(fault.stderr.contains(part), "{part}: {}", fault.stderr);
    }
}

#[test]
fn what_a_file_of_rows_says_is_text_until_the_model_takes_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = |text: &str| {
        let path = dir.path().join("rows.csv");
        fs::write(&path, text).unwrap();
        score(&["queries/data/next_best_ad", "--input", path.to_str().unwrap()])
    };
    // A guess by the first rows would make numbers of these texts, and of the empty column nothing at all.
    let late = format!("category,page,bid\n{}007,True,2.5\n", "books,/shop,\n".repeat(1200));
    let scored = file(&late).exits(0);
    let rows: Vec<&str> = scored.stdout.lines().collect();
    assert_eq!(rows.len(), 1202);
    assert_ne!(rows[1].split(',').nth(2), rows[1201].split(',').nth(2), "{} {}", rows[1], rows[1201]);
    assert!(!rows[1201].contains("NaN"), "{}", rows[1201]);
    assert_eq!(file("category,page,bid\nbooks,/shop,NA\n").exits(0).stdout.lines().nth(1), Some(rows[1]));
    for (text, part) in [
        ("category,page,bid\nbooks,/shop,much\n", "row 1: column bid has `much`, and the model takes a number there"),
        ("category,site,bid\nbooks,/shop,1\n", "column page is missing; add it, or name all columns as the model does"),
    ] {
        let fault = file(text).exits(2);
        assert!(fault.stderr.contains(part), "{part}: {}", fault.stderr);
    }
    let by_order = file("a,b,c\nbooks,/shop,2.5\n").exits(0);
    assert!(by_order.stderr.contains("taken in their order, a, b, c"), "{}", by_order.stderr);
}

#[test]
fn names_of_arguments_are_those_of_the_file() {
    let dir = workspace();
    let check = |arguments: &str| {
        let model = "LANGUAGE XGBOOST AS 'queries/data/click_probability.json'";
        let rows = "CREATE EXTERNAL TABLE rows (x DOUBLE) STORED AS CSV LOCATION 'rows.csv' OPTIONS ('format.has_header' 'true')";
        fs::write(
            dir.path().join("names.sql"),
            format!("CREATE FUNCTION g({arguments}) RETURNS DOUBLE {model};\n{rows};"),
        )
        .unwrap();
        fs::write(dir.path().join("rows.csv"), "x\n1\n").unwrap();
        finish(&mut flumen(dir.path(), ["-o", "json", "sql", "names.sql", "SELECT g(0.25, 10.5, 10) AS g FROM rows"]))
    };
    check("rank DOUBLE, price DOUBLE, hour DOUBLE").exits(0);
    check("DOUBLE, DOUBLE, DOUBLE").exits(0);
    let swapped = check("price DOUBLE, rank DOUBLE, hour DOUBLE").exits(2);
    for part in ["names.sql:1:", "argument 1 of `g` is called price, and the model's feature there is rank"] {
        assert!(swapped.stderr.contains(part), "{part}: {}", swapped.stderr);
    }
}

/// The file's model of the shipped queries, and one that says something else.
const MODEL: &str = "queries/data/click_probability_linear.json";

fn changed(model: &str) -> String {
    assert!(model.contains("[2.147E-1]"));
    model.replace("[2.147E-1]", "[6.147E-1]")
}

fn sha256(text: &str) -> String {
    use sha2::Digest as _;
    hex::encode(sha2::Sha256::digest(text))
}

#[test]
fn a_model_that_is_replaced_is_taken_over_between_micro_batches() {
    let topic = topics::new_topic(Broker::shared(), "new-model", 1);
    let dir = workspace();
    let table = dir.path().join("tables/scored");
    let file = format!(
        "SET flumen.trigger = '50 milliseconds';
         CREATE EXTERNAL TABLE ads STORED AS KAFKA LOCATION 'kafka://${{env:KAFKA_BROKERS}}/{topic}'
         OPTIONS ('value.proto' 'proto/ads/v1/ads.proto', 'value.message' 'ads.v1.AdImpression');
         CREATE FUNCTION score(DOUBLE, DOUBLE, DOUBLE, DOUBLE) RETURNS DOUBLE LANGUAGE XGBOOST AS '{MODEL}';
         CREATE EXTERNAL TABLE scored (at BIGINT, score DOUBLE) STORED AS DELTA LOCATION 'tables/scored';
         INSERT INTO scored SELECT _offset, score(0.5, 1.0, 12.0, 2.0) FROM ads;"
    );
    fs::write(dir.path().join("scored.sql"), file).unwrap();
    let path = dir.path().join(MODEL);
    let old = fs::read_to_string(&path).unwrap();
    let told = [dir.path().join("stdout"), dir.path().join("stderr")];
    let mut command = Broker::shared().flumen(dir.path(), ["run", "scored.sql"]);
    let mut running = Background::start_telling(&mut command, &told[0], &told[1]);
    let models = || -> Vec<String> {
        let infos = if table.join("_delta_log").is_dir() { delta::commit_infos(&table) } else { Vec::new() };
        let with_rows = infos.into_iter().filter(|info| info["rows"]["written"].as_u64() > Some(0));
        with_rows.map(|info| info["models"][0]["sha256"].as_str().unwrap().to_owned()).collect()
    };
    let mut produced = 0;
    let mut go_on = |until_it: &mut dyn FnMut() -> bool| {
        until("the stream goes on", Duration::from_secs(60), || {
            assert!(running.running(), "the run has ended");
            topics::produce(Broker::shared(), &topic, 0, &impressions(produced..produced + 5));
            produced += 5;
            until_it()
        });
    };
    go_on(&mut || models().len() > 3);
    // Half a file is none: the old one goes on, and that is told.
    fs::write(&path, &old[..old.len() / 2]).unwrap();
    go_on(&mut || fs::read_to_string(&told[1]).unwrap().contains("has changed and is not taken over"));
    assert!(models().iter().all(|model| *model == sha256(&old)));
    fs::write(&path, changed(&old)).unwrap();
    go_on(&mut || models().last() == Some(&sha256(&changed(&old))));
    go_on(&mut || true);
    running.signal("TERM");
    running.wait().exits(0);
    let mut sequence = models();
    sequence.dedup();
    assert_eq!(sequence, [sha256(&old), sha256(&changed(&old))]);
    let rows = delta::read_with_python(&table).rows;
    let mut scores: BTreeMap<String, i64> = BTreeMap::new();
    rows.iter().for_each(|row| *scores.entry(row["score"].to_string()).or_default() += 1);
    let by_model = |model: &str| -> i64 {
        let infos = delta::commit_infos(&table).into_iter().filter(|info| info["models"][0]["sha256"] == sha256(model));
        infos.filter_map(|info| info["rows"]["written"].as_i64()).sum()
    };
    let mut counts: Vec<i64> = scores.into_values().collect();
    let mut expected = vec![by_model(&old), by_model(&changed(&old))];
    counts.sort_unstable();
    expected.sort_unstable();
    assert_eq!(counts, expected, "each row was scored by the model that its commit names");
    // Replaced while nothing runs: the next start tells.
    fs::write(&path, &old).unwrap();
    let again = || finish(&mut Broker::shared().flumen(dir.path(), ["run", "scored.sql", "--available-now"])).exits(0);
    topics::produce(Broker::shared(), &topic, 0, &impressions(produced..produced + 5));
    let (now, then) = (sha256(&old), sha256(&changed(&old)));
    let stderr = again().stderr;
    assert!(stderr.contains("function score: ") && stderr.contains(" has changed since version "), "{stderr}");
    assert!(stderr.contains(&format!(": sha256 {now}, it was {then}")), "{stderr}");
    assert!(!again().stderr.contains("has changed since"));
}

/// A file of models without a topic.
fn models_only(dir: &Path, path: &str) -> Finished {
    let file = format!(
        "CREATE FUNCTION click(DOUBLE, DOUBLE, DOUBLE, DOUBLE) RETURNS DOUBLE LANGUAGE XGBOOST AS '{MODEL}';
         CREATE FUNCTION shadow(DOUBLE, DOUBLE, DOUBLE, DOUBLE) RETURNS DOUBLE LANGUAGE XGBOOST AS '{path}';
         CREATE EXTERNAL TABLE rows (x DOUBLE) STORED AS CSV LOCATION 'rows.csv' OPTIONS ('format.has_header' 'true');"
    );
    fs::write(dir.join("models.sql"), file).unwrap();
    fs::write(dir.join("rows.csv"), "x\n1\n2\n").unwrap();
    let sql = "SELECT model_info('shadow') AS model, click(1, 2, 3, x) - shadow(1, 2, 3, x) AS apart FROM rows";
    finish(&mut flumen(dir, ["-o", "json", "sql", "models.sql", sql]))
}

#[test]
fn two_models_stand_side_by_side_and_a_path_may_pin_a_file() {
    let dir = workspace();
    let old = fs::read_to_string(dir.path().join(MODEL)).unwrap();
    fs::write(dir.path().join("shadow.json"), changed(&old)).unwrap();
    let pinned = |text: &str| models_only(dir.path(), &format!("shadow.json#sha256={}", sha256(text)));
    let rows = pinned(&changed(&old)).exits(0).json();
    let info = &rows[0]["model"];
    assert_eq!((&info["name"], &info["sha256"]), (&"shadow".into(), &sha256(&changed(&old)).into()));
    assert_eq!(info["features"].as_array().unwrap().len(), 4);
    assert!(rows.iter().all(|row| row["apart"].as_f64().unwrap() < -0.01), "{rows:?}");
    let refused = pinned(&old).exits(2);
    for part in ["models.sql:2:", "shadow.json: its SHA-256 is", "put that file back, or change what is expected"] {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
}

#[test]
fn spark_pipelines_say_what_spark_says() {
    // 1e-12, relative.
    agree("spark_ml", 50, 4_500.0);
}
