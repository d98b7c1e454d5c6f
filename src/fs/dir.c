/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Reading directories.  The offset of an entry is its dentry's id + 2 (1 and 2 are "."
 * and ".."), which rises and is never used twice: entries made or removed meanwhile move
 * nothing.  No state in the handle.
 */
#include "fs/private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { OFFSET_DOT = 1, OFFSET_DOTDOT = 2 };

/* Entries are collected first and remembered after: the index is locked while it calls us. */
struct listing {
	fuse_req_t req;
	fuse_ino_t dir;
	char *buf;
	size_t size, used;
	bool plus;
	uint64_t *seen;			/* inodes to remember */
	size_t n_seen, room_seen;
};

void
op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	fi->cache_readdir = 1;
	fi->keep_cache = 1;
	(void)fuse_reply_open(req, fi);
}

/* True when it fitted. */
static bool
listing_add(struct listing *l, const char *name, const struct attr *attr, off_t next)
{
	char *at = l->buf + l->used;
	size_t room = l->size - l->used, need;

	if (l->plus) {
		struct fuse_entry_param e;

		attr_to_entry(attr, &e);
		/* A zero inode: an entry without a lookup ("." and ".."). */
		if (next <= OFFSET_DOTDOT)
			e.ino = 0;
		need = fuse_add_direntry_plus(l->req, at, room, name, &e, next);
	} else {
		struct stat st = { .st_ino = attr->inode.ino, .st_mode = attr->inode.mode };

		need = fuse_add_direntry(l->req, at, room, name, &st, next);
	}
	if (need > room)
		return false;
	l->used += need;
	return true;
}

static bool
listing_remember(struct listing *l, uint64_t ino)
{
	if (l->n_seen == l->room_seen) {
		size_t room = l->room_seen ? l->room_seen * 2 : 256;
		uint64_t *seen = realloc(l->seen, room * sizeof(*seen));

		if (seen == NULL)
			return false;
		l->seen = seen;
		l->room_seen = room;
	}
	l->seen[l->n_seen++] = ino;
	return true;
}

static bool
listing_entry(void *arg, const struct index_entry *e)
{
	struct listing *l = arg;
	struct attr attr;

	if (l->dir == INDEX_ROOT && strcmp(e->name, ".tbfs") == 0)
		return true;
	if (core_is_hidden(req_core(l->req), &e->inode))
		return true;
	core_fill_attr(req_core(l->req), &e->inode, &attr);
	if (l->plus && !listing_remember(l, e->inode.ino))
		return false;
	if (listing_add(l, e->name, &attr, (off_t)e->cookie + OFFSET_DOTDOT))
		return true;
	l->n_seen -= l->plus ? 1 : 0;
	return false;
}

static int
listing_dots(struct listing *l, off_t *off)
{
	struct attr attr;
	uint64_t parent;
	int r = 0;

	if (*off < OFFSET_DOT) {
		r = core_getattr(req_core(l->req), l->dir, &attr);
		if (r < 0 || !listing_add(l, ".", &attr, OFFSET_DOT))
			return r;
		*off = OFFSET_DOT;
	}
	if (*off < OFFSET_DOTDOT) {
		r = index_parent(core_index(req_core(l->req)), l->dir, &parent);
		attr = (struct attr){ .inode = { .ino = r == 0 ? parent : l->dir, .mode = S_IFDIR } };
		if (listing_add(l, "..", &attr, OFFSET_DOTDOT))
			*off = OFFSET_DOTDOT;
	}
	return 0;
}

static void
list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, bool plus)
{
	struct listing l = { .req = req, .dir = ino, .size = size, .plus = plus };
	size_t i;
	int r;

	l.buf = malloc(size);
	r = l.buf == NULL ? -ENOMEM : listing_dots(&l, &off);
	if (r == 0 && off >= OFFSET_DOTDOT)
		r = index_readdir(core_index(req_core(req)), ino, (uint64_t)off - OFFSET_DOTDOT,
		    listing_entry, &l);
	for (i = 0; i < l.n_seen; i++)
		core_remember(req_core(req), l.seen[i]);
	if (r < 0)
		reply(req, r);
	else
		(void)fuse_reply_buf(req, l.buf, l.used);
	free(l.seen);
	free(l.buf);
}

void
op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	(void)fi;
	list(req, ino, size, off, false);
}

void
op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	(void)fi;
	list(req, ino, size, off, true);
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
