"""What a job wrote: which files became visible when, and the rows in them."""
import json
import os
import re
import urllib.parse

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from measure import Failed

COLUMNS = ["ad_id", "user_id", "category", "impressed_at", "score"]
COMMIT = re.compile(r"\d{20}\.json")


def delta_commits(table):
    """(time in nanoseconds, files) of each commit with rows, in order. A commit shows when its entry gets its name."""
    log = os.path.join(table, "_delta_log")
    commits = []
    for name in sorted(os.listdir(log)) if os.path.isdir(log) else []:
        if not COMMIT.fullmatch(name):
            continue
        path = os.path.join(log, name)
        with open(path, encoding="utf-8") as file:
            actions = [json.loads(line) for line in file if line.strip()]
        # Files that were only put together from others hold no new rows.
        files = [os.path.join(table, urllib.parse.unquote(action["add"]["path"]))
                 for action in actions if action.get("add", {}).get("dataChange")]
        if files:
            commits.append((os.stat(path).st_ctime_ns, files))
    return commits


def loose_files(directory):
    """The same for a directory of files without a log: each shows when it gets its final name."""
    if not os.path.isdir(directory):
        return []
    paths = [os.path.join(directory, name) for name in os.listdir(directory) if not name.startswith((".", "_"))]
    return sorted((os.stat(path).st_ctime_ns, [path]) for path in paths)


def row_count(commits):
    return sum(pq.read_metadata(file).num_rows for _, files in commits for file in files)


def seen_and_shown(commits):
    """For each row: when the ad was seen, and when the row was there to be read; both in nanoseconds."""
    seen, shown = [], []
    for when, files in commits:
        for file in files:
            column = pq.read_table(file, columns=["impressed_at"]).column(0)
            seen.append(_micros(column) * 1000)
            shown.append(np.full(len(column), when, dtype=np.int64))
    if not seen:
        raise Failed("no rows were written")
    return np.concatenate(seen), np.concatenate(shown)


def _micros(column):
    # Some files say UTC and some say nothing, with the same numbers.
    column = column.cast(pa.timestamp("us", tz=getattr(column.type, "tz", None)))
    return column.cast(pa.int64()).to_numpy()


def _rows(commits):
    tables = [pq.read_table(file, columns=COLUMNS) for _, files in commits for file in files]
    columns = {}
    for name in COLUMNS[:3]:
        chunks = [chunk for table in tables for chunk in table[name].cast(pa.string()).chunks]
        columns[name] = pa.chunked_array(chunks, type=pa.string())
    columns["impressed_at"] = np.concatenate([_micros(table["impressed_at"]) for table in tables])
    columns["score"] = np.concatenate([table["score"].to_numpy() for table in tables])
    return columns


def largest_difference(one, other):
    """Fails unless two tables have the same rows in any order, the scores apart; how far any score is from the other's.

    Rows that agree in all but the score are paired in the order of their scores.
    """
    left, right = _rows(one), _rows(other)
    counts = len(left["score"]), len(right["score"])
    if counts[0] != counts[1]:
        raise Failed(f"the tables differ: {counts[0]} rows in one, {counts[1]} in the other")
    keys = [[], []]
    for name in COLUMNS[:3]:
        both = pa.chunked_array(left[name].chunks + right[name].chunks, type=pa.string())
        codes = pc.fill_null(both.combine_chunks().dictionary_encode().indices, -1).to_numpy()
        keys[0].append(codes[:counts[0]])
        keys[1].append(codes[counts[0]:])
    keys[0].append(left["impressed_at"])
    keys[1].append(right["impressed_at"])
    # The last key counts first.
    orders = [np.lexsort([columns["score"], *side]) for columns, side in zip((left, right), keys)]
    for name, a, b in zip(COLUMNS, *keys):
        different = np.count_nonzero(a[orders[0]] != b[orders[1]])
        if different:
            raise Failed(f"the tables differ: {different} of {counts[0]} rows in {name}, both sorted")
    if counts[0] == 0:
        raise Failed("the tables are empty")
    difference = np.abs(left["score"][orders[0]] - right["score"][orders[1]])
    if np.isnan(difference).any():
        raise Failed("the tables differ: there are scores that are not numbers")
    return float(difference.max())
