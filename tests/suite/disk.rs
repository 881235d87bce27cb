//! Tables on a disk that is full, or that nobody may write to, through the real binary: a file system of a few
//! megabytes, mounted where only the test and the binary see it.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::ads::impressions;
use crate::binary::{Background, Finished, copy_dir, finish, until, workspace};
use crate::broker::Broker;
use crate::{delta, topics};

const FILE: &str = "land.sql";
const LIMIT: Duration = Duration::from_secs(60);
/// What a small file takes of the disk.
const PAGE: u64 = 4_096;
/// Mounts a file system in the memory, then stays until its input ends, as it does when the test is gone.
const HOLD: &str = r#"mount -t tmpfs -o size=4m small "$0" && echo mounted && exec cat"#;

/// A file system of 4 MB in a mount namespace of its own, in a user namespace where the kernel lets plain users make
/// one; both end with the value.
struct Disk {
    holder: Child,
    at: PathBuf,
    enter: &'static [&'static str],
}

impl Disk {
    fn mount(at: &Path) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let mut told = String::new();
        let ways: [(&str, &[&str]); 2] =
            [("-rm", &["--user", "--mount", "--preserve-credentials"]), ("-m", &["--mount"])];
        for (unshare, enter) in ways {
            let mut command = Command::new("unshare");
            command.args([unshare, "sh", "-c", HOLD]).arg(at);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut holder = command.spawn().expect("this test needs `unshare` and `nsenter` (util-linux)");
            let mut line = String::new();
            BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
            if line == "mounted\n" {
                return Self { holder, at: at.to_path_buf(), enter };
            }
            holder.stderr.take().unwrap().read_to_string(&mut told).unwrap();
            holder.wait().unwrap();
        }
        panic!(
            "this test mounts a small file system and may not: {told}It needs user namespaces (as root: sysctl \
             kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0), or to be run by root; \
             a container needs --cap-add SYS_ADMIN or --privileged"
        );
    }

    /// The command, run where the file system is mounted.
    fn inside(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        inside.arg("--target").arg(self.holder.id().to_string()).args(self.enter).arg("--");
        inside.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        inside
    }

    /// A path on it, as the test sees it.
    fn path(&self, name: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.at.strip_prefix("/").unwrap()).join(name)
    }

    /// Fills it but for some pages.
    fn fill(&self, free_pages: u64) {
        let mut filler = OpenOptions::new().create(true).append(true).open(self.path("filler")).unwrap();
        loop {
            match filler.write(&[0; PAGE as usize]) {
                Ok(_) => {}
                Err(full) if full.kind() == ErrorKind::StorageFull => break,
                Err(other) => panic!("{other}"),
            }
        }
        let length = filler.metadata().unwrap().len();
        filler.set_len(length - free_pages * PAGE).unwrap();
    }

    fn make_room(&self) {
        std::fs::remove_file(self.path("filler")).unwrap();
    }

    /// Every file below a table, but for directories.
    fn files(&self, table: &str) -> BTreeSet<PathBuf> {
        let root = self.path(table);
        let (mut files, mut left) = (BTreeSet::new(), vec![root.clone()]);
        while let Some(dir) = left.pop() {
            // A file may go while the directory is read.
            for entry in std::fs::read_dir(dir).unwrap().flatten() {
                match entry.path() {
                    path if path.is_dir() => left.push(path),
                    path => _ = files.insert(path.strip_prefix(&root).unwrap().to_path_buf()),
                }
            }
        }
        files
    }

    /// The offsets in the table as others read it, sorted.
    fn offsets(&self) -> Vec<i64> {
        // Libraries resolve `/proc/…/root` to the root of this process.
        let copy = tempfile::tempdir().unwrap();
        copy_dir(&self.path("landed"), copy.path());
        let mut offsets: Vec<i64> =
            delta::read_with_python(copy.path()).rows.iter().map(|row| row["at"].as_i64().unwrap()).collect();
        offsets.sort_unstable();
        offsets
    }

    fn version(&self) -> usize {
        delta::log(&self.path("landed")).len()
    }

    fn position(&self) -> i64 {
        delta::txns(&self.path("landed")).iter().filter(|(id, _)| id.starts_with("flumen:")).map(|(_, at)| at).sum()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}

struct Place {
    dir: tempfile::TempDir,
    topic: String,
}

impl Place {
    /// A table in many partitions: some of a micro-batch's files find room where others do not.
    fn new(name: &str) -> Self {
        let (dir, topic) = (workspace(), topics::new_topic(Broker::shared(), name, 1));
        let text = format!(
            "CREATE EXTERNAL TABLE ads STORED AS KAFKA LOCATION 'kafka://${{env:KAFKA_BROKERS}}/{topic}'
             OPTIONS ('value.proto' 'proto/ads/v1/ads.proto', 'value.message' 'ads.v1.AdImpression');
             CREATE EXTERNAL TABLE landed (at BIGINT NOT NULL, eighth BIGINT NOT NULL, ad_id VARCHAR)
             STORED AS DELTA PARTITIONED BY (eighth) LOCATION 'tables/landed';
             INSERT INTO landed SELECT _offset, _offset % 8, ad_id FROM ads;"
        );
        std::fs::write(dir.path().join(FILE), text).unwrap();
        Self { dir, topic }
    }

    fn disk(&self) -> Disk {
        Disk::mount(&self.dir.path().join("tables"))
    }

    fn produce(&self, ids: std::ops::Range<u64>) {
        topics::produce(Broker::shared(), &self.topic, 0, &impressions(ids));
    }

    fn flumen(&self, more: &[&str]) -> Command {
        Broker::shared().flumen(self.dir.path(), [&["-o", "json", "run", FILE][..], more].concat())
    }

    fn bounded(&self) -> Command {
        self.flumen(&["--available-now", "--set", "flumen.store_timeout=300 milliseconds"])
    }
}

/// The lines of warnings and errors that say `word`.
fn told<'t>(text: &'t str, word: &str) -> Vec<&'t str> {
    text.lines().filter(|line| !line.contains("DEBUG") && line.contains(word)).collect()
}

#[test]
fn a_full_disk_is_waited_for() {
    let place = Place::new("disk-full");
    let disk = place.disk();
    place.produce(0..100);
    let [out, err] = ["out", "err"].map(|name| place.dir.path().join(name));
    let mut command = disk.inside(&place.flumen(&["--set", "flumen.trigger=20 milliseconds"]));
    command.env("FLUMEN_LOG", "flumen=debug");
    let run = Background::start_telling(&mut command, &out, &err);
    until("the first records", LIMIT, || disk.path("landed").exists() && disk.position() == 100);

    // Room for three of the eight files of a micro-batch.
    disk.fill(3);
    let (version, files) = (disk.version(), disk.files("landed"));
    place.produce(100..200);
    let said = || std::fs::read_to_string(&err).unwrap();
    until("it has tried four times", LIMIT, || said().matches("still waiting").count() >= 3);
    until("nothing is left of a try", LIMIT, || disk.files("landed") == files);
    assert_eq!((disk.version(), disk.position()), (version, 100));
    place.produce(200..300);
    disk.make_room();
    until("it goes on by itself", LIMIT, || disk.position() == 300);
    until("it says so", LIMIT, || said().contains("the store works again"));
    run.signal("TERM");
    run.wait().exits(0);

    let said = said();
    let waits = told(&said, "no space left");
    let [line] = waits[..] else { panic!("said once: {waits:#?}") };
    let directory = place.dir.path().join("tables/landed").display().to_string();
    for part in ["query landed", &format!("table `{directory}"), &format!("in directory `{directory}"), "make room"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert_eq!(told(&said, "works again").len(), 1, "{said}");
    assert!(!said.contains("panicked"), "{said}");
    assert_eq!(disk.offsets(), (0..300).collect::<Vec<i64>>());
    let named = delta::log(&disk.path("landed")).iter().flatten().filter(|action| action.get("add").is_some()).count();
    let written = disk.files("landed").iter().filter(|file| file.extension().is_some_and(|e| e == "parquet")).count();
    assert_eq!(named, written, "no file is left that no version names");
}

#[test]
fn a_bounded_run_gives_up_on_a_full_disk_wherever_it_gets_full() {
    let place = Place::new("disk-bounded");
    let disk = place.disk();
    let mut records = 0;
    let mut failures = 0;
    for free_pages in 0..14 {
        place.produce(records..records + 40);
        disk.fill(free_pages);
        let before = disk.path("landed").exists().then(|| (disk.version(), disk.files("landed")));
        let run = finish(&mut disk.inside(&place.bounded()));
        if run.code != Some(0) {
            failures += 1;
            let Finished { stderr, .. } = run.exits(1);
            assert!(stderr.contains("no space left in directory"), "{free_pages}: {stderr}");
            assert!(stderr.contains("make room there"), "{free_pages}: {stderr}");
            assert!(!stderr.contains("panicked"), "{free_pages}: {stderr}");
            let after = disk.path("landed").exists().then(|| (disk.version(), disk.files("landed")));
            // The first commit has no rows and may find room where the records do not.
            assert!(before.is_none() || after == before, "{free_pages}: {after:?}");
        }
        disk.make_room();
        finish(&mut disk.inside(&place.bounded())).exits(0);
        records += 40;
        assert_eq!(disk.position(), records as i64);
    }
    // Eight data files and an entry of the log.
    assert!((8..14).contains(&failures), "{failures} runs failed");
    assert_eq!(disk.offsets(), (0..records as i64).collect::<Vec<_>>());
}

#[test]
fn a_disk_that_nobody_may_write_to_is_named_and_not_waited_for() {
    let place = Place::new("disk-read-only");
    let disk = place.disk();
    place.produce(0..40);
    let remount = |how: &str| {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,bind,{how}")]).arg(&disk.at);
        finish(&mut disk.inside(&mount)).exits(0);
    };
    let directory = place.dir.path().join("tables/landed");
    let named = format!("directory `{}", directory.display());
    remount("ro");
    for run in [place.flumen(&[]), place.bounded()] {
        let refused = finish(&mut disk.inside(&run)).exits(1).stderr;
        assert!(refused.contains(&named) && refused.contains("read-only file system"), "{refused}");
    }
    remount("rw");
    finish(&mut disk.inside(&place.bounded())).exits(0);
    // It turns read-only below a table.
    place.produce(40..80);
    remount("ro");
    let refused = finish(&mut disk.inside(&place.flumen(&[]))).exits(1).stderr;
    assert!(refused.contains(&named) && refused.contains("mount it for writing"), "{refused}");
    remount("rw");
    finish(&mut disk.inside(&place.bounded())).exits(0);
    assert_eq!(disk.offsets(), (0..80).collect::<Vec<i64>>());
}

#[test]
fn a_directory_without_rights_is_named_and_not_waited_for() {
    let place = Place::new("disk-rights");
    place.produce(0..40);
    let tables = place.dir.path().join("tables");
    std::fs::create_dir(&tables).unwrap();
    let rights = |mode| std::fs::set_permissions(&tables, std::fs::Permissions::from_mode(mode)).unwrap();
    rights(0o555);
    for run in [place.flumen(&[]), place.bounded()] {
        // Root may do anything, but not in a user namespace that does not know it.
        let mut unshared = Command::new("unshare");
        unshared.arg("--user").arg(run.get_program()).args(run.get_args()).stdin(Stdio::null());
        unshared.env("KAFKA_BROKERS", Broker::shared().address());
        let refused = finish(&mut unshared).exits(2).stderr;
        let named = format!("directory `{}/landed", tables.display());
        assert!(refused.contains(&named) && refused.contains("mend its owner or its rights"), "{refused}");
    }
    rights(0o755);
    finish(&mut place.bounded()).exits(0);
    assert!(tables.join("landed/_delta_log").exists());
}
