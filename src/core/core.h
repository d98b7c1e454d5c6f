/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_CORE_CORE_H
#define TBFS_CORE_CORE_H

/*
 * What the file system, the syncer, the processor and the verbs share: the tree,
 * open files and the life of their bytes.  Everything returns 0 (or what is said)
 * or -errno as ext4 would give it.  Any thread; no lock held by the caller.
 * Permissions are the kernel's business (default_permissions).
 */
#include "base/error.h"
#include "index/index.h"
#include "staging/staging.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct core;
struct node;

/* Who asks. */
struct caller {
	uint32_t uid, gid;
	uint32_t umask;
	/* Is gid one of its supplementary groups?  NULL: it has none. */
	bool (*has_group)(void *arg, uint32_t gid);
	void *arg;
};

/* Where cold bytes come from; filled in by whoever assembles the daemon. */
struct fetcher {
	void *arg;
	/* Bytes [0, size) of the object into fd; may take long. */
	int (*fetch)(void *arg, const struct object *object, int fd, struct error *err);
	/* The object gets blocks of its own before the staged file changes; may take long. */
	int (*unshare)(void *arg, const struct object *object, struct error *err);
	/* A URL that reads the object; malloc'd. */
	int (*url)(void *arg, const struct object *object, unsigned expires, char **ret_url,
	    struct error *err);
};

/* What others want to hear; called without locks, from any thread. */
struct core_events {
	void *arg;
	void (*work_queued)(void *arg, int64_t due);	/* for the syncer, at this wall clock ns */
	void (*attr_changed)(void *arg, uint64_t ino);		/* kernel's copy is stale */
	/* The kernel's copy of a name is stale.  `again`: it will be told once more, and may not be told now. */
	void (*entry_changed)(void *arg, uint64_t parent, const char *name, bool again);
	void (*derive_queued)(void *arg);			/* for the processor, due now */
	/* Name, owner, mode or mtime of an original moved, or it is gone. */
	void (*changed)(void *arg, uint64_t ino);
	/* A user removed a derived file, which is to come back, or what stood in the place of one. */
	void (*derived_gone)(void *arg, uint64_t parent, const char *name);
	/* Somebody wants a new meta.json of his own in this keep: there is to be ours, at once. */
	void (*meta_wanted)(void *arg, uint64_t keep);
	/* user.tbfs.<what> that core doesn't know; as getxattr and setxattr. */
	ssize_t (*virtual_get)(void *arg, uint64_t ino, const char *what, void *buf, size_t room);
	int (*virtual_set)(void *arg, uint64_t ino, const char *what, const void *value, size_t len);
};

struct core_options {
	struct index *index;
	struct staging *staging;
	int64_t quiet_period;		/* ns */
	int64_t temp_delay;		/* ns: for names on their way somewhere else */
	bool hide_derived;		/* derived=hidden */
	bool derive;			/* derived != off */
	bool noatime, nodiratime;	/* reading moves no atime; that of directories */
	const char *control_path;	/* answers user.tbfs.control */
};

int core_new(const struct core_options *opt, struct core **ret_core);
void core_free(struct core *c);
void core_set_fetcher(struct core *c, const struct fetcher *fetcher);
void core_set_events(struct core *c, const struct core_events *events);
struct index *core_index(struct core *c);
struct staging *core_staging(struct core *c);
/* After how many ns without writer or rename a file is quiet; with a temporary name. */
int64_t core_quiet_period(const struct core *c);
int64_t core_temp_delay(const struct core *c);
void core_set_quiet(struct core *c, int64_t quiet_period, int64_t temp_delay);

/* Bring index and staging together after a start: what was open, torn, lost or left over. */
struct missing;
struct recovery {
	bool power_cut;
	bool behind;			/* the index lacks commits that it had */
	int64_t newest;			/* last change of anything, after a power cut */
	struct missing *missing;	/* during the recovery */
	uint64_t open, torn, rehydrate, dropped, restored, freed;
};
int core_recover(struct core *c, enum index_end end, struct recovery *ret_recovery,
    struct error *err);

/* A client gets EIO for this inode: say so once in the log, with where it is and why.  -EIO. */
int core_eio(struct core *c, uint64_t ino, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- attributes ---- */

/* An inode as a client sees it: while its bytes may change, size and times are the staged
 * file's. */
struct attr {
	struct inode inode;
	uint64_t blocks;		/* of 512 bytes */
	bool moving;			/* do not cache: it may change without anybody being told */
};

int core_getattr(struct core *c, uint64_t ino, struct attr *ret_attr);
/* A directory or a symbolic link is read: its atime moves as relatime has it (mount(8)).  Would it? */
void core_accessed(struct core *c, uint64_t ino);
bool core_access_moves(struct core *c, uint64_t ino);
/* Not to be listed (derived=hidden). */
bool core_is_hidden(const struct core *c, const struct inode *inode);

enum core_set {
	SET_MODE = 1 << 0, SET_UID = 1 << 1, SET_GID = 1 << 2, SET_SIZE = 1 << 3,
	SET_ATIME = 1 << 4, SET_MTIME = 1 << 5,
	SET_KILL_PRIV = 1 << 6,		/* clear setuid and setgid: somebody without privilege wrote */
};
/* -EPERM: SET_KILL_PRIV alone of a file that nobody writes, for somebody who doesn't own it. */
int core_setattr(struct core *c, uint64_t ino, unsigned set, const struct inode *to,
    const struct caller *who, struct attr *ret_attr);
/* Without privilege, and not of that group. */
bool caller_is_outsider(const struct caller *who, uint32_t gid);

ssize_t core_getxattr(struct core *c, uint64_t ino, const char *name, void *buf, size_t room);
ssize_t core_listxattr(struct core *c, uint64_t ino, bool privileged, char *buf, size_t room);
int core_setxattr(struct core *c, uint64_t ino, const char *name, const void *value, size_t len,
    int flags, const struct caller *who);
int core_removexattr(struct core *c, uint64_t ino, const char *name);

/* ---- tree ---- */

/* Each of these that gives an attr counts one lookup: the kernel knows the inode until it
 * says forget. */
int core_lookup(struct core *c, uint64_t parent, const char *name, struct attr *ret_attr);
int core_lookup_handle(struct core *c, uint64_t ino, struct attr *ret_attr);	/* by its number */
void core_entry(struct core *c, const struct inode *inode, struct attr *ret_attr);	/* of a listing */
void core_forget(struct core *c, uint64_t ino, uint64_t n);

int core_mknod(struct core *c, uint64_t parent, const char *name, uint32_t mode, uint64_t rdev,
    const struct caller *who, struct attr *ret_attr);
int core_mkdir(struct core *c, uint64_t parent, const char *name, uint32_t mode,
    const struct caller *who, struct attr *ret_attr);
int core_symlink(struct core *c, uint64_t parent, const char *name, const char *target,
    const struct caller *who, struct attr *ret_attr);
int core_link(struct core *c, uint64_t ino, uint64_t parent, const char *name,
    struct attr *ret_attr);
int core_unlink(struct core *c, uint64_t parent, const char *name);
int core_rmdir(struct core *c, uint64_t parent, const char *name);
int core_rename(struct core *c, uint64_t parent, const char *name, uint64_t newparent,
    const char *newname, unsigned flags);	/* enum index_rename_flags */
int core_readlink(struct core *c, uint64_t ino, char **ret_target);

/* What is below /circles/<c>/keeps/<k>/ is processed.  0, or -ENOENT: it is elsewhere. */
struct keep_path {
	uint64_t ino;			/* of the keep */
	char circle[256], keep[256];
	char *rest;			/* path of the inode inside the keep; malloc'd */
};
int core_keep_path(struct core *c, uint64_t ino, struct keep_path *ret_path);
void keep_path_release(struct keep_path *p);
/* Walk a path from the root ("" or relative); no symlinks. */
int core_resolve(struct core *c, const char *path, struct inode *ret_inode);

/* ---- open files ---- */

struct handle {
	uint64_t ino;
	struct node *node;
	int fd;				/* of the staged file; -1 with passthrough */
	int flags;			/* open flags */
	bool writer;
	bool was_still;			/* a client may rely on attributes that could move from now on */
	bool kill_priv;			/* the inode has setuid or setgid bits a write must clear */
	bool metered;			/* a quota is above it: what it writes must pass the daemon */
	bool backed;			/* it counts among the users of the node's registered descriptor */
};

/* A new file, open.  -EEXIST when the name is taken. */
int core_create(struct core *c, uint64_t parent, const char *name, uint32_t mode, int flags,
    const struct caller *who, struct handle **ret_handle, struct attr *ret_attr);
int core_tmpfile(struct core *c, uint64_t parent, uint32_t mode, int flags,
    const struct caller *who, struct handle **ret_handle, struct attr *ret_attr);
/* May take long, which core_open_waits() tells before: cold bytes come from a store; the disk
 * syncs a file that leaves STORED, or breaks its link to an object. */
int core_open(struct core *c, uint64_t ino, int flags, struct handle **ret_handle);
enum core_wait { WAITS_FOR_NOTHING, WAITS_FOR_DISK, WAITS_FOR_STORE };
enum core_wait core_open_waits(struct core *c, uint64_t ino, int flags);
int core_flush(struct core *c, struct handle *h);
int core_fsync(struct core *c, struct handle *h, bool datasync);
int core_fsyncdir(struct core *c);
void core_release(struct core *c, struct handle *h);

/* A descriptor of the staged file for this handle, to be closed by the caller; for what
 * passthrough doesn't carry (fallocate, lseek, copy_file_range). */
int core_handle_fd(struct core *c, struct handle *h, int mode);
/* The file is to reach at least up to `end`; -EDQUOT when a quota has no room for that.  When
 * nothing came of it, core_measure() has its size counted as it is. */
int core_grow(struct core *c, struct handle *h, uint64_t end);
void core_measure(struct core *c, struct handle *h);
/* Through the daemon: bytes changed by this handle (clears setuid for `who`). */
void core_written(struct core *c, struct handle *h, const struct caller *who);

/* The kernel's registered descriptor of a node's staged file, shared by its handles: one id
 * at a time, `take` (NULL: don't) registers (0: not possible), `drop` gives back when the last has gone.
 * Called by fs with the handle just opened or about to be released.  Where there is no id
 * (*ret_id 0) the handle has a descriptor of its own afterwards that can do what its flags say;
 * -errno when that can't be had. */
int core_backing_take(struct core *c, struct handle *h, int32_t (*take)(void *arg, int fd),
    void *arg, int32_t *ret_id);
int32_t core_backing_drop(struct core *c, struct handle *h);	/* id to close now; 0: none */

/* ---- the life of a file, for syncer and processor ---- */

/* OPEN becomes DIRTY (or, unchanged, what it was) when nobody can write any more; a file in
 * another state stays what it is.  -EBUSY somebody can; -ENOENT it is gone. */
int core_settle(struct core *c, uint64_t ino, struct inode *ret_inode);

/* Hold a generation while it is worked on. */
struct node *core_pin(struct core *c, uint64_t ino);
void core_unpin(struct core *c, struct node *n);
bool core_is_current(const struct node *n, uint64_t generation);

/* Open the staged bytes of this generation for reading, sure that nobody could change them
 * at this moment; whether that holds, core_is_current() tells afterwards.  -ESTALE, -EBUSY. */
int core_open_generation(struct core *c, struct node *n, uint64_t generation);
/* Put the bytes of fd, the staged file of n, and its name there on the disk. */
int core_sync_bytes(struct core *c, struct node *n, int fd);
/* Between these a backend may link the staged file to an object: whoever wants to change the
 * bytes waits (and core_is_current() turns false).  -ESTALE. */
int core_link_begin(struct core *c, struct node *n, uint64_t generation);
void core_link_end(struct core *c, struct node *n);

/* Key under which an inode's object belongs: its path; -ENOENT no name, -EINVAL no legal key. */
int core_natural_key(struct core *c, uint64_t ino, char **ret_key);

/* A request has been answered: note beside the staged bytes what it moved.  Cheap when nothing. */
void core_write_places(struct core *c);
/* Reap what was removed and nobody holds any more: from then on its objects are work.  true: there was
 * something, whose staged bytes core_collect() frees. */
bool core_reap(struct core *c);
/* The same, and unlink staged files whose rows are durably gone. */
void core_collect(struct core *c, bool at_start);
/* Tell the kernel once more of what went and it still knows.  Not from a thread that serves requests: it may
 * have to wait for one. */
void core_tell_lingering(struct core *c);

/* Before space is needed, or told of: where it is short, wait for that of removed files.  Cheap when
 * there is none. */
void core_make_room(struct core *c);

/* Files whose writers have been there since before `since` (wall clock ns). */
void core_each_open(struct core *c, int64_t since,
    void (*fn)(void *arg, uint64_t ino, int64_t since), void *arg);

/* How many files at or below `dir` somebody has open for writing; one of them. */
uint64_t core_count_writers(struct core *c, uint64_t dir, uint64_t *ret_one);

/* ---- derived files (written by the processor) ---- */

/* Where a derived file stands and what it looks like. */
struct derived_file {
	uint64_t keep;
	const char *dir_path;		/* below the keep: "" or "thumbs/IMG_1.jpg"; made when missing */
	const char *name;
	uint32_t mode, uid, gid;
	int64_t mtime;
};
/* Give it the bytes of fd (from staging_scratch(); its inode is used), replacing what was
 * there; queued for upload after `upload_delay` ns.  Never touches times of anything the
 * user made. */
int core_derived_put(struct core *c, const struct derived_file *f, int fd, int64_t upload_delay);
/* Remove the derived files that stand in a directory, not those below, and it where it is empty then; 0 also when
 * it isn't there. */
int core_derived_clear(struct core *c, uint64_t keep, const char *dir_path);
/* Remove a derived file or directory; 0 also when it isn't there. */
int core_derived_remove(struct core *c, uint64_t keep, const char *path);
/* Remove the derived directories above `path` that are empty now. */
int core_derived_remove_empty(struct core *c, uint64_t keep, const char *path);
/* Mode, owner and mtime of the derived files in f->dir_path become those of *f. */
int core_derived_attrs(struct core *c, const struct derived_file *f);
/* Move a derived file or directory (`from` below `keep`) to where *to says. */
int core_derived_rename(struct core *c, const struct derived_file *to, uint64_t keep,
    const char *from);

/* ---- policy (policy.c) ---- */

bool policy_is_temporary(const char *name);	/* names on their way somewhere else (CLIENTS) */
bool policy_key_ok(const char *path);

#endif
