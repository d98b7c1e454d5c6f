/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * FUSE passthrough (Linux 6.9): a file that is opened with the id of a registered
 * descriptor is read and written by the kernel, straight on the staged file.
 *
 * Negotiated in the INIT request, for which this file reads and writes /dev/fuse itself
 * (fuse_session_custom_io): libfuse 3.14 knows neither the flag nor parallel lookups nor
 * KILLPRIV_V2, and what it answers is completed here on its way to the kernel.  With a
 * newer libfuse the same bits are simply there already.  Numbers and layouts are those
 * of linux/fuse.h, protocol 7.40.
 *
 *   1. All handles of an inode that are open at one time share one id, or none.
 *   2. The registered descriptor is read-only: the kernel opens the staged file anew with
 *      the flags of each handle.
 */
#include "fs/private.h"

#include "base/log.h"

#include <errno.h>
#include <linux/fuse.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

struct backing_map {
	int32_t fd;
	uint32_t flags;
	uint64_t padding;
};
#define BACKING_OPEN _IOW(229, 1, struct backing_map)
#define BACKING_CLOSE _IOW(229, 2, uint32_t)

enum {
	OPEN_PASSTHROUGH = 1 << 7,	/* FOPEN_PASSTHROUGH */
	OPEN_NOFLUSH = 1 << 5,		/* FOPEN_NOFLUSH */
	INIT2_PASSTHROUGH = 1 << (37 - 32),
	INIT2_DIRECT_IO_MMAP = 1 << (36 - 32),
	INIT_BIT_PARALLEL_DIROPS = 1 << 18,
	INIT_BIT_KILLPRIV_V2 = 1 << 28,
	INIT_BIT_EXT = 1 << 30,
};

/* The two ends of INIT, as far as they concern us. */
struct init_in {
	uint32_t major, minor, max_readahead, flags, flags2;
};

struct init_out {
	uint32_t major, minor, max_readahead, flags;
	uint16_t max_background, congestion_threshold;
	uint32_t max_write, time_gran;
	uint16_t max_pages, map_alignment;
	uint32_t flags2, max_stack_depth;
};

static void
init_seen(struct fs *fs, const char *buf, size_t len)
{
	const struct fuse_in_header *in = (const void *)buf;
	const struct init_in *init = (const void *)(buf + sizeof(*in));

	fs->init_unique = in->unique;
	if (len < sizeof(*in) + sizeof(*init) || (init->flags & INIT_BIT_EXT) == 0)
		return;
	fs->direct_mmap = (init->flags2 & INIT2_DIRECT_IO_MMAP) != 0;
	if ((init->flags2 & INIT2_PASSTHROUGH) != 0 && fs->want_passthrough != PASSTHROUGH_OFF)
		atomic_store(&fs->passthrough, true);
}

static ssize_t
io_read(int fd, void *buf, size_t len, void *userdata)
{
	struct fs *fs = userdata;
	ssize_t n = loop_read(fs, buf, len);
	const struct fuse_in_header *in = buf;

	(void)fd;
	if (n >= (ssize_t)sizeof(*in)) {
		atomic_fetch_add_explicit(&fs->requests, 1, memory_order_relaxed);
		if (in->opcode == FUSE_INIT)
			init_seen(fs, buf, (size_t)n);
	}
	return n;
}

static ssize_t
io_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	struct fs *fs = userdata;
	const struct fuse_out_header *out = iov[0].iov_base;

	if (out->unique == fs->init_unique && out->unique != 0 && out->error == 0 && count == 2 &&
	    iov[1].iov_len >= sizeof(struct init_out)) {
		struct init_out *init = iov[1].iov_base;

		fs->init_unique = 0;
		init->flags |= INIT_BIT_PARALLEL_DIROPS | INIT_BIT_KILLPRIV_V2 | INIT_BIT_EXT;
		init->flags2 |= INIT2_DIRECT_IO_MMAP;
		if (atomic_load(&fs->passthrough)) {
			init->flags2 |= INIT2_PASSTHROUGH;
			init->max_stack_depth = 1;
			log_info("the kernel moves the bytes (passthrough)");
		}
	}
	(void)fd;
	return writev(fs->loops.fd, iov, count);
}

int
passthrough_attach(struct fs *fs)
{
	static const struct fuse_custom_io io = { .writev = io_writev, .read = io_read };

	return fuse_session_custom_io(fs->se, &io, fuse_session_fd(fs->se));
}

static int32_t
backing_open(void *arg, int fd)
{
	struct fs *fs = arg;
	struct backing_map map = { .fd = fd };
	int id = ioctl(fs->loops.fd, BACKING_OPEN, &map);

	if (id > 0)
		return id;
	if (atomic_exchange(&fs->passthrough, false))
		log_warn("passthrough is refused by the kernel (%s%s): the daemon moves the bytes",
		    strerror(errno), errno == ELOOP ? ", the state directory is on a stacked file system" :
		    errno == EPERM ? ", it needs CAP_SYS_ADMIN" : "");
	return 0;
}

int
passthrough_begin(struct fs *fs, struct handle *h, int32_t *ret_backing)
{
	/* An inode that already has an id keeps it, whatever has become of the switch. */
	return core_backing_take(fs->core, h, atomic_load(&fs->passthrough) ? backing_open : NULL, fs,
	    ret_backing);
}

void
passthrough_end(struct fs *fs, struct handle *h)
{
	uint32_t id = (uint32_t)core_backing_drop(fs->core, h);

	if (id != 0)
		(void)ioctl(fs->loops.fd, BACKING_CLOSE, &id);
}

static void
open_out(const struct fuse_file_info *fi, int32_t backing, bool noflush,
    struct fuse_open_out *ret_out)
{
	*ret_out = (struct fuse_open_out){ .fh = fi->fh };
	ret_out->open_flags = (backing > 0 ? (uint32_t)OPEN_PASSTHROUGH : 0) |
	    (noflush ? (uint32_t)OPEN_NOFLUSH : 0) |
	    (fi->keep_cache ? (uint32_t)FOPEN_KEEP_CACHE : 0) |
	    (fi->direct_io ? (uint32_t)FOPEN_DIRECT_IO : 0);
	/* `padding` in the headers of Debian 12 is backing_id since 7.40. */
	memcpy((char *)ret_out + offsetof(struct fuse_open_out, open_flags) + sizeof(uint32_t),
	    &backing, sizeof(backing));
}

void
passthrough_reply_open(fuse_req_t req, const struct fuse_file_info *fi, int32_t backing,
    bool noflush)
{
	struct fuse_open_out out;

	open_out(fi, backing, noflush, &out);
	/* Interrupted: the kernel never saw the handle. */
	if (fuse_reply_buf(req, (const char *)&out, sizeof(out)) == -ENOENT) {
		passthrough_end(req_fs(req), fi_handle(fi));
		core_release(req_core(req), fi_handle(fi));
	}
}

static void
stat_to_fuse(const struct stat *st, struct fuse_attr *ret_attr)
{
	*ret_attr = (struct fuse_attr){
		.ino = st->st_ino, .size = (uint64_t)st->st_size, .blocks = (uint64_t)st->st_blocks,
		.atime = (uint64_t)st->st_atim.tv_sec, .mtime = (uint64_t)st->st_mtim.tv_sec,
		.ctime = (uint64_t)st->st_ctim.tv_sec, .atimensec = (uint32_t)st->st_atim.tv_nsec,
		.mtimensec = (uint32_t)st->st_mtim.tv_nsec, .ctimensec = (uint32_t)st->st_ctim.tv_nsec,
		.mode = st->st_mode, .nlink = (uint32_t)st->st_nlink, .uid = st->st_uid, .gid = st->st_gid,
		.rdev = (uint32_t)st->st_rdev, .blksize = (uint32_t)st->st_blksize,
	};
}

void
passthrough_reply_create(fuse_req_t req, const struct fuse_entry_param *e,
    const struct fuse_file_info *fi, int32_t backing)
{
	struct {
		struct fuse_entry_out entry;
		struct fuse_open_out open;
	} out = { .entry = { .nodeid = e->ino, .generation = e->generation,
		.entry_valid = (uint64_t)e->entry_timeout, .attr_valid = (uint64_t)e->attr_timeout } };

	stat_to_fuse(&e->attr, &out.entry.attr);
	open_out(fi, backing, false, &out.open);
	if (fuse_reply_buf(req, (const char *)&out, sizeof(out)) == -ENOENT) {
		struct core *core = req_core(req);
		uint64_t ino = e->ino;

		passthrough_end(req_fs(req), fi_handle(fi));
		core_release(core, fi_handle(fi));
		core_forget(core, ino, 1);
	}
}
