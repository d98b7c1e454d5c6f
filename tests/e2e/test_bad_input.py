# SPDX-License-Identifier: GPL-3.0-or-later
"""What is refused, how it is said, and with which exit code: 2 usage, 3 backend, 4 state directory."""
import errno
import os
import resource
import shutil
import subprocess
import time

import pytest

import rig
from rig import BACKEND, NOT_DONE, STATE, USAGE, noise, read, run, wait_until, write
from test_posix import raises


def one_line(r, code, *words):
    """One sentence on stderr that says these words, and this exit code."""
    lines = [line for line in r.err.splitlines() if line.strip()]
    assert r.returncode == code, f"exit {r.returncode} instead of {code}: {r.err}"
    assert len(lines) == 1, f"not one line: {r.err}"
    for word in words:
        assert str(word).lower() in lines[0].lower(), f"'{word}' is not in: {lines[0]}"
    return lines[0]


def refused(mount, code, *words, log=False, **options):
    r = mount.try_start(**options)
    assert r.returncode != 0, "it was mounted"
    assert not os.path.ismount(mount.path)
    line = one_line(r, code, *words)
    if log:
        said = line.partition(": ")[2]
        assert said[:60] in mount.log.read_text(errors="replace")
    return line


# ---- usage ----------------------------------------------------------------------------------

@pytest.mark.parametrize("args", [["nonsense"], ["mount"], ["mount", "--nonsense", "/x"], ["mount", "/a", "/b"],
                                  ["umount"], ["sync", "--timeout", "x", "/"], ["url"]], ids=" ".join)
def test_wrong_usage(args):
    r = subprocess.run([rig.TBFS, *args], capture_output=True, timeout=30)
    assert r.returncode == USAGE
    assert r.stderr.strip()


@pytest.mark.parametrize("verb", ["mount", "umount", "sync", "status", "info", "retry", "url", "config"])
def test_help(verb):
    r = run(rig.TBFS, verb, "--help")
    assert verb in r.out and not r.err


def test_unknown_key(new_mount):
    refused(new_mount(), USAGE, "quite_period", "quiet_period", quite_period="1s")


@pytest.mark.parametrize("key, value", [("quiet_period", "soon"), ("backend", "ftp"), ("upload_workers", "0"),
                                        ("passthrough", "maybe"), ("derived", "yes please"), ("mode", "abc")])
def test_bad_value(new_mount, key, value):
    refused(new_mount(), USAGE, key, value, **{key: value})


def test_unknown_key_in_a_file_names_the_line(new_mount):
    mount = new_mount()
    conf = mount.base / "c.conf"
    conf.write_text("backend = local\n\nbakend = local\n")
    r = mount.tbfs("mount", "-c", conf, mount.path, check=False)
    one_line(r, USAGE, conf, "3", "bakend")


def test_unreadable_configuration(new_mount):
    mount = new_mount()
    r = mount.tbfs("mount", "-c", mount.base / "none.conf", mount.path, check=False)
    one_line(r, USAGE, "none.conf")
    r = mount.tbfs("mount", "-c", mount.base, mount.path, check=False)
    assert r.returncode == USAGE
    secret = mount.base / "secret.conf"
    secret.write_text("s3.secret_key = x\n")
    secret.chmod(0o644)
    r = mount.tbfs("mount", "-c", secret, mount.path, check=False)
    one_line(r, USAGE, "secret.conf")


# ---- mountpoints ----------------------------------------------------------------------------

def test_mountpoint_missing_or_not_a_directory(new_mount):
    mount = new_mount()
    mount.path.rmdir()
    refused(mount, USAGE, mount.path)
    write(mount.path, b"")
    refused(mount, USAGE, mount.path)
    mount.path.unlink()
    mount.path.mkdir()


def test_mountpoint_with_files(new_mount):
    mount = new_mount()
    write(mount.path / "photo.jpg", b"x")
    refused(mount, NOT_DONE, "photo.jpg", "rsync")
    assert read(mount.path / "photo.jpg") == b"x"


def test_mountpoint_busy(new_mount):
    first, second = new_mount().start(), new_mount()
    second.path.rmdir()
    second.path = first.path
    r = second.tbfs(*second.mount_command(), check=False)
    assert r.returncode in (NOT_DONE, STATE) and first.path.name in r.err
    write(first.path / "a", b"still here")
    second.path = second.base / "mnt"
    second.path.mkdir()


@pytest.mark.timeout(90)
def test_second_mount_of_one_state_directory(new_mount):
    """It waits 10 s for the lock (a restart), then is refused."""
    first = new_mount().start()
    second = new_mount(state_dir=first.state_dir)
    began = time.monotonic()
    refused(second, STATE, first.state_dir)
    assert 8 <= time.monotonic() - began <= 25
    write(first.path / "a", b"x")
    assert read(first.path / "a") == b"x"


def test_a_waiting_mount_gets_its_turn(new_mount):
    first = new_mount().start()
    write(first.path / "a", b"x")
    second = new_mount(state_dir=first.state_dir, local__root_path=first.objects_dir)
    p = subprocess.Popen([rig.TBFS, *second.mount_command()], env=second.environment(),
                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    time.sleep(1)
    assert p.poll() is None
    first.umount()
    first.pid = None
    assert p.wait(20) == 0, p.stderr.read()
    p.stderr.close()
    second.pid = second.find_pid()
    rig.Mount.live.append(second)
    assert read(second.path / "a") == b"x"


def test_verbs_without_a_mount(tmp_path):
    for args in (["sync", tmp_path], ["status", tmp_path], ["umount", tmp_path], ["retry", tmp_path],
                 ["info", tmp_path], ["url", tmp_path]):
        r = run(rig.TBFS, *args, check=False)
        one_line(r, r.returncode)
        assert r.returncode in (NOT_DONE, USAGE, STATE), args


def test_verbs_on_missing_files(mount):
    for verb in ("info", "url", "sync"):
        r = mount.tbfs(verb, mount.path / "none", check=False)
        one_line(r, USAGE, "none")


def test_descriptors_that_run_out(new_mount):
    """A soft limit is nothing to us; at the hard one a file isn't half made, and it says that they were ours."""
    mount = new_mount("daemon", derived="off", quiet_period="1h")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        mount.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert resource.prlimit(mount.pid, resource.RLIMIT_NOFILE)[0] >= hard
    held = len(os.listdir(f"/proc/{mount.pid}/fd"))
    resource.prlimit(mount.pid, resource.RLIMIT_NOFILE, (held + 20, held + 20))
    files = []
    with raises(errno.ENFILE):
        for n in range(100):
            files.append(os.open(mount.path / f"f{n}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    assert 0 < len(files) < 100 and sorted(os.listdir(mount.path)) == sorted(f"f{n}" for n in range(len(files)))
    for fd in files:
        os.close(fd)
    wait_until(lambda: len(os.listdir(f"/proc/{mount.pid}/fd")) <= held)    # a release comes after the close
    write(mount.path / "and now", b"x")


def test_control_needs_permission(mount):
    """Root, the mounting user or control.group."""
    def status():
        # The checkout may be closed to others: run a copy that anyone can.
        return subprocess.run([copy, "status", mount.path], capture_output=True).returncode
    copy = mount.base / "tbfs"
    copy.write_bytes(read(rig.TBFS))
    copy.chmod(0o755)
    assert status() == 0
    assert rig.as_user("www-data", status) != 0


# ---- backends -------------------------------------------------------------------------------

def test_wrong_credentials(new_mount):
    mount = new_mount("passthrough", "minio")
    mount.env["MINIO_SECRET_KEY"] = "hush-hush-wrong"
    line = refused(mount, BACKEND, log=True)
    assert "hush" not in line
    assert any(word in line.lower() for word in ("credential", "secret", "access key", "signature", "denied"))


def test_missing_bucket(new_mount):
    mount = new_mount("passthrough", "minio")
    mount.env["MINIO_BUCKET_NAME"] = "not-there"
    refused(mount, BACKEND, "not-there", log=True)
    # Told to, it is made, and is private.
    mount.start(create_bucket="yes")
    write(mount.path / "a", b"x")
    mount.sync()
    import urllib.error
    import urllib.request
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"{mount.minio.url}/not-there/a", timeout=10)


def test_unreachable_backend_at_first_use(new_mount):
    mount = new_mount(backend="minio", s3__endpoint=f"http://127.0.0.1:{rig.free_port()}", s3__timeout="2s",
                      s3__retries=1, s3__access_key="a")
    mount.env |= {"MINIO_SECRET_KEY": "hush-hush"}
    line = refused(mount, BACKEND, "127.0.0.1")
    assert "hush" not in line


def test_unreachable_later_means_degraded(new_mount, minio):
    mount = new_mount("passthrough", "minio", s3__timeout="2s", s3__retries=1, derived="off").start()
    write(mount.path / "a", noise(1000))
    mount.sync()
    mount.umount()
    port = rig.free_port()
    mount.env["MINIO_ENDPOINT"] = f"http://127.0.0.1:{port}"
    mount.start()
    assert read(mount.path / "a") == noise(1000)
    write(mount.path / "b", noise(1000))
    assert read(mount.path / "b") == noise(1000)
    mount.kill()
    mount.env["MINIO_ENDPOINT"] = minio.url
    mount.start()
    mount.sync()
    assert mount.objects()[b"b"] == noise(1000)


def test_local_root_that_cannot_be(new_mount):
    mount = new_mount()
    write(mount.objects_dir, b"a file")
    refused(mount, BACKEND, mount.objects_dir)


# ---- the state directory --------------------------------------------------------------------

def test_state_directory_that_cannot_be_made(new_mount):
    mount = new_mount()
    write(mount.state_dir, b"a file")
    refused(mount, STATE, mount.state_dir)


def test_state_directory_on_a_read_only_disk(new_mount, disk):
    ro = disk(32)
    ro.umount()
    ro.mount("ro")
    refused(new_mount(state_dir=ro.path / "state"), STATE, ro.path)


def test_state_directory_on_a_full_disk(new_mount, disk):
    full = disk(16)
    with open(full.path / "fill", "wb") as f:
        try:
            while True:
                f.write(bytes(1 << 16))
        except OSError:
            pass
    try:
        f.close()
    except OSError:
        pass
    mount = new_mount(state_dir=full.path / "state", reserve="1M")
    refused(mount, STATE, full.path)
    mount.destroy()


@pytest.fixture
def filled(new_mount):
    """A mount with stored files and one snapshot from before half of them, unmounted."""
    mount = new_mount(derived="off", snapshot_interval="1s").start()
    for n in range(20):
        write(mount.path / f"f{n}", noise(2000, n))
        if n == 10:
            wait_until(lambda: list((mount.state_dir / "snapshots").glob("*.db")))
            mount.umount()
            mount.start(snapshot_interval="0")
    mount.sync()
    mount.umount()
    mount.pid = None
    return mount


@pytest.mark.parametrize("damage", ["zeros", "text", "truncated", "pages", "header"])
def test_corrupt_index_is_set_aside_never_overwritten(filled, damage):
    path = filled.state_dir / "index.db"
    data = bytearray(read(path))
    if damage == "zeros":
        data[:] = bytes(len(data))
    elif damage == "text":
        data = bytearray(b"this is no database\n" * 500)
    elif damage == "truncated":
        data = data[:len(data) // 2]
    elif damage == "pages":
        for page in range(1, len(data) // 4096):
            data[page * 4096:page * 4096 + 2000] = noise(2000, page)
    else:
        data[:100] = noise(100)
    write(path, bytes(data))
    for extra in ("-wal", "-shm"):
        (filled.state_dir / f"index.db{extra}").unlink(missing_ok=True)
    for _ in range(2):              # it is not forgotten
        r = filled.try_start()
        if r.returncode == 0:       # nothing was lost but the file's unused end
            assert damage == "truncated" and len(filled.files()) == 20
            return
        one_line(r, STATE, "index.db.damaged-")
        assert not path.exists()
        [aside] = filled.state_dir.glob("index.db.damaged-*Z")
        assert read(aside) == bytes(data)
        assert r.err.count("the last verified snapshot is snapshots/index-") == 1
    # The staged bytes and the objects were not touched.
    assert len(filled.objects()) == 20
    # What the message says helps: names of after the snapshot are known from the staged files.
    [snapshot] = (filled.state_dir / "snapshots").glob("index-*.db")
    shutil.copy(snapshot, path)
    filled.start()
    assert {p.name: read(p) for p in filled.path.iterdir()} == {f"f{n}": noise(2000, n) for n in range(20)}
    assert read(aside) == bytes(data)


@pytest.mark.parametrize("damage", ["cut to a tenth", "cut to a half", "cut to nine tenths", "a page in the middle", "deleted"])
def test_damage_to_the_indexs_log_loses_no_file_and_no_name(new_mount, damage):
    """SQLite takes a log that ends early for a shorter log: what closed files say of themselves tells."""
    mount = new_mount(derived="off").start()
    for n in range(60):
        (mount.path / f"d{n % 3}").mkdir(exist_ok=True)
        write(mount.path / f"d{n % 3}" / f"f{n}", noise(2000, n))
        if n == 30:
            mount.sync()
    os.rename(mount.path / "d1", mount.path / "renamed")
    want = mount.files()
    mount.kill()
    path = mount.state_dir / "index.db-wal"
    log = bytearray(read(path))
    assert len(log) > 50_000, "nothing to damage"
    if damage == "deleted":
        path.unlink()
    elif damage.startswith("cut"):
        write(path, bytes(log[:int(len(log) * {"tenth": .1, "half": .5, "tenths": .9}[damage.split()[-1]])]))
    else:
        log[len(log) // 2:len(log) // 2 + 1000] = noise(1000)
        write(path, bytes(log))
    mount.start()
    assert mount.files() == want
    assert not (mount.path / "lost+found").exists()
    if damage != "deleted":
        assert "the index has lost its last changes" in mount.log_tail()
    mount.sync()


def test_newer_schema_is_refused(filled):
    import sqlite3
    with sqlite3.connect(filled.state_dir / "index.db") as db:
        version = db.execute("pragma user_version").fetchone()[0]
        db.execute("pragma user_version = 9999")
    db.close()
    assert version < 9999
    r = filled.try_start()
    if version == 0:
        pytest.fail("the schema's version is not in user_version: adapt this test")
    one_line(r, STATE)


def test_garbage_beside_the_index_is_no_harm(filled):
    (filled.state_dir / "data" / "zz").mkdir(parents=True, exist_ok=True)
    write(filled.state_dir / "data" / "zz" / "not-a-number", b"?")
    write(filled.state_dir / "junk", b"?")
    filled.start()
    assert {p.name for p in filled.path.iterdir()} >= {f"f{n}" for n in range(20)}


def test_stored_file_whose_staged_bytes_vanished_is_fetched(filled):
    """A STORED row without its staged file becomes REMOTE, one that differs DIRTY."""
    filled.start()
    filled.kill()
    for path in (filled.state_dir / "data").rglob("*"):
        if path.is_file():
            path.unlink()
    filled.start()
    for n in range(20):
        assert filled.state(filled.path / f"f{n}") == "remote"
        assert read(filled.path / f"f{n}") == noise(2000, n)
    wait_until(lambda: filled.state(filled.path / "f0") in ("stored", "remote"))
