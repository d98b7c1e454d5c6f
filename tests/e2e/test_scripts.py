# SPDX-License-Identifier: GPL-3.0-or-later
"""The tests' own tools can fail."""
import re

import pytest

from rig import BUILD, TOP, run


def test_layers_hold_and_a_breach_is_seen(tmp_path):
    run(TOP / "tests" / "check-layers", TOP / "src")
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "a.c").write_text(
        '#include "index/index.h"\n#include "fs/fs.h"\n#include <sqlite3.h>\n#include <stdio.h>\n')
    r = run(TOP / "tests" / "check-layers", tmp_path, check=False)
    assert r.returncode != 0
    assert re.findall(r"a\.c:(\d)", r.out) == ["2", "3"]


def tally(*args):
    return run(TOP / "scripts" / "tally", *args, check=False, env={"PATH": "/usr/bin:/bin"})


def test_a_program_that_dies_is_a_failure(tmp_path):
    log = tmp_path / "log"
    log.write_text("1..3\nok 1 - one\nok 2 - two\n")
    assert tally("tap", "p", log, "139").out.splitlines() == \
        ["pass p: one", "pass p: two", "fail p: ran 2 of 3 tests"]
    log.write_text("1..1\nok 1 - one\n")
    assert tally("tap", "p", log, "1").out.splitlines()[-1] == "fail p: ended with status 1"
    log.write_text("")
    assert tally("tap", "p", log, "1").out == "fail p\n"


def test_sums_end_with_one_line(tmp_path):
    (tmp_path / "a").write_text("pass x\nfail y\nskip z (no reason)\n")
    r = tally("sum", tmp_path / "a")
    assert r.returncode == 1 and r.out.splitlines()[-1] == "1 passed, 1 failed, 1 skipped"
    assert "skipped: a: z (no reason)" in r.out
    (tmp_path / "a").write_text("pass x\n")
    assert tally("sum", tmp_path / "a").returncode == 0
    (tmp_path / "a").write_text("")
    assert tally("sum", tmp_path / "a").returncode == 1, "no test is no success"
    (tmp_path / "a").write_text("pass x\nskip z\n")
    r = run(TOP / "scripts" / "tally", "sum", tmp_path / "a", check=False, env={"PATH": "/usr/bin:/bin", "CI": "true"})
    assert r.returncode == 1


@pytest.mark.timeout(120)
def test_the_release_holds_every_source(tmp_path):
    """A file that no Makefile.inc names builds here and is missing from `make dist`."""
    run("make", "-C", BUILD, "--no-print-directory", "distdir", f"distdir={tmp_path}/dist", timeout=100)
    here = {p.relative_to(TOP) for folder in ("src", "man", "contrib", "tests", "bench") for p in (TOP / folder).rglob("*")
            if p.is_file() and "__pycache__" not in p.parts}
    assert {str(p) for p in here if not (tmp_path / "dist" / p).exists()} == set()


def test_every_promise_names_tests_that_exist():
    text = (TOP / "tests" / "PROMISES.md").read_text()
    source = "".join(p.read_text() for folder in ("e2e", "posix", "crash") for p in (TOP / "tests" / folder).glob("*.py"))
    programs = [p for folder in ("unit", "contract") for p in (TOP / "tests" / folder).glob("*.c")]
    units = {p.stem for p in programs} | {"test_crash"}
    units |= {name for p in programs for name in re.findall(r"^(test_\w+)\(void", p.read_text(), re.M)}
    named = set(re.findall(r"\btest_\w+", text))
    assert len(named) > 80
    missing = [n for n in named if n not in units and f"def {n}" not in source]
    assert missing == []
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith("| #"):
            assert line.rstrip("| ").count("|") >= 2, f"nothing holds: {line}"
