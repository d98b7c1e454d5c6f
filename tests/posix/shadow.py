# SPDX-License-Identifier: GPL-3.0-or-later
"""One program of system calls, run below two directories: what each call gave, and what is left."""
import errno
import os
import stat

import syscalls as sc

NAMES = ("a", "b", "c")


def attempt(call, *args, **options):
    """The call's value, or its errno's name."""
    try:
        return call(*args, **options)
    except OSError as e:
        return errno.errorcode.get(e.errno, e.errno)


class Program:
    """Executes operations below `root`; paths are tuples of names."""

    def __init__(self, root):
        self.root = os.fsencode(root)
        self.handles = {}

    def at(self, path):
        return os.path.join(self.root, *(os.fsencode(name) for name in path))

    def run(self, operations):
        results = [attempt(getattr(self, name), *args) for name, *args in operations]
        for fd in self.handles.values():
            os.close(fd)
        self.handles = {}
        return results

    # ---- names
    def mkdir(self, path):
        os.mkdir(self.at(path), 0o755)

    def rmdir(self, path):
        os.rmdir(self.at(path))

    def unlink(self, path):
        os.unlink(self.at(path))

    def rename(self, old, new, flags):
        sc.renameat2(self.at(old), self.at(new), flags)

    def link(self, old, new):
        os.link(self.at(old), self.at(new), follow_symlinks=False)

    def symlink(self, target, path):
        os.symlink("/".join(target), self.at(path))

    def readlink(self, path):
        return os.readlink(self.at(path))

    def mkfifo(self, path):
        os.mkfifo(self.at(path), 0o600)

    def listdir(self, path):
        return sorted(os.listdir(self.at(path)))

    # ---- attributes
    def stat(self, path):
        return describe(os.stat(self.at(path)))

    def lstat(self, path):
        return describe(os.lstat(self.at(path)))

    def chmod(self, path, mode):
        os.chmod(self.at(path), mode)

    def utime(self, path, seconds):
        os.utime(self.at(path), ns=(seconds * 10**9 + 7, seconds * 10**9 + 11))
        return os.stat(self.at(path)).st_mtime_ns

    def setxattr(self, path, name, value, flags):
        os.setxattr(self.at(path), f"user.{name}", value, flags, follow_symlinks=False)

    def getxattr(self, path, name):
        return os.getxattr(self.at(path), f"user.{name}", follow_symlinks=False)

    def removexattr(self, path, name):
        os.removexattr(self.at(path), f"user.{name}", follow_symlinks=False)

    # ---- bytes
    def write(self, path, flags, offset, data):
        fd = os.open(self.at(path), os.O_WRONLY | flags | os.O_NONBLOCK, 0o640)
        try:
            return os.pwrite(fd, data, offset)
        finally:
            os.close(fd)

    def read(self, path, offset, length):
        fd = os.open(self.at(path), os.O_RDONLY | os.O_NONBLOCK)
        try:
            return os.pread(fd, length, offset)
        finally:
            os.close(fd)

    def truncate(self, path, length):
        os.truncate(self.at(path), length)

    def fallocate(self, path, mode, offset, length):
        fd = os.open(self.at(path), os.O_WRONLY | os.O_NONBLOCK)
        try:
            sc.fallocate(fd, mode, offset, length)
        finally:
            os.close(fd)

    def copy(self, old, new, length):
        src = os.open(self.at(old), os.O_RDONLY | os.O_NONBLOCK)
        try:
            dst = os.open(self.at(new), os.O_WRONLY | os.O_NONBLOCK)
            try:
                return os.copy_file_range(src, dst, length)
            finally:
                os.close(dst)
        finally:
            os.close(src)

    # ---- handles that stay open across other calls
    def hold(self, path, number, flags):
        fd = os.open(self.at(path), flags | os.O_NONBLOCK, 0o600)
        if number in self.handles:
            os.close(self.handles[number])
        self.handles[number] = fd

    def held_write(self, number, offset, data):
        return os.pwrite(self.handles[number], data, offset) if number in self.handles else None

    def held_read(self, number, offset, length):
        return os.pread(self.handles[number], length, offset) if number in self.handles else None

    def held_truncate(self, number, length):
        return os.ftruncate(self.handles[number], length) if number in self.handles else None

    def held_stat(self, number):
        return describe(os.fstat(self.handles[number])) if number in self.handles else None

    def release(self, number):
        if number in self.handles:
            os.close(self.handles.pop(number))


def describe(s):
    """What must be the same; a directory's size and the inode's number are a file system's own."""
    size = None if stat.S_ISDIR(s.st_mode) else s.st_size
    return stat.S_IFMT(s.st_mode), stat.S_IMODE(s.st_mode), s.st_nlink, s.st_uid, s.st_gid, size


def picture(root):
    """The whole tree: relative name → (what it is, bytes or target, extended attributes)."""
    root, found = os.fsencode(root), {}
    for base, folders, files in os.walk(root):
        for name in folders + files:
            path = os.path.join(base, name)
            s = os.lstat(path)
            if stat.S_ISREG(s.st_mode):
                with open(path, "rb") as f:
                    content = f.read()
            else:
                content = os.readlink(path) if stat.S_ISLNK(s.st_mode) else None
            xattrs = {} if stat.S_ISLNK(s.st_mode) else {
                n: os.getxattr(path, n) for n in os.listxattr(path) if n.startswith("user.")}
            found[os.path.relpath(path, root)] = describe(s), content, xattrs
    return found
