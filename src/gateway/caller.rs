//! What a call brings along beside its messages.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use http::HeaderMap;
use tonic::Status;

use super::idempotency::hash_of;
use super::principal::Principal;
use super::status;
use crate::subscribe::Followed;

/// An idempotency key has at most this many characters.
const MAX_KEY: usize = 255;

/// A deadline that is further away is none: an hour times the 8 digits that a client may send does not fit a timer.
const MAX_DEADLINE: Duration = Duration::from_secs(365 * 24 * 3600);

/// Who calls, and what they ask for.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) principal: Principal,
    pub(super) peer: IpAddr,
    pub(super) request_id: Arc<str>,
    /// How long the call may take from now.
    pub(super) deadline: Option<Duration>,
    pub(super) idempotency_key: Option<Arc<str>>,
    /// The keys of what it publishes, when it wants the rows of that on the same call.
    pub(super) follows: Option<Arc<Followed>>,
    /// Where the rows begin, on a call that publishes too.
    pub(super) start: Option<Arc<str>>,
    /// How many messages came.
    pub(super) messages: Arc<AtomicU64>,
}

/// The client's deadline.
pub(super) fn deadline(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let parsed = value.to_str().ok().and_then(parse_timeout);
    let wrong = || status::wrong("grpc-timeout", "grpc-timeout is not up to 8 digits and one of H, M, S, m, u, n");
    Ok(Some(parsed.ok_or_else(wrong)?).filter(|deadline| *deadline <= MAX_DEADLINE))
}

fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

/// The client's idempotency key.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<Arc<str>>, Status> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let wrong = || status::wrong("idempotency-key", "an idempotency-key has 1 to 255 visible ASCII characters");
    let is_key = |text: &&str| (1..=MAX_KEY).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    let text = value.to_str().ok().filter(is_key).ok_or_else(wrong)?;
    match values.next() {
        None => Ok(Some(Arc::from(text))),
        Some(_) => Err(status::wrong("idempotency-key", "there are two idempotency-keys; send one")),
    }
}

/// Where the rows of a call that publishes too begin.
pub(super) fn start(headers: &HeaderMap) -> Result<Option<Arc<str>>, Status> {
    let Some(value) = headers.get("flumen-start") else { return Ok(None) };
    let wrong = || status::wrong("flumen-start", "flumen-start is `latest`, `earliest`, a version or a cursor");
    value.to_str().map(|text| Some(Arc::from(text))).map_err(|_| wrong())
}

/// The id of the messages of a call with that idempotency-key by that principal: the same one, when they are sent
/// again.
pub(super) fn id_of_key(path: &str, principal: &str, key: &str) -> String {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash_of([path, principal, key], None)[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_have_units() {
        let parsed = |text: &str| {
            let headers = HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), text.parse().unwrap())]);
            deadline(&headers).map_err(|status| status.code())
        };
        assert_eq!(parsed("2S"), Ok(Some(Duration::from_secs(2))));
        assert_eq!(parsed("99999999n"), Ok(Some(Duration::from_nanos(99_999_999))));
        assert_eq!(parsed("99999999H"), Ok(None));
        assert_eq!(parsed("3M"), Ok(Some(Duration::from_secs(180))));
        for wrong in ["", "S", "1", "1s", "-1S", "123456789S", "1.5S", "ü"] {
            assert_eq!(parsed(wrong), Err(tonic::Code::InvalidArgument), "{wrong}");
        }
        assert!(deadline(&HeaderMap::new()).unwrap().is_none());
    }

    #[test]
    fn keys_are_visible() {
        let parsed = |text: &str| {
            let headers = HeaderMap::from_iter([("idempotency-key".parse().unwrap(), text.parse().unwrap())]);
            idempotency_key(&headers).map_err(|status| status.code())
        };
        assert_eq!(parsed("a-1"), Ok(Some(Arc::from("a-1"))));
        for wrong in ["", "a b", "ü", &"x".repeat(256)] {
            assert_eq!(parsed(wrong), Err(tonic::Code::InvalidArgument), "{wrong}");
        }
    }
}
