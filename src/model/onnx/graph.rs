//! The graph of a model: what computes what, in which order, over blocks of rows.

use std::collections::{HashMap, HashSet};

use arrow::array::Array as _;

use super::super::{Column, Feature};
use super::catalogue::build;
use super::node::Node;
use super::operator::{Inputs, Operator, Work};
use super::proto::{GraphProto, NodeProto, ValueProto};
use super::tensor::{Data, Kind, Tensor, constant};
use super::{damaged, refused};
use crate::error::{Error, Result};

/// Rows of the trial at load, which tells types, widths and costs.
pub(super) const TRIAL_ROWS: usize = 3;
/// Elements that the tensors of one row may have.
const MAX_ELEMENTS: u64 = 1 << 18;
/// Elements of the tensors of a block: they stay near.
const BLOCK_ELEMENTS: u64 = 1 << 14;
/// A block has so many rows at least and at most.
const BLOCK_ROWS: (u64, u64) = (64, 1024);
/// Rows whose columns are gathered together.
const PART_ROWS: usize = 64;
/// Whole numbers up to this are exact in the 64-bit floats in which they come.
const MAX_WHOLE: f64 = 9_007_199_254_740_992.0;
/// The name of a step that does all, which no operator has.
const WHOLE: &str = "ONNX Runtime";
/// A model may have this many features.
const MAX_FEATURES: usize = 100_000;

/// A checked graph.
#[derive(Debug)]
pub(super) struct Graph {
    inputs: Vec<Input>,
    constants: Vec<Tensor<'static>>,
    steps: Vec<Step>,
    outputs: Vec<Source>,
    slots: usize,
    /// Rows of a block.
    pub block_rows: usize,
}

/// Where a tensor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Constant(usize),
    Slot(usize),
}

/// An input of the graph: it fills the slot of its number.
#[derive(Debug)]
struct Input {
    name: String,
    kind: Kind,
    width: usize,
    /// Whether it has rows and columns, and not rows alone.
    is_matrix: bool,
    /// Whether it is a tensor. What goes into trees alone stays columns.
    is_tensor: bool,
}

#[derive(Debug)]
struct Step {
    /// The name of the operator.
    name: String,
    operator: Box<dyn Operator>,
    inputs: Vec<Option<Source>>,
    outputs: Vec<Option<usize>>,
    /// Slots that nobody looks at afterwards.
    last_uses: Vec<usize>,
}

/// What a trial has shown of an output.
pub(super) struct Trial {
    pub kind: Kind,
    /// Elements of a row.
    pub width: usize,
    /// The elements, where they are numbers.
    pub numbers: Vec<f64>,
}

/// A graph while it is made.
#[derive(Default)]
struct Draft {
    inputs: Vec<Input>,
    constants: Vec<Tensor<'static>>,
    steps: Vec<Step>,
    sources: HashMap<String, Source>,
    /// What the trial has put into the slots.
    trial: Vec<Tensor<'static>>,
}

impl Draft {
    fn tensor(&self, source: Source) -> &Tensor<'static> {
        match source {
            Source::Constant(number) => &self.constants[number],
            Source::Slot(slot) => &self.trial[slot],
        }
    }

    fn name(&mut self, name: &str, source: Source) -> Result<()> {
        match self.sources.insert(name.to_owned(), source) {
            Some(_) => Err(damaged(format!("two tensors have the name {name}"))),
            None => Ok(()),
        }
    }

    fn add_input(&mut self, value: &ValueProto) -> Result<()> {
        let fault = |text: &str| refused(format!("input {} {text}", value.name));
        let tensor = value.kind.as_ref().and_then(|kind| kind.tensor.as_ref());
        let tensor = tensor.ok_or_else(|| fault("is no tensor"))?;
        let kind =
            Kind::of(i64::from(tensor.elements)).map_err(|error| error.within(format!("input {}", value.name)))?;
        let shape = tensor.shape.as_ref().ok_or_else(|| fault("has no known shape"))?;
        let (width, is_matrix) = match &shape.dim[..] {
            [_] => (1, false),
            [_, columns] => match usize::try_from(columns.value) {
                Ok(width) if (1..=MAX_FEATURES).contains(&width) => (width, true),
                _ => return Err(fault("has no known number of columns")),
            },
            dimensions => return Err(fault(&format!("has {} dimensions", dimensions.len()))),
        };
        let features: usize = self.inputs.iter().map(|input| input.width).sum();
        if features + width > MAX_FEATURES {
            return Err(refused(format!("it has more than {MAX_FEATURES} features")));
        }
        let count = TRIAL_ROWS * width;
        let data = match kind {
            Kind::F32 => Data::F32(vec![0.0; count]),
            Kind::F64 => Data::F64(vec![0.0; count]),
            Kind::I64 => Data::I64(vec![0; count]),
            Kind::Bool => Data::Bool(vec![false; count]),
            Kind::Text => Data::Text(vec!["".into(); count]),
        };
        self.name(&value.name, Source::Slot(self.trial.len()))?;
        let input = Input { name: value.name.clone(), kind, width, is_matrix, is_tensor: true };
        self.trial.push(Tensor::new(input.shape(TRIAL_ROWS), data));
        self.inputs.push(input);
        Ok(())
    }

    fn add_node(&mut self, proto: &NodeProto, version: i64, work: &mut Work, later: &HashSet<&str>) -> Result<()> {
        let inputs = proto.input.iter().map(|name| self.source(name, later)).collect::<Result<Vec<_>>>()?;
        if proto.op_type == "Constant" && domain(proto).is_empty() {
            let [name] = &proto.output[..] else {
                return Err(damaged("it does not give one tensor"));
            };
            let tensor = of_constant(&Node::new(proto, version))?;
            self.name(name, Source::Constant(self.constants.len()))?;
            self.constants.push(tensor);
            return Ok(());
        }
        let tensors: Vec<Option<&Tensor<'static>>> =
            inputs.iter().map(|source| source.map(|source| self.tensor(source))).collect();
        let tensors = Inputs { tensors: &tensors };
        let operator = build(&Node::new(proto, version), domain(proto), &tensors)?;
        let made: Vec<Tensor<'static>> = operator.run(&tensors, work)?.into_iter().map(Tensor::into_owned).collect();
        made.iter().try_for_each(|tensor| work.take(tensor.len() as u64))?;
        let is_constant = inputs.iter().flatten().all(|source| matches!(source, Source::Constant(_)));
        let mut outputs = Vec::with_capacity(made.len());
        if proto.output.len() > made.len() {
            return Err(refused(format!("{} outputs are not covered", proto.output.len())));
        }
        for (name, tensor) in proto.output.iter().zip(made) {
            if name.is_empty() {
                outputs.push(None);
            } else if is_constant {
                self.name(name, Source::Constant(self.constants.len()))?;
                self.constants.push(tensor);
            } else {
                self.name(name, Source::Slot(self.trial.len()))?;
                outputs.push(Some(self.trial.len()));
                self.trial.push(tensor);
            }
        }
        if !is_constant {
            let name = proto.op_type.clone();
            self.steps.push(Step { name, operator, inputs, outputs, last_uses: Vec::new() });
        }
        Ok(())
    }

    /// Where the tensor of a name is; an input without a name is left out.
    fn source(&self, name: &str, later: &HashSet<&str>) -> Result<Option<Source>> {
        match self.sources.get(name) {
            Some(source) => Ok(Some(*source)),
            None if name.is_empty() => Ok(None),
            None if later.contains(name) => {
                Err(damaged(format!("it takes {name}, which a later node makes: the nodes are not in order")))
            }
            None => Err(damaged(format!("it takes {name}, which nobody makes"))),
        }
    }
}

fn domain(proto: &NodeProto) -> &str {
    if proto.domain == "ai.onnx" { "" } else { &proto.domain }
}

fn of_constant(node: &Node<'_>) -> Result<Tensor<'static>> {
    let ints = |values: &[i64]| Data::I64(values.to_vec());
    let tensor = if node.has("value_float") {
        Tensor::floats(vec![], vec![node.float("value_float")?.unwrap_or(0.0)])
    } else if node.has("value_int") {
        Tensor::new(vec![], ints(&[node.int("value_int")?.unwrap_or(0)]))
    } else if node.has("value_floats") {
        let values = node.floats("value_floats")?;
        Tensor::floats(vec![values.len()], values.to_vec())
    } else if node.has("value_ints") {
        let values = node.ints("value_ints")?;
        Tensor::new(vec![values.len()], ints(values))
    } else if node.has("value_strings") {
        let values = node.strings("value_strings")?;
        Tensor::new(vec![values.len()], Data::Text(values.into_iter().map(Into::into).collect()))
    } else {
        node.tensor("value")?.ok_or_else(|| refused("a constant without a value is not covered"))?
    };
    node.check()?;
    Ok(tensor)
}

impl Input {
    fn shape(&self, rows: usize) -> Vec<usize> {
        if self.is_matrix { vec![rows, self.width] } else { vec![rows] }
    }

    /// The tensor of a block of rows.
    fn tensor<'a>(&self, columns: &[Column<'a>], first: usize, rows: usize) -> Result<Tensor<'a>> {
        let width = self.width;
        let numbers = || columns.iter().map(|column| &column.numbers()[first..first + rows]);
        macro_rules! filled {
            ($none:expr, $of:expr) => {{
                let mut values = vec![$none; rows * width];
                // Some rows at a time, so that they stay near while the columns come.
                for (part, values) in values.chunks_mut(width * PART_ROWS).enumerate() {
                    for (at, column) in numbers().enumerate() {
                        for (row, number) in values.chunks_exact_mut(width).zip(&column[part * PART_ROWS..]) {
                            row[at] = $of(*number);
                        }
                    }
                }
                values
            }};
        }
        if matches!(self.kind, Kind::I64 | Kind::Bool) {
            for (at, column) in numbers().enumerate() {
                let is_whole = |number: &f64| number.fract() == 0.0 && number.abs() <= MAX_WHOLE;
                if let Some(row) = column.iter().position(|number| !is_whole(number)) {
                    return Err(Error::violated(format!(
                        "row {} has {} in column {} of input {}, which takes whole numbers up to 2^53; fill it in, or \
                         round it",
                        first + row + 1,
                        column[row],
                        at,
                        self.name
                    )));
                }
            }
        }
        let data = match self.kind {
            Kind::F32 => Data::F32(filled!(0.0_f32, |number: f64| number as f32)),
            Kind::F64 => Data::F64(filled!(0.0_f64, |number: f64| number)),
            Kind::I64 => Data::I64(filled!(0_i64, |number: f64| number as i64)),
            Kind::Bool => Data::Bool(filled!(false, |number: f64| number != 0.0)),
            Kind::Text => {
                let text = |column: &Column<'a>, row: usize| match column {
                    // A missing text is an empty one.
                    Column::Texts(texts) if texts.is_valid(row) => texts.value(row),
                    _ => "",
                };
                let rows = first..first + rows;
                Data::Text(rows.flat_map(|row| columns.iter().map(move |column| text(column, row).into())).collect())
            }
        };
        Ok(Tensor::new(self.shape(rows), data))
    }
}

impl Graph {
    /// Checks a graph, and tries it with rows that are made up.
    pub fn new(proto: &GraphProto, version: i64) -> Result<(Self, Vec<Trial>)> {
        if !proto.sparse_initializer.is_empty() {
            return Err(refused("sparse tensors are not covered"));
        }
        let mut draft = Draft::default();
        for tensor in &proto.initializer {
            draft.name(&tensor.name, Source::Constant(draft.constants.len()))?;
            draft.constants.push(constant(tensor)?);
        }
        for value in proto.given() {
            draft.add_input(value)?;
        }
        if draft.inputs.is_empty() {
            return Err(refused("it has no inputs"));
        }
        let later: HashSet<&str> = proto.node.iter().flat_map(|node| &node.output).map(String::as_str).collect();
        let budget = MAX_ELEMENTS * TRIAL_ROWS as u64;
        let mut work = Work::new(budget, true);
        for (number, node) in proto.node.iter().enumerate() {
            let context = || match &node.name[..] {
                "" => format!("node {number}, operator {}", node.op_type),
                name => format!("node {name}, operator {}", node.op_type),
            };
            draft.add_node(node, version, &mut work, &later).map_err(|error| error.within(context()))?;
        }
        let elements = (budget - work.left()) / TRIAL_ROWS as u64 + 1;
        let block_rows = (BLOCK_ELEMENTS / elements).clamp(BLOCK_ROWS.0, BLOCK_ROWS.1);
        Self::of(draft, proto, block_rows)
    }

    /// A graph of one step, which does all that is to be done; it is tried likewise.
    #[cfg(feature = "onnxruntime")]
    pub fn whole(proto: &GraphProto, operator: Box<dyn Operator>) -> Result<(Self, Vec<Trial>)> {
        let mut draft = Draft::default();
        for value in proto.given() {
            draft.add_input(value)?;
        }
        let inputs: Vec<Option<Source>> = (0..draft.inputs.len()).map(|slot| Some(Source::Slot(slot))).collect();
        let tensors: Vec<Option<&Tensor<'static>>> = draft.trial.iter().map(Some).collect();
        let mut work = Work::new(MAX_ELEMENTS * TRIAL_ROWS as u64, true);
        let made = operator.run(&Inputs { tensors: &tensors }, &mut work)?;
        let made: Vec<Tensor<'static>> = made.into_iter().map(Tensor::into_owned).collect();
        let mut outputs = Vec::with_capacity(made.len());
        for (value, tensor) in proto.output.iter().zip(made) {
            draft.name(&value.name, Source::Slot(draft.trial.len()))?;
            outputs.push(Some(draft.trial.len()));
            draft.trial.push(tensor);
        }
        let name = WHOLE.to_owned();
        draft.steps.push(Step { name, operator, inputs, outputs, last_uses: Vec::new() });
        Self::of(draft, proto, BLOCK_ROWS.1)
    }

    /// The graph of a draft, with what the trial has shown of its outputs.
    fn of(draft: Draft, proto: &GraphProto, block_rows: u64) -> Result<(Self, Vec<Trial>)> {
        let (mut outputs, mut trials) = (Vec::new(), Vec::new());
        for value in &proto.output {
            let source = draft.sources.get(&value.name).copied();
            let source = source.ok_or_else(|| damaged(format!("nobody makes output {}", value.name)))?;
            let tensor = draft.tensor(source);
            let rows = tensor.shape.first().copied();
            if rows != Some(TRIAL_ROWS) || matches!(source, Source::Constant(_)) {
                return Err(refused(format!("output {} has not one row for each row of the input", value.name)));
            }
            outputs.push(source);
            let numbers = match &tensor.data {
                Data::F32(numbers) => numbers.iter().map(|number| f64::from(*number)).collect(),
                Data::F64(numbers) => numbers.to_vec(),
                _ => Vec::new(),
            };
            trials.push(Trial { kind: tensor.kind(), width: tensor.width(), numbers });
        }
        let Draft { inputs, constants, steps, trial, .. } = draft;
        let mut graph = Self { inputs, constants, steps, outputs, slots: trial.len(), block_rows: block_rows as usize };
        graph.note_uses();
        Ok((graph, trials))
    }

    /// Notes which step uses a slot last, and which inputs stay columns.
    fn note_uses(&mut self) {
        let mut last = vec![None; self.slots];
        let mut only_as_columns = vec![true; self.slots];
        for (number, step) in self.steps.iter().enumerate() {
            for (at, source) in step.inputs.iter().enumerate() {
                if let Some(Source::Slot(slot)) = source {
                    last[*slot] = Some(number);
                    only_as_columns[*slot] &= at == 0 && step.operator.takes_columns();
                }
            }
            for slot in step.outputs.iter().flatten() {
                last[*slot] = last[*slot].or(Some(number));
            }
        }
        for source in &self.outputs {
            if let Source::Slot(slot) = source {
                last[*slot] = None;
                only_as_columns[*slot] = false;
            }
        }
        for (slot, number) in last.into_iter().enumerate() {
            if let Some(number) = number {
                self.steps[number].last_uses.push(slot);
            }
        }
        for (input, is_only) in self.inputs.iter_mut().zip(only_as_columns) {
            input.is_tensor = !is_only || !input.is_matrix || !matches!(input.kind, Kind::F32 | Kind::F64);
        }
    }

    /// One for each column of each input. Columns of an input of several are numbered.
    pub fn features(&self) -> Vec<Feature> {
        let mut features = Vec::new();
        for input in &self.inputs {
            for column in 0..input.width {
                let name = if input.width == 1 { input.name.clone() } else { format!("{}{column}", input.name) };
                features.push(Feature { name, is_text: input.kind == Kind::Text });
            }
        }
        features
    }

    pub fn trees(&self) -> usize {
        self.steps.iter().map(|step| step.operator.trees()).sum()
    }

    /// Whether another evaluator runs it.
    pub fn is_run_whole(&self) -> bool {
        self.steps.iter().any(|step| step.name == WHOLE)
    }

    /// The texts among the constants, lent to those who score.
    pub fn texts(&self) -> Vec<Option<Tensor<'_>>> {
        let lent = |tensor: &'_ Tensor<'static>| match tensor.kind() {
            Kind::Text => Some(tensor.len()),
            _ => None,
        };
        let lend = |tensor| lent(tensor).map(|count| Tensor::new(tensor.shape.clone(), tensor.data.lend(0..count)));
        self.constants.iter().map(lend).collect()
    }

    /// The outputs of a block of rows.
    pub fn run<'a>(
        &'a self,
        columns: &[Column<'a>],
        texts: &[Option<Tensor<'a>>],
        first: usize,
        rows: usize,
    ) -> Result<Vec<Tensor<'a>>> {
        let mut work = Work::new(MAX_ELEMENTS * BLOCK_ROWS.0 * 2, false);
        let mut slots: Vec<Option<Tensor<'a>>> = vec![None; self.slots];
        let mut column = 0;
        for (input, slot) in self.inputs.iter().zip(&mut slots) {
            let own = columns.get(column..column + input.width).unwrap_or(&[]);
            column += input.width;
            *slot = Some(if input.is_tensor {
                input.tensor(own, first, rows)?
            } else {
                let own = own.iter().map(|column| part(column, first, rows)).collect();
                Tensor::new(input.shape(rows), Data::Columns(own, input.kind))
            });
        }
        for step in &self.steps {
            let made = {
                let find = |source: &Option<Source>| match source {
                    Some(Source::Constant(number)) => Some(texts[*number].as_ref().unwrap_or(&self.constants[*number])),
                    Some(Source::Slot(slot)) => slots[*slot].as_ref(),
                    None => None,
                };
                let tensors: Vec<Option<&Tensor<'a>>> = step.inputs.iter().map(find).collect();
                let made = step.operator.run(&Inputs { tensors: &tensors }, &mut work);
                made.map_err(|error| error.within(format_args!("operator {}", step.name)))?
            };
            for (tensor, slot) in made.into_iter().zip(&step.outputs) {
                work.take(tensor.len() as u64)?;
                if let Some(slot) = slot {
                    slots[*slot] = Some(tensor);
                }
            }
            step.last_uses.iter().for_each(|slot| slots[*slot] = None);
        }
        let mut outputs = Vec::with_capacity(self.outputs.len());
        for (number, source) in self.outputs.iter().enumerate() {
            let is_last = !self.outputs[number + 1..].contains(source);
            let tensor = match source {
                Source::Constant(number) => Some(self.constants[*number].clone()),
                Source::Slot(slot) if is_last => slots[*slot].take(),
                Source::Slot(slot) => slots[*slot].clone(),
            };
            outputs.push(tensor.ok_or_else(|| damaged("an output is not there"))?);
        }
        Ok(outputs)
    }

    /// The names of the classes that an output speaks of, and whether it surely speaks of classes.
    pub fn labels(&self, output: usize) -> Option<(Vec<String>, bool)> {
        let mut source = *self.outputs.get(output)?;
        // Each turn goes to an earlier step.
        loop {
            let Source::Slot(slot) = source else { return None };
            let step = self.steps.iter().find(|step| step.outputs.contains(&Some(slot)))?;
            if let Some(labels) = step.operator.labels() {
                return Some((labels, step.name != "LabelEncoder"));
            }
            let first = step.inputs.first().copied().flatten()?;
            match (&step.name[..], first) {
                ("ArrayFeatureExtractor" | "Gather", Source::Constant(number)) => {
                    return match &self.constants[number].data {
                        Data::I64(values) => Some((values.iter().map(i64::to_string).collect(), true)),
                        Data::Text(values) => Some((values.iter().map(|text| text.to_string()).collect(), true)),
                        _ => None,
                    };
                }
                (
                    "Identity"
                    | "Cast"
                    | "Reshape"
                    | "Flatten"
                    | "Squeeze"
                    | "Unsqueeze"
                    | "Transpose"
                    | "ArrayFeatureExtractor"
                    | "Gather"
                    | "Normalizer"
                    | "Mul",
                    _,
                ) => source = first,
                _ => return None,
            }
        }
    }
}

fn part<'a>(column: &Column<'a>, first: usize, rows: usize) -> &'a [f64] {
    match column {
        Column::Numbers(numbers) => &numbers[first..first + rows],
        Column::Texts(_) => &[],
    }
}
