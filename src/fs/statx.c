/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * STATX (protocol 7.39): what the kernel asks instead of GETATTR when somebody wants to know when a
 * file was made, as stat(1) does.  libfuse hands it on from 3.18; before, we answer it ourselves.
 */
#include "fs/private.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <linux/fuse.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>

enum { OPCODE_STATX = 52 };		/* FUSE_STATX, which the headers of Debian 12 don't have */

/* struct fuse_statx_out; its struct fuse_statx is laid out as struct statx. */
struct statx_out {
	uint64_t attr_valid;		/* s */
	uint32_t attr_valid_nsec;
	uint32_t flags;
	uint64_t spare[2];
	struct statx stat;
};

static struct statx_timestamp
to_statx_time(struct timespec t)
{
	return (struct statx_timestamp){ .tv_sec = t.tv_sec, .tv_nsec = (uint32_t)t.tv_nsec };
}

static void
attr_to_statx(const struct attr *attr, struct statx *ret_stx)
{
	struct stat st;

	attr_to_stat(attr, &st);
	*ret_stx = (struct statx){
		.stx_mask = STATX_BASIC_STATS | STATX_BTIME, .stx_blksize = (uint32_t)st.st_blksize,
		.stx_nlink = (uint32_t)st.st_nlink, .stx_uid = st.st_uid, .stx_gid = st.st_gid,
		.stx_mode = (uint16_t)st.st_mode, .stx_ino = st.st_ino, .stx_size = (uint64_t)st.st_size,
		.stx_blocks = (uint64_t)st.st_blocks, .stx_atime = to_statx_time(st.st_atim),
		.stx_mtime = to_statx_time(st.st_mtim), .stx_ctime = to_statx_time(st.st_ctim),
		.stx_btime = to_statx_time(ns_to_timespec(attr->inode.btime)),
		.stx_rdev_major = major(st.st_rdev), .stx_rdev_minor = minor(st.st_rdev),
	};
}

bool
statx_answer(struct fs *fs, const void *request)
{
	const struct fuse_in_header *in = request;
	struct fuse_out_header out = { .len = sizeof(out), .unique = in->unique };
	struct statx_out stx = { .flags = 0 };
	struct iovec iov[2] = { { &out, sizeof(out) }, { &stx, sizeof(stx) } };
	struct attr attr;

	if (in->opcode != OPCODE_STATX)
		return false;
	out.error = core_getattr(fs->core, in->nodeid, &attr);
	if (out.error == 0) {
		out.len += (uint32_t)sizeof(stx);
		stx.attr_valid = (uint64_t)attr_timeout(&attr);
		attr_to_statx(&attr, &stx.stat);
	}
	/* ENOENT: who asked has gone. */
	if (writev(fs->loops.fd, iov, out.error == 0 ? 2 : 1) < 0 && errno != ENOENT)
		(void)log_errno(-errno, "answering a STATX");
	return true;
}
