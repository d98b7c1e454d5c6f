/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * tbfs umount: ask the daemon to store what it can (its verb "umount" with
 * timeout_s, answer remaining {files, bytes}), detach, wait for its process.
 * Detaching is done here and not by the daemon: a mount that is in use must be
 * refused while everything still works, and users need fusermount3 for it.
 */
#include "cmd/cmd.h"

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

enum {
	GONE_S = 30,			/* to end after the mount has gone, unless --timeout is more */
	BUSY_TRIES = 20,		/* to detach what is in use, BUSY_US apart */
	BUSY_US = 50000,
};

struct umount_request {
	const char *mountpoint;
	double timeout;			/* s; < 0: the daemon's drain_timeout */
	bool lazy;
	bool quiet;			/* no progress: other programs read what mount(8) says */
};

static int
detach(const char *mountpoint, bool lazy)
{
	struct error err;

	return locate_detach(mountpoint, lazy, &err) < 0 ? cmd_fail_error(EXIT_NOT_DONE, &err) : EXIT_DONE;
}

static bool
is_there(const struct location *loc, struct locate_mount *ret_m)
{
	return locate_mount_at(loc->mountpoint, ret_m) && strcmp(ret_m->type, LOCATE_TYPE) == 0;
}

/* Another `tbfs umount` may have been faster: then it is as was asked for. */
static bool
is_gone(const struct location *loc)
{
	struct locate_mount m;

	return !is_there(loc, &m);
}

/* Exit code of the drain, and what it left. */
static int
drain(struct control_client *c, const struct location *loc, const struct umount_request *req,
    json_t **ret_answer)
{
	json_t *request = json_pack("{s:s, s:b}", "verb", "umount", "lazy", (int)req->lazy);
	struct show_progress progress;
	struct error err;
	int r;

	if (req->timeout >= 0)
		(void)json_object_set_new(request, "timeout_s", json_real(req->timeout));
	show_progress_init(&progress);
	r = control_ask(c, request, req->quiet ? NULL : show_progress_line, &progress, ret_answer, &err);
	show_progress_end(&progress);
	json_decref(request);
	if (r == EXIT_DONE || is_gone(loc))
		return EXIT_DONE;
	(void)cmd_fail_error(EXIT_NOT_DONE, &err);
	/* Out of time but answered: what remains is known and stays staged.  Else it was refused. */
	return req->lazy || json_object_get(*ret_answer, "remaining") != NULL ? EXIT_DONE : EXIT_NOT_DONE;
}

/* Who looks at a mount, another `tbfs umount` too, keeps it in use for a moment. */
static int
detach_live(const struct location *loc, bool lazy)
{
	struct error err;
	int tries = 0, r;

	while ((r = locate_detach(loc->mountpoint, lazy, &err)) < 0 && !is_gone(loc)) {
		if (r != -EBUSY || ++tries == BUSY_TRIES)
			return cmd_fail_error(EXIT_NOT_DONE, &err);
		(void)usleep(BUSY_US);
	}
	return EXIT_DONE;
}

/* Tell what stays staged; 1 when something does. */
static int
tell_remaining(const json_t *answer, const char *socket)
{
	const json_t *remaining = json_object_get(answer, "remaining");
	json_int_t files = json_integer_value(json_object_get(remaining, "files"));
	const char *slash = strrchr(socket, '/');

	if (files == 0)
		return EXIT_DONE;
	(void)printf("%lld files, %s remain staged in %.*s: they are stored after the next mount\n",
	    (long long)files, show_size(json_integer_value(json_object_get(remaining, "bytes"))),
	    slash != NULL ? (int)(slash - socket) : 0, socket);
	return EXIT_NOT_DONE;
}

static int
wait_gone(const struct control_client *c, const struct umount_request *req)
{
	struct pollfd p = { .fd = c->pidfd, .events = POLLIN };
	double seconds = req->timeout > GONE_S ? req->timeout : GONE_S;
	int r;

	if (c->pidfd < 0)
		return EXIT_DONE;	/* in another pid namespace: nothing to wait for from here */
	do {
		r = poll(&p, 1, (int)(seconds * 1000));
	} while (r < 0 && errno == EINTR);
	if (r > 0)
		return EXIT_DONE;
	return cmd_fail(EXIT_NOT_DONE, "%s is detached, but its daemon (pid %ld) has not ended after "
	    "%.0f s: something still uses the mount", req->mountpoint, (long)c->pid, seconds);
}

/* `dev`: of the file system, as locate_count() wants it. */
static int
umount_live(const struct location *loc, const char *dev, const struct umount_request *req)
{
	struct control_client c;
	bool detached;
	json_t *answer = NULL;
	struct error err;
	int code, r;

	r = control_connect(loc->socket, &c, &err);
	if (r < 0 && is_gone(loc))
		return EXIT_DONE;
	if (r < 0 && !req->lazy)
		return cmd_fail_error(EXIT_NOT_DONE, &err);
	if (r < 0)
		return detach(loc->mountpoint, true);
	code = drain(&c, loc, req, &answer);
	if (code == EXIT_DONE)
		code = detach_live(loc, req->lazy);
	detached = code == EXIT_DONE;
	if (detached && locate_count(dev) > 0)
		(void)printf("%s: other mounts of it remain, and its daemon with them\n", loc->mountpoint);
	else if (detached)
		code = wait_gone(&c, req);
	if (detached && tell_remaining(answer, loc->socket) != EXIT_DONE)
		code = EXIT_NOT_DONE;
	json_decref(answer);
	control_disconnect(&c);
	return code;
}

static int
umount_at(const struct location *loc, const struct umount_request *req)
{
	struct locate_mount m;
	char full[PATH_MAX];

	if (locate_resolve(req->mountpoint, full) < 0 || strcmp(full, loc->mountpoint) != 0)
		return cmd_fail(EXIT_USAGE, "%s is not a mountpoint; that is %s", req->mountpoint,
		    loc->mountpoint);
	if (!is_there(loc, &m))
		return EXIT_DONE;	/* another was faster */
	/* A directory of it, bind-mounted: the rest stays. */
	if (strcmp(m.root, "/") != 0 && locate_count(m.dev) > 1)
		return detach_live(loc, req->lazy);
	return umount_live(loc, m.dev, req);
}

static int
umount_run(const struct umount_request *req)
{
	struct location loc;
	struct error err;
	int code, r;

	r = locate_path(req->mountpoint, &loc, &err);
	if (r == -ENOTCONN && loc.mountpoint[0] != '\0') {
		(void)fprintf(stderr, "tbfs: the daemon of %s was dead\n", loc.mountpoint);
		code = detach(loc.mountpoint, true);
	} else if (r == -ETIMEDOUT && req->lazy) {
		code = detach(req->mountpoint, true);
	} else if (r < 0) {
		code = cmd_fail_error(r == -ENOENT ? EXIT_USAGE : EXIT_NOT_DONE, &err);
	} else {
		code = umount_at(&loc, req);
	}
	locate_release(&loc);
	return code;
}

int
cmd_umount(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "timeout", required_argument, NULL, 't' }, { "lazy", no_argument, NULL, 'l' },
		{ "help", no_argument, NULL, 'h' }, { 0 },
	};
	struct umount_request req = { .timeout = -1 };
	int c;

	while ((c = getopt_long(argc, argv, "lh", longs, NULL)) != -1) {
		if (c == 'l')
			req.lazy = true;
		else if (c != 't')
			return c == 'h' ? cmd_help("umount") : cmd_usage("umount");
		else if (!cmd_seconds("--timeout", optarg, &req.timeout))
			return EXIT_USAGE;
	}
	if (argc - optind != 1)
		return cmd_usage("umount");
	req.mountpoint = argv[optind];
	return umount_run(&req);
}

/* umount.fuse.tbfs MOUNTPOINT [-flnrv] [-N namespace] [-t type] (umount(8)) */
int
cmd_umount_helper(int argc, char **argv)
{
	struct umount_request req = { .timeout = -1, .quiet = true };
	int c;

	while ((c = getopt(argc, argv, "flnrvN:t:")) != -1) {
		if (c == '?')
			return EXIT_USAGE;
		if (c == 'l' || c == 'f')
			req.lazy = true;
		else if (c == 'v')
			req.quiet = false;
	}
	if (argc - optind != 1)
		return cmd_fail(EXIT_USAGE, "usage: %s MOUNTPOINT [-l]", argv[0]);
	req.mountpoint = argv[optind];
	return umount_run(&req);
}
