/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The checked way into every backend.
 *
 * A backend_* wrapper is what the rest of tbfs calls; nobody calls ops directly.
 * It owns the promises that are the same for all stores:
 *   1. An illegal key, range or flag never reaches a backend: -EINVAL.
 *   2. No ranked lock is held while bytes move (lock_assert_none).
 *   3. Every call and every failure is counted, by operation.
 *   4. What comes back fits backend.h: one of the listed errors with a sentence,
 *      never a positive value, outputs written on success only, and a put's tag
 *      that names the size asked for and a checksum.  A backend that breaks this
 *      is reported as -EIO, it isn't believed.
 *   5. A conditional put that is refused over an object with our own id and
 *      generation is a success: an earlier answer was lost on its way.
 *
 * Any thread; the only state is the atomic counters.
 */
#include "backends/backend.h"

#include "base/lock.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *const call_names[CALL_COUNT] = {
	[CALL_PUT] = "put", [CALL_GET] = "get", [CALL_STAT] = "stat", [CALL_REMOVE] = "remove",
	[CALL_LIST] = "list", [CALL_COPY] = "copy", [CALL_URL] = "get_url",
	[CALL_UNSHARE] = "unshare", [CALL_PROBE] = "probe",
};

/* Length of the UTF-8 sequence at s (RFC 3629: shortest form, no surrogates), 0 if there is none. */
static size_t
utf8_length(const unsigned char *s)
{
	uint32_t code;
	size_t len, i;

	if (s[0] < 0x80)
		return 1;
	if (s[0] >= 0xc2 && s[0] <= 0xdf)
		len = 2;
	else if ((s[0] & 0xf0) == 0xe0)
		len = 3;
	else if (s[0] >= 0xf0 && s[0] <= 0xf4)
		len = 4;
	else
		return 0;
	code = s[0] & (0x7fu >> len);
	for (i = 1; i < len; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (s[i] & 0x3f);
	}
	if (len == 3 && (code < 0x800 || (code >= 0xd800 && code <= 0xdfff)))
		return 0;
	if (len == 4 && (code < 0x10000 || code > 0x10ffff))
		return 0;
	return len;
}

bool
backend_key_ok(const char *key)
{
	const char *p = key, *start = key;

	for (;;) {
		size_t len;

		if (*p == '/' || *p == '\0') {
			size_t part = (size_t)(p - start);

			if (part == 0 || (part == 1 && start[0] == '.') ||
			    (part == 2 && start[0] == '.' && start[1] == '.'))
				return false;
			if (*p == '\0')
				return p - key <= BACKEND_KEY_MAX;
			start = p + 1;
		}
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			return false;
		len = utf8_length((const unsigned char *)p);
		if (len == 0 || p - key > BACKEND_KEY_MAX)
			return false;
		p += len;
	}
}

static bool
code_in_contract(int code)
{
	switch (-code) {
	case ENOENT: case ENODEV: case EACCES: case EAGAIN: case ENOSPC:
	case ECANCELED: case EINPROGRESS: case EIO: case ENOTSUP: case EEXIST: case EINVAL:
		return true;
	default:
		return false;
	}
}

static void
call_begin(struct backend *b, enum backend_call call)
{
	lock_assert_none();
	atomic_fetch_add(&b->calls[call], 1);
}

/* Count and complete a failure: a code of the contract and a sentence. */
static int
call_fail(struct backend *b, enum backend_call call, int r, const char *key, const struct error *from,
    struct error *err)
{
	int code = r;

	atomic_fetch_add(&b->failures[call], 1);
	if (r == -ENOMEM)
		code = -EAGAIN;
	else if (r > 0 || !code_in_contract(r))
		code = -EIO;
	if (from->text[0] != '\0' && code == r)
		return error_set(err, code, "%s", from->text);
	if (from->text[0] != '\0')
		return error_set(err, code, "%s (code %d)", from->text, r);
	return error_set(err, code, "%s: %s of \"%.300s\" failed: %s", b->ops->name, call_names[call],
	    key, r > 0 ? "unexpected answer" : strerror(-r));
}

static int
bad_key(struct backend *b, enum backend_call call, struct error *err)
{
	struct error e = {0};

	return call_fail(b, call, error_set(&e, -EINVAL, "%s: not a legal key (UTF-8, 1 to %d bytes, "
	    "no control characters, no empty, \".\" or \"..\" components)", b->ops->name,
	    BACKEND_KEY_MAX), "", &e, err);
}

static bool
tag_fits_put(const struct backend_tag *tag, const struct object_put *put)
{
	return tag->size == put->size && tag->has_sha256 &&
	    memchr(tag->etag, '\0', sizeof(tag->etag)) != NULL;
}

/* Invariant 5: is what is there this very generation of this very object? */
static bool
is_our_own(struct backend *b, const char *key, const struct object_put *put,
    struct backend_tag *ret_tag)
{
	const struct object_meta *m = &put->meta;

	if (m->object_id == 0 || m->generation == 0)
		return false;
	if (b->ops->stat(b, key, ret_tag, NULL) != 0)
		return false;
	return ret_tag->object_id == m->object_id && ret_tag->generation == m->generation &&
	    ret_tag->seq == m->seq && tag_fits_put(ret_tag, put);
}

int
backend_put(struct backend *b, const char *key, const struct object_put *put,
    struct backend_tag *ret_tag, bool *ret_linked, struct error *err)
{
	struct error e = {0};
	struct backend_tag tag;
	bool linked = false;
	int r;

	call_begin(b, CALL_PUT);
	if (!backend_key_ok(key))
		return bad_key(b, CALL_PUT, err);
	if (put->fd < 0 || put->size > INT64_MAX ||
	    (put->flags & ~(unsigned)(OBJECT_PUT_IF_ABSENT | OBJECT_PUT_MAY_LINK)) != 0)
		return call_fail(b, CALL_PUT, -EINVAL, key, &e, err);
	memset(&tag, 0, sizeof(tag));
	r = b->ops->put(b, key, put, &tag, &linked, &e);
	if (r == -EEXIST && (put->flags & OBJECT_PUT_IF_ABSENT) && is_our_own(b, key, put, &tag)) {
		/* Whether the earlier call linked isn't known: say yes, unshare of none is harmless. */
		linked = (put->flags & OBJECT_PUT_MAY_LINK) != 0;
		r = 0;
	}
	if (r == 0 && !tag_fits_put(&tag, put))
		r = error_set(&e, -EIO, "%s: put of \"%.300s\" was answered with another size or no "
		    "checksum", b->ops->name, key);
	if (r != 0)
		return call_fail(b, CALL_PUT, r, key, &e, err);
	if (ret_tag != NULL)
		*ret_tag = tag;
	if (ret_linked != NULL)
		*ret_linked = linked;
	return 0;
}

int
backend_get(struct backend *b, const char *key, uint64_t off, uint64_t len, int fd, uint64_t fd_off,
    struct error *err)
{
	struct error e = {0};
	int r;

	call_begin(b, CALL_GET);
	if (!backend_key_ok(key))
		return bad_key(b, CALL_GET, err);
	if (fd < 0 || off > INT64_MAX || len > INT64_MAX - off || fd_off > INT64_MAX - len)
		return call_fail(b, CALL_GET, -EINVAL, key, &e, err);
	r = b->ops->get(b, key, off, len, fd, fd_off, &e);
	return r == 0 ? 0 : call_fail(b, CALL_GET, r, key, &e, err);
}

int
backend_stat(struct backend *b, const char *key, struct backend_tag *ret_tag, struct error *err)
{
	struct error e = {0};
	struct backend_tag tag;
	int r;

	call_begin(b, CALL_STAT);
	if (!backend_key_ok(key))
		return bad_key(b, CALL_STAT, err);
	memset(&tag, 0, sizeof(tag));
	r = b->ops->stat(b, key, &tag, &e);
	if (r != 0)
		return call_fail(b, CALL_STAT, r, key, &e, err);
	if (ret_tag != NULL)
		*ret_tag = tag;
	return 0;
}

int
backend_remove(struct backend *b, const char *key, struct error *err)
{
	struct error e = {0};
	int r;

	call_begin(b, CALL_REMOVE);
	if (!backend_key_ok(key))
		return bad_key(b, CALL_REMOVE, err);
	r = b->ops->remove(b, key, &e);
	return r == 0 ? 0 : call_fail(b, CALL_REMOVE, r, key, &e, err);
}

int
backend_list(struct backend *b, const char *prefix, backend_list_fn *fn, void *arg,
    struct error *err)
{
	struct error e = {0};
	int r;

	call_begin(b, CALL_LIST);
	if (strlen(prefix) > BACKEND_KEY_MAX)
		return bad_key(b, CALL_LIST, err);
	r = b->ops->list(b, prefix, fn, arg, &e);
	if (r == 0)
		return 0;
	/* The caller's own value passes through as it is; it comes without a sentence. */
	if (e.text[0] == '\0') {
		atomic_fetch_add(&b->failures[CALL_LIST], 1);
		return r;
	}
	return call_fail(b, CALL_LIST, r, prefix, &e, err);
}

int
backend_copy(struct backend *b, const char *from, const char *to, struct backend_tag *ret_tag,
    struct error *err)
{
	struct error e = {0};
	struct backend_tag tag;
	int r;

	call_begin(b, CALL_COPY);
	if (!backend_key_ok(from) || !backend_key_ok(to))
		return bad_key(b, CALL_COPY, err);
	if (strcmp(from, to) == 0)
		return call_fail(b, CALL_COPY, error_set(&e, -EINVAL, "%s: \"%.300s\" can't be copied "
		    "onto itself", b->ops->name, from), from, &e, err);
	memset(&tag, 0, sizeof(tag));
	r = b->ops->copy(b, from, to, &tag, &e);
	if (r != 0)
		return call_fail(b, CALL_COPY, r, from, &e, err);
	if (ret_tag != NULL)
		*ret_tag = tag;
	return 0;
}

int
backend_get_url(struct backend *b, const char *key, unsigned expires, char **ret_url,
    struct error *err)
{
	struct error e = {0};
	char *url = NULL;
	int r;

	call_begin(b, CALL_URL);
	if (!backend_key_ok(key))
		return bad_key(b, CALL_URL, err);
	if (expires < 1 || expires > BACKEND_URL_MAX)
		return call_fail(b, CALL_URL, error_set(&e, -EINVAL, "%s: a URL can last from 1 to %d "
		    "seconds, not %u", b->ops->name, BACKEND_URL_MAX, expires), key, &e, err);
	r = b->ops->get_url(b, key, expires, &url, &e);
	if (r == 0 && url == NULL)
		r = -EIO;
	if (r != 0)
		return call_fail(b, CALL_URL, r, key, &e, err);
	*ret_url = url;
	return 0;
}

int
backend_unshare(struct backend *b, const char *key, struct error *err)
{
	struct error e = {0};
	int r;

	call_begin(b, CALL_UNSHARE);
	if (!backend_key_ok(key))
		return bad_key(b, CALL_UNSHARE, err);
	if (b->ops->unshare == NULL)
		return 0;
	r = b->ops->unshare(b, key, &e);
	return r == 0 ? 0 : call_fail(b, CALL_UNSHARE, r, key, &e, err);
}

int
backend_probe(struct backend *b, struct error *err)
{
	struct error e = {0};
	int r;

	call_begin(b, CALL_PROBE);
	r = b->ops->probe(b, &e);
	return r == 0 ? 0 : call_fail(b, CALL_PROBE, r, "", &e, err);
}

void
backend_free(struct backend *b)
{
	if (b != NULL)
		b->ops->free(b);
}
