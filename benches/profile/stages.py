"""Reads the stacks of `perf script` and prints the CPU time of a record, stage by stage; writes them folded, one line
a stack, as flame graphs are drawn from. Called by scripts/profile.

A sample belongs to the stage of its innermost frame that names one: a copy made by the join counts as join. What no
frame names counts as the rest. Page faults and other work of the kernel count in the stage that caused them, and are
shown in a column of their own.
"""

import os
import sys
from collections import Counter

# Part of a symbol -> its stage. The first that fits a frame counts.
STAGES = [
    ("flumen::source::", "copy out of the client"),
    ("rd_kafka", "fetch: librdkafka"),
    ("LZ4", "fetch: librdkafka"),
    ("flumen::decode", "decode"),
    ("flumen::engine::records", "decode"),
    ("flumen::model", "score"),
    ("datafusion_physical_plan::joins", "join"),
    ("flumen::contract", "contract"),
    ("flumen::sink::commit", "commit"),
    ("flumen::sink::log", "commit"),
    ("flumen::sink::writer", "write: Parquet"),
    ("parquet::", "write: Parquet"),
    ("deltalake_core::operations", "write: Parquet"),
    ("flumen::lookup", "start and lookups"),
    ("flumen::pipeline", "start and lookups"),
    ("flumen::schema", "start and lookups"),
    ("flumen::engine::query::StreamingQuery::plan", "plan"),
    ("datafusion_optimizer", "plan"),
    ("datafusion_sql", "start and lookups"),
    ("datafusion_physical_plan", "other operators"),
    ("datafusion_physical_expr", "other operators"),
]
LAST = "the rest"


def samples(lines):
    """(thread name, [symbols, innermost first]) of each sample."""
    name, frames = "", []
    for line in lines:
        line = line.rstrip("\n")
        if not line.strip():
            if name:
                yield name, frames
            name, frames = "", []
        elif line[0] in " \t" and name:
            parts = line.split(None, 1)
            frames.append(parts[1] if len(parts) > 1 else "")
        else:
            name, frames = line.split()[0], []
    if name:
        yield name, frames


def stage(name, frames):
    """The stage of a sample."""
    for symbol in frames:
        for part, of in STAGES:
            if part in symbol:
                return of
    return "fetch: librdkafka" if name.startswith("rdk:") else LAST


def is_kernel(frames):
    """Whether the sample was taken in the kernel."""
    return bool(frames) and ("[k]" in frames[0] or frames[0].startswith(("clear_page", "asm_", "entry_", "do_", "__")))


def main():
    records, frequency = int(os.environ["RECORDS"]), float(os.environ["FREQUENCY"])
    total, kernel, leaves, others, folded = Counter(), Counter(), Counter(), Counter(), Counter()
    with open(os.environ["STACKS"], encoding="utf-8", errors="replace") as lines:
        for name, frames in samples(lines):
            of = stage(name, frames)
            total[of] += 1
            kernel[of] += is_kernel(frames)
            folded[";".join(part.replace(";", ":") for part in [name, *reversed(frames)])] += 1
            leaves[frames[0] if frames else "?"] += 1
            if of == LAST:
                others[name + ": " + (frames[0] if frames else "?")] += 1
    count = sum(total.values())
    if count == 0:
        sys.exit("profile: perf took no samples; may this user run `perf record`?")
    with open(os.environ["FOLDED"], "w", encoding="utf-8") as out:
        out.writelines(f"{stack} {n}\n" for stack, n in folded.items())
    each = 1e9 / frequency / records
    print(f"{'stage':<24} {'ns a record':>11} {'share':>6} {'kernel':>7}")
    for of, n in total.most_common():
        print(f"{of:<24} {n * each:>11.0f} {n / count:>6.1%} {kernel[of] / count:>7.1%}")
    print(f"{'all':<24} {count * each:>11.0f} {1:>6.1%} {sum(kernel.values()) / count:>7.1%}")
    for title, counter in (("innermost functions", leaves), ("of the rest", others)):
        print(f"\n{title}:")
        for symbol, n in counter.most_common(25 if counter is leaves else 8):
            print(f"{n / count:>6.1%}  {symbol[:100]}")


main()
