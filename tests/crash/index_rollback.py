#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""The index rolled back to earlier frames of its WAL, beside the newest staging tree.

A power cut may drop what SQLite had not synced, while the staged files are as new
as the disk made them.  So: note the end of the WAL after each fsync, kill the
daemon, and for each commit mount a copy whose WAL ends with its last frame (one that ends with
another frame is taken for one that ends with the commit before):
  - what was promised before that frame is there, whole, under its name
  - what was promised later is there too, or its bytes are in lost+found
  - what was unlinked before stays away
  - nothing reads as bytes that were never in that file

    tests/crash/index_rollback.py [--every N]
"""
import argparse
import os
import shutil
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))

import rig  # noqa: E402

WAL_HEADER, FRAME_HEADER = 32, 24       # sqlite.org/fileformat2.html#the_write_ahead_log


class Wal:
    def __init__(self, path):
        self.path = path

    def header(self):
        try:
            with open(self.path, "rb") as f:
                h = f.read(WAL_HEADER)
            return struct.unpack(">8I", h) if len(h) == WAL_HEADER else None
        except FileNotFoundError:
            return None

    def commits(self):
        """(salts, numbers of the frames that end a commit): all that belong to these salts."""
        h = self.header()
        if h is None:
            return None, []
        page, salts = h[2], h[4:6]
        ends, n = [], 0
        with open(self.path, "rb") as f:
            f.seek(WAL_HEADER)
            while len(head := f.read(FRAME_HEADER)) == FRAME_HEADER:
                if struct.unpack(">2I", head[8:16]) != salts:
                    break               # of an earlier round through the file
                f.seek(page, os.SEEK_CUR)
                n += 1
                if struct.unpack(">I", head[4:8])[0] != 0:
                    ends.append(n)
        return salts, ends

    def position(self):
        """(salts, end of the last commit): a place in the life of the index."""
        salts, ends = self.commits()
        return salts, ends[-1] if ends else 0

    def truncate(self, frames):
        page = self.header()[2]
        os.truncate(self.path, WAL_HEADER + frames * (FRAME_HEADER + page))


class Promise:
    """One acknowledged, synced step: at this place of the WAL, `name` holds `data` (None: gone)."""

    def __init__(self, wal, name, data):
        self.salts, self.frames = wal.position()
        self.name, self.data = name, data


def put(path, data, name=None):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
    os.write(fd, data)
    os.fsync(fd)
    os.close(fd)


def sync_folder(path):
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(fd)
    os.close(fd)


def work(mount, steps):
    """Creations, replacements, renames and removals, each synced; some unsynced noise between."""
    root, wal = mount.path, Wal(mount.state_dir / "index.db-wal")
    promises = []
    folder = root / "d"
    folder.mkdir()
    sync_folder(root)
    for n in range(steps):
        data = rig.noise(700 + 131 * n, f"a{n}")
        put(folder / f"a{n}", data)
        promises.append(Promise(wal, f"d/a{n}", data))
        rig.write(folder / f"noise{n}", rig.noise(500, f"n{n}"))
        if n % 3 == 0:
            data = rig.noise(900 + n, f"b{n}")
            put(folder / "new", data)
            os.rename(folder / "new", folder / "b")
            sync_folder(folder)
            promises.append(Promise(wal, "d/b", data))
        if n % 4 == 1:
            put(folder / f"c{n}", b"c" * 999)
            promises.append(Promise(wal, f"d/c{n}", b"c" * 999))
            os.unlink(folder / f"c{n}")
            sync_folder(folder)
            promises.append(Promise(wal, f"d/c{n}", None))
        if n % 5 == 2:
            data = rig.noise(1200 + n, f"e{n}")
            put(folder / f"e{n}", data)
            sub = folder / f"sub{n}"
            sub.mkdir()
            os.rename(folder / f"e{n}", sub / "e")
            sync_folder(folder)
            sync_folder(sub)
            promises.append(Promise(wal, f"d/sub{n}/e", data))
        if n % 6 == 4:
            mount.sync()                # some are stored, their objects known to the index
    return promises


def list_files(root):
    root = os.fsencode(root)
    return [os.path.relpath(os.path.join(folder, name), root)
            for folder, _, files in os.walk(root) for name in files]


def check(mount, promises, salts, frames):
    """Complaints about a tree whose index ends at this frame."""
    problems = []
    tree = {}
    for name in list_files(mount.path):
        try:
            tree[name] = rig.read(os.path.join(os.fsencode(mount.path), name))
        except OSError as e:
            tree[name] = e                  # the right bytes or EIO, never wrong ones
    everywhere = {data for data in tree.values() if isinstance(data, bytes)}
    ever = {}
    for p in promises:
        ever.setdefault(p.name, []).append(p)
    for name, history in ever.items():
        known = [p for p in history if p.salts != salts or p.frames <= frames]
        have = tree.get(name.encode())
        path = mount.path / name
        torn = have is not None and "torn" in mount.state(path)
        versions = [p.data for p in history]
        if isinstance(have, OSError):
            # Allowed where a later step, synced too, had taken these bytes away.
            if known and len(history) == history.index(known[-1]) + 1:
                problems.append(f"{name}: promised at frame {known[-1].frames}: {have}")
            continue
        if have is not None and have not in versions and not torn:
            problems.append(f"{name}: {len(have)} bytes that it never had"
                            + (", all zero" if have and not any(have) else ""))
        if known:
            last = history.index(known[-1])
            allowed = versions[last:]
            if have not in allowed and not (torn and len(history) > last + 1):
                problems.append(f"{name}: promised at frame {known[-1].frames}, "
                                + ("lost" if have is None else "came back" if versions[last] is None else "wrong"))
        elif history[-1].data is not None and history[-1].data not in everywhere:
            problems.append(f"{name}: promised later, at {history[-1].frames}: its bytes are nowhere")
    return problems


def roll_back(mount, promises, every=1, tell=None):
    """The mount is dead.  Try each boundary on a copy, which takes its place: a store knows its
    address.  Returns complaints and how many were tried."""
    salts, ends = Wal(mount.state_dir / "index.db-wal").commits()
    end, problems, tried = ends[-1], [], 0
    mount.destroy()
    base, original = mount.base, mount.base.with_name(f"{mount.base.name}.original")
    os.rename(base, original)
    for frames in ends[::-1][::every]:
        rig.run("cp", "-a", "--reflink=auto", original, base)
        (base / "state" / "index.db-shm").unlink(missing_ok=True)
        Wal(base / "state" / "index.db-wal").truncate(frames)
        copy = rig.Mount(mount.kind, base=base, derived="off", snapshot_interval="0")
        try:
            copy.start()
            found = check(copy, promises, salts, frames)
            copy.kill()
        except (AssertionError, OSError) as e:
            found = [f"no mount or no answer: {str(e)[:1500]}"]
        finally:
            copy.destroy()
        shutil.rmtree(base, ignore_errors=True)
        tried += 1
        problems += [f"frame {frames} of {end}: {p}" for p in found]
        if tell:
            tell(f"frame {frames} of {end}: {len(found)} bad")
            for p in found:
                tell("   " + p)
        if len(problems) > 40:
            break
    os.rename(original, base)
    return problems, tried


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--every", type=int, default=1)
    p.add_argument("--steps", type=int, default=24)
    args = p.parse_args()
    mount = rig.Mount(derived="off", snapshot_interval="0").start()
    try:
        promises = work(mount, args.steps)
        mount.kill()
        problems, tried = roll_back(mount, promises, args.every, print)
    finally:
        mount.destroy()
    print(f"{len(promises)} promises, {tried} boundaries, {len(problems)} bad")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
