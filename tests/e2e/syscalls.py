# SPDX-License-Identifier: GPL-3.0-or-later
"""System calls that Python's os module does not have."""
import ctypes
import os
import struct

libc = ctypes.CDLL(None, use_errno=True)

AT_FDCWD = -100
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE = 1, 2, 16
FALLOC_FL_COLLAPSE_RANGE = 8
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
AT_SYMLINK_FOLLOW, AT_EMPTY_PATH = 0x400, 0x1000


class Timespec(ctypes.Structure):
    _fields_ = [("sec", ctypes.c_long), ("nsec", ctypes.c_long)]


def _check(result, *paths):
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), *paths[:1])
    return result


def renameat2(old, new, flags):
    _check(libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags), old)


def utimensat(path, atime, mtime, dir_fd=AT_FDCWD):
    """Each time is (seconds, nanoseconds)."""
    times = (Timespec * 2)(Timespec(*atime), Timespec(*mtime))
    name = None if path is None else os.fsencode(path)
    _check(libc.utimensat(dir_fd, name, times, 0), path)


def futimens(fd, atime, mtime):
    times = (Timespec * 2)(Timespec(*atime), Timespec(*mtime))
    _check(libc.futimens(fd, times))


def fallocate(fd, mode, offset, length):
    _check(libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)))


def linkat_fd(fd, new):
    """Give an O_TMPFILE a name."""
    _check(libc.linkat(AT_FDCWD, f"/proc/self/fd/{fd}".encode(), AT_FDCWD, os.fsencode(new),
                       AT_SYMLINK_FOLLOW), new)


def flock64(kind, start=0, length=0):
    """struct flock for fcntl's lock commands."""
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)
