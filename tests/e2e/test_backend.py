# SPDX-License-Identifier: GPL-3.0-or-later
"""What arrives in the backend, read there without tbfs: plain files, or boto3."""
import errno
import fcntl
import mmap
import os
import shutil
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import rig
import syscalls as sc
from rig import files_below, keep_path, noise, originals, read, run, wait_until, write


def same(mount):
    """The backend holds exactly the files of the tree."""
    wait_until(lambda: mount.objects() == mount.files(), 15, 0.1)


@pytest.mark.smoke
def test_objects_equal_files_after_sync(stored):
    keep = keep_path(stored.path, 12, 34)
    write(keep / "a.bin", noise(150_000, 1))
    write(keep / "big.bin", noise(40_000_000, 2))       # beyond one PUT: multipart in S3
    write(keep / "empty.bin", b"")
    (keep / "sub" / "deeper").mkdir(parents=True)
    write(keep / "sub" / "deeper" / "c.bin", noise(17, 3))
    write(stored.path / "outside.txt", b"not in a keep")
    stored.sync()
    assert {stored.state(p) for p in keep.rglob("*.bin")} == {"stored"}
    objects = originals(stored.objects())
    assert objects == originals(stored.files())
    assert b"circles/12/keeps/34/sub/deeper/c.bin" in objects


def test_sync_of_one_path(stored):
    a, b = write(stored.path / "a", noise(1000)), write(stored.path / "b", noise(1000))
    stored.set(quiet_period="1h").remount()
    write(a, noise(2000))
    write(b, noise(2000))
    stored.sync(a)
    assert stored.state(a) == "stored" and stored.objects()[b"a"] == noise(2000)
    assert stored.state(b) in ("open", "dirty")
    os.setxattr(b, "user.tbfs.sync", b"1")
    assert stored.state(b) == "stored" and stored.objects()[b"b"] == noise(2000)


def test_sync_never_says_yes_while_someone_writes(stored):
    path = write(stored.path / "a", b"1")
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, b"22")
    r = stored.sync(path, check=False, timeout=3)
    assert r.returncode == rig.NOT_DONE and "a" in r.err
    with pytest.raises(OSError) as e:
        os.setxattr(path, "user.tbfs.sync", b"1")
    assert e.value.errno in (16, 110)       # EBUSY
    os.close(fd)
    stored.sync(path)
    assert stored.objects()[b"a"] == b"22"


NAMES = [b"new\nline", b"\xff\xfe", b"-rf", b" lead", b"tail ", b"a'b\"c$(x);`y`", b"back\\slash", b"*?[x]",
         b"%2F%00", b"plus+and space", b"hash#q?x=1&y", b"\x01\x7f", "Фото 家族 👨‍👩‍👧‍👦".encode(), "e\u0301".encode(),
         "é".encode(), b"x" * 255, b"...", b"..a", b"~", b"UPPER", b"upper"]


def test_every_name_travels_to_the_bucket_and_back(stored):
    folder = os.fsencode(stored.path)
    for n, name in enumerate(NAMES):
        write(os.path.join(folder, name), noise(100, n))
        os.mkdir(os.path.join(folder, b"d" + name[:200]))
        write(os.path.join(folder, b"d" + name[:200], name), noise(101, n))
    stored.sync()
    tree = files_below(stored.path)
    assert len(tree) == 2 * len(NAMES)
    plain, everything = stored.objects(), stored.objects(everything=True)
    # What is no legal key lives below .tbfs/o/; everything else under its own name.
    for name, data in tree.items():
        if name in plain:
            assert plain[name] == data
        else:
            assert data in [v for k, v in everything.items() if k.startswith(b".tbfs/o/")], name
    assert plain["Фото 家族 👨‍👩‍👧‍👦".encode()] == tree["Фото 家族 👨‍👩‍👧‍👦".encode()]
    stored.remount()
    assert files_below(stored.path) == tree


def test_metadata_travels_with_the_object(new_mount):
    mount = new_mount("passthrough", "minio").start()
    path = write(mount.path / "a.jpg", noise(1000))
    os.chown(path, 33, 1234)
    os.chmod(path, 0o640)
    os.utime(path, ns=(10**18, 1_600_000_000_123_456_789))
    mount.sync()
    meta = mount.minio.head(mount.bucket, "a.jpg")["Metadata"]
    assert meta["uid"] == "33" and meta["gid"] == "1234"
    assert int(meta["mode"]) & 0o7777 == 0o640
    assert meta["mtime"].startswith("1600000000")
    assert meta["mtime"].rstrip("0").endswith("123456789")
    assert "tbfs-seq" in meta and "tbfs-id" in meta


def test_xattrs_say_where_it_is(stored):
    path = write(stored.path / "a.bin", noise(5000))
    stored.sync()
    assert stored.xattr(path, "state") == "stored"
    assert stored.xattr(path, "sha256") == rig.sha256(path)
    assert stored.xattr(path, "key") == "a.bin"
    assert stored.xattr(path, "backend") == stored.backend
    assert not [n for n in os.listxattr(path) if n.startswith("user.tbfs")]
    assert "a.bin" in stored.tbfs("info", path).out


def test_url_reads_the_object(new_mount):
    import urllib.error
    import urllib.request
    mount = new_mount("passthrough", "minio").start()
    path = write(mount.path / "ein Bild é+&.jpg", noise(5000))
    mount.sync()
    for url in (mount.tbfs("url", path).out.strip(), mount.xattr(path, "url"),
                mount.tbfs("url", path, "--expires", "60").out.strip()):
        assert urllib.request.urlopen(url, timeout=10).read() == noise(5000)
        assert mount.minio.password not in url
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(url.split("?")[0], timeout=10)
    assert "X-Amz-Expires=60" in mount.tbfs("url", path, "--expires", "60").out
    assert mount.tbfs("url", path, "--expires", "999999999", check=False).returncode == rig.USAGE
    with pytest.raises(OSError) as e:
        mount.xattr(path, "url.604801")
    assert e.value.errno == errno.EINVAL
    # What is written now is not what the object holds.
    with open(path, "ab"):
        r = mount.tbfs("url", path, check=False)
        assert r.returncode == rig.NOT_DONE and "not in a store yet" in r.err


def test_only_who_may_read_gets_a_url(new_mount):
    """Mode, ACL and the directories above, as the kernel has them; also by the daemon's socket."""
    mount = new_mount("passthrough", "minio", control__group="www-data").start()
    private = mount.path / "private"
    private.mkdir(mode=0o700)
    paths = {name: write(folder / name, b"x") for folder, name in (
        (mount.path, "open"), (mount.path, "mode"), (mount.path, "acl"), (private, "below"))}
    os.chmod(paths["mode"], 0o600)
    run("setfacl", "-m", "u:www-data:---", paths["acl"])
    mount.sync()

    def ask(path):
        return os.getxattr(path, "user.tbfs.url.60")
    assert b"X-Amz-Expires=60" in rig.as_user("www-data", ask, paths.pop("open"))
    for path in paths.values():
        with pytest.raises(PermissionError):
            rig.as_user("www-data", ask, path)
        assert b"X-Amz" in ask(path)
    assert "knows no verb" in rig.as_user("www-data", by_socket, mount.xattr(mount.path, "control"))


def by_socket(path):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(path)
        s.sendall(b'{"verb":"url","paths":["/private/below"],"expires_s":60}\n')
        return s.makefile().read()


def test_local_backend_has_no_url_and_says_so(new_mount):
    mount = new_mount().start()
    path = write(mount.path / "a", b"x")
    mount.sync()
    r = mount.tbfs("url", path, check=False)
    assert r.returncode == rig.NOT_DONE and len(r.err.strip().splitlines()) == 1


def test_deletions_and_renames_reach_the_bucket(stored):
    root = stored.path
    (root / "d" / "e").mkdir(parents=True)
    for n in range(6):
        write(root / "d" / "e" / f"f{n}", noise(1000, n))
    stored.sync()
    os.unlink(root / "d" / "e" / "f0")
    os.rename(root / "d" / "e" / "f1", root / "g1")
    os.rename(root / "d" / "e", root / "moved")
    stored.sync()
    same(stored)
    assert set(stored.objects()) == {b"g1", b"moved/f2", b"moved/f3", b"moved/f4", b"moved/f5"}
    run("rm", "-r", root / "moved")
    stored.sync()
    same(stored)


def test_renames_copy_in_the_store_and_never_upload_again(stored):
    write(stored.path / "a", noise(3_000_000))
    (stored.path / "d").mkdir()
    write(stored.path / "d" / "x", noise(1000))
    stored.sync()
    before = stored.calls()
    sent = sum(b["bytes_out"] for b in stored.status()["backends"])
    os.rename(stored.path / "a", stored.path / "b")
    os.rename(stored.path / "d", stored.path / "e")
    stored.sync()
    same(stored)
    after = stored.calls()
    assert after["put"] == before["put"]
    assert after["copy"] > before["copy"]
    assert sum(b["bytes_out"] for b in stored.status()["backends"]) - sent < 100_000


def chain(root):
    """a→b→c→d→a through a free name."""
    os.rename(root / "d", root / "t")
    for a, b in (("c", "d"), ("b", "c"), ("a", "b"), ("t", "a")):
        os.rename(root / a, root / b)


def swap_files(root):
    sc.renameat2(root / "a", root / "b", sc.RENAME_EXCHANGE)


def swap_folders(root):
    sc.renameat2(root / "x", root / "y", sc.RENAME_EXCHANGE)


def swap_file_and_folder(root):
    sc.renameat2(root / "a", root / "x", sc.RENAME_EXCHANGE)


def move_and_recreate(root):
    os.rename(root / "a", root / "old")
    write(root / "a", noise(4321, "again"))


def file_becomes_folder(root):
    os.unlink(root / "a")
    (root / "a").mkdir()
    write(root / "a" / "a", noise(99, "in"))


def folder_becomes_file(root):
    run("rm", "-r", root / "x")
    write(root / "x", noise(98, "now a file"))


def file_moves_into_a_folder_of_its_name(root):
    os.rename(root / "a", root / "t")
    (root / "a").mkdir()
    os.rename(root / "t", root / "a" / "a")


def over_an_existing_one(root):
    os.rename(root / "a", root / "b")
    os.rename(root / "x" / "1", root / "c")


def back_and_forth(root):
    for _ in range(5):
        os.rename(root / "a", root / "z")
        os.rename(root / "z", root / "a")


def unlink_and_recreate(root):
    os.unlink(root / "a")
    write(root / "a", noise(777, "new"))
    run("rm", "-r", root / "x")
    (root / "x").mkdir()
    write(root / "x" / "1", noise(778, "new"))


def folder_into_folder(root):
    os.rename(root / "x", root / "y" / "x")
    os.rename(root / "y", root / "x")


CHANGES = [chain, swap_files, swap_folders, swap_file_and_folder, move_and_recreate, file_becomes_folder,
           folder_becomes_file, file_moves_into_a_folder_of_its_name, over_an_existing_one, back_and_forth,
           unlink_and_recreate, folder_into_folder]


@pytest.fixture(scope="module")
def changing(request, minio):
    mounts = {}

    def get(backend):
        if backend not in mounts or mounts[backend].pid is None:
            if backend in mounts:           # it did not come back in an earlier test
                mounts.pop(backend).destroy()
            mounts[backend] = rig.Mount("passthrough", backend, minio=minio).start()
        return mounts[backend]
    yield get
    for mount in mounts.values():
        mount.stop()


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("when", ["stored", "while-dirty", "killed"])
def test_keys_follow_names(changing, backend, change, when):
    """Whatever happens to the names, before, during or after the upload: each object ends where its file is."""
    mount = changing(backend)
    root = mount.path / f"{change.__name__}-{when}"
    (root / "x").mkdir(parents=True)
    (root / "y").mkdir()
    for name in ("a", "b", "c", "d", "x/1", "x/2", "y/1"):
        write(root / name, noise(2000, name))
    if when != "while-dirty":
        mount.sync(root)
    change(root)
    expected = files_below(root)
    if when == "killed":
        mount.crash()
        assert files_below(root) == expected
    mount.sync()
    prefix = os.fsencode(root.name) + b"/"

    def moved():
        return {k[len(prefix):]: v for k, v in mount.objects().items() if k.startswith(prefix)} == expected
    wait_until(moved, 10, 0.1)
    assert files_below(root) == expected


def test_rename_in_every_phase_of_an_upload(new_mount, backend):
    """LESSONS 3: the key is resolved when the bytes go, whatever the name was when they were queued."""
    mount = new_mount("passthrough", backend, fault="put:delay=150", quiet_period="10ms", upload_workers=1).start()
    for n, wait in enumerate([0, 0.005, 0.02, 0.05, 0.1, 0.15, 0.17, 0.2, 0.3]):
        write(mount.path / f"a{n}", noise(3000, n))
        time.sleep(wait)
        os.rename(mount.path / f"a{n}", mount.path / f"b{n}")
    mount.sync()
    same(mount)
    assert set(mount.objects()) == {f"b{n}".encode() for n in range(9)}


def test_write_during_an_upload(new_mount, backend):
    """An object only ever holds the bytes of one generation."""
    mount = new_mount("passthrough", backend, fault="put:delay=100", quiet_period="10ms").start()
    path = mount.path / "a"
    for n in range(12):
        write(path, bytes([65 + n]) * (2_000_000 + n))
        time.sleep(0.02 * n)
        seen = mount.objects().get(b"a", b"")
        assert len(set(seen)) <= 1 and len(seen) in {0, *range(2_000_000, 2_000_012)}
    mount.sync()
    same(mount)


@pytest.mark.parametrize("backend", ["local"])
def test_moving_a_keep_while_it_uploads(new_mount, backend, tmp_path):
    mount = new_mount("passthrough", backend, fault="put:delay=30", quiet_period="50ms").start()
    keep = keep_path(mount.path, 1, 1)
    stop = threading.Event()
    wrote = []

    def writer():
        n = 0
        while not stop.is_set():
            n += 1
            try:
                write(mount.path / "circles" / "1" / "keeps" / "1" / f"f{n}", noise(5000, n))
                wrote.append(n)
            except FileNotFoundError:
                pass
    thread = threading.Thread(target=writer)
    thread.start()
    for n in range(10):
        time.sleep(0.05)
        os.rename(keep, keep.with_name("2"))
        time.sleep(0.02)
        os.rename(keep.with_name("2"), keep)
    stop.set()
    thread.join()
    os.rename(keep, keep.with_name("final"))
    mount.sync()
    same(mount)
    files = originals(mount.files())
    assert {k.rpartition(b"/")[2] for k in files} == {f"f{n}".encode() for n in wrote}


@pytest.mark.parametrize("name", [".IMG_1.jpg.Ab3dEf", "tmpabcd1234.upload.jpg", "video.mp4.part", "x.tmp", ".~lock"])
def test_temporary_names_wait_for_their_rename(new_mount, name):
    """Also with the bell ringing at each close."""
    mount = new_mount(quiet_period="50ms").start()
    write(mount.path / name, noise(1000))
    write(mount.path / "other", noise(10))
    wait_until(lambda: b"other" in mount.objects())
    time.sleep(0.5)
    assert set(mount.objects()) == {b"other"}
    assert mount.calls()["put"] == 1
    os.rename(mount.path / name, mount.path / "final.jpg")
    wait_until(lambda: mount.objects().get(b"final.jpg") == noise(1000))
    assert set(mount.objects()) == {b"other", b"final.jpg"}
    assert mount.calls()["put"] == 2


def test_a_name_that_is_no_key_gives_up_the_key_it_had(stored):
    """Renamed to what no store takes, and the old name made anew: both are stored, and sync returns."""
    write(stored.path / "x", noise(900, 1))
    stored.sync()
    os.rename(stored.path / "x", stored.path / os.fsdecode(b"x\n\xff"))
    write(stored.path / "x", noise(800, 2))
    stored.sync(timeout=20)
    assert stored.objects() == {b"x": noise(800, 2)}
    assert [v for k, v in stored.objects(everything=True).items() if k.startswith(b".tbfs/o/")] == [noise(900, 1)]


def test_sync_says_so_when_a_mapping_keeps_a_file(new_mount):
    """The descriptor is closed, the mapping lives: EBUSY, not a wait without end."""
    mount = new_mount(quiet_period="50ms").start()
    with open(mount.path / "mapped", "w+b") as f:
        f.write(b"x" * 4096)
        f.flush()
        m = mmap.mmap(f.fileno(), 4096)
    for options in ({}, {"derived": True}):
        r = mount.sync(timeout=20, check=False, **options)
        assert r.returncode == rig.NOT_DONE and "open" in r.err, r.err
    m[:4] = b"last"
    m.close()
    mount.sync(timeout=20)
    assert mount.objects()[b"mapped"] == b"last" + b"x" * 4092


def test_sync_says_so_when_a_key_waits_for_a_stuck_file(new_mount):
    """A file too large to be stored holds the key of a new one: that has another meanwhile."""
    mount = new_mount(quiet_period="50ms", upload__max_size="10000").start()
    write(mount.path / "a", noise(5000, 1))
    mount.sync()
    write(mount.path / "a", noise(20_000, 2))
    r = mount.sync(timeout=20, check=False)
    assert r.returncode == rig.NOT_DONE and "max_size" in r.err, r.err
    os.rename(mount.path / "a", mount.path / "b")
    write(mount.path / "a", noise(3000, 3))
    r = mount.sync(timeout=20, check=False)
    assert r.returncode == rig.NOT_DONE and "max_size" in r.err, r.err
    # What the store has of the large one follows its name, and the new one has its own.
    wait_until(lambda: mount.objects() == {b"a": noise(3000, 3), b"b": noise(5000, 1)})


def test_quiet_period_joins_writes_into_one_put(new_mount):
    mount = new_mount(quiet_period="1s", derived="off").start()
    for n in range(8):
        write(mount.path / "a", noise(1000, n))
        time.sleep(0.1)
    wait_until(lambda: mount.objects().get(b"a") == noise(1000, 7))
    assert mount.calls()["put"] == 1


def test_a_file_that_was_only_opened_is_not_uploaded_again(stored):
    path = write(stored.path / "a", noise(1000))
    stored.sync()
    before = stored.calls()
    os.close(os.open(path, os.O_RDWR))
    fd = os.open(path, os.O_WRONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    os.close(fd)
    wait_until(lambda: stored.state(path) == "stored")
    stored.sync()
    # A link to the staged file is broken before anybody may write: that is no upload.
    assert {k: n for k, n in stored.calls().items() if k != "unshare"} == \
        {k: n for k, n in before.items() if k != "unshare"}


def test_mapped_writes_after_close_reach_the_bucket(stored):
    """The lease is refused while a writable mapping lives."""
    path = write(stored.path / "a", bytes(65536))
    fd = os.open(path, os.O_RDWR)
    m = mmap.mmap(fd, 65536)
    os.close(fd)
    time.sleep(0.4)
    m[1000:1004] = b"late"
    time.sleep(0.4)
    m[2000:2005] = b"later"
    m.flush()
    m.close()
    wait_until(lambda: stored.state(path) == "stored")
    stored.sync(path)
    data = stored.objects()[b"a"]
    assert data == read(path) and data[1000:1004] == b"late" and data[2000:2005] == b"later"


def test_a_mapping_written_at_the_very_end(stored):
    """Mapped before, written without msync after the upload would have been due."""
    path = write(stored.path / "a", bytes(65536))
    fd = os.open(path, os.O_RDWR)
    m = mmap.mmap(fd, 65536)
    os.close(fd)
    for n in range(6):
        time.sleep(0.15)
        m[n] = 65 + n
    m.close()
    wait_until(lambda: stored.objects().get(b"a", b"")[:6] == b"ABCDEF")
    assert read(path)[:6] == b"ABCDEF"


def test_many_open_a_stored_file_to_write(new_mount):
    """Its object, which shares its blocks, gets its own once, from bytes that nobody changes meanwhile."""
    mount = new_mount(derived="off", quiet_period="200ms").start()
    data = noise(100_000_000)
    write(mount.path / "f", data)
    mount.sync()
    assert os.stat(mount.objects_dir / "f").st_nlink == 2
    start = threading.Barrier(8)

    def change(n):
        start.wait()
        with open(mount.path / "f", "r+b") as f:
            os.pwrite(f.fileno(), b"x", len(data) - 1 - n)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(change, range(8)))
    mount.sync()
    assert read(mount.path / "f") == mount.objects()[b"f"] == data[:-8] + b"x" * 8


def test_unlinked_before_upload_never_arrives(stored):
    for n in range(20):
        write(stored.path / f"f{n}", noise(1000, n))
        os.unlink(stored.path / f"f{n}")
    stored.sync()
    assert stored.objects() == {}


def test_unlinked_during_upload_never_stays(new_mount, backend):
    mount = new_mount("passthrough", backend, fault="put:delay=200", quiet_period="10ms").start()
    for n in range(6):
        write(mount.path / f"f{n}", noise(1000, n))
        time.sleep(0.02 + 0.06 * n)
        os.unlink(mount.path / f"f{n}")
    mount.sync()
    left = {}

    def gone():
        left.clear()
        left.update({k: v for k, v in mount.objects(everything=True).items() if not k.endswith(b"/lock")})
        return not left
    try:
        wait_until(gone, 10)
    except AssertionError:
        raise AssertionError(f"these stay: {list(left)}") from None


def test_what_is_removed_leaves_an_idle_mount_by_itself(stored):
    """Nobody drains, and the scheduler has nothing else to wake for."""
    stored.set(quiet_period="1h").remount()
    before = stored.staged()
    for n in range(30):
        write(stored.path / f"f{n}", noise(1000, n))
    stored.sync()
    assert len(stored.staged()) == len(before) + 30
    time.sleep(2.5)
    for n in range(30):
        os.unlink(stored.path / f"f{n}")
    wait_until(lambda: stored.objects() == {}, 8)
    wait_until(lambda: stored.staged() == before, 8)


def test_a_second_name_is_no_second_object(stored):
    write(stored.path / "a", noise(100))
    os.link(stored.path / "a", stored.path / "b")
    os.symlink("a", stored.path / "l")
    os.mkfifo(stored.path / "p")
    stored.sync()
    assert list(stored.objects().values()) == [noise(100)]
    os.unlink(stored.path / "a")
    stored.sync()
    wait_until(lambda: list(stored.objects().values()) == [noise(100)])
    os.unlink(stored.path / "b")
    stored.sync()
    wait_until(lambda: stored.objects() == {})


# ---- backends that fail ---------------------------------------------------------------------

@pytest.mark.parametrize("fault", ["put:nth=1:EAGAIN", "put:nth=3:EAGAIN,put:nth=5:EIO", "put:lost=2:EAGAIN",
                                   "put:nth=2:EACCES", "copy:nth=1:EAGAIN", "copy:lost=1:EAGAIN",
                                   "remove:nth=1:EAGAIN", "remove:lost=1:EAGAIN", "stat:nth=1:EAGAIN"])
def test_single_faults_are_overcome(new_mount, backend, fault):
    mount = new_mount("passthrough", backend, fault=fault, derived="off").start()
    for n in range(5):
        write(mount.path / f"f{n}", noise(1000, n))
    mount.sync(check=False)
    os.rename(mount.path / "f0", mount.path / "g0")
    os.unlink(mount.path / "f1")
    write(mount.path / "f2", noise(1500, "again"))
    mount.drain()
    same(mount)


def test_a_backend_that_is_down_stops_nobody(new_mount, backend):
    """LESSONS 14: names, cached files and writes keep working; all of it arrives afterwards."""
    mount = new_mount("passthrough", backend).start()
    write(mount.path / "first", noise(1000))
    mount.sync()
    mount.remount(fault="every=EAGAIN")
    keep = keep_path(mount.path)
    began = time.monotonic()
    for n in range(30):
        write(keep / f"f{n}", noise(2000, n))
    os.rename(keep / "f0", keep / "g0")
    os.unlink(keep / "f1")
    assert len(originals(mount.files())) == 30
    assert time.monotonic() - began < 10
    r = mount.sync(check=False, timeout=2)
    assert r.returncode in (rig.NOT_DONE, rig.BACKEND)
    status = mount.status()
    assert status["failures"] and not status["backends"][0]["healthy"]
    assert set(mount.objects()) == {b"first"}
    files = originals(mount.files())
    mount.kill()
    mount.start(fault=None)
    mount.sync()
    assert originals(mount.files()) == files == originals(mount.objects())


def test_stuck_files_are_named_kept_and_retried(new_mount):
    mount = new_mount(fault="put:every=EINVAL", derived="off").start()
    path = write(mount.path / "a", noise(1000))
    wait_until(lambda: "stuck" in mount.state(path), 20)
    assert mount.sync(path, check=False).returncode != 0
    check = mount.tbfs("status", "--check", mount.path, check=False)
    assert check.returncode == 1 and len((check.out + check.err).strip().splitlines()) == 1
    assert mount.xattr(path, "error")
    assert read(path) == noise(1000)
    assert mount.umount(check=False).returncode == rig.NOT_DONE
    mount.pid = None
    mount.start(fault=None)
    mount.tbfs("retry", mount.path)
    mount.sync(path)
    assert mount.objects()[b"a"] == noise(1000)
    assert mount.tbfs("status", "--check", mount.path, check=False).returncode == 0


def test_minio_dies_and_comes_back(new_mount, minio):
    mount = new_mount("passthrough", "minio", s3__timeout="2s", s3__retries=1, derived="off").start()
    write(mount.path / "before", noise(1000))
    mount.sync()
    minio.process.kill()
    minio.process.wait()
    try:
        for n in range(10):
            write(mount.path / f"f{n}", noise(1000, n))
        assert read(mount.path / "before") == noise(1000)
        assert mount.sync(check=False, timeout=3).returncode in (rig.NOT_DONE, rig.BACKEND)
    finally:
        minio.start()
    mount.drain()
    same(mount)


def test_umount_says_what_stays_staged(new_mount):
    """LESSONS 4."""
    mount = new_mount(fault="put:every=EAGAIN", derived="off").start()
    for n in range(3):
        write(mount.path / f"f{n}", noise(1000, n))
    r = mount.tbfs("umount", "--timeout", "1", mount.path, check=False)
    assert "3" in r.out + r.err
    assert not rig.alive(mount.pid) and not os.path.ismount(mount.path)
    mount.pid = None
    mount.start(fault=None)
    mount.sync()
    same(mount)


def test_umount_drains(new_mount, backend):
    mount = new_mount("passthrough", backend, quiet_period="30s", derived="off").start()
    for n in range(10):
        write(mount.path / f"f{n}", noise(1000, n))
    mount.umount("--timeout", "30")
    mount.pid = None
    assert mount.objects() == {f"f{n}".encode(): noise(1000, n) for n in range(10)}


def test_several_umounts_at_once(new_mount):
    """One detaches it; the others find it done, or nothing to be done where they come late."""
    mount = new_mount("passthrough", derived="off")
    for n in range(5):
        mount.start()
        write(mount.path / f"f{n}", noise(1000, n))
        together = [subprocess.Popen([rig.TBFS, "umount", mount.path], stdin=subprocess.DEVNULL,
                                     stderr=subprocess.PIPE, text=True) for _ in range(4)]
        ended = [(p.communicate(timeout=60)[1], p.returncode) for p in together]
        assert ("", rig.DONE) in ended, ended
        assert all(end == ("", rig.DONE) or " is not on a tbfs mount" in end[0] for end in ended), ended
        assert not rig.alive(mount.pid) and not os.path.ismount(mount.path)
        mount.pid = None


def test_umount_of_a_bind_mount_leaves_the_rest(new_mount):
    mount = new_mount("passthrough", derived="off").start()
    elsewhere = mount.base / "elsewhere"
    elsewhere.mkdir()
    (mount.path / "d").mkdir()
    for what in (mount.path / "d", mount.path):
        run("mount", "--bind", what, elsewhere)
        began = time.monotonic()
        mount.tbfs("umount", elsewhere)
        assert time.monotonic() - began < 10 * rig.PATIENCE and not os.path.ismount(elsewhere)
        write(mount.path / "d" / "f", b"still here")
    # The other way round it is stored, but its daemon has to stay.
    run("mount", "--bind", mount.path / "d", elsewhere)
    assert "other mounts of it remain" in mount.tbfs("umount", mount.path).out
    assert mount.objects() == {b"d/f": b"still here"}
    write(elsewhere / "f", b"and here")
    mount.tbfs("umount", elsewhere)
    assert not rig.alive(mount.pid) and mount.objects() == {b"d/f": b"and here"}
    mount.pid = None


# ---- another backend under the same state ---------------------------------------------------

def test_backend_switched_under_an_existing_state_directory(new_mount, minio):
    mount = new_mount(derived="off").start()
    old = write(mount.path / "old", noise(100_000, "old"))
    mount.sync()
    mount.umount()
    mount.backend, mount.minio, mount.bucket = "minio", minio, minio.new_bucket()
    mount.env |= minio.env(mount.bucket)
    mount.start(backend="minio")
    assert read(old) == noise(100_000, "old")
    new = write(mount.path / "new", noise(100_000, "new"))
    mount.sync()
    assert mount.xattr(old, "backend") == "local" and mount.xattr(new, "backend") == "minio"
    assert mount.objects() == {b"new": noise(100_000, "new")}
    # The old object is changed: its next generation goes to the new place, the old one goes away.
    write(old, noise(50_000, "newer"))
    mount.sync()
    assert mount.objects() == {b"new": noise(100_000, "new"), b"old": noise(50_000, "newer")}
    wait_until(lambda: files_below(mount.objects_dir, skip=(".tbfs",)) == {}, 10)


def test_backend_switched_back_and_to_a_store_without_keys(new_mount, minio):
    """From MinIO to a directory: what is in the bucket is read, changed and removed there; without
    its keys it stays, and the mount says so."""
    mount = new_mount("passthrough", "minio", derived="off").start()
    for name in ("kept", "changed", "removed"):
        write(mount.path / name, noise(1000, name))
    mount.sync()
    mount.umount()
    keys = {k: mount.env.pop(k) for k in ("MINIO_ACCESS_KEY", "MINIO_SECRET_KEY")}
    mount.start(backend="local", local__root_path=mount.objects_dir)
    assert "can be neither read nor removed" in mount.log.read_text()
    assert read(mount.path / "kept") == noise(1000, "kept")
    os.unlink(mount.path / "removed")
    mount.umount("--timeout", "1", check=False)
    mount.env |= keys
    mount.start()
    assert "objects of former days are still in store minio" in mount.log.read_text()
    write(mount.path / "changed", b"anew")
    write(mount.path / "new", b"new")
    mount.sync()
    assert {mount.xattr(mount.path / n, "backend") for n in ("changed", "new")} == {"local"}
    assert minio.contents(mount.bucket) == {b"kept": noise(1000, "kept")}
    # Its staged bytes are lost: they come back from where they are.
    mount.kill()
    mount.detach()
    [staged] = [p for p in (mount.state_dir / "data").rglob("*")
                if p.is_file() and read(p) == noise(1000, "kept")]
    staged.unlink()
    mount.start()
    assert read(mount.path / "kept") == noise(1000, "kept")
    assert [b["name"] for b in mount.status()["backends"]] == ["local", "minio"]


def test_a_store_that_moved_must_have_what_was_stored(new_mount):
    mount = new_mount(derived="off").start()
    write(mount.path / "a", b"x")
    mount.sync()
    mount.umount()
    elsewhere = mount.base / "elsewhere"
    r = mount.try_start(local__root_path=elsewhere)
    assert r.returncode == rig.BACKEND and "does not have what was stored there" in r.err, r.err
    assert len(r.err.strip().splitlines()) == 1
    shutil.copytree(mount.objects_dir, elsewhere, dirs_exist_ok=True)
    mount.objects_dir = elsewhere
    mount.start()
    write(mount.path / "b", b"y")
    os.rename(mount.path / "a", mount.path / "c")
    mount.sync()
    wait_until(lambda: mount.objects() == {b"b": b"y", b"c": b"x"}, 10)


@pytest.mark.parametrize("root", [".", "objects"])
def test_a_store_whose_disk_is_not_mounted_is_away(new_mount, disk, root):
    """Nothing is begun in its place, and it is used as soon as it is there."""
    small = disk(100)
    mount = new_mount(derived="off", local__root_path=small.path / root)
    mount.objects_dir = small.path / root
    mount.start()
    write(mount.path / "a", b"a")
    write(mount.path / "b", b"b")
    mount.sync()
    mount.umount()
    small.umount()
    mount.start()
    assert "degraded" in mount.log_tail() and "is its disk mounted?" in mount.log_tail()
    os.unlink(mount.path / "a")
    write(mount.path / "c", b"c")
    assert read(mount.path / "b") == b"b"
    assert mount.sync(check=False, timeout=3).returncode in (rig.NOT_DONE, rig.BACKEND)
    assert os.listdir(small.path) == []
    small.mount()
    mount.tbfs("retry", mount.path)
    mount.drain()
    assert mount.objects() == {b"b": b"b", b"c": b"c"}
    mount.stop()


def test_a_store_that_breaks_during_a_rename_does_not_keep_the_mount(new_mount, disk):
    small = disk(100)
    mount = new_mount(derived="off", local__root_path=small.path / "objects")
    mount.objects_dir = small.path / "objects"
    mount.start()
    for n in range(5):
        write(mount.path / f"a{n}", noise(1000, n))
    mount.sync()
    run("xfs_io", "-x", "-c", "shutdown", small.path)
    os.rename(mount.path / "a2", mount.path / "moved")
    for n in range(5):
        write(mount.path / f"b{n}", noise(1000, n))
    mount.sync(check=False, timeout=2)
    mount.kill()
    mount.start()
    assert "degraded" in mount.log_tail()
    assert read(mount.path / "moved") == noise(1000, 2) and read(mount.path / "b4") == noise(1000, 4)
    mount.umount("--timeout", "1", check=False)
    mount.pid = None
    small.umount()
    small.mount()
    mount.start()
    mount.drain()
    same(mount)
    mount.stop()


def test_a_store_that_is_not_empty_at_first_is_warned_of(new_mount, backend):
    """A state directory that was lost, or another mount's store."""
    mount = new_mount("passthrough", backend, derived="off").start()
    assert "already holds objects" not in mount.log.read_text()
    write(mount.path / "precious", b"x")
    mount.sync()
    mount.umount()
    os.rename(mount.state_dir / "index.db", mount.state_dir / "away")
    mount.start()
    assert "already holds objects that are not known here (precious)" in mount.log.read_text()


def test_retry_reaches_all_that_is_below(new_mount):
    """A file, a folder, the mountpoint: each tries again what is stuck at or below it."""
    mount = new_mount(derived="off", upload__max_size="100").start()
    names = ("d/a", "d/b", "c")
    (mount.path / "d").mkdir()
    for name in names:
        write(mount.path / name, bytes(200))

    def retried(path):
        for name in names:          # what is on its way again isn't counted
            mount.wait_state(mount.path / name, "dirty+stuck")
        return int(mount.tbfs("retry", path).out.split()[0])
    assert [retried(mount.path / p) for p in ("d/a", "d", "")] == [1, 2, 3]
    mount.wait_state(mount.path / "c", "dirty+stuck")
    mount.umount(check=False)
    mount.start(upload__max_size="1000")
    mount.tbfs("retry", mount.path / "d")
    mount.sync(mount.path / "d")
    assert mount.state(mount.path / "d/b") == "stored"


def test_sync_goes_on_after_one_that_is_held_open(new_mount):
    mount = new_mount(derived="off").start()
    held, free = write(mount.path / "held", b"x"), write(mount.path / "free", b"y")
    with open(held, "ab"):
        r = mount.tbfs("sync", held, free, check=False)
        assert r.returncode == rig.NOT_DONE and "open for writing, for one held" in r.err
        assert mount.state(free) == "stored"
        r = mount.tbfs("sync", "--timeout", "0", held, check=False)
        assert r.returncode == rig.NOT_DONE and "cancel" not in r.err.lower(), r.err


def test_each_eio_leaves_one_line(new_mount):
    """With the path, the inode and why; and what is stored is not given up: the next mount fetches it."""
    mount = new_mount(derived="off").start()
    (mount.path / "d").mkdir()
    stored = write(mount.path / "d" / "stored", noise(1000, "stored"))
    mount.sync()
    mount.umount()
    mount.start(quiet_period="1h")
    waits = write(mount.path / "d" / "waits", noise(1000, "waits"))
    expected = []
    for path in (stored, waits):
        [staged] = [p for p in (mount.state_dir / "data").rglob("*") if p.is_file() and
                    read(p) == noise(1000, path.name)]
        staged.unlink()
        for call in (lambda: os.open(path, os.O_RDONLY), lambda: os.open(path, os.O_WRONLY),
                     lambda: os.truncate(path, 1)):
            with pytest.raises(OSError) as e:
                call()
            assert e.value.errno == errno.EIO
            expected.append(f"d/{path.name} (inode {os.stat(path).st_ino}): its staged file is missing")
    lines = [line for line in mount.log.read_text().splitlines() if "error" in line]
    assert [line.partition("error: ")[2] for line in lines] == expected
    mount.crash()
    assert read(stored) == noise(1000, "stored") and mount.state(stored) == "stored"


# ---- space ----------------------------------------------------------------------------------

def test_stored_bytes_take_their_space_once(new_mount):
    """local.link: on one file system staging and objects share their blocks."""
    mount = new_mount(derived="off").start()
    for n in range(20):
        write(mount.path / f"f{n}", noise(1_000_000, n))
    mount.sync()
    blocks = {s.st_ino: s.st_blocks * 512 for top in (mount.state_dir / "data", mount.objects_dir)
              for s in (os.stat(p) for p in top.rglob("*") if p.is_file())}
    assert sum(blocks.values()) <= 1.05 * 20_000_000
    # A write breaks the link before anything can reach the object.
    inodes = {os.stat(mount.objects_dir / f"f{n}").st_ino for n in range(20)}
    for n in range(20):
        fd = os.open(mount.path / f"f{n}", os.O_RDWR)
        os.pwrite(fd, b"changed", 10)
        assert read(mount.objects_dir / f"f{n}") == noise(1_000_000, n)
        os.close(fd)
    mount.sync()
    same(mount)
    assert len(inodes) == 20


@pytest.mark.parametrize("before", ["stored", "new"])
def test_what_is_replaced_and_still_read_gives_up_its_key(new_mount, backend, before):
    mount = new_mount("passthrough", backend, quiet_period="100ms").start()
    write(mount.path / "a", b"old" * 1000)
    mount.sync()
    with open(mount.path / "a", "rb") as f:
        write(mount.path / "new", b"new" * 1000)
        if before == "stored":
            mount.sync()
        os.rename(mount.path / "new", mount.path / "a")
        mount.sync(timeout=10)
        assert mount.objects() == mount.files() == {b"a": b"new" * 1000}
        assert f.read() == b"old" * 1000
    mount.crash()
    mount.sync()
    assert mount.objects() == mount.files() == {b"a": b"new" * 1000}


def test_what_is_replaced_gives_up_its_key_first(new_mount):
    """A file that is written anew by a rename goes where the former one was, not beside and then there."""
    mount = new_mount(quiet_period="200ms", derived="off").start()
    for n in range(20):
        write(mount.path / f"f{n}", b"old")
    mount.sync()
    for n in range(20):
        write(mount.path / f".t{n}", noise(100, n))
        os.rename(mount.path / f".t{n}", mount.path / f"f{n}")
    beside, until = set(), time.monotonic() + 60
    while mount.objects() != mount.files() and time.monotonic() < until:
        beside |= {k for k in mount.objects(everything=True) if k.startswith(b".tbfs/o/")}
    assert mount.objects() == mount.files()
    assert beside == set()


def test_full_staging_disk_refuses_in_write(new_mount, disk):
    """LESSONS 5, 11: every file that was not taken reported an error; no acknowledged file is bad."""
    small = disk(64)
    mount = new_mount(state_dir=small.path / "state", reserve="4M", derived="off",
                      fault="put:every=EAGAIN").start()
    try:
        kept, refused = {}, 0
        for n in range(200):
            data = noise(500_000, n)
            try:
                write(mount.path / f"f{n}", data)
                kept[f"f{n}".encode()] = data
            except OSError as e:
                assert e.errno in (28, 122), e
                refused += 1
        assert refused > 50 and len(kept) > 50
        files = mount.files()
        assert {k: files[k] for k in kept} == kept
        # The reserve keeps these working.
        os.unlink(mount.path / "f0")
        os.truncate(mount.path / "f1", 10)
        os.rename(mount.path / "f2", mount.path / "g2")
        mount.crash(fault=None)
        mount.drain()
        for name in [n for n in kept if n not in (b"f0", b"f1", b"f2")]:
            assert mount.objects()[name] == kept[name]
    finally:
        mount.destroy()


def fill(path, size=65536):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(fd, bytes(size))
    except OSError as e:
        assert e.errno == errno.ENOSPC
    os.close(fd)


def until_full(make):
    """Call make(0), make(1), … until there is no space; how often it worked."""
    for n in range(100_000):
        try:
            make(n)
        except OSError as e:
            assert e.errno == errno.ENOSPC
            return n
    raise AssertionError("the disk was never full")


@pytest.mark.parametrize("small", ["symlinks", "xattrs", "files"])
def test_small_things_on_a_full_disk_leave_room_to_remove(new_mount, disk, small):
    full = disk(80)
    mount = new_mount(state_dir=full.path / "state", local__root_path=full.path / "objects", reserve="8M",
                      derived="off").start()
    try:
        fill(mount.path / "big")
        write(mount.path / "x", b"")
        made = until_full({"symlinks": lambda n: os.symlink("t" * 200, mount.path / f"s{n}"),
                           "xattrs": lambda n: os.setxattr(mount.path / "x", f"user.{n}", bytes(1000)),
                           "files": lambda n: write(mount.path / f"s{n}", b"")}[small])
        mount.umount("--timeout", "1", check=False)
        mount.start()
        for n in range(made):
            if small == "xattrs":
                os.removexattr(mount.path / "x", f"user.{n}")
            else:
                os.unlink(mount.path / f"s{n}")
        os.unlink(mount.path / "big")
        assert sorted(os.listdir(mount.path)) == ["x"]
        wait_until(lambda: shutil.disk_usage(full.path).free > 30 << 20, 10)
        write(mount.path / "new", b"data")
        mount.remount()
        assert read(mount.path / "new") == b"data"
    finally:
        mount.destroy()


def test_a_full_disk_that_holds_the_store_too_can_be_emptied(new_mount, disk):
    """Removing an object, and mounting, take no space."""
    full = disk(100)
    mount = new_mount(state_dir=full.path / "state", local__root_path=full.path / "objects", reserve="8M",
                      derived="off").start()
    try:
        write(mount.path / "big", bytes(40_000_000))
        mount.sync()
        fill(full.path / "another program's")
        fill(full.path / "and small", 1024)
        mount.remount()
        os.unlink(mount.path / "big")
        wait_until(lambda: shutil.disk_usage(full.path).free > 30 << 20, 10)
        wait_until(lambda: mount.objects() == {}, 10)
        write(mount.path / "new", b"data")
        mount.sync()
        mount.crash()
        assert read(mount.path / "new") == b"data"
    finally:
        mount.destroy()


@pytest.mark.parametrize("kind", ["passthrough", "daemon"])
@pytest.mark.parametrize("life", ["new", "stored", "held"])
def test_space_of_a_removed_file_is_there_at_once(new_mount, disk, kind, life):
    small = disk(200)
    mount = new_mount(kind, state_dir=small.path / "state", local__root_path=small.path / "objects", reserve="8M",
                      derived="off", quiet_period="200ms" if life == "stored" else "1h").start()
    try:
        most = int(shutil.disk_usage(mount.path).free * 0.7)
        for n in range(6):
            path = mount.path / f"f{n}"
            fd = os.open(path, os.O_CREAT | os.O_RDWR)
            os.posix_fallocate(fd, 0, most)
            if life != "held":
                os.close(fd)
            if life == "stored":
                mount.sync()
            os.unlink(path)
            if life == "held":
                os.close(fd)
            if n % 2:
                assert shutil.disk_usage(mount.path).free > most
            else:
                write(path, bytes(most))
                os.unlink(path)
    finally:
        mount.destroy()
