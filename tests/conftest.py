# SPDX-License-Identifier: GPL-3.0-or-later
import contextlib
import itertools
import os
import shutil
import signal
import tempfile
import threading
from pathlib import Path

import pytest

import rig


def pytest_addoption(parser):
    parser.addoption("--kinds", default="passthrough,daemon",
                     help="who moves the bytes: passthrough, daemon, bare (a plain directory)")
    parser.addoption("--backends", default="local,minio", help="where objects go: local, minio")
    parser.addoption("--seconds", type=int, default=10, help="how long the races last")
    parser.addoption("--rounds", type=int, default=None, help="rounds of each crash loop")


def pytest_generate_tests(metafunc):
    """A test that takes `kind` runs once per kind, one that takes `backend` once per backend."""
    for name in ("kind", "backend"):
        if name in metafunc.fixturenames and \
                not any(name in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")):
            values = metafunc.config.getoption(f"--{name}s").split(",")
            metafunc.parametrize(name, values, scope="module")


def pytest_collection_modifyitems(config, items):
    """Against a plain directory only what takes `kind` makes sense."""
    if config.getoption("--kinds") == "bare":
        items[:] = [i for i in items if "kind" in i.fixturenames]


def pytest_configure(config):
    if not rig.TBFS.exists() and config.getoption("--kinds") != "bare":
        raise pytest.UsageError(f"{rig.TBFS} is not built (scripts/test builds it; TBFS_BUILD names the tree)")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Show the log of every mount that lives while a test fails."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for mount in rig.Mount.live:
            report.sections.append((f"{mount.path}", mount.log_tail()))


@pytest.fixture(autouse=True)
def watchdog(request):
    """A process that waits inside a dead file system can't be interrupted: after the test's
    time and some more, the daemons are killed, which ends every wait with ENOTCONN."""
    marker = request.node.get_closest_marker("timeout")
    limit = marker.args[0] if marker else float(request.config.getini("timeout"))

    def end():
        for mount in [m for m in rig.Mount.live if m.hangs()]:
            with contextlib.suppress(OSError, TypeError):
                os.kill(mount.pid, signal.SIGKILL)
            mount.detach()

    timer = threading.Timer(limit + 10, end)
    timer.daemon = True
    timer.start()
    yield
    timer.cancel()


@pytest.fixture(scope="session")
def minio():
    try:
        server = rig.Minio()
    except FileNotFoundError as e:
        pytest.skip(str(e))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def shared(request, kind):
    """One mount on the local backend for all tests of a file: those that only use it."""
    mount = rig.Mount(kind).start()
    yield mount
    mount.stop()
    shutil.rmtree(mount.base, ignore_errors=True)


_number = itertools.count(1)


@pytest.fixture
def tree(shared):
    """A fresh directory in the shared mount, open to all."""
    path = shared.path / f"t{next(_number)}"
    path.mkdir()
    path.chmod(0o777)
    return path


@pytest.fixture
def bare():
    """A directory beside, on the disk that the mounts stage on, open to all."""
    path = Path(tempfile.mkdtemp(prefix="bare.", dir=rig.ROOT))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def new_mount(request):
    """Make mounts: new_mount(kind, backend, **options) → Mount, not started."""
    made = []

    def make(kind="passthrough", backend="local", **options):
        server = request.getfixturevalue("minio") if backend == "minio" else None
        made.append(rig.Mount(kind, backend, minio=server, **options))
        return made[-1]

    yield make
    try:
        for mount in made:
            mount.stop()
    finally:
        for mount in made:
            mount.destroy()
            shutil.rmtree(mount.base, ignore_errors=True)


@pytest.fixture
def mount(new_mount, kind):
    """A mount of its own, local backend, started."""
    return new_mount(kind).start()


@pytest.fixture
def stored(new_mount, backend):
    """A mount of its own on each backend, started."""
    return new_mount("passthrough", backend).start()


@pytest.fixture
def disk():
    """Make small disks: disk(megabytes, kind) → LoopDisk."""
    made = []

    def make(*args, **options):
        try:
            made.append(rig.LoopDisk(*args, **options))
        except (AssertionError, FileNotFoundError) as e:
            if "loop" in str(e):
                pytest.skip(f"no loop devices here: {e}")
            raise
        return made[-1]

    yield make
    for one in made:
        one.destroy()
