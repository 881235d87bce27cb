"""The part of scripts/soak that watches. It is started by that script."""

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from deltalake import DeltaTable

BINARY, WORK, CANARY = os.environ["BINARY"], Path(os.environ["WORK"]), os.environ["CANARY"]
BROKERS, RATE = os.environ["KAFKA_BROKERS"], int(os.environ["RATE"])
SECONDS = int(float(os.environ["MINUTES"]) * 60)

# The secret stands in options that do nothing here and are never to be told.
PIPELINE = f"""
SET flumen.trigger = '{os.environ["TRIGGER"]}';
CREATE EXTERNAL TABLE ads STORED AS KAFKA LOCATION 'kafka://${{env:KAFKA_BROKERS}}/ad-impressions'
OPTIONS ('value.proto' 'proto/ads/v1/ads.proto', 'value.message' 'ads.v1.AdImpression',
         'kafka.sasl.password' '${{env:CANARY}}', 'kafka.ssl.key.password' '${{env:CANARY}}');
CREATE EXTERNAL TABLE contents STORED AS DELTA LOCATION 'queries/data/content_with_categories';
CREATE EXTERNAL TABLE soaked (part INT NOT NULL, at BIGINT NOT NULL, ad_id VARCHAR, category VARCHAR, bid DOUBLE)
STORED AS DELTA LOCATION 'tables/soaked' OPTIONS ('log_retention' '10 minutes');
INSERT INTO soaked SELECT a._partition, a._offset, a.ad_id, c.category, a.bid
FROM ads a LEFT JOIN contents c ON a.ad_id = c.ad_id;
"""


def publish(until: float) -> None:
    """Publishes at the rate, a second's records at once."""
    next_second = time.monotonic()
    while time.monotonic() < until:
        command = [BINARY, "demo", "--publish-to", BROKERS, "--records", str(RATE)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        next_second += 1
        time.sleep(max(0.0, next_second - time.monotonic()))


def watch(pid: int, table: Path, progress: list) -> dict:
    status = Path(f"/proc/{pid}/status").read_text()
    field = lambda name: int(next(line for line in status.splitlines() if line.startswith(name)).split()[1])
    commits = progress[-60:]
    return {
        "rss_mb": field("VmRSS:") // 1024,
        "fds": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": field("Threads:"),
        "log": len(os.listdir(table / "_delta_log")),
        "files": len(DeltaTable(str(table)).file_uris()),
        "commit_ms": sum(one["durationMs"]["walCommit"] for one in commits) / max(1, len(commits)),
        "lag": progress[-1]["lag"] if progress else 0,
        "records": sum(one["numInputRows"] for one in progress),
        "version": progress[-1]["version"] if progress else 0,
    }


def grown(samples: list, key: str, share: float, slack: int) -> str | None:
    """Compares the medians of the second fifth and of the last: the first one is a start, and a round of upkeep that a
    sample falls into takes some more for a moment."""
    fifth = max(1, len(samples) // 5)
    early = statistics.median(sample[key] for sample in samples[fifth : 2 * fifth])
    late = statistics.median(sample[key] for sample in samples[-fifth:])
    return f"{key} grew from {early} to {late}" if late > early * (1 + share) + slack else None


def secrets(texts: dict, table: Path) -> list:
    found = [name for name, text in texts.items() if CANARY in text]
    for path in table.rglob("*"):
        if path.is_file() and CANARY.encode() in path.read_bytes():
            found.append(str(path))
    return found


def main() -> None:
    root = WORK / "root"
    for name in ("proto", "queries"):
        shutil.copytree(name, root / name)
    (root / "soak.sql").write_text(PIPELINE)
    table = root / "tables" / "soaked"
    flumen = lambda *words: [BINARY, "--root", str(root), "-o", "json", *words]
    publisher = threading.Thread(target=publish, args=(time.monotonic() + SECONDS,))
    publisher.start()
    errors = open(WORK / "stderr", "w")
    run = subprocess.Popen(flumen("-v", "run", "soak.sql"), stdout=subprocess.PIPE, stderr=errors, text=True)
    progress, lines = [], []

    def listen() -> None:
        for line in run.stdout:
            lines.append(line)
            progress.append(json.loads(line))

    threading.Thread(target=listen, daemon=True).start()
    samples = []
    step = 60 if SECONDS >= 1200 else max(5, SECONDS // 20)
    print("second  rss_mb  fds  threads  log  files  commit_ms  lag  records  version", flush=True)
    for second in range(step, SECONDS + 1, step):
        time.sleep(step)
        if run.poll() is not None:
            sys.exit(f"it ended with {run.returncode}: {(WORK / 'stderr').read_text()[-2000:]}")
        if (table / "_delta_log").exists():
            sample = watch(run.pid, table, progress)
            samples.append(sample)
            print(second, *(f"{value:.2f}" if isinstance(value, float) else value for value in sample.values()), flush=True)
    publisher.join()
    run.send_signal(signal.SIGTERM)
    ended = run.wait()
    errors.close()
    rest = subprocess.run(flumen("run", "soak.sql", "--available-now"), capture_output=True, text=True)
    texts = {
        "stdout": "".join(lines),
        "stderr": (WORK / "stderr").read_text(),
        "the rest": rest.stdout + rest.stderr,
    }
    for words in (["check", "soak.sql"], ["explain", "soak.sql"], ["status", "soak.sql"], ["maintain", "soak.sql"]):
        told = subprocess.run(flumen("-vv", *words), capture_output=True, text=True)
        texts[words[0]] = told.stdout + told.stderr
    away = dict(os.environ, KAFKA_BROKERS="127.0.0.1:1")
    broken = flumen("-vv", "--set", "flumen.broker_timeout=2 seconds", "run", "soak.sql", "--available-now")
    told = subprocess.run(broken, capture_output=True, text=True, env=away)
    texts["an error"] = told.stdout + told.stderr

    problems = [f"SIGTERM: exit code {ended}"] if ended else []
    problems += [f"the rest: {rest.stderr}"] if rest.returncode else []
    problems += [f"the secret stands in {name}" for name in secrets(texts, table)]
    problems += filter(None, [
        grown(samples, "rss_mb", 0.10, 10),
        grown(samples, "fds", 0.10, 5),
        grown(samples, "threads", 0.10, 2),
        grown(samples, "files", 0.50, 120),
        grown(samples, "commit_ms", 0.50, 2),
        *([grown(samples, "log", 0.10, 120)] if SECONDS >= 3000 else []),
    ])
    rows = DeltaTable(str(table)).to_pyarrow_dataset().to_table(columns=["part", "at"]).group_by("part").aggregate(
        [("at", "count"), ("at", "min"), ("at", "max"), ("at", "count_distinct")])
    total = 0
    for part in rows.to_pylist():
        total += part["at_count"]
        expected = part["at_max"] - part["at_min"] + 1
        if not part["at_count"] == part["at_count_distinct"] == expected:
            problems.append(f"partition {part['part']}: {part}")
    print(f"{total} records in {DeltaTable(str(table)).version()} versions, {total / SECONDS:.0f} a second")
    if problems:
        sys.exit("\n".join(problems))
    print("nothing grew, each record is there once, the secret was told nowhere")


main()
