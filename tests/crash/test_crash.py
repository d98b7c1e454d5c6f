# SPDX-License-Identifier: GPL-3.0-or-later
"""The loops with the number of rounds that CI has time for; by hand they take --rounds."""
import os
import random

import pytest

import index_rollback
import kill_loop
import power_cut
import rig
from rig import noise, read, wait_until, write


def rounds(request, default):
    return request.config.getoption("--rounds") or default


def good(result):
    assert result.problems == [], f"{result}\n" + "\n".join(result.problems)
    assert result.acknowledged > 10 * result.rounds, f"hardly any load: {result}"
    print(result)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind, backend, count", [("passthrough", "local", 50), ("daemon", "local", 20),
                                                  ("passthrough", "minio", 20)])
def test_kill_loses_nothing(request, new_mount, kind, backend, count):
    """LESSONS 1, 3, 5: what close, rename and unlink acknowledged survives kill -9, in the backend too."""
    mount = new_mount(kind, backend, derived="off").start()
    result, load = kill_loop.kill_rounds(mount, rounds(request, count), seed=random.randrange(1 << 30))
    kill_loop.settle(mount, load, result)
    good(result)


@pytest.mark.timeout(300)
def test_kill_with_derivation_under_way(request, new_mount):
    mount = new_mount(derived="on").start()
    result, load = kill_loop.kill_rounds(mount, rounds(request, 5), seed=random.randrange(1 << 30))
    mount.sync(derived=True, timeout=100)
    kill_loop.settle(mount, load, result)
    good(result)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("backend, count", [("local", 50), ("minio", 20)])
def test_kill_while_the_backend_refuses(request, new_mount, backend, count):
    mount = new_mount("passthrough", backend, derived="off").start()
    good(kill_loop.refusing_then_well(mount, rounds(request, count), seed=random.randrange(1 << 30)))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("filesystem", ["ext4", "xfs"])
def test_power_cut(request, new_mount, disk, filesystem):
    """LESSONS 2: fsync means the disk, data and name."""
    staging = disk(2000, filesystem)
    mount = new_mount(state_dir=staging.path / "state", **power_cut.OPTIONS).start()
    try:
        good(power_cut.cut_rounds(mount, staging, rounds(request, 10), seed=random.randrange(1 << 30)))
    finally:
        mount.destroy()         # before its disk goes


@pytest.mark.timeout(200)
@pytest.mark.parametrize("filesystem", ["ext4", "xfs"])
def test_power_cut_right_after_sync(new_mount, disk, filesystem):
    """What `tbfs sync` confirmed is whole here and there, though nobody called fsync; and bytes
    written in place over it are never taken for whole when their end is lost."""
    staging = disk(1000, filesystem)
    mount = new_mount(state_dir=staging.path / "state", **power_cut.OPTIONS).start()
    size, expected = 300_000, {}
    try:
        for n in range(4):
            expected[f"new{n}"] = noise(size, n)
            write(mount.path / f"new{n}", expected[f"new{n}"])
            expected["same"] = noise(size, 100 + n)
            fd = os.open(mount.path / "same", os.O_WRONLY | os.O_CREAT, 0o644)
            os.write(fd, expected["same"])
            os.close(fd)
            mount.sync()
            power_cut.cut(staging)
            power_cut.power_up(mount, staging)
            assert {name: read(mount.path / name) for name in expected} == expected
            assert not [name for name in expected if "torn" in mount.state(mount.path / name)]
            mount.sync()
            assert mount.objects() == {k.encode(): v for k, v in expected.items()}
            # The same size, closed, not synced: the index may know of it, the disk not of all bytes.
            fd = os.open(mount.path / "same", os.O_WRONLY)
            os.write(fd, noise(size, 200 + n))
            os.close(fd)
            other = os.open(mount.path / "other", os.O_WRONLY | os.O_CREAT, 0o644)
            os.fsync(other)                 # takes the index to the disk, not the other's bytes
            os.close(other)
            expected["other"] = b""
            power_cut.cut(staging)
            power_cut.power_up(mount, staging)
            found, state = read(mount.path / "same"), mount.state(mount.path / "same")
            assert found in (expected["same"], noise(size, 200 + n)) or "torn" in state
            mount.sync(check=False)
            assert mount.objects()[b"same"] in (expected["same"], noise(size, 200 + n))
            os.unlink(mount.path / "same")
    finally:
        mount.destroy()         # before its disk goes


@pytest.mark.timeout(200)
def test_power_cut_between_a_put_and_its_answer(new_mount, disk):
    """The store has the new bytes, the index only knows that they were on their way: they are not torn."""
    staging = disk(1000, "ext4")
    mount = new_mount(state_dir=staging.path / "state", fault="put:lost=2:EAGAIN", **power_cut.OPTIONS).start()
    try:
        write(mount.path / "f", noise(200_000, 1))
        mount.sync()
        with open(mount.path / "f", "r+b") as f:
            f.write(noise(200_000, 2))
        wait_until(lambda: mount.calls().get("put", 0) == 2, 20)
        wait_until(lambda: mount.status()["queue"]["upload"] == 1, 20)
        power_cut.cut(staging)
        mount.set(fault=None)
        power_cut.power_up(mount, staging)
        assert read(mount.path / "f") == noise(200_000, 2)
        mount.sync()
        assert mount.state(mount.path / "f") == "stored"
        assert mount.objects() == {b"f": noise(200_000, 2)}
    finally:
        mount.destroy()


@pytest.mark.timeout(400)
def test_index_rolled_back(request, new_mount):
    """Each commit that the log holds, of a few steps of each kind."""
    mount = new_mount(derived="off", snapshot_interval="0").start()
    promises = index_rollback.work(mount, rounds(request, 16))
    mount.kill()
    _, commits = index_rollback.Wal(mount.state_dir / "index.db-wal").commits()
    assert len(commits) >= 40, f"only {len(commits)} commits in the WAL: little to roll back"
    problems, tried = index_rollback.roll_back(mount, promises)
    assert problems == [], f"{tried} of {len(commits)} commits:\n" + "\n".join(problems)


def test_index_deleted_with_dirty_files(new_mount):
    """Invariant 7: a lost index loses no closed file and no name."""
    mount = new_mount(derived="off", snapshot_interval="0", fault="put:every=EAGAIN").start()
    keep = rig.keep_path(mount.path, 7, "summer 家")
    names = [f"f{n}.jpg" for n in range(40)] + [os.fsdecode(b"new\nline\xff"), "-dash", "x" * 255]
    for n, name in enumerate(names):
        write(keep / name, noise(2000 + n, n))
        os.chmod(keep / name, 0o600 + n % 8)
        os.chown(keep / name, 33, 1000 + n)
    os.rename(keep / "f1.jpg", keep / "renamed.jpg")
    os.rename(keep, keep.with_name("winter"))
    keep = keep.with_name("winter")
    os.unlink(keep / "f2.jpg")
    (keep / "empty").mkdir()
    expected = {p.name: (read(p), p.stat().st_mode, p.stat().st_uid, p.stat().st_gid)
                for p in keep.iterdir() if p.is_file()}
    mount.kill()
    for path in mount.state_dir.glob("index.db*"):
        path.unlink()
    mount.start(fault=None)
    found = {p.name: (read(p), p.stat().st_mode, p.stat().st_uid, p.stat().st_gid)
             for p in keep.iterdir() if p.is_file()}
    assert found == expected
    mount.sync()
    # A name that is no legal key has its object at .tbfs/o/<id>, with the path beside it.
    files = mount.files()
    odd = {k: v for k, v in files.items() if b"\n" in k}
    assert len(odd) == 1 and set(odd.values()) <= set(mount.objects(everything=True).values())
    assert mount.objects() == {k: v for k, v in files.items() if k not in odd}


def test_kill_during_each_step_of_a_relocation(new_mount):
    """Rename chains and swaps whose copies are slow: killed at many moments, the backend still follows."""
    mount = new_mount(derived="off").start()
    rng = random.Random(5)
    folder = mount.path / "d"
    folder.mkdir()
    for n in range(6):
        write(folder / f"f{n}", noise(5000, n))
    mount.sync()
    expected = {f"f{n}": noise(5000, n) for n in range(6)}
    mount.remount(fault="copy:delay=60,remove:delay=60,put:delay=60")
    for turn in range(12):
        a, b = rng.sample(sorted(expected), 2)
        os.rename(folder / a, folder / f"t{turn}")
        expected[f"t{turn}"] = expected.pop(a)
        write(folder / a, noise(4000, turn + 100))          # the old name at once again
        expected[a] = noise(4000, turn + 100)
        if turn % 3 == 0:
            import syscalls
            syscalls.renameat2(folder / a, folder / b, syscalls.RENAME_EXCHANGE)
            expected[a], expected[b] = expected[b], expected[a]
        kill_loop.pause(rng, 0.2, 0.5)
        mount.crash()
        assert {p.name: read(p) for p in folder.iterdir()} == expected
    mount.remount(fault=None)
    mount.sync()
    assert kill_loop.compare_backend(mount) == []
    assert {k[2:].decode(): v for k, v in mount.objects().items()} == expected
