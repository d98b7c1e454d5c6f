# SPDX-License-Identifier: GPL-3.0-or-later
"""Rename, upload, read, unlink and derivation of the same names at the same time."""
import errno
import multiprocessing
import os
import random
import time

import pytest

from rig import MEDIA, alive, keep_path, read, wait_until
from test_processing import meta_of

NAMES = [f"n{n}.jpg" for n in range(4)]
EXPECTED = {errno.ENOENT, errno.EEXIST, errno.EBUSY, errno.ESTALE}


def woven(data, photos):
    """Is each byte, at its place, one photo's or the other's?  Two writers may be at one file."""
    for at in range(0, len(data), 4096):
        block = data[at:at + 4096]
        if not any(p[at:at + 4096] == block for p in photos) and \
                not all(any(p[i:i + 1] == data[i:i + 1] for p in photos) for i in range(at, at + len(block))):
            return False
    return True


def race(keep, seed, until):
    """Random calls on the few names; gives what no caller would expect."""
    rng = random.Random(seed)
    photos = [read(MEDIA / name) for name in ("orient_1.jpg", "orient_6.jpg")]
    surprises, done = [], 0
    while time.monotonic() < until:
        path, other = (os.path.join(keep, rng.choice(NAMES)) for _ in range(2))
        what = rng.choice(("write", "replace", "rename", "read", "unlink", "utime", "chmod", "thumb", "list"))
        try:
            if what == "write":
                with open(path, "wb") as f:
                    f.write(rng.choice(photos))
            elif what == "replace":
                with open(f"{path}.{seed}", "wb") as f:
                    f.write(rng.choice(photos))
                os.replace(f"{path}.{seed}", path)
            elif what == "rename":
                os.rename(path, other)
            elif what == "read":
                with open(path, "rb") as f:
                    data = f.read()
                if not woven(data, photos):
                    surprises.append(f"read {len(data)} bytes that nobody wrote")
            elif what == "unlink":
                os.unlink(path)
            elif what == "utime":
                os.utime(path, (rng.randrange(10**9),) * 2)
            elif what == "chmod":
                os.chmod(path, rng.choice((0o600, 0o644)))
            elif what == "thumb":
                read(os.path.join(keep, "thumbs", os.path.basename(path), "256.webp"))
            else:
                os.listdir(keep)
            done += 1
        except OSError as e:
            if e.errno not in EXPECTED:
                surprises.append(f"{what}: {errno.errorcode.get(e.errno, e.errno)}")
    return done, surprises


@pytest.mark.timeout(400)
def test_eight_at_the_same_names(new_mount, request):
    mount = new_mount(quiet_period="50ms", temp_name_delay="1s").start()
    keep = keep_path(mount.path)
    seconds = request.config.getoption("--seconds")
    with multiprocessing.get_context("fork").Pool(8) as pool:
        until = time.monotonic() + seconds
        results = pool.starmap(race, [(os.fspath(keep), seed, until) for seed in range(8)])
    assert [s for _, surprises in results for s in surprises] == []
    assert all(done > seconds for done, _ in results), results
    assert alive(mount.pid)
    mount.sync(derived=True, timeout=60)
    mount.drain()
    originals = {n for n in os.listdir(keep) if n not in ("thumbs", "meta.json")}
    thumbs = os.listdir(keep / "thumbs") if originals or (keep / "thumbs").exists() else []
    assert {n for n in thumbs if os.listdir(keep / "thumbs" / n)} == originals
    assert set(meta_of(keep)["files"] if originals else ()) == originals
    # A put that was called off is waited for before its key is deleted.
    wait_until(lambda: mount.objects() == mount.files(), 60, 0.5)
