/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Reading directories.  The offset of an entry is its dentry's id + 2 (1 and 2 are "."
 * and ".."), which rises and is never used twice: entries made or removed meanwhile move
 * nothing.  No state in the handle.
 */
#include "fs/private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

enum { OFFSET_DOT = 1, OFFSET_DOTDOT = 2 };

/* Entries are collected first, as many as there is room for, and completed after: the index is
 * locked while it calls us, and to look at staged files may take the disk's time. */
struct entry {
	uint64_t cookie;
	size_t name;			/* in names */
	struct inode inode;
};

struct listing {
	fuse_req_t req;
	fuse_ino_t dir;
	bool plus;
	char *buf;
	size_t size, used;		/* of buf; used: what the entries take, too */
	struct entry *entries;
	size_t n, room;
	char *names;			/* each ends with NUL; of `size` too, as no entry is shorter than its name */
	size_t names_len;
	bool short_of_memory;
};

/* What the kernel lists from its cache we don't hear of: where reading is to move the atime, it asks
 * again.  The handle is whether it does. */
void
op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	fi->fh = (fi->flags & O_NOATIME) == 0 && core_access_moves(req_core(req), ino);
	fi->cache_readdir = 1;
	fi->keep_cache = fi->fh == 0;
	(void)fuse_reply_open(req, fi);
}

static size_t
entry_size(const struct listing *l, const char *name)
{
	return l->plus ? fuse_add_direntry_plus(l->req, NULL, 0, name, NULL, 0) :
	    fuse_add_direntry(l->req, NULL, 0, name, NULL, 0);
}

static void
put_entry(struct listing *l, size_t at, const char *name, const struct attr *attr, off_t next)
{
	char *to = l->buf + at;
	size_t room = l->size - at;

	if (l->plus) {
		struct fuse_entry_param e;

		attr_to_entry(attr, &e);
		/* A zero inode: an entry without a lookup ("." and ".."). */
		if (next <= OFFSET_DOTDOT)
			e.ino = 0;
		(void)fuse_add_direntry_plus(l->req, to, room, name, &e, next);
	} else {
		struct stat st = { .st_ino = attr->inode.ino, .st_mode = attr->inode.mode };

		(void)fuse_add_direntry(l->req, to, room, name, &st, next);
	}
}

static struct entry *
next_entry(struct listing *l)
{
	if (l->n == l->room) {
		size_t room = l->room == 0 ? 64 : l->room * 2;
		struct entry *entries = realloc(l->entries, room * sizeof(*entries));

		l->short_of_memory = entries == NULL;
		if (entries == NULL)
			return NULL;
		l->entries = entries;
		l->room = room;
	}
	return &l->entries[l->n++];
}

static bool
collect_entry(void *arg, const struct index_entry *e)
{
	size_t len = strlen(e->name) + 1, size;
	struct listing *l = arg;
	struct entry *entry;

	if (l->dir == INDEX_ROOT && strcmp(e->name, ".tbfs") == 0)
		return true;
	if (core_is_hidden(req_core(l->req), &e->inode))
		return true;
	size = entry_size(l, e->name);
	if (size > l->size - l->used || (entry = next_entry(l)) == NULL)
		return false;
	*entry = (struct entry){ e->cookie, l->names_len, e->inode };
	memcpy(l->names + l->names_len, e->name, len);
	l->names_len += len;
	l->used += size;
	return true;
}

static void
complete_entries(struct listing *l, size_t at)
{
	size_t i;

	for (i = 0; i < l->n; i++) {
		const struct entry *e = &l->entries[i];
		const char *name = l->names + e->name;
		struct attr attr = { .inode = e->inode };

		if (l->plus)
			core_entry(req_core(l->req), &e->inode, &attr);
		put_entry(l, at, name, &attr, (off_t)e->cookie + OFFSET_DOTDOT);
		at += entry_size(l, name);
	}
}

static bool
add_dot(struct listing *l, const char *name, const struct attr *attr, off_t next)
{
	size_t size = entry_size(l, name);

	if (size > l->size - l->used)
		return false;
	put_entry(l, l->used, name, attr, next);
	l->used += size;
	return true;
}

static int
listing_dots(struct listing *l, off_t *off)
{
	struct attr attr;
	uint64_t parent;
	int r = 0;

	if (*off < OFFSET_DOT) {
		r = core_getattr(req_core(l->req), l->dir, &attr);
		if (r < 0 || !add_dot(l, ".", &attr, OFFSET_DOT))
			return r;
		*off = OFFSET_DOT;
	}
	if (*off < OFFSET_DOTDOT) {
		r = index_parent(core_index(req_core(l->req)), l->dir, &parent);
		attr = (struct attr){ .inode = { .ino = r == 0 ? parent : l->dir, .mode = S_IFDIR } };
		if (add_dot(l, "..", &attr, OFFSET_DOTDOT))
			*off = OFFSET_DOTDOT;
	}
	return 0;
}

static void
list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, const struct fuse_file_info *fi, bool plus)
{
	struct listing l = { .req = req, .dir = ino, .size = size, .plus = plus };
	size_t dots;
	int r;

	/* The kernel asks for the attributes again after this answer. */
	if (fi->fh != 0)
		core_accessed(req_core(req), ino);
	l.buf = malloc(size);
	l.names = malloc(size);
	r = l.buf == NULL || l.names == NULL ? -ENOMEM : listing_dots(&l, &off);
	dots = l.used;
	if (r == 0 && off >= OFFSET_DOTDOT)
		r = index_readdir(core_index(req_core(req)), ino, (uint64_t)off - OFFSET_DOTDOT,
		    collect_entry, &l);
	if (r == 0 && l.short_of_memory)
		r = -ENOMEM;
	if (r == 0)
		complete_entries(&l, dots);
	if (r < 0)
		reply(req, r);
	else
		(void)fuse_reply_buf(req, l.buf, l.used);
	free(l.entries);
	free(l.names);
	free(l.buf);
}

void
op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	list(req, ino, size, off, fi, false);
}

void
op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	list(req, ino, size, off, fi, true);
}

void
op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	reply(req, 0);
}

static void
fsyncdir_run(fuse_req_t req, const void *arg)
{
	(void)arg;
	reply(req, core_fsyncdir(req_core(req)));
}

void
op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)ino;
	(void)datasync;
	(void)fi;
	answer(req, WAITS_FOR_DISK, fsyncdir_run, NULL, 0);
}
