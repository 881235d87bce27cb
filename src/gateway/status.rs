//! The gateway's refusals as gRPC statuses, with the details of `google.rpc`.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use super::idempotency::Outcome;
use super::publisher::{Placed, PublishError, PublishErrorKind};
use super::validate::{BrokenRule, Refusal};

/// When a client should try again.
pub(super) const RETRY: Duration = Duration::from_secs(1);

/// The domain of the reasons that a program can read.
const DOMAIN: &str = "flumen";

/// The message is wrong.
pub(super) fn refused(refusal: Refusal) -> Status {
    match refusal {
        Refusal::Rules(error) => {
            tracing::error!(%error, "a rule cannot be evaluated: mend the .proto");
            Status::internal("a rule of the message cannot be evaluated: the gateway's log says which")
        }
        Refusal::Wrong(broken) => {
            let first = broken.first().map_or(String::new(), |rule| match rule.field.as_str() {
                "" => rule.description.clone(),
                field => format!("{field}: {}", rule.description),
            });
            let more = match broken.len() {
                0 | 1 => String::new(),
                count => format!(" (and {} more)", count - 1),
            };
            let told =
                broken.into_iter().map(|BrokenRule { field, description }| FieldViolation::new(field, description));
            let details = ErrorDetails::with_bad_request(told.collect::<Vec<_>>());
            Status::with_error_details(Code::InvalidArgument, format!("{first}{more}"), details)
        }
    }
}

/// Something that the client sent beside the message is wrong.
pub(super) fn wrong(field: &str, description: impl Into<String>) -> Status {
    let description = description.into();
    let details = ErrorDetails::with_bad_request_violation(field, description.clone());
    Status::with_error_details(Code::InvalidArgument, description, details)
}

/// It may work later.
pub(super) fn unavailable(message: impl Into<String>) -> Status {
    Status::with_error_details(Code::Unavailable, message, ErrorDetails::with_retry_info(Some(RETRY)))
}

/// More was asked for than is given.
pub(super) fn exhausted(message: impl Into<String>, retry: Option<Duration>) -> Status {
    let details = retry.map_or_else(ErrorDetails::new, |retry| ErrorDetails::with_retry_info(Some(retry)));
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

/// The gateway shuts down.
pub(super) fn reconnect() -> Status {
    unavailable("the gateway shuts down; reconnect")
}

/// The deadline is over.
pub(super) fn too_late() -> Status {
    Status::deadline_exceeded(
        "the deadline is over; what was sent may or may not be published: send it again with the same idempotency-key",
    )
}

/// The acknowledgement did not come in time.
pub(super) fn unacknowledged() -> Status {
    unavailable(
        "the broker has not acknowledged the record in time; it may or may not be published: send it again with the \
         same idempotency-key",
    )
}

/// The record was not acknowledged. With a key the same answer is given to whoever sends it again.
fn unpublished(error: &PublishError, has_key: bool) -> Status {
    match error.kind {
        PublishErrorKind::Away => unavailable(format!("{error}; the record is not published")),
        PublishErrorKind::Refused => {
            let message = format!("{error}; the record is not published");
            let details = ErrorDetails::with_error_info("RECORD_REFUSED", DOMAIN, []);
            Status::with_error_details(Code::FailedPrecondition, message, details)
        }
        PublishErrorKind::Uncertain if has_key => {
            let message = format!(
                "{error}; the record may or may not be published, and its idempotency-key gives this answer again: \
                 look into the topic, or send the message with another key"
            );
            let details = ErrorDetails::with_error_info("OUTCOME_UNKNOWN", DOMAIN, []);
            Status::with_error_details(Code::Aborted, message, details)
        }
        PublishErrorKind::Uncertain => unavailable(format!("{error}; the record may or may not be published")),
    }
}

/// The key is taken by another message.
pub(super) fn key_differs() -> Status {
    wrong("idempotency-key", "the idempotency-key was used for another message; take a new key for a new message")
}

/// Where a record is, or why that is not known.
pub(super) fn of_outcome(outcome: Outcome, has_key: bool) -> Result<Placed, Status> {
    outcome.map_err(|error| unpublished(&error, has_key))
}

/// What tonic says of the bytes of a call, in the codes of the gateway.
pub(super) fn of_framing(status: Status) -> Status {
    let message = status.message();
    match status.code() {
        // Larger than the limit, as its length says or after it was decompressed.
        Code::OutOfRange => exhausted(message, None),
        Code::Internal => {
            let details = ErrorDetails::with_error_info("BROKEN_FRAME", DOMAIN, []);
            Status::with_error_details(Code::Internal, message, details)
        }
        _ => status,
    }
}
