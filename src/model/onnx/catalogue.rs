//! Which operators there are.

use super::node::Node;
use super::operator::{Inputs, Operator};
use super::{
    arithmetic, category, choice, convert, encoder, ensemble, linear, product, reduction, refused, shape, svm,
};
use crate::error::Result;

/// Makes the operator of a node. The inputs are those of the trial: they tell types and widths.
pub(super) fn build(node: &Node<'_>, domain: &str, inputs: &Inputs<'_, '_>) -> Result<Box<dyn Operator>> {
    let name = node.operator();
    let operator: Box<dyn Operator> = match (domain, name) {
        ("ai.onnx.ml", "TreeEnsembleRegressor" | "TreeEnsembleClassifier" | "TreeEnsemble") => {
            ensemble::build(node, inputs)?
        }
        ("ai.onnx.ml", "LinearRegressor" | "LinearClassifier") => linear::build(node)?,
        ("ai.onnx.ml", "SVMClassifier" | "SVMRegressor") => svm::build(node)?,
        (
            "ai.onnx.ml",
            "Scaler"
            | "Normalizer"
            | "Imputer"
            | "ArrayFeatureExtractor"
            | "FeatureVectorizer"
            | "Binarizer"
            | "ZipMap",
        ) => encoder::build(node)?,
        ("ai.onnx.ml", "OneHotEncoder" | "LabelEncoder") => category::build(node, inputs)?,
        (
            "",
            "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Max" | "Min" | "Sum" | "Mean" | "Equal" | "Less" | "Greater"
            | "LessOrEqual" | "GreaterOrEqual" | "And" | "Or" | "Xor" | "Sqrt" | "Abs" | "Neg" | "Exp" | "Log"
            | "Sigmoid" | "Tanh" | "Relu" | "Sign" | "Floor" | "Ceil" | "Round" | "Reciprocal",
        ) => arithmetic::build(node)?,
        ("", "Not" | "IsNaN" | "IsInf" | "Where" | "Clip") => choice::build(node)?,
        ("", "Cast" | "Identity") => convert::build(node)?,
        (
            "",
            "Concat" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Gather" | "Slice" | "Split" | "Shape"
            | "Transpose" | "Expand" | "ConstantOfShape",
        ) => shape::build(node)?,
        (
            "",
            "ReduceSum" | "ReduceMean" | "ReduceMax" | "ReduceMin" | "ReduceProd" | "ReduceL1" | "ReduceL2"
            | "ReduceSumSquare" | "ReduceLogSum" | "ReduceLogSumExp" | "ArgMax" | "ArgMin" | "TopK" | "Softmax"
            | "LogSoftmax",
        ) => reduction::build(node)?,
        ("", "MatMul" | "Gemm") => product::build(node)?,
        ("" | "ai.onnx.ml", _) => return Err(refused("it is not covered")),
        _ => return Err(refused(format!("it is of {domain}, which is not covered"))),
    };
    node.check()?;
    Ok(operator)
}
