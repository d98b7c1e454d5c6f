# SPDX-License-Identifier: GPL-3.0-or-later
"""cp, rsync, tar, mv and sed, as installed: what CLIENTS.md traced."""
import contextlib
import os
import re
import stat
import subprocess

import pytest

import rig
from rig import keep_path, noise, read, run, write


def make_source(root):
    """A tree with one of everything that these tools carry."""
    root.mkdir()
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "empty").mkdir()
    write(root / "photo.jpg", noise(300_000, 1))
    write(root / "sub" / "clip.mp4", noise(3_000_000, 2))
    write(root / "sub" / "deep" / "zero", b"")
    write(root / "-dash", b"d")
    write(os.fsencode(root) + b"/new\nline\xff", b"n")
    os.symlink("photo.jpg", root / "link")
    os.symlink("nowhere", root / "dangling")
    os.mkfifo(root / "fifo")
    os.link(root / "photo.jpg", root / "sub" / "same.jpg")
    with open(root / "sparse", "wb") as f:
        f.seek(5 << 20)
        f.write(b"end")
        f.truncate(9 << 20)
    with open(root / "only-truncated", "wb") as f:
        f.truncate(1 << 20)
    os.setxattr(root / "photo.jpg", "user.caption", "Ferien".encode())
    os.setxattr(root / "sub", "user.album", b"1")
    run("setfacl", "-m", "u:33:rw", root / "sub" / "clip.mp4")
    os.chmod(root / "sub" / "deep" / "zero", 0o4711)
    os.chown(root / "-dash", 33, 33)
    os.lchown(root / "link", 33, 33)
    for n, path in enumerate(sorted(root.rglob("*"), reverse=True)):
        os.utime(path, ns=(10**18 + n, 10**18 + 123_456_789 + n), follow_symlinks=False)
    os.utime(root, ns=(10**18, 10**18 + 5))
    return root


def describe(root, times=True, xattrs=True):
    """Everything that a faithful copy has, by relative name."""
    root = os.fsencode(root)
    found, groups = {}, {}
    for folder, folders, files in os.walk(root):
        for name in [b"", *folders, *files] if folder == root else folders + files:
            path = os.path.join(folder, name)
            s = os.lstat(path)
            relative = os.path.relpath(path, root)
            one = {"mode": oct(s.st_mode), "uid": s.st_uid, "gid": s.st_gid}
            if times:
                one["mtime"] = s.st_mtime_ns
            if stat.S_ISREG(s.st_mode):
                one["data"] = rig.sha256(path)
                groups.setdefault(s.st_ino, []).append(relative)
            if stat.S_ISLNK(s.st_mode):
                one["target"] = os.readlink(path)
            elif xattrs:
                one["xattrs"] = {n: os.getxattr(path, n) for n in os.listxattr(path)}
            found[relative] = one
    links = sorted(sorted(g) for g in groups.values() if len(g) > 1)
    return found, links


@pytest.fixture
def source(tmp_path_factory):
    return make_source(tmp_path_factory.mktemp("source") / "src")


def test_cp_a(tree, source):
    run("cp", "-a", source, tree / "dst")
    assert describe(tree / "dst") == describe(source)
    assert os.stat(tree / "dst" / "only-truncated").st_size == 1 << 20
    run("cp", "-a", tree / "dst", tree / "again")       # from the mount to the mount
    assert describe(tree / "again") == describe(source)


def test_cp_keeps_holes(tree, source):
    run("cp", "-a", "--sparse=auto", source / "sparse", tree / "sparse")
    assert os.stat(tree / "sparse").st_blocks * 512 < 1 << 20
    run("cp", tree / "sparse", tree / "second")
    assert read(tree / "second") == read(source / "sparse")


def test_cp_out_of_the_mount(tree, source, tmp_path):
    run("cp", "-a", source, tree / "dst")
    run("cp", "-a", tree / "dst", tmp_path / "back")
    assert describe(tmp_path / "back") == describe(source)


def transferred(r):
    return int(re.search(r"Number of regular files transferred: ([\d,]+)", r.out)[1].replace(",", ""))


def test_rsync_a_twice(tree, source):
    dst = tree / "dst"
    first = run("rsync", "-a", "--stats", f"{source}/", dst)
    assert transferred(first) > 5
    assert describe(dst, xattrs=False)[0] == describe(source, xattrs=False)[0]
    second = run("rsync", "-a", "--stats", "-i", f"{source}/", dst)
    assert transferred(second) == 0
    # Nothing at all to do, not even times or modes.
    assert [line for line in second.out.splitlines() if re.match(r"[<>ch.][fdLDS]", line)] == []
    assert transferred(run("rsync", "-anc", "--stats", f"{source}/", dst)) == 0


def test_rsync_with_everything(tree, source):
    dst = tree / "dst"
    run("rsync", "-aHAXS", f"{source}/", dst)
    assert describe(dst) == describe(source)
    out = run("rsync", "-aHAXSi", "--stats", f"{source}/", dst)
    assert transferred(out) == 0


def test_rsync_inplace_edits_the_live_file(tree, source):
    dst = tree / "dst"
    run("rsync", "-aHAX", f"{source}/", dst)
    ino = os.stat(dst / "photo.jpg").st_ino
    data = bytearray(read(source / "photo.jpg"))
    data[1000:1010] = b"edited-now"
    write(source / "photo.jpg", bytes(data[:-777]))
    run("rsync", "-aHAX", "--inplace", "--no-whole-file", f"{source}/", dst)
    assert read(dst / "photo.jpg") == bytes(data[:-777])
    assert os.stat(dst / "photo.jpg").st_ino == ino
    assert read(dst / "sub" / "same.jpg") == bytes(data[:-777])


def test_rsync_from_mount_to_mount(tree, source):
    run("rsync", "-aHAX", f"{source}/", tree / "a")
    run("rsync", "-aHAX", f"{tree}/a/", tree / "b")
    assert describe(tree / "b") == describe(source)
    assert transferred(run("rsync", "-aHAX", "--stats", f"{tree}/a/", tree / "b")) == 0


def test_rsync_delete(tree, source):
    run("rsync", "-a", f"{source}/", tree / "dst")
    write(tree / "dst" / "extra", b"")
    (tree / "dst" / "extra-dir").mkdir()
    run("rsync", "-a", "--delete", f"{source}/", tree / "dst")
    assert sorted(os.listdir(os.fsencode(tree / "dst"))) == sorted(os.listdir(os.fsencode(source)))


def test_tar_both_ways(tree, source, tmp_path):
    """GNU tar sets mtime with atime = UTIME_OMIT, writes in 10 KiB pieces, 0600 first."""
    archive = tree / "a.tar"
    flags = ["--xattrs", "--acls", "--format=posix", "--sparse"]
    run("tar", *flags, "-C", source, "-cf", archive, ".")
    (tree / "out").mkdir()
    run("tar", *flags, "-C", tree / "out", "-xpf", archive)
    assert describe(tree / "out") == describe(source)
    run("tar", *flags, "-C", tree / "out", "-cf", tmp_path / "b.tar", ".")
    (tmp_path / "back").mkdir()
    run("tar", *flags, "-C", tmp_path / "back", "-xpf", tmp_path / "b.tar")
    assert describe(tmp_path / "back") == describe(source)
    run("tar", "-C", tree / "out", "--compare", "-f", archive)


def test_mv_in_from_another_disk(tree, source):
    """EXDEV: mv copies with times, xattrs and ACLs, then removes."""
    expected = describe(source)
    run("mv", source, tree / "moved")
    assert describe(tree / "moved") == expected
    assert not source.exists()


def test_editors_replace_files(tree):
    path = write(tree / "note.txt", b"one two\n")
    os.chmod(path, 0o640)
    run("sed", "-i", "s/one/three/", path)
    assert read(path) == b"three two\n"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640
    assert os.listdir(tree) == ["note.txt"]


def test_dd_with_every_flag(tree):
    run("dd", "if=/dev/urandom", f"of={tree}/f", "bs=64k", "count=20", "oflag=direct,sync", "conv=fsync")
    run("dd", f"if={tree}/f", f"of={tree}/g", "bs=1M", "iflag=direct", "conv=sparse,fdatasync")
    assert read(tree / "f") == read(tree / "g")
    run("truncate", "-s", "+1M", tree / "g")
    run("cmp", "-n", str(20 * 65536), tree / "f", tree / "g")


def test_find_du_and_ls(tree, source):
    run("cp", "-a", source, tree / "dst")
    for command in (["find", ".", "-printf", "%y %m %s %n %P\\0"], ["ls", "-lARn", "--time-style=full-iso"]):
        here = subprocess.run(command, cwd=tree / "dst", capture_output=True, check=True).stdout
        there = subprocess.run(command, cwd=source, capture_output=True, check=True).stdout
        if command[0] == "find":
            def rows(out):      # directories' sizes and link counts are each file system's own
                return sorted(r for r in out.split(b"\0") if not r.startswith(b"d"))
            assert rows(here) == rows(there)
    used = int(run("du", "-sk", tree / "dst").out.split()[0])
    assert 3200 < used < 8000       # holes and the second name do not count


def test_sqlite_lives_here(tree):
    """Locks, shared memory, truncations: a database is the hardest client."""
    import sqlite3
    for mode in ("delete", "wal"):
        with contextlib.closing(sqlite3.connect(tree / f"{mode}.db", timeout=20)) as db:
            db.execute(f"pragma journal_mode={mode}")
            db.execute("create table t(a)")
            for n in range(200):
                db.execute("insert into t values(?)", (noise(500, n),))
                if n % 20 == 0:
                    db.commit()
            db.commit()
        with contextlib.closing(sqlite3.connect(tree / f"{mode}.db")) as db:
            assert db.execute("pragma integrity_check").fetchone() == ("ok",)
            assert db.execute("select count(*) from t").fetchone() == (200,)


def test_git_lives_here(tree):
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "safe.directory=*"]
    run(*git, "init", "-q", tree / "r")
    for n in range(30):
        write(tree / "r" / f"f{n}", noise(5000, n))
    run(*git, "-C", tree / "r", "add", ".")
    run(*git, "-C", tree / "r", "commit", "-qm", "x")
    run(*git, "-C", tree / "r", "gc", "-q")
    run(*git, "-C", tree / "r", "fsck", "--strict")
    assert run(*git, "-C", tree / "r", "status", "--porcelain").out == ""
    run(*git, "clone", "-q", tree / "r", tree / "s")
    assert read(tree / "s" / "f7") == noise(5000, 7)


# ---- what these tools cost in the backend ---------------------------------------------------

def settle(mount):
    mount.sync()
    return mount.calls()


@pytest.mark.smoke
def test_rsync_puts_each_file_once(stored, tmp_path):
    """The temporary name never reaches the bucket, and neither fchmod nor utimens upload again."""
    source = tmp_path / "src"
    source.mkdir()
    count = 25
    for n in range(count):
        write(source / f"img{n}.jpg", noise(20_000, n))
    keep = keep_path(stored.path) / "album"
    before = settle(stored)
    run("rsync", "-a", f"{source}/", keep)
    after = settle(stored)
    assert after["put"] - before["put"] == count
    assert after.get("copy", 0) == before.get("copy", 0)
    objects = stored.objects()
    prefix = b"circles/1/keeps/1/album/"
    assert {k[len(prefix):]: v for k, v in objects.items() if k.startswith(prefix)} == \
        {f"img{n}.jpg".encode(): noise(20_000, n) for n in range(count)}
    assert not [k for k in objects if b"/." in k]
    run("rsync", "-a", f"{source}/", keep)
    again = settle(stored)
    assert again["put"] == after["put"], "the second rsync uploaded something"


def test_cp_and_sed_put_each_file_once(new_mount):
    mount = new_mount(derived="off").start()
    folder = mount.path / "d"
    folder.mkdir()
    before = settle(mount)
    for n in range(10):
        write(folder / f"src{n}", noise(50_000, n))
        run("cp", "-a", folder / f"src{n}", folder / f"cp{n}")
    after = settle(mount)
    assert after["put"] - before["put"] == 20
    run("sed", "-i", "1s/^/x/", folder / "cp0")
    assert settle(mount)["put"] - after["put"] == 1


def test_two_mounts_rsync_to_nothing(new_mount):
    """Derived files are deterministic, with their original's times: nothing differs."""
    a, b = new_mount().start(), new_mount().start()
    for mount in (a, b):
        keep = keep_path(mount.path, 1, 1)
        for name in ("no_exif.jpg", "orient_6.jpg"):
            run("cp", "-p", rig.MEDIA / name, keep)
            os.utime(keep / name, ns=(10**18, 10**18 + 1))
        mount.sync(derived=True)
    run("rsync", "-aHAX", f"{a.path}/", b.path)
    b.sync(derived=True)
    out = run("rsync", "-aHAXic", "--stats", f"{a.path}/", b.path)
    assert transferred(out) == 0, out.out
    assert sorted(a.files()) == sorted(b.files())
