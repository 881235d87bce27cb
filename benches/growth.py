"""The reference job under other circumstances, for scripts/bench-growth. `GROWTH` says which grow."""

import os
import statistics
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from measured_run import measured_run

BINARY, WORK, BROKERS = os.environ["BINARY"], Path(os.environ["WORK"]), os.environ["KAFKA_BROKERS"]
FILE = "queries/bench_main_job.sql"
# What of the reference job is another thing here.
MAX_ROWS = "'max_rows' '500000'"
LOOKUP = "STORED AS DELTA LOCATION 'queries/data/content_with_categories'"
SINK = "LOCATION '${env:FLUMEN_BENCH_TABLE:-tables/bench_scored_impressions}'"


def fill(topic, records, partitions=2, record_bytes=None):
    """Makes and fills a topic."""
    subprocess.run(["scripts/kafka", "topic", "--dir", WORK / "kafka", topic, str(partitions)],
                   check=True, stdout=subprocess.DEVNULL)
    size = ["--record-bytes", str(record_bytes)] if record_bytes else []
    subprocess.run([BINARY, "demo", "--publish-to", BROKERS, "--topic", topic, "--records", str(records), *size],
                   check=True, stdout=subprocess.DEVNULL)


def run(topic, records, max_rows=500_000, lookup=LOOKUP, memory="1 GB"):
    """The reference job over a topic, without upkeep."""
    job = Path(FILE).read_text()
    others = ((MAX_ROWS, f"'max_rows' '{max_rows}'"), (LOOKUP, lookup), (SINK, f"{SINK} OPTIONS ('maintain' 'off')"))
    for old, new in others:
        assert job.count(old) == 1, f"{FILE} does not say {old}"
        job = job.replace(old, new)
    os.environ["FLUMEN_BENCH_TOPIC"] = topic
    return measured_run(BINARY, WORK / "root", FILE, records, job, ("--set", f"flumen.memory_limit={memory}"))


def median_ms(progress, key="triggerExecution"):
    """Of the micro-batches behind the first one."""
    return statistics.median(one["durationMs"][key] for one in progress[1:] or progress)


def table(title, columns, rows):
    print(f"\n{title}")
    widths = [max(len(column), 11) for column in columns]
    print("  " + " ".join(f"{column:>{width}}" for column, width in zip(columns, widths)))
    for row in rows:
        print("  " + " ".join(f"{cell:>{width}}" for cell, width in zip(row, widths)), flush=True)


def partitions():
    rows = []
    for count in (1, 8, 64, 512):
        fill(f"partitions-{count}", 1_000_000, partitions=count)
        took = run(f"partitions-{count}", 1_000_000)
        rows.append((count, f"{took.wall:.2f}", f"{1e6 / took.cpu:,.0f}", f"{took.peak_mb:.0f}", f"{took.first:.2f}"))
    table("1,000,000 records from a topic of so many partitions:",
          ("partitions", "wall s", "records/cpu-s", "peak MB", "first commit s"), rows)


def catalogue(rows):
    """A lookup of so many ads; the demo's records name 12,000 of them, or fewer."""
    path = WORK / f"contents-{rows}.parquet"
    numbers = range(rows)
    pq.write_table(pa.table({
        "ad_id": pa.array(f"ad-{n:05}" for n in numbers),
        "category": pa.array(("sport", "news", "music", "games")[n % 4] for n in numbers),
        "rank": pa.array((n % 97 / 97 for n in numbers), pa.float64()),
        "price": pa.array((n % 991 / 10 for n in numbers), pa.float64()),
    }), path)
    return f"STORED AS PARQUET LOCATION '{path}'"


def lookup():
    fill("lookup", 1_000_000)
    rows = []
    for count in (1_000, 100_000, 5_000_000):
        took = run("lookup", 1_000_000, 50_000, catalogue(count), "4 GB")
        rows.append((f"{count:,}", f"{took.wall:.2f}", f"{took.cpu:.2f}", f"{took.peak_mb:.0f}", f"{took.first:.2f}",
                     f"{took.progress[0]['durationMs']['triggerExecution']:.0f}", f"{median_ms(took.progress):.1f}"))
    table("1,000,000 records in micro-batches of 50,000, joined with a lookup of so many rows:",
          ("rows", "wall s", "cpu s", "peak MB", "first commit s", "first ms", "later ms"), rows)


def record():
    rows = []
    for size, records in ((50, 2_000_000), (500, 1_000_000), (50_000, 20_000)):
        fill(f"record-{size}", records, record_bytes=size)
        took = run(f"record-{size}", records)
        rows.append((f"{size:,}", f"{records:,}", f"{took.wall:.2f}", f"{records / took.cpu:,.0f}",
                     f"{records * size / took.cpu / 1e6:,.0f}", f"{took.peak_mb:.0f}"))
    table("records of about so many bytes:",
          ("bytes", "records", "wall s", "records/cpu-s", "MB/cpu-s", "peak MB"), rows)


def micro_batch():
    fill("small", 10_000)
    fill("medium", 1_000_000)
    fill("large", 4_000_000)
    rows = []
    for topic, records, size in (("small", 10_000, 10), ("medium", 1_000_000, 10_000), ("large", 4_000_000, 1_000_000)):
        took = run(topic, records, size)
        stages = ("queryPlanning", "addBatch", "closeFiles", "walCommit")
        count = len(took.progress)
        rows.append((f"{size:,}", count, f"{median_ms(took.progress):.2f}",
                     *(f"{median_ms(took.progress, stage):.2f}" for stage in stages),
                     f"{took.cpu * 1e3 / count:.2f}", f"{took.cpu * 1e6 / records:.2f}", f"{took.peak_mb:.0f}"))
    table("micro-batches of so many records (medians in ms; CPU of the whole run):",
          ("records", "count", "whole", "planning", "run", "close", "commit", "CPU ms each", "CPU us/record",
           "peak MB"), rows)


{"partitions": partitions, "lookup": lookup, "record": record, "micro-batch": micro_batch}[os.environ["GROWTH"]]()
