//! A directory of a registry's answers, as they came: `schemas/ids/7.json`, `subjects/NAME/versions/1.json`. It may be
//! committed, so that a recording is replayed where no registry is.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use url::form_urlencoded::byte_serialize;

use super::Place;
use crate::error::{Error, Result};

/// The directory.
#[derive(Debug)]
pub(super) struct Cache {
    dir: PathBuf,
}

impl Cache {
    /// The cache in `dir`, which need not exist.
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// What is kept of `place`.
    ///
    /// # Errors
    /// `Unavailable` when the file cannot be read.
    pub(super) fn read(&self, place: &Place<'_>) -> Result<Option<Vec<u8>>> {
        match fs::read(self.path(place)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed(place, error)),
        }
    }

    /// Keeps an answer: whole or not at all.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be written.
    pub(super) fn write(&self, place: &Place<'_>, bytes: &[u8]) -> Result<()> {
        let path = self.path(place);
        let dir = path.parent().unwrap_or(&self.dir);
        let written = fs::create_dir_all(dir).and_then(|()| {
            let part = path.with_extension(format!("{}.part", std::process::id()));
            let mut file = fs::File::create(&part)?;
            file.write_all(bytes)?;
            fs::rename(&part, &path)
        });
        written.map_err(|error| self.failed(place, error))
    }

    /// The error of a file that is no answer.
    pub(super) fn broken(&self, place: &Place<'_>, why: &str) -> Error {
        let path = self.path(place);
        Error::invalid(format!("{} is no answer of a schema registry: {why}. Delete it", path.display()))
    }

    fn failed(&self, place: &Place<'_>, error: io::Error) -> Error {
        let path = self.path(place);
        Error::unavailable(format!("schema cache: {}: {error}. Mend the directory's rights", path.display()))
    }

    fn path(&self, place: &Place<'_>) -> PathBuf {
        let mut path = self.dir.clone();
        let segments = place.segments();
        for segment in &segments {
            let name: String = byte_serialize(segment.as_bytes()).collect();
            // A subject may be called `..`.
            path.push(name.strip_prefix('.').map_or_else(|| name.clone(), |rest| format!("%2E{rest}")));
        }
        path.as_mut_os_string().push(".json");
        path
    }
}

impl fmt::Display for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "schema cache {}", self.dir.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_kept_under_names_that_stay_in_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path().join("c"));
        let places = [Place::Id(7), Place::Version("../a b/ö", 1), Place::Version("..", 2), Place::Version("a", 1)];
        for (at, place) in places.iter().enumerate() {
            assert_eq!(cache.read(place).unwrap(), None);
            cache.write(place, &[at as u8]).unwrap();
        }
        for (at, place) in places.iter().enumerate() {
            assert_eq!(cache.read(place).unwrap(), Some(vec![at as u8]), "{place}");
        }
        assert!(dir.path().join("c/schemas/ids/7.json").is_file());
        assert!(dir.path().join("c/subjects/%2E./versions/2.json").is_file());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
