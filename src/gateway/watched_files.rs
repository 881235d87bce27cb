//! Small files that are read again when they change: certificates and credentials.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;

use crate::clock::Clock;
use crate::error::{Error, Result};

/// A file may have this many bytes: 1 MiB.
const MAX_BYTES: u64 = 1 << 20;

/// How often files are looked at, at most.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Makes something of the contents of files.
type Parse<T> = dyn Fn(&[Vec<u8>]) -> Result<T> + Send + Sync;

/// What a few files say, as long as they say it.
pub(super) struct WatchedFiles<T> {
    paths: Vec<PathBuf>,
    clock: Arc<dyn Clock>,
    parse: Box<Parse<T>>,
    state: Mutex<State<T>>,
}

struct State<T> {
    contents: Vec<Vec<u8>>,
    value: Arc<T>,
    looked: DateTime<Utc>,
}

impl<T> WatchedFiles<T> {
    /// Reads the files.
    ///
    /// # Errors
    /// `Invalid` when a file cannot be read, or what they say is wrong.
    pub(super) fn open(
        paths: Vec<PathBuf>,
        clock: Arc<dyn Clock>,
        parse: impl Fn(&[Vec<u8>]) -> Result<T> + Send + Sync + 'static,
    ) -> Result<Self> {
        let contents = read_all(&paths)?;
        let value = Arc::new(parse(&contents)?);
        let state = Mutex::new(State { contents, value, looked: clock.now() });
        Ok(Self { paths, clock, parse: Box::new(parse), state })
    }

    /// What they say. When they have changed and are wrong, it is what they said before.
    pub(super) fn current(&self) -> Arc<T> {
        let now = self.clock.now();
        let mut state = self.state.lock();
        let is_fresh = (now - state.looked).to_std().is_ok_and(|age| age < LOOK_EVERY);
        if is_fresh {
            return Arc::clone(&state.value);
        }
        state.looked = now;
        match read_all(&self.paths) {
            Ok(contents) if contents == state.contents => {}
            Ok(contents) => match (self.parse)(&contents) {
                Ok(value) => {
                    tracing::info!(files = ?self.paths, "read again: they have changed");
                    state.value = Arc::new(value);
                    state.contents = contents;
                }
                Err(error) => tracing::warn!(%error, "the files have changed and are wrong: the former ones stay"),
            },
            Err(error) => tracing::warn!(%error, "the files cannot be read: the former ones stay"),
        }
        Arc::clone(&state.value)
    }
}

fn read_all(paths: &[PathBuf]) -> Result<Vec<Vec<u8>>> {
    paths.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let failed = |error: std::io::Error| {
        Error::invalid(format!("file {} cannot be read; give one that can be", path.display())).caused_by(error)
    };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > MAX_BYTES {
        return Err(Error::invalid(format!(
            "file {} has {length} bytes, at most {MAX_BYTES} are read; give a smaller one",
            path.display()
        )));
    }
    std::fs::read(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SetClock;

    #[test]
    fn files_are_read_again_when_they_are_right() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "1").unwrap();
        let clock = Arc::new(SetClock::default());
        let parse = |contents: &[Vec<u8>]| {
            let text = String::from_utf8_lossy(&contents[0]).into_owned();
            text.parse::<i32>().map_err(|_| Error::invalid("no number; write one"))
        };
        let files = WatchedFiles::open(vec![path.clone()], Arc::<SetClock>::clone(&clock), parse).unwrap();
        std::fs::write(&path, "2").unwrap();
        assert_eq!(*files.current(), 1);
        clock.advance(LOOK_EVERY);
        assert_eq!(*files.current(), 2);
        for wrong in [Some("x"), None] {
            match wrong {
                Some(text) => std::fs::write(&path, text).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            clock.advance(LOOK_EVERY);
            assert_eq!(*files.current(), 2);
        }
        std::fs::write(&path, "3").unwrap();
        clock.advance(LOOK_EVERY);
        assert_eq!(*files.current(), 3);
        assert!(WatchedFiles::open(vec![dir.path().join("none")], clock, |_| Ok(())).is_err());
    }
}
