# SPDX-License-Identifier: GPL-3.0-or-later
"""LESSONS 10: what costs a request to the backend and what does not."""
import os
import time

import pytest

import syscalls as sc
from rig import keep_path, noise, read, run, wait_until, write


@pytest.mark.smoke
def test_metadata_asks_the_backend_nothing(stored):
    folder = stored.path / "d"
    folder.mkdir()
    for n in range(20):
        write(folder / f"f{n}", noise(500, n))
    stored.sync()
    before = stored.calls()
    run("find", stored.path, "-printf", "%p %s %T@\\n")
    run("ls", "-laR", stored.path)
    run("du", "-s", stored.path)
    os.statvfs(stored.path)
    for n in range(20):
        os.stat(folder / f"f{n}")
        os.getxattr(folder / f"f{n}", "user.tbfs.state")
        read(folder / f"f{n}")                  # cached
        assert not (folder / f"none{n}").exists()
    (folder / "sub").mkdir()
    os.rmdir(folder / "sub")
    assert stored.calls() == before


def test_reading_what_is_cached_asks_nothing_after_a_remount(stored):
    for n in range(5):
        write(stored.path / f"f{n}", noise(5000, n))
    stored.sync()
    stored.remount()
    before = stored.calls()
    for n in range(5):
        assert read(stored.path / f"f{n}") == noise(5000, n)
    assert stored.calls().get("get", 0) == before.get("get", 0)


def test_no_request_before_a_put(new_mount):
    """LESSONS 15: no HEAD before PUT; small files are one request each."""
    mount = new_mount("passthrough", "minio", derived="off").start()
    write(mount.path / "warm", b"x")
    mount.sync()
    before = mount.status()["backends"][0]
    for n in range(30):
        write(mount.path / f"f{n}", noise(2000, n))
    mount.sync()
    after = mount.status()["backends"][0]
    assert after["calls"]["put"] - before["calls"]["put"] == 30
    assert after["requests"] - before["requests"] <= 33


def test_attributes_never_send_the_bytes_again(stored):
    path = write(stored.path / "a", noise(2_000_000))
    stored.sync()
    def sent():
        return sum(b["bytes_out"] for b in stored.status()["backends"])
    before = sent()
    os.chmod(path, 0o600)
    os.chown(path, 33, 33)
    os.utime(path, (1, 1))
    os.setxattr(path, "user.tag", b"x")
    sc.utimensat(path, (0, sc.UTIME_OMIT), (5, 5))
    stored.sync()
    assert sent() - before < 100_000
    assert stored.objects()[b"a"] == noise(2_000_000)


def test_fuse_and_sql_are_counted(mount):
    before = mount.status()["counts"]
    for n in range(10):
        write(mount.path / f"f{n}", b"x")
    after = mount.status()["counts"]
    assert after["fuse_requests"] - before["fuse_requests"] >= 30
    assert after["sql_statements"] > before["sql_statements"]


def test_finding_names_costs_no_sql_when_warm(mount):
    keep = keep_path(mount.path)
    for n in range(50):
        write(keep / f"f{n}", b"x")
    mount.sync(derived=True)
    run("find", mount.path, "-printf", "%s")

    def statements():
        return mount.status()["counts"]["sql_statements"]

    def at_rest():
        """nothing else is at work: the bells of the files that were closed have been heard"""
        before = statements()
        time.sleep(0.3)
        return statements() - before < 50
    wait_until(at_rest)
    before = statements()
    for _ in range(20):
        for n in range(50):
            os.stat(keep / f"f{n}")
    assert statements() - before < 200
