"""Reads two callgrind files of runs of different length and prints the instructions of a record by function. Called by
scripts/profile.

A callgrind file lists costs of functions: `fn=(id) name`, then `line cost` pairs; `cfn=` and `calls=` are followed by the
inclusive cost of the callee, which does not count here. Only the first mention of an id has its name. Its format: https://valgrind.org/docs/manual/cl-format.html
"""

import os
import re
from collections import Counter

NAMED = re.compile(r"^(c?)fn=\((\d+)\)(?: (.*))?$")


def costs(path):
    """(function -> its own instructions)."""
    names, own, now, skip = {}, Counter(), "", False
    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            named = NAMED.match(line)
            if named:
                if named[3]:
                    names[named[2]] = named[3]
                if not named[1]:
                    now = names[named[2]]
            elif line.startswith("calls="):
                skip = True
            elif line[0] in "0123456789+-*":
                if not skip:
                    own[now] += int(line.split()[1])
                skip = False
    return own


def size(path):
    """The records of a run, which end its file's name."""
    return int(path.rsplit(".", 1)[1])


def main():
    few, many = os.environ["FEW"], os.environ["MANY"]
    records = size(many) - size(few)
    more = costs(many)
    more.subtract(costs(few))
    total = sum(more.values())
    print(f"{total / records:,.0f} instructions a record, by function:")
    for name, count in more.most_common(40):
        print(f"{count / records:>8,.0f} {count / total:>6.1%}  {name[:100]}")


main()
