/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What both ends of the control socket share: paths as JSON strings, and the
 * socket's own name.
 */
#include "base/cleanup.h"
#include "base/digest.h"
#include "base/strbuf.h"
#include "cmd/control.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

/* Length of the valid UTF-8 character at p (RFC 3629), 0 if there is none. */
static size_t
utf8_length(const unsigned char *p)
{
	size_t n, i;
	uint32_t c;

	if (p[0] < 0x80)
		return 1;
	if (p[0] >= 0xc2 && p[0] <= 0xdf)
		n = 2;
	else if ((p[0] & 0xf0) == 0xe0)
		n = 3;
	else if (p[0] >= 0xf0 && p[0] <= 0xf4)
		n = 4;
	else
		return 0;
	c = p[0] & (0xffu >> (n + 1));
	for (i = 1; i < n; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (p[i] & 0x3f);
	}
	if ((n == 3 && c < 0x800) || (n == 4 && (c < 0x10000 || c > 0x10ffff)) ||
	    (c >= 0xd800 && c <= 0xdfff))
		return 0;
	return n;
}

json_t *
control_path_encode(const char *path)
{
	CLEANUP_STRBUF struct strbuf out = STRBUF_INIT;
	const unsigned char *p = (const unsigned char *)path;

	strbuf_addstr(&out, "");
	while (*p != '\0') {
		size_t n = utf8_length(p);

		if (n == 0 || *p < 0x20 || *p == 0x7f || *p == '%') {
			strbuf_addf(&out, "%%%02X", *p++);
			continue;
		}
		strbuf_add(&out, p, n);
		p += n;
	}
	return strbuf_ok(&out) ? json_stringn(out.data, out.len) : NULL;
}

int
control_path_decode(const char *text, char **ret_path)
{
	CLEANUP_FREE char *path = malloc(strlen(text) + 1);
	size_t n = 0;

	if (path == NULL)
		return -ENOMEM;
	for (; *text != '\0'; text++) {
		unsigned char byte;
		char digits[3];

		if (*text != '%') {
			path[n++] = *text;
			continue;
		}
		(void)snprintf(digits, sizeof(digits), "%.2s", text + 1);
		if (strlen(digits) != 2 || hex_decode(digits, &byte, 1) < 0 || byte == 0)
			return -EINVAL;
		path[n++] = (char)byte;
		text += 2;
	}
	path[n] = '\0';
	*ret_path = TAKE_PTR(path);
	return 0;
}

/* sun_path holds 107 bytes, a state directory may be longer: /proc/self/fd/N is short. */
int
control_socket_dir(const char *path, char *ret_path, size_t room)
{
	const char *slash = strrchr(path, '/');
	CLEANUP_FREE char *dir = NULL;
	int fd, n;

	if (slash == NULL || slash == path || slash[1] == '\0')
		return -EINVAL;
	dir = strndup(path, (size_t)(slash - path));
	if (dir == NULL)
		return -ENOMEM;
	fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = snprintf(ret_path, room, "/proc/self/fd/%d/%s", fd, slash + 1);
	if (n < 0 || (size_t)n >= room) {
		(void)close(fd);
		return -ENAMETOOLONG;
	}
	return fd;
}
