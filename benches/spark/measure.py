"""Starts a process, watches what it and its descendants use, and ends it."""
import bisect
import os
import signal
import subprocess
import threading
import time

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Process:
    """One process with its descendants. Its output goes to the files `log`.out and `log`.err."""

    def __init__(self, command, log, env=None, interval=0.05):
        self.log = log
        self.interval = interval
        self.times, self.cpu, self.resident = [], [], []
        # The most that one of them held, between the samples too.
        self.largest = 0
        self.usage, self.code, self.ended = None, None, None
        self._over = threading.Event()
        with open(f"{log}.out", "wb") as out, open(f"{log}.err", "wb") as err:
            self.started = time.time_ns()
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                                             env={**os.environ, **(env or {})})
        self.pid = self._process.pid
        self._family = {self.pid: _started_at(self.pid)}
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def _watch(self):
        looked_for_children = 0.0
        while not self._over.is_set():
            if time.monotonic() - looked_for_children > 1:
                self._find_children()
                looked_for_children = time.monotonic()
            cpu = resident = 0
            for pid in list(self._family):
                fields = _stat(pid)
                if fields is None:
                    continue
                # utime, stime, and both of the children that it waited for.
                cpu += sum(int(field) for field in fields[11:15])
                resident += int(fields[21])
                self.largest = max(self.largest, most_resident(pid))
            if resident:
                self.times.append(time.time_ns())
                self.cpu.append(cpu / TICK)
                self.resident.append(resident * PAGE)
            self._over.wait(self.interval)

    def _find_children(self):
        parents = {}
        for name in os.listdir("/proc"):
            if name.isdigit():
                fields = _stat(int(name))
                if fields is not None:
                    parents.setdefault(int(fields[1]), []).append(int(name))
        waiting = [self.pid]
        while waiting:
            for child in parents.get(waiting.pop(), []):
                self._family.setdefault(child, _started_at(child))
                waiting.append(child)

    def wait(self, seconds):
        """Waits for the end of it, for so long at most; fails if it does not end well."""
        deadline = time.monotonic() + seconds
        while self.code is None:
            if time.monotonic() > deadline:
                raise Failed(f"{self.log}: still running after {seconds} s")
            self._reap(os.WNOHANG)
            time.sleep(0.005)
        if self.code != 0:
            raise Failed(f"it ended with {self.code}; the end of what it said:\n{self.tail()}")

    def running(self):
        self._reap(os.WNOHANG)
        return self.code is None

    def _reap(self, options):
        if self.code is not None:
            return
        pid, status, usage = os.wait4(self.pid, options)
        if pid:
            self.ended = time.time_ns()
            self.code = os.waitstatus_to_exitcode(status)
            self._process.returncode = self.code
            self.usage = usage
            self._over.set()
            self._watcher.join()

    def stop(self):
        """Ends it and its descendants, by their process ids."""
        if self.code is None:
            self._find_children()
            os.kill(self.pid, signal.SIGTERM)
            deadline = time.monotonic() + 20
            while self.running() and time.monotonic() < deadline:
                time.sleep(0.05)
            if self.running():
                os.kill(self.pid, signal.SIGKILL)
                self._reap(0)
        for pid, started in self._family.items():
            if pid != self.pid and started is not None and _started_at(pid) == started:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass

    def tail(self):
        lines = []
        for name in ("out", "err"):
            with open(f"{self.log}.{name}", encoding="utf-8", errors="replace") as file:
                lines += [line.rstrip()[:300] for line in file.readlines()[-15:]]
        return "\n".join(lines)

    def cpu_at(self, when):
        """CPU-seconds used at a time in nanoseconds, between two samples in proportion."""
        after = bisect.bisect_left(self.times, when)
        if after == 0:
            return 0.0
        if after == len(self.times):
            return self.cpu[-1]
        (t0, t1), (c0, c1) = self.times[after - 1:after + 1], self.cpu[after - 1:after + 1]
        return c0 + (c1 - c0) * (when - t0) / (t1 - t0)

    def peak(self, start=0, end=None):
        """The most resident bytes in a span of time."""
        return max((resident for when, resident in zip(self.times, self.resident)
                    if when >= start and (end is None or when <= end)), default=0)

    def cpu_total(self):
        return self.usage.ru_utime + self.usage.ru_stime

    def peak_whole(self):
        """The most resident bytes ever: as sampled for the family, as the kernel says for the largest of it.

        Not what wait4 says: it counts this process, too, which the child was before it began with its own program.
        """
        return max(self.peak(), self.largest)


class Failed(Exception):
    """The benchmark cannot go on."""


def _stat(pid):
    """What /proc/PID/stat says after the name in brackets: fields[0] is the state."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def most_resident(pid):
    """The most bytes that a process held so far."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            line = next((line for line in file if line.startswith("VmHWM:")), None)
            return int(line.split()[1]) * 1024 if line else 0
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _started_at(pid):
    fields = _stat(pid)
    return None if fields is None else fields[19]
