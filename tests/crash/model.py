# SPDX-License-Identifier: GPL-3.0-or-later
"""What several writers did to a tree, and what must therefore be found in it.

Each worker owns one directory and keeps a journal outside the mount: one line
before each operation and one after it returned.  So for each worker at most one
operation has an unknown result; everything before it is a promise.
"""
import hashlib
import json
import multiprocessing
import os
import random
import time

import rig


def digest(data):
    return hashlib.sha256(data).hexdigest()


class Model:
    """A worker's directory as the journal tells it: relative path → digest; directories."""

    def __init__(self):
        self.files, self.folders = {}, {""}

    def copy(self):
        other = Model()
        other.files, other.folders = dict(self.files), set(self.folders)
        return other

    def apply(self, op):
        kind, a, b = op["op"], op.get("a"), op.get("b")
        if kind in ("write", "replace", "append"):
            self.files[a] = op["sha"]
        elif kind == "unlink":
            del self.files[a]
        elif kind == "mkdir":
            self.folders.add(a)
        elif kind == "rmdir":
            self.folders.discard(a)
        elif kind == "rename":
            self.files[b] = self.files.pop(a)
        elif kind == "swap":
            self.files[a], self.files[b] = self.files[b], self.files[a]
        elif kind == "link":
            self.files[b] = self.files[a]
        elif kind == "move":
            self.folders = {b + f[len(a):] if f == a or f.startswith(a + "/") else f for f in self.folders}
            self.files = {b + f[len(a):] if f.startswith(a + "/") else f: d for f, d in self.files.items()}
        return self


def data_of(op):
    return rig.noise(op["size"], op["seed"])


class ShortWrite(OSError):
    pass


class Worker:
    """Does random operations until it is told to stop or one fails."""

    def __init__(self, root, journal, model, seed, sync=False, power=False):
        self.root, self.model, self.sync, self.power = root, model, sync, power
        self.random = random.Random(seed)
        self.seed = seed
        self.number = 0
        self.journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def note(self, **line):
        os.write(self.journal, json.dumps(line).encode() + b"\n")

    def choose(self):
        r, m = self.random, self.model
        self.number += 1
        files, folders = sorted(m.files), sorted(m.folders)
        fresh = f"{r.choice(folders)}/{r.choice('abc')}-{self.seed}-{self.number}.jpg".lstrip("/")
        kind = r.choices(["write", "rewrite", "replace", "append", "rename", "over", "swap", "unlink", "mkdir",
                          "move", "rmdir"], [28, 8, 14, 6, 12, 6, 4, 12, 4, 3, 2])[0]
        size = r.choice([0, 1, r.randrange(1, 8000), r.randrange(1, 8000), r.randrange(1, 60_000),
                         r.randrange(1, 60_000), r.randrange(60_000, 400_000)])
        op = {"op": "write", "a": fresh, "size": size, "seed": f"{self.seed}.{self.number}"}
        if kind == "rewrite" and files:
            op["a"] = r.choice(files)
        elif kind == "replace":
            op |= {"op": "replace", "b": f"new-{self.seed}-{self.number}.jpg"}
            if files and r.random() < 0.7:
                op["a"] = r.choice(files)
        elif kind == "append" and files:
            op |= {"op": "append", "a": r.choice(files), "size": r.randrange(1, 5000)}
        elif kind == "rename" and files:
            op = {"op": "rename", "a": r.choice(files), "b": fresh}
        elif kind in ("over", "swap") and len(files) > 1:
            a, b = r.sample(files, 2)
            op = {"op": "swap" if kind == "swap" else "rename", "a": a, "b": b}
        elif kind == "unlink" and files:
            op = {"op": "unlink", "a": r.choice(files)}
        elif kind == "mkdir" and len(folders) < 12:
            op = {"op": "mkdir", "a": f"{r.choice([f for f in folders if f.count('/') < 2])}/d{self.seed}-{self.number}".lstrip("/")}
        elif kind == "move" and len(folders) > 1:
            op = {"op": "move", "a": r.choice(folders[1:]), "b": f"m{self.seed}-{self.number}"}
        elif kind == "rmdir" and len(folders) > 1:
            empty = [f for f in folders[1:] if not any(x.startswith(f + "/") for x in [*files, *folders])]
            if empty:
                op = {"op": "rmdir", "a": r.choice(empty)}
        return op

    def path(self, name):
        return os.path.join(self.root, name)

    def put(self, path, data, flags):
        fd = os.open(path, os.O_WRONLY | flags, 0o644)
        try:
            view, piece = memoryview(data), self.random.choice([4096, 65536, 1 << 20])
            while view:
                n = os.write(fd, view[:piece])
                if n != min(piece, len(view)):
                    raise ShortWrite(5, "a short write")
                view = view[n:]
            if self.sync:
                os.fsync(fd)
        except BaseException:
            try:
                os.close(fd)
            except OSError:
                pass
            raise
        os.close(fd)            # an error here means: not acknowledged

    def do(self, op):
        kind, a, b = op["op"], self.path(op["a"]), self.path(op.get("b", ""))
        if kind == "write":
            self.put(a, data_of(op), os.O_CREAT | os.O_TRUNC)
        elif kind == "replace":
            self.put(b, data_of(op), os.O_CREAT | os.O_EXCL)
            os.rename(b, a)
        elif kind == "append":
            self.put(a, data_of(op), os.O_APPEND)
        elif kind == "rename" or kind == "move":
            os.rename(a, b)
        elif kind == "swap":
            import syscalls
            syscalls.renameat2(a, b, syscalls.RENAME_EXCHANGE)
        elif kind == "unlink":
            os.unlink(a)
        elif kind == "mkdir":
            os.mkdir(a)
        elif kind == "rmdir":
            os.rmdir(a)
        if self.sync:
            for name in {op["a"], op.get("b", op["a"])}:
                fd = os.open(os.path.dirname(self.path(name)), os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)

    def run(self, stop):
        os.makedirs(self.root, exist_ok=True)
        contents = {}
        while not stop.is_set():
            op = self.choose()
            if op["op"] in ("write", "replace"):
                op["sha"] = digest(data_of(op))
            elif op["op"] == "append":
                old = contents.get(op["a"])
                if old is None or digest(old) != self.model.files[op["a"]]:
                    with open(self.path(op["a"]), "rb") as f:
                        old = f.read()
                    if digest(old) != self.model.files[op["a"]]:
                        self.note(bad=f"{op['a']}: reads bytes that were never acknowledged")
                        return
                op["sha"] = digest(old + data_of(op))
                op["old"] = len(old)
            self.note(begin=op)
            try:
                self.do(op)
            except ShortWrite:
                if not self.power:      # a disk that goes may take a part; nothing else may
                    self.note(bad=f"{op['a']}: a short write")
                return
            except OSError as e:
                self.note(error=e.errno, text=str(e))
                return
            self.note(done=self.number)
            self.model.apply(op)


class Load:
    """Several workers in processes of their own."""

    def __init__(self, root, journals, workers=4, sync=False, power=False):
        self.root, self.sync, self.workers, self.power = root, sync, workers, power
        self.doubtful = set()           # paths whose last change was in doubt at some crash
        self.journals = journals
        self.models = [Model() for _ in range(workers)]
        self.acknowledged = self.checked = 0
        os.makedirs(journals, exist_ok=True)

    def folder(self, n):
        return os.path.join(self.root, f"w{n}")

    def journal(self, n):
        return os.path.join(self.journals, f"journal.{n}")

    def start(self, seed):
        self.stop_flag = multiprocessing.get_context("fork").Event()
        self.processes = []
        for n in range(self.workers):
            if os.path.exists(self.journal(n)):
                os.unlink(self.journal(n))
            worker = Worker(self.folder(n), self.journal(n), self.models[n].copy(), f"{seed}x{n}", self.sync,
                            self.power)
            p = multiprocessing.get_context("fork").Process(target=self.child, args=(worker,))
            p.start()
            self.processes.append(p)

    def child(self, worker):
        try:
            worker.run(self.stop_flag)
        except OSError as e:
            worker.note(error=e.errno, text=str(e))

    def join(self, seconds=30):
        self.stop_flag.set()
        stuck = []
        for p in self.processes:
            p.join(seconds * rig.PATIENCE)
            if p.is_alive():
                stuck.append(p.pid)
                p.kill()
        return [f"worker {pid} hung for {seconds} s" for pid in stuck]

    def started(self, operations=20):
        """Are the workers at work?"""
        return all(os.path.exists(self.journal(n)) for n in range(self.workers)) and \
            sum(os.path.getsize(self.journal(n)) for n in range(self.workers)) > operations * 60

    def replay(self, n):
        """Bring model n to what its journal promises; give the operation in doubt, and complaints."""
        pending, bad = None, []
        try:
            with open(self.journal(n)) as f:
                lines = [json.loads(line) for line in f]
        except FileNotFoundError:
            return None, []
        for line in lines:
            if "begin" in line:
                pending = line["begin"]
            elif "done" in line:
                self.models[n].apply(pending)
                self.acknowledged += 1
                pending = None
            elif "bad" in line:
                bad.append("wrong: " + line["bad"])
            elif "error" in line:
                self.last_error = line
        return pending, bad

    def verify(self):
        """Every promise, after a crash.  Returns a list of sentences; [] is good.  The models
        take over what became of the operations in doubt."""
        problems = []
        for n in range(self.workers):
            pending, bad = self.replay(n)
            problems += bad
            problems += self.verify_one(n, pending)
            if os.path.exists(self.journal(n)):
                os.unlink(self.journal(n))
        return problems

    def verify_one(self, n, pending):
        found, problems = observe(self.folder(n))
        self.checked += len(found.files)
        if pending:
            self.doubtful |= {f"w{n}/{pending[k]}" for k in ("a", "b") if k in pending}
        first = None
        for candidate in outcomes(self.models[n], pending, found):
            wrong = compare(candidate, found)
            if not wrong:
                self.models[n] = candidate
                return problems
            if first is None or len(wrong) < len(first):
                first = wrong
        self.models[n] = found
        return problems + [f"w{n}/{w}" + (f" (in doubt: {pending['op']} {pending['a']} {pending.get('b', '')})"
                                          if pending else "") for w in first]


class Unreadable(str):
    pass


def observe(folder):
    """The tree as it is, as a Model; unreadable files count as wrong."""
    found, problems = Model(), []
    found.data = {}
    if not os.path.lexists(folder):         # killed before it was made
        return found, problems
    for base, folders, files in os.walk(folder, onerror=lambda e: problems.append(f"wrong: {e}")):
        relative = os.path.relpath(base, folder)
        relative = "" if relative == "." else relative
        if relative == "":                  # it is a keep: what tbfs derives is not the worker's
            folders[:] = [f for f in folders if f != "thumbs"]
            files[:] = [f for f in files if f != "meta.json"]
        for name in folders:
            found.folders.add(os.path.join(relative, name))
        for name in files:
            path = os.path.join(relative, name)
            try:
                data = rig.read(os.path.join(folder, path))
                size = os.stat(os.path.join(folder, path)).st_size
                if size != len(data):
                    problems.append(f"wrong: {path}: stat says {size}, read gives {len(data)} bytes")
                found.files[path] = digest(data)
                found.data[path] = data
            except OSError as e:
                problems.append(f"lost: {path}: {e}")
                found.files[path] = Unreadable(e)
    return found, problems


def compare(model, found):
    wrong = []
    for path, sha in model.files.items():
        have = found.files.get(path)
        if have is None:
            wrong.append(f"{path} lost")
        elif sha is not None and have != sha and not isinstance(have, Unreadable):
            wrong.append(f"{path} wrong or torn: {len(found.data[path])} bytes"
                         + (", all zero" if found.data[path] and not any(found.data[path]) else ""))
    wrong += [f"{path} resurrected or halfway" for path in found.files if path not in model.files]
    wrong += [f"{path}/ lost" for path in model.folders if path not in found.folders]
    wrong += [f"{path}/ resurrected" for path in found.folders if path not in model.folders]
    return wrong


def outcomes(model, op, found):
    """All that may be there when `op` was in flight."""
    yield model.copy()
    if op is None:
        return
    yield model.copy().apply(op)
    kind, a, b = op["op"], op["a"], op.get("b")
    if kind == "replace":           # written, not yet renamed: whole or a part of it
        target = b
        before = [b""]
    elif kind in ("write", "append"):
        target = a
        before = [b""]
    else:
        return
    data = found.data.get(target)
    if data is None:
        return
    if kind == "append":
        fits = data[op["old"]:] == data_of(op)[:len(data) - op["old"]] and len(data) >= op["old"]
    else:
        fits = any(data == old + data_of(op)[:len(data) - len(old)] for old in before)
    if fits:                        # not acknowledged: a beginning of it is allowed, nothing else
        other = model.copy()
        other.files[target] = digest(data)
        yield other


def pause(rng, low, high):
    time.sleep(rng.uniform(low, high))
