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

/// The code blocks of a document in a language.
fn blocks(document: &str, language: &str) -> Vec<String> {
    let text = std::fs::read_to_string(repository().join("docs").join(document)).unwrap();
    let opening = format!("```{language}\n");
    text.split(&opening).skip(1).map(|rest| rest.split("\n```").next().unwrap().to_owned()).collect()
}

/// Stand-ins for what a scheduler's file imports: they run what they are told to run.
const SCHEDULERS: &str = r#"
import datetime, sys, types, subprocess, zoneinfo
def module(name, **members):
    made = types.ModuleType(name); made.__dict__.update(members); sys.modules[name] = made
class Dag:
    def __init__(self, *_, **__): pass
    def __enter__(self): return self
    def __exit__(self, *_): pass
class Bash:
    def __init__(self, bash_command, cwd, **_):
        # What Airflow makes of the template for the interval of that day.
        start = datetime.datetime(2026, 11, 22, 7, 15, tzinfo=datetime.timezone.utc)
        day = bash_command.split("{{")[1].split("}}")[0]
        day = eval(day, {"data_interval_start": types.SimpleNamespace(in_timezone=lambda zone: start.astimezone(zoneinfo.ZoneInfo(zone)))})
        subprocess.run(bash_command.split("{{")[0] + day, shell=True, cwd=cwd, check=True)
anything = lambda *_, **__: None
module("pendulum", datetime=anything, duration=anything)
module("airflow", DAG=Dag); module("airflow.providers"); module("airflow.providers.standard")
module("airflow.providers.standard.operators"); module("airflow.providers.standard.operators.bash", BashOperator=Bash)
module("airflow.timetables"); module("airflow.timetables.interval", CronDataIntervalTimetable=anything)
made = []
def asset(**_): return lambda function: made.append(function)
module("dagster", DailyPartitionsDefinition=anything, Failure=Exception, MaterializeResult=lambda metadata: metadata, asset=asset)
exec(open(sys.argv[1]).read())
for function in made:
    metadata = function(types.SimpleNamespace(partition_key="2026-11-22"))
    assert metadata["records"] == 1000 and metadata["kept"] == 800 and len(metadata["content"]) == 64, metadata
"#;

#[test]
fn the_commands_for_close_of_books_do_what_they_say() {
    let broker = Broker::shared();
    let topic = topics::new_topic(broker, "documented-calls", 2);
    let dir = workspace();
    let root = dir.path();
    let path = root.join("queries/close_of_books.sql");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("/call-summaries'", &format!("/{topic}'"))).unwrap();
    let publish = ["demo", "--publish-to", broker.address(), "--job", "calls", "--records", "1000", "--topic", &topic];
    finish(&mut broker.flumen(root, publish)).exits(0);
    let all = commands("close-of-books.md");
    assert_eq!(all.len(), 5, "{all:?}");
    all.iter().for_each(|command| shell(root, &topic, command));
    assert!(std::fs::read_to_string(root.join("2026-11-22.html")).unwrap().contains("<td>800</td>"));
    // The schedulers' lines, on a machine on which yesterday is the day.
    let bin = root.join("bin");
    std::fs::create_dir(&bin).unwrap();
    let date = bin.join("date");
    std::fs::write(
        &date,
        "#!/bin/sh\ncase \"$TZ $2\" in America/New_York*\\ days\\ ago) echo 2026-11-$((23 - ${2%% *}));; esac\n",
    )
    .unwrap();
    std::fs::set_permissions(&date, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let there = |text: &str| text.replace("/srv/flumen", &root.display().to_string());
    let here = |command: &str| format!("PATH={}:$PATH; {}", bin.display(), there(command));
    let cron = blocks("close-of-books.md", "crontab").remove(0);
    let line = cron.lines().nth(1).unwrap().splitn(6, ' ').nth(5).unwrap().replace("\\%", "%");
    shell(root, &topic, &here(&line));
    let closed = "SELECT count(*) AS n FROM _closings WHERE state = 'done'";
    let count =
        || finish(&mut broker.flumen(root, ["-o", "json", "sql", "queries/close_of_books.sql", closed])).exits(0);
    assert_eq!(count().json()[0]["n"], 4, "two closings of the 22nd, one of the 20th and of the 21st");
    let unit = blocks("close-of-books.md", "ini").remove(0);
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let start = start.replace("%%", "%").replace("$$", "$");
    shell(root, &topic, &format!("export TZ=America/New_York; {}", here(&start)));
    assert_eq!(count().json()[0]["n"], 4, "nothing is closed twice");
    let python = std::env::var("FLUMEN_PYTHON").unwrap_or_else(|_| "python3".into());
    std::fs::write(root.join("schedulers.py"), SCHEDULERS).unwrap();
    let snippets = blocks("close-of-books.md", "python");
    assert_eq!(snippets.len(), 2);
    for snippet in snippets {
        std::fs::write(root.join("snippet.py"), there(&snippet)).unwrap();
        shell(root, &topic, &format!("{python} schedulers.py snippet.py"));
    }
}
