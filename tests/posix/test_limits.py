# SPDX-License-Identifier: GPL-3.0-or-later
"""As large, deep and many as a file system is asked to be."""
import errno
import os
import resource
import threading

import pytest

from rig import read, run, wait_until, write


@pytest.fixture
def mount(new_mount):
    return new_mount(derived="off", quiet_period="1h").start()


@pytest.mark.timeout(900)
def test_200000_names_in_one_directory(mount):
    """Listed while others come and go: what stayed is there once, whatever else happens."""
    folder = mount.path / "d"
    folder.mkdir()
    for n in range(200_000):        # of a kind that nothing has to be stored for
        os.symlink("x", folder / f"f{n:06}")
    stop = threading.Event()

    def churn():
        n = 0
        while not stop.is_set():
            n += 1
            os.symlink("x", folder / f"new{n}")
            os.rename(folder / f"new{n}", folder / f"moved{n}")
            os.unlink(folder / f"moved{n}")

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(2):
            names = [e.name for e in os.scandir(folder)]
            stayed = [n for n in names if n.startswith("f")]
            assert len(stayed) == len(set(stayed)) == 200_000
    finally:
        stop.set()
        thread.join()
    assert len(os.listdir(folder)) == 200_000
    mount.remount()
    assert len(os.listdir(folder)) == 200_000


def chain(mount, folders, end):
    """A file below all of them, however long its path gets."""
    here = os.open(mount.path, os.O_RDONLY)
    for folder in folders:
        os.mkdir(folder, dir_fd=here)
        below = os.open(folder, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    fd = os.open(end, os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=here)
    os.write(fd, b"down here")
    os.close(fd)
    os.close(here)


@pytest.mark.timeout(300)
def test_deeper_than_a_path_is_long(mount):
    chain(mount, "d" * 6000, "deepest")
    mount.sync()
    os.rename(mount.path / "d", mount.path / "top")
    mount.sync()
    assert b"down here" in mount.objects(everything=True).values()
    run("rm", "-r", mount.path / "top")
    mount.sync()
    assert b"down here" not in mount.objects(everything=True).values()


@pytest.mark.timeout(300)
def test_500_directories_deep(mount):
    chain(mount, (f"d{n}" for n in range(500)), "deepest")
    path = mount.path.joinpath(*(f"d{n}" for n in range(500)), "deepest")
    assert read(path) == b"down here"
    os.rename(mount.path / "d0", mount.path / "top")
    assert read(mount.path.joinpath("top", *(f"d{n}" for n in range(1, 500)), "deepest")) == b"down here"
    with pytest.raises(OSError) as e:
        os.rename(mount.path / "top", mount.path / "top" / "d1" / "below-itself")
    assert e.value.errno == errno.EINVAL
    # Longer than a key may be: it travels under a name of its own.
    mount.sync()
    assert b"down here" in mount.objects(everything=True).values()


@pytest.mark.timeout(300)
def test_a_sparse_file_of_1_tib_stays_here(new_mount):
    mount = new_mount(derived="off", upload__max_size="10G").start()
    path = mount.path / "huge"
    with open(path, "wb") as f:
        f.truncate(1 << 40)
        f.seek((1 << 40) - 5)
        f.write(b"end of")
    assert os.stat(path).st_size == (1 << 40) + 1 and os.stat(path).st_blocks * 512 < 1 << 20
    fd = os.open(path, os.O_RDONLY)
    assert os.lseek(fd, 0, os.SEEK_DATA) >= (1 << 40) - 4096 - 5
    os.close(fd)
    write(mount.path / "small", b"goes on")
    r = mount.sync(check=False)
    assert r.returncode != 0 and "upload.max_size" in r.err
    wait_until(lambda: mount.state(path).endswith("+stuck"))
    assert mount.objects() == {b"small": b"goes on"}
    os.unlink(path)
    mount.sync()


@pytest.mark.timeout(300)
def test_10000_open_files(mount):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(11_000, hard), hard))
    fds = []
    try:
        for n in range(10_000):
            fds.append(os.open(mount.path / f"f{n}", os.O_CREAT | os.O_RDWR, 0o644))
        for n, fd in enumerate(fds):
            os.write(fd, b"%d" % n)
        for n in (0, 5_000, 9_999):
            assert read(mount.path / f"f{n}") == b"%d" % n
    finally:
        for fd in fds:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert read(mount.path / "f7") == b"7"
