# SPDX-License-Identifier: GPL-3.0-or-later
"""Derivation through the real mount: thumbnails, meta.json, and how they follow their originals."""
import contextlib
import errno
import json
import os
import re
import shutil
import sqlite3
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

import rig
import syscalls
from rig import MEDIA, keep_path, noise, originals, read, run, wait_until, write
from test_posix import raises

SIZES = {"256.webp": (256, "WEBP", "image/webp"), "720.webp": (720, "WEBP", "image/webp"),
         "1600.jpg": (1600, "JPEG", "image/jpeg")}
KEEP = b"circles/12/keeps/34/"


def samples():
    path = MEDIA / "manifest.json"
    if not path.exists():
        return []
    return json.loads(path.read_text())["files"]


def meta_of(keep):
    return json.loads(read(keep / "meta.json"))


def entry(keep, name):
    return meta_of(keep)["files"][name]


def thumbs_of(keep, name):
    try:
        return sorted(os.listdir(keep / "thumbs" / name))
    except FileNotFoundError:
        return []


def put(keep, sample, name=None):
    target = keep / (name or sample)
    shutil.copyfile(MEDIA / sample, target)
    return target


@pytest.fixture(scope="module")
def processed(request):
    """Every sample, copied into one keep of one mount and derived."""
    mount = rig.Mount("passthrough").start()
    try:
        keep = keep_path(mount.path, 12, 34)
        for sample in samples():
            put(keep, sample["path"])
        mount.sync(derived=True, timeout=100)
        mount.keep = keep
        mount.meta = meta_of(keep)
        yield mount
        mount.stop()
    finally:
        mount.destroy()


STILLS = {f"image/{kind}" for kind in ("jpeg", "png", "webp", "gif", "tiff", "heic", "heif", "avif")}


def drawable(sample):
    """Can a picture be had from it?  Broken ones and bombs are told by the independent tools."""
    opens = sample["opens"]
    small_enough = sample.get("width", 0) * sample.get("height", 0) <= 250_000_000
    if sample["kind"] == "image" and sample["mime"] not in STILLS:
        return False
    if sample["kind"] == "image":
        return bool(opens["vips"]) and small_enough
    return sample["kind"] == "video" and bool(opens["ffprobe"])


def broken(sample):
    """Cut off: a picture may be refused.  (The two phones' files were shortened by their source.)"""
    return any(word in sample["path"] for word in ("truncated", "corrupt", "pixel_motion", "micro_video"))


def test_there_are_samples():
    assert len(samples()) >= 20


@pytest.mark.timeout(240)
@pytest.mark.parametrize("sample", samples(), ids=lambda s: ascii(s["path"])[1:40])
def test_sample_against_its_manifest(processed, sample):
    """The manifest comes from exiftool, ffprobe, Pillow and vips, not from us."""
    assert processed.meta["version"] == 1
    assert (processed.meta["circle"], processed.meta["keep"]) == ("12", "34")
    e = processed.meta["files"][sample["path"]]
    assert e["size"] == sample["size"] and e["sha256"] == sample["sha256"]
    assert e["sha256"] == processed.xattr(processed.keep / sample["path"], "sha256")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}(Z|[+-]\d\d:\d\d)", e["mtime"])
    assert e["mime"] in (sample["mime"], sample["mime_magic"])
    if any(sample["opens"].values()):
        assert e["kind"] == {"image": "photo"}.get(sample["kind"], sample["kind"])
    assert "null" not in json.dumps(e), "what the file does not have is absent"
    if not drawable(sample):
        assert not e.get("thumbs"), "a picture of what cannot be read"
        if sample["kind"] in ("image", "video"):
            assert set(e["error"]) >= {"stage", "code", "message"}
        return
    if broken(sample) and "error" in e:
        assert e["error"]["message"]
        return
    assert (e["width"], e["height"]) == (sample["width"], sample["height"])
    if sample.get("orientation") and sample["kind"] == "image":
        assert e.get("orientation", 1) == sample["orientation"]
    for ours, theirs in (("make", "make"), ("model", "model")):
        assert e.get("camera", {}).get(ours) == sample.get(theirs)
    if sample.get("datetime_original"):
        d = sample["datetime_original"]
        assert e["taken_at"].startswith(d[:10].replace(":", "-") + "T" + d[11:19])
        offset = sample.get("offset_original")
        assert e["taken_at"].endswith(offset or d[-2:]) or e["taken_at"][19:20] == "."
    for ours, theirs, error in (("lat", "gps_lat", 1e-4), ("lon", "gps_lon", 1e-4), ("alt", "gps_alt", 0.1)):
        if theirs in sample and "gps_lat" in sample:
            assert e["gps"][ours] == pytest.approx(sample[theirs], abs=error)
        else:
            assert ours not in e.get("gps", {})
    if sample["kind"] == "video":
        assert e["duration"] == pytest.approx(sample["duration"], abs=0.15)
        assert e["video"]["codec"] == sample["video_codec"]
        assert e["video"].get("rotation", 0) == sample.get("rotation", 0)
        assert e["video"]["frame_rate"] == pytest.approx(sample["frame_rate"], rel=0.02)
        assert e.get("audio", {}).get("codec") == sample.get("audio_codec")
    check_thumbs(processed.keep, sample["path"], e)


def check_thumbs(keep, name, e):
    assert thumbs_of(keep, name) == sorted(SIZES)
    listed = {os.path.basename(t["path"]): t for t in e["thumbs"]}
    assert set(listed) == set(SIZES)
    for file, (side, form, mime) in SIZES.items():
        path = keep / "thumbs" / name / file
        t = listed[file]
        assert t["path"] == f"thumbs/{name}/{file}" and t["mime"] == mime
        assert t["size"] == path.stat().st_size
        with Image.open(path) as image:
            assert image.format == form
            assert image.size == (t["width"], t["height"])
            longest = max(e["width"], e["height"])
            assert max(image.size) == min(side, longest), "the longest side, never enlarged"
            assert image.size[0] / image.size[1] == pytest.approx(e["width"] / e["height"], rel=0.02, abs=0.02)
            assert not image.getexif(), "derivatives carry no EXIF"
            assert "exif" not in image.info and "xmp" not in image.info
            image.load()


def test_audio_has_what_audio_has(processed):
    for sample in samples():
        if sample["kind"] == "audio" and sample["opens"]["ffprobe"]:
            e = processed.meta["files"][sample["path"]]
            assert e["duration"] == pytest.approx(sample["duration"], abs=0.1)
            assert e["audio"]["codec"] == sample["audio_codec"]
            assert e["audio"]["channels"] >= 1 and e["audio"]["sample_rate"] >= 8000


def test_orientation_is_applied(processed):
    """All eight orientations show the same picture."""
    def picture(n):
        with Image.open(processed.keep / "thumbs" / f"orient_{n}.jpg" / "256.webp") as image:
            return list(image.convert("L").resize((16, 16)).get_flattened_data())
    first = picture(1)
    for n in range(2, 9):
        assert sum(abs(a - b) for a, b in zip(first, picture(n))) / 256 < 12, f"orient_{n}"


def test_originals_are_untouched(processed):
    for sample in samples():
        assert rig.sha256(processed.keep / sample["path"]) == sample["sha256"]


def test_derivatives_reach_the_backend(processed):
    """meta.json goes up when the keep has been quiet; sync does not wait for that."""
    processed.sync(derived=True, timeout=100)
    wait_until(lambda: processed.objects() == processed.files(), 20, 0.2)
    assert KEEP + b"meta.json" in processed.objects()


def test_derivatives_belong_to_their_original(processed):
    name = "no_exif.jpg"
    for file in SIZES:
        path = processed.keep / "thumbs" / name / file
        original, s = os.stat(processed.keep / name), os.stat(path)
        assert (s.st_uid, s.st_gid) == (original.st_uid, original.st_gid)
        assert s.st_mtime_ns == original.st_mtime_ns
        assert s.st_mode & 0o444 == original.st_mode & 0o444


def test_nothing_leaks_out_of_the_worker_pool(processed):
    """Idle workers may stay, but none is busy and no job is left."""
    status = processed.status()
    assert status["derive"]["pending"] == 0


# ---- following ------------------------------------------------------------------------------

@pytest.fixture
def keep(new_mount):
    """One photo, derived, in a keep of a fresh mount: (mount, keep)."""
    mount = new_mount().start()
    keep = keep_path(mount.path, 12, 34)
    put(keep, "no_exif.jpg", "a.jpg")
    mount.sync(derived=True)
    assert thumbs_of(keep, "a.jpg") == sorted(SIZES)
    return mount, keep


def xattr_or_none(path, name):
    try:
        return os.getxattr(path, f"user.tbfs.{name}")
    except OSError as e:
        assert e.errno == errno.ENODATA
        return None


def derive_jobs(mount):
    return mount.status()["derive"]["pending"]


@pytest.mark.smoke
def test_photo_and_video_are_derived(new_mount, backend):
    """The whole path on real input."""
    mount = new_mount("passthrough", backend).start()
    keep = keep_path(mount.path, 1, 1)
    for name in ("canon_r5_exif.jpg", "h264_aac.mp4"):
        put(keep, name)
    mount.sync(derived=True)
    for name in ("canon_r5_exif.jpg", "h264_aac.mp4"):
        check_thumbs(keep, name, entry(keep, name))
    wait_until(lambda: mount.objects() == mount.files(), 20, 0.2)


@pytest.mark.parametrize("options", [{"sweep_interval": "0", "inotify": "on"}, {"sweep_interval": "1s", "inotify": "off"}],
                         ids=["bell-only", "sweep-only"])
def test_derivation_starts_by_itself(new_mount, options):
    """With the bell alone within the quiet period + 1 s of close, without it at the next sweep."""
    mount = new_mount(**options).start()
    keep = keep_path(mount.path)
    put(keep, "no_exif.jpg", "a.jpg")
    began = time.monotonic()
    # From then on it is queued, or done already.
    wait_until(lambda: xattr_or_none(keep / "a.jpg", "progress"), 15)
    limit = 0.2 + 1 if options["inotify"] == "on" else 5
    assert time.monotonic() - began < limit * rig.PATIENCE
    wait_until(lambda: len(thumbs_of(keep, "a.jpg")) == 3, 15)


def test_a_listing_seen_before_shows_what_was_derived_since(new_mount):
    """The kernel keeps listings; deriving moves no time of the keep by which it could notice."""
    mount = new_mount(quiet_period="500ms").start()
    keep = keep_path(mount.path)
    put(keep, "no_exif.jpg", "a.jpg")
    assert os.listdir(keep) == os.listdir(keep) == ["a.jpg"]
    mount.sync(derived=True)
    wait_until(lambda: sorted(os.listdir(keep)) == ["a.jpg", "meta.json", "thumbs"], 2)
    os.unlink(keep / "a.jpg")
    wait_until(lambda: os.listdir(keep) == [], 10)


def test_overflow_of_the_bell_loses_nothing(new_mount):
    """IN_Q_OVERFLOW, with a queue of two: everything is found all the same, without a sweep."""
    limit = Path("/proc/sys/fs/inotify/max_queued_events")
    before = limit.read_text()
    limit.write_text("2")           # an instance takes the limit along that holds when it is made
    try:
        mount = new_mount(sweep_interval="0").start()
    finally:
        limit.write_text(before)
    keep = keep_path(mount.path)
    names = []
    while "inotify lost events" not in mount.log.read_text():
        assert len(names) < 5000, "the queue of two never overflows"
        with ThreadPoolExecutor(8) as pool:
            names += pool.map(lambda n: put(keep, "no_exif.jpg", f"{n}.jpg").name,
                              range(len(names), len(names) + 40))
    wait_until(lambda: (keep / "meta.json").exists() and set(meta_of(keep)["files"]) == set(names), 60)


def test_meta_json_is_written_at_most_once_a_second(new_mount):
    """Also while somebody waits for it."""
    mount = new_mount(quiet_period="50ms").start()
    keep = keep_path(mount.path)
    inodes, began = set(), time.monotonic()
    for n in range(30):
        put(keep, "no_exif.jpg", f"{n}.jpg")
        mount.sync(derived=True)
        inodes.add(os.stat(keep / "meta.json").st_ino)
        assert f"{n}.jpg" in meta_of(keep)["files"]
        if time.monotonic() - began > 4:
            break
    assert 1 < len(inodes) <= time.monotonic() - began + 1


def test_a_users_file_in_a_reserved_place_blocks_nobody(new_mount):
    """It stays his, it has its reason where the thumbnails are missing, and when it goes they come."""
    mount = new_mount().start()
    keep, other = keep_path(mount.path, 1, 1), keep_path(mount.path, 1, 2)
    write(keep / "thumbs", b"mine")
    (other / "meta.json").mkdir()
    write(other / "meta.json" / "mine", b"mine")
    for folder in (keep, other):
        put(folder, "no_exif.jpg", "a.jpg")
    mount.sync(derived=True)
    assert read(keep / "thumbs") == b"mine"
    assert entry(keep, "a.jpg")["error"] == {"stage": "store", "code": "taken",
                                             "message": "a file that was not derived is where its thumbnails belong"}
    assert thumbs_of(other, "a.jpg") == sorted(SIZES) and os.listdir(other / "meta.json") == ["mine"]
    assert "meta.json can't be written" in json.dumps(mount.status()["failures"])
    with raises(errno.ENOTEMPTY):
        os.rmdir(keep)
    os.rename(keep / "thumbs", keep / "renamed")
    os.unlink(other / "meta.json" / "mine")
    os.rmdir(other / "meta.json")
    wait_until(lambda: thumbs_of(keep, "a.jpg") == sorted(SIZES))
    wait_until(lambda: "error" not in entry(keep, "a.jpg"))
    wait_until(lambda: (other / "meta.json").is_file())


def test_a_users_own_files_are_never_written_over(new_mount):
    """A folder that becomes a keep with all that is in it, and what was made while nothing was derived."""
    mount = new_mount(derived="off").start()
    early, folder = keep_path(mount.path, 1, 1), mount.path / "import"
    for where in (early, folder):
        (where / "thumbs" / "a.jpg").mkdir(parents=True)
        put(where, "no_exif.jpg", "a.jpg")
        write(where / "meta.json", b"mine")
        write(where / "thumbs" / "a.jpg" / "256.webp", b"mine")
    mount.remount(derived="on")
    os.rename(folder, early.parent / "2")
    mount.sync(derived=True)
    for where in (early, early.parent / "2"):
        assert read(where / "meta.json") == read(where / "thumbs" / "a.jpg" / "256.webp") == b"mine"
        os.unlink(where / "meta.json")
        wait_until(lambda: (where / "meta.json").exists())
        assert entry(where, "a.jpg")["error"]["code"] == "taken"
        os.unlink(where / "thumbs" / "a.jpg" / "256.webp")
    mount.tbfs("retry", mount.path)
    mount.sync(derived=True)
    assert thumbs_of(early, "a.jpg") == sorted(SIZES)


def test_other_names_of_a_file_in_a_derived_place(new_mount):
    """It is not derived for that: rmdir doesn't take it along."""
    mount = new_mount().start()
    keep, photos = keep_path(mount.path), mount.path / "photos"
    photos.mkdir()
    (keep / "folder").mkdir()
    write(photos / "p.txt", b"mine")
    os.link(photos / "p.txt", keep / "folder" / "p.txt")
    os.rename(keep / "folder", keep / "thumbs")
    with raises(errno.ENOTEMPTY):
        os.rmdir(photos)
    assert read(photos / "p.txt") == b"mine"


def test_what_is_derived_follows_the_oldest_name(new_mount):
    """link and unlink, a rename by those who want no name replaced; and a rename over one of two."""
    mount = new_mount().start()
    keep, photos = keep_path(mount.path), mount.path / "photos"
    photos.mkdir()
    for path in (keep / "a.jpg", keep / "b.jpg", photos / "x.jpg"):
        put(path.parent, "no_exif.jpg", path.name)
    put(photos, "orient_6.jpg")
    mount.sync(derived=True)
    os.link(keep / "a.jpg", keep / "a2.jpg")
    os.unlink(keep / "a.jpg")
    os.link(photos / "x.jpg", keep / "x.jpg")
    os.unlink(photos / "x.jpg")
    os.link(keep / "b.jpg", keep / "b2.jpg")
    os.rename(photos / "orient_6.jpg", keep / "b.jpg")
    mount.sync(derived=True)
    names = ["a2.jpg", "b.jpg", "b2.jpg", "x.jpg"]
    assert sorted(os.listdir(keep / "thumbs")) == sorted(meta_of(keep)["files"]) == names
    assert all(thumbs_of(keep, name) == sorted(SIZES) for name in names)


def test_a_name_is_anothers_before_its_former_owner_is_followed(new_mount):
    """Nobody gets what was derived from another: the former owner is open, so it can't be followed yet."""
    mount = new_mount(quiet_period="50ms").start()
    keep = keep_path(mount.path)
    put(keep, "orient_1.jpg", "a.jpg")
    put(keep, "canon_r5_exif.jpg", "c.jpg")
    mount.sync(derived=True)
    first, other = (read(keep / "thumbs" / n / "256.webp") for n in ("a.jpg", "c.jpg"))
    assert first != other
    with open(keep / "a.jpg", "r+b"):
        os.rename(keep / "a.jpg", keep / "b.jpg")
        put(keep, "canon_r5_exif.jpg", "a.jpg")
        wait_until(lambda: read(keep / "thumbs" / "a.jpg" / "256.webp") == other)
    wait_until(lambda: derive_jobs(mount) == 0 and thumbs_of(keep, "b.jpg") == sorted(SIZES), 20)
    assert [read(keep / "thumbs" / n / "256.webp") for n in ("a.jpg", "b.jpg", "c.jpg")] == [other, first, other]


@pytest.mark.parametrize("then", ["removed", "moved"])
def test_a_name_becomes_a_folders_before_its_former_owner_is_followed(keep, then):
    """What is derived of those in the folder neither goes with it nor moves along."""
    mount, keep = keep
    with open(keep / "a.jpg", "r+b"):
        if then == "removed":
            os.unlink(keep / "a.jpg")
        else:
            os.rename(keep / "a.jpg", keep / "old.jpg")
        os.mkdir(keep / "a.jpg")
        put(keep / "a.jpg", "canon_r5_exif.jpg", "b.jpg")
        wait_until(lambda: thumbs_of(keep, "a.jpg/b.jpg") == sorted(SIZES), 20)
    names = ["a.jpg/b.jpg"] + (["old.jpg"] if then == "moved" else [])

    def all_there():
        mount.sync(derived=True)
        found = [os.path.relpath(folder, keep / "thumbs") for folder, _, files in os.walk(keep / "thumbs") if files]
        return sorted(found) == names and all(thumbs_of(keep, n) == sorted(SIZES) for n in names)
    wait_until(all_there, 20)
    time.sleep(4)           # what is gone is looked at later
    wait_until(all_there, 20)


@pytest.mark.parametrize("kind", ["passthrough", "daemon"])
def test_a_folders_name_becomes_a_files_before_what_was_in_it_is_followed(new_mount, kind):
    mount = new_mount(kind, quiet_period="50ms", sweep_interval="0").start()
    keep = keep_path(mount.path)
    (keep / "x").mkdir()
    put(keep / "x", "orient_1.jpg", "c.jpg")
    mount.sync(derived=True)
    with open(keep / "x" / "c.jpg", "r+b"):
        os.rename(keep / "x", keep / "y")
        write(keep / "x", b"no picture")
        wait_until(lambda: xattr_or_none(keep / "x", "progress") == b"done", 20)
    wait_until(lambda: thumbs_of(keep, "y/c.jpg") == sorted(SIZES), 20)
    mount.sync(derived=True)
    assert thumbs_of(keep, "x") == [] and set(meta_of(keep)["files"]) == {"x", "y/c.jpg"}


def test_what_changed_name_and_mode_while_it_was_open_is_followed(keep):
    """Closed unchanged: nothing is derived anew."""
    mount, keep = keep
    inodes = [os.stat(keep / "thumbs" / "a.jpg" / f).st_ino for f in SIZES]
    with open(keep / "a.jpg", "r+b"):
        os.rename(keep / "a.jpg", keep / "b.jpg")
        os.chmod(keep / "b.jpg", 0o600)
        time.sleep(0.5)
    wait_until(lambda: thumbs_of(keep, "b.jpg") == sorted(SIZES), 20)
    thumbs = [os.stat(keep / "thumbs" / "b.jpg" / f) for f in SIZES]
    assert [t.st_ino for t in thumbs] == inodes
    wait_until(lambda: all(stat.S_IMODE(os.stat(keep / "thumbs" / "b.jpg" / f).st_mode) == 0o600 for f in SIZES))
    assert thumbs_of(keep, "a.jpg") == []


def test_who_waits_for_derivation_is_told_of_what_is_open(new_mount):
    """Also of what was to be derived already when it was opened again."""
    mount = new_mount(quiet_period="50ms").start()
    keep = keep_path(mount.path)
    for n in range(8):
        put(keep, "hevc_hvc1.mov", f"{n}.mov")
    wait_until(lambda: xattr_or_none(keep / "7.mov", "progress") == b"pending", every=0.005)
    with open(keep / "7.mov", "r+b") as f:
        f.write(b"x")
        f.flush()
        assert xattr_or_none(keep / "7.mov", "progress") == b"pending"
        r = mount.sync(derived=True, timeout=60, check=False)
        assert r.returncode != 0 and "remain" not in r.err and "open" in r.err


def test_what_was_derived_from_a_replaced_file_goes(keep):
    """Also while what replaced it is not derived, and before that has gone in turn."""
    mount, keep = keep
    with open(keep / "new.jpg", "wb") as f:
        f.write(read(MEDIA / "orient_6.jpg"))
        os.rename(keep / "new.jpg", keep / "a.jpg")
        wait_until(lambda: thumbs_of(keep, "a.jpg") == [], 20)
    mount.sync(derived=True)
    assert thumbs_of(keep, "a.jpg") == sorted(SIZES)


def test_moved_and_changed_before_anybody_looked(new_mount):
    """Nothing stays at the former place."""
    mount = new_mount(quiet_period="1s").start()
    one, two = keep_path(mount.path, keep=1), keep_path(mount.path, keep=2)
    put(one, "no_exif.jpg", "a.jpg")
    mount.sync(derived=True)
    with open(one / "a.jpg", "r+b") as f:
        os.rename(one / "a.jpg", two / "b.jpg")
        f.write(read(MEDIA / "orient_6.jpg"))
        f.truncate()
    mount.sync(derived=True)
    assert sorted(os.listdir(one)) == [] and thumbs_of(two, "b.jpg") == sorted(SIZES)


def test_what_stands_in_the_way_below_thumbs_gives_way(new_mount):
    mount = new_mount().start()
    keep = keep_path(mount.path)
    (keep / "thumbs" / "b.jpg" / "256.webp").mkdir(parents=True)
    write(keep / "thumbs" / "a.jpg", b"in the way")
    for name in ("a.jpg", "b.jpg"):
        put(keep, "no_exif.jpg", name)
    mount.sync(derived=True)
    assert thumbs_of(keep, "a.jpg") == thumbs_of(keep, "b.jpg") == sorted(SIZES)


def test_temporary_names_are_processed_when_asked(new_mount):
    mount = new_mount().start()
    keep = keep_path(mount.path)
    put(keep, "no_exif.jpg", ".a.jpg.Xy12Zw")
    mount.sync(derived=True)
    assert derive_jobs(mount) == 0 and thumbs_of(keep, ".a.jpg.Xy12Zw") == sorted(SIZES)


def test_rename_takes_derivatives_along(keep):
    """Also into another keep, without decoding again."""
    mount, first = keep
    inodes = {f: os.stat(first / "thumbs" / "a.jpg" / f).st_ino for f in SIZES}
    os.rename(first / "a.jpg", first / "b.jpg")
    wait_until(lambda: thumbs_of(first, "b.jpg") == sorted(SIZES))
    assert thumbs_of(first, "a.jpg") == []
    assert {f: os.stat(first / "thumbs" / "b.jpg" / f).st_ino for f in SIZES} == inodes
    second = keep_path(mount.path, 12, 35)
    os.rename(first / "b.jpg", second / "c.jpg")
    wait_until(lambda: thumbs_of(second, "c.jpg") == sorted(SIZES))
    assert {f: os.stat(second / "thumbs" / "c.jpg" / f).st_ino for f in SIZES} == inodes
    assert thumbs_of(first, "b.jpg") == []
    mount.sync(derived=True)
    check_thumbs(second, "c.jpg", entry(second, "c.jpg"))
    assert not (first / "meta.json").exists() or "b.jpg" not in meta_of(first)["files"]
    wait_until(lambda: mount.objects() == mount.files(), 20, 0.2)


def test_one_derived_photo_over_another_or_swapped(new_mount):
    """The thumbnails are those of what has the name now."""
    mount = new_mount().start()
    keep = keep_path(mount.path)
    put(keep, "orient_1.jpg", "a.jpg")
    put(keep, "canon_r5_exif.jpg", "b.jpg")
    put(keep, "iphone7_gps_NW.heic", "c.jpg")
    mount.sync(derived=True)
    before = {n: read(keep / "thumbs" / n / "256.webp") for n in ("a.jpg", "b.jpg", "c.jpg")}
    assert len(set(before.values())) == 3
    syscalls.renameat2(keep / "a.jpg", keep / "b.jpg", syscalls.RENAME_EXCHANGE)
    mount.sync(derived=True)
    wait_until(lambda: read(keep / "thumbs" / "b.jpg" / "256.webp") == before["a.jpg"])
    wait_until(lambda: read(keep / "thumbs" / "a.jpg" / "256.webp") == before["b.jpg"])
    os.rename(keep / "c.jpg", keep / "a.jpg")
    wait_until(lambda: thumbs_of(keep, "c.jpg") == [] and read(keep / "thumbs" / "a.jpg" / "256.webp") == before["c.jpg"])
    mount.sync(derived=True)
    wait_until(lambda: set(meta_of(keep)["files"]) == {"a.jpg", "b.jpg"})
    assert entry(keep, "a.jpg")["mime"].startswith("image/hei")


def test_a_rename_during_derivation_is_followed(new_mount):
    mount = new_mount(quiet_period="50ms").start()
    keep, other = keep_path(mount.path), keep_path(mount.path, 1, 2)
    for n in range(12):
        put(keep, "hevc_hvc1.mov", f"{n}.mov")
    time.sleep(0.3)
    for n in range(12):
        os.rename(keep / f"{n}.mov", other / f"moved{n}.mov")
        time.sleep(0.1)
    mount.sync(derived=True, timeout=100)
    wait_until(lambda: set(meta_of(other)["files"]) == {f"moved{n}.mov" for n in range(12)}, 20)
    for n in range(12):
        assert thumbs_of(other, f"moved{n}.mov") == sorted(SIZES)
    wait_until(lambda: os.listdir(keep) == [], 20)


def test_what_leaves_a_derived_place_is_the_users(keep):
    """It is processed like any other file, and rmdir doesn't take it along."""
    mount, folder = keep
    cover = read(folder / "thumbs" / "a.jpg" / "1600.jpg")
    os.rename(folder / "thumbs" / "a.jpg" / "1600.jpg", folder / "cover.jpg")
    os.unlink(folder / "a.jpg")
    wait_until(lambda: thumbs_of(folder, "cover.jpg") == sorted(SIZES))
    with pytest.raises(OSError) as e:
        os.rmdir(folder)
    assert e.value.errno == errno.ENOTEMPTY and read(folder / "cover.jpg") == cover
    write(folder / "meta.json", b"mine")
    os.rename(folder / "meta.json", folder / "notes.json")
    os.unlink(folder / "cover.jpg")
    with pytest.raises(OSError) as e:
        os.rmdir(folder)
    assert e.value.errno == errno.ENOTEMPTY and read(folder / "notes.json") == b"mine"
    mount.sync(derived=True)
    wait_until(lambda: set(meta_of(folder)["files"]) == {"notes.json"})


def test_delete_removes_derivatives(keep):
    mount, folder = keep
    put(folder, "no_exif.jpg", "b.jpg")
    mount.sync(derived=True)
    os.unlink(folder / "a.jpg")
    wait_until(lambda: thumbs_of(folder, "a.jpg") == [])
    wait_until(lambda: set(meta_of(folder)["files"]) == {"b.jpg"})
    mount.sync(derived=True)
    wait_until(lambda: not [k for k in mount.objects() if b"a.jpg" in k], 20, 0.2)


def test_nothing_is_left_when_what_was_derived_went_first(keep):
    mount, keep = keep
    shutil.rmtree(keep / "thumbs" / "a.jpg")
    os.unlink(keep / "a.jpg")
    wait_until(lambda: os.listdir(keep) == [], 20)


@pytest.mark.parametrize("how", ["derived", "user"])
def test_a_removed_thumbnail_that_was_open_leaves_no_object(keep, how):
    """The kernel would remember it, and nobody be told that it is needed no more, until memory is short."""
    mount, keep = keep
    thumb = keep / "thumbs" / "a.jpg" / "256.webp"
    with open(thumb, "rb") as f:
        os.unlink(keep / "a.jpg")
        if how == "user":
            os.rmdir(keep)
        wait_until(lambda: not thumb.exists(), 20)
        assert len(f.read()) > 100
    wait_until(lambda: mount.objects() == mount.files(), 20)


def test_rmdir_of_a_keep_with_only_derived_files(keep):
    mount, folder = keep
    os.unlink(folder / "a.jpg")
    os.rmdir(folder)
    assert not folder.exists()
    mount.sync()
    wait_until(lambda: mount.objects() == {}, 20, 0.2)
    # With an own file in it, it stays.
    other = keep_path(mount.path, 12, 36)
    put(other, "no_exif.jpg", "x.jpg")
    mount.sync(derived=True)
    with pytest.raises(OSError) as e:
        os.rmdir(other)
    assert e.value.errno == 39      # ENOTEMPTY


def test_rm_r_of_a_keep(keep):
    mount, folder = keep
    run("rm", "-r", folder)
    assert not folder.exists()


def test_rm_r_of_keeps_while_they_are_processed(new_mount):
    mount = new_mount(quiet_period="50ms").start()
    for n in range(15):
        folder = keep_path(mount.path, 1, n)
        for k in range(20):
            put(folder, "no_exif.jpg", f"{k}.jpg")
        time.sleep(0.06 * n)
        run("rm", "-r", folder)
        assert not folder.exists()
    mount.sync(derived=True)
    assert originals(mount.files()) == {}
    wait_until(lambda: mount.objects() == {}, 20, 0.2)
    assert not any(state["count"] for state in mount.status()["files"].values())


def test_moving_a_keep_moves_all(keep):
    mount, folder = keep
    os.rename(folder, folder.with_name("99"))
    folder = folder.with_name("99")
    mount.sync(derived=True)
    assert meta_of(folder)["keep"] == "99"
    check_thumbs(folder, "a.jpg", entry(folder, "a.jpg"))
    wait_until(lambda: mount.objects() == mount.files(), 20, 0.2)
    assert all(k.startswith(b"circles/12/keeps/99/") for k in mount.objects())


def test_changed_original_is_derived_again(keep):
    mount, folder = keep
    before = read(folder / "thumbs" / "a.jpg" / "256.webp")
    write(folder / "a.jpg", read(MEDIA / "progressive.jpg"))
    # While it is under way the old ones are served.
    assert read(folder / "thumbs" / "a.jpg" / "256.webp")
    mount.sync(derived=True)
    assert entry(folder, "a.jpg")["sha256"] == rig.sha256(MEDIA / "progressive.jpg")
    assert os.stat(folder / "thumbs" / "a.jpg" / "256.webp").st_mtime_ns == os.stat(folder / "a.jpg").st_mtime_ns
    assert before is not None


def test_metadata_changes_derive_nothing(keep):
    mount, folder = keep
    times = {f: os.stat(folder / "thumbs" / "a.jpg" / f).st_ino for f in SIZES}
    os.chmod(folder / "a.jpg", 0o600)
    os.setxattr(folder / "a.jpg", "user.x", b"1")
    mount.sync(derived=True)
    assert {f: os.stat(folder / "thumbs" / "a.jpg" / f).st_ino for f in SIZES} == times


def test_deriving_leaves_the_keeps_times_alone(new_mount):
    mount = new_mount(quiet_period="300ms").start()
    keep = keep_path(mount.path)
    put(keep, "no_exif.jpg", "a.jpg")
    before = os.stat(keep)
    mount.sync(derived=True)
    after = os.stat(keep)
    assert (before.st_mtime_ns, before.st_ctime_ns) == (after.st_mtime_ns, after.st_ctime_ns)


def test_removed_derivatives_come_back(keep):
    """rsync --delete from a source that never had them."""
    mount, folder = keep
    run("rm", "-r", folder / "thumbs", folder / "meta.json")
    mount.sync(derived=True)
    wait_until(lambda: thumbs_of(folder, "a.jpg") == sorted(SIZES) and (folder / "meta.json").exists())


def test_a_folder_of_thumbnails_moved_away_is_made_again(keep):
    """What was moved is the user's, and processed as such."""
    mount, folder = keep
    (folder / "sub").mkdir()
    put(folder, "orient_6.jpg", "sub/b.jpg")
    mount.sync(derived=True)
    for away in ("thumbs/sub", "thumbs"):
        os.rename(folder / away, folder / "away")
        wait_until(lambda: thumbs_of(folder, "a.jpg") == thumbs_of(folder, "sub/b.jpg") == sorted(SIZES))
        run("rm", "-r", folder / "away")
        mount.sync(derived=True)
        assert set(meta_of(folder)["files"]) == {"a.jpg", "sub/b.jpg"}


def test_circles_and_keeps_of_any_name(new_mount):
    mount = new_mount().start()
    keep = mount.path / "circles" / os.fsdecode(b"\xffcle") / "keeps" / "Sommer ☀"
    keep.mkdir(parents=True)
    put(keep, "no_exif.jpg", "a.jpg")
    mount.sync(derived=True)
    meta = meta_of(keep)
    assert (meta["circle"], meta["circle_b64"], meta["keep"]) == ("%FFcle", "/2NsZQ==", "Sommer ☀")
    assert "keep_b64" not in meta


def test_meta_json_is_taken(keep):
    """Who asks for a new one is told that there is one, and finds it (Django would ask for ever
    otherwise); a restore may write over it and is derived again."""
    mount, folder = keep
    fresh = keep_path(mount.path, 12, 77)
    for where in (folder, fresh):
        with raises(errno.EEXIST):
            os.close(os.open(where / "meta.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        assert meta_of(where)["version"] == 1
    assert meta_of(fresh)["files"] == {} and os.stat(fresh / "meta.json").st_uid == os.stat(fresh).st_uid
    os.rmdir(fresh)
    write(folder / "meta.json", b"{}")
    mount.sync(derived=True)
    wait_until(lambda: "a.jpg" in meta_of(folder).get("files", {}))


@pytest.mark.parametrize("tool", ["cp", "mv", "tar", "rsync"])
def test_a_keep_is_restored_with_what_was_derived(keep, tool, tmp_path):
    """Into a keep that has no meta.json yet; what the tools put there is accepted and derived again."""
    mount, folder = keep
    saved, back = tmp_path / "saved", mount.path / "circles" / "12" / "keeps" / "35"
    run("cp", "-a", folder, saved)
    if tool == "tar":
        back.mkdir()
        run("tar", "-cf", tmp_path / "t.tar", "-C", saved, ".")
        run("tar", "-xf", tmp_path / "t.tar", "-C", back)
    elif tool == "rsync":
        run("rsync", "-aHAX", f"{saved}/", back)
    else:
        run(*{"cp": ("cp", "-a"), "mv": ("mv",)}[tool], saved, back)
    mount.sync(derived=True)
    wait_until(lambda: meta_of(back)["keep"] == "35")
    assert thumbs_of(back, "a.jpg") == sorted(SIZES) and set(meta_of(back)["files"]) == {"a.jpg"}
    # Within the mount as well.
    run("cp", "-a", back, back.parent / "36")
    mount.sync(derived=True)
    wait_until(lambda: meta_of(back.parent / "36")["keep"] == "36")


def test_subfolders_of_a_keep(keep):
    mount, folder = keep
    (folder / "album" / "day 1").mkdir(parents=True)
    put(folder / "album" / "day 1", "no_exif.jpg", "s.jpg")
    mount.sync(derived=True)
    assert sorted(os.listdir(folder / "thumbs" / "album" / "day 1" / "s.jpg")) == sorted(SIZES)
    assert "album/day 1/s.jpg" in meta_of(folder)["files"]


def test_outside_of_keeps_nothing_is_derived(new_mount):
    mount = new_mount().start()
    for path in ("x.jpg", "circles/y.jpg", "circles/1/z.jpg", "circles/1/keeps/k.jpg", "other/1/keeps/1/n.jpg"):
        (mount.path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(MEDIA / "no_exif.jpg", mount.path / path)
    mount.sync(derived=True)
    assert not [p for p in mount.path.rglob("*") if p.name in ("thumbs", "meta.json")]


def test_names_that_are_not_utf8(keep):
    mount, folder = keep
    name = b"\xe9t\xe9.jpg"
    shutil.copyfile(MEDIA / "no_exif.jpg", os.path.join(os.fsencode(folder), name))
    mount.sync(derived=True)
    e = entry(folder, "%E9t%E9.jpg")
    import base64
    assert base64.b64decode(e["name_b64"]) == name
    assert sorted(os.listdir(os.path.join(os.fsencode(folder), b"thumbs", name))) == sorted(s.encode() for s in SIZES)


def test_derived_hidden_and_off(new_mount):
    mount = new_mount(derived="hidden").start()
    keep = keep_path(mount.path)
    put(keep, "no_exif.jpg", "a.jpg")
    mount.sync(derived=True)
    assert os.listdir(keep) == ["a.jpg"]
    assert read(keep / "meta.json") and read(keep / "thumbs" / "a.jpg" / "256.webp")
    off = new_mount(derived="off").start()
    keep = keep_path(off.path)
    put(keep, "no_exif.jpg", "a.jpg")
    off.sync()
    assert os.listdir(keep) == ["a.jpg"]
    assert not (keep / "meta.json").exists()


def test_original_without_read_bits(keep):
    """meta.json grants what all its originals grant."""
    mount, folder = keep
    assert stat.S_IMODE(os.stat(folder / "meta.json").st_mode) & 0o444 == 0o444
    put(folder, "no_exif.jpg", "private.jpg")
    os.chmod(folder / "private.jpg", 0o600)
    mount.sync(derived=True)
    wait_until(lambda: stat.S_IMODE(os.stat(folder / "meta.json").st_mode) & 0o044 == 0)
    assert stat.S_IMODE(os.stat(folder / "thumbs" / "private.jpg" / "256.webp").st_mode) & 0o044 == 0


# ---- bad input ------------------------------------------------------------------------------

HOSTILE = {
    "noise.jpg": lambda: b"\xff\xd8\xff\xe0" + noise(50_000),
    "noise.mp4": lambda: b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + noise(50_000),
    "noise.heic": lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + noise(50_000),
    "noise.png": lambda: b"\x89PNG\r\n\x1a\n" + noise(50_000),
    "noise.tif": lambda: b"II*\0\x08\0\0\0" + noise(50_000),
    "noise.gif": lambda: b"GIF89a\xff\xff\xff\xff" + noise(50_000),
    "noise.webp": lambda: b"RIFF\xff\xff\xff\x7fWEBPVP8 " + noise(50_000),
    "noise.mkv": lambda: b"\x1a\x45\xdf\xa3" + noise(50_000),
    "empty.jpg": lambda: b"",
    "playlist.mp4": lambda: b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
    "concat.txt": lambda: b"ffconcat version 1.0\nfile /etc/passwd\n",
    "exploit.svg": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
}


@pytest.mark.timeout(180)
def test_bad_files_have_a_reason_and_block_nobody(new_mount):
    mount = new_mount().start()
    keep = keep_path(mount.path)
    for name, make in HOSTILE.items():
        write(keep / name, make())
    put(keep, "no_exif.jpg", "good.jpg")
    wait_until(lambda: len(thumbs_of(keep, "good.jpg")) == 3, 60)
    mount.sync(derived=True, timeout=100)
    meta = meta_of(keep)["files"]
    assert set(meta) == set(HOSTILE) | {"good.jpg"}
    for name in HOSTILE:
        e = meta[name]
        assert e["size"] == len(HOSTILE[name]()) and e["sha256"] == rig.sha256(keep / name)
        if name.startswith("noise"):
            assert set(e["error"]) >= {"stage", "code", "message"}, name
        assert not e.get("thumbs"), name
    assert "error" not in meta["good.jpg"]
    # Stored all the same.
    assert {mount.state(keep / name).split("+")[0] for name in HOSTILE} == {"stored"}


def test_a_dying_worker_is_replaced(new_mount):
    """One that is killed at each job costs that job an error, not the others their turn."""
    mount = new_mount(processor_workers=2).start()
    keep = keep_path(mount.path)

    def workers():
        found = []
        for p in os.listdir("/proc"):
            if p.isdigit():
                try:
                    with open(f"/proc/{p}/stat") as f:
                        if int(f.read().rpartition(")")[2].split()[1]) == mount.pid and rig.alive(int(p)):
                            found.append(int(p))
                except OSError:
                    pass
        return found
    for n in range(10):
        put(keep, "no_exif.jpg", f"p{n}.jpg")
    killed = 0
    deadline = time.monotonic() + 20
    while killed < 3 and time.monotonic() < deadline:
        for pid in workers():
            try:
                os.kill(pid, 9)
                killed += 1
            except ProcessLookupError:
                pass
        time.sleep(0.05)
    assert killed
    mount.sync(derived=True, check=False, timeout=60)
    put(keep, "no_exif.jpg", "after.jpg")
    wait_until(lambda: len(thumbs_of(keep, "after.jpg")) == 3, 60)
    assert rig.alive(mount.pid)


def test_work_goes_on_after_a_kill(new_mount):
    mount = new_mount(processor_workers=1).start()
    keep = keep_path(mount.path)
    for n in range(12):
        put(keep, "canon_r5_exif.jpg", f"p{n}.jpg")
    wait_until(lambda: len(thumbs_of(keep, "p0.jpg")) > 0, 30)
    mount.crash()
    mount.sync(derived=True, timeout=100)
    assert set(meta_of(keep)["files"]) == {f"p{n}.jpg" for n in range(12)}
    for n in range(12):
        assert thumbs_of(keep, f"p{n}.jpg") == sorted(SIZES)


def test_a_new_pipeline_derives_again(keep):
    """What another version made is made anew after an upgrade, and only that."""
    mount, folder = keep
    put(folder, "orient_6.jpg", "b.jpg")
    mount.sync(derived=True)
    before = {name: (folder / "thumbs" / name / "256.webp").stat().st_ino for name in ("a.jpg", "b.jpg")}
    original = (folder / "a.jpg").stat().st_ino
    mount.umount()
    with contextlib.closing(sqlite3.connect(mount.state_dir / "index.db")) as db, db:
        assert db.execute("update derivation set version=version-1 where ino=?", (original,)).rowcount == 1
        assert db.execute("update meta set value=value-1 where name='pipeline'").rowcount == 1
    mount.start()
    mount.sync(derived=True)
    after = {name: (folder / "thumbs" / name / "256.webp").stat().st_ino for name in before}
    assert after["a.jpg"] != before["a.jpg"] and after["b.jpg"] == before["b.jpg"]
    assert set(meta_of(folder)["files"]) == set(before)


def test_same_input_gives_same_bytes(new_mount):
    """Deterministic: two mounts rsync to nothing."""
    found = []
    for _ in range(2):
        mount = new_mount().start()
        keep = keep_path(mount.path)
        for name in ("canon_r5_exif.jpg", "h264_aac.mp4"):
            put(keep, name)
            os.utime(keep / name, ns=(10**18, 10**18))
        mount.sync(derived=True)
        found.append(mount.files())
    assert found[0] == found[1]
