/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What core tells, handed on to whom it concerns: syncer, processor, the kernel.  The last two may not
 * be there (yet): then nobody needs to know.
 */
#include "base/clock.h"
#include "cmd/daemon_private.h"

#include <errno.h>
#include <string.h>

static void
on_work_queued(void *arg, int64_t due)
{
	struct daemon *d = arg;

	syncer_wake(d->syncer, due);
}

static void
on_attr_changed(void *arg, uint64_t ino)
{
	struct daemon *d = arg;

	if (d->fs != NULL)
		fs_attr_changed(d->fs, ino);
}

static void
on_entry_changed(void *arg, uint64_t parent, const char *name, bool again)
{
	struct daemon *d = arg;

	if (d->fs != NULL)
		fs_entry_changed(d->fs, parent, name, again);
}

static void
on_derive_queued(void *arg)
{
	struct daemon *d = arg;

	if (d->processor != NULL)
		processor_wake(d->processor);
}

static void
on_changed(void *arg, uint64_t ino)
{
	struct daemon *d = arg;

	if (d->processor != NULL)
		processor_changed(d->processor, ino);
}

static void
on_derived_gone(void *arg, uint64_t parent, const char *name)
{
	struct daemon *d = arg;

	if (d->processor != NULL)
		processor_derived_gone(d->processor, parent, name);
}

static void
on_meta_wanted(void *arg, uint64_t keep)
{
	struct daemon *d = arg;

	if (d->processor != NULL)
		processor_meta_wanted(d->processor, keep);
}

static ssize_t
on_virtual_get(void *arg, uint64_t ino, const char *what, void *buf, size_t room)
{
	struct daemon *d = arg;

	return d->processor == NULL ? -ENODATA :
	    processor_getxattr(d->processor, ino, what, buf, room);
}

/* setfattr -n user.tbfs.sync -v 1 PATH */
static int
on_virtual_set(void *arg, uint64_t ino, const char *what, const void *value, size_t len)
{
	struct daemon *d = arg;
	struct sync_progress left;
	int r;

	(void)value;
	if (strcmp(what, "sync") != 0)
		return -EPERM;
	if (len == 0)
		return -EINVAL;
	r = syncer_drain(d->syncer, ino, clock_mono_ns() + d->cfg->drain_timeout, NULL, NULL, &left);
	return r;
}

struct core_events
daemon_events(struct daemon *d)
{
	return (struct core_events){ d, on_work_queued, on_attr_changed, on_entry_changed,
		on_derive_queued, on_changed, on_derived_gone, on_meta_wanted, on_virtual_get, on_virtual_set };
}
