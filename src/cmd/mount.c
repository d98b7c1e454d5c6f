/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * tbfs mount, and mount.tbfs / mount.fuse.tbfs as mount(8) calls them.
 *
 * Everything that can be known beforehand is checked here, in the process that
 * has the user's terminal: configuration, mountpoint, state directory, lock.
 * Then the daemon is forked and tells over a pipe what became of it, so that
 * the exit code of `tbfs mount` is the truth.
 */
#include "cmd/cmd.h"
#include "cmd/mountpoint.h"
#include "cmd/ready.h"
#include "cmd/state_dir.h"

#include "base/cleanup.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

struct mount_request {
	struct config cfg;
	bool foreground;
	bool fake;			/* mount -f: check only */
	bool sloppy;			/* mount -s */
	const char *mountpoint;		/* as given */
	char *resolved;
	int lock_fd;
};

static void
request_release(struct mount_request *req)
{
	config_release(&req->cfg);
	free(req->resolved);
	if (req->lock_fd >= 0)
		(void)close(req->lock_fd);
}

/* Secrets leave argv as soon as they are read. */
static int
take_options(struct mount_request *req, char *text, struct error *err)
{
	int r = config_parse_mount_options(&req->cfg, text, req->sloppy, err);

	config_scrub_options(text);
	return r;
}

static int
check_mountpoint(const struct mount_request *req)
{
	struct error err;
	int r = mountpoint_check(req->resolved, &err);

	if (r == 0)
		return EXIT_DONE;
	return cmd_fail_error(r == -ENOENT || r == -ENOTDIR ? EXIT_USAGE : EXIT_NOT_DONE, &err);
}

static int
prepare_state(struct mount_request *req)
{
	struct error err;

	if (state_dir_prepare(req->cfg.state_dir, &err) < 0)
		return cmd_fail_error(EXIT_STATE, &err);
	req->lock_fd = state_dir_lock(req->cfg.state_dir, STATE_LOCK_S, &err);
	if (req->lock_fd < 0)
		return cmd_fail_error(EXIT_STATE, &err);
	return EXIT_DONE;
}

static int
open_log(struct mount_request *req)
{
	CLEANUP_FREE char *path = NULL;
	int r;

	log_set_level(req->cfg.log_level);
	if (req->cfg.log_file == NULL && req->foreground)
		return EXIT_DONE;
	if (req->cfg.log_file == NULL) {
		if (asprintf(&path, "%s/tbfs.log", req->cfg.state_dir) < 0) {
			path = NULL;
			return cmd_fail(EXIT_NOT_DONE, "out of memory");
		}
		req->cfg.log_file = TAKE_PTR(path);
	}
	r = log_open(req->cfg.log_file);
	if (r < 0)
		return cmd_fail(EXIT_STATE, "log file %s: %s", req->cfg.log_file, strerror(-r));
	return EXIT_DONE;
}

static int
serve(struct mount_request *req, struct daemon_ready *ready)
{
	(void)signal(SIGPIPE, SIG_IGN);
	(void)umask(077);
	if (chdir("/") < 0)
		return cmd_fail(EXIT_NOT_DONE, "chdir /: %s", strerror(errno));
	ready->log_is_file = req->cfg.log_file != NULL;
	state_dir_sign(req->lock_fd);
	return daemon_run(&req->cfg, req->resolved, ready);
}

/* In the child: no terminal, no session, nothing of the caller's but stderr until ready. */
static int
serve_detached(struct mount_request *req, int fd)
{
	struct daemon_ready ready = { .fd = fd };
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	if (null >= 0) {
		(void)dup2(null, STDIN_FILENO);
		(void)close(null);
	}
	(void)setsid();
	return serve(req, &ready);
}

static int
serve_background(struct mount_request *req)
{
	int pipe_fd[2], code;
	pid_t pid;

	if (pipe2(pipe_fd, O_CLOEXEC) < 0)
		return cmd_fail(EXIT_NOT_DONE, "pipe: %s", strerror(errno));
	(void)fflush(NULL);
	pid = fork();
	if (pid < 0)
		return cmd_fail(EXIT_NOT_DONE, "fork: %s", strerror(errno));
	if (pid == 0) {
		(void)close(pipe_fd[0]);
		return serve_detached(req, pipe_fd[1]);
	}
	(void)close(pipe_fd[1]);
	code = ready_wait(pipe_fd[0], pid);
	(void)close(pipe_fd[0]);
	return code;
}

/* mount -o remount: of what the kernel keeps, what is named changes; keys of ours are for the
 * next mount. */
static int
remount(const struct mount_request *req)
{
	/* statvfs(3)'s ST_ flags are these. */
	static const struct { const char *word; unsigned long set, clear; } flags[] = {
		{ "ro", MS_RDONLY, 0 }, { "rw", 0, MS_RDONLY }, { "nosuid", MS_NOSUID, 0 },
		{ "suid", 0, MS_NOSUID }, { "nodev", MS_NODEV, 0 }, { "dev", 0, MS_NODEV },
		{ "noexec", MS_NOEXEC, 0 }, { "exec", 0, MS_NOEXEC }, { "sync", MS_SYNCHRONOUS, 0 },
		{ "async", 0, MS_SYNCHRONOUS }, { "noatime", MS_NOATIME, MS_RELATIME },
	};
	CLEANUP_FREE char *words = strdup(req->cfg.mount_options != NULL ? req->cfg.mount_options : "");
	char *rest = words, *word, point[PATH_MAX];
	struct locate_mount m;
	struct statvfs st;
	unsigned long now;
	size_t i;

	if (locate_resolve(req->mountpoint, point) < 0 || !locate_mount_at(point, &m) ||
	    strcmp(m.type, LOCATE_TYPE) != 0 || statvfs(point, &st) < 0)
		return cmd_fail(EXIT_NOT_DONE, "%s is no tbfs mount: nothing to remount", req->mountpoint);
	now = st.f_flag & (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_SYNCHRONOUS | MS_NOATIME);
	now |= (st.f_flag & ST_RELATIME) != 0 ? MS_RELATIME : 0ul;
	while (rest != NULL && (word = strsep(&rest, ",")) != NULL)
		for (i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
			if (strcmp(word, flags[i].word) == 0)
				now = (now & ~flags[i].clear) | flags[i].set;
	if (!req->fake && mount(NULL, point, NULL, MS_REMOUNT | now, NULL) < 0)
		return cmd_fail(EXIT_NOT_DONE, "%s can't be remounted: %s", req->mountpoint, strerror(errno));
	return EXIT_DONE;
}

static int
mount_run(struct mount_request *req)
{
	struct error err;
	int code;

	if (req->cfg.remount)
		return remount(req);
	if (config_load_env(&req->cfg, &err) < 0)
		return cmd_fail_error(EXIT_USAGE, &err);
	if (mountpoint_resolve(req->mountpoint, &req->resolved, &err) < 0)
		return cmd_fail_error(EXIT_USAGE, &err);
	if (config_finish(&req->cfg, req->resolved, &err) < 0)
		return cmd_fail_error(EXIT_USAGE, &err);
	code = check_mountpoint(req);
	if (code != EXIT_DONE || req->fake)
		return code;
	code = prepare_state(req);
	if (code == EXIT_DONE)
		code = check_mountpoint(req);	/* it may have changed while we waited for the lock */
	if (code == EXIT_DONE)
		code = open_log(req);
	if (code != EXIT_DONE)
		return code;
	if (req->foreground) {
		struct daemon_ready ready = { .fd = -1 };

		return serve(req, &ready);
	}
	return serve_background(req);
}

/* A daemon must not hold descriptors that its caller forgot to close (locks, pipes). */
static void
close_inherited(void)
{
	(void)close_range(STDERR_FILENO + 1, ~0U, 0);
}

int
cmd_mount(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "foreground", no_argument, NULL, 'f' }, { "config", required_argument, NULL, 'c' },
		{ "options", required_argument, NULL, 'o' }, { "help", no_argument, NULL, 'h' }, { 0 },
	};
	struct mount_request req = { .lock_fd = -1 };
	struct error err;
	int c, code = EXIT_DONE;

	close_inherited();
	config_init(&req.cfg);
	while (code == EXIT_DONE && (c = getopt_long(argc, argv, "fc:o:h", longs, NULL)) != -1) {
		if (c == 'f')
			req.foreground = true;
		else if (c == 'c' && config_load_file(&req.cfg, optarg, &err) < 0)
			code = cmd_fail_error(EXIT_USAGE, &err);
		else if (c == 'o' && take_options(&req, optarg, &err) < 0)
			code = cmd_fail_error(EXIT_USAGE, &err);
		else if (c == 'h' || c == '?') {
			config_release(&req.cfg);
			return c == 'h' ? cmd_help("mount") : cmd_usage("mount");
		}
	}
	if (code == EXIT_DONE && argc - optind != 1)
		code = cmd_usage("mount");
	if (code == EXIT_DONE) {
		req.mountpoint = argv[optind];
		code = mount_run(&req);
	}
	request_release(&req);
	return code;
}

/* A source that ends in .conf is the configuration: as a path, or a name in /etc/tbfs. */
static int
take_source(struct mount_request *req, const char *source, struct error *err)
{
	CLEANUP_FREE char *path = NULL;
	size_t n = strlen(source);

	if (strpbrk(source, ",\\") == NULL) {
		req->cfg.fsname = strdup(source);
		if (req->cfg.fsname == NULL)
			return error_set(err, -ENOMEM, "out of memory");
	}
	if (n < 6 || strcmp(source + n - 5, ".conf") != 0)
		return 0;
	if (strchr(source, '/') != NULL || access(source, F_OK) == 0)
		return config_load_file(&req->cfg, source, err);
	if (asprintf(&path, "%s/%s", req->cfg.config_dir, source) < 0) {
		path = NULL;
		return error_set(err, -ENOMEM, "out of memory");
	}
	return config_load_file(&req->cfg, path, err);
}

/* mount.tbfs SOURCE MOUNTPOINT [-sfnv] [-N namespace] [-o options] [-t type] (mount(8)) */
int
cmd_mount_helper(int argc, char **argv)
{
	struct mount_request req = { .lock_fd = -1 };
	struct error err;
	int c, code = EXIT_DONE;

	close_inherited();
	config_init(&req.cfg);
	for (c = 1; c < argc; c++)		/* -s holds for every -o, wherever it stands */
		if (argv[c][0] == '-' && argv[c][1 + strspn(argv[c] + 1, "sfnv")] == '\0' &&
		    strchr(argv[c], 's') != NULL)
			req.sloppy = true;
	/* mount(8) hands on what differs from its defaults, which those of a FUSE mount aren't. */
	if (geteuid() == 0 && take_options(&req, "suid,dev", &err) < 0)
		code = cmd_fail_error(EXIT_USAGE, &err);
	while (code == EXIT_DONE && (c = getopt(argc, argv, "sfnvN:o:t:")) != -1) {
		if (c == 'f')
			req.fake = true;
		else if (c == 'o' && take_options(&req, optarg, &err) < 0)
			code = cmd_fail_error(EXIT_USAGE, &err);
		else if (c == '?')
			code = EXIT_USAGE;
	}
	if (code == EXIT_DONE && argc - optind != 2)
		code = cmd_fail(EXIT_USAGE, "usage: %s SOURCE MOUNTPOINT [-o key=value,...]", argv[0]);
	if (code == EXIT_DONE && take_source(&req, argv[optind], &err) < 0)
		code = cmd_fail_error(EXIT_USAGE, &err);
	if (code == EXIT_DONE) {
		req.mountpoint = argv[optind + 1];
		code = mount_run(&req);
	}
	request_release(&req);
	return code;
}
