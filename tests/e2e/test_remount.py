# SPDX-License-Identifier: GPL-3.0-or-later
"""What stays the same over an unmount, a kill and a new start."""
import errno
import os
import signal
import stat
import time

import pytest

import rig
import syscalls
from rig import noise, read, run, wait_until, write
from test_tools import describe, make_source


def facts(root):
    """Inode number, times and all else that a backup compares."""
    found = {}
    for folder, folders, files in os.walk(os.fsencode(root)):
        for name in folders + files:
            path = os.path.join(folder, name)
            s = os.lstat(path)
            found[os.path.relpath(path, os.fsencode(root))] = (
                s.st_ino, s.st_mode, s.st_nlink, s.st_uid, s.st_gid, s.st_mtime_ns, s.st_ctime_ns,
                s.st_size if not stat.S_ISDIR(s.st_mode) else 0)
    return found


FIELDS = ("inode", "mode", "nlink", "uid", "gid", "mtime", "ctime", "size")


def unchanged(root, before):
    after = facts(root)
    assert sorted(after) == sorted(before)
    moved = [f"{name!r}: {field} {a} → {b}" for name in before
             for field, a, b in zip(FIELDS, before[name], after[name]) if a != b]
    assert moved == [], "\n".join(moved)


@pytest.mark.smoke
@pytest.mark.parametrize("how", ["umount", "kill"])
def test_everything_is_the_same_after(mount, tmp_path, how):
    source = make_source(tmp_path / "src")
    run("cp", "-a", source, mount.path / "dst")
    before = facts(mount.path)
    mount.remount() if how == "umount" else mount.crash()
    assert describe(mount.path / "dst") == describe(source)
    unchanged(mount.path, before)
    # Storing changes none of it either: restic and borg compare ctime and inode.
    mount.sync()
    unchanged(mount.path, before)
    mount.remount()
    unchanged(mount.path, before)
    assert describe(mount.path / "dst") == describe(source)


def test_empty_files_and_folders_survive(mount):
    (mount.path / "d" / "e").mkdir(parents=True)
    write(mount.path / "zero", b"")
    with open(mount.path / "hole", "wb") as f:
        f.truncate(1 << 20)
    mount.crash()
    assert (mount.path / "d" / "e").is_dir()
    assert (mount.path / "zero").stat().st_size == 0
    assert (mount.path / "hole").stat().st_size == 1 << 20


def looks(folder):
    """What stat tells of atime and blocks, and listings likewise."""
    return {e.name: (e.stat().st_atime_ns, e.stat().st_blocks) for e in os.scandir(folder)}


def test_atime_and_blocks_of_what_is_stored(new_mount):
    """Of a file that nobody writes the row answers, and says what the disk would: what was read (relatime),
    sparse, or longer than it looks."""
    mount = new_mount("passthrough").start()
    bare, folder = mount.base / "bare", mount.path / "d"
    for place in (bare, folder):
        place.mkdir()
        for name in ("read", "read later", "not read", "appended"):
            write(place / name, noise(10_000, 1))
        write(place / "empty", b"")
        with open(place / "sparse", "wb") as f:
            f.write(b"x")
            f.truncate(1 << 20)
        fd = os.open(place / "reserved", os.O_CREAT | os.O_WRONLY)
        os.write(fd, b"x")
        syscalls.fallocate(fd, syscalls.FALLOC_FL_KEEP_SIZE, 0, 1 << 20)
        os.close(fd)
    mount.sync()
    os.sync()
    before = looks(folder)
    for name, (_, blocks) in looks(bare).items():
        # One that shares its inode with its object has a block of attributes, too.
        assert before[name][1] - blocks in ((0, 8) if name in ("sparse", "reserved") else (0,)), name
    time.sleep(0.02)
    for place in (bare, folder):
        read(place / "read")
        fd = os.open(place / "read later", os.O_RDONLY)
        os.read(fd, 10)
        assert os.stat(place / "read later").st_atime_ns > before["read later"][0]
        os.close(fd)
        with open(place / "appended", "ab") as f:
            f.write(noise(10_000))
    for again in (False, True):
        if again:
            mount.stop()
            mount.start()
        after = looks(folder)
        moved = {n for n in after if after[n][0] > before[n][0]}
        assert moved == {"read", "read later"}
        assert after["appended"][1] - os.stat(bare / "appended").st_blocks in (0, 8)
        assert {n: after[n][1] for n in after if n != "appended"} == {
            n: before[n][1] for n in before if n != "appended"}
    # Storing it is no change that would have the next reading move it.
    write(folder / "read twice", noise(100))
    time.sleep(0.02)
    read(folder / "read twice")
    once = os.stat(folder / "read twice").st_atime_ns
    mount.sync()
    time.sleep(0.02)
    fd = os.open(folder / "read twice", os.O_RDONLY)
    os.read(fd, 10)
    assert os.stat(folder / "read twice").st_atime_ns == once
    os.close(fd)
    time.sleep(0.2)
    assert looks(folder)["read twice"][0] == once
    # What was read once isn't moved by a second look, and a user may set what he likes.
    read(folder / "read")
    assert looks(folder)["read"] == after["read"]
    os.utime(folder / "read", ns=(1_000, 2_000))
    assert looks(folder)["read"][0] == 1_000


def test_unlinked_open_files_are_gone_after_a_kill(mount):
    fds = []
    for n in range(10):
        path = write(mount.path / f"f{n}", noise(10_000))
        fds.append(os.open(path, os.O_RDWR))
        os.unlink(path)
    mount.kill()
    for fd in fds:
        try:
            os.close(fd)
        except OSError as e:
            assert e.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    mount.start()
    assert os.listdir(mount.path) == []
    # Their bytes were given back.
    wait_until(lambda: not [f for f in (mount.state_dir / "data").rglob("*") if f.is_file() and f.stat().st_size])


def test_what_was_removed_before_a_kill_is_removed(new_mount):
    """More than is swept at once, and nobody had reaped it."""
    mount = new_mount().start()
    for n in range(600):
        write(mount.path / f"f{n}", b"x")
    mount.sync()
    for n in range(600):
        os.unlink(mount.path / f"f{n}")
    mount.crash()
    mount.sync()
    assert mount.objects() == {}


def test_a_dead_mountpoint_is_mounted_over(mount):
    write(mount.path / "a", b"1")
    mount.kill()
    with pytest.raises(OSError) as e:
        os.listdir(mount.path)
    assert e.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    mount.start()
    assert read(mount.path / "a") == b"1"
    with open("/proc/mounts") as f:
        assert f.read().count(f" {mount.path} ") == 1


def test_sighup_takes_new_values_over(new_mount, tmp_path):
    """Those that the manual marks: the log is opened anew, the rest says that it needs a new mount."""
    conf = tmp_path / "tbfs.conf"
    conf.write_text("quiet_period = 1h\nupload.max_size = 1000\nupload_workers = 4\n")
    mount = new_mount(quiet_period=None)
    r = mount.tbfs("mount", "-c", conf, *mount.mount_command()[1:], check=False)
    assert r.returncode == 0, r.err
    mount.pid = mount.find_pid()
    rig.Mount.live.append(mount)
    write(mount.path / "waits", b"x")
    conf.write_text("quiet_period = 100ms\nupload.max_size = 2000\nupload_workers = 5\nlog_level = debug\n")
    mount.log.rename(mount.log.with_suffix(".1"))
    os.kill(mount.pid, signal.SIGHUP)
    wait_until(lambda: mount.log.exists() and "upload_workers" in mount.log.read_text())
    write(mount.path / "quick", noise(1500))
    wait_until(lambda: mount.objects() == {b"quick": noise(1500)}, 5)
    conf.write_text("quiet_period = soon\n")
    os.kill(mount.pid, signal.SIGHUP)
    wait_until(lambda: "quiet_period" in mount.log.read_text() and "soon" in mount.log.read_text())
    write(mount.path / "still", b"y")
    wait_until(lambda: b"still" in mount.objects(), 5)


def test_sigterm_drains_and_unmounts(mount):
    write(mount.path / "a", noise(1000))
    pid, mount.pid = mount.pid, None
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not rig.alive(pid), 40)
    assert not os.path.ismount(mount.path)
    assert mount.objects() == {b"a": noise(1000)}


def test_status_knows_its_daemon(mount):
    write(mount.path / "a", noise(1000))
    status = mount.status()
    assert status["pid"] == mount.pid and status["mountpoint"] == str(mount.path)
    mount.sync()
    files = mount.status()["files"]
    assert files["stored"] == {"count": 1, "bytes": 1000}
    assert mount.tbfs("status", mount.path).out
    assert mount.tbfs("status", "--check", mount.path).returncode == 0


def test_passthrough_is_what_it_says(mount, kind):
    """The kernel moves the bytes where it can, and never with passthrough=off."""
    release = tuple(int(n) for n in os.uname().release.split(".")[:2])
    write(mount.path / "a", noise(100_000))
    read(mount.path / "a")
    counts = mount.status()["counts"]
    if kind == "daemon":
        assert counts["passthrough_opens"] == 0 and counts["daemon_opens"] > 0
    elif release >= (6, 9):
        assert mount.status()["passthrough"] is True
        assert counts["passthrough_opens"] > 0


def test_foreground(new_mount):
    """-f stays, and ends with the unmount."""
    import subprocess
    mount = new_mount()
    command = [rig.TBFS, "mount", "-f", *mount.mount_command()[1:]]
    p = subprocess.Popen(command, env=mount.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                         stdin=subprocess.DEVNULL)
    try:
        wait_until(lambda: os.path.ismount(mount.path))
        mount.pid = p.pid
        write(mount.path / "a", b"x")
        mount.umount()
        mount.pid = None
        assert p.wait(20) == 0
    finally:
        if p.poll() is None:
            p.kill()
        p.communicate()


def test_defaults_need_no_configuration(new_mount, tmp_path):
    """`tbfs mount DIR` alone: local backend in the state directory."""
    mount = new_mount()
    mount.options = {"state_dir": mount.state_dir}
    mount.start()
    write(mount.path / "a", b"x")
    mount.sync()
    assert read(mount.state_dir / "objects" / "a") == b"x"


def test_root_takes_the_mountpoints_owner_and_mode(new_mount):
    mount = new_mount()
    os.chown(mount.path, 33, 1234)
    os.chmod(mount.path, 0o2775)
    mount.start()
    s = os.stat(mount.path)
    assert (s.st_uid, s.st_gid, stat.S_IMODE(s.st_mode)) == (33, 1234, 0o2775)
    other = new_mount(uid=1000, gid="www-data", mode="0750").start()
    s = os.stat(other.path)
    assert (s.st_uid, s.st_gid, stat.S_IMODE(s.st_mode)) == (1000, 33, 0o750)


def test_configuration_file_and_environment(new_mount):
    mount = new_mount()
    conf = mount.base / "my.conf"
    conf.write_text(f"state_dir = {mount.state_dir}\nquiet_period = 100ms\nlog_file = {mount.log}\n")
    mount.options = {}
    mount.env["MEDIA_STORAGE_BACKEND"] = "local"
    r = mount.tbfs("mount", "-c", conf, mount.path, check=False)
    assert r.returncode == 0, r.err
    mount.pid = mount.find_pid()
    rig.Mount.live.append(mount)
    assert mount.log.exists()


def test_secrets_are_nowhere_to_be_seen(new_mount):
    mount = new_mount("passthrough", "minio").start()
    write(mount.path / "a", b"x")
    mount.sync()
    secret = mount.minio.password.encode()
    with open("/proc/mounts", "rb") as f:
        line = [entry for entry in f if os.fsencode(mount.path) in entry][0]
    assert secret not in line
    assert secret not in read(f"/proc/{mount.pid}/cmdline")
    assert secret not in read(mount.log)
    assert secret not in mount.tbfs("status", "--json", mount.path).stdout
    assert secret not in mount.tbfs("config", check=False).stdout


def test_special_directory_is_there_but_not_listed(mount):
    assert ".tbfs" not in os.listdir(mount.path)
    assert (mount.path / ".tbfs").is_dir()
