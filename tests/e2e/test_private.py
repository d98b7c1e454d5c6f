# SPDX-License-Identifier: GPL-3.0-or-later
"""A plain user's own mount: through fusermount3, without passthrough, seen by nobody else."""
import errno
import mmap
import os
import shutil
import signal
import stat
import tempfile
from pathlib import Path

import pytest

from rig import BUILD, MEDIA, ROOT, SANITIZED, TOP, alive, as_user, keep_path, noise, read, run, wait_until, write
from test_posix import raises

USER, UID = "www-data", 33


@pytest.fixture(scope="module", autouse=True)
def fuse_for_all():
    """What a booted Debian has: a device that all may open (udev), and /etc/mtab, without which
    fusermount3 unmounts nothing (systemd)."""
    before = stat.S_IMODE(os.stat("/dev/fuse").st_mode)
    os.chmod("/dev/fuse", 0o666)
    bare = not os.path.lexists("/etc/mtab")
    if bare:
        os.symlink("../proc/self/mounts", "/etc/mtab")
    yield
    if bare:
        os.unlink("/etc/mtab")
    os.chmod("/dev/fuse", before)


class Private:
    """Commands of the user, whose home this is; the programs stand where the user may run them."""

    def __init__(self):
        self.home = Path(tempfile.mkdtemp(prefix="private.", dir=ROOT))
        self.path = self.home / "mnt"
        self.path.mkdir()
        worker = (TOP / ".build" / "test" if SANITIZED else BUILD) / "tbfs-extract"
        for source in (BUILD / "tbfs", worker, MEDIA / "no_exif.jpg"):
            shutil.copy(source, self.home)
        for path in (self.home, self.path):
            os.chown(path, UID, UID)

    def tbfs(self, *args, check=True, timeout=60):
        return run("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", self.home / "tbfs", *args,
                   check=check, timeout=timeout, env={
                       "PATH": os.environ["PATH"], "HOME": str(self.home), "LC_ALL": "C.UTF-8",
                       "TBFS_EXTRACT": str(self.home / "tbfs-extract")})

    def mount(self, *options):
        self.tbfs("mount", "-o", ",".join(("quiet_period=300ms", *options)), self.path)

    def is_mounted(self):
        """Root can't look into it, nor at it."""
        return any(line.split()[1] == str(self.path) for line in open("/proc/mounts"))

    def do(self, what, *args):
        return as_user(USER, what, *args)

    def state(self):
        return next((self.home / ".local/state/tbfs").iterdir())


@pytest.fixture
def private():
    p = Private()
    yield p
    if p.is_mounted():
        p.tbfs("umount", p.path)
    shutil.rmtree(p.home)


def work(root, photo):
    """What programs do, in one process of the user's."""
    keep = keep_path(root)
    write(keep / "a", noise(100_000, 1))
    os.rename(keep / "a", keep / "b")
    os.link(keep / "b", keep / "c")
    os.symlink("b", keep / "l")
    os.mkfifo(keep / "p")
    with open(keep / "m", "wb+") as f:
        f.truncate(8192)
        with mmap.mmap(f.fileno(), 8192) as m:
            m[5000:5006] = b"mapped"
    os.chmod(keep / "m", 0o600)
    os.setxattr(keep / "m", "user.x", b"1")
    shutil.copyfile(photo, keep / "photo.jpg")


def look(root):
    keep = keep_path(root)
    s = os.lstat(keep / "m")
    return (sorted(os.listdir(keep)), read(keep / "b"), os.stat(keep / "c").st_nlink, os.readlink(keep / "l"),
            read(keep / "m")[5000:5006], stat.S_IMODE(s.st_mode), s.st_uid, s.st_mtime_ns, os.getxattr(keep / "m", "user.x"))


def test_it_does_what_roots_does(private):
    private.mount()
    private.do(work, private.path, private.home / "no_exif.jpg")
    private.tbfs("sync", "--derived", private.path)
    before = private.do(look, private.path)
    assert before[0] == ["b", "c", "l", "m", "meta.json", "p", "photo.jpg", "thumbs"]
    assert before[1:8] == (noise(100_000, 1), 2, "b", b"mapped", 0o600, UID, before[7])
    assert private.do(os.listdir, private.path / "circles/1/keeps/1/thumbs/photo.jpg")
    private.tbfs("umount", private.path)
    private.mount()
    assert private.do(look, private.path) == before


def test_nobody_else_sees_it(private):
    private.mount()
    private.do(write, private.path / "f", b"mine")
    with raises(errno.EACCES):          # root neither
        os.listdir(private.path)
    private.do(read, private.path / "f")


def test_state_is_kept_at_home(private):
    private.mount()
    private.do(write, private.path / "f", b"x")
    private.tbfs("sync", private.path)
    assert stat.S_IMODE(private.state().stat().st_mode) == 0o700
    assert read(private.state() / "objects" / "f") == b"x"


def test_others_only_where_the_administrator_allows_it(private):
    if "user_allow_other" in (line.strip() for line in open("/etc/fuse.conf")):
        pytest.skip("/etc/fuse.conf of this machine has user_allow_other")
    r = private.tbfs("mount", "-o", "allow_other=yes", private.path, check=False)
    assert r.returncode != 0 and not private.is_mounted()
    assert "user_allow_other" in r.err and len(r.err.splitlines()) == 1, r.err


def test_a_dead_mount_is_mounted_over(private):
    private.mount()
    private.do(write, private.path / "f", noise(5000))
    pid = int(read(private.state() / "lock"))
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not alive(pid))
    private.mount()
    assert private.do(read, private.path / "f") == noise(5000)
