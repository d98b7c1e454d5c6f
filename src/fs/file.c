/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Requests about open files.  With passthrough the kernel moves the bytes and only the
 * odd calls arrive here; without it, all of them do.
 */
#include "fs/private.h"

#include "base/cleanup.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void
count_open(struct fs *fs, int32_t backing)
{
	if (backing > 0)
		atomic_fetch_add_explicit(&fs->passthrough_opens, 1, memory_order_relaxed);
	else
		atomic_fetch_add_explicit(&fs->daemon_opens, 1, memory_order_relaxed);
}

/* Who moves this handle's bytes?  With O_SYNC the kernel syncs them, but knows nothing of the
 * name: `sync_name`.  When it fails the handle is closed. */
static int
prepare(struct fs *fs, struct handle *h, bool sync_name, struct fuse_file_info *fi,
    int32_t *ret_backing)
{
	int r = sync_name && (h->flags & O_DSYNC) != 0 ? core_fsync(fs->core, h, false) : 0;

	if (r == 0)
		r = passthrough_begin(fs, h, ret_backing);
	if (r < 0) {
		passthrough_end(fs, h);
		core_release(fs->core, h);
		return r;
	}
	fi->fh = (uint64_t)(uintptr_t)h;
	/* A quota is to see what is written: beside the kernel's descriptor too, and up to 1 MiB in one
	 * request, which is refused whole. */
	fi->direct_io = (h->metered && (*ret_backing != 0 || fs->direct_mmap)) ||
	    (*ret_backing == 0 && (h->flags & O_DIRECT) != 0);
	fi->keep_cache = *ret_backing == 0 && !fi->direct_io && (h->flags & O_TRUNC) == 0;
	count_open(fs, *ret_backing);
	return 0;
}

/* A new file is open: hand it out.  -errno: nobody knows of it, and nothing was answered. */
static int
hand_out(fuse_req_t req, struct handle *h, const struct attr *attr, struct fuse_file_info *fi)
{
	struct fuse_entry_param e;
	int32_t backing;
	int r = prepare(req_fs(req), h, true, fi, &backing);

	if (r < 0) {
		core_forget(req_core(req), attr->inode.ino, 1);
		return r;
	}
	attr_to_entry(attr, &e);
	passthrough_reply_create(req, &e, fi, backing);
	return 0;
}

void
op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
    struct fuse_file_info *fi)
{
	struct caller who = req_caller(req);
	struct handle *h;
	struct attr attr;
	int r = check_name(name);

	core_make_room(req_core(req));
	if (r == 0)
		r = core_create(req_core(req), parent, name, mode, fi->flags, &who, &h, &attr);
	/* The processor made it since the kernel looked: it looks again, and opens what is there. */
	if (r == -EEXIST && (fi->flags & O_EXCL) == 0)
		r = -ESTALE;
	if (r == 0) {
		r = hand_out(req, h, &attr, fi);
		if (r < 0)
			(void)core_unlink(req_core(req), parent, name);
	}
	if (r < 0)
		reply(req, r);
}

void
op_tmpfile(fuse_req_t req, fuse_ino_t parent, mode_t mode, struct fuse_file_info *fi)
{
	struct caller who = req_caller(req);
	struct handle *h;
	struct attr attr;
	int r = core_tmpfile(req_core(req), parent, mode, fi->flags, &who, &h, &attr);

	if (r == 0)
		r = hand_out(req, h, &attr, fi);
	if (r < 0)
		reply(req, r);
}

struct open_call {
	fuse_ino_t ino;
	struct fuse_file_info fi;
};

static void
open_run(fuse_req_t req, const void *arg)
{
	const struct open_call *call = arg;
	struct fuse_file_info fi = call->fi;
	struct caller who = req_caller(req);
	struct handle *h;
	int32_t backing;
	int r;

	if ((fi.flags & O_ACCMODE) != O_RDONLY)
		core_make_room(req_core(req));
	r = core_open(req_core(req), call->ino, fi.flags, &h);
	if (r < 0) {
		reply(req, r);
		return;
	}
	if ((fi.flags & O_TRUNC) != 0)
		core_written(req_core(req), h, &who);
	/* Stores to a mapping move times without the kernel's FUSE noticing: from here on it asks.
	 * This one waits for no request and no lock, and is in force when the answer arrives. */
	if (h->was_still)
		fs_attr_changed(req_fs(req), call->ino);
	r = prepare(req_fs(req), h, h->writer, &fi, &backing);
	if (r < 0) {
		reply(req, r);
		return;
	}
	/* Nothing to say at close when nothing can have been written. */
	passthrough_reply_open(req, &fi, backing, !h->writer);
}

void
op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct open_call call = { ino, *fi };

	answer(req, core_open_waits(req_core(req), ino, fi->flags), open_run, &call, sizeof(call));
}

void
op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct fuse_bufvec buf = FUSE_BUFVEC_INIT(size);
	struct handle *h = fi_handle(fi);

	(void)ino;
	if (h->fd < 0) {
		reply(req, -EIO);
		return;
	}
	loop_step_aside(req_fs(req));
	buf.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
	buf.buf[0].fd = h->fd;
	buf.buf[0].pos = off;
	(void)fuse_reply_data(req, &buf, FUSE_BUF_NO_SPLICE);
}

void
op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
    struct fuse_file_info *fi)
{
	struct caller who = req_caller(req);
	struct handle *h = fi_handle(fi);
	int r;

	(void)ino;
	if (h->fd < 0) {
		reply(req, -EIO);
		return;
	}
	loop_step_aside(req_fs(req));
	r = core_grow(req_core(req), h, (uint64_t)off + size);
	if (r < 0) {
		reply(req, r);
		return;
	}
	if (!fi->writepage)
		core_written(req_core(req), h, &who);
	/* All of it or an error, never a part: callers ignore short counts. */
	r = pwrite_full(h->fd, buf, size, (uint64_t)off);
	if (r == -ENOSPC) {
		core_make_room(req_core(req));
		r = pwrite_full(h->fd, buf, size, (uint64_t)off);
	}
	if (r < 0)
		core_measure(req_core(req), h);
	if (r == -EIO)
		(void)core_eio(req_core(req), h->ino, "the disk can't take its bytes");
	if (r < 0)
		reply(req, r);
	else
		(void)fuse_reply_write(req, size);
}

void
op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	reply(req, core_flush(req_core(req), fi_handle(fi)));
}

void
op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct handle *h = fi_handle(fi);

	(void)ino;
	passthrough_end(req_fs(req), h);
	core_release(req_core(req), h);
	reply(req, 0);
}

struct fsync_call {
	struct handle *h;
	bool datasync;
};

static void
fsync_run(fuse_req_t req, const void *arg)
{
	const struct fsync_call *call = arg;

	reply(req, core_fsync(req_core(req), call->h, call->datasync));
}

void
op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct fsync_call call = { fi_handle(fi), datasync != 0 };

	(void)ino;
	answer(req, WAITS_FOR_DISK, fsync_run, &call, sizeof(call));
}

void
op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len,
    struct fuse_file_info *fi)
{
	struct caller who = req_caller(req);
	struct handle *h = fi_handle(fi);
	CLEANUP_CLOSE int fd = core_handle_fd(req_core(req), h, O_RDWR);
	int r = fd;

	(void)ino;
	loop_step_aside(req_fs(req));
	if (r >= 0 && (mode & FALLOC_FL_KEEP_SIZE) == 0)
		r = core_grow(req_core(req), h, (uint64_t)off + (uint64_t)len);
	if (r >= 0) {
		core_written(req_core(req), h, &who);
		core_make_room(req_core(req));
		r = fallocate(fd, mode, off, len) < 0 ? -errno : 0;
		if (r < 0)
			core_measure(req_core(req), h);
	}
	reply(req, r);
}

void
op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
	CLEANUP_CLOSE int fd = core_handle_fd(req_core(req), fi_handle(fi), O_RDONLY);
	off_t at;

	(void)ino;
	if (fd < 0) {
		reply(req, fd);
		return;
	}
	at = lseek(fd, off, whence);
	if (at < 0)
		reply(req, -errno);
	else
		(void)fuse_reply_lseek(req, at);
}

/* No more than there is: what is asked for may be "all of it". */
static size_t
copy_length(int in, off_t off, size_t len)
{
	struct stat st;

	if (fstat(in, &st) < 0 || st.st_size <= off)
		return 0;
	return len < (uint64_t)(st.st_size - off) ? len : (size_t)(st.st_size - off);
}

void
op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in,
    struct fuse_file_info *fi_in, fuse_ino_t ino_out, off_t off_out, struct fuse_file_info *fi_out,
    size_t len, int flags)
{
	struct caller who = req_caller(req);
	CLEANUP_CLOSE int in = core_handle_fd(req_core(req), fi_handle(fi_in), O_RDONLY);
	CLEANUP_CLOSE int out = core_handle_fd(req_core(req), fi_handle(fi_out), O_RDWR);
	ssize_t n;
	int r;

	(void)ino_in;
	(void)ino_out;
	if (in < 0 || out < 0) {
		reply(req, in < 0 ? in : out);
		return;
	}
	loop_step_aside(req_fs(req));
	len = copy_length(in, off_in, len);
	r = core_grow(req_core(req), fi_handle(fi_out), (uint64_t)off_out + len);
	if (r < 0) {
		reply(req, r);
		return;
	}
	core_written(req_core(req), fi_handle(fi_out), &who);
	n = copy_file_range(in, &off_in, out, &off_out, len, (unsigned)flags);
	if (n < (ssize_t)len)
		core_measure(req_core(req), fi_handle(fi_out));
	if (n < 0)
		reply(req, -errno);
	else
		(void)fuse_reply_write(req, (size_t)n);
}
