//! How a subscription ends, or why it does not begin: a gRPC status without the crate that sends it.

use std::fmt;

use crate::error::{Error, ErrorKind};
use crate::subscribe::cursor::Cursor;

/// The status codes that a subscription ends with, as gRPC names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The request is wrong.
    InvalidArgument,
    /// The request is right, but not for this table or message as they are: a cursor of another table, a row that does
    /// not fit the message.
    FailedPrecondition,
    /// The place is before the oldest version or after the newest.
    OutOfRange,
    /// The client was too slow: it goes on from its cursor.
    Aborted,
    /// There are as many subscribers as there may be.
    ResourceExhausted,
    /// The store is away, or the server is going down: connect again.
    Unavailable,
    /// A fault of ours.
    Internal,
}

impl Code {
    /// The number of the code in gRPC.
    pub fn number(self) -> i32 {
        match self {
            Code::InvalidArgument => 3,
            Code::ResourceExhausted => 8,
            Code::FailedPrecondition => 9,
            Code::Aborted => 10,
            Code::OutOfRange => 11,
            Code::Internal => 13,
            Code::Unavailable => 14,
        }
    }
}

/// How a subscription ends. It goes out as the status of the stream, the cursor as trailing metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// The code.
    pub code: Code,
    /// What happened, and what to do.
    pub message: String,
    /// Where the client goes on: behind the last message that it was sent.
    pub cursor: Option<Cursor>,
}

impl Ending {
    /// An ending without a cursor.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), cursor: None }
    }

    /// The same ending with the place where the client goes on.
    #[must_use]
    pub fn at(mut self, cursor: Cursor) -> Self {
        self.cursor = Some(cursor);
        self
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.code, self.message)
    }
}

impl std::error::Error for Ending {}

/// An error of the table or of a row.
impl From<&Error> for Ending {
    fn from(error: &Error) -> Self {
        let code = match error.kind() {
            ErrorKind::Unavailable => Code::Unavailable,
            ErrorKind::Invalid | ErrorKind::Violated | ErrorKind::Fenced => Code::FailedPrecondition,
        };
        // What lies below may name hosts and paths: the client is told the message alone.
        Ending::new(code, error.message())
    }
}
