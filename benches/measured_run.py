"""One run of a pipeline up to the end of its topic, and what it took: for the scripts that measure it."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

from spark.measure import most_resident


class Run(NamedTuple):
    """Seconds of wall and CPU time (own process, all threads), the most memory, and when the first commit was told."""
    wall: float
    cpu: float
    peak_mb: float
    first: float
    # The progress of each micro-batch, as `-o json` has it.
    progress: list


def measured_run(binary, root, file, records, text=None, options=()):
    """Runs `file` of the repository, or `text` in its place, in a fresh directory `root` until its topic is read."""
    root = Path(root)
    shutil.rmtree(root, ignore_errors=True)
    for name in ("proto", "queries"):
        shutil.copytree(name, root / name)
    if text is not None:
        (root / file).write_text(text)
    start = time.monotonic()
    process = subprocess.Popen(
        [binary, "--root", str(root), "-o", "json", "run", file, "--available-now", *options],
        stdout=subprocess.PIPE, text=True)
    first, progress, over, most = None, [], threading.Event(), [0]
    watcher = threading.Thread(target=watch, args=(process.pid, over, most), daemon=True)
    watcher.start()
    for line in process.stdout:
        first = first or time.monotonic() - start
        progress.append(json.loads(line))
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - start
    over.set()
    watcher.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    read = sum(one["numInputRows"] for one in progress)
    if process.returncode != 0 or read != records:
        sys.exit(f"the run ended with {process.returncode} after {read} of {records} records")
    return Run(wall, usage.ru_utime + usage.ru_stime, max(most) / 1e6, first, progress)


def watch(pid, over, most):
    """Notes the most bytes that a process held so far, until it is over. What wait4 says of it counts this process,
    too, which the child was before it began with its own program."""
    while not over.is_set():
        most.append(most_resident(pid))
        over.wait(0.01)
