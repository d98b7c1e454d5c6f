/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A mount hides what is below it.  So a directory with files in it is refused:
 * to the user they would be lost.  A mount of ours whose daemon is dead is only
 * in the way and is taken away; what looks at the directory may hang and runs in
 * a child.
 */
#include "cmd/mountpoint.h"

#include "base/cleanup.h"
#include "cmd/control.h"
#include "cmd/locate.h"
#include "cmd/patience.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NAMED_FILES = 3, STACKED_MOUNTS = 8 };

static int
resolve(void *arg, FILE *out)
{
	char full[PATH_MAX];
	int r = locate_resolve(arg, full);

	if (r == 0)
		(void)fprintf(out, "%s%c", full, 0);
	return r;
}

int
mountpoint_resolve(const char *path, char **ret_mountpoint, struct error *err)
{
	CLEANUP_FREE char *copy = strdup(path), *text = NULL;
	size_t len;
	int r;

	if (copy == NULL)
		return error_set(err, -ENOMEM, "out of memory");
	r = patience_run(resolve, copy, PATIENCE_S, &text, &len);
	if (r < 0)
		return error_set(err, r, "mountpoint %s: %s", path, strerror(-r));
	*ret_mountpoint = TAKE_PTR(text);
	return 0;
}

/* In the child: the first names in the directory as fields. */
static int
look(void *arg, FILE *out)
{
	const struct dirent *entry;
	int count = 0;
	DIR *dir = opendir(arg);

	if (dir == NULL)
		return -errno;
	while (count <= NAMED_FILES && (entry = readdir(dir)) != NULL) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		(void)fprintf(out, "%s%c", entry->d_name, 0);
		count++;
	}
	(void)closedir(dir);
	return 0;
}

static int
refuse_files(const char *m, const char *text, size_t len, struct error *err)
{
	char names[3 * 48] = "";
	size_t n = 0;
	int i;

	for (i = 0; i < NAMED_FILES && patience_field(text, len, (size_t)i)[0] != '\0'; i++)
		n += (size_t)snprintf(names + n, sizeof(names) - n, "%s%.40s", i > 0 ? ", " : "",
		    patience_field(text, len, (size_t)i));
	return error_set(err, -ENOTEMPTY, "%s has files in it (%s%s) that a mount would hide; to take them "
	    "in: mv %s %s.old && mkdir %s, mount, and rsync -a %s.old/ %s/", m, names,
	    patience_field(text, len, NAMED_FILES)[0] != '\0' ? ", ..." : "", m, m, m, m, m);
}

enum { DYING_WAITS = 30 };	/* of 100 ms */

/* -EAGAIN: there is a mount without a daemon that listens; one that was killed may still be
 * dying. */
static int
refuse_live(const char *m, struct error *err)
{
	struct location loc;
	struct control_client c;
	int r = locate_path(m, &loc, NULL);

	if (r == -ETIMEDOUT) {
		r = error_set(err, r, "%s is mounted by a daemon that does not answer; `tbfs umount --lazy %s` "
		    "takes it away", m, m);
	} else if (r == 0 && control_connect(loc.socket, &c, NULL) == 0) {
		r = error_set(err, -EBUSY, "%s is mounted already, by pid %ld", m, (long)c.pid);
		control_disconnect(&c);
	} else {
		r = error_set(err, -EAGAIN, "%s is mounted already, but no daemon answers there", m);
	}
	locate_release(&loc);
	return r;
}

int
mountpoint_check(const char *mountpoint, struct error *err)
{
	struct locate_mount mount;
	int i, r = 0, waits = 0;

	for (i = 0; i < STACKED_MOUNTS; i++) {
		CLEANUP_FREE char *copy = strdup(mountpoint), *text = NULL;
		bool ours = locate_mount_at(mountpoint, &mount) && strcmp(mount.type, LOCATE_TYPE) == 0;
		size_t len;

		if (copy == NULL)
			return error_set(err, -ENOMEM, "out of memory");
		r = patience_run(look, copy, PATIENCE_S, &text, &len);
		if (r == -ENOTCONN && ours) {
			r = locate_detach(mountpoint, true, err);
			if (r < 0)
				return r;
			continue;
		}
		if (ours) {
			r = refuse_live(mountpoint, err);
			if (r != -EAGAIN || ++waits > DYING_WAITS)
				return r == -EAGAIN ? -EBUSY : r;
			(void)usleep(100000);
			i--;
			continue;
		}
		if (r == 0 && len > 0)
			return refuse_files(mountpoint, text, len, err);
		break;
	}
	if (r == -ENOTCONN)
		return error_set(err, r, "%s was left behind by another file system (%s): umount it first",
		    mountpoint, mount.type);
	if (r < 0)
		return error_set(err, r, "mountpoint %s: %s", mountpoint, strerror(-r));
	return 0;
}
