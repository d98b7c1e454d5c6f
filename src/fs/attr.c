/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Requests about attributes and extended attributes. */
#include "fs/private.h"

#include "base/clock.h"

#include <errno.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>

bool
req_has_group(void *req, uint32_t gid)
{
	gid_t few[64], *groups = few;
	int n = fuse_req_getgroups(req, 64, few), room = 64, i;
	bool found = false;

	while (n > room) {
		room = n;
		if (groups != few)
			free(groups);
		groups = calloc((size_t)room, sizeof(*groups));
		n = groups == NULL ? -1 : fuse_req_getgroups(req, room, groups);
	}
	for (i = 0; i < n && !found; i++)
		found = groups[i] == gid;
	if (groups != few)
		free(groups);
	return found;
}

double
attr_timeout(const struct attr *attr)
{
	return attr->moving ? 0 : KERNEL_TIMEOUT;
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
		.attr_timeout = attr_timeout(attr), .entry_timeout = KERNEL_TIMEOUT };
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

struct setattr_call {
	fuse_ino_t ino;
	unsigned set;
	struct inode to;
};

static void
setattr_run(fuse_req_t req, const void *arg)
{
	const struct setattr_call *call = arg;
	struct caller who = req_caller(req);
	struct attr attr;
	int r = core_setattr(req_core(req), call->ino, call->set, &call->to, &who, &attr);

	if (r < 0) {
		reply(req, r);
		return;
	}
	/* With its target in the cache nobody would ask, and move the time, when it is read. */
	if (S_ISLNK(attr.inode.mode) && (call->set & SET_ATIME) != 0)
		fs_content_changed(req_fs(req), call->ino);
	reply_attr(req, &attr);
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
	struct setattr_call call = { .ino = ino, .to = {
		.mode = st->st_mode, .uid = st->st_uid, .gid = st->st_gid,
		.size = (uint64_t)st->st_size, .atime = timespec_to_ns(st->st_atim),
		.mtime = timespec_to_ns(st->st_mtim) } };
	enum core_wait wait = WAITS_FOR_NOTHING;
	size_t i;

	(void)fi;
	for (i = 0; i < sizeof(map) / sizeof(map[0]); i++)
		if ((to_set & map[i].fuse) != 0)
			call.set |= map[i].core;
	if ((to_set & FUSE_SET_ATTR_ATIME_NOW) != 0)
		call.to.atime = now;
	if ((to_set & FUSE_SET_ATTR_MTIME_NOW) != 0)
		call.to.mtime = now;
	/* With KILLPRIV_V2 an empty set asks to clear setuid and setgid after a write; a truncate by
	 * somebody without privilege does it too. */
	if (call.set == 0 || ((call.set & SET_SIZE) != 0 && fuse_req_ctx(req)->uid != 0))
		call.set |= SET_KILL_PRIV;
	if ((call.set & SET_SIZE) != 0)
		wait = core_open_waits(req_core(req), ino, O_WRONLY);
	answer(req, wait, setattr_run, &call, sizeof(call));
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

struct setxattr_call {
	fuse_ino_t ino;
	size_t size;
	char name[256], value[256];
};

static void
setxattr_run(fuse_req_t req, const void *arg)
{
	const struct setxattr_call *call = arg;
	struct caller who = req_caller(req);

	reply(req, core_setxattr(req_core(req), call->ino, call->name, call->value, call->size, 0, &who));
}

/* tbfs's own ask for something that may wait for the store (user.tbfs.sync). */
void
op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
    int flags)
{
	struct setxattr_call call = { .ino = ino, .size = size };
	struct caller who = req_caller(req);

	if (strncmp(name, "user.tbfs.", 10) != 0) {
		reply(req, core_setxattr(req_core(req), ino, name, value, size, flags, &who));
	} else if (strlen(name) >= sizeof(call.name) || size > sizeof(call.value)) {
		reply(req, -EINVAL);
	} else {
		strcpy(call.name, name);
		memcpy(call.value, value, size);
		answer(req, WAITS_FOR_STORE, setxattr_run, &call, sizeof(call));
	}
}

void
op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	reply(req, core_removexattr(req_core(req), ino, name));
}

/* lsattr(1) and cp ask for the flags of chattr(1), of which a file here has none. */
void
op_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg, struct fuse_file_info *fi,
    unsigned flags, const void *in, size_t in_size, size_t out_size)
{
	const struct fsxattr none = { 0 };
	const unsigned no_flags = 0;

	(void)ino;
	(void)arg;
	(void)fi;
	(void)flags;
	if (cmd == FS_IOC_GETFLAGS && out_size >= sizeof(no_flags))
		(void)fuse_reply_ioctl(req, 0, &no_flags, sizeof(no_flags));
	else if (cmd == FS_IOC_FSGETXATTR && out_size >= sizeof(none))
		(void)fuse_reply_ioctl(req, 0, &none, sizeof(none));
	else if (cmd == FS_IOC_SETFLAGS && in_size >= sizeof(no_flags) &&
	    memcmp(in, &no_flags, sizeof(no_flags)) == 0)
		(void)fuse_reply_ioctl(req, 0, NULL, 0);
	else
		reply(req, cmd == FS_IOC_SETFLAGS || cmd == FS_IOC_FSSETXATTR ? -EOPNOTSUPP : -ENOTTY);
}

/* In a tree with a limit the limit is what there is, and its rest is free, as far as the disk
 * has that. */
static void
within(int64_t limit, int64_t used, int64_t unit, fsblkcnt_t *total, fsblkcnt_t *free_io)
{
	fsblkcnt_t rest = used < limit ? (fsblkcnt_t)((limit - used) / unit) : 0;

	if (limit == 0)
		return;
	*total = (fsblkcnt_t)((limit + unit - 1) / unit);
	if (rest < *free_io)
		*free_io = rest;
}

void
op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct staging_space space;
	struct statvfs st = { .f_bsize = 4096, .f_frsize = 4096, .f_namemax = INDEX_NAME_MAX };
	struct quota room;
	int r;

	core_make_room(req_core(req));
	r = staging_space(core_staging(req_core(req)), &space);
	if (r < 0) {
		reply(req, r);
		return;
	}
	st.f_blocks = space.total / 4096;
	st.f_bfree = st.f_bavail = space.available / 4096;
	st.f_files = space.files;
	st.f_ffree = st.f_favail = space.files_free;
	if (index_quota_room(core_index(req_core(req)), ino, &room) == 0) {
		within(room.limit.bytes, room.used.bytes, 4096, &st.f_blocks, &st.f_bfree);
		within(room.limit.files, room.used.files, 1, &st.f_files, &st.f_ffree);
		st.f_bavail = st.f_bfree;
		st.f_favail = st.f_ffree;
	}
	(void)fuse_reply_statfs(req, &st);
}
