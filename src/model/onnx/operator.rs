//! What an operator is.

use std::fmt::Debug;

use super::tensor::{Tensor, elements};
use super::{damaged, refused};
use crate::error::{Error, Result};

/// What an operator does to the tensors of a block of rows.
pub(super) trait Operator: Debug + Send + Sync {
    fn run<'a>(&'a self, inputs: &Inputs<'_, 'a>, work: &mut Work) -> Result<Vec<Tensor<'a>>>;

    /// How many trees it has.
    fn trees(&self) -> usize {
        0
    }

    /// The names of the classes that its outputs speak of.
    fn labels(&self) -> Option<Vec<String>> {
        None
    }

    /// Whether it takes the columns of the graph's input as they are.
    fn takes_columns(&self) -> bool {
        false
    }
}

/// The tensors that an operator takes; one that is left out is `None`.
pub(super) struct Inputs<'i, 'a> {
    pub tensors: &'i [Option<&'i Tensor<'a>>],
}

impl<'i, 'a> Inputs<'i, 'a> {
    /// The tensor at a place where there has to be one.
    pub fn at(&self, place: usize) -> Result<&'i Tensor<'a>> {
        self.maybe(place).ok_or_else(|| damaged(format!("it lacks input {place}")))
    }

    pub fn maybe(&self, place: usize) -> Option<&'i Tensor<'a>> {
        self.tensors.get(place).copied().flatten()
    }

    /// All of them.
    pub fn all(&self) -> Result<Vec<&'i Tensor<'a>>> {
        (0..self.tensors.len()).map(|place| self.at(place)).collect()
    }
}

/// What a block of rows may still cost, in elements of tensors.
#[derive(Debug)]
pub(super) struct Work {
    left: u64,
    /// Whether this is the trial of a graph at load, whose rows are made up.
    pub is_trial: bool,
}

impl Work {
    pub fn new(elements: u64, is_trial: bool) -> Self {
        Self { left: elements, is_trial }
    }

    pub fn left(&self) -> u64 {
        self.left
    }

    /// Takes what is about to be made or computed.
    pub fn take(&mut self, elements: u64) -> Result<()> {
        self.left = self.left.checked_sub(elements).ok_or_else(|| refused("it makes too many numbers of a row"))?;
        Ok(())
    }

    /// Takes a tensor of this shape.
    pub fn take_shape(&mut self, shape: &[usize]) -> Result<usize> {
        let count = elements(shape)?;
        self.take(count as u64)?;
        Ok(count)
    }

    /// The error for a row that an operator refuses. The made-up rows of a trial are let through.
    pub fn refuse_row(&self, message: impl FnOnce() -> String) -> Result<()> {
        if self.is_trial { Ok(()) } else { Err(Error::violated(message())) }
    }
}
