//! The commands of the documents that a user copies, run as they stand there.

use std::path::Path;
use std::process::Command;

use crate::ads::impressions;
use crate::binary::{copy_dir, finish, repository, workspace};
use crate::broker::Broker;
use crate::topics;

/// The commands of `flumen` in the code blocks of a document, continued lines joined, without what stands around them.
fn commands(document: &str) -> Vec<String> {
    let text = std::fs::read_to_string(repository().join("docs").join(document)).unwrap().replace("\\\n", " ");
    let mut inside = false;
    let mut commands = Vec::new();
    for line in text.lines() {
        inside ^= line.starts_with("```");
        let mut line = line.trim();
        for before in ["- ", "run: "] {
            line = line.strip_prefix(before).unwrap_or(line);
        }
        let line = line.split(" #").next().unwrap_or(line).split(" || ").next().unwrap_or(line).trim();
        if inside && line.starts_with("flumen ") {
            commands.push(line.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
    commands
}

/// Runs a command as a shell does; its exit code has to be 0.
fn shell(root: &Path, topic: &str, command: &str) {
    let binary = Path::new(env!("CARGO_BIN_EXE_flumen")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command.replace("ad-impressions", topic)).current_dir(root).env("PATH", path);
    shell.env("KAFKA_BROKERS", Broker::shared().address());
    finish(&mut shell).exits(0);
}

#[test]
fn the_commands_for_ci_do_what_they_say() {
    let topic = topics::new_topic(Broker::shared(), "documented", 2);
    topics::produce(Broker::shared(), &topic, 0, &impressions(0..300));
    let dir = workspace();
    let root = dir.path();
    for file in ["score_impressions.sql", "score_impressions.test.yaml"] {
        let path = root.join("queries").join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("ad-impressions", &topic)).unwrap();
    }
    // Its cases say the name of the topic; those of the others say it too.
    for file in ["bench_main_job.test.yaml", "bench_main_job_trees.test.yaml"] {
        std::fs::remove_file(root.join("queries").join(file)).unwrap();
    }
    let main = tempfile::tempdir().unwrap();
    copy_dir(root, &main.path().join("main"));
    copy_dir(&main.path().join("main"), &root.join("main"));
    let all = commands("ci.md");
    assert_eq!(all.len(), 13, "{all:?}");
    let (records, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|command| command.starts_with("flumen record"));
    records.iter().for_each(|command| shell(root, &topic, command));
    let accepts = others.iter().find(|command| command.contains("/accepted")).unwrap();
    shell(root, &topic, accepts);
    for command in &others {
        for dir in ["accepted", "replayed"] {
            if command.contains(" replay ") && command.ends_with(dir) {
                drop(std::fs::remove_dir_all(root.join(dir)));
            }
        }
        shell(root, &topic, command);
    }
    let results = std::fs::read_to_string(root.join("test-results.xml")).unwrap();
    assert!(results.contains("failures=\"0\"") && results.contains("score_impressions.test.yaml"), "{results}");
}

#[test]
fn the_commands_for_cases_do_what_they_say() {
    let dir = workspace();
    let all = commands("testing.md");
    assert_eq!(all.len(), 2, "{all:?}");
    all.iter().for_each(|command| shell(dir.path(), "ad-impressions", command));
    shell(dir.path(), "ad-impressions", "flumen test --schema > flumen-test.schema.json");
    // The case of the document is one.
    let text = std::fs::read_to_string(repository().join("docs/testing.md")).unwrap();
    let case = text.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    std::fs::write(dir.path().join("queries/score_impressions.test.yaml"), case).unwrap();
    shell(dir.path(), "ad-impressions", "flumen test queries/score_impressions.test.yaml");
}
