/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The session: mount, and the notifier, which is a thread of its own because a notification can
 * wait for a request that a loop thread is still to answer.
 */
#include "fs/private.h"

#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

enum { SLOW_THREADS = 8, SLOW_BOUND = 256 };

/* ---- telling the kernel ---- */

static void
note_failed(uint64_t ino, int r)
{
	if (r < 0 && r != -ENOENT && r != -ENOTDIR && r != -ENODEV && r != -EBADF)
		log_debug("notify inode %ju: %s", (uintmax_t)ino, strerror(-r));
}

static void
note_send(struct fs *fs, const struct note *note)
{
	int r = fuse_lowlevel_notify_inval_entry(fs->se, note->parent, note->name, strlen(note->name));

	/* Offset 0 drops the directory's cached listing too: forgetting an entry does so only where
	 * the kernel knew the name, and that of a new one it does not. */
	if (r == 0 || r == -ENOENT)
		r = fuse_lowlevel_notify_inval_inode(fs->se, note->parent, 0, 0);
	note_failed(note->parent, r);
}

static void *
notifier_run(void *arg)
{
	struct fs *fs = arg;

	lock_take(&fs->note_lock);
	while (!fs->stop) {
		struct note note;

		if (fs->note_count == 0) {
			(void)lock_wait(&fs->note_lock, &fs->noted, 0);
			continue;
		}
		note = fs->notes[fs->note_first];
		fs->note_first = (fs->note_first + 1) % NOTES_MAX;
		fs->note_count--;
		lock_drop(&fs->note_lock);
		note_send(fs, &note);
		free(note.name);
		lock_take(&fs->note_lock);
		fs->notes_sent++;
		(void)pthread_cond_broadcast(&fs->noted);
	}
	lock_drop(&fs->note_lock);
	return NULL;
}

/* Waits while the queue is full: a lost note would leave a stale name in the kernel for an
 * hour.  So never from a thread that serves requests, for which the notifier may wait.  Notes that come
 * again leave room for the others, and don't wait. */
void
fs_entry_changed(struct fs *fs, uint64_t parent, const char *name, bool again)
{
	struct note note = { parent, strdup(name) };

	if (note.name == NULL)
		return;
	lock_take(&fs->note_lock);
	while (fs->note_count == NOTES_MAX && !again && !fs->stop)
		(void)lock_wait(&fs->note_lock, &fs->noted, 0);
	if (fs->stop || (again && fs->note_count > NOTES_MAX / 2)) {
		free(note.name);
	} else {
		fs->notes[(fs->note_first + fs->note_count++) % NOTES_MAX] = note;
		fs->notes_put++;
		(void)pthread_cond_broadcast(&fs->noted);
	}
	lock_drop(&fs->note_lock);
}

void
fs_entries_told(struct fs *fs)
{
	uint64_t put;

	lock_take(&fs->note_lock);
	put = fs->notes_put;
	while (fs->notes_sent < put && !fs->stop)
		(void)lock_wait(&fs->note_lock, &fs->noted, 0);
	lock_drop(&fs->note_lock);
}

/* At once: an offset below zero invalidates attributes only, which waits for nobody. */
void
fs_attr_changed(struct fs *fs, uint64_t ino)
{
	note_failed(ino, fuse_lowlevel_notify_inval_inode(fs->se, ino, -1, 0));
}

void
fs_content_changed(struct fs *fs, uint64_t ino)
{
	note_failed(ino, fuse_lowlevel_notify_inval_inode(fs->se, (fuse_ino_t)ino, 0, 0));
}

/* ---- mount ---- */

static int
session_new(struct fs *fs, const struct fs_options *opt, struct error *err)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	char *options = NULL;
	int r = 0;

	if (asprintf(&options, "fsname=%s,subtype=tbfs,default_permissions%s%s%s", opt->source,
	    opt->allow_other ? ",allow_other" : "", opt->mount_options != NULL ? "," : "",
	    opt->mount_options != NULL ? opt->mount_options : "") < 0)
		return -ENOMEM;
	if (fuse_opt_add_arg(&args, "tbfs") < 0 || fuse_opt_add_arg(&args, "-o") < 0 ||
	    fuse_opt_add_arg(&args, options) < 0)
		r = -ENOMEM;
	if (r == 0) {
		fs->se = fuse_session_new(&args, &tree_ops, sizeof(tree_ops), fs);
		if (fs->se == NULL)
			r = error_set(err, -EINVAL, "FUSE refuses the mount options %s", options);
	}
	fuse_opt_free_args(&args);
	free(options);
	return r;
}

static int
start_threads(struct fs *fs)
{
	int r = jobq_new("tbfs-slow", SLOW_THREADS, SLOW_BOUND, &fs->slow);

	if (r == 0)
		r = jobq_new("tbfs-remote", SLOW_THREADS, SLOW_BOUND, &fs->remote);
	if (r == 0)
		r = -pthread_create(&fs->notifier, NULL, notifier_run, fs);
	fs->notifier_runs = r == 0;
	return r < 0 ? r : loops_start(fs);
}

/* fusermount3 lets a user do it only then. */
static bool
users_may_allow_other(void)
{
	FILE *f = fopen("/etc/fuse.conf", "re");
	char line[256];
	bool found = false;

	while (f != NULL && !found && fgets(line, sizeof(line), f) != NULL) {
		size_t skip = strspn(line, " \t");

		found = strncmp(line + skip, "user_allow_other", 16) == 0 &&
		    strspn(line + skip + 16, " \t\n") == strlen(line + skip + 16);
	}
	if (f != NULL)
		(void)fclose(f);
	return found;
}

int
fs_mount(struct core *core, const struct fs_options *opt, struct fs **ret_fs, struct error *err)
{
	struct fs *fs = calloc(1, sizeof(*fs));
	int r;

	if (fs == NULL)
		return -ENOMEM;
	if (opt->allow_other && geteuid() != 0 && !users_may_allow_other()) {
		free(fs);
		return error_set(err, -EPERM, "allow_other=yes of a user needs the line user_allow_other in "
		    "/etc/fuse.conf");
	}
	fs->core = core;
	fs->want_passthrough = opt->passthrough;
	fs->mountpoint = strdup(opt->mountpoint);
	lock_init(&fs->note_lock, RANK_QUEUE);
	lock_cond_init(&fs->noted);
	r = session_new(fs, opt, err);
	if (r == 0 && fuse_session_mount(fs->se, opt->mountpoint) != 0)
		r = error_set(err, -ENODEV, "%s can't be mounted: is /dev/fuse there, and are you allowed "
		    "to mount here?", opt->mountpoint);
	if (r == 0) {
		r = passthrough_attach(fs);
		if (r == 0)
			r = start_threads(fs);
		if (r < 0)
			(void)error_set(err, r, "the FUSE session can't be started: %s", strerror(-r));
	}
	if (r < 0) {
		if (fs->se != NULL)
			fuse_session_unmount(fs->se);
		fs_free(fs);
		return r;
	}
	*ret_fs = fs;
	return 0;
}

void
fs_wait(struct fs *fs)
{
	loops_wait(fs);
}

int
fs_unmount(struct fs *fs, bool lazy)
{
	if (geteuid() == 0)
		return umount2(fs->mountpoint, lazy ? MNT_DETACH : 0) < 0 ? -errno : 0;
	fuse_session_unmount(fs->se);
	fuse_session_exit(fs->se);
	return 0;
}

void
fs_stop(struct fs *fs)
{
	fs_wait(fs);
	jobq_free(fs->slow);
	jobq_free(fs->remote);
	fs->slow = fs->remote = NULL;
}

void
fs_free(struct fs *fs)
{
	if (fs == NULL)
		return;
	loops_free(fs);
	jobq_free(fs->slow);
	jobq_free(fs->remote);
	lock_take(&fs->note_lock);
	fs->stop = true;
	(void)pthread_cond_broadcast(&fs->noted);
	lock_drop(&fs->note_lock);
	if (fs->notifier_runs)
		(void)pthread_join(fs->notifier, NULL);
	while (fs->note_count > 0) {
		free(fs->notes[fs->note_first].name);
		fs->note_first = (fs->note_first + 1) % NOTES_MAX;
		fs->note_count--;
	}
	if (fs->se != NULL) {
		fuse_session_unmount(fs->se);
		fuse_session_destroy(fs->se);
	}
	/* Nobody replies or notifies any more. */
	if (fs->loops.fd > 0)
		(void)close(fs->loops.fd);
	lock_release(&fs->note_lock);
	(void)pthread_cond_destroy(&fs->noted);
	free(fs->mountpoint);
	free(fs);
}

void
fs_get_counts(const struct fs *fs, struct fs_counts *ret_counts)
{
	ret_counts->requests = atomic_load(&fs->requests);
	ret_counts->passthrough_opens = atomic_load(&fs->passthrough_opens);
	ret_counts->daemon_opens = atomic_load(&fs->daemon_opens);
}

bool
fs_has_passthrough(const struct fs *fs)
{
	return atomic_load(&fs->passthrough);
}
