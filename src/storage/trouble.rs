//! Why a store failed, found among the causes of an error, and the error that says so with its remedy.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;

use object_store::Error as StoreError;
use url::Url;

use super::{cloud, shown};
use crate::error::{Error, ErrorKind};

/// A read or a write that the disk itself failed, which `std` has no name for: the same number on every Unix.
const EIO: i32 = 5;

/// Why a store does not do what it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// There is no space left, or the quota is used up.
    Full,
    /// The file system is mounted so that nobody writes to it.
    ReadOnly,
    /// We may not.
    Forbidden,
    /// It is not there.
    Missing,
    /// It cannot do what is asked for.
    Unable,
    /// It is away, or broken, or overloaded: what fails now may work later.
    Away,
    /// Something else, or no store at all.
    Unknown,
}

impl Trouble {
    /// The innermost cause that tells counts.
    fn of(error: &(dyn StdError + 'static)) -> Self {
        let mut found = Trouble::Unknown;
        let mut cause = Some(error);
        while let Some(current) = cause {
            cause = current.source();
            let told = if let Some(error) = current.downcast_ref::<io::Error>() {
                // What an `io::Error` was made of is not its source.
                cause = error.get_ref().map(|inner| inner as &(dyn StdError + 'static)).or(cause);
                Self::of_io(error)
            } else if let Some(error) = current.downcast_ref::<StoreError>() {
                Self::of_store(error)
            } else {
                Trouble::Unknown
            };
            if told != Trouble::Unknown {
                found = told;
            }
        }
        found
    }

    fn of_io(error: &io::Error) -> Self {
        use io::ErrorKind as K;
        match error.kind() {
            K::StorageFull | K::QuotaExceeded => Trouble::Full,
            K::ReadOnlyFilesystem => Trouble::ReadOnly,
            K::PermissionDenied => Trouble::Forbidden,
            K::NotFound => Trouble::Missing,
            K::TimedOut
            | K::ConnectionRefused
            | K::ConnectionReset
            | K::ConnectionAborted
            | K::NotConnected
            | K::BrokenPipe
            | K::HostUnreachable
            | K::NetworkUnreachable
            | K::NetworkDown
            | K::StaleNetworkFileHandle => Trouble::Away,
            _ if error.raw_os_error() == Some(EIO) => Trouble::Away,
            _ => Trouble::Unknown,
        }
    }

    fn of_store(error: &StoreError) -> Self {
        match error {
            StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => Trouble::Forbidden,
            StoreError::NotFound { .. } => Trouble::Missing,
            StoreError::NotImplemented { .. } | StoreError::NotSupported { .. } => Trouble::Unable,
            // A disk says what is wrong in the cause; what else it has is no failure of its own.
            StoreError::Generic { store: "LocalFileSystem", .. } => Trouble::Unknown,
            // The client has asked again already. What a server calls our fault stays one; the status is in the text
            // only.
            StoreError::Generic { source, .. } => {
                let text = source.to_string();
                let status = text.split_once("status code: ").and_then(|(_, rest)| rest.get(..3));
                match status {
                    // What it does not implement is put only where nothing is.
                    Some("501") => Trouble::Unable,
                    Some("408" | "425" | "429") => Trouble::Away,
                    // Another region: it would send us there each time.
                    None if text.contains("redirect without LOCATION") => Trouble::Unknown,
                    Some(status) if status.starts_with('4') => Trouble::Unknown,
                    _ => Trouble::Away,
                }
            }
            _ => Trouble::Unknown,
        }
    }
}

/// Whether an error is a store's that may work later without anybody changing the pipeline: it is full, away, broken
/// or overloaded.
pub fn is_passing(error: &Error) -> bool {
    error.kind() == ErrorKind::Unavailable && passes(error)
}

/// Whether a store does not let us in, or is not there.
pub fn is_refusal(error: &Error) -> bool {
    error.kind() == ErrorKind::Invalid && matches!(Trouble::of(error), Trouble::Forbidden | Trouble::Missing)
}

/// Whether a disk is full: what it was to write is certainly not there.
pub fn is_full(error: &Error) -> bool {
    Trouble::of(error) == Trouble::Full
}

/// [`is_passing`] of a library's error.
pub fn passes(error: &(dyn StdError + 'static)) -> bool {
    matches!(Trouble::of(error), Trouble::Full | Trouble::Away)
}

/// The error of a store that could not do `what` for the table at `location`: `a data file could not be written`. What
/// it refuses is not asked again.
pub fn failed(location: &str, what: &str, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
    let cause = cause.into();
    let (trouble, table) = (Trouble::of(cause.as_ref()), shown(location));
    let place = match directory(location) {
        Some(directory) => format!("directory `{}`", directory.display()),
        None => format!("the store of `{table}`"),
    };
    let is_local = directory(location).is_some();
    let (kind, why) = match trouble {
        Trouble::Full => (
            ErrorKind::Unavailable,
            format!(
                "no space left in {place}: make room there, or let the table lie on a larger disk; then run it again"
            ),
        ),
        Trouble::ReadOnly => (
            ErrorKind::Unavailable,
            format!(
                "{place} is on a read-only file system: mount it for writing, or mend the LOCATION; then run it again"
            ),
        ),
        Trouble::Forbidden if is_local => {
            (ErrorKind::Invalid, format!("{place} does not let us in: mend its owner or its rights"))
        }
        Trouble::Forbidden => (
            ErrorKind::Invalid,
            format!(
                "{place} does not let us in: mend the credentials ({}) or their rights",
                cloud::credentials(location)
            ),
        ),
        Trouble::Unable => (
            ErrorKind::Invalid,
            format!("{place} cannot put only where nothing is, which exactly-once needs: use another one"),
        ),
        Trouble::Missing if !is_local => {
            (ErrorKind::Invalid, format!("{place} does not exist: make the bucket, or mend the LOCATION"))
        }
        Trouble::Missing | Trouble::Away | Trouble::Unknown => {
            (ErrorKind::Unavailable, format!("{place} failed: run it again when it works"))
        }
    };
    Error::new(kind, format!("table `{table}`: {what}: {why}")).caused_by(cause)
}

/// The directory of a location on a local disk.
fn directory(location: &str) -> Option<PathBuf> {
    if !location.contains("://") {
        return Some(PathBuf::from(location));
    }
    Url::parse(location).ok().filter(|url| url.scheme() == "file")?.to_file_path().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(kind: io::ErrorKind) -> StoreError {
        // As object_store and Parquet nest it.
        let outer = io::Error::other(io::Error::from(kind));
        StoreError::Generic { store: "LocalFileSystem", source: outer.into() }
    }

    fn server(text: &str) -> StoreError {
        StoreError::Generic { store: "S3", source: text.into() }
    }

    #[test]
    fn what_passes_is_told_from_what_does_not() {
        let passes = |error: StoreError| is_passing(&failed("/t", "it was not written", error));
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::ConnectionRefused] {
            assert!(passes(local(kind)), "{kind}");
        }
        assert!(passes(StoreError::Generic { store: "l", source: io::Error::from_raw_os_error(EIO).into() }));
        assert!(passes(server("Server returned non-2xx status code: 503 Service Unavailable: ")));
        assert!(passes(server("Server returned non-2xx status code: 429 Too Many Requests: ")));
        assert!(passes(server("operation timed out")));

        for kind in [io::ErrorKind::ReadOnlyFilesystem, io::ErrorKind::PermissionDenied] {
            assert!(!passes(local(kind)), "{kind}");
        }
        assert!(!passes(server("Server returned non-2xx status code: 400 Bad Request: ")));
        assert!(!passes(server(
            "Received redirect without LOCATION, this normally indicates an incorrectly set region"
        )));
        let unable = failed("s3://b/t", "it was not shown", server("Server returned non-2xx status code: 501 : "));
        assert_eq!(unable.kind(), ErrorKind::Invalid);
        assert!(unable.message().contains("cannot put only where nothing is"), "{unable}");
        assert!(!passes(StoreError::Unauthenticated { path: "t".into(), source: "401".into() }));
        assert!(!passes(StoreError::NotFound { path: "t".into(), source: "no such bucket".into() }));
        assert!(!is_passing(&Error::unavailable("a micro-batch failed")));
        assert!(!is_passing(&Error::fenced("gone").caused_by(local(io::ErrorKind::StorageFull))));
    }

    #[test]
    fn a_failure_names_table_directory_and_remedy() {
        let full = failed("file:///data/t", "it was not written", local(io::ErrorKind::StorageFull));
        let told = "table `file:///data/t`: it was not written: no space left in directory `/data/t`: make room there";
        assert!(full.message().starts_with(told), "{full}");
        let forbidden = StoreError::PermissionDenied { path: "t".into(), source: "403".into() };
        let told = failed("gs://books/t", "it was not written", forbidden);
        assert_eq!(told.kind(), ErrorKind::Invalid);
        assert!(told.message().contains("GOOGLE_APPLICATION_CREDENTIALS"), "{told}");
        let told = failed("/data/t", "it was not written", local(io::ErrorKind::PermissionDenied));
        assert_eq!(told.kind(), ErrorKind::Invalid);
        assert!(told.message().contains("mend its owner or its rights"), "{told}");
    }
}
