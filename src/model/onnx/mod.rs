//! ONNX models of trees, linear models and what converters put around them.
//!
//! Format: <https://onnx.ai/onnx/repo-docs/IR.html> and <https://onnx.ai/onnx/operators/>, of which some operators are
//! covered. Results are those of ONNX Runtime's CPU kernels: in f32, in their order of sums. A file may be cut off or
//! hostile: it is checked, and tried with rows that are made up, before the first row is scored.

mod arithmetic;
mod broadcast;
mod catalogue;
mod category;
mod choice;
mod convert;
mod encoder;
mod ensemble;
mod graph;
mod labels;
mod linear;
mod node;
mod operator;
mod product;
mod proto;
mod reduction;
mod rows;
#[cfg(feature = "onnxruntime")]
mod runtime;
mod shape;
mod svm;
mod tensor;
mod transform;
mod trees;

use std::collections::HashMap;

use self::graph::{Graph, Trial};
use self::proto::{GraphProto, ModelProto};
use self::tensor::{Data, Kind, Tensor};
use super::{About, Column, Model, Output, Scores};
use crate::error::{Error, Result};

/// What a model gives may have this many numbers a row.
const MAX_WIDTH: usize = 1 << 16;

/// A model of ONNX.
#[derive(Debug)]
pub(super) struct OnnxModel {
    about: About,
    graph: Graph,
    result: Meaning,
}

/// What the outputs of a graph mean.
#[derive(Debug)]
enum Meaning {
    /// All numbers of all outputs.
    Numbers,
    /// The label of a class, and the probabilities of all.
    Classes { label: usize, probabilities: Option<usize>, places: Places },
}

/// Where the label of a class is among all.
#[derive(Debug)]
struct Places {
    /// How many there are, where they are the numbers from zero on.
    counted: usize,
    numbers: HashMap<i64, usize>,
    texts: HashMap<String, usize>,
}

/// The error for a file that is damaged.
fn damaged(what: impl Into<String>) -> Error {
    ended(what.into(), "; export the model again")
}

/// The error for a tensor of a type that an operator has nothing for.
fn other_type() -> Error {
    damaged("it gets a tensor of a type that it does not take")
}

/// The same for two tensors.
fn other_types() -> Error {
    damaged("it gets tensors of two types, or of one that it does not take")
}

/// The first of the biggest.
fn first_biggest<T: PartialOrd>(row: &[T]) -> usize {
    (1..row.len()).fold(0, |best, at| if row[at] > row[best] { at } else { best })
}

/// What to do with a model that is not covered.
const ELSEWHERE: &str = "; export a model of trees or linear models, or build with the cargo feature onnxruntime";

/// The error for what is not covered.
fn refused(what: impl Into<String>) -> Error {
    ended(what.into(), ELSEWHERE)
}

/// A message says once what to do.
fn ended(what: String, end: &str) -> Error {
    Error::invalid(if what.contains("; ") { what } else { what + end })
}

impl Model for OnnxModel {
    fn about(&self) -> &About {
        &self.about
    }

    fn score(&self, columns: &[Column<'_>], rows: usize) -> Result<Scores> {
        self.about.check(columns, rows)?;
        let width = self.about.output.width();
        let mut scores =
            Scores { predictions: Vec::with_capacity(rows), values: Vec::with_capacity(rows.saturating_mul(width)) };
        let texts = self.graph.texts();
        for first in (0..rows).step_by(self.graph.block_rows) {
            let count = self.graph.block_rows.min(rows - first);
            let outputs = self.graph.run(columns, &texts, first, count)?;
            self.tell(&outputs, count, &mut scores)?;
        }
        Ok(scores)
    }
}

impl OnnxModel {
    /// Makes predictions of the outputs of a block.
    fn tell(&self, outputs: &[Tensor<'_>], rows: usize, scores: &mut Scores) -> Result<()> {
        if outputs.iter().any(|tensor| tensor.shape.first() != Some(&rows)) {
            return Err(damaged("an output has not one row for each row of the input"));
        }
        match &self.result {
            Meaning::Classes { label, probabilities, places } => {
                places.find(&outputs[*label].data, &mut scores.predictions)?;
                if let Some(probabilities) = probabilities {
                    add(&outputs[*probabilities].data, &mut scores.values)?;
                }
            }
            Meaning::Numbers => match (outputs, self.about.output.width()) {
                ([output], 0) => add(&output.data, &mut scores.predictions)?,
                (outputs, width) => {
                    let first = scores.values.len();
                    numbers(outputs, rows, &mut scores.values)?;
                    scores.predictions.extend(scores.values[first..].iter().step_by(width.max(1)));
                }
            },
        }
        let width = self.about.output.width();
        let is_whole = scores.values.len() == scores.predictions.len().saturating_mul(width);
        if is_whole { Ok(()) } else { Err(damaged("an output has another width than at first")) }
    }
}

/// Adds the elements of a tensor.
fn add(data: &Data<'_>, values: &mut Vec<f64>) -> Result<()> {
    match data {
        Data::F32(numbers) => values.extend(numbers.iter().map(|value| f64::from(*value))),
        Data::F64(numbers) => values.extend_from_slice(numbers),
        Data::I64(numbers) => values.extend(numbers.iter().map(|value| *value as f64)),
        Data::Bool(answers) => values.extend(answers.iter().map(|answer| f64::from(u8::from(*answer)))),
        Data::Text(_) | Data::Columns(..) => return Err(refused("an output of texts is not covered")),
    }
    Ok(())
}

/// Adds the elements of tensors side by side.
fn numbers(outputs: &[Tensor<'_>], rows: usize, values: &mut Vec<f64>) -> Result<()> {
    if let [output] = outputs {
        return add(&output.data, values);
    }
    let mut all = Vec::with_capacity(outputs.len());
    for output in outputs {
        let mut own = Vec::with_capacity(output.len());
        add(&output.data, &mut own)?;
        all.push((own, output.width()));
    }
    for row in 0..rows {
        for (own, width) in &all {
            values.extend_from_slice(&own[row * width..(row + 1) * width]);
        }
    }
    Ok(())
}

impl Places {
    fn of(labels: &[String]) -> Self {
        let number = |(at, label): (usize, &String)| Some((label.parse().ok()?, at));
        let is_counted = labels.iter().enumerate().all(|(at, label)| *label == at.to_string());
        Self {
            counted: if is_counted { labels.len() } else { 0 },
            numbers: labels.iter().enumerate().filter_map(number).collect(),
            texts: labels.iter().cloned().enumerate().map(|(at, label)| (label, at)).collect(),
        }
    }

    /// Adds the places of labels.
    fn find(&self, labels: &Data<'_>, predictions: &mut Vec<f64>) -> Result<()> {
        let place = |found: Option<&usize>, label: &dyn std::fmt::Display| match found {
            Some(place) => Ok(*place as f64),
            None => Err(Error::violated(format!(
                "the model gives label {label}, which is none of its classes; export the model again"
            ))),
        };
        match labels {
            Data::I64(labels) => {
                let mut last = None;
                for label in labels {
                    if usize::try_from(*label).is_ok_and(|label| label < self.counted) {
                        predictions.push(*label as f64);
                        continue;
                    }
                    let found = match last {
                        Some((known, found)) if known == label => found,
                        _ => place(self.numbers.get(label), label)?,
                    };
                    last = Some((label, found));
                    predictions.push(found);
                }
            }
            Data::Text(labels) => {
                for label in labels {
                    predictions.push(place(self.texts.get(label.as_ref()), label)?);
                }
            }
            Data::Bool(labels) => predictions.extend(labels.iter().map(|label| f64::from(u8::from(*label)))),
            Data::F32(_) | Data::F64(_) | Data::Columns(..) => return Err(damaged("the labels are no labels")),
        }
        Ok(())
    }
}

/// Reads a model from the bytes of its file.
///
/// # Errors
/// `Invalid` when the bytes are no ONNX model, are damaged, or have an operator that is not covered.
pub(super) fn parse(bytes: &[u8], sha256: String) -> Result<OnnxModel> {
    let model = proto::read(bytes)?;
    let graph = model.graph.as_ref().ok_or_else(|| damaged("it has no graph"))?;
    let version = model.opset_import.iter().filter(|set| matches!(&set.domain[..], "" | "ai.onnx"));
    let version = version.map(|set| set.version).max().unwrap_or(i64::MAX);
    let objective = objective(graph);
    let (graph, trials) = evaluator(bytes, graph, version)?;
    let (result, output) = meaning(&graph, &trials)?;
    let kind = kind(&model) + if graph.is_run_whole() { ", by ONNX Runtime" } else { "" };
    let about = About { sha256, kind, objective, trees: graph.trees(), features: graph.features(), output };
    let model = OnnxModel { about, graph, result };
    rows::check_alone(&model)?;
    Ok(model)
}

/// What evaluates a graph: our own operators, or where they do not cover it ONNX Runtime.
#[cfg(feature = "onnxruntime")]
fn evaluator(bytes: &[u8], graph: &GraphProto, version: i64) -> Result<(Graph, Vec<Trial>)> {
    Graph::new(graph, version).or_else(|error| {
        let Some(own) = error.message().strip_suffix(ELSEWHERE) else { return Err(error) };
        let whole = runtime::Runtime::new(bytes, graph).and_then(|runtime| Graph::whole(graph, Box::new(runtime)));
        whole.map_err(|error| Error::invalid(format!("{own}, and {}", error.message())))
    })
}

#[cfg(not(feature = "onnxruntime"))]
fn evaluator(_: &[u8], graph: &GraphProto, version: i64) -> Result<(Graph, Vec<Trial>)> {
    Graph::new(graph, version)
}

fn kind(model: &ModelProto) -> String {
    let producer = format!("{} {}", model.producer_name, model.producer_version);
    match producer.trim() {
        "" => format!("ONNX, ir {}", model.ir_version),
        producer => format!("ONNX, ir {}, {producer}", model.ir_version),
    }
}

/// The last operator that is a model, else the last one of `ai.onnx.ml`, else the last one.
fn objective(graph: &GraphProto) -> String {
    let is_model = |name: &str| ["TreeEnsemble", "Linear", "SVM"].iter().any(|model| name.starts_with(model));
    let last = |test: &dyn Fn(&proto::NodeProto) -> bool| graph.node.iter().rev().find(|node| test(node));
    let found = last(&|node| is_model(&node.op_type))
        .or_else(|| last(&|node| node.domain == "ai.onnx.ml" && node.op_type != "ZipMap"))
        .or_else(|| last(&|_| true));
    found.map_or_else(String::new, |node| node.op_type.clone())
}

impl Trial {
    /// Whether its numbers may be probabilities: margins and distances, which stand at the same place, are not from 0
    /// to 1, nor 1 together.
    fn are_shares(&self, have_to_be_whole: bool) -> bool {
        self.numbers.chunks_exact(self.width.max(1)).all(|row| {
            let sum: f64 = row.iter().sum();
            let is_share = row.iter().all(|number| (-1e-6..=1.000_001).contains(number));
            sum.is_nan() || is_share && ((sum - 1.0).abs() < 1e-3 || !have_to_be_whole)
        })
    }
}

/// What the outputs mean: a label with probabilities, or numbers.
fn meaning(graph: &Graph, trials: &[Trial]) -> Result<(Meaning, Output)> {
    let is_label = |trial: &Trial| trial.width == 1 && matches!(trial.kind, Kind::I64 | Kind::Text | Kind::Bool);
    let is_number = |trial: &Trial| matches!(trial.kind, Kind::F32 | Kind::F64);
    if let Some(label) = trials.iter().position(is_label) {
        let scores: Vec<usize> = (0..trials.len()).filter(|output| is_number(&trials[*output])).collect();
        let numbered = |count: usize| (0..count).map(|class| class.to_string()).collect::<Vec<String>>();
        let named = graph.labels(label);
        let is_named = named.is_some();
        let known = match named {
            // An encoder alone says nothing of classes.
            Some((_, false)) if scores.is_empty() && trials[label].kind != Kind::Text => None,
            Some((labels, _)) => Some(labels),
            None => scores.iter().map(|output| trials[*output].width).find(|width| *width > 1).map(numbered),
        };
        if let Some(known) = known {
            let are_probabilities =
                |output: &usize| trials[*output].width == known.len() && trials[*output].are_shares(!is_named);
            let probabilities = scores.into_iter().find(are_probabilities);
            // A ZipMap may name the columns in another order.
            let own = probabilities.and_then(|output| graph.labels(output)).map(|(labels, _)| labels);
            let labels = own.filter(|own| own.len() == known.len()).unwrap_or(known);
            let places = Places::of(&labels);
            let output = Output::Classes { labels, has_probabilities: probabilities.is_some() };
            return Ok((Meaning::Classes { label, probabilities, places }, output));
        }
    }
    if trials.iter().any(|trial| trial.kind == Kind::Text) {
        return Err(refused("an output of texts that are no classes is not covered"));
    }
    match trials.iter().try_fold(0_usize, |sum, trial| sum.checked_add(trial.width)) {
        Some(1) => Ok((Meaning::Numbers, Output::Number)),
        Some(width @ 2..=MAX_WIDTH) => Ok((Meaning::Numbers, Output::Numbers(width))),
        Some(0) => Err(refused("it gives nothing")),
        _ => Err(refused(format!("it gives more than {MAX_WIDTH} numbers a row"))),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use arrow::array::StringArray;
    use proptest::prelude::*;
    use prost::Message as _;

    use super::proto::{NodeProto, OperatorSetProto, TensorProto, TypeProto, ValueProto};
    use super::*;

    fn fixtures() -> Vec<(String, Vec<u8>)> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/onnx");
        let mut found: Vec<(String, Vec<u8>)> = std::fs::read_dir(root)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.display().to_string(), std::fs::read(path.join("model.onnx")).unwrap()))
            .collect();
        found.sort();
        found
    }

    /// Scores some rows, if the model can be read.
    fn score(bytes: &[u8]) -> Result<Scores> {
        let model = parse(bytes, String::new())?;
        let numbers = [f64::NAN, 0.0, -1.5, 1e300, f64::NEG_INFINITY];
        let texts = StringArray::from(vec![None, Some(""), Some("Oslo"), Some("tablet"), Some("7")]);
        let column = |feature: &super::super::Feature| match feature.is_text {
            true => Column::Texts(&texts),
            false => Column::Numbers(&numbers),
        };
        let columns: Vec<Column<'_>> = model.about().features.iter().map(column).collect();
        let scores = model.score(&columns, 5)?;
        assert_eq!(scores.predictions.len(), 5);
        assert_eq!(scores.values.len(), 5 * model.about().output.width());
        Ok(scores)
    }

    #[test]
    fn zero_rows_are_fine() {
        for (name, bytes) in fixtures() {
            let model = parse(&bytes, String::new()).unwrap();
            let texts = StringArray::from(Vec::<&str>::new());
            let column = |feature: &super::super::Feature| match feature.is_text {
                true => Column::Texts(&texts),
                false => Column::Numbers(&[]),
            };
            let columns: Vec<Column<'_>> = model.about().features.iter().map(column).collect();
            assert_eq!(model.score(&columns, 0).unwrap(), Scores::default(), "{name}");
        }
    }

    #[test]
    fn blocks_give_what_rows_alone_give() {
        for (name, bytes) in fixtures() {
            let model = parse(&bytes, String::new()).unwrap();
            let count = model.about().features.len();
            if model.about().features.iter().any(|feature| feature.is_text) || name.contains("binarizer") {
                continue;
            }
            let all: Vec<Vec<f64>> = (0..count)
                .map(|column| (0..2500).map(|row| f64::from((row * 7 + column as i32 * 13) % 41) / 8.0 - 2.0).collect())
                .collect();
            let columns: Vec<Column<'_>> = all.iter().map(|column| Column::Numbers(column)).collect();
            let scores = model.score(&columns, 2500).unwrap();
            for row in [0, 15, 16, 1023, 1024, 2499] {
                let columns: Vec<Column<'_>> = all.iter().map(|column| Column::Numbers(&column[row..=row])).collect();
                let one = model.score(&columns, 1).unwrap();
                assert_eq!(one.predictions[0].to_bits(), scores.predictions[row].to_bits(), "{name} row {row}");
                let width = model.about().output.width();
                let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&one.values), bits(&scores.values[row * width..][..width]), "{name} row {row}");
            }
        }
    }

    #[test]
    fn files_that_are_cut_off_are_refused_or_score() {
        for (_, bytes) in fixtures() {
            let step = 1 + bytes.len() / 400;
            for length in (0..bytes.len()).step_by(step).chain(bytes.len().saturating_sub(40)..bytes.len()) {
                let _ = score(&bytes[..length]);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn damaged_files_are_refused_or_score(
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            for (_, mut bytes) in fixtures() {
                for (at, byte) in &flips {
                    let at = at.index(bytes.len());
                    bytes[at] = *byte;
                }
                let _ = score(&bytes);
            }
        }
    }

    /// Damages one thing in a graph, so that the message itself stays whole.
    fn damage(graph: &mut GraphProto, kind: u8, at: &[prop::sample::Index; 3], number: i64) {
        fn list<T: Clone>(list: &mut Vec<T>, at: &prop::sample::Index, number: i64, value: T) {
            if list.is_empty() {
                list.push(value);
                return;
            }
            let at = at.index(list.len());
            match number & 3 {
                0 => drop(list.remove(at)),
                1 => list.insert(at, value),
                _ => list[at] = value,
            }
        }
        let values = number as f32;
        match kind {
            0 if !graph.initializer.is_empty() => {
                let tensor = at[0].get_mut(&mut graph.initializer);
                match at[1].index(5) {
                    0 => list(&mut tensor.dims, &at[2], number >> 2, number),
                    1 => tensor.data_type = (number & 15) as i32,
                    2 => list(&mut tensor.raw_data, &at[2], 3, number as u8),
                    3 => list(&mut tensor.int64_data, &at[2], 3, number),
                    _ => list(&mut tensor.float_data, &at[2], 3, values),
                }
            }
            1 => list(&mut graph.node, &at[0], number & 1, NodeProto::default()),
            2 if !graph.node.is_empty() => graph.node.rotate_left(1),
            3..=5 if !graph.node.is_empty() => {
                let mut names: Vec<String> = graph.node.iter().flat_map(|node| node.output.clone()).collect();
                names.extend(graph.input.iter().map(|input| input.name.clone()));
                let operators: Vec<(String, String)> =
                    graph.node.iter().map(|node| (node.op_type.clone(), node.domain.clone())).collect();
                let node = at[0].get_mut(&mut graph.node);
                match kind {
                    3 => list(&mut node.input, &at[1], number, at[2].get(&names).clone()),
                    4 => (node.op_type, node.domain) = at[1].get(&operators).clone(),
                    _ => list(&mut node.output, &at[1], number, format!("new{number}")),
                }
            }
            _ => {
                let mut all: Vec<&mut proto::AttributeProto> =
                    graph.node.iter_mut().flat_map(|node| &mut node.attribute).collect();
                if all.is_empty() {
                    return;
                }
                let place = at[0].index(all.len());
                let attribute = &mut all[place];
                match attribute.kind {
                    1 => attribute.f = values,
                    2 => attribute.i = number,
                    6 => list(&mut attribute.floats, &at[1], number, if kind & 1 == 0 { f32::NAN } else { values }),
                    7 => list(&mut attribute.ints, &at[1], number >> 2, number),
                    8 => list(&mut attribute.strings, &at[1], number, b"LEAF".to_vec()),
                    _ => attribute.s.clear(),
                }
            }
        }
    }

    fn numbers_of_note() -> impl Strategy<Value = i64> {
        let notable = [0, 1, -1, 2, 3, 5, 255, 1 << 20, 1 << 31, 1 << 40, i64::MAX, i64::MIN, i64::MAX - 1];
        prop_oneof![prop::sample::select(notable.to_vec()), -8_i64..40, any::<i64>()]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn damaged_graphs_are_refused_or_score(
            faults in prop::collection::vec((0_u8..14, any::<[prop::sample::Index; 3]>(), numbers_of_note()), 1..3),
        ) {
            for (_, bytes) in fixtures() {
                let mut model = proto::read(&bytes).unwrap();
                for (kind, at, number) in &faults {
                    damage(model.graph.as_mut().unwrap(), *kind, at, *number);
                }
                let _ = score(&model.encode_to_vec());
            }
        }
    }

    fn model(nodes: Vec<NodeProto>, initializer: Vec<TensorProto>, outputs: &[&str]) -> Vec<u8> {
        let dim = |value| proto::DimensionProto { value };
        let shape = Some(proto::ShapeProto { dim: vec![dim(0), dim(2)] });
        let kind = Some(TypeProto { tensor: Some(proto::TensorTypeProto { elements: 1, shape }) });
        let output = outputs.iter().map(|name| ValueProto { name: (*name).to_owned(), kind: None }).collect();
        let input = vec![ValueProto { name: "X".to_owned(), kind }];
        let graph = GraphProto { node: nodes, initializer, input, output, sparse_initializer: Vec::new() };
        let opset_import = vec![OperatorSetProto { domain: String::new(), version: 18 }];
        let (producer_name, producer_version) = ("test".to_owned(), "1".to_owned());
        ModelProto { ir_version: 9, producer_name, producer_version, graph: Some(graph), opset_import }.encode_to_vec()
    }

    fn node(operator: &str, inputs: &[&str], output: &str) -> NodeProto {
        let input = inputs.iter().map(|name| (*name).to_owned()).collect();
        NodeProto { op_type: operator.to_owned(), input, output: vec![output.to_owned()], ..Default::default() }
    }

    fn fault(bytes: &[u8]) -> String {
        parse(bytes, String::new()).unwrap_err().to_string()
    }

    #[test]
    fn a_graph_of_plain_operators_says_what_it_is() {
        let made = parse(&model(vec![node("Neg", &["X"], "Y")], vec![], &["Y"]), "ab".to_owned()).unwrap();
        let about = made.about();
        assert_eq!(about.summary(), "ONNX, ir 9, test 1, Neg, 2 numbers, sha256 ab");
        assert_eq!(about.features.iter().map(|feature| &feature.name[..]).collect::<Vec<_>>(), ["X0", "X1"]);
        let scores = made.score(&[Column::Numbers(&[1.0, 2.0]), Column::Numbers(&[3.0, 4.0])], 2).unwrap();
        assert_eq!(scores.values, [-1.0, -3.0, -2.0, -4.0]);
        assert_eq!(scores.predictions, [-1.0, -2.0]);
    }

    #[test]
    fn what_is_not_covered_is_named() {
        let end = if cfg!(feature = "onnxruntime") { ", and ONNX Runtime" } else { ELSEWHERE };
        let conv = model(vec![node("Conv", &["X"], "Y")], vec![], &["Y"]);
        let is = |fault: String, start: &str| assert!(fault.starts_with(&format!("{start}{end}")), "{fault}");
        is(fault(&conv), "node 0, operator Conv: it is not covered");
        let mut other = node("Neg", &["X"], "Y");
        other.domain = "com.microsoft".to_owned();
        let other = fault(&model(vec![other], vec![], &["Y"]));
        is(other, "node 0, operator Neg: it is of com.microsoft, which is not covered");
        let mut alpha = node("Neg", &["X"], "Y");
        alpha.attribute.push(proto::AttributeProto { name: "alpha".to_owned(), kind: 1, ..Default::default() });
        let alpha = fault(&model(vec![alpha], vec![], &["Y"]));
        is(alpha, "node 0, operator Neg: attribute alpha is not covered");
    }

    #[test]
    fn a_graph_whose_rows_depend_on_each_other_is_refused() {
        let axes = TensorProto { name: "axes".to_owned(), dims: vec![1], data_type: 7, ..Default::default() };
        let axes = |axis| vec![TensorProto { int64_data: vec![axis], ..axes.clone() }];
        let nodes = vec![node("ReduceMax", &["X", "axes"], "most"), node("Sub", &["X", "most"], "Y")];
        let message = fault(&model(nodes.clone(), axes(0), &["Y"]));
        assert!(message.starts_with("what it says of a row depends on the rows beside it: "), "{message}");
        parse(&model(nodes, axes(1), &["Y"]), String::new()).unwrap();
    }

    #[test]
    fn a_graph_that_is_none_is_refused() {
        let end = "; export the model again";
        let unknown = fault(&model(vec![node("Neg", &["Z"], "Y")], vec![], &["Y"]));
        assert_eq!(unknown, format!("node 0, operator Neg: it takes Z, which nobody makes{end}"));
        let swapped = vec![node("Neg", &["Z"], "Y"), node("Neg", &["X"], "Z")];
        assert!(fault(&model(swapped, vec![], &["Y"])).contains("the nodes are not in order"));
        let twice = vec![node("Neg", &["X"], "Y"), node("Neg", &["X"], "Y")];
        assert!(fault(&model(twice, vec![], &["Y"])).contains("two tensors have the name Y"));
        let nothing = fault(&model(vec![node("Neg", &["X"], "Y")], vec![], &["W"]));
        assert_eq!(nothing, format!("nobody makes output W{end}"));
        assert_eq!(fault(&ModelProto::default().encode_to_vec()), format!("it is empty{end}"));
    }

    #[test]
    fn a_graph_that_makes_too_much_is_refused() {
        let doubled =
            |step: usize| node("Concat", &[&format!("t{step}"), &format!("t{step}")], &format!("t{}", step + 1));
        let mut nodes = vec![node("Neg", &["X"], "t0")];
        nodes.extend((0..60).map(doubled));
        let message = fault(&model(nodes, vec![], &["t60"]));
        assert!(message.contains("it makes too many numbers of a row"), "{message}");
        let shape =
            TensorProto { dims: vec![2], data_type: 7, int64_data: vec![1 << 30, 1 << 30], ..Default::default() };
        let shape = TensorProto { name: "shape".to_owned(), ..shape };
        let message = fault(&model(vec![node("ConstantOfShape", &["shape"], "Y")], vec![shape], &["Y"]));
        assert!(message.contains("too big"), "{message}");
    }

    #[test]
    fn labels_are_found() {
        let places = Places::of(&["3".to_owned(), "7".to_owned()]);
        let mut found = Vec::new();
        places.find(&Data::I64(vec![7, 7, 3]), &mut found).unwrap();
        places.find(&Data::Text(vec!["3".into()]), &mut found).unwrap();
        assert_eq!(found, [1.0, 1.0, 0.0, 0.0]);
        let error = places.find(&Data::I64(vec![5]), &mut found).unwrap_err().to_string();
        assert_eq!(error, "the model gives label 5, which is none of its classes; export the model again");
    }
}
