//! Graphs that our own operators do not cover, such as neural ones: run whole by ONNX Runtime, a library of its own
//! that is loaded when the first such model is.

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::OnceLock;

use ort::environment::Environment;
use ort::session::builder::SessionBuilder;
use ort::session::{Session, SessionInputValue};

use ort::value::{DynValue, Shape, Tensor as Value, TensorElementType, ValueType};
use parking_lot::Mutex;

use super::operator::{Inputs, Operator, Work};
use super::proto::GraphProto;
use super::refused;
use super::tensor::{Data, Tensor};
use crate::error::{Error, Result};

/// Names the library's file.
const LIBRARY: &str = "ORT_DYLIB_PATH";
/// What the loader looks for otherwise.
const DEFAULT: &str = "libonnxruntime.so";

/// A graph as one operator.
#[derive(Debug)]
pub(super) struct Runtime {
    /// One row block at a time: a session has buffers of its own.
    session: Mutex<Session>,
    inputs: Vec<String>,
    outputs: Vec<String>,
}

impl Runtime {
    /// Hands the bytes of a model over, of which this is the graph.
    ///
    /// # Errors
    /// `Invalid` when the library is not there or refuses the model.
    pub fn new(bytes: &[u8], graph: &GraphProto) -> Result<Self> {
        let session = builder()?.commit_from_memory(bytes).map_err(|error| failed("it does not load", error))?;
        Ok(Self {
            session: Mutex::new(session),
            inputs: graph.given().map(|value| value.name.clone()).collect(),
            outputs: graph.output.iter().map(|value| value.name.clone()).collect(),
        })
    }
}

fn failed(what: &str, error: impl Display) -> Error {
    Error::invalid(format!("ONNX Runtime: {what}: {error}; export the model again, or score it elsewhere"))
}

/// A builder of sessions that compute on the thread that calls them.
fn builder() -> Result<SessionBuilder> {
    static ENVIRONMENT: OnceLock<std::result::Result<Environment, String>> = OnceLock::new();
    let environment = ENVIRONMENT.get_or_init(|| {
        let path = std::env::var_os(LIBRARY).unwrap_or_else(|| DEFAULT.into());
        let builder = ort::init_from(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        builder.with_telemetry(false).build().map_err(|error| error.to_string())
    });
    let environment = environment.as_ref().map_err(|error| {
        Error::invalid(format!("ONNX Runtime is not there: {error}; name its library in {LIBRARY}"))
    })?;
    let builder = Session::builder(environment).map_err(|error| failed("no session", error))?;
    let builder = builder.with_intra_threads(1).map_err(|error| failed("no session", error))?;
    builder.with_inter_threads(1).map_err(|error| failed("no session", error))
}

/// A tensor as the library takes it.
fn given(tensor: &Tensor<'_>) -> Result<DynValue> {
    let shape = Shape::new(tensor.shape.iter().map(|size| *size as i64));
    let made = match &tensor.data {
        Data::F32(values) => Value::from_array((shape, values.clone())).map(Value::into_dyn),
        Data::F64(values) => Value::from_array((shape, values.clone())).map(Value::into_dyn),
        Data::I64(values) => Value::from_array((shape, values.clone())).map(Value::into_dyn),
        Data::Bool(values) => Value::from_array((shape, values.clone())).map(Value::into_dyn),
        Data::Text(values) => {
            let texts: Vec<String> = values.iter().map(|text| text.clone().into_owned()).collect();
            Value::from_string_array((shape, &texts[..])).map(Value::into_dyn)
        }
        Data::Columns(..) => return Err(refused("columns are no tensor")),
    };
    made.map_err(|error| failed("a tensor was refused", error))
}

/// A tensor of the library.
fn taken<'a>(name: &str, value: &DynValue) -> Result<Tensor<'a>> {
    let ValueType::Tensor { ty, .. } = value.dtype() else {
        return Err(refused(format!("output {name} is no tensor; export without ZipMap")));
    };
    let of = |shape: &Shape| shape.iter().map(|size| usize::try_from(*size).unwrap_or(0)).collect::<Vec<_>>();
    macro_rules! numbers {
        ($type:ty, $data:path) => {
            value.try_extract_tensor::<$type>().map(|(shape, values)| (of(shape), $data(values.to_vec())))
        };
    }
    let taken = match ty {
        TensorElementType::Float32 => numbers!(f32, Data::F32),
        TensorElementType::Float64 => numbers!(f64, Data::F64),
        TensorElementType::Int64 => numbers!(i64, Data::I64),
        TensorElementType::Bool => numbers!(bool, Data::Bool),
        TensorElementType::String => value
            .try_extract_strings()
            .map(|(shape, texts)| (of(shape), Data::Text(texts.into_iter().map(Cow::Owned).collect()))),
        other => return Err(refused(format!("output {name} is a tensor of {other}, which is not covered"))),
    };
    let (shape, data) = taken.map_err(|error| failed("an output cannot be read", error))?;
    Ok(Tensor::new(shape, data))
}

impl Operator for Runtime {
    fn run<'a>(&'a self, inputs: &Inputs<'_, 'a>, work: &mut Work) -> Result<Vec<Tensor<'a>>> {
        let mut values = Vec::with_capacity(self.inputs.len());
        for (name, tensor) in self.inputs.iter().zip(inputs.all()?) {
            work.take(tensor.len() as u64)?;
            values.push((name.as_str(), SessionInputValue::from(given(tensor)?)));
        }
        let mut session = self.session.lock();
        let outputs = session.run(values).map_err(|error| failed("it does not run", error))?;
        let output = |name: &String| match outputs.get(name) {
            Some(value) => taken(name, value),
            None => Err(refused(format!("it gives no output {name}"))),
        };
        self.outputs.iter().map(output).collect()
    }
}
