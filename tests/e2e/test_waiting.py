# SPDX-License-Identifier: GPL-3.0-or-later
"""A request that has to wait holds up nobody else's."""
import os
import threading
import time

from rig import run, wait_until

WAITERS = 4


def test_who_waits_for_the_disk_waits_alone(new_mount, disk):
    """The staging disk takes no write for a while: what needs none is answered meanwhile."""
    small = disk(300)
    mount = new_mount(state_dir=small.path / "state", derived="off").start()
    folder = mount.path / "d"
    folder.mkdir()
    for n in range(50):
        (folder / f"old{n}").write_bytes(b"12345")
    mount.sync()
    made, waiting = [], []

    def make(n):
        (mount.path / f"new{n}").write_bytes(b"x")
        made.append(n)

    run("fsfreeze", "-f", small.path)
    try:
        for n in range(WAITERS):
            waiting.append(threading.Thread(target=make, args=(n,)))
            waiting[-1].start()
            time.sleep(0.05)
        begun = time.monotonic()
        for n in range(50):
            assert not os.path.exists(folder / f"none{n}")
            fd = os.open(folder / f"old{n}", os.O_RDONLY)
            assert os.read(fd, 10) == b"12345"
            os.close(fd)
        assert mount.status()["counts"]["fuse_requests"] > 100
        assert time.monotonic() - begun < 10
        assert made == []
    finally:
        run("fsfreeze", "-u", small.path)
    wait_until(lambda: sorted(made) == list(range(WAITERS)))
    for thread in waiting:
        thread.join()
    mount.stop()
