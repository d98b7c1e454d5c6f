/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The spelling of an object's metadata; see meta.h for the fields.
 *
 * Whatever is written here can be read back to the same struct, and what others
 * wrote (rclone's "1600000000.5", s3fs's "1600000000") is read as they meant it.
 * No state.
 */
#include "backends/meta.h"

#include "base/clock.h"
#include "base/strbuf.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a field costs of S3's limit beside its name and value: strlen("x-amz-meta-"). */
enum { FIELD_COST = 11 };

struct each {
	meta_field_fn *fn;
	void *arg;
	size_t used;
	int r;				/* the first non-zero answer of fn */
};

static void
give(struct each *e, const char *name, const char *value)
{
	if (e->r != 0)
		return;
	e->used += FIELD_COST + strlen(name) + strlen(value);
	e->r = e->fn(e->arg, name, value);
}

static void
give_number(struct each *e, const char *name, uint64_t number)
{
	char text[24];

	(void)snprintf(text, sizeof(text), "%" PRIu64, number);
	give(e, name, text);
}

static void
give_mtime(struct each *e, int64_t ns)
{
	uint64_t abs_ns = ns < 0 ? -(uint64_t)ns : (uint64_t)ns;
	char text[40];

	(void)snprintf(text, sizeof(text), "%s%" PRIu64 ".%09u", ns < 0 ? "-" : "",
	    (uint64_t)(abs_ns / NSEC_PER_SEC), (unsigned)(abs_ns % NSEC_PER_SEC));
	give(e, "mtime", text);
}

static bool
is_plain(unsigned char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	    c == '/' || c == '.' || c == '-' || c == '_' || c == '~';
}

/* True if the path went out, false where it doesn't fit. */
static bool
give_path(struct each *e, const char *path)
{
	char text[META_MAX + 4];
	size_t room, len = 0;

	if (e->used + FIELD_COST + strlen("tbfs-path") > META_MAX)
		return false;
	room = META_MAX - e->used - FIELD_COST - strlen("tbfs-path");
	for (; *path != '\0'; path++) {
		unsigned char c = (unsigned char)*path;

		if (is_plain(c))
			text[len++] = (char)c;
		else
			len += (size_t)snprintf(text + len, sizeof(text) - len, "%%%02X", c);
		if (len > room)
			return false;
	}
	text[len] = '\0';
	give(e, "tbfs-path", text);
	return true;
}

int
meta_each(const struct object_meta *m, const uint8_t sum[SHA256_LEN], meta_field_fn *fn, void *arg,
    bool *ret_path_left_out)
{
	struct each e = { .fn = fn, .arg = arg };
	char hex[2 * SHA256_LEN + 1];
	bool left_out = false;

	give_mtime(&e, m->mtime_ns);
	if (m->mode != 0) {
		give_number(&e, "mode", m->mode);
		give_number(&e, "uid", m->uid);
		give_number(&e, "gid", m->gid);
	}
	hex_encode(sum, SHA256_LEN, hex);
	give(&e, "sha256", hex);
	if (m->seq != 0)
		give_number(&e, "tbfs-seq", m->seq);
	if (m->object_id != 0)
		give_number(&e, "tbfs-id", m->object_id);
	if (m->generation != 0)
		give_number(&e, "tbfs-generation", m->generation);
	if (m->path != NULL && m->path[0] != '\0' && strlen(m->path) < sizeof(((struct backend_tag *)0)->path))
		left_out = !give_path(&e, m->path);
	else if (m->path != NULL && m->path[0] != '\0')
		left_out = true;
	if (ret_path_left_out != NULL)
		*ret_path_left_out = left_out;
	return e.r;
}

static bool
parse_number(const char *text, uint64_t max, uint64_t *ret)
{
	char *end;
	unsigned long long v;

	if (!isdigit((unsigned char)text[0]))
		return false;
	errno = 0;
	v = strtoull(text, &end, 10);
	if (errno != 0 || *end != '\0' || v > max)
		return false;
	*ret = v;
	return true;
}

static bool
parse_mtime(const char *text, int64_t *ret)
{
	bool negative = text[0] == '-';
	int64_t ns = 0, scale = NSEC_PER_SEC / 10;
	uint64_t sec = 0;

	if (negative)
		text++;
	if (!isdigit((unsigned char)text[0]))
		return false;
	for (; isdigit((unsigned char)*text); text++) {
		sec = sec * 10 + (uint64_t)(*text - '0');
		if (sec > INT64_MAX / NSEC_PER_SEC - 1)
			return false;
	}
	if (*text == '.')
		for (text++; isdigit((unsigned char)*text); text++, scale /= 10)
			ns += scale * (*text - '0');
	if (*text != '\0')
		return false;
	ns += (int64_t)sec * NSEC_PER_SEC;
	*ret = negative ? -ns : ns;
	return true;
}

static void
parse_path(const char *text, char *ret_path, size_t room)
{
	size_t len = 0;

	while (*text != '\0' && len + 1 < room) {
		char hex[3] = { 0 };
		unsigned char c;

		if (*text != '%') {
			ret_path[len++] = *text++;
			continue;
		}
		if (text[1] == '\0' || text[2] == '\0')
			break;
		hex[0] = text[1];
		hex[1] = text[2];
		if (hex_decode(hex, &c, 1) < 0 || c == '\0')
			break;
		ret_path[len++] = (char)c;
		text += 3;
	}
	/* Half a path is worse than none. */
	ret_path[*text == '\0' ? len : 0] = '\0';
}

void
meta_parse(struct backend_tag *tag, const char *name, const char *value)
{
	uint64_t v;

	if (strcmp(name, "mtime") == 0) {
		(void)parse_mtime(value, &tag->mtime_ns);
	} else if (strcmp(name, "sha256") == 0) {
		tag->has_sha256 = hex_decode(value, tag->sha256, SHA256_LEN) == 0;
	} else if (strcmp(name, "tbfs-path") == 0) {
		parse_path(value, tag->path, sizeof(tag->path));
	} else if (strcmp(name, "mode") == 0 && parse_number(value, UINT32_MAX, &v)) {
		tag->mode = (uint32_t)v;
		tag->has_attrs = true;
	} else if (strcmp(name, "uid") == 0 && parse_number(value, UINT32_MAX, &v)) {
		tag->uid = (uint32_t)v;
	} else if (strcmp(name, "gid") == 0 && parse_number(value, UINT32_MAX, &v)) {
		tag->gid = (uint32_t)v;
	} else if (strcmp(name, "tbfs-seq") == 0 && parse_number(value, UINT64_MAX, &v)) {
		tag->seq = v;
	} else if (strcmp(name, "tbfs-id") == 0 && parse_number(value, UINT64_MAX, &v)) {
		tag->object_id = v;
	} else if (strcmp(name, "tbfs-generation") == 0 && parse_number(value, UINT64_MAX, &v)) {
		tag->generation = v;
	}
}

static int
field_to_tag(void *arg, const char *name, const char *value)
{
	meta_parse(arg, name, value);
	return 0;
}

void
meta_to_tag(const struct object_meta *m, uint64_t size, const uint8_t sum[SHA256_LEN],
    struct backend_tag *ret_tag)
{
	memset(ret_tag, 0, sizeof(*ret_tag));
	ret_tag->size = size;
	/* By way of the fields, so that the tag of a put and that of a later stat agree. */
	(void)meta_each(m, sum, field_to_tag, ret_tag, NULL);
}
