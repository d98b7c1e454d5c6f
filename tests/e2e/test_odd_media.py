# SPDX-License-Identifier: GPL-3.0-or-later
"""Media as the world makes them: each file is built here, byte by byte where no library would."""
import io
import struct

import pytest
from PIL import Image, ImageCms

import rig
from rig import MEDIA, keep_path, read
from test_processing import meta_of


# ---- builders -------------------------------------------------------------------------------

def tiff(first, subs=(), big=False, tail=b""):
    """A little-endian TIFF: IFD0 from {tag: (type, values)}; `subs` become SubIFDs of it."""
    sizes, codes = {1: 1, 2: 1, 3: 2, 4: 4}, {1: "B", 3: "H", 4: "I"}
    head, entry, count, word = (16, 20, 8, "Q") if big else (8, 12, 2, "I")
    inline = struct.calcsize(word)

    def directory(tags, at):
        body, extra = b"", b""
        extra_at = at + count + entry * len(tags) + inline
        for tag, (kind, values) in sorted(tags.items()):
            data = values if isinstance(values, bytes) else struct.pack(f"<{len(values)}{codes[kind]}", *values)
            body += struct.pack(f"<HH{word}", tag, kind, len(data) // sizes[kind])
            if len(data) <= inline:
                body += data.ljust(inline, b"\0")
            else:
                body += struct.pack(f"<{word}", extra_at + len(extra))
                extra += data + b"\0" * (len(data) % 2)
        return struct.pack("<Q" if big else "<H", len(tags)) + body + b"\0" * inline + extra

    first = dict(first)
    strip_at, at = head, head + len(tail)
    if tail:
        first[0x0111] = (4, [strip_at])
        first[0x0117] = (4, [len(tail)])
    pieces = []
    if subs:
        places = []
        for tags in subs:
            places.append(at)
            pieces.append(directory(tags, at))
            at += len(pieces[-1])
        first[0x014a] = (4, places)
    header = struct.pack("<2sHHHQ", b"II", 43, 8, 0, at) if big else struct.pack("<2sHI", b"II", 42, at)
    return header + tail + b"".join(pieces) + directory(first, at)


def page(width, height, bands=1, bits=8, **more):
    """Tags of an uncompressed page."""
    return {0x0100: (4, [width]), 0x0101: (4, [height]), 0x0102: (3, [bits] * bands), 0x0103: (3, [1]),
            0x0106: (3, [2 if bands == 3 else 1]), 0x0115: (3, [bands]), 0x0116: (4, [height])} | more


def raw_file(make=None, dng=False, sensor=False):
    if sensor:
        return tiff(page(4000, 3000, 1, 16) | {0x0106: (3, [32803]), 0x010f: (2, make)}, tail=bytes(48))
    tags = page(8, 6) | {0x00fe: (4, [1])}
    if make:
        tags[0x010f] = (2, make)
    if dng:
        tags[0xc612] = (1, b"\1\4\0\0")
    return tiff(tags, subs=[page(400, 300), page(4000, 3000)], tail=bytes(48))


def icc(description, red, green, blue, curve):
    """A matrix profile (ICC.1:2001) with these primaries (XYZ at D50)."""
    def xyz(v):
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(x * 65536) for x in v))
    text = description.encode()
    tags = {b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text) + 1) + text + b"\0" + bytes(78),
            b"cprt": b"text\0\0\0\0CC0\0", b"wtpt": xyz((.9642, 1, .8249)), b"rXYZ": xyz(red), b"gXYZ": xyz(green),
            b"bXYZ": xyz(blue), b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    at, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"lcms", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


SRGB_CURVE = b"para\0\0\0\0\0\3\0\0" + struct.pack(">5i", *(round(x * 65536) for x in (
    2.4, 1 / 1.055, .055 / 1.055, 1 / 12.92, .04045)))
# What phones write: the name has sRGB in it, the colours are P3's.
P3 = icc("DCI-P3 D65 Gamut with sRGB Transfer", (.5151, .2412, -.0011), (.2919, .6922, .0419), (.1572, .0666, .7841),
         SRGB_CURVE)
LINEAR = icc("Linear sRGB", (.4361, .2225, .0139), (.3851, .7169, .0971), (.1431, .0606, .7141),
             b"curv\0\0\0\0\0\0\0\0")
SRGB = icc("without a name", (.4361, .2225, .0139), (.3851, .7169, .0971), (.1431, .0606, .7141), SRGB_CURVE)
COLOURS = ((200, 60, 60), (60, 180, 60), (60, 60, 190), (220, 200, 90))


def bars():
    image = Image.new("RGB", (400, 100))
    for i, colour in enumerate(COLOURS):
        image.paste(colour, (100 * i, 0, 100 * i + 100, 100))
    return image


def jpeg(image, **options):
    out = io.BytesIO()
    image.save(out, "JPEG", quality=95, subsampling=0, **options)
    return out.getvalue()


def below_the_ellipsoid():
    exif = Image.Exif()
    exif[0x8825] = {1: "N", 2: (52., 31., 0.), 3: "E", 4: (13., 24., 0.), 5: b"\3", 6: 100.}
    return jpeg(bars(), exif=exif)


def large_avif():
    """More decoded than libvips keeps in memory by itself."""
    out = io.BytesIO()
    Image.new("RGB", (6400, 5400), (90, 120, 40)).save(out, "AVIF", speed=10)
    return out.getvalue()


def wav(cut=0):
    data = bytes(range(256)) * 8
    body = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 8000, 1, 8) + b"data" + struct.pack("<I", len(data))
    whole = b"RIFF" + struct.pack("<I", len(body) + len(data)) + body + data
    return whole[:len(whole) - cut]


def adts():
    return b"\xff\xf1\x50\x80\x04\x1f\xfc".ljust(32, b"\0") * 20


def id3(size):
    return b"ID3\4\0\0" + bytes((size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127)) + bytes(size)


def patched(name, old, new, more=0):
    """The sample with `old`, and `more` bytes after it, replaced."""
    data = read(MEDIA / name)
    at = data.find(old)
    assert at >= 0, f"{name} is another file than this test was written for"
    return data[:at] + new + data[at + len(old) + more:]


NCLX = b"nclx\0\1\0\x0d"
FILES = {
    "dng.dng": raw_file(dng=True), "nef.nef": raw_file(make=b"NIKON CORPORATION\0"),
    "pef.pef": raw_file(make=b"PENTAX \0", sensor=True),
    "big.tif": tiff(page(40, 30), big=True, tail=bytes(range(200)) * 6),
    "deep.tif": tiff(page(20, 20, 3, 32), tail=struct.pack("<3I", 200 << 24, 100 << 24, 50 << 24) * 400),
    "p3.jpg": jpeg(bars(), icc_profile=P3), "linear.jpg": jpeg(bars(), icc_profile=LINEAR),
    "srgb.jpg": jpeg(bars(), icc_profile=SRGB), "plain.jpg": jpeg(bars()),
    "below.jpg": below_the_ellipsoid(),
    "junk.webp": read(MEDIA / "canon7d_exif.webp") + bytes(100),
    "junk.mp4": read(MEDIA / "h264_aac.mp4") + b"SEFT" * 20,
    "wide.mp4": patched("h264_aac.mp4", b"pasp\0\0\0\1\0\0\0\1", b"pasp\0\0\0\4\0\0\0\3"),
    "whole.wav": wav(), "cut.wav": wav(cut=1),
    "tagged.aac": id3(300_000) + adts(),
    "sdr.avif": read(MEDIA / "photo_8bit.avif"), "p3.avif": patched("photo_8bit.avif", NCLX, b"nclx\0\x0c\0\x0d"),
    "pq.avif": patched("photo_8bit.avif", NCLX, b"nclx\0\x09\0\x10"),
    "large.avif": large_avif(), "unfinished.webp": patched("canon7d_exif.webp", b"RIFF", b"RIFF\0\0\0\0", 4),
    "delimited.h264": b"\0\0\0\1\x09\xf0\0\0\1\6\5\1\0\x80\0\0\1\x67" + bytes(range(1, 200)),
    "dna.txt": (b"G" + b"ACGT" * 46 + b"ACT") * 60,
    "gif.txt": b"GIF89a is a format of pictures\n" * 20,
    "wide.md": b"The wide river\n" * 20, "ftyp.txt": b"The ftyp box\n" * 20, "mdat.txt": b"The mdat box\n" * 20,
    "id3.txt": b"ID3 tags are at the start\n" * 20, "ogg.txt": b"OggS begins a page\n" * 20,
    "flac.txt": b"fLaC begins a stream\n" * 20,
}


@pytest.fixture(scope="module")
def odd():
    mount = rig.Mount("passthrough").start()
    try:
        mount.keep = keep_path(mount.path, 1, 1)
        for name, data in FILES.items():
            (mount.keep / name).write_bytes(data)
        mount.sync(derived=True, timeout=60)
        mount.meta = meta_of(mount.keep)["files"]
        yield mount
        mount.stop()
    finally:
        mount.destroy()


def thumb(odd, name):
    return Image.open(odd.keep / "thumbs" / name / "256.webp").convert("RGB")


def bar_colours(image):
    w, h = image.size
    return [image.getpixel((w * (2 * i + 1) // 8, h // 2)) for i in range(4)]


def far(a, b):
    return max(abs(x - y) for p, q in zip(a, b) for x, y in zip(p, q))


# ---- what must come of them -----------------------------------------------------------------

@pytest.mark.parametrize("name, mime", [("dng.dng", "image/x-adobe-dng"), ("nef.nef", "image/x-nikon-nef"),
                                        ("pef.pef", "image/x-pentax-pef")])
def test_a_raw_files_preview_is_not_the_photo(odd, name, mime):
    e = odd.meta[name]
    assert (e["mime"], e["width"], e["height"], e["error"]["code"]) == (mime, 4000, 3000, "unsupported")
    assert "thumbs" not in e


def test_bigtiff_is_a_tiff(odd):
    e = odd.meta["big.tif"]
    assert (e["width"], e["height"], len(e["thumbs"]), "error" in e) == (40, 30, 3, False)


def test_a_still_of_more_than_100_mb(odd):
    e = odd.meta["large.avif"]
    assert (e["width"], e["height"], len(e.get("thumbs", [])), e.get("error")) == (6400, 5400, 3, None)
    assert far([thumb(odd, "large.avif").getpixel((100, 100))], [(90, 120, 40)]) < 6


def test_a_webp_whose_writer_never_came_back(odd):
    e = odd.meta["unfinished.webp"]
    assert e["width"] > 0 and ("thumbs" in e) != ("error" in e)


def test_a_stream_without_a_container(odd):
    assert odd.meta["delimited.h264"]["mime"] == "video/h264"


def test_32_bits_a_channel(odd):
    assert far([thumb(odd, "deep.tif").getpixel((10, 10))], [(200, 100, 50)]) < 8


@pytest.mark.parametrize("name, profile", [("p3.jpg", P3), ("linear.jpg", LINEAR), ("srgb.jpg", SRGB), ("plain.jpg", None)])
def test_a_profile_is_judged_by_its_numbers(odd, name, profile):
    expected = bars()
    if profile:
        expected = ImageCms.profileToProfile(expected, ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                                             ImageCms.createProfile("sRGB"))
    assert far(bar_colours(thumb(odd, name)), bar_colours(expected)) < 10


def p3_to_srgb(pixel):
    light = [c / 255 / 12.92 if c <= 10 else ((c / 255 + .055) / 1.055) ** 2.4 for c in pixel]
    rows = ((1.2249, -.2247, 0), (-.0420, 1.0419, 0), (-.0197, -.0786, 1.0979))
    mixed = [min(max(sum(m * c for m, c in zip(row, light)), 0), 1) for row in rows]
    return tuple(round(255 * (12.92 * c if c <= .0031308 else 1.055 * c ** (1 / 2.4) - .055)) for c in mixed)


def test_colours_named_by_code_points(odd):
    plain, wide, pq = (thumb(odd, f"{kind}.avif").resize((8, 8), Image.Resampling.BOX) for kind in ("sdr", "p3", "pq"))
    plain, wide, pq = (list(image.getdata()) for image in (plain, wide, pq))
    assert far(wide, [p3_to_srgb(p) for p in plain]) < 8
    assert far(wide, plain) > 1
    assert far(pq, plain) > 20


def test_altitude_below_the_ellipsoid(odd):
    assert odd.meta["below.jpg"]["gps"]["alt"] == -100


@pytest.mark.parametrize("name", ["junk.webp", "junk.mp4", "whole.wav"])
def test_what_follows_a_whole_file_is_no_damage(odd, name):
    assert "error" not in odd.meta[name]


def test_one_byte_missing_is_said(odd):
    assert odd.meta["cut.wav"]["error"]["code"] == "truncated"
    assert odd.meta["cut.wav"]["error"]["stage"] == "audio"


def test_wide_pixels_are_measured_as_displayed(odd):
    e = odd.meta["wide.mp4"]
    assert (e["width"], e["height"], e["video"]["width"]) == (853, 360, 640)
    assert (e["thumbs"][2]["width"], e["thumbs"][2]["height"]) == (853, 360)


def test_a_tag_longer_than_what_is_looked_at(odd):
    assert odd.meta["tagged.aac"]["mime"] == "audio/aac"


@pytest.mark.parametrize("name", [n for n in FILES if n.endswith((".txt", ".md"))])
def test_a_text_is_a_text(odd, name):
    e = odd.meta[name]
    assert (e["kind"], e["mime"], "error" in e) == ("other", "text/plain", False)
