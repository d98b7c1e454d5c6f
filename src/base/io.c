/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "base/io.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

int
write_full(int fd, const void *buf, size_t len)
{
	const char *p = buf;

	while (len > 0) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

int
pwrite_full(int fd, const void *buf, size_t len, uint64_t off)
{
	const char *p = buf;

	while (len > 0) {
		ssize_t n = pwrite(fd, p, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		p += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

ssize_t
read_full(int fd, void *buf, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = read(fd, (char *)buf + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

ssize_t
pread_full(int fd, void *buf, size_t len, uint64_t off)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(fd, (char *)buf + done, len - done, (off_t)(off + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

static int
copy_buffered(int in, uint64_t off_in, int out, uint64_t off_out, uint64_t len)
{
	enum { CHUNK = 1 << 20 };
	CLEANUP_FREE char *buf = malloc(CHUNK);

	if (buf == NULL)
		return -ENOMEM;
	while (len > 0) {
		size_t want = len < CHUNK ? (size_t)len : CHUNK;
		ssize_t n = pread_full(in, buf, want, off_in);
		int r;

		if (n < 0)
			return (int)n;
		if (n == 0)
			return -EIO;
		r = pwrite_full(out, buf, (size_t)n, off_out);
		if (r < 0)
			return r;
		off_in += (uint64_t)n;
		off_out += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

int
copy_range(int in, uint64_t off_in, int out, uint64_t off_out, uint64_t len)
{
	off_t i = (off_t)off_in, o = (off_t)off_out;

	while (len > 0) {
		ssize_t n = copy_file_range(in, &i, out, &o, len < SSIZE_MAX ? len : SSIZE_MAX, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EXDEV || errno == EINVAL || errno == ENOSYS ||
		    errno == EOPNOTSUPP || errno == EBADF))
			return copy_buffered(in, (uint64_t)i, out, (uint64_t)o, len);
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		len -= (uint64_t)n;
	}
	return 0;
}

int
fsync_dirat(int dirfd, const char *path)
{
	CLEANUP_CLOSE int fd = openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	return fsync(fd) < 0 ? -errno : 0;
}

int
mkdir_parents(int dirfd, const char *path, mode_t mode)
{
	char buf[PATH_MAX];
	char *p;

	if (strlen(path) >= sizeof(buf))
		return -ENAMETOOLONG;
	strcpy(buf, path);
	for (p = buf + 1; *p != '\0'; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		if (mkdirat(dirfd, buf, mode) < 0 && errno != EEXIST)
			return -errno;
		*p = '/';
	}
	if (mkdirat(dirfd, buf, mode) < 0 && errno != EEXIST)
		return -errno;
	return 0;
}

int
read_file(int dirfd, const char *path, size_t max, char **ret_text, size_t *ret_len)
{
	CLEANUP_CLOSE int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);
	CLEANUP_FREE char *text = NULL;
	size_t len = 0, room = 4096;

	if (fd < 0)
		return -errno;
	for (;;) {
		char *more = realloc(text, room + 1);
		ssize_t n;

		if (more == NULL)
			return -ENOMEM;
		text = more;
		n = read_full(fd, text + len, room - len);
		if (n < 0)
			return (int)n;
		len += (size_t)n;
		if (len < room)
			break;
		if (room > max)
			return -EFBIG;
		room *= 2;
	}
	if (len > max)
		return -EFBIG;
	text[len] = '\0';
	*ret_text = TAKE_PTR(text);
	if (ret_len != NULL)
		*ret_len = len;
	return 0;
}
