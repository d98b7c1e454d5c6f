# SPDX-License-Identifier: GPL-3.0-or-later
"""Random programs on the mount and on a bare directory beside it: same values, same errors, same tree."""
import multiprocessing
import os
import shutil

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from shadow import NAMES, Program, picture

# Most calls meet something: each program begins with this tree.
PRELUDE = [("mkdir", ("b",)), ("mkdir", ("b", "b")), ("write", ("a",), os.O_CREAT, 0, b"abc" * 3000),
           ("write", ("b", "a"), os.O_CREAT, 4096, b"x" * 10_000), ("symlink", ("b", "a"), ("c",)), ("link", ("a",), ("b", "c")),
           ("write", ("b", "b", "a"), os.O_CREAT, 0, b"deep"), ("setxattr", ("a",), "x", b"1", 0)]
paths = st.one_of(st.sampled_from(NAMES).map(lambda name: (name,)),
                  st.tuples(st.just("b"), st.sampled_from(NAMES)),
                  st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(tuple))
offsets = st.sampled_from((0, 1, 100, 4095, 4096, 70_000))
lengths = st.sampled_from((0, 1, 5, 4096, 10_000, 100_000))
data = st.tuples(st.binary(min_size=1, max_size=3), lengths).map(lambda x: (x[0] * x[1])[:x[1]])
handles = st.integers(0, 2)
open_flags = st.sampled_from((0, os.O_CREAT, os.O_CREAT | os.O_EXCL, os.O_CREAT | os.O_TRUNC, os.O_APPEND,
                              os.O_CREAT | os.O_APPEND, os.O_NOFOLLOW, os.O_TRUNC))
hold_flags = st.sampled_from((os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_CREAT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
                              os.O_RDWR | os.O_APPEND))
xattr_names = st.sampled_from(("x", "y"))

operations = st.one_of(
    st.tuples(st.just("mkdir"), paths), st.tuples(st.just("mkdir"), paths), st.tuples(st.just("rmdir"), paths),
    st.tuples(st.just("unlink"), paths), st.tuples(st.just("rename"), paths, paths, st.sampled_from((0, 0, 1, 2, 3))),
    st.tuples(st.just("link"), paths, paths), st.tuples(st.just("symlink"), paths, paths),
    st.tuples(st.just("readlink"), paths), st.tuples(st.just("mkfifo"), paths), st.tuples(st.just("listdir"), paths),
    st.tuples(st.just("stat"), paths), st.tuples(st.just("lstat"), paths),
    st.tuples(st.just("chmod"), paths, st.sampled_from((0o600, 0o755, 0o4711, 0o2755, 0o1777, 0))),
    st.tuples(st.just("utime"), paths, st.sampled_from((0, 1, 1 << 31, 1 << 33))),
    st.tuples(st.just("setxattr"), paths, xattr_names, st.binary(max_size=20), st.sampled_from((0, 1, 2))),
    st.tuples(st.just("getxattr"), paths, xattr_names), st.tuples(st.just("removexattr"), paths, xattr_names),
    st.tuples(st.just("write"), paths, open_flags, offsets, data), st.tuples(st.just("write"), paths, open_flags, offsets, data),
    st.tuples(st.just("read"), paths, offsets, lengths), st.tuples(st.just("truncate"), paths, lengths),
    st.tuples(st.just("fallocate"), paths, st.sampled_from((0, 1, 3, 16, 17)), offsets, lengths),
    st.tuples(st.just("copy"), paths, paths, lengths), st.tuples(st.just("hold"), paths, handles, hold_flags),
    st.tuples(st.just("held_write"), handles, offsets, data), st.tuples(st.just("held_read"), handles, offsets, lengths),
    st.tuples(st.just("held_truncate"), handles, lengths), st.tuples(st.just("held_stat"), handles),
    st.tuples(st.just("release"), handles),
)
programs = st.lists(operations, min_size=1, max_size=80).map(lambda program: PRELUDE + program)


def execute(root, program):
    return Program(root).run(program)


def compare(program, there, bare, root, shadow):
    for n, (operation, is_, should) in enumerate(zip(program, there, bare)):
        assert is_ == should, f"call {n}, {operation}: {is_} instead of {should}"
    assert picture(root) == picture(shadow)


def fresh(path):
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    return path


@pytest.mark.timeout(1500)
def test_one_program(mount):
    """Many short ones, shrunk to the calls that matter when one fails."""
    bare = mount.base / "bare"

    @settings(max_examples=1500, deadline=None, database=None, print_blob=True, suppress_health_check=list(HealthCheck))
    @given(programs)
    def run(program):
        root, shadow = fresh(mount.path / "p"), fresh(bare)
        compare(program, execute(root, program), execute(shadow, program), root, shadow)

    run()


@pytest.mark.timeout(1500)
def test_eight_programs_at_a_time(mount):
    """Each in a directory of its own; beside each other they must not disturb."""
    bare = mount.base / "bare"
    with multiprocessing.get_context("fork").Pool(8) as pool:

        @settings(max_examples=40, deadline=None, database=None, print_blob=True, suppress_health_check=list(HealthCheck))
        @given(st.lists(programs, min_size=8, max_size=8))
        def run(eight):
            roots = [fresh(mount.path / f"p{n}") for n in range(8)]
            there = pool.starmap(execute, zip(roots, eight))
            for n, program in enumerate(eight):
                note(f"program {n}")
                shadow = fresh(bare / f"p{n}")
                compare(program, there[n], execute(shadow, program), roots[n], shadow)

        run()
    mount.sync()
