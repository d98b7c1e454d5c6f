#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 of the daemon at random moments under load, again and again.

After each: mount again (at most 2 s), and every file whose close, rename or
unlink had returned is there, whole, under its one name; nothing came back.  At the
end, after `tbfs sync`, the backend holds exactly the same tree.

    tests/crash/kill_loop.py [--rounds N] [--seed N] [--kind daemon] [--backend minio] [--refusing]
"""
import argparse
import os
import random
import shutil
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))

import rig  # noqa: E402
from model import Load, pause  # noqa: E402

BACK_WITHIN = 2.0       # seconds from the mount command to its return


class Result:
    def __init__(self):
        self.rounds = self.acknowledged = self.checked = 0
        self.problems, self.slowest = [], 0.0

    def __str__(self):
        return (f"{self.rounds} kills, {self.acknowledged} acknowledged operations, {self.checked} files checked, "
                f"{len(self.problems)} bad, slowest return {self.slowest:.2f} s")


def kill_rounds(mount, rounds, seed, tell=None, workers=4, every_sync=10):
    """Run the loop on a started mount and leave it mounted."""
    rng = random.Random(seed)
    load = Load(str(mount.path / "circles" / "1" / "keeps"), str(mount.base / "journals"), workers)
    os.makedirs(load.root, exist_ok=True)
    result = Result()
    for n in range(rounds):
        load.start(f"{seed}.{n}")
        rig.wait_until(load.started, 20)
        pause(rng, 0.0, 0.35)
        mount.kill()
        stuck = load.join()
        began = time.monotonic()
        mount.start()
        took = time.monotonic() - began
        result.slowest = max(result.slowest, took)
        problems = stuck + load.verify()
        if took > BACK_WITHIN * rig.PATIENCE:
            problems.append(f"slow: back after {took:.1f} s")
        # Now and then at rest too: what a first look found must still be so after the uploads.
        if n % every_sync == every_sync - 1 and "fault" not in mount.options:
            problems += sync_all(mount, load)
            problems += ["after sync: " + p for p in load.verify()]
            problems += compare_backend(mount)
        result.problems += [f"round {n}: {p}" for p in problems]
        result.rounds, result.acknowledged, result.checked = n + 1, load.acknowledged, load.checked
        if tell:
            tell(f"round {n}: {result}")
            for p in problems:
                tell("   " + p)
        if len(result.problems) > 30:
            break
    return result, load


def compare_backend(mount):
    """Does the backend hold exactly the files of the tree?  Derived files too."""
    tree, objects = mount.files(), {}

    def equal():
        """the backend equals the tree"""
        objects.clear()
        objects.update(mount.objects())
        return objects == tree
    try:
        rig.wait_until(equal, 10, 0.2)      # removals and moves follow the sync
        return []
    except AssertionError:
        return ([f"backend: {k!r} missing" for k in tree.keys() - objects.keys()]
                + [f"backend: {k!r} resurrected" for k in objects.keys() - tree.keys()]
                + [f"backend: {k!r} differs" for k in tree.keys() & objects.keys() if tree[k] != objects[k]])


def sync_all(mount, load):
    """`tbfs sync` to the end.  A file whose change was in doubt may be torn: it is stored when
    told to.  No other file may be."""
    r = mount.sync(timeout=90, check=False)
    if r.returncode == 0:
        return []
    torn = [str(p) for p in mount.status()["stuck"]["paths"]]
    wrong = [f"stuck or torn without a reason: {t}" for t in torn
             if not any(t.endswith(os.path.basename(d)) for d in load.doubtful)]
    mount.tbfs("retry", mount.path)
    r = mount.sync(timeout=90, check=False)
    if r.returncode != 0:
        wrong.append(f"sync: exit {r.returncode} {r.err}\n{mount.log_tail()}")
    return wrong


def settle(mount, load, result):
    result.problems += sync_all(mount, load)
    result.problems += ["after sync: " + p for p in load.verify()]
    result.problems += compare_backend(mount)


def refusing_then_well(mount, rounds, seed, tell=None):
    """The same while the backend takes nothing; then it is well again, and all of it arrives."""
    mount.remount(fault="put:every=EAGAIN")
    result, load = kill_rounds(mount, rounds, seed, tell)
    mount.kill()
    mount.start(fault=None)
    settle(mount, load, result)
    return result


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=50)
    p.add_argument("--seed", type=int, default=int(time.time()))
    p.add_argument("--kind", default="passthrough", choices=["passthrough", "daemon"])
    p.add_argument("--backend", default="local", choices=["local", "minio"])
    p.add_argument("--refusing", action="store_true")
    p.add_argument("--derived", default="off")
    args = p.parse_args()
    print(f"seed {args.seed}, in {rig.ROOT}")
    minio = rig.Minio() if args.backend == "minio" else None
    mount = rig.Mount(args.kind, args.backend, minio=minio, derived=args.derived).start()
    try:
        if args.refusing:
            result = refusing_then_well(mount, args.rounds, args.seed, print)
        else:
            result, load = kill_rounds(mount, args.rounds, args.seed, print)
            settle(mount, load, result)
        print(result)
        print("\n".join(result.problems))
    finally:
        mount.destroy()
        if minio:
            minio.stop()
    if not result.problems:
        shutil.rmtree(rig.ROOT, ignore_errors=True)
    return 1 if result.problems else 0


if __name__ == "__main__":
    sys.exit(main())
