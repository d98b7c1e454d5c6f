/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_STAGING_STAGING_H
#define TBFS_STAGING_STAGING_H

/*
 * The staging cache: the bytes of files on the local disk, one file an inode, at
 * <state_dir>/data/<hh>/<ino> (hh: the inode number's low byte in hex).  Nothing
 * outside src/staging/ knows that layout.  Any thread.
 *
 * Each staged file carries its place (parent, name, mode, owner, generation) in an
 * extended attribute, and directories have an empty staged file that carries theirs:
 * a lost index loses no closed file and no name.
 */
#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

struct staging;

/* Make <state_dir>/data and its 256 folders; -EACCES, -EROFS, -ENOSPC with a sentence. */
int staging_open_dir(const char *state_dir, struct staging **ret_st, struct error *err);
void staging_close_dir(struct staging *st);	/* NULL is fine */

/* What unsynced bytes live in: the boot and the mount of the state directory's disk, as text.
 * Another text than before means that they may be gone. */
void staging_life(const char *state_dir, char *ret_life, size_t room);

/* The folder of inode numbers with this low byte, for inotify: below the state directory. */
int staging_folder_path(const struct staging *st, unsigned low_byte, char *ret_path, size_t room);
/* The inode number that a name in such a folder stands for; 0: none. */
uint64_t staging_name_ino(const char *name);

/* A new, empty staged file; returns a descriptor (O_RDONLY) or -errno. */
int staging_create(struct staging *st, uint64_t ino);
/* Open with O_CLOEXEC, and O_NOATIME where allowed, added.  -ENOENT: nothing is staged. */
int staging_open(struct staging *st, uint64_t ino, int flags);
int staging_stat(struct staging *st, uint64_t ino, struct stat *ret_stat);
int staging_remove(struct staging *st, uint64_t ino);	/* 0 also when it is gone */
int staging_set_times(struct staging *st, uint64_t ino, const struct timespec times[2]);
/* A staged file's name survives a power cut. */
int staging_sync_name(struct staging *st, uint64_t ino);

int staging_sync_all(struct staging *st);	/* syncfs of the staging disk */

/* Put a file whose bytes were made elsewhere (O_TMPFILE from staging_scratch()) in place. */
int staging_scratch(struct staging *st);
int staging_adopt(struct staging *st, int fd, uint64_t ino);

/* 0 when nobody can change the file's bytes through any descriptor or mapping; -EBUSY
 * otherwise.  `fd` must be open for reading only. */
int staging_is_quiet(int fd);

struct staging_place {
	uint64_t parent, generation;
	uint32_t mode, uid, gid;
	uint32_t flags;			/* enum inode_flags */
	char name[256];
};
int staging_place_write(struct staging *st, uint64_t ino, const struct staging_place *place);
/* It has no place any more; staging_place_read() then gives mode 0. */
int staging_place_bury(struct staging *st, uint64_t ino);
int staging_place_read(struct staging *st, uint64_t ino, struct staging_place *ret_place);

/* Call fn for every staged file; non-zero ends the walk and is returned. */
int staging_scan(struct staging *st, int (*fn)(void *arg, uint64_t ino), void *arg);

struct staging_space {
	uint64_t total, available;	/* bytes of the staging disk */
	uint64_t files, files_free;
};
int staging_space(struct staging *st, struct staging_space *ret_space);

#endif
