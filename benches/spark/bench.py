"""Runs the same job in Flumen, Spark and Flink one after the other, and prints tables in Markdown.

Run by scripts/bench-spark, which says what is measured and how.
"""
import argparse
import os
import signal
import subprocess
import sys
import time

import numpy as np

import contestants
import tables
from measure import Failed, Process

RATE = 10_000
# Longer than any contestant's warm-up, and the same for all: so all tables get the same rows.
LEAD = 30
TRIGGERS = ("200 milliseconds", "50 milliseconds")
BATCH_SECONDS = 1800
START_SECONDS = 300
# The logarithms and exponentials of two libraries may differ in the last bits.
TOLERANCE = 1e-9


def arguments():
    parser = argparse.ArgumentParser()
    for name in ("--binary", "--cache", "--work", "--kafka-dir", "--brokers", "--topic"):
        parser.add_argument(name, required=True)
    parser.add_argument("--records", type=int, required=True)
    parser.add_argument("--model", choices=("logistic", "trees", "both"), required=True)
    parser.add_argument("--live-seconds", type=int, required=True, help="0: no live runs")
    parser.add_argument("--flink", action="store_true")
    return parser.parse_args()


def say(text):
    print(f"bench-spark: {text}", file=sys.stderr, flush=True)


def markdown(title, heads, rows):
    print(f"\n### {title}\n")
    print("| " + " | ".join(heads) + " |")
    print("|---" + "|---:" * (len(heads) - 1) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    sys.stdout.flush()


def number(value, digits=0):
    return "-" if value is None else f"{value:,.{digits}f}"


class Bench:
    def __init__(self, args):
        self.args = args
        self.setting = contestants.Setting(args.binary, args.cache, args.work, args.brokers)
        self.running = []
        self.runs = 0

    def directory(self):
        self.runs += 1
        path = os.path.join(self.args.work, f"run-{self.runs}")
        os.makedirs(path)
        return path

    def start(self, *args, **kwargs):
        process = Process(*args, **kwargs)
        self.running.append(process)
        return process

    def stop(self):
        for process in self.running:
            process.stop()

    # The whole topic, as fast as it goes.

    def drain(self, job):
        """Runs a job up to the end of the topic; what it took."""
        say(f"{job.name}: {self.args.records:,} records")
        process = self.start(job.command, job.log, job.env)
        process.wait(BATCH_SECONDS)
        wall = (process.ended - process.started) / 1e9
        commits, marks = job.commits(), job.marks()
        if not commits:
            raise Failed(f"{job.name} wrote nothing; the end of what it said:\n{process.tail()}")
        records = self.args.records
        result = {
            "wall": wall, "cpu": process.cpu_total(), "rate": records / wall,
            "per_cpu": records / process.cpu_total(), "peak": process.peak_whole() / 1e6,
            "first": (commits[0][0] - process.started) / 1e9, "warm_rate": None, "warm_per_cpu": None}
        if len(marks) > 1:
            (start, before), (end, after) = marks[0], marks[-1]
            cpu = process.cpu_at(end) - process.cpu_at(start)
            result["warm_rate"] = (after - before) / ((end - start) / 1e9)
            result["warm_per_cpu"] = (after - before) / cpu if cpu > 0.1 else None
        return result

    def batch(self, model):
        topic = self.args.topic
        jobs = [contestants.flumen(self.setting, self.directory(), topic, model),
                contestants.spark(self.setting, self.directory(), topic, model)]
        if self.args.flink and model == "logistic":
            jobs.append(contestants.flink(self.setting, self.directory(), topic))
        results = [self.drain(job) for job in jobs]
        for job in jobs[:2]:
            read = job.marks()[-1][1]
            if read != self.args.records:
                raise Failed(f"{job.name} read {read} of {self.args.records} records")
        names = [job.name for job in jobs]
        self.report_batch(model, names, results)
        commits = [job.commits() for job in jobs]
        rows = tables.row_count(commits[0])
        for name, of_job in zip(names[2:], commits[2:]):
            if tables.row_count(of_job) != rows:
                raise Failed(f"{name} wrote {tables.row_count(of_job)} rows, Flumen {rows}")
        difference = tables.largest_difference(commits[0], commits[1])
        print(f"\nFlumen's table and Spark's have the same {rows:,} rows; scores differ by {difference:.2g} at most.")
        if difference > TOLERANCE:
            raise Failed(f"the scores differ by {difference}, more than {TOLERANCE}")

    def report_batch(self, model, names, results):
        name = {"logistic": "logistic regression", "trees": "100 trees"}[model]
        heads = ["", "wall s", "CPU s", "records/s", "records/CPU-s", "warm records/s", "warm records/CPU-s",
                 "peak MB", "first commit s"]
        markdown(f"{self.args.records:,} records, {name}", heads, [
            [name, number(r["wall"], 2), number(r["cpu"], 2), number(r["rate"]), number(r["per_cpu"]),
             number(r["warm_rate"]), number(r["warm_per_cpu"]), number(r["peak"]), number(r["first"], 2)]
            for name, r in zip(names, results)])
        own = results[0]
        rows = []
        for name, other in zip(names[1:], results[1:]):
            row = [f"Flumen against {name}"]
            for key, more in (("rate", True), ("per_cpu", True), ("warm_rate", True), ("warm_per_cpu", True),
                              ("peak", False), ("first", False)):
                known = own[key] and other[key]
                ratio = None if not known else own[key] / other[key] if more else other[key] / own[key]
                row.append("-" if ratio is None else f"{ratio:.1f}x")
            rows.append(row)
        markdown("The same as ratios, more is better for Flumen", ["", *heads[3:]], rows)

    # Records as they come.

    def live(self, job, topic):
        """Runs a job while records come in; how long they took to be there, and what that took."""
        seconds = self.args.live_seconds
        say(f"{job.name}: {LEAD + seconds} s of {RATE:,} records a second")
        publish = [self.args.binary, "demo", "--publish-to", self.args.brokers, "--topic", topic, "--records"]
        self.start([*publish, "1000"], f"{job.log}-first", interval=5).wait(60)
        process = self.start(job.command, job.log, job.env, interval=0.2)
        self.until(job, process, START_SECONDS, "nothing was committed", lambda commits, _: commits > 0)
        publisher = self.start([*publish, str(RATE * (LEAD + seconds)), "--rate", str(RATE)],
                               f"{job.log}-publisher", interval=5)
        publisher.wait(LEAD + seconds + 300)
        self.until(job, process, 180, "there were still commits", lambda _, quiet: quiet > job.quiet)
        process.stop()
        commits = job.commits()
        seen, shown = tables.seen_and_shown(commits)
        start = publisher.started + job.warm_up * 10**9
        end = publisher.started + (LEAD + seconds - 1) * 10**9
        window = (end - start) / 1e9
        counted = (seen >= start) & (seen < end)
        if not counted.any():
            raise Failed(f"{job.name}: no record of the {seconds} s was written")
        latency = (shown - seen)[counted] / 1e9
        return {
            "name": job.name, "rows": len(seen), "percentiles": np.percentile(latency, (50, 95, 99)),
            "largest": latency.max(), "commits": sum(start <= when < end for when, _ in commits) / window,
            "cores": (process.cpu_at(end) - process.cpu_at(start)) / window,
            "peak": process.peak(start, end) / 1e6}

    @staticmethod
    def until(job, process, seconds, complaint, enough):
        """Waits until the number of commits, and the seconds since the last one came, are enough."""
        began = since = time.monotonic()
        known = 0
        while not enough(known, time.monotonic() - since):
            if not process.running():
                raise Failed(f"{job.name} ended with {process.code}; the end of what it said:\n{process.tail()}")
            if time.monotonic() - began > seconds:
                raise Failed(f"{job.name}: after {seconds} s {complaint}; the end of what it said:\n{process.tail()}")
            time.sleep(0.5)
            commits = len(job.commits())
            if commits != known:
                known, since = commits, time.monotonic()

    def live_all(self, model):
        starts = [lambda topic, trigger=trigger: contestants.flumen(
            self.setting, self.directory(), topic, model, trigger) for trigger in TRIGGERS]
        starts.append(lambda topic: contestants.spark(self.setting, self.directory(), topic, model, live=True))
        if self.args.flink and model == "logistic":
            starts.append(lambda topic: contestants.flink(self.setting, self.directory(), topic, live=True))
        results = []
        for at, start in enumerate(starts):
            topic = f"live-{at}"
            subprocess.run([os.path.join(contestants.REPOSITORY, "scripts/kafka"), "topic", "--dir",
                            self.args.kafka_dir, topic, "2"], check=True, stdout=subprocess.DEVNULL)
            result = self.live(start(topic), topic)
            say("{}: p50 {:.3f} s, p95 {:.3f} s, p99 {:.3f} s".format(result["name"], *result["percentiles"]))
            results.append(result)
        markdown(
            f"{RATE:,} records a second for {self.args.live_seconds} s: from impressed_at to the visible commit",
            ["", "p50 s", "p95 s", "p99 s", "largest s", "commits/s", "CPU cores", "peak MB"],
            [[r["name"], *(number(p, 3) for p in r["percentiles"]), number(r["largest"], 3), number(r["commits"], 1),
              number(r["cores"], 2), number(r["peak"])] for r in results])
        rows = {r["name"]: r["rows"] for r in results}
        if len(set(rows.values())) != 1:
            raise Failed(f"the live runs wrote different numbers of rows: {rows}")


def main():
    # So that what is started is ended, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    bench = Bench(arguments())
    load = subprocess.run(["uptime"], capture_output=True, text=True, check=False).stdout.strip()
    print(f"{len(os.sched_getaffinity(0))} CPUs; before: {load}")
    models = ("logistic", "trees") if bench.args.model == "both" else (bench.args.model,)
    try:
        for model in models:
            bench.batch(model)
        if bench.args.live_seconds:
            bench.live_all(models[0])
    except Failed as failure:
        say(failure)
        sys.exit(1)
    finally:
        bench.stop()


main()
