/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Requests about attributes and extended attributes. */
#include "fs/private.h"

#include "base/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { ATTR_TIMEOUT = 3600 };

double
attr_timeout(const struct attr *attr)
{
	return attr->moving ? 0 : ATTR_TIMEOUT;
}

void
attr_to_stat(const struct attr *attr, struct stat *ret_st)
{
	const struct inode *i = &attr->inode;

	*ret_st = (struct stat){
		.st_ino = i->ino, .st_mode = i->mode, .st_nlink = i->nlink, .st_uid = i->uid,
		.st_gid = i->gid, .st_rdev = i->rdev, .st_size = (off_t)i->size,
		.st_blocks = (blkcnt_t)attr->blocks, .st_blksize = 4096,
		.st_atim = ns_to_timespec(i->atime), .st_mtim = ns_to_timespec(i->mtime),
		.st_ctim = ns_to_timespec(i->ctime),
	};
	if (S_ISDIR(i->mode))
		ret_st->st_size = 4096;
}

void
attr_to_entry(const struct attr *attr, struct fuse_entry_param *ret_e)
{
	*ret_e = (struct fuse_entry_param){ .ino = attr->inode.ino, .generation = 1,
		.attr_timeout = attr_timeout(attr), .entry_timeout = ATTR_TIMEOUT };
	attr_to_stat(attr, &ret_e->attr);
}

static void
reply_attr(fuse_req_t req, const struct attr *attr)
{
	struct stat st;

	attr_to_stat(attr, &st);
	(void)fuse_reply_attr(req, &st, attr_timeout(attr));
}

void
op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct attr attr;
	int r = core_getattr(req_core(req), ino, &attr);

	(void)fi;
	if (r < 0)
		reply(req, r);
	else
		reply_attr(req, &attr);
}

static void
setattr_run(fuse_req_t req, fuse_ino_t ino, unsigned set, const struct inode *to)
{
	struct attr attr;
	int r = core_setattr(req_core(req), ino, set, to, &attr);

	if (r < 0)
		reply(req, r);
	else
		reply_attr(req, &attr);
}

struct slow_setattr {
	fuse_req_t req;
	fuse_ino_t ino;
	unsigned set;
	struct inode to;
};

static void
slow_setattr_run(void *arg)
{
	struct slow_setattr *s = arg;

	setattr_run(s->req, s->ino, s->set, &s->to);
	free(s);
}

void
op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set, struct fuse_file_info *fi)
{
	static const struct { int fuse; unsigned core; } map[] = {
		{ FUSE_SET_ATTR_MODE, SET_MODE }, { FUSE_SET_ATTR_UID, SET_UID },
		{ FUSE_SET_ATTR_GID, SET_GID }, { FUSE_SET_ATTR_SIZE, SET_SIZE },
		{ FUSE_SET_ATTR_ATIME, SET_ATIME }, { FUSE_SET_ATTR_ATIME_NOW, SET_ATIME },
		{ FUSE_SET_ATTR_MTIME, SET_MTIME }, { FUSE_SET_ATTR_MTIME_NOW, SET_MTIME },
	};
	int64_t now = clock_wall_ns();
	struct inode to = { .mode = st->st_mode, .uid = st->st_uid, .gid = st->st_gid,
		.size = (uint64_t)st->st_size, .atime = timespec_to_ns(st->st_atim),
		.mtime = timespec_to_ns(st->st_mtim) };
	enum core_wait wait = WAITS_FOR_NOTHING;
	struct slow_setattr *slow;
	unsigned set = 0;
	size_t i;

	(void)fi;
	for (i = 0; i < sizeof(map) / sizeof(map[0]); i++)
		if ((to_set & map[i].fuse) != 0)
			set |= map[i].core;
	if ((to_set & FUSE_SET_ATTR_ATIME_NOW) != 0)
		to.atime = now;
	if ((to_set & FUSE_SET_ATTR_MTIME_NOW) != 0)
		to.mtime = now;
	/* With KILLPRIV_V2 an empty set asks to clear setuid and setgid after a write; a truncate by
	 * somebody without privilege does it too. */
	if (set == 0 || ((set & SET_SIZE) != 0 && fuse_req_ctx(req)->uid != 0))
		set |= SET_KILL_PRIV;
	if ((set & SET_SIZE) != 0)
		wait = core_open_waits(req_core(req), ino, O_WRONLY);
	slow = wait == WAITS_FOR_NOTHING ? NULL : malloc(sizeof(*slow));
	if (slow != NULL) {
		*slow = (struct slow_setattr){ req, ino, set, to };
		if (later(req, wait, slow_setattr_run, slow))
			return;
		free(slow);
	}
	if (wait == WAITS_FOR_STORE)
		reply(req, -EAGAIN);
	else
		setattr_run(req, ino, set, &to);
}

static void
reply_xattr(fuse_req_t req, ssize_t len, const char *buf, size_t size)
{
	if (len < 0)
		reply(req, (int)len);
	else if (size == 0)
		(void)fuse_reply_xattr(req, (size_t)len);
	else
		(void)fuse_reply_buf(req, buf, (size_t)len);
}

void
op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	char small[512], *buf = size <= sizeof(small) ? small : malloc(size);

	if (buf == NULL) {
		reply(req, -ENOMEM);
		return;
	}
	reply_xattr(req, core_getxattr(req_core(req), ino, name, buf, size), buf, size);
	if (buf != small)
		free(buf);
}

void
op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	char small[512], *buf = size <= sizeof(small) ? small : malloc(size);

	if (buf == NULL) {
		reply(req, -ENOMEM);
		return;
	}
	reply_xattr(req, core_listxattr(req_core(req), ino,
	    fuse_req_ctx(req)->uid == 0, buf, size), buf, size);
	if (buf != small)
		free(buf);
}

struct slow_setxattr {
	fuse_req_t req;
	fuse_ino_t ino;
	size_t size;
	char text[];			/* name, NUL, value */
};

static void
slow_setxattr_run(void *arg)
{
	struct slow_setxattr *s = arg;

	reply(s->req, core_setxattr(req_core(s->req), s->ino, s->text, s->text + strlen(s->text) + 1,
	    s->size, 0));
	free(s);
}

/* user.tbfs.sync waits for the store. */
static bool
setxattr_later(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size)
{
	size_t len = strlen(name) + 1;
	struct slow_setxattr *s = malloc(sizeof(*s) + len + size);

	if (s == NULL)
		return false;
	*s = (struct slow_setxattr){ req, ino, size };
	memcpy(s->text, name, len);
	memcpy(s->text + len, value, size);
	if (later(req, WAITS_FOR_STORE, slow_setxattr_run, s))
		return true;
	free(s);
	return false;
}

void
op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
    int flags)
{
	bool waits = strncmp(name, "user.tbfs.", 10) == 0;

	if (!waits)
		reply(req, core_setxattr(req_core(req), ino, name, value, size, flags));
	else if (!setxattr_later(req, ino, name, value, size))
		reply(req, -EAGAIN);
}

void
op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	reply(req, core_removexattr(req_core(req), ino, name));
}

void
op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct staging_space space;
	struct statvfs st = { .f_bsize = 4096, .f_frsize = 4096, .f_namemax = INDEX_NAME_MAX };
	int r = staging_space(core_staging(req_core(req)), &space);

	(void)ino;
	if (r < 0) {
		reply(req, r);
		return;
	}
	st.f_blocks = space.total / 4096;
	st.f_bfree = st.f_bavail = space.available / 4096;
	st.f_files = space.files;
	st.f_ffree = st.f_favail = space.files_free;
	(void)fuse_reply_statfs(req, &st);
}
