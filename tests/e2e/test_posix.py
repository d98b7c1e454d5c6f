# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls that applications make, each with the answer that a local disk gives."""
import ctypes
import errno
import fcntl
import mmap
import multiprocessing
import os
import signal
import stat
import struct
import subprocess
import time

import pytest

import rig
import syscalls as sc
from rig import as_user, noise, read, run, write

WWW = "www-data"


def raises(code):
    """The call must fail with exactly this errno."""
    class Context:
        def __enter__(self):
            return self

        def __exit__(self, kind, error, _):
            assert isinstance(error, OSError), f"expected {errno.errorcode[code]}, got {error!r}"
            assert error.errno == code, \
                f"expected {errno.errorcode[code]}, got {errno.errorcode.get(error.errno)}: {error}"
            return True
    return Context()


# ---- names ----------------------------------------------------------------------------------

NAMES = [b"new\nline", b"\xff\xfe latin \xe9", b"-rf", b" lead", b"trail ", b"a'b\"c$(x);`y`", b"\\",
         b"*?[", b"%2F", b"..a", b"...", b"\x01\x7f", "Фото 家族 👨‍👩‍👧‍👦".encode(), "e\u0301".encode(), "é".encode(),
         b"x" * 255]


@pytest.mark.parametrize("name", NAMES, ids=lambda n: ascii(n[:12]))
def test_any_name_is_a_name(tree, name):
    path = os.path.join(os.fsencode(tree), name)
    write(path, b"here")
    assert os.listdir(os.fsencode(tree)) == [name]
    assert read(path) == b"here"
    os.rename(path, path[:-1] + b"_")
    assert os.listdir(os.fsencode(tree)) == [name[:-1] + b"_"]
    os.unlink(path[:-1] + b"_")
    assert os.listdir(tree) == []


def test_name_beyond_255_bytes_is_too_long(tree):
    for call in (lambda p: write(p, b""), os.mkdir, os.stat, lambda p: os.symlink("x", p), os.unlink):
        with raises(errno.ENAMETOOLONG):
            call(tree / ("n" * 256))
    write(tree / "a", b"")
    with raises(errno.ENAMETOOLONG):
        os.rename(tree / "a", tree / ("n" * 256))


def test_names_that_differ_in_case_or_normal_form_are_different(tree):
    for n, name in enumerate(["Ä", "A\u0308", "ä", "IMG.jpg", "img.JPG"]):
        write(tree / name, str(n))
    assert sorted(read(p) for p in tree.iterdir()) == [b"0", b"1", b"2", b"3", b"4"]


def test_deep_path(tree):
    path = tree
    for n in range(60):
        path = path / f"level-{n:02}-{'d' * 20}"
        path.mkdir()
    write(path / "leaf", b"deep")
    assert read(path / "leaf") == b"deep"


def test_lookups_that_fail(tree):
    write(tree / "file", b"")
    with raises(errno.ENOENT):
        os.stat(tree / "none")
    with raises(errno.ENOTDIR):
        os.stat(tree / "file" / "below")
    with raises(errno.EISDIR):
        os.open(tree, os.O_WRONLY)
    with raises(errno.EEXIST):
        os.open(tree / "file", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    with raises(errno.EEXIST):
        os.mkdir(tree / "file")
    with raises(errno.EEXIST):
        os.mkdir(tree)
    with raises(errno.ENOTDIR):
        os.rmdir(tree / "file")
    with raises(errno.EISDIR):
        os.unlink(tree)


# ---- directories ----------------------------------------------------------------------------

def test_directory_link_counts_and_rmdir(tree):
    assert os.stat(tree).st_nlink == 2 or os.stat(tree).st_nlink == 1
    (tree / "a").mkdir()
    (tree / "a" / "b").mkdir()
    with raises(errno.ENOTEMPTY):
        os.rmdir(tree / "a")
    os.rmdir(tree / "a" / "b")
    os.rmdir(tree / "a")
    assert not (tree / "a").exists()


def test_directory_times_follow_its_entries(tree):
    def times():
        s = os.stat(tree)
        return s.st_mtime_ns, s.st_ctime_ns
    steps = [lambda: write(tree / "f", b""), lambda: os.rename(tree / "f", tree / "g"),
             lambda: os.link(tree / "g", tree / "h"), lambda: os.unlink(tree / "h"),
             lambda: os.mkdir(tree / "d"), lambda: os.rmdir(tree / "d")]
    for step in steps:
        before = times()
        time.sleep(0.005)
        step()
        assert times()[0] > before[0] and times()[1] > before[1]
    before = times()
    write(tree / "g", b"contents only")
    assert times() == before


@pytest.mark.timeout(180)
def test_big_directory(tree):
    count = 5000
    names = {f"file-{n:05}-{'n' * 40}" for n in range(count)}
    for name in names:
        os.close(os.open(tree / name, os.O_CREAT | os.O_WRONLY))
    assert set(os.listdir(tree)) == names
    inodes = {e.inode() for e in os.scandir(tree)}
    assert len(inodes) == count
    for name in list(names)[::2]:
        os.unlink(tree / name)
        names.discard(name)
    assert set(os.listdir(tree)) == names


def test_readdir_is_stable_under_changes(tree):
    """What was there all the time is seen exactly once, whatever else comes and goes."""
    stay = {f"stay-{n}" for n in range(800)}
    for name in stay:
        os.close(os.open(tree / name, os.O_CREAT | os.O_WRONLY))
    for n in range(800):
        os.close(os.open(tree / f"go-{n}", os.O_CREAT | os.O_WRONLY))
    seen = []
    with os.scandir(tree) as entries:
        for n, entry in enumerate(entries):
            seen.append(entry.name)
            if n % 10 == 0 and n // 10 < 80:
                k = n // 10
                for j in range(10):
                    os.unlink(tree / f"go-{k * 10 + j}")
                os.close(os.open(tree / f"new-{k}", os.O_CREAT | os.O_WRONLY))
    assert {n for n in seen if n.startswith("stay")} == stay
    assert len([n for n in seen if n.startswith("stay")]) == len(stay)
    assert len(seen) == len(set(seen))


def test_a_replaced_name_is_listed_once(tree):
    """It was there all the time: a reader sees it neither twice nor never."""
    names = [f"name-{n:04}" for n in range(1000)]
    for name in names:
        os.close(os.open(tree / name, os.O_CREAT | os.O_WRONLY))
    for n in range(1000):
        os.close(os.open(tree / f".new-{n:04}", os.O_CREAT | os.O_WRONLY))
    seen = []
    with os.scandir(tree) as entries:
        for n, entry in enumerate(entries):
            seen.append(entry.name)
            if n < 1000:                    # what was seen already, and what is still to come
                k = n * 7 % 1000
                os.rename(tree / f".new-{k:04}", tree / names[k])
    assert sorted(s for s in seen if s.startswith("name-")) == names


@pytest.mark.smoke
@pytest.mark.parametrize("lengths", [[2, 3, 4, 5, 255], [1, *[255] * 60], [255, *range(1, 255)],
                                     [n % 255 + 1 for n in range(0, 255 * 40, 89)]], ids=["jump", "long", "all", "mixed"])
def test_names_of_all_lengths_are_listed(tree, lengths):
    names = sorted({f"{n:03}"[-length:] + "x" * (length - 3) for n, length in enumerate(lengths)})
    for name in names:
        os.close(os.open(tree / name, os.O_CREAT | os.O_WRONLY))
    assert sorted(os.listdir(tree)) == names
    assert sorted(e.name for e in os.scandir(tree) if e.stat().st_nlink == 1) == names


def test_unlink_while_reading_the_directory_empties_it(tree):
    for n in range(1500):
        os.close(os.open(tree / f"f{n}", os.O_CREAT | os.O_WRONLY))
    run("rm", "-r", tree)
    assert not tree.exists()
    tree.mkdir()


def test_d_type_and_inode_in_listing(tree):
    write(tree / "file", b"")
    (tree / "dir").mkdir()
    os.symlink("file", tree / "link")
    os.mkfifo(tree / "fifo")
    kinds = {}
    for e in os.scandir(tree):
        kinds[e.name] = (e.is_file(follow_symlinks=False), e.is_dir(follow_symlinks=False), e.is_symlink())
        assert e.inode() == os.lstat(e.path).st_ino
    assert kinds == {"file": (True, False, False), "dir": (False, True, False),
                     "link": (False, False, True), "fifo": (False, False, False)}


# ---- reading and writing --------------------------------------------------------------------

def test_write_returns_the_full_length(tree):
    """Django ignores what write() returns: a short count is silent corruption."""
    fd = os.open(tree / "f", os.O_WRONLY | os.O_CREAT, 0o644)
    for size in (1, 64 << 10, 150_000, 1 << 20, 5_000_001):
        assert os.write(fd, b"w" * size) == size
    os.close(fd)
    assert os.stat(tree / "f").st_size == 1 + (64 << 10) + 150_000 + (1 << 20) + 5_000_001


def test_random_writes_read_back(tree):
    import random
    rng = random.Random(7)
    model = bytearray()
    fd = os.open(tree / "f", os.O_RDWR | os.O_CREAT, 0o644)
    for n in range(400):
        offset, size = rng.randrange(0, 1 << 20), rng.randrange(1, 40_000)
        what = rng.randrange(10)
        if what == 0:
            os.ftruncate(fd, offset)
            model[offset:] = b""
            model.extend(bytes(offset - len(model)))
        elif what < 6:
            data = bytes([n & 255]) * size
            assert os.pwrite(fd, data, offset) == size
            model.extend(bytes(max(0, offset + size - len(model))))
            model[offset:offset + size] = data
        else:
            assert os.pread(fd, size, offset) == bytes(model[offset:offset + size])
        if n % 50 == 49:
            assert os.fstat(fd).st_size == len(model)
            os.close(fd)
            fd = os.open(tree / "f", os.O_RDWR)
    os.close(fd)
    assert read(tree / "f") == bytes(model)


def test_truncate_by_path_and_by_descriptor(tree):
    path = write(tree / "f", b"0123456789")
    os.truncate(path, 4)
    assert read(path) == b"0123"
    os.truncate(path, 8)
    assert read(path) == b"0123\0\0\0\0"
    with open(path, "r+b") as f:
        f.truncate(2)
        assert os.stat(path).st_size == 2
    fd = os.open(path, os.O_WRONLY | os.O_TRUNC)
    assert os.fstat(fd).st_size == 0
    os.close(fd)
    os.truncate(path, 5 << 30)
    assert os.stat(path).st_size == 5 << 30
    assert os.stat(path).st_blocks * 512 < 1 << 20


def test_size_is_seen_by_others_while_writing(tree):
    fd = os.open(tree / "f", os.O_WRONLY | os.O_CREAT, 0o644)
    for n in range(1, 6):
        os.write(fd, b"x" * 1000)
        assert os.stat(tree / "f").st_size == n * 1000
        assert len(read(tree / "f")) == n * 1000
    os.close(fd)


def append_lines(path, worker):
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    for n in range(200):
        line = f"{worker}:{n}:{'x' * 90}\n".encode()
        assert os.write(fd, line) == len(line)
    os.close(fd)


def test_append_from_many_processes(tree):
    path = write(tree / "log", b"")
    workers = [multiprocessing.Process(target=append_lines, args=(path, n)) for n in range(4)]
    for w in workers:
        w.start()
    for w in workers:
        w.join(60)
    assert [w.exitcode for w in workers] == [0] * 4
    lines = read(path).decode().splitlines()
    assert len(lines) == 800
    for w in range(4):
        mine = [line for line in lines if line.startswith(f"{w}:")]
        assert mine == [f"{w}:{n}:{'x' * 90}" for n in range(200)]


def test_append_ignores_the_offset(tree):
    path = write(tree / "f", b"12345")
    fd = os.open(path, os.O_RDWR | os.O_APPEND)
    os.lseek(fd, 0, os.SEEK_SET)
    os.write(fd, b"67")
    os.close(fd)
    assert read(path) == b"1234567"


def test_o_direct(tree):
    size = 1 << 20
    buf = mmap.mmap(-1, size)
    buf.write(noise(size))
    fd = os.open(tree / "f", os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o644)
    assert os.writev(fd, [buf]) == size
    back = mmap.mmap(-1, size)
    assert os.preadv(fd, [back], 0) == size
    assert back[:] == noise(size)
    os.close(fd)
    assert read(tree / "f") == noise(size)


def test_write_needs_a_writable_descriptor(tree):
    path = write(tree / "f", b"1")
    fd = os.open(path, os.O_RDONLY)
    with raises(errno.EBADF):
        os.write(fd, b"2")
    with raises(errno.EINVAL):
        os.ftruncate(fd, 0)
    os.close(fd)


def test_mmap_reads_and_writes(tree):
    path = write(tree / "f", bytes(256 << 10))
    fd = os.open(path, os.O_RDWR)
    m = mmap.mmap(fd, 256 << 10)
    m[100_000:100_005] = b"hello"
    assert os.pread(fd, 5, 100_000) == b"hello"
    os.pwrite(fd, b"world", 200_000)
    assert m[200_000:200_005] == b"world"
    m.flush()
    m.close()
    os.close(fd)
    assert read(path)[100_000:100_005] == b"hello"


def test_mapping_outlives_close(tree):
    path = write(tree / "f", bytes(64 << 10))
    fd = os.open(path, os.O_RDWR)
    m = mmap.mmap(fd, 64 << 10)
    os.close(fd)
    m[0:4] = b"late"
    assert read(path)[:4] == b"late"
    m.flush()
    m.close()
    assert read(path)[:4] == b"late"


def test_private_mapping_changes_nothing(tree):
    path = write(tree / "f", b"a" * 8192)
    fd = os.open(path, os.O_RDONLY)
    m = mmap.mmap(fd, 8192, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    m[0:1] = b"b"
    m.close()
    os.close(fd)
    assert read(path) == b"a" * 8192


def test_program_runs_from_here(tree):
    write(tree / "prog", read("/bin/true"))
    os.chmod(tree / "prog", 0o755)
    run(tree / "prog")
    # Nobody may write to a program that runs.
    write(tree / "sleep", read("/bin/sleep"))
    os.chmod(tree / "sleep", 0o755)
    p = subprocess.Popen([tree / "sleep", "30"])
    try:
        rig.wait_until(lambda: os.readlink(f"/proc/{p.pid}/exe").endswith("/sleep"))
    finally:
        p.kill()
        p.wait()


# ---- holes and allocation -------------------------------------------------------------------

def test_sparse_file_keeps_its_holes(tree):
    fd = os.open(tree / "f", os.O_RDWR | os.O_CREAT, 0o644)
    os.pwrite(fd, b"a" * 4096, 1 << 20)
    os.ftruncate(fd, 4 << 20)
    assert os.fstat(fd).st_blocks * 512 < 1 << 20
    assert os.lseek(fd, 0, os.SEEK_DATA) == 1 << 20
    assert os.lseek(fd, 1 << 20, os.SEEK_HOLE) == (1 << 20) + 4096
    assert os.lseek(fd, 0, os.SEEK_HOLE) == 0
    with raises(errno.ENXIO):
        os.lseek(fd, 2 << 20, os.SEEK_DATA)
    assert os.lseek(fd, 2 << 20, os.SEEK_HOLE) == 2 << 20
    os.close(fd)


def test_fallocate(tree):
    fd = os.open(tree / "f", os.O_RDWR | os.O_CREAT, 0o644)
    os.posix_fallocate(fd, 0, 1 << 20)
    assert os.fstat(fd).st_size == 1 << 20
    assert os.fstat(fd).st_blocks * 512 >= 1 << 20
    os.pwrite(fd, b"x" * (1 << 20), 0)
    sc.fallocate(fd, sc.FALLOC_FL_KEEP_SIZE, 1 << 20, 1 << 20)
    assert os.fstat(fd).st_size == 1 << 20
    sc.fallocate(fd, sc.FALLOC_FL_PUNCH_HOLE | sc.FALLOC_FL_KEEP_SIZE, 4096, 8192)
    assert os.pread(fd, 16384, 0) == b"x" * 4096 + bytes(8192) + b"x" * 4096
    sc.fallocate(fd, sc.FALLOC_FL_ZERO_RANGE, 0, 4096)
    assert os.pread(fd, 8192, 0) == bytes(8192)
    os.close(fd)
    assert os.stat(tree / "f").st_size == 1 << 20


def test_copy_file_range(tree):
    data = noise(3 << 20)
    src = os.open(write(tree / "a", data), os.O_RDONLY)
    dst = os.open(tree / "b", os.O_RDWR | os.O_CREAT, 0o644)
    done = 0
    while done < len(data):
        n = os.copy_file_range(src, dst, len(data) - done)
        assert n > 0
        done += n
    assert os.copy_file_range(src, dst, 100) == 0
    assert os.copy_file_range(src, dst, 1000, 5000, 0) == 1000
    os.close(src)
    os.close(dst)
    assert read(tree / "b") == data[5000:6000] + data[1000:]


def test_ficlone_is_answered(tree):
    FICLONE = 0x40049409
    src = os.open(write(tree / "a", b"x"), os.O_RDONLY)
    dst = os.open(tree / "b", os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        fcntl.ioctl(dst, FICLONE, src)
    except OSError as e:
        assert e.errno in (errno.EOPNOTSUPP, errno.EXDEV, errno.ENOTTY, errno.EINVAL)
    os.close(src)
    os.close(dst)


def test_fsync_calls_succeed(tree):
    fd = os.open(tree / "f", os.O_WRONLY | os.O_CREAT, 0o644)
    os.write(fd, b"x")
    os.fsync(fd)
    os.fdatasync(fd)
    os.close(fd)
    fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(fd)
    os.close(fd)
    fd = os.open(tree / "g", os.O_WRONLY | os.O_CREAT | os.O_SYNC, 0o644)
    os.write(fd, b"y")
    os.close(fd)
    os.sync()


# ---- unlink, rename, link -------------------------------------------------------------------

def test_unlinked_open_file_lives_on(tree):
    path = write(tree / "f", b"before")
    fd = os.open(path, os.O_RDWR)
    os.unlink(path)
    assert os.listdir(tree) == []
    assert os.fstat(fd).st_nlink == 0
    os.pwrite(fd, b"after!", 0)
    assert os.pread(fd, 10, 0) == b"after!"
    os.ftruncate(fd, 2)
    assert os.fstat(fd).st_size == 2
    os.fchmod(fd, 0o600)
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o600
    (tree / "d").mkdir()
    os.rmdir(tree / "d")
    write(path, b"another")
    assert os.pread(fd, 10, 0) == b"af"
    os.close(fd)
    assert read(path) == b"another"


def test_rmdir_of_the_directory_of_an_unlinked_open_file(tree):
    (tree / "d").mkdir()
    fd = os.open(tree / "d" / "f", os.O_RDWR | os.O_CREAT)
    os.unlink(tree / "d" / "f")
    os.rmdir(tree / "d")
    os.write(fd, b"still")
    os.close(fd)
    assert not (tree / "d").exists()


def test_rename_over_an_open_file(tree):
    old, new = write(tree / "old", b"old"), write(tree / "new", b"new")
    fd = os.open(old, os.O_RDONLY)
    os.rename(new, old)
    assert os.pread(fd, 10, 0) == b"old"
    assert os.fstat(fd).st_nlink == 0
    os.close(fd)
    assert read(old) == b"new"
    assert os.listdir(tree) == ["old"]


def test_replace_is_atomic_for_readers(tree):
    """os.replace: a reader finds one version or the other, whole, and never no file."""
    path = write(tree / "f", b"0" * 1000)
    stop = multiprocessing.Event()

    def replace():
        n = 0
        while not stop.is_set():
            n += 1
            write(tree / f"tmp{n % 2}", str(n % 10) * 1000)
            os.replace(tree / f"tmp{n % 2}", path)

    p = multiprocessing.Process(target=replace)
    p.start()
    try:
        for _ in range(1500):
            data = read(path)
            assert len(data) == 1000 and len(set(data)) == 1
    finally:
        stop.set()
        p.join(30)
    assert p.exitcode == 0


def test_rename_rules(tree):
    write(tree / "f", b"f")
    (tree / "d").mkdir()
    (tree / "full").mkdir()
    write(tree / "full" / "x", b"")
    with raises(errno.EISDIR):
        os.rename(tree / "f", tree / "d")
    with raises(errno.ENOTDIR):
        os.rename(tree / "d", tree / "f")
    with raises(errno.ENOTEMPTY):
        os.rename(tree / "d", tree / "full")
    with raises(errno.EINVAL):
        os.rename(tree / "full", tree / "full" / "below")
    with raises(errno.ENOENT):
        os.rename(tree / "none", tree / "x")
    os.rename(tree / "full", tree / "d")
    assert os.listdir(tree / "d") == ["x"]
    os.rename(tree / "f", tree / "f")
    os.link(tree / "f", tree / "g")
    os.rename(tree / "f", tree / "g")           # two names of one file: nothing happens
    assert sorted(os.listdir(tree)) == ["d", "f", "g"]


def test_rename_moves_a_directory_with_all_below(tree):
    (tree / "a" / "b").mkdir(parents=True)
    write(tree / "a" / "b" / "f", b"x")
    fd = os.open(tree / "a" / "b" / "f", os.O_RDWR)
    os.rename(tree / "a", tree / "z")
    os.pwrite(fd, b"y", 0)
    os.close(fd)
    assert read(tree / "z" / "b" / "f") == b"y"
    with raises(errno.ENOENT):
        os.stat(tree / "a")
    assert os.path.realpath(tree / "z" / "b" / "..") == os.path.realpath(tree / "z")


def test_renameat2_noreplace_and_exchange(tree):
    a, b = write(tree / "a", b"A"), write(tree / "b", b"B")
    with raises(errno.EEXIST):
        sc.renameat2(a, b, sc.RENAME_NOREPLACE)
    assert (read(a), read(b)) == (b"A", b"B")
    sc.renameat2(a, tree / "c", sc.RENAME_NOREPLACE)
    sc.renameat2(tree / "c", b, sc.RENAME_EXCHANGE)
    assert (read(tree / "c"), read(b)) == (b"B", b"A")
    (tree / "d").mkdir()
    write(tree / "d" / "in", b"I")
    sc.renameat2(b, tree / "d", sc.RENAME_EXCHANGE)     # a file with a directory
    assert read(tree / "d") == b"A" and read(tree / "b" / "in") == b"I"
    with raises(errno.ENOENT):
        sc.renameat2(tree / "d", tree / "none", sc.RENAME_EXCHANGE)
    with raises(errno.EINVAL):
        sc.renameat2(tree / "c", tree / "e", sc.RENAME_NOREPLACE | sc.RENAME_EXCHANGE)


def test_other_rename_flags_are_refused(tree, kind):
    if kind == "bare":
        return          # ext4 knows whiteouts
    write(tree / "a", b"A")
    with raises(errno.EINVAL):
        sc.renameat2(tree / "a", tree / "b", sc.RENAME_WHITEOUT)
    assert os.listdir(tree) == ["a"]


def test_hard_links(tree):
    a = write(tree / "a", b"one")
    os.link(a, tree / "b")
    (tree / "d").mkdir()
    os.link(a, tree / "d" / "c")
    assert os.stat(a).st_nlink == 3
    assert os.stat(a).st_ino == os.stat(tree / "b").st_ino == os.stat(tree / "d" / "c").st_ino
    write(tree / "b", b"two")
    assert read(a) == read(tree / "d" / "c") == b"two"
    os.chmod(tree / "b", 0o600)
    assert stat.S_IMODE(os.stat(a).st_mode) == 0o600
    os.unlink(a)
    assert os.stat(tree / "b").st_nlink == 2
    os.unlink(tree / "b")
    assert read(tree / "d" / "c") == b"two"
    with raises(errno.EEXIST):
        os.link(tree / "d" / "c", tree / "d" / "c")
    with raises(errno.EPERM):
        os.link(tree / "d", tree / "e")


def test_symlinks(tree):
    write(tree / "f", b"x")
    os.symlink("f", tree / "l")
    assert os.readlink(tree / "l") == "f" and read(tree / "l") == b"x"
    assert stat.S_ISLNK(os.lstat(tree / "l").st_mode) and os.lstat(tree / "l").st_size == 1
    os.symlink("nowhere", tree / "dangling")
    with raises(errno.ENOENT):
        os.stat(tree / "dangling")
    os.symlink("loop", tree / "loop")
    with raises(errno.ELOOP):
        os.stat(tree / "loop")
    target = "t" * 4000
    os.symlink(target, tree / "long")
    assert os.readlink(tree / "long") == target
    os.symlink(b"\xff\n", tree / "odd")
    assert os.readlink(os.fsencode(tree / "odd")) == b"\xff\n"
    os.rename(tree / "l", tree / "m")
    assert os.readlink(tree / "m") == "f"
    os.unlink(tree / "m")
    assert read(tree / "f") == b"x"


def test_fifo_and_socket(tree):
    import socket
    os.mkfifo(tree / "p", 0o640)
    s = os.stat(tree / "p")
    assert stat.S_ISFIFO(s.st_mode) and stat.S_IMODE(s.st_mode) == 0o640
    reader = subprocess.Popen(["cat", tree / "p"], stdout=subprocess.PIPE)
    write(tree / "p", b"through")
    assert reader.communicate(timeout=20)[0] == b"through"
    with socket.socket(socket.AF_UNIX) as u:
        os.chdir(tree)
        try:
            u.bind("s")
        finally:
            os.chdir("/")
    assert stat.S_ISSOCK(os.stat(tree / "s").st_mode)


def test_o_tmpfile(tree, kind):
    try:
        fd = os.open(tree, os.O_TMPFILE | os.O_RDWR, 0o600)
    except OSError as e:
        assert kind != "bare" and e.errno == errno.EOPNOTSUPP     # programs fall back on this
        return
    os.write(fd, b"unnamed")
    assert os.listdir(tree) == []
    sc.linkat_fd(fd, tree / "named")
    os.close(fd)
    assert read(tree / "named") == b"unnamed"
    assert (os.stat(tree / "named").st_nlink, stat.S_IMODE(os.stat(tree / "named").st_mode)) == (1, 0o600)
    os.close(os.open(tree, os.O_TMPFILE | os.O_RDWR, 0o600))       # and one that never gets a name
    assert os.listdir(tree) == ["named"]


# ---- attributes -----------------------------------------------------------------------------

def test_new_entries_belong_to_the_caller(tree):
    def make():
        os.umask(0o027)
        os.mkdir(tree / "d", 0o777)
        os.close(os.open(tree / "f", os.O_CREAT | os.O_WRONLY, 0o666))
        os.symlink("f", tree / "l")
        os.mkfifo(tree / "p", 0o666)
    as_user(WWW, make)
    for name, mode in (("d", 0o750), ("f", 0o640), ("l", 0o777), ("p", 0o640)):
        s = os.lstat(tree / name)
        assert (s.st_uid, s.st_gid, stat.S_IMODE(s.st_mode)) == (33, 33, mode), name


def test_permissions_are_enforced(tree):
    (tree / "closed").mkdir(mode=0o700)
    write(tree / "closed" / "f", b"secret")
    write(tree / "readonly", b"r", 0o644)
    os.chmod(tree / "readonly", 0o444)
    write(tree / "private", b"p")
    os.chmod(tree / "private", 0o600)
    for call in (lambda: read(tree / "private"), lambda: os.open(tree / "readonly", os.O_WRONLY),
                 lambda: read(tree / "closed" / "f"), lambda: os.listdir(tree / "closed"),
                 lambda: os.mkdir(tree / "closed" / "x"), lambda: os.unlink(tree / "closed" / "f"),
                 lambda: os.truncate(tree / "readonly", 0)):
        with raises(errno.EACCES):
            as_user(WWW, call)
    for call in (lambda: os.chmod(tree / "readonly", 0o777), lambda: os.chown(tree / "readonly", 33, 33),
                 lambda: os.utime(tree / "readonly", (1, 1))):
        with raises(errno.EPERM):
            as_user(WWW, call)
    assert as_user(WWW, os.access, tree / "readonly", os.R_OK)
    assert not as_user(WWW, os.access, tree / "readonly", os.W_OK)
    assert as_user(WWW, read, tree / "readonly") == b"r"


def test_permission_changes_are_seen_at_once(tree):
    path = write(tree / "f", b"x")
    for _ in range(5):
        os.chmod(path, 0o600)
        with raises(errno.EACCES):
            as_user(WWW, read, path)
        os.chmod(path, 0o644)
        assert as_user(WWW, read, path) == b"x"


def test_supplementary_groups_count(tree):
    path = write(tree / "f", b"x")
    os.chown(path, 0, 54321)
    os.chmod(path, 0o640)
    with raises(errno.EACCES):
        as_user(WWW, read, path)
    assert as_user(WWW, read, path, groups=[54321]) == b"x"


def test_sticky_directory(tree):
    (tree / "s").mkdir()
    os.chmod(tree / "s", 0o1777)
    write(tree / "s" / "roots", b"")
    os.chmod(tree / "s" / "roots", 0o666)
    with raises(errno.EPERM):
        as_user(WWW, os.unlink, tree / "s" / "roots")
    with raises(errno.EPERM):
        as_user(WWW, os.rename, tree / "s" / "roots", tree / "s" / "x")
    as_user(WWW, write, tree / "s" / "own", b"")
    as_user(WWW, os.unlink, tree / "s" / "own")


def test_setgid_directory_hands_its_group_down(tree):
    (tree / "g").mkdir()
    os.chown(tree / "g", 0, 54321)
    os.chmod(tree / "g", 0o2777)
    as_user(WWW, write, tree / "g" / "f", b"")
    as_user(WWW, os.mkdir, tree / "g" / "d")
    assert os.stat(tree / "g" / "f").st_gid == 54321
    assert os.stat(tree / "g" / "d").st_gid == 54321
    assert os.stat(tree / "g" / "d").st_mode & stat.S_ISGID


def test_suid_bits_go_when_someone_else_writes(tree):
    path = write(tree / "f", b"x")
    os.chmod(path, 0o6777)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o6777
    def append():
        fd = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.write(fd, b"y")
        os.close(fd)
    as_user(WWW, append)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o777
    os.chmod(path, 0o6777)
    os.chown(path, 33, 33)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o777


def test_chown_by_its_owner_to_own_group(tree):
    as_user(WWW, write, tree / "f", b"")
    as_user(WWW, os.chown, tree / "f", -1, 33)
    with raises(errno.EPERM):
        as_user(WWW, os.chown, tree / "f", -1, 54321)
    with raises(errno.EPERM):
        as_user(WWW, os.chown, tree / "f", 0, -1)


@pytest.mark.parametrize("file_type", [stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFDIR])
def test_chown_clears_suid_and_sgid(tree, file_type):
    """Of everything but directories, as Linux does."""
    path = tree / "x"
    os.mkdir(path) if file_type == stat.S_IFDIR else os.mknod(path, file_type | 0o644)
    os.chown(path, 33, 33)
    os.chmod(path, 0o6555)
    as_user(WWW, os.chown, path, -1, 33)
    assert stat.S_IMODE(os.lstat(path).st_mode) == (0o6555 if file_type == stat.S_IFDIR else 0o555)


def test_chown_to_nobody_new_moves_the_ctime(tree):
    """As ext4 does it, of any type."""
    write(tree / "f", b"x")
    os.mkdir(tree / "d")
    os.symlink("f", tree / "l")
    os.mkfifo(tree / "p")
    for name in "fdlp":
        before = os.lstat(tree / name)
        time.sleep(0.01)
        os.chown(tree / name, -1, -1, follow_symlinks=False)
        after = os.lstat(tree / name)
        assert after.st_ctime_ns > before.st_ctime_ns and after.st_mtime_ns == before.st_mtime_ns, name


def test_fchmod_on_a_read_only_descriptor(tree):
    path = write(tree / "f", b"x")
    fd = os.open(path, os.O_RDONLY)
    os.fchmod(fd, 0o640)
    os.fchown(fd, 33, 33)
    os.close(fd)
    s = os.stat(path)
    assert (stat.S_IMODE(s.st_mode), s.st_uid, s.st_gid) == (0o640, 33, 33)


# ---- times ----------------------------------------------------------------------------------

def test_times_have_nanoseconds(tree):
    path = write(tree / "f", b"x")
    os.utime(path, ns=(1_500_000_000_123_456_789, 1_600_000_000_987_654_321))
    s = os.stat(path)
    assert (s.st_atime_ns, s.st_mtime_ns) == (1_500_000_000_123_456_789, 1_600_000_000_987_654_321)


@pytest.mark.parametrize("seconds", [-1, 0, 1, 2**31 - 1, 2**31, 2**33])
def test_times_before_1970_and_after_2038(tree, seconds):
    path = write(tree / "f", b"x")
    os.utime(path, (seconds, seconds))
    assert os.stat(path).st_mtime == seconds


def test_each_half_of_utimensat_alone(tree):
    path = write(tree / "f", b"x")
    os.utime(path, ns=(1_111_111_111_111_111_111, 1_222_222_222_222_222_222))
    sc.utimensat(path, (0, sc.UTIME_OMIT), (1_400_000_000, 5))
    s = os.stat(path)
    assert (s.st_atime_ns, s.st_mtime_ns) == (1_111_111_111_111_111_111, 1_400_000_000_000_000_005)
    sc.utimensat(path, (1_300_000_000, 7), (0, sc.UTIME_OMIT))
    s = os.stat(path)
    assert (s.st_atime_ns, s.st_mtime_ns) == (1_300_000_000_000_000_007, 1_400_000_000_000_000_005)
    before = time.time()
    sc.utimensat(path, (0, sc.UTIME_OMIT), (0, sc.UTIME_NOW))
    s = os.stat(path)
    assert s.st_atime_ns == 1_300_000_000_000_000_007
    assert before - 0.1 <= s.st_mtime <= time.time() + 0.1
    ctime = os.stat(path).st_ctime_ns
    sc.utimensat(path, (0, sc.UTIME_OMIT), (0, sc.UTIME_OMIT))
    assert os.stat(path).st_ctime_ns == ctime


def test_times_set_before_close_survive_it(tree):
    """cp -a: data, futimens, then close."""
    for n in range(5):
        fd = os.open(tree / f"f{n}", os.O_WRONLY | os.O_CREAT, 0o644)
        os.write(fd, b"x" * 300_000)
        sc.futimens(fd, (1_000_000_001, 11), (1_000_000_002, 22))
        os.close(fd)
        assert os.stat(tree / f"f{n}").st_mtime_ns == 1_000_000_002_000_000_022
        assert os.stat(tree / f"f{n}").st_atime_ns == 1_000_000_001_000_000_011


def test_mtime_and_ctime_move_when_they_must(tree):
    path = write(tree / "f", b"x")

    def moved(step, mtime):
        before = os.stat(path)
        time.sleep(0.01)
        step()
        after = os.stat(path)
        assert (after.st_mtime_ns > before.st_mtime_ns) == mtime
        assert after.st_ctime_ns > before.st_ctime_ns

    moved(lambda: write(path, b"yy"), True)
    moved(lambda: os.truncate(path, 1), True)
    moved(lambda: os.chmod(path, 0o600), False)
    moved(lambda: os.chown(path, 33, 33), False)
    moved(lambda: os.setxattr(path, "user.a", b"1"), False)
    moved(lambda: os.setxattr(path, "user.a", b"2"), False)
    moved(lambda: os.link(path, tree / "g"), False)
    moved(lambda: os.unlink(tree / "g"), False)
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in (
        (1, 6, -1 & 0xffffffff), (2, 4, 33), (4, 4, -1 & 0xffffffff), (16, 4, -1 & 0xffffffff), (32, 4, -1 & 0xffffffff)))
    moved(lambda: os.setxattr(path, "system.posix_acl_access", acl), False)
    before = os.stat(path)
    read(path)
    os.listxattr(path)
    os.setxattr(path, "user.a", b"2")       # what it has already
    os.setxattr(path, "system.posix_acl_access", acl)
    after = os.stat(path)
    assert (before.st_mtime_ns, before.st_ctime_ns) == (after.st_mtime_ns, after.st_ctime_ns)


def test_mapped_writes_move_mtime(tree, kind):
    """After msync and close at the latest the file looks changed, or backups miss it."""
    path = write(tree / "f", bytes(8192))
    os.utime(path, (1_000_000_000, 1_000_000_000))
    fd = os.open(path, os.O_RDWR)
    m = mmap.mmap(fd, 8192)
    m[0:1] = b"x"
    m.flush()
    m.close()
    os.close(fd)
    rig.wait_until(lambda: os.stat(path).st_mtime > 1_000_000_000, 5)


# ---- extended attributes --------------------------------------------------------------------

@pytest.mark.parametrize("what", ["directory", "symlink"])
def test_reading_moves_the_atime_as_relatime_has_it(tree, what):
    path = tree / "a"
    if what == "directory":
        path.mkdir()
        write(path / "f", b"")
        look = lambda: os.listdir(path)
    else:
        os.symlink("f", path)
        look = lambda: os.readlink(path)
    look()
    old = time.time() - 3 * 86400
    os.utime(path, (old, old), follow_symlinks=False)
    look()
    moved = os.lstat(path).st_atime
    assert time.time() - moved < 60
    look()
    assert os.lstat(path).st_atime == moved             # younger than mtime, ctime and a day
    if what == "directory":
        write(path / "g", b"")
        look()
        assert os.stat(path).st_atime > moved
        moved = os.stat(path).st_atime
        write(path / "h", b"")
        fd = os.open(path, os.O_RDONLY | os.O_NOATIME)
        assert len(os.listdir(fd)) == 3
        os.close(fd)
        assert os.stat(path).st_atime == moved


@pytest.mark.parametrize("option", ["noatime", "ro"])
def test_without_atime_reading_moves_none(new_mount, option):
    mount = new_mount("passthrough").start()
    file, folder = write(mount.path / "f", b"x"), mount.path / "d"
    folder.mkdir()
    for path in (file, folder):
        os.utime(path, (1e9, 1e9))
    mount.sync()
    mount.stop()
    mount.set(**{option: True}).start()
    read(file)
    os.listdir(folder)
    assert os.stat(file).st_atime == os.stat(folder).st_atime == 1e9


def test_times_at_the_end_of_what_can_be_kept(tree):
    """ext4 has its own ends: what lies beyond becomes the end, never another time."""
    path = write(tree / "f", b"")
    os.utime(path, (10_413_792_000, 10_413_792_000))    # 2300
    assert time.gmtime(os.stat(path).st_mtime).tm_year == time.gmtime(os.stat(path).st_atime).tm_year == 2262
    os.utime(tree, (-10**11, 10**12))
    assert os.stat(tree).st_atime < -9e9 and os.stat(tree).st_mtime > 9e9


def strip_call(path, how):
    if how == "chown":
        os.chown(path, -1, -1)
    elif how == "write":
        with open(path, "ab") as f:
            f.write(b"x")
    elif how == "truncate":
        os.truncate(path, 0)
    elif how == "fallocate":
        fd = os.open(path, os.O_RDWR)
        os.posix_fallocate(fd, 0, 100)
        os.close(fd)


@pytest.mark.parametrize("how", ["chown", "write", "truncate", "fallocate"])
@pytest.mark.parametrize("mode", [0o6777, 0o6666, 0o2666, 0o4666])
@pytest.mark.parametrize("member", [False, True])
def test_setuid_and_setgid_go_as_on_the_bare_disk(tree, bare, how, mode, member):
    found = []
    for folder in (tree, bare):
        path = write(folder / "f", b"data")
        os.chown(path, 0, 100)
        os.chmod(path, mode)
        folder.chmod(0o755)
        try:
            as_user("nobody", strip_call, path, how, groups=[100] if member else [])
            error = 0
        except OSError as e:
            error = e.errno
        found.append((error, oct(os.stat(path).st_mode)))
    assert found[0] == found[1]


def test_a_namespace_alone_is_no_xattr(tree):
    path = write(tree / "f", b"")
    for name in ("user.", "trusted."):
        with raises(errno.EINVAL):
            os.setxattr(path, name, b"1")
    assert os.listxattr(path) == []


def test_no_more_xattrs_than_can_be_listed(tree):
    path = write(tree / "f", b"")
    with raises(errno.ENOSPC):
        for n in range(1000):
            os.setxattr(path, f"user.{n:04}{'n' * 200}", b"")
    assert len(os.listxattr(path)) == n and n > 300
    os.setxattr(path, f"user.0000{'n' * 200}", b"anew")
    os.removexattr(path, f"user.0001{'n' * 200}")
    os.setxattr(path, f"user.{n:04}{'n' * 200}", b"")


def test_a_file_handle_outlives_the_kernels_memory(tree):
    libc = ctypes.CDLL(None, use_errno=True)

    class Handle(ctypes.Structure):
        _fields_ = [("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("data", ctypes.c_ubyte * 128)]

    (tree / "d" / "e").mkdir(parents=True)
    path, handle, mount_id = write(tree / "d" / "e" / "f", b"here"), Handle(bytes=128), ctypes.c_int()
    assert libc.name_to_handle_at(-100, os.fsencode(path), ctypes.byref(handle), ctypes.byref(mount_id), 0) == 0
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write("2")
    root = os.open(tree, os.O_RDONLY)
    fd = libc.open_by_handle_at(root, ctypes.byref(handle), os.O_RDONLY)
    assert fd >= 0, os.strerror(ctypes.get_errno())
    assert os.read(fd, 10) == b"here"
    os.close(fd)
    os.unlink(path)
    assert libc.open_by_handle_at(root, ctypes.byref(handle), os.O_RDONLY) < 0
    assert ctypes.get_errno() == errno.ESTALE
    os.close(root)


def test_when_something_was_made_stays(tree):
    """The time of birth, where the kernel asks for it (6.6)."""
    path = write(tree / "f", b"x")
    (tree / "d").mkdir()
    os.symlink("f", tree / "l")
    asked = tuple(int(n) for n in os.uname().release.split(".")[:2]) >= (6, 6)

    def births(*names):
        return run("stat", "-c", "%.9W", *(tree / name for name in names)).out.split()
    before = births("f", "d", "l")
    for birth, name in zip(before, ("f", "d", "l")):
        change = run("stat", "-c", "%.9Z", tree / name).out.strip()
        assert (0 < float(birth) <= float(change)) if asked else birth.startswith("0.")
    time.sleep(0.01)
    write(path, b"yy")
    os.utime(path, ns=(1, 2))
    os.rename(path, tree / "g")
    os.chmod(tree / "d", 0o700)
    assert births("g", "d", "l") == before


def test_chattr_flags_are_answered(tree):
    path = write(tree / "f", b"")
    for what in (path, tree):
        fd = os.open(what, os.O_RDONLY)
        assert fcntl.ioctl(fd, 0x80086601, bytes(8))[:4] == bytes(4)        # FS_IOC_GETFLAGS
        fcntl.ioctl(fd, 0x40086602, bytes(8))                               # FS_IOC_SETFLAGS: none
        with raises(errno.EOPNOTSUPP):
            fcntl.ioctl(fd, 0x40086602, (16).to_bytes(8, "little"))         # +i
        os.close(fd)


def test_xattrs(tree):
    path = write(tree / "f", b"x")
    os.setxattr(path, "user.a", b"1")
    os.setxattr(path, "user.empty", b"")
    os.setxattr(path, "user.bin", bytes(range(256)))
    assert sorted(os.listxattr(path)) == ["user.a", "user.bin", "user.empty"]
    assert os.getxattr(path, "user.bin") == bytes(range(256))
    assert os.getxattr(path, "user.empty") == b""
    with raises(errno.EEXIST):
        os.setxattr(path, "user.a", b"2", os.XATTR_CREATE)
    with raises(errno.ENODATA):
        os.setxattr(path, "user.b", b"2", os.XATTR_REPLACE)
    os.setxattr(path, "user.a", b"2", os.XATTR_REPLACE)
    os.removexattr(path, "user.bin")
    with raises(errno.ENODATA):
        os.getxattr(path, "user.bin")
    with raises(errno.ENODATA):
        os.removexattr(path, "user.bin")
    os.rename(path, tree / "g")
    assert os.getxattr(tree / "g", "user.a") == b"2"
    os.setxattr(tree, "user.dir", b"d")
    assert os.getxattr(tree, "user.dir") == b"d"


def test_xattr_of_64_kib(tree, kind):
    path = write(tree / "f", b"x")
    big = noise(65536)
    if kind != "bare":      # ext4's own limit is a block
        os.setxattr(path, "user.big", big)
        assert os.getxattr(path, "user.big") == big
    with raises(errno.E2BIG):
        os.setxattr(path, "user.more", big + b"x")
    buf = ctypes.create_string_buffer(10)
    os.setxattr(path, "user.small", b"x" * 100)
    n = sc.libc.getxattr(os.fsencode(path), b"user.small", buf, 10)
    assert n == -1 and ctypes.get_errno() == errno.ERANGE


def test_xattr_names_beyond_user(tree):
    path = write(tree / "f", b"x")
    os.setxattr(path, "trusted.a", b"t")
    os.setxattr(path, "security.a", b"s")
    assert {"trusted.a", "security.a"} <= set(os.listxattr(path))
    assert "trusted.a" not in as_user(WWW, os.listxattr, path)
    with raises(errno.EOPNOTSUPP):
        os.setxattr(path, "nonsense.a", b"x")


def test_acl(tree):
    path = write(tree / "f", b"x")
    os.chmod(path, 0o600)
    run("setfacl", "-m", "u:33:r", path)
    out = run("getfacl", "-cnp", path).out
    assert "user:33:r--" in out and "mask::r--" in out
    assert as_user(WWW, read, path) == b"x"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640     # the mask shows as the group's bits
    os.chmod(path, 0o600)
    with raises(errno.EACCES):
        as_user(WWW, read, path)
    run("setfacl", "-b", path)
    assert "system.posix_acl_access" not in os.listxattr(path)


def test_default_acl_is_inherited(tree):
    (tree / "d").mkdir()
    run("setfacl", "-d", "-m", "u:33:rwx,o::-", tree / "d")
    write(tree / "d" / "f", b"x")
    (tree / "d" / "e").mkdir()
    assert "user:33:rwx" in run("getfacl", "-cnp", tree / "d" / "f").out
    assert "default:user:33:rwx" in run("getfacl", "-cnp", tree / "d" / "e").out


# ---- locks ----------------------------------------------------------------------------------

def try_lock(path, kind, command=None, start=0, length=0):
    fd = os.open(path, os.O_RDWR)
    try:
        if command is None:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
        else:
            fcntl.fcntl(fd, command, sc.flock64(kind, start, length))
        return 0
    except OSError as e:
        return e.errno
    finally:
        os.close(fd)


def test_flock(tree):
    path = write(tree / "f", b"")
    fd = os.open(path, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    assert as_user(0, try_lock, path, fcntl.LOCK_SH) == errno.EWOULDBLOCK
    fcntl.flock(fd, fcntl.LOCK_SH)
    assert as_user(0, try_lock, path, fcntl.LOCK_SH) == 0
    assert as_user(0, try_lock, path, fcntl.LOCK_EX) == errno.EWOULDBLOCK
    fcntl.flock(fd, fcntl.LOCK_UN)
    assert as_user(0, try_lock, path, fcntl.LOCK_EX) == 0
    fcntl.flock(fd, fcntl.LOCK_EX)
    os.close(fd)
    assert as_user(0, try_lock, path, fcntl.LOCK_EX) == 0


def test_posix_locks(tree):
    path = write(tree / "f", b"x" * 100)
    fd = os.open(path, os.O_RDWR)
    fcntl.fcntl(fd, fcntl.F_SETLK, sc.flock64(fcntl.F_WRLCK, 10, 10))
    busy = (errno.EAGAIN, errno.EACCES)
    assert as_user(0, try_lock, path, fcntl.F_WRLCK, fcntl.F_SETLK, 15, 1) in busy
    assert as_user(0, try_lock, path, fcntl.F_WRLCK, fcntl.F_SETLK, 20, 10) == 0
    fcntl.fcntl(fd, fcntl.F_SETLK, sc.flock64(fcntl.F_UNLCK, 10, 10))
    assert as_user(0, try_lock, path, fcntl.F_WRLCK, fcntl.F_SETLK, 0, 0) == 0
    os.close(fd)


def test_open_file_description_locks(tree):
    path = write(tree / "f", b"x" * 100)
    fd = os.open(path, os.O_RDWR)
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, sc.flock64(fcntl.F_WRLCK))
    assert try_lock(path, fcntl.F_WRLCK, fcntl.F_OFD_SETLK) == errno.EAGAIN
    os.close(fd)
    assert try_lock(path, fcntl.F_WRLCK, fcntl.F_OFD_SETLK) == 0


def test_waiting_for_a_lock_ends_with_it(tree):
    path = write(tree / "f", b"")
    fd = os.open(path, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    waiter = subprocess.Popen(["flock", path, "echo", "mine"], stdout=subprocess.PIPE)
    time.sleep(0.1)
    assert waiter.poll() is None
    os.close(fd)
    assert waiter.communicate(timeout=20)[0] == b"mine\n"


def test_waiting_for_a_lock_can_be_interrupted(tree):
    path = write(tree / "f", b"")
    fd = os.open(path, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    waiter = subprocess.Popen(["flock", path, "true"])
    time.sleep(0.1)
    waiter.send_signal(signal.SIGTERM)
    assert waiter.wait(20) == -signal.SIGTERM
    os.close(fd)


# ---- the rest -------------------------------------------------------------------------------

def test_statfs(tree):
    s = os.statvfs(tree)
    assert s.f_namemax == 255
    assert s.f_blocks > 0 and 0 < s.f_bavail <= s.f_bfree <= s.f_blocks
    assert s.f_bsize > 0
    run("df", tree)


def test_inode_numbers_are_unique_and_not_reused(tree):
    seen = set()
    for n in range(300):
        path = write(tree / "f", b"")
        ino = os.stat(path).st_ino
        assert ino not in seen or tree_is_bare(tree)
        seen.add(ino)
        os.unlink(path)


def tree_is_bare(tree):
    return not any(os.path.ismount(p) for p in list(tree.parents)[:2])


def test_many_open_files(tree):
    fds = []
    for n in range(900):
        fd = os.open(tree / f"f{n}", os.O_RDWR | os.O_CREAT, 0o644)
        os.write(fd, str(n).encode())
        fds.append(fd)
    for n, fd in enumerate(fds):
        assert os.pread(fd, 10, 0) == str(n).encode()
        os.close(fd)


def test_one_file_many_opens(tree):
    """Readers and writers of every kind at the same time share the bytes."""
    path = write(tree / "f", b"0" * 100_000)
    fds = [os.open(path, flags) for flags in
           (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDONLY, os.O_RDWR | os.O_APPEND)]
    os.pwrite(fds[1], b"1" * 1000, 0)
    assert os.pread(fds[0], 1000, 0) == b"1" * 1000
    os.pwrite(fds[2], b"2" * 1000, 50_000)
    assert os.pread(fds[3], 1000, 50_000) == b"2" * 1000
    os.write(fds[4], b"end")
    assert os.pread(fds[0], 10, 100_000) == b"end"
    late = os.open(path, os.O_RDONLY)
    assert os.pread(late, 1000, 0) == b"1" * 1000
    os.ftruncate(fds[2], 10)
    assert os.pread(late, 1000, 0) == b"1" * 10
    for fd in [*fds, late]:
        os.close(fd)
    assert read(path) == b"1" * 10


def test_open_truncating_while_others_read(tree):
    path = write(tree / "f", b"0" * 100_000)
    reader = os.open(path, os.O_RDONLY)
    writer = os.open(path, os.O_WRONLY | os.O_TRUNC)
    assert os.fstat(reader).st_size == 0
    assert os.pread(reader, 10, 0) == b""
    os.write(writer, b"new")
    assert os.pread(reader, 10, 0) == b"new"
    os.close(reader)
    os.close(writer)


def churn(tree, worker):
    for n in range(60):
        d = tree / f"w{worker}"
        d.mkdir(exist_ok=True)
        data = noise(1000 + n * 37, f"{worker}.{n}")
        write(d / "a", data)
        os.rename(d / "a", d / f"b{n % 7}")
        assert read(d / f"b{n % 7}") == data
        if n % 5 == 0:
            os.unlink(d / f"b{n % 7}")


def test_many_processes_at_once(tree):
    workers = [multiprocessing.Process(target=churn, args=(tree, n)) for n in range(6)]
    for w in workers:
        w.start()
    for w in workers:
        w.join(60)
    assert [w.exitcode for w in workers] == [0] * 6
