/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Extended attributes: the user's own, kept in the index; and user.tbfs.*, which tbfs
 * answers but doesn't list, so that `rsync -X` doesn't copy them.
 */
#include "core/node.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/digest.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

enum { XATTR_VALUE_MAX = 65536, URL_EXPIRES = 3600 };

#define VIRTUAL_PREFIX "user.tbfs."

static ssize_t
answer(const char *text, void *buf, size_t room)
{
	size_t len = strlen(text);

	if (room == 0)
		return (ssize_t)len;
	if (room < len)
		return -ERANGE;
	memcpy(buf, text, len);
	return (ssize_t)len;
}

static void
state_text(struct core *c, const struct inode *inode, char *ret_text, size_t room)
{
	static const char *const names[] = { "none", "open", "dirty", "stored", "remote" };
	struct work work;
	bool stuck = index_work_get(c->ix, WORK_UPLOAD, inode->ino, &work) == 0 && work.stuck;

	(void)snprintf(ret_text, room, "%s%s%s", names[inode->state], stuck ? "+stuck" : "",
	    (inode->flags & INODE_TORN) != 0 ? "+torn" : "");
}

static ssize_t
virtual_object(struct core *c, const struct inode *inode, const char *what, void *buf, size_t room)
{
	struct object object;
	char hex[SHA256_LEN * 2 + 1];
	int r = inode->object == 0 ? -ENOENT : index_object_get(c->ix, inode->object, &object);

	if (r == -ENOENT)
		return -ENODATA;
	if (r < 0)
		return r;
	if (strcmp(what, "key") == 0)
		return answer(object.key, buf, room);
	if (strcmp(what, "backend") == 0)
		return answer(object.backend, buf, room);
	if (inode->state != OBJECT_STORED && inode->state != OBJECT_REMOTE)
		return -ENODATA;
	hex_encode(object.sha256, SHA256_LEN, hex);
	return answer(hex, buf, room);
}

/* "url", or "url.<seconds>", of which the store says how many may be.  Asked through the kernel: who
 * asks may read the file. */
static ssize_t
virtual_url(struct core *c, const struct inode *inode, const char *what, void *buf, size_t room)
{
	CLEANUP_FREE char *url = NULL;
	unsigned long expires = URL_EXPIRES;
	struct object object;
	char *end;
	int r = inode->object == 0 ? -ENOENT : index_object_get(c->ix, inode->object, &object);

	if (what[3] == '.') {
		expires = strtoul(what + 4, &end, 10);
		if (what[4] < '0' || what[4] > '9' || *end != '\0' || expires > UINT_MAX)
			return -EINVAL;
	}
	/* An object of former bytes is nobody's to see. */
	if (r < 0 || c->fetcher.url == NULL ||
	    (inode->state != OBJECT_STORED && inode->state != OBJECT_REMOTE))
		return -ENODATA;
	r = c->fetcher.url(c->fetcher.arg, &object, (unsigned)expires, &url, NULL);
	return r < 0 ? (r == -ENOTSUP ? -EOPNOTSUPP : r) : answer(url, buf, room);
}

static ssize_t
virtual_error(struct core *c, const struct inode *inode, void *buf, size_t room)
{
	struct work work;

	if (index_work_get(c->ix, WORK_UPLOAD, inode->ino, &work) == 0 && work.error[0] != '\0')
		return answer(work.error, buf, room);
	return -ENODATA;
}

/* Of a directory: what users have at and below it. */
static ssize_t
virtual_usage(struct core *c, uint64_t ino, const char *what, void *buf, size_t room)
{
	bool bytes = strcmp(what, "rsize") == 0;
	struct usage usage;
	char text[24];
	int r;

	if (!bytes && strcmp(what, "rfiles") != 0)
		return -ENODATA;
	r = index_usage(c->ix, ino, &usage);
	if (r < 0)
		return r;
	(void)snprintf(text, sizeof(text), "%jd", (intmax_t)(bytes ? usage.bytes : usage.files));
	return answer(text, buf, room);
}

static ssize_t
virtual_get(struct core *c, uint64_t ino, const char *what, void *buf, size_t room)
{
	struct inode inode;
	char text[64];
	int r;

	if (strcmp(what, "control") == 0)
		return c->control_path == NULL ? -ENODATA : answer(c->control_path, buf, room);
	r = index_get(c->ix, ino, &inode);
	if (r < 0)
		return r;
	if (strcmp(what, "ino") == 0) {
		(void)snprintf(text, sizeof(text), "%ju", (uintmax_t)ino);
		return answer(text, buf, room);
	}
	if (S_ISDIR(inode.mode))
		return virtual_usage(c, ino, what, buf, room);
	if (inode.state == OBJECT_NONE)
		return -ENODATA;
	if (strcmp(what, "state") == 0) {
		state_text(c, &inode, text, sizeof(text));
		return answer(text, buf, room);
	}
	if (strcmp(what, "url") == 0 || strncmp(what, "url.", 4) == 0)
		return virtual_url(c, &inode, what, buf, room);
	if (strcmp(what, "error") == 0) {
		ssize_t n = virtual_error(c, &inode, buf, room);

		if (n != -ENODATA)
			return n;
	}
	if (strcmp(what, "key") == 0 || strcmp(what, "backend") == 0 || strcmp(what, "sha256") == 0)
		return virtual_object(c, &inode, what, buf, room);
	if (c->events.virtual_get != NULL)
		return c->events.virtual_get(c->events.arg, ino, what, buf, room);
	return -ENODATA;
}

/* The namespaces that Linux knows (xattr(7)): a name outside of them is nobody's, and one of them
 * alone is no name. */
static int
check_name(const char *name)
{
	static const char *const spaces[] = { "user.", "trusted.", "security." };
	size_t i;

	for (i = 0; i < sizeof(spaces) / sizeof(spaces[0]); i++)
		if (strncmp(name, spaces[i], strlen(spaces[i])) == 0)
			return name[strlen(spaces[i])] == '\0' ? -EINVAL : 0;
	return strcmp(name, "system.posix_acl_access") == 0 ||
	    strcmp(name, "system.posix_acl_default") == 0 ? 0 : -EOPNOTSUPP;
}

ssize_t
core_getxattr(struct core *c, uint64_t ino, const char *name, void *buf, size_t room)
{
	int r;

	if (strncmp(name, VIRTUAL_PREFIX, sizeof(VIRTUAL_PREFIX) - 1) == 0)
		return virtual_get(c, ino, name + sizeof(VIRTUAL_PREFIX) - 1, buf, room);
	r = check_name(name);
	return r < 0 ? r : index_xattr_get(c->ix, ino, name, buf, room);
}

/* trusted.* is for CAP_SYS_ADMIN alone, and that others don't see it is the file system's
 * part (xattr(7)).  Drops those names in place; returns the new length. */
static size_t
hide_trusted(char *list, size_t len)
{
	size_t at = 0, kept = 0;

	while (at < len) {
		size_t n = strlen(list + at) + 1;

		if (strncmp(list + at, "trusted.", 8) != 0) {
			memmove(list + kept, list + at, n);
			kept += n;
		}
		at += n;
	}
	return kept;
}

ssize_t
core_listxattr(struct core *c, uint64_t ino, bool privileged, char *buf, size_t room)
{
	CLEANUP_FREE char *all = NULL;
	ssize_t len;

	if (privileged)
		return index_xattr_list(c->ix, ino, buf, room);
	all = malloc(INDEX_XATTR_LIST_MAX);
	if (all == NULL)
		return -ENOMEM;
	len = index_xattr_list(c->ix, ino, all, INDEX_XATTR_LIST_MAX);
	if (len <= 0)
		return len;
	len = (ssize_t)hide_trusted(all, (size_t)len);
	if (room == 0)
		return len;
	if ((size_t)len > room)
		return -ERANGE;
	memcpy(buf, all, (size_t)len);
	return len;
}

static int
set_access_acl(struct core *c, uint64_t ino, const char *name, const void *value, size_t len,
    const struct caller *who)
{
	struct inode to = { .ino = ino }, row;
	bool minimal;
	int r = index_get(c->ix, ino, &row);

	to.mode = row.mode;
	if (r == 0)
		r = acl_to_mode(value, len, &to.mode, &minimal);
	if (r < 0)
		return r;
	/* As with chmod. */
	if (caller_is_outsider(who, row.gid))
		to.mode &= ~(uint32_t)S_ISGID;
	to.ctime = clock_wall_ns();
	if (to.mode != row.mode)
		r = index_set_attr(c->ix, ino, ATTR_MODE | ATTR_CTIME, &to, &row);
	if (r < 0)
		return r;
	if (minimal) {
		r = index_xattr_remove(c->ix, ino, name, to.ctime);
		return r == -ENODATA ? 0 : r;
	}
	return index_xattr_set(c->ix, ino, name, value, len, 0, to.ctime);
}

int
core_setxattr(struct core *c, uint64_t ino, const char *name, const void *value, size_t len,
    int flags, const struct caller *who)
{
	unsigned how = ((flags & XATTR_CREATE) != 0 ? INDEX_XATTR_CREATE : 0u) |
	    ((flags & XATTR_REPLACE) != 0 ? INDEX_XATTR_REPLACE : 0u);
	int r = check_name(name);

	if (r < 0)
		return r;
	if (len > XATTR_VALUE_MAX)
		return -E2BIG;
	if (strlen(name) > 255)
		return -ERANGE;
	if (strncmp(name, VIRTUAL_PREFIX, sizeof(VIRTUAL_PREFIX) - 1) == 0)
		return c->events.virtual_set == NULL ? -EPERM : c->events.virtual_set(c->events.arg, ino,
		    name + sizeof(VIRTUAL_PREFIX) - 1, value, len);
	r = strcmp(name, "system.posix_acl_access") == 0 ? set_access_acl(c, ino, name, value, len, who) :
	    index_xattr_set(c->ix, ino, name, value, len, how, clock_wall_ns());
	node_touched(c, ino);
	return r;
}

int
core_removexattr(struct core *c, uint64_t ino, const char *name)
{
	int r;

	if (strncmp(name, VIRTUAL_PREFIX, sizeof(VIRTUAL_PREFIX) - 1) == 0)
		return -EPERM;
	r = check_name(name);
	if (r < 0)
		return r;
	r = index_xattr_remove(c->ix, ino, name, clock_wall_ns());
	node_touched(c, ino);
	/* Removing an ACL that isn't there is no error. */
	if (r == -ENODATA && strncmp(name, "system.posix_acl_", 17) == 0)
		return 0;
	return r;
}
