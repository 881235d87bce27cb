"""The reference job under other circumstances, for scripts/bench-growth. `GROWTH` says which grow."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

BINARY, WORK, BROKERS = os.environ["BINARY"], Path(os.environ["WORK"]), os.environ["KAFKA_BROKERS"]
ROOT = WORK / "root"
JOB = """
SET flumen.memory_limit = '{memory}';
CREATE EXTERNAL TABLE ad_impressions STORED AS KAFKA LOCATION 'kafka://{brokers}/{topic}'
OPTIONS ('value.proto' 'proto/ads/v1/ads.proto', 'value.message' 'ads.v1.AdImpression', 'max_rows' '{max_rows}');
CREATE EXTERNAL TABLE contents STORED AS {format} LOCATION '{lookup}';
CREATE FUNCTION click_probability(DOUBLE, DOUBLE, DOUBLE, DOUBLE) RETURNS DOUBLE
LANGUAGE XGBOOST AS 'queries/data/click_probability_linear.json';
CREATE EXTERNAL TABLE scored (
  ad_id VARCHAR NOT NULL, user_id VARCHAR, category VARCHAR, impressed_at TIMESTAMP NOT NULL, score DOUBLE NOT NULL)
STORED AS DELTA LOCATION 'tables/scored' OPTIONS ('maintain' 'off');
INSERT INTO scored
SELECT i.ad_id, i.user_id, c.category, i.impressed_at,
       click_probability(c.rank, c.price, date_part('hour', i.impressed_at), i.bid) AS score
FROM ad_impressions i JOIN contents c ON i.ad_id = c.ad_id;
"""
CATALOGUE = "queries/data/content_with_categories"


def fill(topic, records, partitions=2, record_bytes=None):
    """Makes and fills a topic."""
    subprocess.run(["scripts/kafka", "topic", "--dir", WORK / "kafka", topic, str(partitions)],
                   check=True, stdout=subprocess.DEVNULL)
    size = ["--record-bytes", str(record_bytes)] if record_bytes else []
    subprocess.run([BINARY, "demo", "--publish-to", BROKERS, "--topic", topic, "--records", str(records), *size],
                   check=True, stdout=subprocess.DEVNULL)


def run(topic, records, max_rows=500_000, lookup=CATALOGUE, format_="DELTA", memory="1 GB"):
    """Wall and CPU seconds, peak MB, seconds to the first commit, and the progress of each micro-batch."""
    shutil.rmtree(ROOT, ignore_errors=True)
    for name in ("proto", "queries"):
        shutil.copytree(name, ROOT / name)
    job = JOB.format(brokers=BROKERS, topic=topic, max_rows=max_rows, lookup=lookup, format=format_, memory=memory)
    (ROOT / "job.sql").write_text(job)
    start = time.monotonic()
    process = subprocess.Popen([BINARY, "--root", str(ROOT), "-o", "json", "run", "job.sql", "--available-now"],
                               stdout=subprocess.PIPE, text=True)
    first, progress = None, []
    for line in process.stdout:
        first = first or time.monotonic() - start
        progress.append(json.loads(line))
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    read = sum(one["numInputRows"] for one in progress)
    if process.returncode != 0 or read != records:
        sys.exit(f"the run ended with {process.returncode} after {read} of {records} records")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, first, progress


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
        wall, cpu, peak, first, _ = run(f"partitions-{count}", 1_000_000)
        rows.append((count, f"{wall:.2f}", f"{1e6 / cpu:,.0f}", f"{peak:.0f}", f"{first:.2f}"))
    table("1,000,000 records from a topic of so many partitions:",
          ("partitions", "wall s", "records/cpu-s", "peak MB", "first commit s"), rows)


def catalogue(rows):
    """A lookup of so many ads; the demo's records name 12,000 of them, or fewer."""
    path = ROOT.parent / f"contents-{rows}.parquet"
    numbers = range(rows)
    pq.write_table(pa.table({
        "ad_id": pa.array(f"ad-{n:05}" for n in numbers),
        "category": pa.array(("sport", "news", "music", "games")[n % 4] for n in numbers),
        "rank": pa.array((n % 97 / 97 for n in numbers), pa.float64()),
        "price": pa.array((n % 991 / 10 for n in numbers), pa.float64()),
    }), path)
    return str(path)


def lookup():
    fill("lookup", 1_000_000)
    rows = []
    for count in (1_000, 100_000, 5_000_000):
        wall, cpu, peak, first, progress = run("lookup", 1_000_000, 50_000, catalogue(count), "PARQUET", "4 GB")
        ms = [one["durationMs"]["triggerExecution"] for one in progress]
        rows.append((f"{count:,}", f"{wall:.2f}", f"{cpu:.2f}", f"{peak:.0f}", f"{first:.2f}", f"{ms[0]:.0f}",
                     f"{median_ms(progress):.1f}"))
    table("1,000,000 records in micro-batches of 50,000, joined with a lookup of so many rows:",
          ("rows", "wall s", "cpu s", "peak MB", "first commit s", "first ms", "later ms"), rows)


def record():
    rows = []
    for size, records in ((50, 2_000_000), (500, 1_000_000), (50_000, 20_000)):
        fill(f"record-{size}", records, record_bytes=size)
        wall, cpu, peak, _, _ = run(f"record-{size}", records)
        rows.append((f"{size:,}", f"{records:,}", f"{wall:.2f}", f"{records / cpu:,.0f}",
                     f"{records * size / cpu / 1e6:,.0f}", f"{peak:.0f}"))
    table("records of about so many bytes:",
          ("bytes", "records", "wall s", "records/cpu-s", "MB/cpu-s", "peak MB"), rows)


def micro_batch():
    fill("small", 10_000)
    fill("medium", 1_000_000)
    fill("large", 4_000_000)
    rows = []
    for topic, records, size in (("small", 10_000, 10), ("medium", 1_000_000, 10_000), ("large", 4_000_000, 1_000_000)):
        _, cpu, peak, _, progress = run(topic, records, size)
        stages = ("queryPlanning", "addBatch", "closeFiles", "walCommit")
        rows.append((f"{size:,}", len(progress), f"{median_ms(progress):.2f}",
                     *(f"{median_ms(progress, stage):.2f}" for stage in stages),
                     f"{cpu * 1e3 / len(progress):.2f}", f"{cpu * 1e6 / records:.2f}", f"{peak:.0f}"))
    table("micro-batches of so many records (medians in ms; CPU of the whole run):",
          ("records", "count", "whole", "planning", "run", "close", "commit", "CPU ms each", "CPU us/record",
           "peak MB"), rows)


{"partitions": partitions, "lookup": lookup, "record": record, "micro-batch": micro_batch}[os.environ["GROWTH"]]()
