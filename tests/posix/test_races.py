# SPDX-License-Identifier: GPL-3.0-or-later
"""Rename, upload, read, unlink and derivation of the same names at the same time."""
import errno
import multiprocessing
import os
import random
import time

import pytest

import syscalls
from rig import MEDIA, alive, keep_path, read, wait_until
from test_processing import meta_of

RACERS = 8
NAMES = [f"n{n}.jpg" for n in range(4)]
FOLDERS = ["d0", "d1"]
EXPECTED = {errno.ENOENT, errno.EEXIST, errno.EBUSY, errno.ESTALE, errno.ENOTEMPTY}


def woven(data, photos):
    """Is each byte, at its place, one photo's or the other's?  Two writers may be at one file."""
    for at in range(0, len(data), 4096):
        block = data[at:at + 4096]
        if not any(p[at:at + 4096] == block for p in photos) and \
                not all(any(p[i:i + 1] == data[i:i + 1] for p in photos) for i in range(at, at + len(block))):
            return False
    return True


class Racer:
    """Random calls on the few names; collects what no caller would expect."""

    def __init__(self, keep, seed):
        self.keep, self.seed, self.rng = keep, seed, random.Random(seed)
        self.photos = [read(MEDIA / name) for name in ("orient_1.jpg", "orient_6.jpg")]
        self.surprises, self.done = [], 0

    def name(self):
        return os.path.join(self.keep, self.rng.choice(NAMES))

    def folder(self):
        return os.path.join(self.keep, self.rng.choice(FOLDERS))

    def write(self):
        with open(self.name(), "wb") as f:
            f.write(self.rng.choice(self.photos))

    def rewrite(self):
        with open(self.name(), "r+b") as f:
            f.write(self.rng.choice(self.photos))

    def replace(self):
        path = self.name()
        with open(f"{path}.{self.seed}", "wb") as f:
            f.write(self.rng.choice(self.photos))
        os.replace(f"{path}.{self.seed}", path)

    def rename(self):
        os.rename(self.name(), self.name())

    def rename_open(self):
        path = self.name()
        with open(path, "r+b"):
            os.rename(path, self.name())

    def exchange(self):
        syscalls.renameat2(self.name(), self.name(), syscalls.RENAME_EXCHANGE)

    def link(self):
        path = self.name()
        os.link(path, f"{path}.l{self.seed}")
        os.unlink(path)

    def unlink_link(self):
        os.unlink(f"{self.name()}.l{self.rng.randrange(RACERS)}")

    def make_folder(self):
        os.mkdir(self.folder())

    def rename_folder(self):
        os.rename(self.folder(), self.folder())

    def into_folder(self):
        path = self.name()
        os.rename(path, os.path.join(self.folder(), os.path.basename(path)))

    def out_of_folder(self):
        path = self.name()
        os.rename(os.path.join(self.folder(), os.path.basename(path)), path)

    def read(self):
        data = read(self.name())
        if not woven(data, self.photos):
            self.surprises.append(f"read {len(data)} bytes that nobody wrote")

    def hold(self):
        with open(self.name(), "r+b"):
            time.sleep(self.rng.random() / 2)

    def unlink(self):
        os.unlink(self.name())

    def utime(self):
        os.utime(self.name(), (self.rng.randrange(10**9),) * 2)

    def chmod(self):
        os.chmod(self.name(), self.rng.choice((0o600, 0o644)))

    def thumb(self):
        read(os.path.join(self.keep, "thumbs", os.path.basename(self.name()), "256.webp"))

    def list(self):
        os.listdir(self.keep)

    CALLS = (write, rewrite, replace, rename, rename_open, exchange, link, unlink_link, make_folder, rename_folder,
             into_folder, out_of_folder, read, hold, unlink, utime, chmod, thumb, list)

    def run(self, until):
        while time.monotonic() < until:
            call = self.rng.choice(self.CALLS)
            try:
                call(self)
                self.done += 1
            except OSError as e:
                if e.errno not in EXPECTED:
                    self.surprises.append(f"{call.__name__}: {errno.errorcode.get(e.errno, e.errno)}")
        return self.done, self.surprises


def race(keep, seed, until):
    return Racer(keep, seed).run(until)


def names_below(top):
    return {os.path.relpath(os.path.join(folder, name), top) for folder, _, names in os.walk(top) for name in names}


@pytest.mark.timeout(400)
def test_eight_at_the_same_names(new_mount, request):
    mount = new_mount(quiet_period="50ms", temp_name_delay="1s").start()
    keep = keep_path(mount.path)
    seconds = request.config.getoption("--seconds")
    with multiprocessing.get_context("fork").Pool(RACERS) as pool:
        until = time.monotonic() + seconds
        results = pool.starmap(race, [(os.fspath(keep), seed, until) for seed in range(RACERS)])
    assert [s for _, surprises in results for s in surprises] == []
    assert all(done > seconds for done, _ in results), results
    assert alive(mount.pid)
    mount.sync(derived=True, timeout=60)
    mount.drain()
    thumbs = {os.path.dirname(n) for n in names_below(keep / "thumbs")}
    files = {n for n in names_below(keep) if n != "meta.json" and not n.startswith("thumbs/")}
    derived = meta_of(keep)["files"] if files else {}
    assert set(derived) == files
    # What is derived, and the object, are where the oldest of several names is; two writers can spoil a photo.
    whole = {n for n in files if "error" not in derived[n] and os.stat(keep / n).st_nlink == 1}
    assert whole <= thumbs <= files, (whole - thumbs, [derived[n] for n in whole - thumbs])

    def stored():
        objects, seen = mount.objects(), mount.files()
        alone = {n for n in seen if os.stat(os.path.join(os.fsencode(mount.path), n)).st_nlink == 1}
        return objects.items() <= seen.items() and alone <= objects.keys()
    # A put that was called off is waited for before its key is deleted.
    wait_until(stored, 60, 0.5)
