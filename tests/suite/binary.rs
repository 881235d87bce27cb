//! The real binary, run as a user runs it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// The repository's root.
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// `flumen --root ROOT ARGS…`, not yet started.
pub fn flumen(root: &Path, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flumen"));
    command.arg("--root").arg(root).args(args).env_remove("KAFKA_BROKERS").stdin(Stdio::null());
    command
}

/// What a finished run left behind.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Finished {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Finished {
    /// The same, when the exit code is `code`.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Each line of stdout as JSON.
    pub fn json(&self) -> Vec<serde_json::Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
    }
}

/// Runs to the end.
pub fn finish(command: &mut Command) -> Finished {
    command.output().expect("flumen starts").into()
}

/// A run in the background; killed when dropped.
pub struct Background(Option<Child>);

impl Background {
    pub fn start(command: &mut Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(Some(command.spawn().expect("flumen starts")))
    }

    /// What it says goes to these files meanwhile, not to whoever waits for its end.
    pub fn start_telling(command: &mut Command, stdout: &Path, stderr: &Path) -> Self {
        let file = |path: &Path| std::fs::File::create(path).expect("a file for what it says");
        command.stdout(file(stdout)).stderr(file(stderr));
        Self(Some(command.spawn().expect("flumen starts")))
    }

    pub fn signal(&self, name: &str) {
        let pid = self.0.as_ref().expect("still running").id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status().expect("kill runs");
        assert!(status.success(), "kill -s {name} {pid}");
    }

    pub fn running(&mut self) -> bool {
        self.0.as_mut().expect("not waited for").try_wait().expect("a child").is_none()
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Finished {
        self.0.take().expect("not waited for").wait_with_output().expect("a child").into()
    }

    /// `kill -9`, at once.
    pub fn kill(mut self) {
        let mut child = self.0.take().expect("not waited for");
        child.kill().expect("a child");
        child.wait().expect("a child");
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let Some(mut child) = self.0.take() else { return };
        drop(child.kill());
        match child.wait_with_output() {
            // A test that fails while it runs shows what it said.
            Ok(output) if std::thread::panicking() => {
                let said = Finished::from(output);
                eprintln!("flumen said\n{}\n{}", said.stdout, said.stderr);
            }
            _ => {}
        }
    }
}

/// Waits until `condition` holds; fails after `limit`.
#[track_caller]
pub fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let started = std::time::Instant::now();
    while !condition() {
        assert!(started.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A directory to run in, with the shipped protos and queries in it.
pub fn workspace() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for name in ["proto", "queries"] {
        copy_dir(&repository().join(name), &dir.path().join(name));
    }
    dir
}

/// Copies a directory with all that is in it.
pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a copy");
        }
    }
}
