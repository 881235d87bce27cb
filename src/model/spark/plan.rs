//! From the stages of a pipeline to the steps that a block of rows goes through: which columns the predictor needs, who
//! makes them, and which are the model's features.

use std::collections::{HashMap, HashSet};

use super::super::about::Feature;
use super::directory::Stage;
use super::vector::{Block, MAX_DENSE, Place, Step};
use crate::error::Result;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A number a row.
    Number,
    /// Words.
    Words,
    /// A vector a row.
    Vector(Shape),
}

/// What is known of a column's vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// How many numbers they have.
    pub width: usize,
    /// Whether we keep them sparse.
    pub is_sparse: bool,
    /// How Spark keeps them.
    pub form: Form,
}

/// How Spark keeps a vector. Some stages do not look at zeros that are not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// With all its zeros.
    Dense,
    /// Without zeros.
    Sparse,
    /// Whichever is smaller.
    Compressed,
}

/// A column with vectors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Vectors {
    /// Which of those that stages make.
    pub column: usize,
    /// What is known of them.
    pub shape: Shape,
}

/// What is done for a pipeline, as far as it is known.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// What the model takes.
    pub features: Vec<Feature>,
    /// What is done with them.
    pub steps: Vec<Box<dyn Step>>,
    /// How many columns the steps make.
    pub made: usize,
    columns: HashMap<String, (usize, Kind)>,
    inputs: HashMap<String, usize>,
    raw_vectors: HashSet<String>,
    needed: HashSet<String>,
}

/// Puts columns side by side: a vector that the pipeline takes from outside is so many features.
#[derive(Debug)]
struct Gather {
    inputs: Vec<usize>,
    column: usize,
}

impl Plan {
    /// The plan of a predictor that needs these columns.
    pub fn new(needed: HashSet<String>) -> Self {
        Self { needed, ..Self::default() }
    }

    /// Whether the predictor needs a column.
    pub fn is_needed(&self, column: &str) -> bool {
        self.needed.contains(column)
    }

    /// A column of numbers.
    pub fn number(&mut self, stage: &Stage, name: &str) -> Result<Place> {
        match self.columns.get(name) {
            Some((column, Kind::Number)) => Ok(Place::Made(*column)),
            Some(_) => {
                Err(stage.fault(format_args!("column {name} has no numbers; save the pipeline that was fitted")))
            }
            None => self.input(stage, name, false).map(Place::Input),
        }
    }

    /// A column of text that the model takes.
    pub fn text(&mut self, stage: &Stage, name: &str) -> Result<usize> {
        if self.columns.contains_key(name) {
            return Err(stage.fault(format_args!(
                "it reads column {name}, which another stage makes; index or split only columns that come from outside"
            )));
        }
        self.input(stage, name, true)
    }

    /// A column of words that a stage has made.
    pub fn words(&self, stage: &Stage, name: &str) -> Result<usize> {
        match self.columns.get(name) {
            Some((column, Kind::Words)) => Ok(*column),
            _ => Err(stage.fault(format_args!(
                "column {name} is a list of words that no stage makes; put a Tokenizer into the pipeline"
            ))),
        }
    }

    /// Whether a stage makes vectors in this column.
    pub fn is_vector(&self, name: &str) -> bool {
        matches!(self.columns.get(name), Some((_, Kind::Vector(_))))
    }

    /// A column of vectors, of so many numbers if the stage knows it.
    pub fn vectors(&mut self, stage: &Stage, name: &str, width: Option<usize>) -> Result<Vectors> {
        let vectors = match self.columns.get(name) {
            Some((column, Kind::Vector(shape))) => Vectors { column: *column, shape: *shape },
            Some(_) => return Err(stage.fault(format_args!("column {name} has no vectors; save the model again"))),
            None => self.raw_vectors(stage, name, width)?,
        };
        match width {
            Some(width) if width != vectors.shape.width => Err(stage.fault(format_args!(
                "it takes vectors of {width} numbers and column {name} has {}; if a column of a VectorAssembler is a \
                 vector, put its numbers there one by one, else save the model again",
                vectors.shape.width
            ))),
            _ => Ok(vectors),
        }
    }

    /// Vectors from outside: a feature for each number.
    fn raw_vectors(&mut self, stage: &Stage, name: &str, width: Option<usize>) -> Result<Vectors> {
        let remedy = "assemble it by a VectorAssembler in the pipeline";
        let Some(width) = width else {
            return Err(stage.fault(format_args!("how long the vectors of column {name} are is not known; {remedy}")));
        };
        if width > MAX_DENSE {
            return Err(stage.fault(format_args!(
                "column {name} has vectors of {width} numbers, more than {MAX_DENSE} arguments; {remedy}"
            )));
        }
        if self.inputs.contains_key(name) {
            return Err(stage.fault(format_args!("column {name} is a number and a vector; save the model again")));
        }
        let names = (0..width).map(|at| format!("{name}[{at}]"));
        let inputs = names.map(|name| self.input(stage, &name, false)).collect::<Result<_>>()?;
        let shape = Shape { width, is_sparse: false, form: Form::Dense };
        let column = self.make(stage, name, Kind::Vector(shape))?;
        self.raw_vectors.insert(name.to_owned());
        self.steps.push(Box::new(Gather { inputs, column }));
        Ok(Vectors { column, shape })
    }

    /// What a stage made in a column; none if it comes from outside.
    pub fn made(&self, name: &str) -> Option<(usize, Kind)> {
        self.columns.get(name).copied()
    }

    /// A column that the model takes.
    fn input(&mut self, stage: &Stage, name: &str, is_text: bool) -> Result<usize> {
        if let Some(input) = self.inputs.get(name) {
            return match self.features.get(*input) {
                Some(feature) if feature.is_text == is_text => Ok(*input),
                _ => Err(stage.fault(format_args!(
                    "column {name} is text for one stage and a number for another; make two columns of it"
                ))),
            };
        }
        let feature = if is_text { Feature::text(name) } else { Feature::number(name) };
        self.features.push(feature);
        self.inputs.insert(name.to_owned(), self.features.len() - 1);
        Ok(self.features.len() - 1)
    }

    /// A new column, of this name from now on.
    pub fn make(&mut self, stage: &Stage, name: &str, kind: Kind) -> Result<usize> {
        let column = self.made;
        if self.inputs.contains_key(name) || self.columns.insert(name.to_owned(), (column, kind)).is_some() {
            return Err(stage.fault(format_args!("there is a column {name} before it; save the model again")));
        }
        self.made += 1;
        Ok(column)
    }

    /// Adds what a stage does.
    pub fn push(&mut self, step: impl Step + 'static) {
        self.steps.push(Box::new(step));
    }
}

impl Step for Gather {
    fn run(&self, block: &mut Block<'_>) -> Result<()> {
        block.make(self.column, |block, out, _| {
            let values = out.zeros(block.rows * self.inputs.len());
            for (input, values) in self.inputs.iter().zip(values.chunks_exact_mut(block.rows.max(1))) {
                values.copy_from_slice(block.numbers(Place::Input(*input)));
            }
        });
        Ok(())
    }
}

/// The columns that a stage takes and makes, one by one, without those that nobody needs. The number is the place of
/// the two in the stage.
pub(super) fn pairs(plan: &Plan, stage: &Stage) -> Result<Vec<(usize, String, String)>> {
    let (inputs, outputs) = (stage.inputs()?, stage.outputs()?);
    if inputs.len() != outputs.len() {
        return Err(stage.fault("it has another number of inputCols than of outputCols; save the model again"));
    }
    let all = inputs.into_iter().zip(outputs).enumerate().map(|(at, (input, output))| (at, input, output));
    Ok(all.filter(|(_, _, output)| plan.is_needed(output)).collect())
}
