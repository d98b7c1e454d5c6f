# SPDX-License-Identifier: GPL-3.0-or-later
"""Quotas and recursive sizes: full to the byte, whoever writes and however."""
import errno
import json
import mmap
import multiprocessing
import os
import random
import shutil
import stat

import pytest

import syscalls as sc
from rig import MEDIA, keep_path, read, write
from test_posix import raises

LIMIT = 100_000


def usage(path):
    return tuple(int(os.getxattr(path, f"user.tbfs.{name}")) for name in ("rsize", "rfiles"))


def below(path):
    """The same by walking, where no file has two names."""
    size = files = 0
    for folder, _, names in os.walk(path):
        for name in names:
            st = os.lstat(os.path.join(folder, name))
            size += st.st_size if stat.S_ISREG(st.st_mode) else 0
            files += 1
    return size, files


@pytest.fixture
def full(mount):
    """A mounted tree with a limit of LIMIT bytes and 10 files."""
    path = mount.path / "circles" / "7"
    path.mkdir(parents=True)
    mount.tbfs("quota", "set", "--bytes", str(LIMIT), "--files", "10", path)
    return path


def over(call, *args):
    with raises(errno.EDQUOT):
        call(*args)


def test_a_write_that_does_not_fit_is_refused_whole(full):
    """The last byte fits, one more doesn't; nothing of what is refused arrives."""
    fd = os.open(full / "a", os.O_WRONLY | os.O_CREAT)
    assert os.write(fd, bytes(LIMIT - 10)) == LIMIT - 10
    over(os.write, fd, bytes(11))
    assert os.fstat(fd).st_size == LIMIT - 10
    assert os.write(fd, bytes(10)) == 10
    # What is there may be written over.
    assert os.pwrite(fd, b"x" * 1000, 0) == 1000
    over(os.pwrite, fd, b"x", LIMIT)
    os.close(fd)
    assert usage(full) == (LIMIT, 1)


def test_every_way_to_grow(full, mount):
    path = write(full / "a", bytes(1000))
    fd = os.open(path, os.O_RDWR)
    over(os.ftruncate, fd, LIMIT + 1)
    over(os.truncate, path, LIMIT + 1)
    over(os.posix_fallocate, fd, 0, LIMIT + 1)
    over(os.pwrite, fd, b"x", LIMIT)
    big = write(mount.path / "big", bytes(2 * LIMIT))
    source = os.open(big, os.O_RDONLY)
    over(os.copy_file_range, source, fd, 2 * LIMIT, 0, 0)
    assert os.copy_file_range(source, fd, LIMIT, 0, 0) == LIMIT
    os.close(source)
    assert usage(full) == (LIMIT, 1)
    os.ftruncate(fd, 500)
    over(os.rename, big, full / "big")
    os.posix_fallocate(fd, 0, LIMIT)
    os.close(fd)
    assert usage(full) == (LIMIT, 1)


def test_room_that_is_given_back_is_there_at_once(full):
    path = write(full / "a", bytes(LIMIT))
    over(write, full / "b", b"x")
    write(path, bytes(10))                  # O_TRUNC
    fd = os.open(full / "b", os.O_WRONLY)
    assert os.write(fd, bytes(LIMIT - 10)) == LIMIT - 10
    over(os.write, fd, b"x")
    os.unlink(path)
    assert os.write(fd, bytes(10)) == 10
    os.unlink(full / "b")
    # A file without a name is nobody's.
    assert usage(full) == (0, 0)
    os.close(fd)


def test_mapped_stores_stay_within_the_size(full):
    path = write(full / "a", bytes(LIMIT))
    with open(path, "r+b") as f, mmap.mmap(f.fileno(), LIMIT) as m:
        m[-5:] = b"there"
    assert read(path)[-5:] == b"there"
    assert usage(full) == (LIMIT, 1)


def test_files_are_counted_as_well(full, mount):
    for n in range(9):
        write(full / f"f{n}", b"")
    os.symlink("elsewhere", full / "link")
    over(write, full / "one more", b"")
    over(os.symlink, "elsewhere", full / "one more")
    over(os.mkfifo, full / "one more")
    with raises(errno.EEXIST):
        os.close(os.open(full / "f0", os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    os.mkdir(full / "directories are free")
    os.link(full / "f0", full / "another name is none more")
    write(mount.path / "outside", b"")
    over(os.rename, mount.path / "outside", full / "one more")
    os.rename(mount.path / "outside", full / "f1")
    os.rename(full / "f2", mount.path / "outside")
    write(full / "one more", b"")
    assert usage(full)[1] == 10


def test_a_directory_moves_with_all_below(full, mount):
    tree = mount.path / "tree" / "deep"
    tree.mkdir(parents=True)
    for n in range(8):
        write(tree / f"f{n}", bytes(10_000))
    os.rename(mount.path / "tree", full / "tree")
    assert usage(full) == (80_000, 8) and usage(mount.path) == (80_000, 8)
    os.rename(full / "tree", full / "renamed")
    other = mount.path / "other"
    other.mkdir()
    for n in range(3):
        write(other / f"f{n}", bytes(10_000))
    over(os.rename, other, full / "other")
    os.rename(full / "renamed", mount.path / "tree")
    os.rename(other, full / "other")
    assert usage(full) == (30_000, 3)


def test_statfs_shows_the_limit_and_its_rest(full, mount):
    write(full / "a", bytes(LIMIT // 2))
    for path in (full, full / "a"):
        st = os.statvfs(path)
        assert st.f_blocks * st.f_frsize >= LIMIT > (st.f_blocks - 1) * st.f_frsize
        assert st.f_bavail * st.f_frsize == LIMIT // 2 // st.f_frsize * st.f_frsize
        assert (st.f_files, st.f_favail) == (10, 9)
    assert os.statvfs(mount.path).f_blocks * 4096 > 100 * LIMIT


def writer(path, seed, results):
    """Write until there is no room, in every way; tell how many bytes are in our file."""
    rng = random.Random(seed)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | rng.choice((0, os.O_APPEND)))
    size = 0
    while True:
        n = rng.randrange(1, 4000)
        try:
            assert os.write(fd, bytes(n)) == n
            size += n
        except OSError as e:
            assert e.errno == errno.EDQUOT
            break
        if rng.random() < 0.05:
            os.ftruncate(fd, 0)
            os.lseek(fd, 0, os.SEEK_SET)
            size = 0
    os.close(fd)
    results.put((str(path), size))


def test_eight_writers_share_the_room_exactly(full):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=writer, args=(full / f"w{n}", n, results)) for n in range(8)]
    for p in processes:
        p.start()
    sizes = dict(results.get(timeout=60) for _ in processes)
    for p in processes:
        p.join()
    assert {path: os.stat(path).st_size for path in sizes} == sizes
    assert LIMIT - 4000 < sum(sizes.values()) <= LIMIT
    assert usage(full) == (sum(sizes.values()), 8)
    rest = LIMIT - sum(sizes.values())
    write(full / "rest", bytes(rest))
    over(write, full / "more", b"x")


def test_an_open_file_that_is_moved_in_counts_as_long_as_it_is(full, mount):
    """As Django does with a large upload: written, renamed into the keep, closed."""
    with open(mount.path / "upload", "wb", buffering=0) as f:
        f.write(bytes(LIMIT + 1))
        over(os.rename, mount.path / "upload", full / "upload")
        f.truncate(LIMIT)
        os.rename(mount.path / "upload", full / "upload")
        over(write, full / "more", b"x")
    assert usage(full) == (LIMIT, 2)


def test_a_file_that_gets_its_name_here(full, mount):
    """O_TMPFILE and linkat, where the library has the call."""
    try:
        fd = os.open(full, os.O_TMPFILE | os.O_WRONLY)
    except OSError as e:
        assert e.errno == errno.EOPNOTSUPP      # libfuse before 3.17
        return
    os.write(fd, bytes(LIMIT + 1))
    over(sc.linkat_fd, fd, full / "named")
    os.ftruncate(fd, LIMIT)
    sc.linkat_fd(fd, full / "named")
    os.close(fd)
    assert usage(full) == (LIMIT, 1)


def test_limits_and_counts_survive(full, mount):
    write(full / "a", bytes(1000))
    (full / "below").mkdir()
    os.link(full / "a", full / "below" / "b")
    before = [usage(p) for p in (mount.path, full)]
    for again in (mount.remount, mount.crash):
        again()
        assert [usage(p) for p in (mount.path, full)] == before
        over(write, full / "b", bytes(LIMIT))
        os.unlink(full / "b")
    # The one name is gone: the other is the oldest now.
    os.unlink(full / "a")
    assert usage(full) == usage(full / "below") == usage(mount.path) == (1000, 1)


def test_all_names_of_a_file_are_under_the_same_limits(full, mount):
    """Else what fits nowhere would come in by link and unlink."""
    other = mount.path / "other"
    (other / "d").mkdir(parents=True)
    write(full / "a", bytes(LIMIT - 10))
    write(other / "big", bytes(1000))
    write(other / "d" / "two", b"2")
    os.link(other / "d" / "two", other / "names")

    def across(call, *args):
        with raises(errno.EXDEV):
            call(*args)
    across(os.link, other / "big", full / "big")
    across(os.link, full / "a", other / "a")
    across(os.rename, other / "names", full / "names")
    across(os.rename, other / "d", full / "d")              # one of its files has a name elsewhere
    across(sc.renameat2, full / "a", other / "names", sc.RENAME_EXCHANGE)
    os.unlink(other / "names")
    os.link(other / "d" / "two", other / "d" / "names")
    os.rename(other / "d", full / "d")                      # all its names come along
    os.link(full / "a", full / "d" / "a")
    os.unlink(full / "a")
    assert usage(full) == (LIMIT - 9, 2) and usage(other) == (1000, 1)
    mount.tbfs("quota", "set", "--bytes", "none", "--files", "none", full)
    os.link(other / "big", full / "big")


def test_nested_limits_hold_together(full, mount):
    keep = full / "keeps" / "1"
    keep.mkdir(parents=True)
    mount.tbfs("quota", "set", "--bytes", "10K", keep)
    over(write, keep / "a", bytes(10241))
    os.truncate(keep / "a", 0)
    write(keep / "a", bytes(10240))
    write(full / "b", bytes(LIMIT - 10240))
    os.truncate(keep / "a", 1)
    os.truncate(full / "b", LIMIT - 1)
    over(write, keep / "c", b"x")


def test_derived_files_are_free(mount):
    keep = keep_path(mount.path)
    mount.tbfs("quota", "set", "--files", "1", "--bytes",
               str(os.stat(MEDIA / "no_exif.jpg").st_size), keep)
    shutil.copy(MEDIA / "no_exif.jpg", keep / "a.jpg")
    mount.sync(keep, derived=True)
    assert len(os.listdir(keep / "thumbs" / "a.jpg")) == 3 and (keep / "meta.json").exists()
    assert usage(keep) == (os.stat(keep / "a.jpg").st_size, 1)


def test_what_leaves_a_derived_place_counts(mount):
    """And what comes into one no longer does; neither way a limit is passed by."""
    keep = keep_path(mount.path)
    (keep / "thumbs" / "in").mkdir(parents=True)
    for n in range(4):
        write(keep / "thumbs" / "in" / f"f{n}", bytes(500))
    write(keep / "thumbs" / "big", bytes(5000))
    mount.tbfs("quota", "set", "--bytes", "1500", "--files", "3", keep)
    assert usage(keep) == (0, 0)
    over(os.rename, keep / "thumbs" / "big", keep / "big")
    over(os.rename, keep / "thumbs" / "in", keep / "out")
    os.unlink(keep / "thumbs" / "in" / "f3")
    os.rename(keep / "thumbs" / "in", keep / "out")
    assert usage(keep) == usage(keep / "out") == (1500, 3)
    os.rename(keep / "out", keep / "thumbs" / "in")
    assert usage(keep) == (0, 0)
    outside = mount.path / "outside"
    outside.mkdir()
    for n in range(9):
        write(outside / f"f{n}", bytes(1000))
    os.rename(outside, keep / "thumbs" / "more")
    assert usage(mount.path) == usage(keep) == (0, 0)
    os.rename(keep / "thumbs" / "more", mount.path / "back")
    assert usage(mount.path) == usage(mount.path / "back") == (9000, 9)


def test_what_show_says(full, mount):
    def shown(*paths):
        lines = mount.tbfs("quota", "show", "--json", *paths).out.splitlines()
        return {q["path"]: (q["bytes"]["used"], q["bytes"]["limit"], q["files"]["used"], q["files"]["limit"])
                for q in map(json.loads, lines)}
    write(full / "a", bytes(5))
    everything = {"circles/7": (5, LIMIT, 1, 10)}
    assert shown(mount.path) == shown(full) == shown(full / "a") == everything
    (mount.path / "other").mkdir()
    assert shown(mount.path / "other") == {}
    os.rename(full, mount.path / "moved")
    assert shown(mount.path) == {"moved": everything["circles/7"]}
    mount.tbfs("quota", "set", "--files", "none", mount.path / "moved")
    assert shown(mount.path) == {"moved": (5, LIMIT, 1, 0)}
    assert "97.7 KiB" in mount.tbfs("quota", "show", mount.path).out
    mount.tbfs("quota", "set", "--bytes", "none", mount.path / "moved")
    assert mount.tbfs("quota", "show", mount.path).out == "no quota\n"


@pytest.mark.parametrize("args, code, words", [
    (["set", "--bytes", "0"], 2, "bad value '0' of --bytes"),
    (["set", "--bytes", "-1"], 2, "bad value '-1' of --bytes"),
    (["set", "--files", "many"], 2, "bad value 'many' of --files"),
    (["set"], 2, "usage: tbfs quota"),
    (["get"], 2, "usage: tbfs quota"),
])
def test_mistakes(full, mount, args, code, words):
    r = mount.tbfs("quota", *args, full, check=False)
    assert r.returncode == code and words in r.err


def test_a_file_takes_no_quota(full, mount):
    write(full / "a", b"")
    r = mount.tbfs("quota", "set", "--files", "1", full / "a", check=False)
    assert r.returncode == 1 and "Not a directory" in r.err


def test_sizes_follow_whatever_happens(mount):
    """A thousand random changes; what is counted is what a walk finds."""
    top, rng = mount.path / "top", random.Random(3)
    top.mkdir()
    names = [top / a / b for a in "xyz" for b in "12345"]
    for folder in "xyz":
        (top / folder).mkdir()
    for step in range(1000):
        a, b = rng.sample(names, 2)
        try:
            rng.choice((lambda: write(a, bytes(rng.randrange(5000))), lambda: os.unlink(a),
                        lambda: os.rename(a, b), lambda: os.truncate(a, rng.randrange(5000)),
                        lambda: os.rename(a.parent, b.parent), lambda: os.symlink("t", a)))()
        except OSError:
            pass
        for folder in "xyz":
            (top / folder).mkdir(exist_ok=True)
        if step % 100 == 99:
            assert usage(top) == below(top)
            assert all(usage(top / folder) == below(top / folder) for folder in "xyz")
    mount.crash()
    assert usage(top) == below(top)


def test_a_size_costs_one_look_however_much_is_below(new_mount):
    mount = new_mount(derived="off").start()
    top = mount.path / "a" / "b" / "c"
    top.mkdir(parents=True)
    for n in range(300):
        write(top / f"f{n}", b"x")
    mount.sync()
    before = mount.status()["counts"]["sql_statements"]
    for _ in range(100):
        assert usage(mount.path) == (300, 300)
    # Two questions, each with a look at the row; some for the status.
    assert mount.status()["counts"]["sql_statements"] - before < 300
