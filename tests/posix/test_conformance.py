# SPDX-License-Identifier: GPL-3.0-or-later
"""Others' suites on the mount; what the bare directory beside it does is what is expected."""
import os
import re

import pytest

from rig import TOP, run

USERS = '[["nobody", "nogroup"], ["daemon", "daemon"]]'


@pytest.fixture(scope="module")
def suite():
    """suite(name) → path of a program that scripts/suites builds."""
    def find(name):
        return run(TOP / "scripts" / "suites", name, timeout=1500).out.strip()
    return find


def pjdfstest(program, folder, tmp_path):
    """Test → ok, skipped or FAILED."""
    config = tmp_path / "pjdfstest.toml"
    config.write_text("[features]\nposix_fallocate = {}\nrename_ctime = {}\nutimensat = {}\nutime_now = {}\n"
                      "stat_st_birthtime = {}\n[settings]\nnaptime = 0.01\nallow_remount = false\n"
                      f"[dummy_auth]\nentries = {USERS}\n")
    r = run(program, "-c", config, "-p", folder, check=False, timeout=600, cwd=folder)
    return dict(re.findall(r"^(\S+) +(ok|skipped|FAILED)", re.sub(r"\x1b\[[0-9;]*m", "", r.out), re.M))


@pytest.mark.timeout(1800)
def test_pjdfstest(suite, mount, tmp_path):
    program = suite("pjdfstest")
    bare = mount.base / "bare"
    found = {}
    for folder in (bare, mount.path / "t"):
        folder.mkdir()
        folder.chmod(0o777)
        found[folder] = pjdfstest(program, folder, tmp_path)
    expected, got = found.values()
    assert len(expected) > 350
    # pathconf(_PC_LINK_MAX) is the C library's guess for FUSE, which is too large to be tried.
    got.pop("link::link_count_max", None)
    assert {n: r for n, r in got.items() if r != expected.get(n)} == {}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("mapped", [True, False], ids=["mmap", "no-mmap"])
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_fsx(suite, mount, tmp_path, seed, mapped):
    config = tmp_path / "fsx.toml"
    maps = 1.0 if mapped else 0.0
    config.write_text(f"[weights]\nmapread = {maps}\nmapwrite = {maps}\nread = 2.0\nwrite = 2.0\ntruncate = 1.0\n"
                      "close_open = 0.5\nfsync = 0.02\nfdatasync = 0.02\nposix_fallocate = 0.5\npunch_hole = 0.5\n"
                      "copy_file_range = 0.5\n")
    r = run(suite("fsx"), "-N", "100000", "-S", str(seed), "-f", config, "-P", tmp_path, mount.path / "x", check=False,
            timeout=800)
    assert r.returncode == 0, (r.out + r.err)[-3000:]
    size = os.stat(mount.path / "x").st_size
    mount.sync()
    assert len(mount.objects()[b"x"]) == size
