//! A node of a graph with its attributes, as operators are made of it.

use std::cell::RefCell;

use super::proto::{AttributeProto, NodeProto, TensorProto};
use super::tensor::{Tensor, constant, text};
use super::{damaged, refused};
use crate::error::Result;

/// A node while its operator is made: it notes which attributes were asked for.
pub(super) struct Node<'a> {
    proto: &'a NodeProto,
    /// The version of the operators of `ai.onnx`.
    pub version: i64,
    asked: RefCell<Vec<&'static str>>,
}

impl<'a> Node<'a> {
    pub fn new(proto: &'a NodeProto, version: i64) -> Self {
        Self { proto, version, asked: RefCell::default() }
    }

    pub fn operator(&self) -> &'a str {
        &self.proto.op_type
    }

    pub fn outputs(&self) -> usize {
        self.proto.output.len()
    }

    fn attribute(&self, name: &'static str) -> Option<&'a AttributeProto> {
        self.asked.borrow_mut().push(name);
        self.proto.attribute.iter().find(|attribute| attribute.name == name)
    }

    /// An attribute with a value of a kind, a number of `AttributeProto.AttributeType`. Old files do not say the kind.
    fn of_kind(&self, name: &'static str, kind: i32) -> Result<Option<&'a AttributeProto>> {
        match self.attribute(name) {
            Some(attribute) if attribute.kind != kind && attribute.kind != 0 => {
                Err(damaged(format!("attribute {name} has a value of another kind")))
            }
            attribute => Ok(attribute),
        }
    }

    pub fn has(&self, name: &'static str) -> bool {
        self.attribute(name).is_some()
    }

    pub fn float(&self, name: &'static str) -> Result<Option<f32>> {
        Ok(self.of_kind(name, 1)?.map(|attribute| attribute.f))
    }

    pub fn int(&self, name: &'static str) -> Result<Option<i64>> {
        Ok(self.of_kind(name, 2)?.map(|attribute| attribute.i))
    }

    /// Whether a number that means yes or no means yes.
    pub fn flag(&self, name: &'static str, default: bool) -> Result<bool> {
        Ok(self.int(name)?.map_or(default, |value| value != 0))
    }

    pub fn string(&self, name: &'static str) -> Result<Option<String>> {
        self.of_kind(name, 3)?.map(|attribute| text(&attribute.s)).transpose()
    }

    pub fn tensor_proto(&self, name: &'static str) -> Result<Option<&'a TensorProto>> {
        Ok(self.of_kind(name, 4)?.and_then(|attribute| attribute.t.as_ref()))
    }

    pub fn tensor(&self, name: &'static str) -> Result<Option<Tensor<'static>>> {
        self.tensor_proto(name)?.map(constant).transpose()
    }

    pub fn floats(&self, name: &'static str) -> Result<&'a [f32]> {
        Ok(self.of_kind(name, 6)?.map_or(&[], |attribute| &attribute.floats))
    }

    pub fn ints(&self, name: &'static str) -> Result<&'a [i64]> {
        Ok(self.of_kind(name, 7)?.map_or(&[], |attribute| &attribute.ints))
    }

    pub fn strings(&self, name: &'static str) -> Result<Vec<String>> {
        let strings = self.of_kind(name, 8)?.map_or(&[][..], |attribute| &attribute.strings);
        strings.iter().map(|bytes| text(bytes)).collect()
    }

    /// Strings as they are in the file.
    pub fn words(&self, name: &'static str) -> Result<&'a [Vec<u8>]> {
        Ok(self.of_kind(name, 8)?.map_or(&[], |attribute| &attribute.strings))
    }

    /// For attributes that say nothing of the result.
    pub fn ignore(&self, names: &[&'static str]) {
        self.asked.borrow_mut().extend(names);
    }

    /// Whether there is nothing in the node that nobody asked for.
    ///
    /// # Errors
    /// `Invalid` with the name of an attribute that is not covered.
    pub fn check(&self) -> Result<()> {
        let asked = self.asked.borrow();
        for attribute in &self.proto.attribute {
            if attribute.g.is_some() || !attribute.graphs.is_empty() {
                return Err(refused("a graph inside of a graph is not covered"));
            }
            if !asked.contains(&attribute.name.as_str()) {
                return Err(refused(format!("attribute {} is not covered", attribute.name)));
            }
        }
        Ok(())
    }
}
