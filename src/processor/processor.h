/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_PROCESSOR_PROCESSOR_H
#define TBFS_PROCESSOR_PROCESSOR_H

/*
 * Makes thumbs/ and meta.json beside what users keep: hears of closed files from
 * inotify on the staging directories, takes its jobs from the index, has sandboxed
 * workers look at the bytes.
 */
#include "base/extract_wire.h"
#include "core/core.h"

struct processor;

struct processor_options {
	struct core *core;
	unsigned workers;		/* 0: one for each CPU, at most 4 */
	uid_t uid;			/* of the workers when we are root */
	gid_t gid;
	bool inotify;
	int64_t sweep_interval;		/* ns; 0: no sweep */
	const char *program;		/* of the workers; NULL: the installed one */
	struct extract_limits limits;
};

int processor_new(const struct processor_options *opt, struct processor **ret_p, struct error *err);
void processor_free(struct processor *p);	/* cancels what runs; NULL is fine */

/* There is work.  Any thread. */
void processor_wake(struct processor *p);

/* The name, owner, mode or mtime of a file or directory changed.  Any thread, no lock held. */
void processor_changed(struct processor *p, uint64_t ino);

/* A user removed a derived file: made again, unless its original goes too. */
void processor_derived_gone(struct processor *p, uint64_t parent, const char *name);

/* Have a meta.json in this keep now, though nothing may be derived in it yet. */
void processor_meta_wanted(struct processor *p, uint64_t keep);

/* user.tbfs.{mime,verdict,progress,…}: as getxattr. */
ssize_t processor_getxattr(struct processor *p, uint64_t ino, const char *what, void *buf,
    size_t room);

/* Wait until everything at or below `dir` is derived and its meta.json written, except what is
 * stuck.  0; -EBUSY only files that somebody has open or mapped for
 * writing are left; -ETIMEDOUT; -ECANCELED. */
int processor_drain(struct processor *p, uint64_t dir, int64_t deadline_mono_ns,
    bool (*progress)(void *arg, uint64_t remaining), void *arg);

#endif
