/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * POSIX ACLs (POSIX.1e draft 17), in the form in which the kernel passes them as
 * extended attributes: a version word and 8-byte entries, little-endian.  The kernel
 * enforces them; the file system keeps mode and ACL in step and hands default ACLs on.
 */
#include "core/node.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ACL_ACCESS "system.posix_acl_access"
#define ACL_DEFAULT "system.posix_acl_default"

enum { ACL_VERSION = 2, ACL_BYTES_MAX = 65536 };
enum { TAG_USER_OBJ = 0x01, TAG_USER = 0x02, TAG_GROUP_OBJ = 0x04, TAG_GROUP = 0x08,
	TAG_MASK = 0x10, TAG_OTHER = 0x20 };

struct acl_entry {
	uint16_t tag, perm;
	uint32_t id;
};

struct acl_header {
	uint32_t version;
	struct acl_entry entries[];
};

static int
acl_count(const void *value, size_t len)
{
	const struct acl_header *h = value;

	if (len < sizeof(*h) || (len - sizeof(*h)) % sizeof(struct acl_entry) != 0 ||
	    le32toh(h->version) != ACL_VERSION)
		return -EINVAL;
	return (int)((len - sizeof(*h)) / sizeof(struct acl_entry));
}

int
acl_to_mode(const void *value, size_t len, uint32_t *ret_mode, bool *ret_minimal)
{
	const struct acl_header *h = value;
	uint32_t mode = *ret_mode & ~0777u, group = 0;
	int n = acl_count(value, len), i, mask = -1;

	if (n < 0)
		return n;
	*ret_minimal = true;
	for (i = 0; i < n; i++) {
		uint32_t perm = le16toh(h->entries[i].perm) & 7u;

		switch (le16toh(h->entries[i].tag)) {
		case TAG_USER_OBJ:
			mode |= perm << 6;
			break;
		case TAG_GROUP_OBJ:
			group = perm;
			break;
		case TAG_OTHER:
			mode |= perm;
			break;
		case TAG_MASK:
			mask = (int)perm;
			*ret_minimal = false;
			break;
		case TAG_USER:
		case TAG_GROUP:
			*ret_minimal = false;
			break;
		default:
			return -EINVAL;
		}
	}
	*ret_mode = mode | (mask >= 0 ? (uint32_t)mask : group) << 3;
	return 0;
}

/* Set the entries that the permission bits stand for; with `limit` they are only narrowed. */
static void
acl_apply_mode(void *value, int n, uint32_t mode, bool limit)
{
	struct acl_header *h = value;
	struct acl_entry *group = NULL, *mask = NULL;
	int i;

	for (i = 0; i < n; i++) {
		struct acl_entry *e = &h->entries[i];
		uint16_t perm = le16toh(e->perm), bits;

		switch (le16toh(e->tag)) {
		case TAG_USER_OBJ:
			bits = (uint16_t)(mode >> 6 & 7);
			break;
		case TAG_OTHER:
			bits = (uint16_t)(mode & 7);
			break;
		case TAG_GROUP_OBJ:
			group = e;
			continue;
		case TAG_MASK:
			mask = e;
			continue;
		default:
			continue;
		}
		e->perm = htole16(limit ? perm & bits : bits);
	}
	if (mask == NULL)
		mask = group;
	if (mask != NULL) {
		uint16_t bits = (uint16_t)(mode >> 3 & 7);

		mask->perm = htole16(limit ? le16toh(mask->perm) & bits : bits);
	}
}

static ssize_t
acl_read(struct core *c, uint64_t ino, const char *name, void **ret_value)
{
	ssize_t len = index_xattr_get(c->ix, ino, name, NULL, 0);
	void *value;

	if (len <= 0)
		return len;
	value = malloc((size_t)len);
	if (value == NULL)
		return -ENOMEM;
	len = index_xattr_get(c->ix, ino, name, value, (size_t)len);
	if (len <= 0 || acl_count(value, (size_t)len) < 0) {
		free(value);
		return len <= 0 ? len : -EINVAL;
	}
	*ret_value = value;
	return len;
}

int
acl_inherit(struct core *c, uint64_t parent, uint32_t umask, uint32_t *mode,
    struct acl_pair *ret_acl)
{
	void *value = NULL;
	bool minimal = true;
	ssize_t len;
	int r = 0;

	*ret_acl = (struct acl_pair){ .access = NULL };
	len = S_ISLNK(*mode) ? -ENODATA : acl_read(c, parent, ACL_DEFAULT, &value);
	if (len == -ENODATA || len == 0) {
		*mode &= ~(umask & 0777u);
		return 0;
	}
	if (len < 0)
		return (int)len;
	if (S_ISDIR(*mode)) {
		ret_acl->inherit = malloc((size_t)len);
		if (ret_acl->inherit == NULL) {
			free(value);
			return -ENOMEM;
		}
		memcpy(ret_acl->inherit, value, (size_t)len);
		ret_acl->inherit_len = (size_t)len;
	}
	/* With a default ACL the umask says nothing: the requested mode narrows the ACL. */
	acl_apply_mode(value, acl_count(value, (size_t)len), *mode, true);
	r = acl_to_mode(value, (size_t)len, mode, &minimal);
	if (r < 0 || minimal) {
		free(value);
		return r;
	}
	ret_acl->access = value;
	ret_acl->access_len = (size_t)len;
	return 0;
}

int
acl_store(struct core *c, uint64_t ino, const struct acl_pair *acl)
{
	struct inode inode;
	int r = 0;

	if (acl->access == NULL && acl->inherit == NULL)
		return 0;
	r = index_get(c->ix, ino, &inode);
	if (r == 0 && acl->access != NULL)
		r = index_xattr_set(c->ix, ino, ACL_ACCESS, acl->access, acl->access_len, 0, inode.ctime);
	if (r == 0 && acl->inherit != NULL)
		r = index_xattr_set(c->ix, ino, ACL_DEFAULT, acl->inherit, acl->inherit_len, 0, inode.ctime);
	return r;
}

void
acl_pair_release(struct acl_pair *acl)
{
	free(acl->access);
	free(acl->inherit);
	*acl = (struct acl_pair){ .access = NULL };
}

int
acl_chmod_inode(struct core *c, uint64_t ino, uint32_t mode)
{
	void *value = NULL;
	ssize_t len = acl_read(c, ino, ACL_ACCESS, &value);
	struct inode inode;
	int r;

	if (len == -ENODATA || len == 0)
		return 0;
	if (len < 0)
		return (int)len;
	acl_apply_mode(value, acl_count(value, (size_t)len), mode, false);
	r = index_get(c->ix, ino, &inode);
	if (r == 0)
		r = index_xattr_set(c->ix, ino, ACL_ACCESS, value, (size_t)len, 0, inode.ctime);
	free(value);
	return r;
}
