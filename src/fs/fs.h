/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_FS_FS_H
#define TBFS_FS_FS_H

/* The FUSE session: mounts a core, serves it, tells the kernel what changed. */
#include "core/core.h"

struct fs;

enum fs_passthrough { PASSTHROUGH_AUTO, PASSTHROUGH_ON, PASSTHROUGH_OFF };

struct fs_options {
	const char *mountpoint;
	const char *source;		/* what /proc/mounts shows; no secrets */
	const char *mount_options;	/* further ones for mount(2), comma-separated; NULL: none */
	bool allow_other;
	enum fs_passthrough passthrough;
};

/* Mount.  When it returns 0 requests are being served. */
int fs_mount(struct core *core, const struct fs_options *opt, struct fs **ret_fs, struct error *err);
/* Until the mount is gone (umount, or fs_unmount from another thread). */
void fs_wait(struct fs *fs);
/* Detach the mountpoint; requests under way are still answered. `lazy`: also when in use. */
int fs_unmount(struct fs *fs, bool lazy);
/* After fs_wait(): no request is under way any more. */
void fs_stop(struct fs *fs);
void fs_free(struct fs *fs);

/* The kernel's copies are stale; no lock held.  Attributes: any thread, at once.  An entry: told
 * by the notifier, for whose queue this may wait: never from a thread that serves requests. */
void fs_attr_changed(struct fs *fs, uint64_t ino);
/* The same, with what it has of the contents: may wait for a request that fetches them. */
void fs_content_changed(struct fs *fs, uint64_t ino);
void fs_entry_changed(struct fs *fs, uint64_t parent, const char *name, bool again);
/* Wait until the kernel knows of every entry that changed before this call. */
void fs_entries_told(struct fs *fs);

struct fs_counts {
	uint64_t requests;		/* read from /dev/fuse */
	uint64_t passthrough_opens, daemon_opens;
};
void fs_get_counts(const struct fs *fs, struct fs_counts *ret_counts);
bool fs_has_passthrough(const struct fs *fs);

#endif
