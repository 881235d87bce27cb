//! The one error of the crate: what went wrong, in words, and what kind of remedy it asks for.

use std::error::Error as StdError;
use std::fmt;

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;

/// What the person who reads the message has to do about it. Each kind is one exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The arguments, the pipeline file or the table's definition are wrong: mend them. Nothing was started.
    Invalid,
    /// A broker, a store or the machine failed: running it again is safe.
    Unavailable,
    /// The data is not what was promised: contract, check, lost offsets.
    Violated,
    /// Another instance of this pipeline has moved on: this one has to stop.
    Fenced,
}

impl ErrorKind {
    /// The process exit code of this kind.
    pub fn exit_code(self) -> u8 {
        match self {
            ErrorKind::Unavailable => 1,
            ErrorKind::Invalid => 2,
            ErrorKind::Violated => 3,
            ErrorKind::Fenced => 4,
        }
    }

    /// The kind in one word.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Invalid => "invalid",
            ErrorKind::Violated => "violated",
            ErrorKind::Fenced => "fenced",
        }
    }
}

/// What somebody has to look at, whoever started the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alarm {
    /// A row or a record breaks what the pipeline was promised.
    ContractBroken,
    /// Too many dead letters or quarantined rows.
    LimitPassed,
    /// Rows went to the quarantine table.
    Quarantined,
    /// Offsets that were due are gone.
    OffsetsLost,
    /// Another instance has moved on.
    Fenced,
}

impl Alarm {
    /// The alarm as a short code that does not change.
    pub fn as_str(self) -> &'static str {
        match self {
            Alarm::ContractBroken => "contract_broken",
            Alarm::LimitPassed => "limit_passed",
            Alarm::Quarantined => "quarantined",
            Alarm::OffsetsLost => "offsets_lost",
            Alarm::Fenced => "fenced",
        }
    }
}

/// An error of any part of Flumen. The message names the pipeline, table or topic and ends with the remedy.
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
    alarm: Option<Alarm>,
}

/// `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error without a cause below it.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let alarm = (kind == ErrorKind::Fenced).then_some(Alarm::Fenced);
        Self { kind, message: message.into(), source: None, alarm }
    }

    /// The arguments or the file are wrong ([`ErrorKind::Invalid`]).
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// Something outside failed ([`ErrorKind::Unavailable`]).
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// The data is not what was promised ([`ErrorKind::Violated`]).
    pub fn violated(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Violated, message)
    }

    /// Somebody else runs this pipeline ([`ErrorKind::Fenced`]).
    pub fn fenced(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Fenced, message)
    }

    /// The same error with the library's error that caused it.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error with `context` put before its message, as in `query q: message`.
    #[must_use]
    pub fn within(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// The same error, which somebody has to look at.
    #[must_use]
    pub fn alarming(mut self, alarm: Alarm) -> Self {
        self.alarm = Some(alarm);
        self
    }

    /// Whether somebody has to look at it.
    pub fn alarm(&self) -> Option<Alarm> {
        self.alarm
    }

    /// Whether what was decided can no longer be made good, and has to be decided anew.
    pub fn is_overtaken(&self) -> bool {
        self.source.as_ref().is_some_and(|source| source.is::<Overtaken>())
    }

    /// Whether it is about memory that `flumen.memory_limit` does not give: less at once may fit.
    pub fn is_exhausted(&self) -> bool {
        self.source.as_ref().is_some_and(|source| source.is::<Exhausted>())
    }

    /// Whether it is about a table whose definition another writer changed: whoever opens it anew may go on.
    pub fn is_redefined(&self) -> bool {
        self.source.as_ref().is_some_and(|source| source.is::<Redefined>())
    }

    /// The same error of another kind.
    #[must_use]
    pub fn of_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }

    /// What has to be done about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message without its causes.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let mut cause = self.source.as_deref().map(|s| s as &dyn StdError);
        let mut last = self.message.clone();
        while let Some(error) = cause {
            let text = error.to_string();
            if !last.contains(&text) {
                write!(f, "\n  caused by: {text}")?;
            }
            last = text;
            cause = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|s| s as &(dyn StdError + 'static))
    }
}

/// An error that comes back out of a DataFusion plan keeps its kind: ours travels inside as `External`.
impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Self {
        use DataFusionError as D;
        let mut current = error;
        loop {
            current = match current {
                D::External(inner) => match inner.downcast::<Error>() {
                    Ok(ours) => return *ours,
                    Err(other) => match other.downcast::<D>() {
                        Ok(nested) => *nested,
                        Err(other) => return Error::unavailable(other.to_string()),
                    },
                },
                D::Context(_, inner) | D::Diagnostic(_, inner) => *inner,
                D::Shared(inner) => match std::sync::Arc::try_unwrap(inner) {
                    Ok(inner) => inner,
                    Err(shared) => return from_shared(&shared),
                },
                D::ArrowError(inner, note) => match *inner {
                    arrow::error::ArrowError::ExternalError(inner) => D::External(inner),
                    fault if is_in_the_data(&fault) => {
                        return Error::violated(format!(
                            "{fault}. A value does not fit what the query does with it: use TRY_CAST, or leave such \
                             rows out with WHERE"
                        ))
                        .caused_by(DataFault(fault.to_string()))
                        .alarming(Alarm::ContractBroken);
                    }
                    plain => return Error::unavailable(D::ArrowError(Box::new(plain), note).to_string()),
                },
                D::ResourcesExhausted(why) => return exhausted(&why),
                other => return Error::unavailable(other.to_string()),
            };
        }
    }
}

/// Memory that `flumen.memory_limit` does not give, as the cause of an error: less at once may fit.
#[derive(Debug)]
pub struct Exhausted;

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("flumen.memory_limit is used up")
    }
}

impl StdError for Exhausted {}

/// A table whose definition another writer changed, as the cause of an error: whoever opens it anew may go on.
#[derive(Debug)]
pub struct Redefined;

impl fmt::Display for Redefined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("another writer changed its constraints")
    }
}

impl StdError for Redefined {}

/// What was decided can no longer be made good, as the cause of an error: it has to be decided anew.
#[derive(Debug)]
pub struct Overtaken;

impl fmt::Display for Overtaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what was decided can no longer be made good")
    }
}

impl StdError for Overtaken {}

/// The error of somebody who asked for more memory than there is.
fn exhausted(why: &str) -> Error {
    Error::unavailable(format!("flumen.memory_limit is used up: {why}. Raise it")).caused_by(Exhausted)
}

/// A value that cannot be computed with, as the cause of an error: some record has it.
#[derive(Debug)]
pub struct DataFault(String);

impl fmt::Display for DataFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for DataFault {}

/// Whether an error says that a value cannot be computed with: running it again gives the same.
fn is_in_the_data(error: &arrow::error::ArrowError) -> bool {
    use arrow::error::ArrowError as A;
    matches!(
        error,
        A::CastError(_) | A::ParseError(_) | A::ComputeError(_) | A::DivideByZero | A::ArithmeticOverflow(_)
    )
}

/// The error below a cause that several consumers share, told again with the same kind.
fn from_shared(error: &DataFusionError) -> Error {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(ours) = current.downcast_ref::<Error>() {
            let told = Error { alarm: ours.alarm, ..Error::new(ours.kind, ours.to_string()) };
            return if ours.is_exhausted() { told.caused_by(Exhausted) } else { told };
        }
        if let Some(DataFusionError::ResourcesExhausted(why)) = current.downcast_ref() {
            return exhausted(why);
        }
        cause = current.source();
    }
    Error::unavailable(error.to_string())
}

impl From<ArrowError> for Error {
    fn from(error: ArrowError) -> Self {
        DataFusionError::from(error).into()
    }
}

impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        DataFusionError::External(Box::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_survives_a_plan() {
        let inner = DataFusionError::from(Error::violated("row breaks check c"));
        let outer = DataFusionError::Context("while running".into(), Box::new(inner));
        let back = Error::from(outer);
        assert_eq!(back.kind(), ErrorKind::Violated);
        assert_eq!(back.message(), "row breaks check c");
    }

    #[test]
    fn a_shared_kind_survives_too() {
        let shared = std::sync::Arc::new(DataFusionError::from(Error::fenced("gone")));
        let error = DataFusionError::Shared(shared.clone());
        assert_eq!(Error::from(error).kind(), ErrorKind::Fenced);
        drop(shared);
    }

    #[test]
    fn causes_are_told_once() {
        let error = Error::unavailable("store away: no route").caused_by("no route");
        assert_eq!(error.to_string(), "store away: no route");
        let error = Error::unavailable("store away").caused_by("no route");
        assert_eq!(error.to_string(), "store away\n  caused by: no route");
    }
}
