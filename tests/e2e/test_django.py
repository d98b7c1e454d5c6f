# SPDX-License-Identifier: GPL-3.0-or-later
"""Django, served over HTTP by www-data, on a mount that root made."""
import concurrent.futures
import http.client
import io
import itertools
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import time
import urllib.parse
import urllib.request
import uuid
from pathlib import Path

import pytest

import rig
from rig import noise, read

PYTHON = "/usr/bin/python3"
SMALL, LARGE = 150_000, 7_000_001       # below and above Django's 2.5 MiB


class Server:
    """gunicorn with some threads, as www-data."""

    def __init__(self, packages, media, temp=None):
        self.base = Path(rig.tempfile.mkdtemp(prefix="django.", dir=rig.ROOT))
        os.chown(self.base, 33, 33)
        self.port = rig.free_port()
        self.env = {"PATH": os.environ["PATH"], "APP_MEDIA": str(media), "APP_DB": str(self.base / "db"),
                    "APP_TEMP": str(temp or ""), "HOME": str(self.base), "LC_ALL": "C.UTF-8",
                    "PYTHONPATH": f"{packages}/site:{packages}/app", "PYTHONDONTWRITEBYTECODE": "1"}
        rig.run(PYTHON, "-m", "django_app.server", "init", env=self.env)
        os.chown(self.base / "db", 33, 33)
        self.log = open(self.base / "log", "wb")
        self.process = subprocess.Popen(
            [PYTHON, "-m", "gunicorn", "--user", "www-data", "--group", "www-data",
             "--worker-class", "gthread", "--workers", "1", "--threads", "8", "--preload",
             "--worker-tmp-dir", "/dev/shm", "--bind", f"127.0.0.1:{self.port}", "--timeout", "60",
             "django_app.server:application"],
            env=self.env, stdout=self.log, stderr=self.log, cwd=self.base, umask=0o022)

        def ready():
            """the server answers"""
            assert self.process.poll() is None, read(self.log.name).decode()
            try:
                return self.get("/ready") == {}
            except OSError:
                return False
        try:
            rig.wait_until(ready, 30)
        except BaseException:
            self.stop()
            raise

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        shutil.rmtree(self.base, ignore_errors=True)

    def get(self, url, /, raw=False, **query):
        query = "?" + urllib.parse.urlencode(query) if query else ""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{url}{query}", timeout=60) as r:
            data = r.read()
        return data if raw else json.loads(data)

    def post(self, url, data=None, name="file", /, **fields):
        mark = uuid.uuid4().hex
        body = io.BytesIO()
        for key, value in fields.items():
            body.write(f'--{mark}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode())
        if data is not None:
            body.write(f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
                       "Content-Type: application/octet-stream\r\n\r\n".encode() + data + b"\r\n")
        body.write(f"--{mark}--\r\n".encode())
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        c.request("POST", url, body.getvalue(), {"Content-Type": f"multipart/form-data; boundary={mark}"})
        r = c.getresponse()
        text = r.read()
        c.close()
        assert r.status == 200, f"{url}: {r.status} {error_of(text)}\n{self.tail()}"
        return json.loads(text)

    circle = 0
    circles = itertools.count(1)

    def upload(self, name, data, keep=1, **more):
        return self.post("/upload", data, name, circle=self.circle, keep=keep, **more)

    def tail(self):
        return "\n".join(read(self.log.name).decode(errors="replace").splitlines()[-30:])


def error_of(page):
    m = re.search(rb"<title>(.*?)</title>", page, re.S)
    return m[1].strip().decode(errors="replace") if m else page[:500]


@pytest.fixture(scope="session")
def packages():
    """Our Python packages and the application where www-data may read them: the checkout may
    lie in a home that is closed to others."""
    import django
    base = Path(rig.tempfile.mkdtemp(prefix="python.", dir=rig.ROOT))
    base.chmod(0o755)
    for name, source in (("site", Path(django.__file__).parent.parent), ("app", Path(__file__).parent)):
        (base / name).mkdir()
        rig.run("mount", "--bind", "-o", "ro", source, base / name)
    yield base
    for name in ("site", "app"):
        rig.run("umount", "-l", base / name)
        (base / name).rmdir()


@pytest.fixture(scope="module", params=["temp-elsewhere", "temp-on-the-mount"])
def server(request, shared, packages):
    """FILE_UPLOAD_TEMP_DIR in /tmp and on the mount: a copy, or a rename with the file still open."""
    os.chown(shared.path, 33, 33)
    temp = None
    if request.param == "temp-on-the-mount":
        temp = shared.path / "incoming"
        temp.mkdir(mode=0o700)
        os.chown(temp, 33, 33)
    server = Server(packages, shared.path, temp)
    server.mount = shared
    yield server
    server.stop()


@pytest.fixture
def app(server):
    """Each test in a circle of its own."""
    server.circle = next(Server.circles)
    return server


def on_disk(app, answer):
    return app.mount.path / answer["name"]


@pytest.mark.smoke
def test_uploads_arrive(app):
    for name, size, via in (("small.jpg", SMALL, "InMemoryUploadedFile"),
                            ("large.mp4", LARGE, "TemporaryUploadedFile"), ("empty.bin", 1, "InMemoryUploadedFile")):
        answer = app.upload(name, noise(size, name))
        assert answer["via"] == via and answer["size"] == size
        assert answer["name"] == f"circles/{app.circle}/keeps/1/{name}"
        path = on_disk(app, answer)
        assert read(path) == noise(size, name)
        s = os.stat(path)
        assert (s.st_uid, s.st_gid) == (33, 33)
        assert stat.S_IMODE(s.st_mode) == 0o644
        assert app.get(f"/download/{answer['id']}", raw=True) == noise(size, name)


def test_a_taken_name_gets_another(app):
    names = set()
    for n in range(4):
        answer = app.upload("same.jpg", noise(SMALL, n))
        names.add(answer["name"])
        assert read(on_disk(app, answer)) == noise(SMALL, n)
    for n in range(2):
        answer = app.upload("same.mp4", noise(LARGE, n))
        names.add(answer["name"])
        assert read(on_disk(app, answer)) == noise(LARGE, n)
    assert len(names) == 6


@pytest.mark.timeout(180)
def test_concurrent_uploads_of_one_name(app):
    """O_EXCL is Django's only guard."""
    def one(n):
        return app.upload("party.jpg", noise(SMALL + n, n)), n
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(one, range(24)))
    assert len({a["name"] for a, _ in answers}) == 24
    for answer, n in answers:
        assert read(on_disk(app, answer)) == noise(SMALL + n, n)


def test_concurrent_large_uploads(app):
    def one(n):
        return app.upload(f"clip{n}.mp4", noise(LARGE + n, n), keep=n % 3), n
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        for answer, n in pool.map(one, range(12)):
            assert read(on_disk(app, answer)) == noise(LARGE + n, n)


def test_temporary_files_leave_nothing(app):
    app.upload("large.mp4", noise(LARGE))
    if "APP_TEMP" in app.env and app.env["APP_TEMP"]:
        assert os.listdir(app.env["APP_TEMP"]) == []


def test_delete_listing_and_facts(app):
    before = time.time()
    a = app.upload("a.jpg", noise(SMALL))
    b = app.upload("b.mp4", noise(LARGE))
    listing = app.get("/list", path=f"circles/{app.circle}/keeps/1")
    assert set(listing["files"]) >= {"a.jpg", "b.mp4"}
    facts = app.get("/facts", path=a["name"])
    assert facts["exists"] and facts["size"] == SMALL
    assert before - 1 <= facts["created"] <= time.time() + 1
    app.post(f"/delete/{a['id']}")
    assert not on_disk(app, a).exists()
    assert "a.jpg" not in app.get("/list", path=f"circles/{app.circle}/keeps/1")["files"]
    app.post(f"/delete/{b['id']}")
    assert not on_disk(app, b).exists()


def test_an_emptied_keep_can_be_removed(app):
    """Django raises ENOTEMPTY: thumbs/ and meta.json alone must not keep a keep."""
    photo = rig.MEDIA / "no_exif.jpg"
    data = read(photo)
    a = app.upload("a.jpg", data, keep=9)
    if app.mount.kind != "bare":
        app.mount.sync(derived=True)
        assert (on_disk(app, a).parent / "meta.json").exists()
    app.post(f"/delete/{a['id']}")
    app.post("/delete-path", path=f"circles/{app.circle}/keeps/9")
    assert not on_disk(app, a).parent.exists()


def test_image_field_reads_dimensions(app):
    from PIL import Image
    data = io.BytesIO()
    Image.new("RGB", (640, 480), "red").save(data, "JPEG")
    answer = app.upload("p.jpg", data.getvalue(), photo="1")
    assert (answer["width"], answer["height"]) == (640, 480)
    assert read(on_disk(app, answer)) == data.getvalue()


@pytest.fixture
def counted(new_mount, backend, packages):
    mount = new_mount("passthrough", backend, derived="off").start()
    os.chown(mount.path, 33, 33)
    server = Server(packages, mount.path)
    server.mount = mount
    yield server
    server.stop()


@pytest.mark.smoke
def test_each_upload_is_one_put_and_chmod_is_none(counted):
    """Django's chmod after each save does not upload the file again."""
    mount = counted.mount
    mount.sync()
    before = mount.calls()
    answers = [counted.upload(f"f{n}.jpg", noise(SMALL, n)) for n in range(5)]
    answers.append(counted.upload("big.mp4", noise(LARGE)))
    mount.sync()
    after = mount.calls()
    assert after["put"] - before["put"] == 6
    objects = mount.objects()
    for answer in answers:
        assert objects[answer["name"].encode()] == read(on_disk(counted, answer))
    for answer in answers:
        os.chmod(on_disk(counted, answer), 0o640)
    assert {mount.state(on_disk(counted, a)) for a in answers} == {"stored"}
    mount.sync()
    data_puts = mount.calls()["put"] - after["put"]
    # Attributes may go to a sidecar or two, in batches, but never a file's bytes again.
    assert mount.calls().get("put", 0) - after["put"] <= 6 and data_puts <= 6
    assert {k: v for k, v in mount.objects().items()} == objects


def test_deleted_uploads_leave_the_bucket(counted):
    answer = counted.upload("gone.jpg", noise(SMALL))
    counted.mount.sync()
    assert answer["name"].encode() in counted.mount.objects()
    counted.post(f"/delete/{answer['id']}")
    rig.wait_until(lambda: answer["name"].encode() not in counted.mount.objects())
