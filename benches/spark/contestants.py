"""The same job in Flumen, Spark and Flink: how each is started, what it wrote, and how far it was at which time."""
import glob
import json
import math
import os
import shutil
from dataclasses import dataclass
from typing import Callable

import pyarrow.parquet as pq

import tables
from measure import Failed

HERE = os.path.dirname(os.path.abspath(__file__))
REPOSITORY = os.path.dirname(os.path.dirname(HERE))
QUERIES = {"logistic": "queries/bench_main_job.sql", "trees": "queries/bench_main_job_trees.sql"}
MODELS = {"logistic": "queries/data/click_probability_spark", "trees": "queries/data/click_probability.json"}
WEIGHTS = "queries/data/click_probability_linear.json"
LOOKUP = "queries/data/content_with_categories"
ROWS_A_BATCH = 500_000
# Spark shares them out over partitions and rounds down: a micro-batch more, of a few rows, would count against it.
SPARE_ROWS = 10
# What Flink's own start script opens up to it on Java 17.
FLINK_OPENS = ("java.base/java.lang", "java.base/java.util", "java.base/java.time", "java.base/java.net",
               "java.base/java.io", "java.base/java.nio", "java.base/sun.nio.ch", "java.base/java.text",
               "java.base/java.lang.reflect", "java.base/java.lang.invoke", "java.base/java.math",
               "java.base/java.util.concurrent", "java.base/java.util.concurrent.atomic",
               "java.base/java.util.concurrent.locks")


@dataclass
class Setting:
    """What all of them share."""
    binary: str
    cache: str
    work: str
    brokers: str


@dataclass
class Job:
    name: str
    command: list
    env: dict
    log: str
    # (time in nanoseconds, files) of each commit with rows.
    commits: Callable[[], list]
    # (time in nanoseconds, records by then) in order, as far as it can be told.
    marks: Callable[[], list]
    # Seconds of a live run that do not count.
    warm_up: int
    # So many seconds without a commit mean that it is through.
    quiet: int


def flumen(setting, directory, topic, model, trigger=None):
    """`trigger`: that of a continuous run; without it up to the end of the topic."""
    root = os.path.join(directory, "root")
    for name in ("proto", "queries"):
        shutil.copytree(os.path.join(REPOSITORY, name), os.path.join(root, name))
    log = os.path.join(directory, "flumen")
    how = ["--available-now"] if trigger is None else ["--set", f"flumen.trigger={trigger}"]

    def commits():
        return tables.delta_commits(os.path.join(root, "table"))

    return Job(
        name="Flumen" if trigger is None else f"Flumen, trigger {trigger}",
        command=[setting.binary, "--root", root, "-o", "json", "run", QUERIES[model], *how],
        env={"KAFKA_BROKERS": setting.brokers, "FLUMEN_BENCH_TOPIC": topic, "FLUMEN_BENCH_TABLE": "table"},
        log=log, commits=commits, marks=lambda: _batches(f"{log}.out", commits()), warm_up=10, quiet=5)


def spark(setting, directory, topic, model, live=False):
    home = _only(os.path.join(setting.cache, "venv/lib/python3*/site-packages/pyspark"))
    table = os.path.join(directory, "table")
    log = os.path.join(directory, "spark")

    def commits():
        return tables.delta_commits(table)

    return Job(
        name="Spark",
        command=[
            os.path.join(home, "bin/spark-submit"), "--properties-file", os.path.join(HERE, "spark.conf"),
            "--driver-class-path", os.path.join(setting.cache, "jars/*"),
            "--driver-java-options", f"-Djava.io.tmpdir={directory}",
            os.path.join(HERE, "job.py"), "--brokers", setting.brokers, "--topic", topic,
            "--lookup", os.path.join(REPOSITORY, LOOKUP), "--table", table,
            "--checkpoint", os.path.join(directory, "checkpoint"), "--max-rows", str(ROWS_A_BATCH + SPARE_ROWS),
            "--model", model, "--model-file", os.path.join(REPOSITORY, MODELS[model]),
            *(["--live"] if live else [])],
        env={"SPARK_HOME": home, "PYSPARK_PYTHON": os.path.join(setting.cache, "venv/bin/python"),
             "SPARK_LOCAL_DIRS": directory, "PYTHONPATH": "", "SPARK_LOCAL_IP": "127.0.0.1"},
        log=log, commits=commits, marks=lambda: _batches(f"{log}.out", commits()), warm_up=30, quiet=20)


def flink(setting, directory, topic, live=False):
    """Only with the logistic regression, as an expression of SQL."""
    output = os.path.join(directory, "files")
    lookup = os.path.join(directory, "content.tsv")
    os.makedirs(output)
    _write_lookup(lookup)
    log = os.path.join(directory, "flink")
    return Job(
        name="Flink",
        command=[
            "java", "-Xmx2g", f"-Djava.io.tmpdir={directory}",
            *(f"--add-opens={package}=ALL-UNNAMED" for package in FLINK_OPENS),
            "-cp", os.path.join(setting.cache, "flink/*"), "flumen.bench.FlinkJob", setting.brokers, topic, lookup,
            output, "200ms" if live else "10s", "live" if live else "bounded", _flink_score()],
        env={}, log=log, commits=lambda: tables.loose_files(output),
        marks=lambda: _second_half(f"{log}.out"), warm_up=30, quiet=5)


def _only(pattern):
    found = glob.glob(pattern)
    if len(found) != 1:
        raise Failed(f"there should be one {pattern}, there are {len(found)}")
    return found[0]


def _batches(file, commits):
    """Records by the time of each commit, from lines of JSON that say how many each micro-batch read."""
    records, counts = 0, []
    with open(file, encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("{"):
                rows = json.loads(line).get("numInputRows") or 0
                if rows:
                    records += rows
                    counts.append(records)
    if len(counts) != len(commits):
        raise Failed(f"{file} tells of {len(counts)} micro-batches, the table has {len(commits)} commits")
    return [(when, count) for (when, _), count in zip(commits, counts)]


def _second_half(file):
    """From lines with a time and the records by then: where half of them were read, and where all were."""
    with open(file, encoding="utf-8") as lines:
        marks = [tuple(map(int, line.split())) for line in lines if line[:1].isdigit()]
    total = marks[-1][1] if marks else 0
    half = next((mark for mark in marks if mark[1] >= total / 2), None)
    end = next((mark for mark in marks if mark[1] == total), None)
    return [half, end] if total and half[0] < end[0] else []


def _write_lookup(path):
    entries = tables.delta_commits(os.path.join(REPOSITORY, LOOKUP))
    with open(path, "w", encoding="utf-8") as out:
        for _, files in entries:
            for file in files:
                for row in pq.read_table(file).to_pylist():
                    price = "" if row["price"] is None else repr(row["price"])
                    out.write(f"{row['ad_id']}\t{row['category']}\t{row['rank']!r}\t{price}\n")


def _flink_score():
    with open(os.path.join(REPOSITORY, WEIGHTS), encoding="utf-8") as file:
        learner = json.load(file)["learner"]
    *weights, bias = learner["gradient_booster"]["model"]["weights"]
    base = float(learner["learner_model_param"]["base_score"].strip("[]"))
    sum_ = f"{bias + math.log(base / (1 - base))!r}E0"
    for name, weight in zip(learner["feature_names"], weights):
        sum_ += f" + {weight!r}E0 * COALESCE(`{name}`, 0E0)"
    return f"1E0 / (1E0 + EXP(-({sum_})))"
