# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of costs in HACKING.md, counted: times drift, counts don't."""
import os
import re

import pytest

import rig
from rig import TOP, wait_until

N = 200
COLUMNS = ("fuse_requests", "sql_statements", "sql_commits", "sql_syncs")


def table():
    """operation → numbers, from HACKING.md."""
    rows = re.findall(r"^\| ([^|]+?) +\| ([\d.]+) +\| ([\d.]+) +\| ([\d.]+) +\| ([\d.]+) +\|$",
                      (TOP / "HACKING.md").read_text(), re.M)
    return {name: [float(n) for n in numbers] for name, *numbers in rows}


def create(folder, n):
    fd = os.open(folder / f"new{n}", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    os.write(fd, b"x" * 20_000)
    os.close(fd)


def read_all(folder, n):
    fd = os.open(folder / f"old{n}", os.O_RDONLY)
    assert os.read(fd, 100) == b"12345"
    os.close(fd)


def thousand_writes(folder, n):
    fd = os.open(folder / "many", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for _ in range(1000):
        os.write(fd, b"line of a log\n")
    os.close(fd)


OPERATIONS = {      # name in the table: (what is done, how often)
    "create, write, close": (create, N),
    "open, read, close, the first time": (read_all, N),
    "open, read, close": (read_all, N),
    "stat": (lambda folder, n: os.stat(folder / f"old{n}"), N),
    "stat of a name that isn't there": (lambda folder, n: os.path.exists(folder / f"none{n}"), N),
    "stat of it, again": (lambda folder, n: [os.path.exists(folder / "none") for _ in range(10)], 1),
    "chmod": (lambda folder, n: os.chmod(folder / f"old{n}", 0o600), N),
    "rename": (lambda folder, n: os.rename(folder / f"old{n}", folder / f"renamed{n}"), N),
    "unlink, reaped and freed": (lambda folder, n: os.unlink(folder / f"old{n}"), N),
    "mkdir": (lambda folder, n: os.mkdir(folder / f"dir{n}"), N),
    "1,000 writes to one handle": (thousand_writes, 1),
    "readdir of 1,000, cold": (lambda folder, n: os.listdir(folder / "full"), 1),
    "readdir of 1,000, again": (lambda folder, n: [os.listdir(folder / "full") for _ in range(2)], 1),
}


@pytest.fixture(scope="module")
def prepared():
    """A mount where nothing is at work by itself."""
    mount = rig.Mount("passthrough", quiet_period="1h", derived="off").start()
    yield mount
    try:
        mount.stop()
    finally:
        mount.destroy()


class Meter:
    """The counts without what asking for them costs."""

    def __init__(self, mount):
        self.mount = mount
        self.asked = 0
        self.cost = [0] * len(COLUMNS)
        last = self.ask()
        def steady():
            nonlocal last
            before, last = last, self.ask()
            cost, self.cost = self.cost, [b - a for a, b in zip(before, last)]
            return cost == self.cost
        wait_until(steady, 10, 0.2)

    def ask(self):
        counts = self.mount.status()["counts"]
        self.asked += 1
        return [counts[c] for c in COLUMNS]

    def read(self):
        """Once they stand still: a release comes after the close."""
        last = []
        def still():
            nonlocal last
            before, last = last, [n - self.asked * c for n, c in zip(self.ask(), self.cost)]
            return before == last
        wait_until(still, 10, 0.2)
        return last


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_costs_what_the_table_says(prepared, name):
    do, times = OPERATIONS[name]
    folder = prepared.path / re.sub(r"\W+", "-", name)
    (folder / "full").mkdir(parents=True)
    for n in range(N):
        (folder / f"old{n}").write_bytes(b"12345")
    if "readdir" in name:
        for n in range(1000):
            (folder / "full" / f"f{n}").touch()
    prepared.sync()
    if "again" in name:
        os.listdir(folder / "full")
    if "cold" not in name:
        for n in range(N):
            os.stat(folder / f"old{n}")
    if name == "open, read, close":
        for n in (*range(N), *range(N)):
            read_all(folder, n)
    if "unlink" in name:
        left = prepared.staged() - {str(os.stat(folder / f"old{n}").st_ino) for n in range(N)}
    meter = Meter(prepared)
    before = meter.read()
    for n in range(times):
        do(folder, n)
    if "unlink" in name:        # what is removed is reaped and freed within a second or two
        wait_until(lambda: prepared.staged() == left)
    found = [(b - a) / times for a, b in zip(before, meter.read())]
    # What is done once may meet the daemon's own looks at the index.
    noise = [.05] * 4 if times > 1 else [1, 12, 1, 1]
    for column, is_, most, more in zip(COLUMNS, found, table()[name], noise):
        assert is_ <= most * 1.02 + more, f"{name}: {is_:.2f} {column}, HACKING.md says {most}"
