# SPDX-License-Identifier: GPL-3.0-or-later
"""What the end-to-end and crash tests stand on: a mount, a MinIO, other users.

A `Mount` is one mountpoint with a state directory of its own.  Its kind says
who moves the bytes: "passthrough" (the kernel), "daemon" (passthrough=off) or
"bare", a plain directory without tbfs: a test that fails there is wrong itself.
"""
import contextlib
import hashlib
import json
import os
import pickle
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
import traceback
import urllib.request
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent
BUILD = Path(os.environ.get("TBFS_BUILD") or TOP / ".build" / "test")
TBFS = BUILD / "tbfs"
MEDIA = TOP / "tests" / "media"
SANITIZED = BUILD.name in ("asan", "tsan")
# Slower machines and sanitizers: every bound on waiting is multiplied by this.
PATIENCE = float(os.environ.get("TBFS_PATIENCE", 4 if SANITIZED else 1))
DONE, NOT_DONE, USAGE, BACKEND, STATE = range(5)    # exit codes of tbfs

if "TBFS_TEST_DIR" in os.environ:
    ROOT = Path(os.environ["TBFS_TEST_DIR"])
else:
    ROOT = Path(tempfile.mkdtemp(prefix="tbfs-test.", dir="/var/tmp"))
    ROOT.chmod(0o755)


def run(*command, check=True, timeout=60, **options):
    """Run a command; on failure the assertion shows what it printed."""
    options.setdefault("stdin", subprocess.DEVNULL)
    r = subprocess.run([os.fspath(c) for c in command], capture_output=True,
                       timeout=timeout * PATIENCE, **options)
    r.out, r.err = (s.decode(errors="surrogateescape") for s in (r.stdout, r.stderr))
    if check:
        shown = " ".join(os.fspath(c) if isinstance(os.fspath(c), str) else repr(c) for c in command)
        assert r.returncode == 0, f"{shown}: exit {r.returncode}\n{r.out[-2000:]}{r.err[-4000:]}"
    return r


def wait_until(what, seconds=15, every=0.02):
    """Poll until what() is true and return it; what it last said is in the failure."""
    deadline = time.monotonic() + seconds * PATIENCE
    while True:
        answer = what()
        if answer:
            return answer
        assert time.monotonic() < deadline, \
            f"not so within {seconds} s: {getattr(what, '__doc__', None) or traceback.extract_stack()[-2].line}"
        time.sleep(every)


def sha256(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def noise(size, seed=0):
    """Bytes that differ in every block, the same for the same seed."""
    block = hashlib.shake_128(f"{seed}".encode()).digest(min(size, 65536))
    parts, left, n = [], size, 0
    while left > 0:
        stamp = n.to_bytes(8, "little")
        part = (stamp + block[8:])[:left]
        parts.append(part)
        left -= len(part)
        n += 1
    return b"".join(parts)


def read(path):
    with open(path, "rb") as f:
        return f.read()


def write(path, data, mode=0o644):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        view = memoryview(data if isinstance(data, bytes) else data.encode())
        while view:
            view = view[os.write(fd, view):]
    finally:
        os.close(fd)
    return path


def keep_path(root, circle=1, keep=1):
    path = Path(root) / "circles" / str(circle) / "keeps" / str(keep)
    path.mkdir(parents=True, exist_ok=True)
    return path


def files_below(root, skip=(".tbfs",)):
    """Relative name (bytes) → contents of every regular file."""
    root = os.fsencode(root)
    found = {}
    for folder, folders, files in os.walk(root):
        if folder == root:
            folders[:] = [f for f in folders if os.fsdecode(f) not in skip]
        for name in files:
            path = os.path.join(folder, name)
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISREG(os.lstat(path).st_mode):
                    found[os.path.relpath(path, root)] = read(path)
    return found


def is_derived(name):
    """Is this relative name (bytes) something that tbfs itself makes in a keep?"""
    part = name.split(b"/")
    return len(part) >= 5 and part[0] == b"circles" and part[2] == b"keeps" and \
        (part[4] == b"thumbs" or part[4:] == [b"meta.json"])


def originals(files):
    return {name: data for name, data in files.items() if not is_derived(name)}


def as_user(name, function, *args, groups=()):
    """Call function(*args) in a child that is another user; give its result or raise its error."""
    user = pwd.getpwnam(name) if isinstance(name, str) else pwd.getpwuid(name)
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(r)
            os.setgroups(list(groups))
            os.setgid(user.pw_gid)
            os.setuid(user.pw_uid)
            answer = (True, function(*args))
        except BaseException as e:      # an OSError pickles with its errno
            answer = (False, e)
        with os.fdopen(w, "wb") as f:
            pickle.dump(answer, f)
        os._exit(0)
    os.close(w)
    with os.fdopen(r, "rb") as f:
        ok, value = pickle.load(f)
    os.waitpid(pid, 0)
    if not ok:
        raise value
    return value


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Mount:
    live = []

    def __init__(self, kind="passthrough", backend="local", env=None, base=None, minio=None,
                 **options):
        self.kind, self.backend, self.minio = kind, backend, minio
        self.base = Path(base or tempfile.mkdtemp(prefix="m.", dir=ROOT))
        self.base.chmod(0o755)
        self.path = self.base / "mnt"
        self.path.mkdir(exist_ok=True)
        self.state_dir = self.base / "state"
        self.objects_dir = self.base / "objects"
        self.log = self.base / "log"
        self.env = dict(env or {})
        self.pid = None
        self.options = {
            "state_dir": self.state_dir, "backend": backend, "log_file": self.log,
            "quiet_period": "200ms",
        }
        if backend == "local":
            self.options["local.root_path"] = self.objects_dir
        elif minio:
            self.bucket = minio.new_bucket()
            self.env |= minio.env(self.bucket)
        if kind == "daemon":
            self.options["passthrough"] = "off"
        self.set(**options)

    def set(self, **options):
        """Options by keyword; two underscores stand for a dot, None takes one away, True gives it no value."""
        for key, value in options.items():
            self.options[key.replace("__", ".")] = value
        self.options = {k: v for k, v in self.options.items() if v is not None}
        return self

    def environment(self):
        env = {k: v for k, v in os.environ.items()
               if not k.startswith(("TBFS_", "MINIO_", "MEDIA_STORAGE"))}
        # The sanitizers' shadow memory does not fit into the worker's limits, nor their calls
        # into its seccomp list: the daemon is what they watch here.
        worker = (TOP / ".build" / "test" if SANITIZED else BUILD) / "tbfs-extract"
        if worker.exists():
            env["TBFS_EXTRACT"] = str(worker)
        if SANITIZED:
            for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS"):
                env[name] = f"{os.environ.get(name, '')}:log_path={self.base}/sanitizer"
        return env | self.env

    def tbfs(self, *args, check=True, timeout=60, **options):
        return run(TBFS, *args, check=check, timeout=timeout, env=self.environment(), **options)

    def mount_command(self):
        words = [k if v is True else f"{k}={v}" for k, v in self.options.items()]
        return ["mount", "-o", ",".join(w.replace("\\", "\\\\").replace(",", "\\,") for w in words), self.path]

    def try_start(self, **options):
        """Mount; give the finished command, whatever its exit status."""
        self.set(**options)
        r = self.tbfs(*self.mount_command(), check=False)
        if r.returncode == 0:
            self.pid = self.find_pid()
            if self not in Mount.live:
                Mount.live.append(self)
        return r

    def start(self, **options):
        if self.kind == "bare":
            return self
        r = self.try_start(**options)
        assert r.returncode == 0, f"mount: exit {r.returncode}\n{r.err}{self.log_tail()}"
        assert os.path.ismount(self.path), "mount returned 0, but nothing is mounted"
        return self

    def find_pid(self):
        """The daemon: our binary, with this mountpoint among its arguments."""
        mine = os.fsencode(self.path)
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{entry}/exe").split(" ")[0] == os.fspath(TBFS.resolve()) and \
                        mine in read(f"/proc/{entry}/cmdline").split(b"\0") and alive(int(entry)):
                    return int(entry)
        raise AssertionError(f"mounted, but no daemon is there for {self.path}\n{self.log_tail()}")

    def umount(self, *args, check=True, timeout=60):
        r = self.tbfs("umount", *args, self.path, check=False, timeout=timeout)
        if check:
            assert r.returncode == 0, f"umount: exit {r.returncode}\n{r.out}{r.err}{self.log_tail()}"
            assert not alive(self.pid), "umount returned, but the daemon is still there"
            assert not os.path.ismount(self.path), "umount returned 0, but it is still mounted"
        return r

    def stop(self):
        """Unmount as a user does; a daemon that died or complained before is a failure."""
        if self.kind == "bare" or self.pid is None:
            return
        was_alive = alive(self.pid)
        try:
            self.check_sanitizer()
            assert was_alive, f"the daemon died\n{self.log_tail()}"
            r = self.umount("--timeout", "5", check=False)
            pid = self.pid
            assert r.returncode in (DONE, NOT_DONE) and not alive(pid), \
                f"umount: exit {r.returncode}, the daemon is {'still' if alive(pid) else 'not'} there\n{r.err}{self.log_tail()}"
            self.check_sanitizer()
        finally:
            self.destroy()

    def check_sanitizer(self):
        for report in sorted(self.base.glob("sanitizer.*")):
            text = report.read_text(errors="replace")
            report.unlink()
            raise AssertionError(f"sanitizer:\n{text[:6000]}")

    def destroy(self):
        """Whatever is left of it goes, without asking."""
        if self.pid is not None and alive(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self.pid = None
        self.detach()
        if self in Mount.live:
            Mount.live.remove(self)

    def detach(self):
        while subprocess.run(["umount", "-l", self.path], capture_output=True).returncode == 0:
            pass

    def hangs(self):
        """Has the kernel requests for this mount that nobody answers?  Asks the mount nothing."""
        with open("/proc/self/mountinfo") as f:
            numbers = [line.split()[2].split(":")[1] for line in f if line.split()[4] == str(self.path)]
        with contextlib.suppress(OSError):
            return any(int(read(f"/sys/fs/fuse/connections/{n}/waiting")) for n in numbers)
        return True

    def kill(self):
        """kill -9, and wait until the process is gone; the mountpoint stays as it is."""
        if self.kind == "bare":
            return
        pid, self.pid = self.pid, None
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not alive(pid), 20)

    def remount(self, **options):
        if self.kind == "bare":
            return self
        if self.pid is not None:
            self.umount()
            self.check_sanitizer()
        return self.start(**options)

    def crash(self, **options):
        """kill -9 and mount again."""
        self.kill()
        return self.start(**options)

    def sync(self, *paths, derived=False, timeout=40, check=True):
        args = ["--derived"] if derived else []
        r = self.tbfs("sync", *args, "--timeout", str(int(timeout * PATIENCE)),
                      *(paths or [self.path]), check=False, timeout=timeout + 20)
        if check:
            assert r.returncode == 0, f"sync: exit {r.returncode}\n{r.out}{r.err}{self.log_tail()}"
        return r

    def drain(self, seconds=40):
        """Retry and sync until all is stored, for backends that failed on the way."""
        def stored():
            """all is stored"""
            self.tbfs("retry", self.path, check=False)
            return self.sync(check=False, timeout=2).returncode == 0
        wait_until(stored, seconds, 0.2)

    def status(self):
        return json.loads(self.tbfs("status", "--json", self.path).out)

    def calls(self):
        """Backend calls so far by name, of all backends: {"put": 3, …}."""
        total = {}
        for backend in self.status()["backends"]:
            for name, n in backend["calls"].items():
                total[name] = total.get(name, 0) + n
        return total

    def xattr(self, path, name):
        return os.fsdecode(os.getxattr(path, f"user.tbfs.{name}", follow_symlinks=False))

    def state(self, path):
        return self.xattr(path, "state")

    def wait_state(self, path, wanted, seconds=20):
        wait_until(lambda: self.state(path) == wanted, seconds)

    def objects(self, everything=False):
        """Key (bytes) → contents of what the backend holds; without tbfs' own unless asked."""
        if self.backend == "local":
            return files_below(self.objects_dir, skip=() if everything else (".tbfs",))
        found = self.minio.contents(self.bucket)
        return {k: v for k, v in found.items() if everything or not k.startswith(b".tbfs/")}

    def files(self):
        return files_below(self.path)

    def staged(self):
        """Names (inode numbers) in the staging cache."""
        return {p.name for p in (self.state_dir / "data").glob("??/*")}

    def log_tail(self, lines=40):
        try:
            text = self.log.read_text(errors="replace").splitlines()
        except OSError as e:
            return f"[no log: {e}]"
        return "\n".join([f"[log of {self.base.name}]", *text[-lines:]])


class Minio:
    """A MinIO on loopback with its data in our directory."""
    user, password = "minioadmin", "hush-minioadmin"     # two words, so that a leak can be told

    def __init__(self):
        binary = shutil.which("minio")
        if binary is None:
            raise FileNotFoundError("no minio on PATH (scripts/servers minio builds one)")
        self.data = tempfile.mkdtemp(prefix="minio.", dir=ROOT)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.buckets = 0
        self.log = open(os.path.join(self.data, "..", f"minio.{self.port}.log"), "wb")
        self.command = [binary, "server", "--quiet", "--address", f"127.0.0.1:{self.port}",
                        "--console-address", f"127.0.0.1:{free_port()}", self.data]
        self.start()
        import boto3
        from botocore.config import Config
        self.client = boto3.client(
            "s3", endpoint_url=self.url, aws_access_key_id=self.user,
            aws_secret_access_key=self.password, region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 2}))

    def start(self):
        env = {k: v for k, v in os.environ.items() if not k.startswith("MINIO_")}
        env |= {"MINIO_ROOT_USER": self.user, "MINIO_ROOT_PASSWORD": self.password,
                "MINIO_BROWSER": "off", "MINIO_CI_CD": "1"}
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=self.log, env=env)
        def healthy():
            """MinIO answers"""
            assert self.process.poll() is None, "minio ended: " + read(self.log.name).decode()
            with contextlib.suppress(OSError):
                return urllib.request.urlopen(f"{self.url}/minio/health/cluster", timeout=2).status == 200
        wait_until(healthy, 60)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def new_bucket(self):
        self.buckets += 1
        name = f"tinybeans-media-{self.buckets}"
        self.client.create_bucket(Bucket=name)
        return name

    def env(self, bucket):
        return {"MINIO_ENDPOINT": self.url, "MINIO_ACCESS_KEY": self.user,
                "MINIO_SECRET_KEY": self.password, "MINIO_BUCKET_NAME": bucket}

    def keys(self, bucket, prefix=""):
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [o["Key"] for page in pages for o in page.get("Contents", [])]

    def head(self, bucket, key):
        return self.client.head_object(Bucket=bucket, Key=key)

    def contents(self, bucket):
        found = {}
        for key in self.keys(bucket):
            try:
                found[key.encode()] = self.client.get_object(Bucket=bucket, Key=key)["Body"].read()
            except self.client.exceptions.NoSuchKey:
                pass        # removed since it was listed
        return found


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class LoopDisk:
    """A small disk of its own in a file: for full disks and power cuts."""

    def __init__(self, megabytes=64, kind="ext4"):
        self.base = Path(tempfile.mkdtemp(prefix="disk.", dir=ROOT))
        self.base.chmod(0o755)
        self.image, self.path = self.base / "image", self.base / "mnt"
        self.path.mkdir()
        with open(self.image, "wb") as f:
            f.truncate(max(megabytes, 300 if kind == "xfs" else 1) << 20)
        run(f"mkfs.{kind}", "-q", *(["-m", "0"] if kind == "ext4" else []), self.image)
        self.mount()

    def mount(self, *options):
        # Space that the mount itself must not lose to lazy initialisation.
        run("mount", "-o", ",".join(["loop", *options]), self.image, self.path)

    def umount(self):
        # What the daemon left running may hold it for a moment after its death.
        wait_until(lambda: run("umount", self.path, check=False).returncode == 0, 10, 0.1)

    def cut_power(self):
        """Everything that was not synced is gone; the disk comes back as after a reboot."""
        run("xfs_io", "-x", "-c", "shutdown", self.path)
        self.umount()
        self.mount()

    def destroy(self):
        subprocess.run(["umount", "-l", self.path], capture_output=True)
        shutil.rmtree(self.base, ignore_errors=True)
