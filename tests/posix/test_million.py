# SPDX-License-Identifier: GPL-3.0-or-later
"""A million files in one tree: made, listed, counted, found again after a death; in bounded memory."""
import os
import threading

import pytest

from rig import read, run, write

FOLDERS, FILES = 1000, 1000


def resident(pid):
    """MB of memory of the daemon's own."""
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("RssAnon")) / 1024


def fill(top, folders):
    for n in folders:
        folder = os.open(top / f"{n:04}", os.O_RDONLY | os.O_DIRECTORY)
        for m in range(FILES):
            fd = os.open(f"f{m:04}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644, dir_fd=folder)
            os.write(fd, b"x" * (m % 3))
            os.close(fd)
        os.close(folder)


@pytest.mark.timeout(2400)
def test_a_million_files(new_mount):
    mount = new_mount(derived="off", quiet_period="1h", temp_name_delay="1h").start()
    top = mount.path / "top"
    top.mkdir()
    for n in range(FOLDERS):
        (top / f"{n:04}").mkdir()
    threads = [threading.Thread(target=fill, args=(top, range(n, FOLDERS, 4))) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    size = FOLDERS * sum(m % 3 for m in range(FILES))

    def check():
        listed = run("sh", "-c", f"find {top} -type f -printf '%s\\n' | sort -n | uniq -c", timeout=600).out.split()
        assert listed == ["334000", "0", "333000", "1", "333000", "2"]
        assert int(os.getxattr(top, "user.tbfs.rfiles")) == FOLDERS * FILES
        assert int(os.getxattr(top, "user.tbfs.rsize")) == size
        assert read(top / "0999" / "f0998") == b"x" * (998 % 3)
        # The kernel holds the inodes of what it listed, and we only what is open or worked on.
        assert resident(mount.pid) < 400, f"{resident(mount.pid):.0f} MB"
    check()
    mount.crash()
    check()
    os.rename(top / "0500", mount.path / "moved")
    os.unlink(mount.path / "moved" / "f0001")
    write(mount.path / "moved" / "new", b"12345")
    run("rm", "-r", top / "0000", timeout=300)
    assert int(os.getxattr(mount.path, "user.tbfs.rfiles")) == (FOLDERS - 1) * FILES
    # What was made is not worth storing: 999,000 uploads would follow.
    mount.destroy()
