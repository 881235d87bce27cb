//! The names of classes.

use std::borrow::Cow;

use super::damaged;
use super::node::Node;
use super::tensor::{Data, Tensor};
use crate::error::Result;

/// Names of classes from the attribute of the names or from that of the numbers.
#[derive(Debug, Clone)]
pub(super) enum Labels {
    Numbers(Vec<i64>),
    Texts(Vec<String>),
}

impl Labels {
    pub fn of(node: &Node<'_>, texts: &'static str, numbers: &'static str) -> Result<Self> {
        let (texts, numbers) = (node.strings(texts)?, node.ints(numbers)?);
        match (texts.is_empty(), numbers.is_empty()) {
            (false, true) => Ok(Labels::Texts(texts)),
            (true, false) => Ok(Labels::Numbers(numbers.to_vec())),
            (true, true) => Err(damaged("it has no class labels")),
            (false, false) => Err(damaged("it has class labels of two types")),
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Labels::Numbers(numbers) => numbers.len(),
            Labels::Texts(texts) => texts.len(),
        }
    }

    /// The labels of these classes, all of which are there.
    pub fn tensor(&self, classes: &[usize]) -> Tensor<'_> {
        let data = match self {
            Labels::Numbers(numbers) => Data::I64(classes.iter().map(|class| numbers[*class]).collect()),
            Labels::Texts(texts) => {
                Data::Text(classes.iter().map(|class| Cow::Borrowed(texts[*class].as_str())).collect())
            }
        };
        Tensor::new(vec![classes.len()], data)
    }

    pub fn names(&self) -> Vec<String> {
        match self {
            Labels::Numbers(numbers) => numbers.iter().map(i64::to_string).collect(),
            Labels::Texts(texts) => texts.clone(),
        }
    }
}
