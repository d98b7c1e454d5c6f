# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the benchmark's files go: the bare directory, a mount, other file systems beside it; and MinIO."""
import contextlib
import hashlib
import hmac
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request

KEY, SECRET, BUCKET = "minioadmin", "minioadmin", "tinybeans-media"


def cpu_of(pid):
    """Seconds of CPU that a process has used so far, threads that ended included."""
    try:
        # The CPU clock of another process (man 3 clock_getcpuclockid): nanoseconds, not ticks.
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def numbers(tree, prefix=""):
    """A nested document's numbers, flat: {"a.b": 1}."""
    flat = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= numbers(value, f"{prefix}{key}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            flat[prefix + key] = value
    return flat


class Place:
    """Where files go; measured() runs something there and tells what it cost."""
    def __init__(self, bench, path):
        self.bench, self.path, self.folder, self.n = bench, path, None, 0

    def file(self, name):
        return os.path.join(self.path, name)

    def new_folder(self):
        self.n += 1
        self.folder = os.path.join(self.path, "circles", "1", "keeps", str(self.n))
        os.makedirs(self.folder)

    def drop_folder(self):
        shutil.rmtree(self.folder)

    def drop_all(self):
        shutil.rmtree(os.path.join(self.path, "circles"), ignore_errors=True)

    def sync(self):
        pass

    def again(self):
        """As after a new mount."""


class Bare(Place):
    who = "bare"

    def measured(self, work):
        sample = work()
        sample["cpu"] = sample["wall_cpu"]
        if "durable" in sample:
            sample["durable_all_cpu"] = sample["durable_cpu"]
        return sample


PEERS = {       # how they serve a directory in the foreground
    "bindfs": lambda files, path: ["bindfs", "-f", "--multithreaded", files, path],
    "rclone": lambda files, path: ["rclone", "mount", "--vfs-cache-mode", "full", "--cache-dir", files + ".cache",
                                   files, path],
}


class Peer(Bare):
    """bindfs: what the way through user space costs alone, without an index.  rclone mount: what many use."""
    def __init__(self, bench, who):
        self.base = tempfile.mkdtemp(prefix=f"{who}.", dir=bench.dir)
        files = os.path.join(self.base, "files")
        super().__init__(bench, os.path.join(self.base, "mnt"))
        self.who = who
        os.makedirs(self.path)
        os.makedirs(files)
        self.process = subprocess.Popen(PEERS[who](files, self.path), stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not os.path.ismount(self.path):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{who} does not mount")
            time.sleep(0.02)

    def measured(self, work):
        cpu = cpu_of(self.process.pid)
        sample = super().measured(work)
        sample["cpu"] += cpu_of(self.process.pid) - cpu
        return sample

    def stop(self):
        subprocess.run(["umount", "-l", self.path], check=False, capture_output=True)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if not self.bench.o.keep:
            shutil.rmtree(self.base, ignore_errors=True)


class Plain(Bare):
    """The client that a drain is compared with; its files lie in a bare directory."""
    def __init__(self, bench, server):
        super().__init__(bench, tempfile.mkdtemp(prefix="plain.", dir=bench.dir))
        self.server = server

    def drain(self, n, count):
        urls = os.path.join(self.path, "urls")
        with open(urls, "w", encoding="ascii") as f:
            for i in range(count):
                f.write(self.server.presigned("PUT", f"plain/{n}/{i // 500:03}/a{i:06}.jpg") + "\n")
        before = cpu_of(self.server.process.pid)
        sample = self.bench.do("put", self.folder, count, 500, 16, urls)
        sample["server_cpu"] = cpu_of(self.server.process.pid) - before
        return sample

    def drop_folder(self):
        super().drop_folder()
        shutil.rmtree(os.path.join(self.server.data, BUCKET, "plain"), ignore_errors=True)


class Mount(Place):
    who = "tbfs"

    def __init__(self, bench, base, options):
        super().__init__(bench, os.path.join(base, "mnt"))
        options = {"quiet_period": "1h", "derived": "off", "state_dir": os.path.join(base, "state")} | options
        options |= dict(o.split("=", 1) for o in bench.o.mount_option)
        os.makedirs(self.path)
        self.base, self.options = base, options
        self.mount()
        self.server = bench.server if options.get("backend") == "minio" else None

    def mount(self):
        self.bench.run(self.bench.tbfs, "mount", "-o", ",".join(f"{k}={v}" for k, v in self.options.items()), self.path)
        self.alive = True
        self.pid = self.status()["pid"]

    def again(self):
        self.umount()
        self.mount()

    def status(self):
        return json.loads(self.bench.run(self.bench.tbfs, "status", "--json", self.path))

    def counts(self):
        status = self.status()
        return numbers(status["counts"]) | {f"backend.{k}": v for b in status["backends"]
                                            for k, v in numbers(b).items() if k != "healthy"}

    def measured(self, work):
        """The asking itself is counted as well: ask twice, and take that away."""
        first, second = self.counts(), self.counts()
        cpu = cpu_of(self.pid)
        sample = work()
        time.sleep(0.05)                    # RELEASE is answered after close has returned
        used = cpu_of(self.pid) - cpu
        third = self.counts()
        sample["daemon_cpu"] = used
        sample["cpu"] = sample["wall_cpu"] + used
        if "durable" in sample:             # the fsync's share of the daemon is not told apart
            sample["durable_all_cpu"] = sample["durable_cpu"] + used
        sample["counts"] = {k: third[k] - second[k] - (second[k] - first[k]) for k in third}
        return sample

    def sync(self):
        self.bench.run(self.bench.tbfs, "sync", self.path)

    def drain(self, _n, _count):
        server = cpu_of(self.server.process.pid)
        before, began = os.times(), time.monotonic()
        self.sync()
        wall, after = time.monotonic() - began, os.times()
        return {"wall": wall, "server_cpu": cpu_of(self.server.process.pid) - server,
                "wall_cpu": after.children_user + after.children_system
                - before.children_user - before.children_system}

    def drop_folder(self):
        super().drop_folder()
        if self.server is not None:
            self.sync()                     # the removals are done before the next round

    def umount(self):
        self.alive = False
        with contextlib.suppress(RuntimeError):
            self.bench.run(self.bench.tbfs, "umount", "--timeout", "0", self.path)
        deadline = time.monotonic() + 60
        while os.path.exists(f"/proc/{self.pid}") and time.monotonic() < deadline:
            time.sleep(0.05)

    def stop(self):
        """Away with it; what was never stored is thrown away."""
        if not self.alive:
            return
        self.umount()
        if os.path.ismount(self.path):
            subprocess.run(["umount", "-l", self.path], check=False)
        if not self.bench.o.keep:
            shutil.rmtree(self.base, ignore_errors=True)


class Minio:
    """A server on loopback at a free port, its data in the benchmark's directory."""
    def __init__(self, bench):
        program = shutil.which("minio") or os.path.expanduser(
            os.path.join(os.environ.get("TBFS_CACHE", "~/.cache/tbfs"), "bin", "minio"))
        if not os.path.exists(program):
            raise RuntimeError("no minio on PATH (scripts/servers minio builds one)")
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.data = os.path.join(bench.dir, "minio")
        os.makedirs(self.data)
        env = bench.env | {"MINIO_ROOT_USER": KEY, "MINIO_ROOT_PASSWORD": SECRET,
                           "MINIO_BROWSER": "off", "MINIO_UPDATE": "off"}
        with open(os.path.join(bench.dir, "minio.log"), "wb") as log:
            self.process = subprocess.Popen([program, "server", "--quiet", "--address",
                                             f"127.0.0.1:{self.port}", self.data],
                                            env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                if urllib.request.urlopen(f"{self.url}/minio/health/cluster", timeout=2).status == 200:
                    return
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("minio does not start: see minio.log")
            time.sleep(0.2)

    def options(self):
        return {"s3.endpoint": self.url, "s3.bucket": BUCKET, "s3.access_key": KEY, "s3.secret_key": SECRET}

    def presigned(self, method, key):
        """An address that needs no further signature (AWS SigV4, query parameters)."""
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        scope = f"{now[:8]}/us-east-1/s3/aws4_request"
        path = f"/{BUCKET}/{urllib.parse.quote(key)}"
        query = urllib.parse.urlencode({"X-Amz-Algorithm": "AWS4-HMAC-SHA256", "X-Amz-Credential": f"{KEY}/{scope}",
                                        "X-Amz-Date": now, "X-Amz-Expires": "3600", "X-Amz-SignedHeaders": "host"})
        request = f"{method}\n{path}\n{query}\nhost:127.0.0.1:{self.port}\n\nhost\nUNSIGNED-PAYLOAD"
        text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        key = f"AWS4{SECRET}".encode()
        for part in (*scope.split("/"), text):
            key = hmac.digest(key, part.encode(), "sha256")
        return f"{self.url}{path}?{query}&X-Amz-Signature={key.hex()}"

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
