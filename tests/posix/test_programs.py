# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that people run on a file system, as installed: backups, databases, editors, a web
server, an encoder, and the tests of others that need a directory."""
import contextlib
import json
import multiprocessing
import os
import re
import sqlite3
import stat
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

import rig
from rig import MEDIA, TOP, files_below, keep_path, noise, read, run, wait_until, write
from test_django import PYTHON, packages        # noqa: F401 (a fixture)
from test_processing import thumbs_of
from test_tools import describe, make_source, transferred

pytestmark = pytest.mark.timeout(400)       # what is not installed is fetched, once


def stored_as_they_are(mount, folder):
    """After sync the store holds each file below the folder under its name, and nothing else."""
    if mount.kind == "bare":
        return
    mount.sync()
    prefix = os.fsencode(os.path.relpath(folder, mount.path)) + b"/"
    objects = {k[len(prefix):]: v for k, v in mount.objects().items() if k.startswith(prefix)}
    files = files_below(folder)
    assert sorted(objects) == sorted(files)
    assert [name for name in files if objects[name] != files[name]] == []


# ---- backups --------------------------------------------------------------------------------

class Restic:
    def __init__(self, base, repository):
        self.env = os.environ | {"RESTIC_REPOSITORY": str(repository), "RESTIC_PASSWORD": "x",
                                 "RESTIC_CACHE_DIR": str(base / "restic-cache")}
        self("init")

    def __call__(self, *args, **options):
        return run("restic", "-q", *args, env=self.env, **options).out

    def backup(self, folder, names):
        """Give how many files were read."""
        lines = self("backup", "--json", *names, cwd=folder).splitlines()
        summary = [m for m in map(json.loads, lines) if m["message_type"] == "summary"][0]
        assert summary["files_new"] + summary["files_changed"] or summary["data_blobs"] == 0
        return summary["files_new"] + summary["files_changed"]

    def check(self):
        self("check", "--read-data")

    def forget_all_but_the_last(self):
        self("forget", "--keep-last", "1", "--prune")

    def restore(self, folder):
        self("restore", "latest", "--target", folder)


class Borg:
    def __init__(self, base, repository):
        self.newest, self.count = base / "borg-newest", 0
        self.env = os.environ | {"BORG_BASE_DIR": str(base), "BORG_REPO": str(repository),
                                 "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}
        self("init", "-e", "none")

    def __call__(self, *args, **options):
        return run("borg", *args, env=self.env, **options).err

    def backup(self, folder, names):
        """Borg reads the newest file again, which may have changed within a clock's tick: it is ours."""
        time.sleep(0.05)
        write(self.newest, "x")
        self.count += 1
        lines = self("create", "--list", "--log-json", f"::{self.count}", *names, self.newest, cwd=folder).splitlines()
        letters = [m["status"] for m in map(json.loads, lines)
                   if m["type"] == "file_status" and not m["path"].endswith(self.newest.name)]
        assert set(letters) <= set("AMUdsfh"), "added, modified, unchanged, and what is no file"
        return sum(letter in "AM" for letter in letters)

    def check(self):
        self("check", "--verify-data")

    def forget_all_but_the_last(self):
        self("prune", "--keep-last", "1")
        self("compact")

    def restore(self, folder):
        folder.mkdir(exist_ok=True)
        self("extract", f"::{self.count}", "--exclude", f"*/{self.newest.name}", cwd=folder)


@pytest.fixture(params=[Restic, Borg])
def tool(request, tmp_path):
    """Make its repository: tool(path) → Restic or Borg."""
    return lambda repository: request.param(tmp_path, repository)


@pytest.fixture
def family(mount, tmp_path):
    """A mount with one of everything, and a keep whose photo has its thumbnails."""
    run("cp", "-a", make_source(tmp_path / "src"), mount.path / "files")
    run("cp", "-p", MEDIA / "orient_6.jpg", keep_path(mount.path))
    if mount.kind != "bare":
        mount.sync(derived=True)
    return mount


NAMES = ("circles", "files")


def described(root):
    return [describe(root / name) for name in NAMES]


def test_a_second_backup_reads_nothing(family, tool, tmp_path):
    """Size, mtime, ctime and inode are what it compares: storing moves none of them, nor does a remount."""
    write(family.path / "files" / "fresh.jpg", noise(100_000))
    backup = tool(tmp_path / "repository")
    assert backup.backup(family.path, NAMES) > 5
    assert backup.backup(family.path, NAMES) == 0
    if family.kind != "bare":
        family.sync()
        family.remount()
    assert backup.backup(family.path, NAMES) == 0


def test_a_backup_comes_back_whole(family, tool, tmp_path, new_mount):
    """To a disk, and to an empty mount: the thumbnails that come back are what would be made."""
    backup = tool(tmp_path / "repository")
    expected = described(family.path)
    backup.backup(family.path, NAMES)
    backup.restore(tmp_path / "back")
    assert described(tmp_path / "back") == expected
    other = new_mount(family.kind).start()
    backup.restore(other.path)
    assert described(other.path) == expected
    if other.kind != "bare":
        other.sync(derived=True)
        assert described(other.path) == expected


def test_a_repository_lives_here(mount, tool, tmp_path):
    """Locks, renames and deletions of a repository, whose every byte has a checksum."""
    source = make_source(tmp_path / "src")
    backup = tool(mount.path / "repository")
    backup.backup(tmp_path, ["src"])
    write(source / "sub" / "clip.mp4", noise(2_000_000, "edited"))
    assert backup.backup(tmp_path, ["src"]) == 1
    backup.forget_all_but_the_last()
    stored_as_they_are(mount, mount.path / "repository")
    mount.remount()
    backup.check()
    backup.restore(tmp_path / "back")
    assert describe(tmp_path / "back" / "src") == describe(source)


def test_rsync_out_of_the_mount(tree, tmp_path):
    source = make_source(tree / "src")
    run("rsync", "-aHAXS", f"{source}/", tmp_path / "out")
    assert describe(tmp_path / "out") == describe(source)
    write(source / "photo.jpg", noise(200_000, "edited"))
    assert transferred(run("rsync", "-aHAXS", "--no-whole-file", "--stats", f"{source}/", tmp_path / "out")) == 1
    assert describe(tmp_path / "out") == describe(source)


# ---- git and editors ------------------------------------------------------------------------

GIT = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "safe.directory=*"]


def test_git_clones_are_whole(mount, tmp_path):
    """In, across and out; and its index, which knows ctime and inode, still knows each file after a remount."""
    first, second, third = tmp_path / "first", mount.path / "second", mount.path / "third"
    run(*GIT, "init", "-q", first)
    for n in range(50):
        write(first / f"f{n}", noise(20_000, n))
    run(*GIT, "-C", first, "add", ".")
    run(*GIT, "-C", first, "commit", "-qm", "x")
    run(*GIT, "clone", "-q", "--no-local", first, second)
    run(*GIT, "clone", "-q", second, third)         # shares objects by hard links
    run(*GIT, "clone", "-q", "--no-local", third, tmp_path / "fourth")
    for where in (second, third, tmp_path / "fourth"):
        run(*GIT, "-C", where, "fsck", "--full", "--strict")
        assert originals_of(where) == originals_of(first)
    run(*GIT, "-C", second, "status")
    mount.remount()
    # Compares what lstat says, and refreshes nothing.
    assert run(*GIT, "-C", second, "diff-files").out == ""
    run(*GIT, "-C", second, "fsck", "--full", "--strict")


def originals_of(checkout):
    return files_below(checkout, skip=(".git",))


@pytest.mark.parametrize("keeps", ["backup", "nobackup"])
@pytest.mark.parametrize("copies", ["yes", "no"])
def test_vim_writes(shared, tree, copies, keeps):
    """backupcopy=yes writes the old inode, =no renames it away and makes a new one; a swap file comes and goes."""
    path = write(tree / "note.txt", b"one\n" * 3000)
    os.chmod(path, 0o640)
    before = os.stat(path)
    run("vim.tiny", "-es", "-u", "NONE", "-i", "NONE", "--cmd", f"set swapfile writebackup {keeps} backupcopy={copies}",
        "-c", "%s/one/three/", "-c", "wq", path, env=os.environ | {"TERM": "dumb"})
    assert read(path) == b"three\n" * 3000
    after = os.stat(path)
    assert (after.st_ino == before.st_ino) == (copies == "yes")
    assert stat.S_IMODE(after.st_mode) == 0o640
    expected = {"note.txt", "note.txt~"} if keeps == "backup" else {"note.txt"}
    assert set(os.listdir(tree)) == expected
    if keeps == "backup":
        assert read(tree / "note.txt~") == b"one\n" * 3000
    stored_as_they_are(shared, tree)


def test_sed_leaves_the_old_one_beside(shared, tree):
    path = write(tree / "note.txt", b"one\n" * 3000)
    os.chmod(path, 0o640)
    os.setxattr(path, "user.caption", b"x")
    ino = os.stat(path).st_ino
    run("sed", "-i.bak", "s/one/three/", path)
    assert read(path) == b"three\n" * 3000 and read(tree / "note.txt.bak") == b"one\n" * 3000
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640
    assert os.stat(tree / "note.txt.bak").st_ino == ino and os.getxattr(tree / "note.txt.bak", "user.caption") == b"x"
    stored_as_they_are(shared, tree)


# ---- a database -----------------------------------------------------------------------------

def insert_until_it_fails(path, who, told):
    """A row a transaction; its number is told when its commit has returned."""
    fd = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with contextlib.suppress(sqlite3.Error):
        db = sqlite3.connect(path, timeout=60, isolation_level=None)
        db.execute("pragma synchronous=full")
        db.execute("pragma wal_autocheckpoint=40")
        n = db.execute("select count(*) from t where who = ?", (who,)).fetchone()[0]
        while True:
            db.execute("insert into t values (?, ?, ?)", (who, n, noise(3000, (who, n))))
            os.write(fd, b"%d\n" % n)
            n += 1


def told(folder, who):
    """How many rows this writer knows to be committed."""
    path = folder / f"told{who}"
    return int(read(path).split()[-1]) + 1 if path.exists() and read(path).endswith(b"\n") else 0


@pytest.mark.parametrize("dies", ["daemon", "writers"])
def test_sqlite_keeps_what_it_committed(mount, tmp_path, dies):
    """WAL, three writers and many checkpoints, cut off by kill -9."""
    (mount.path / "db").mkdir()
    path = mount.path / "db" / "t.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("pragma journal_mode=wal").fetchone() == ("wal",)
        db.execute("create table t (who, n, data)")
    for n in range(3):
        writers = [multiprocessing.get_context("fork").Process(target=insert_until_it_fails,
                                                               args=(path, who, tmp_path / f"told{who}"))
                   for who in range(3)]
        for writer in writers:
            writer.start()
        try:
            wait_until(lambda: min(told(tmp_path, who) for who in range(3)) > 10 * (n + 1), 60, 0.05)
            if dies == "daemon" and mount.kind != "bare":
                mount.crash()       # while they have it open: their next sync tells them
                for writer in writers:
                    writer.join(20 * rig.PATIENCE)
                    assert writer.exitcode is not None, "goes on writing into a mount that is gone"
        finally:
            for writer in writers:
                writer.kill()
                writer.join()
        with contextlib.closing(sqlite3.connect(path, timeout=60)) as db:
            assert db.execute("pragma integrity_check").fetchone() == ("ok",)
            rows = db.execute("select who, n, data from t order by who, n").fetchall()
        assert [(who, n) for who, n, data in rows if data != noise(3000, (who, n))] == []
        for who in range(3):
            there = [n for w, n, _ in rows if w == who]
            assert there == list(range(len(there)))
            assert told(tmp_path, who) <= len(there), "committed, and gone"
    stored_as_they_are(mount, mount.path / "db")


# ---- a web server ---------------------------------------------------------------------------

class Nginx:
    """Of its own configuration, on loopback; the workers are www-data."""

    def __init__(self, root):
        program = run(TOP / "scripts" / "servers", "nginx", timeout=300).out.strip()
        self.base = Path(tempfile.mkdtemp(prefix="nginx.", dir=rig.ROOT))
        self.port = rig.free_port()
        temporary = "".join(f"{kind}_temp_path {self.base}/{kind}; "
                            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        write(self.base / "conf", f"""
            user www-data; worker_processes 2; daemon off; pid {self.base}/pid; error_log {self.base}/log;
            events {{}}
            http {{
                sendfile on; tcp_nopush on; access_log off; {temporary}
                server {{
                    listen 127.0.0.1:{self.port};
                    root {root};
                    location /slow/ {{ limit_rate 2m; }}
                }}
            }}""")
        self.process = subprocess.Popen([program, "-e", self.base / "log", "-p", self.base, "-c", self.base / "conf"],
                                        stdin=subprocess.DEVNULL)

        def answers():
            """nginx answers"""
            assert self.process.poll() is None, read(self.base / "log").decode()
            with contextlib.suppress(OSError):
                return self.open("/").status
        try:
            wait_until(answers)
        except BaseException:
            self.stop()
            raise

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def open(self, path, **headers):
        try:
            return urllib.request.urlopen(urllib.request.Request(
                f"http://127.0.0.1:{self.port}{urllib.parse.quote(path)}", headers=headers), timeout=30)
        except urllib.error.HTTPError as e:
            return e

    def get(self, path, **headers):
        with self.open(path, **headers) as r:
            return r.status, r.read()


@pytest.fixture
def nginx(tree):
    server = Nginx(tree)
    yield server
    server.stop()


def test_nginx_sends_files(nginx, tree):
    """sendfile splices from the page cache, whoever fills it; and a worker is no root."""
    sizes = (0, 1, 4095, 4096, 4097, 300_000, 9_000_001)
    for size in sizes:
        write(tree / f"Größe {size}.jpg", noise(size, size))
    for _ in range(2):
        for size in sizes:
            assert nginx.get(f"/Größe {size}.jpg") == (200, noise(size, size))
    write(tree / "private", b"x", 0o600)
    assert nginx.get("/private")[0] == 403
    os.chmod(tree / "private", 0o644)
    assert nginx.get("/private") == (200, b"x")


def test_nginx_sends_ranges(nginx, tree):
    data = noise(9_000_001)
    write(tree / "clip.mp4", data)
    for first, last in ((0, 0), (4095, 4096), (1_000_000, 8_999_999), (9_000_000, 9_000_000)):
        assert nginx.get("/clip.mp4", Range=f"bytes={first}-{last}") == (206, data[first:last + 1])
    assert nginx.get("/clip.mp4", Range="bytes=-70000") == (206, data[-70_000:])
    status, parts = nginx.get("/clip.mp4", Range="bytes=10-19,5000000-5000099")
    assert status == 206 and data[10:20] in parts and data[5_000_000:5_000_100] in parts
    assert nginx.get("/clip.mp4", Range="bytes=9000001-")[0] == 416


def test_a_download_goes_on_when_its_file_is_replaced(nginx, tree):
    """The server has it open: an old file whole, or a new one whole."""
    (tree / "slow").mkdir()
    path = write(tree / "slow" / "clip.mp4", noise(3_000_000, "old"))
    with nginx.open("/slow/clip.mp4") as r:
        begin = r.read(1000)
        os.replace(write(tree / "slow" / "other", noise(2_000_000, "new")), path)
        assert begin + r.read() == noise(3_000_000, "old")
    assert nginx.get("/slow/clip.mp4") == (200, noise(2_000_000, "new"))


# ---- an encoder -----------------------------------------------------------------------------

FILM = ["-f", "lavfi", "-i", "testsrc2=size=320x240:rate=25:duration=4", "-f", "lavfi", "-i", "sine=duration=4",
        "-c:v", "mpeg4", "-threads", "1", "-c:a", "aac"]
EXACT = ["-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact"]


@pytest.mark.parametrize("flags", [[], ["-movflags", "+faststart"]], ids=["index-last", "faststart"])
def test_ffmpeg_writes_an_mp4(shared, tree, tmp_path, flags):
    """It seeks back into what it wrote; for faststart it reads its own file and moves all of it.

    In a keep, where the processor waits for each to be whole."""
    keep = keep_path(shared.path, tree.name)
    ffmpeg = ["ffmpeg", "-nostdin", "-v", "error", "-y"]
    for folder in (tmp_path, keep):
        run(*ffmpeg, *FILM, *EXACT, *flags, folder / "film.mp4")
        run(*ffmpeg, "-i", folder / "film.mp4", "-c", "copy", *EXACT, *flags, folder / "copy.mp4")
        run(*ffmpeg, "-i", folder / "copy.mp4", "-c", "copy", *EXACT, *flags, folder / "film.mp4")    # over an old one
    for name in ("film.mp4", "copy.mp4"):
        run("cmp", tmp_path / name, keep / name)
        facts = json.loads(run("ffprobe", "-v", "error", "-show_streams", "-of", "json", keep / name).out)
        assert [s["codec_name"] for s in facts["streams"]] == ["mpeg4", "aac"]
        data = read(keep / name)
        assert (data.index(b"moov") < data.index(b"mdat")) == bool(flags)
    if shared.kind != "bare":
        shared.sync(derived=True)
        assert thumbs_of(keep, "film.mp4") and thumbs_of(keep, "film.mp4") == thumbs_of(keep, "copy.mp4")
    stored_as_they_are(shared, keep)


# ---- Django's own tests ---------------------------------------------------------------------

@pytest.fixture(scope="module")
def django_tests(packages):                     # noqa: F811
    """django_tests(folder) → test → outcome, as www-data with its temporary files in the folder.

    As root one would fail: it wants a directory that may not be written.
    """
    base = Path(tempfile.mkdtemp(prefix="django-tests.", dir=rig.ROOT))
    base.chmod(0o755)
    archive = run(TOP / "scripts" / "suites", "django", timeout=300).out.strip()
    run("tar", "-C", base, "--strip-components=1", "--no-same-owner", "-xf", archive)

    def outcomes(folder):
        r = run(PYTHON, "runtests.py", "--parallel=1", "-v", "2", "file_storage", "file_uploads", "files",
                check=False, cwd=base / "tests", user=33, group=33, extra_groups=[],
                env={"PATH": os.environ["PATH"], "TMPDIR": str(folder), "LC_ALL": "C.UTF-8", "HOME": str(base),
                     "PYTHONPATH": f"{packages}/site", "PYTHONDONTWRITEBYTECODE": "1"})
        found = dict(re.findall(r"^(test_\w+ \([\w.]+\)).*?\.\.\. (ok|FAIL|ERROR|skipped|expected failure)",
                                r.err, re.M | re.S))
        assert len(found) > 250, r.err[-3000:]
        return found
    return outcomes


@pytest.fixture(scope="module")
def on_a_disk(django_tests):
    folder = tempfile.mkdtemp(dir=rig.ROOT)
    os.chmod(folder, 0o777)
    return django_tests(folder)


def test_djangos_own_file_tests(django_tests, on_a_disk, shared, tree):
    """The same pass, and the same are skipped, as on a disk; and they leave nothing."""
    assert "ok" in on_a_disk.values()
    assert django_tests(tree) == on_a_disk
    assert os.listdir(tree) == []
    stored_as_they_are(shared, tree)
