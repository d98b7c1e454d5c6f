/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The checked wrappers around a backend's operations: arguments on the way in, results on the
 * way out, counts in between. */
#include "backends/backend.h"

#include "base/lock.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

enum { KEY_MAX = 1024, EXPIRES_MAX = 604800 };

/* Length of the UTF-8 sequence at p (RFC 3629), 0 when it is none. */
static size_t
utf8_length(const unsigned char *p)
{
	if (*p < 0x80)
		return 1;
	if (*p >= 0xc2 && *p < 0xe0)
		return (p[1] & 0xc0) == 0x80 ? 2 : 0;
	if (*p >= 0xe0 && *p < 0xf0)
		return (p[1] & 0xc0) == 0x80 && (p[2] & 0xc0) == 0x80 && !(*p == 0xe0 && p[1] < 0xa0) &&
		    !(*p == 0xed && p[1] > 0x9f) ? 3 : 0;
	if (*p >= 0xf0 && *p < 0xf5)
		return (p[1] & 0xc0) == 0x80 && (p[2] & 0xc0) == 0x80 && (p[3] & 0xc0) == 0x80 &&
		    !(*p == 0xf0 && p[1] < 0x90) && !(*p == 0xf4 && p[1] > 0x8f) ? 4 : 0;
	return 0;
}

static bool
component_ok(const char *at, size_t len)
{
	return len > 0 && !(len == 1 && at[0] == '.') && !(len == 2 && at[0] == '.' && at[1] == '.');
}

bool
backend_key_ok(const char *key)
{
	size_t len = strlen(key), i = 0, begin = 0;

	if (len == 0 || len > KEY_MAX)
		return false;
	while (i < len) {
		size_t n = utf8_length((const unsigned char *)key + i);

		if (n == 0 || (unsigned char)key[i] < 0x20 || key[i] == 0x7f)
			return false;
		if (key[i] == '/') {
			if (!component_ok(key + begin, i - begin))
				return false;
			begin = i + 1;
		}
		i += n;
	}
	return component_ok(key + begin, len - begin);
}

static int
check_key(const char *key, struct error *err)
{
	if (backend_key_ok(key))
		return 0;
	return error_set(err, -EINVAL, "\"%.200s\" can't be a key: it must be 1 to %d bytes of UTF-8 "
	    "without control characters and without empty, \".\" or \"..\" components", key, KEY_MAX);
}

static int
end(struct backend *b, enum backend_call call, int r)
{
	atomic_fetch_add_explicit(&b->calls[call], 1, memory_order_relaxed);
	if (r < 0)
		atomic_fetch_add_explicit(&b->failures[call], 1, memory_order_relaxed);
	return r;
}

int
backend_put(struct backend *b, const char *key, const struct object_put *put,
    struct backend_tag *ret_tag, bool *ret_linked, struct error *err)
{
	struct backend_tag tag = { .size = 0 };
	bool linked = false;
	int r = check_key(key, err);

	lock_assert_none();
	if (r == 0)
		r = end(b, CALL_PUT, b->ops->put(b, key, put, &tag, &linked, err));
	if (r < 0)
		return r;
	assert(tag.size == put->size && tag.has_sha256);
	assert(!linked || (put->flags & OBJECT_PUT_MAY_LINK) != 0);
	*ret_tag = tag;
	*ret_linked = linked;
	return 0;
}

int
backend_get(struct backend *b, const char *key, uint64_t off, uint64_t len, int fd,
    uint64_t fd_off, struct error *err)
{
	int r = check_key(key, err);

	lock_assert_none();
	return r < 0 ? r : end(b, CALL_GET, b->ops->get(b, key, off, len, fd, fd_off, err));
}

int
backend_stat(struct backend *b, const char *key, struct backend_tag *ret_tag, struct error *err)
{
	struct backend_tag tag = { .size = 0 };
	int r = check_key(key, err);

	lock_assert_none();
	if (r == 0)
		r = end(b, CALL_STAT, b->ops->stat(b, key, &tag, err));
	if (r == 0)
		*ret_tag = tag;
	return r;
}

int
backend_remove(struct backend *b, const char *key, struct error *err)
{
	int r = check_key(key, err);

	lock_assert_none();
	return r < 0 ? r : end(b, CALL_REMOVE, b->ops->remove(b, key, err));
}

int
backend_list(struct backend *b, const char *prefix, backend_list_fn *fn, void *arg,
    struct error *err)
{
	lock_assert_none();
	return end(b, CALL_LIST, b->ops->list(b, prefix, fn, arg, err));
}

int
backend_copy(struct backend *b, const char *from, const char *to, struct backend_tag *ret_tag,
    struct error *err)
{
	struct backend_tag tag = { .size = 0 };
	int r = check_key(from, err);

	lock_assert_none();
	if (r == 0)
		r = check_key(to, err);
	if (r == 0)
		r = end(b, CALL_COPY, b->ops->copy(b, from, to, &tag, err));
	if (r == 0)
		*ret_tag = tag;
	return r;
}

int
backend_get_url(struct backend *b, const char *key, unsigned expires, char **ret_url,
    struct error *err)
{
	int r = check_key(key, err);

	if (r == 0 && (expires < 1 || expires > EXPIRES_MAX))
		r = error_set(err, -EINVAL, "a URL can be valid for 1 to %d seconds, not %u", EXPIRES_MAX,
		    expires);
	return r < 0 ? r : end(b, CALL_URL, b->ops->get_url(b, key, expires, ret_url, err));
}

int
backend_unshare(struct backend *b, const char *key, struct error *err)
{
	int r = check_key(key, err);

	lock_assert_none();
	if (r < 0 || b->ops->unshare == NULL)
		return r;
	return end(b, CALL_UNSHARE, b->ops->unshare(b, key, err));
}

int
backend_probe(struct backend *b, struct error *err)
{
	lock_assert_none();
	return end(b, CALL_PROBE, b->ops->probe(b, err));
}

void
backend_free(struct backend *b)
{
	if (b != NULL)
		b->ops->free(b);
}
