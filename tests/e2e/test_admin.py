# SPDX-License-Identifier: GPL-3.0-or-later
"""What an administrator relies on: status and its alarms, snapshots, mount(8), a unit with few rights."""
import errno
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import time

import pytest

import rig
from rig import MEDIA, TOP, files_below, keep_path, noise, read, run, wait_until, write
from test_posix import raises


def test_sigusr1_writes_the_statistics_to_the_log(mount):
    write(mount.path / "a", noise(1000))
    mount.sync()
    os.kill(mount.pid, signal.SIGUSR1)
    wait_until(lambda: " status {" in mount.log.read_text())
    line = mount.log.read_text().split(" status ")[1].splitlines()[0]
    assert json.loads(line)["files"]["stored"] == {"count": 1, "bytes": 1000}


def test_check_complains_of_what_waits_too_long(new_mount):
    mount = new_mount(alert__age="1s", fault="put:every=EAGAIN").start()
    write(mount.path / "a", b"x")

    def check():
        return mount.tbfs("status", "--check", mount.path, check=False)
    wait_until(lambda: check().returncode == 1)
    assert re.fullmatch(r"LATE: the oldest of 1 unstored files has waited for \d+ s\n", check().out)


def test_watch_goes_on_until_nobody_reads(mount):
    p = subprocess.Popen([rig.TBFS, "status", "--watch", "--json", mount.path], stdout=subprocess.PIPE,
                         env=mount.environment(), text=True)
    try:
        assert [json.loads(p.stdout.readline())["pid"] for _ in range(2)] == [mount.pid] * 2
        p.stdout.close()
        assert p.wait(20) != 0
    finally:
        p.kill()
        p.wait()


def test_a_full_store_is_not_healthy_and_heals(new_mount, disk):
    small = disk(16)
    mount = new_mount(derived="off", local__root_path=small.path / "objects").start()
    ballast = small.path / "ballast"
    with open(ballast, "wb") as f:
        while True:
            try:
                f.write(bytes(1 << 16))
                f.flush()
            except OSError:
                break
    for n in range(4):
        write(mount.path / f"f{n}", noise(200_000, n))
    wait_until(lambda: not mount.status()["backends"][0]["healthy"], 30)
    assert "No space left" in mount.status()["backends"][0]["last_error"]
    ballast.unlink()
    mount.sync()
    assert mount.status()["backends"][0]["healthy"]
    assert len(files_below(small.path / "objects")) == 4


def test_snapshots_are_taken_while_there_are_changes_and_pruned(new_mount):
    mount = new_mount(derived="off", snapshot_interval="1s").start()

    def snapshots():
        return sorted(p for p in (mount.state_dir / "snapshots").glob("*") if p.suffix == ".db")
    for n in range(8):
        write(mount.path / f"f{n}", b"x")
        wait_until(lambda: snapshots() and names_in(snapshots()[-1]) >= n + 1, 20, 0.2)
    assert len(snapshots()) <= 6
    mount.sync()
    time.sleep(2.5)
    before = snapshots()
    time.sleep(2.5)
    assert snapshots() == before, "nothing changed"


def names_in(snapshot):
    with sqlite3.connect(f"file:{snapshot}?mode=ro&immutable=1", uri=True) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return db.execute("SELECT count(*) FROM dentry WHERE CAST(name AS TEXT) LIKE 'f%'").fetchone()[0]


def test_what_was_not_derived_while_that_was_off_is_later(new_mount):
    """Nothing piles up meanwhile."""
    mount = new_mount(derived="off").start()
    keep = keep_path(mount.path)
    for n in range(3):
        shutil.copy(MEDIA / "no_exif.jpg", keep / f"{n}.jpg")
    mount.sync()
    assert mount.status()["derive"]["pending"] == 0 and sorted(os.listdir(keep)) == ["0.jpg", "1.jpg", "2.jpg"]
    mount.remount(derived="on")
    mount.sync(derived=True)
    assert len(json.loads(read(keep / "meta.json"))["files"]) == 3
    mount.remount(derived="off")
    assert mount.status()["derive"]["pending"] == 0


def test_limits_are_configuration(new_mount):
    """A still over the limit has its reason; with a larger limit, and asked to try again, its thumbnails."""
    mount = new_mount(limit__still_pixels="1000").start()
    keep = keep_path(mount.path)
    shutil.copy(MEDIA / "no_exif.jpg", keep / "a.jpg")
    mount.sync(derived=True)
    entry = json.loads(read(keep / "meta.json"))["files"]["a.jpg"]
    assert entry["error"]["stage"] == "limit" and "thumbs" not in entry
    mount.remount(limit__still_pixels=None)
    assert mount.tbfs("retry", keep).out == "1 tried again\n"
    mount.sync(derived=True)
    assert len(json.loads(read(keep / "meta.json"))["files"]["a.jpg"]["thumbs"]) == 3


@pytest.fixture
def helpers():
    """mount(8) looks for its helpers in /sbin alone."""
    links = [f"/sbin/{name}" for name in ("mount.tbfs", "mount.fuse.tbfs", "umount.tbfs", "umount.fuse.tbfs")]
    made = [link for link in links if not os.path.lexists(link)]
    for link in made:
        os.symlink(rig.TBFS, link)
    yield
    for link in made:
        os.unlink(link)


@pytest.mark.parametrize("kind", ["tbfs", "fuse.tbfs"])
def test_mount_and_umount_as_fstab_has_them(new_mount, helpers, kind):
    mount = new_mount()
    options = f"state_dir={mount.state_dir},log_file={mount.log},quiet_period=1h,rw,nosuid,noauto,nofail,_netdev,x-systemd.requires=a.mount"
    run("mount", "-t", kind, "-o", options, "family", mount.path, env=mount.environment())
    mount.pid = mount.find_pid()
    rig.Mount.live.append(mount)
    line = next(line.split() for line in open("/proc/self/mounts") if line.split()[1] == str(mount.path))
    assert line[:3] == ["family", str(mount.path), "fuse.tbfs"] and "nosuid" in line[3].split(",")
    write(mount.path / "a", b"x")
    run("mount", "-o", "remount,ro", mount.path, env=mount.environment())
    with raises(errno.EROFS):
        write(mount.path / "b", b"x")
    run("mount", "-o", "remount,rw", mount.path, env=mount.environment())
    write(mount.path / "b", b"x")
    pid = mount.pid
    run("umount", mount.path, env=mount.environment())
    wait_until(lambda: not rig.alive(pid))
    assert read(mount.state_dir / "objects" / "a") == b"x"
    # What mount(8) doesn't hand on, as it is its own default.
    run("mount", "-t", kind, "-o", f"state_dir={mount.state_dir},log_file={mount.log},suid,dev", "family", mount.path,
        env=mount.environment())
    line = next(line.split() for line in open("/proc/self/mounts") if line.split()[1] == str(mount.path))
    assert not {"nosuid", "nodev"} & set(line[3].split(","))
    run("umount", mount.path, env=mount.environment())
    mount.pid = None


def unit_capabilities():
    text = (TOP / "contrib" / "systemd" / "tbfs@.service.in").read_text()
    return [c.removeprefix("CAP_").lower() for line in re.findall(r"^CapabilityBoundingSet=(.*)$", text, re.M)
            for c in line.split()]


@pytest.mark.skipif(rig.SANITIZED, reason="a sanitizer wants to trace")
def test_the_units_capabilities_are_enough(new_mount):
    """All that the unit leaves the daemon, and no new privileges: it mounts for all, gives files
    away, sees every user's, and starts its workers in their sandbox."""
    mount = new_mount()
    some = ",".join(["-all", *(f"+{c}" for c in unit_capabilities())])
    run("setpriv", f"--bounding-set={some}", f"--inh-caps={some}", "--no-new-privs", rig.TBFS,
        *mount.mount_command(), env=mount.environment())
    mount.pid = mount.find_pid()
    rig.Mount.live.append(mount)
    status = dict(line.split(":\t") for line in read(f"/proc/{mount.pid}/status").decode().splitlines()
                  if ":\t" in line)
    assert status["NoNewPrivs"] == "1" and int(status["CapBnd"], 16).bit_count() == len(unit_capabilities())
    keep = keep_path(mount.path)
    mount.path.chmod(0o777)
    os.chown(keep, 33, 33)
    rig.as_user("www-data", write, keep / "private", noise(1000), 0o600)
    rig.as_user("www-data", shutil.copy, MEDIA / "h264_aac.mp4", keep / "v.mp4")
    os.chown(keep / "private", 1, 1)
    run("setfacl", "-m", "u:daemon:r", keep / "private")
    mount.sync(derived=True)
    assert len(os.listdir(keep / "thumbs" / "v.mp4")) == 3
    assert mount.objects()[b"circles/1/keeps/1/private"] == noise(1000)
    assert os.stat(keep / "private").st_uid == 1
