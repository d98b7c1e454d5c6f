#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""The staging disk loses power under load, again and again.

Half of the workers fsync each file and each directory that they change: all of
that must be there afterwards, whole.  The other half never do: what they wrote
may be gone or torn, but then it says so, and it never reaches the backend.

    tests/crash/power_cut.py [--rounds N] [--seed N] [--disk ext4|xfs]
"""
import argparse
import os
import random
import shutil
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))

import rig  # noqa: E402
from kill_loop import Result  # noqa: E402
from model import Load, pause  # noqa: E402


class PowerLoad(Load):
    """In doubt means here: any bytes, or none.  Odd workers do not fsync and are not promised anything."""

    def verify_one(self, n, pending):
        if pending is None or pending["op"] not in ("write", "replace", "append"):
            return super().verify_one(n, pending)
        from model import compare, observe
        found, problems = observe(self.folder(n))
        self.checked += len(found.files)
        candidates = [self.models[n].copy(), self.models[n].copy().apply(pending)]
        for model in candidates:
            # None: whatever is there is accepted, and its absence too.
            for name in {pending["a"], pending.get("b", pending["a"])}:
                if pending["op"] == "replace" and name == pending["a"]:
                    continue            # the rename is atomic: the old file or the new one
                if name in found.files:
                    model.files[name] = found.files[name]
                else:
                    model.files.pop(name, None)
        results = [compare(m, found) for m in candidates]
        best = min(range(2), key=lambda i: len(results[i]))
        self.models[n] = candidates[best] if not results[best] else found
        return problems + [f"w{n}/{w} (in doubt: {pending['op']} {pending['a']})" for w in results[best]]


def cut(disk):
    """What was not synced is gone; everything on it fails from here on."""
    rig.run("xfs_io", "-x", "-c", "shutdown", disk.path)


def power_up(mount, disk):
    mount.kill()
    mount.detach()
    disk.umount()
    disk.mount()
    mount.start()


def cut_rounds(mount, disk, rounds, seed, tell=None):
    rng = random.Random(seed)
    root = mount.path / "circles" / "1" / "keeps"
    load = PowerLoad(str(root / "synced"), str(mount.base / "journals"), 2, sync=True, power=True)
    os.makedirs(load.root, exist_ok=True)
    fd = os.open(load.root, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    result = Result()
    for n in range(rounds):
        loose = Load(str(root / f"loose-{n}"), str(mount.base / "journals-loose"), 2, power=True)
        os.makedirs(loose.root, exist_ok=True)
        load.start(f"{seed}.{n}")
        loose.start(f"{seed}.{n}.loose")
        rig.wait_until(lambda: load.started(4), 30)
        pause(rng, 0.05, 0.6)
        cut(disk)
        # It may have failed already; a daemon without its disk must not hang either.
        stuck = load.join() + loose.join()
        began = time.monotonic()
        power_up(mount, disk)
        result.slowest = max(result.slowest, time.monotonic() - began)
        problems = stuck + load.verify()
        problems += loose_problems(mount, loose)
        if n % 5 == 4:
            r = mount.sync(check=False)     # not 0 while torn files are there: they are not stored
            problems += ["after sync: " + p for p in load.verify()] + backend_problems(mount, r)
        shutil.rmtree(loose.root, ignore_errors=True)
        result.problems += [f"round {n}: {p}" for p in problems]
        result.rounds, result.acknowledged, result.checked = n + 1, load.acknowledged, load.checked
        if tell:
            tell(f"round {n}: {result}")
            for p in problems:
                tell("   " + p)
            if problems:
                tell(mount.log_tail(12))
        if len(result.problems) > 30:
            break
    return result


def versions(load):
    """Digests of every version that the loose workers ever had in a file, also in doubt."""
    import json
    seen = {rig.hashlib.sha256(b"").hexdigest()}
    for n in range(load.workers):
        try:
            with open(load.journal(n)) as f:
                for line in f:
                    seen.add(json.loads(line).get("begin", {}).get("sha"))
        except FileNotFoundError:
            pass
    return seen


def loose_problems(mount, load):
    """Never fsynced: absent is fine, torn is fine when it says so, anything else is a lie."""
    known, problems = versions(load), []
    for base, _, files in os.walk(load.root):
        for name in files:
            path = os.path.join(base, name)
            try:
                state = mount.state(path)
                if "torn" not in state and rig.sha256(path) not in known:
                    problems.append(f"{path}: state {state}, but bytes that were never written so")
            except OSError as e:
                if e.errno != 5:
                    problems.append(f"{path}: {e}")
    return problems


def backend_problems(mount, sync):
    """Objects hold what the tree holds.  Torn files are stored only where nothing was before, which
    their state tells; that it isn't done over a stored one is test_power_cut_right_after_sync's."""
    problems, objects = [], mount.objects()
    for name, data in mount.files().items():
        path = os.path.join(os.fsencode(mount.path), name)
        state = mount.state(path)
        if "torn" in state and "stored" not in state:
            if objects.get(name) == data and data:
                problems.append(f"backend: {name!r} was uploaded torn")
        elif objects.get(name) != data:
            problems.append(f"backend: {name!r} differs or is missing (sync: {sync.returncode} {sync.err.strip()[-200:]})")
    return problems


OPTIONS = {"derived": "off", "reserve": "4M"}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=20)
    p.add_argument("--seed", type=int, default=int(time.time()))
    p.add_argument("--disk", default="ext4", choices=["ext4", "xfs"])
    p.add_argument("--kind", default="passthrough", choices=["passthrough", "daemon"])
    args = p.parse_args()
    print(f"seed {args.seed}, in {rig.ROOT}")
    disk = rig.LoopDisk(2000, args.disk)
    mount = rig.Mount(args.kind, state_dir=disk.path / "state", **OPTIONS).start()
    try:
        result = cut_rounds(mount, disk, args.rounds, args.seed, print)
        print(result)
    finally:
        mount.destroy()
        disk.destroy()
    return 1 if result.problems else 0


if __name__ == "__main__":
    sys.exit(main())
