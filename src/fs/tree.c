/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Requests about names. */
#include "fs/private.h"

#include "base/cleanup.h"

#include <errno.h>
#include <string.h>

int
check_name(const char *name)
{
	return strlen(name) > INDEX_NAME_MAX ? -ENAMETOOLONG : 0;
}

static void
reply_entry(fuse_req_t req, int r, const struct attr *attr)
{
	struct fuse_entry_param e;

	if (r < 0) {
		reply(req, r);
		return;
	}
	attr_to_entry(attr, &e);
	/* The kernel never saw the answer: it will not say forget. */
	if (fuse_reply_entry(req, &e) == -ENOENT)
		core_forget(req_core(req), attr->inode.ino, 1);
}

/* The kernel looks for "." and ".." of an inode that it has a handle of (open_by_handle_at(2), NFS)
 * and knows no longer. */
static int
lookup(struct core *c, uint64_t parent, const char *name, struct attr *ret_attr)
{
	uint64_t ino = parent;
	int r;

	if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0)
		return core_lookup(c, parent, name, ret_attr);
	r = name[1] == '.' ? index_parent(core_index(c), parent, &ino) : 0;
	return r < 0 ? r : core_lookup_handle(c, ino, ret_attr);
}

/* That a name isn't there may be remembered: who makes one without the kernel (the processor)
 * tells it, and the kernel takes that in only after the lookups that are on their way. */
static void
op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	const struct fuse_entry_param none = { .ino = 0, .entry_timeout = KERNEL_TIMEOUT };
	struct attr attr;
	int r = check_name(name);

	if (r == 0)
		r = lookup(req_core(req), parent, name, &attr);
	if (r == -ENOENT)
		(void)fuse_reply_entry(req, &none);
	else
		reply_entry(req, r, &attr);
}

static void
op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n)
{
	core_forget(req_core(req), ino, n);
	fuse_reply_none(req);
}

static void
op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	size_t i;

	for (i = 0; i < count; i++)
		core_forget(req_core(req), forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

static void
op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	struct caller who = req_caller(req);
	struct attr attr;
	int r = check_name(name);

	if (r == 0)
		r = core_mknod(req_core(req), parent, name, mode, rdev, &who, &attr);
	reply_entry(req, r, &attr);
}

static void
op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct caller who = req_caller(req);
	struct attr attr;
	int r = check_name(name);

	if (r == 0)
		r = core_mkdir(req_core(req), parent, name, mode, &who, &attr);
	reply_entry(req, r, &attr);
}

static void
op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	struct caller who = req_caller(req);
	struct attr attr;
	int r = check_name(name);

	if (r == 0)
		r = core_symlink(req_core(req), parent, name, target, &who, &attr);
	reply_entry(req, r, &attr);
}

static void
op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	struct attr attr;
	int r = check_name(name);

	if (r == 0)
		r = core_link(req_core(req), ino, parent, name, &attr);
	reply_entry(req, r, &attr);
}

static void
op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	CLEANUP_FREE char *target = NULL;
	int r = core_readlink(req_core(req), ino, &target);

	/* What is answered from the kernel's cache later isn't heard of. */
	if (r == 0)
		core_accessed(req_core(req), ino);
	if (r < 0)
		reply(req, r);
	else
		(void)fuse_reply_readlink(req, target);
}

static void
op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	int r = check_name(name);

	reply(req, r < 0 ? r : core_unlink(req_core(req), parent, name));
}

static void
op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	int r = check_name(name);

	reply(req, r < 0 ? r : core_rmdir(req_core(req), parent, name));
}

/* RENAME_* of linux/fs.h; what we don't know is refused, never taken for a plain rename. */
enum { KERNEL_NOREPLACE = 1, KERNEL_EXCHANGE = 2 };

static void
op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
    const char *newname, unsigned flags)
{
	unsigned how = ((flags & KERNEL_NOREPLACE) != 0 ? INDEX_NOREPLACE : 0u) |
	    ((flags & KERNEL_EXCHANGE) != 0 ? INDEX_EXCHANGE : 0u);
	int r = check_name(newname);

	if ((flags & ~(unsigned)(KERNEL_NOREPLACE | KERNEL_EXCHANGE)) != 0 ||
	    how == (INDEX_NOREPLACE | INDEX_EXCHANGE))
		r = -EINVAL;
	if (r == 0)
		r = core_rename(req_core(req), parent, name, newparent, newname, how);
	reply(req, r);
}

static void
op_init(void *userdata, struct fuse_conn_info *conn)
{
	(void)userdata;
	conn->want |= conn->capable & (FUSE_CAP_READDIRPLUS | FUSE_CAP_ATOMIC_O_TRUNC |
	    FUSE_CAP_POSIX_ACL | FUSE_CAP_DONT_MASK | FUSE_CAP_CACHE_SYMLINKS | FUSE_CAP_ASYNC_READ |
	    FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_EXPORT_SUPPORT);
	conn->want &= ~(unsigned)(FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_SPLICE_READ |
	    FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE | FUSE_CAP_WRITEBACK_CACHE |
	    FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_HANDLE_KILLPRIV |
	    /* After an asynchronous direct write the kernel leaves old pages in its cache. */
	    FUSE_CAP_ASYNC_DIO);
	conn->max_write = 1 << 20;
	conn->max_readahead = 1 << 20;
	conn->max_background = 64;
	conn->congestion_threshold = 48;
	conn->time_gran = 1;
}

/* No lock operations: without them the kernel does flock, POSIX and OFD locks itself. */
const struct fuse_lowlevel_ops tree_ops = {
	.init = op_init,
	.lookup = op_lookup,
	.forget = op_forget,
	.forget_multi = op_forget_multi,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.readlink = op_readlink,
	.mknod = op_mknod,
	.mkdir = op_mkdir,
	.unlink = op_unlink,
	.rmdir = op_rmdir,
	.symlink = op_symlink,
	.rename = op_rename,
	.link = op_link,
	.open = op_open,
	.read = op_read,
	.write = op_write,
	.flush = op_flush,
	.release = op_release,
	.fsync = op_fsync,
	.opendir = op_opendir,
	.readdir = op_readdir,
	.readdirplus = op_readdirplus,
	.releasedir = op_releasedir,
	.fsyncdir = op_fsyncdir,
	.statfs = op_statfs,
	.setxattr = op_setxattr,
	.getxattr = op_getxattr,
	.listxattr = op_listxattr,
	.removexattr = op_removexattr,
	.create = op_create,
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
	.tmpfile = op_tmpfile,
#endif
	.fallocate = op_fallocate,
	.copy_file_range = op_copy_file_range,
	.lseek = op_lseek,
	.ioctl = op_ioctl,
};
