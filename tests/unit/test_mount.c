/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * tbfs mount and umount against a daemon of a few lines: an empty file system
 * that tells its control socket and knows the verbs umount and status.  Needs
 * root and /dev/fuse.
 */
#define FUSE_USE_VERSION 314
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "cmd/cmd.h"
#include "cmd/daemon.h"
#include "cmd/state_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

/* ---- the daemon of a few lines ---- */

static char socket_path[512];
static bool hang;

static void
fs_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st = { .st_ino = ino, .st_mode = S_IFDIR | 0755, .st_nlink = 2 };

	(void)fi;
	while (hang)
		(void)pause();
	(void)fuse_reply_attr(req, &st, 0);
}

static void
fs_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param e = { .ino = 2, .attr = { .st_ino = 2, .st_mode = S_IFDIR | 0755,
	    .st_nlink = 2 } };

	(void)parent;
	if (strcmp(name, "hang") == 0)
		hang = true;
	if (strcmp(name, "d") == 0)
		(void)fuse_reply_entry(req, &e);
	else
		(void)fuse_reply_err(req, ENOENT);
}

static void
fs_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	(void)ino;
	if (strcmp(name, LOCATE_XATTR) != 0)
		(void)fuse_reply_err(req, ENODATA);
	else if (size == 0)
		(void)fuse_reply_xattr(req, strlen(socket_path));
	else
		(void)fuse_reply_buf(req, socket_path, strlen(socket_path));
}

static int
verb_umount(void *ctx, struct control_request *req)
{
	(void)ctx;
	if (json_object_get(control_args(req), "timeout_s") == NULL)
		return 0;
	control_answer(req, json_pack("{s:{s:i,s:i}}", "remaining", "files", 3, "bytes", 2048));
	return error_set(control_error(req), -ETIMEDOUT, "not all could be stored in time");
}

/* The paths that came. */
static int
verb_sync(void *ctx, struct control_request *req)
{
	char *text = json_dumps(json_object_get(control_args(req), "paths"), JSON_COMPACT);
	int r = error_set(control_error(req), -EIO, "%s", text);

	(void)ctx;
	free(text);
	return r;
}

static const struct control_verb verbs[] = {
	{ "umount", verb_umount }, { "sync", verb_sync }, { NULL, NULL },
};

int
daemon_run(struct config *cfg, const char *mountpoint, struct daemon_ready *ready)
{
	static const struct fuse_lowlevel_ops ops = { .getattr = fs_getattr, .lookup = fs_lookup,
	    .getxattr = fs_getxattr };
	char *argv[] = { strdup("tbfs"), strdup("-osubtype=tbfs,fsname=x"), NULL };
	struct fuse_args args = FUSE_ARGS_INIT(2, argv);
	struct control_options opt = { .verbs = verbs, .path = socket_path, .group = (gid_t)-1 };
	struct control_server *server = NULL;
	struct fuse_session *session;
	struct error err = { .code = -EIO };

	if (cfg->fault != NULL && strcmp(cfg->fault, "die") == 0)
		abort();
	if (cfg->fault != NULL)
		return daemon_ready_failed(ready, EXIT_BACKEND, &err);
	(void)snprintf(socket_path, sizeof(socket_path), "%s/control.sock", cfg->state_dir);
	session = fuse_session_new(&args, &ops, sizeof(ops), NULL);
	if (session == NULL || fuse_session_mount(session, mountpoint) < 0 ||
	    control_start(&opt, &server, &err) < 0)
		return daemon_ready_failed(ready, EXIT_NOT_DONE, &err);
	if (daemon_ready_ok(ready) == 0)
		(void)fuse_session_loop(session);
	control_stop(server);
	fuse_session_unmount(session);
	fuse_session_destroy(session);
	fuse_opt_free_args(&args);
	free(argv[0]);
	return EXIT_DONE;
}

/* ---- the tests ---- */

static char dir[64], mountpoint[96], options[512];

static int
setup(void **state)
{
	(void)state;
	(void)snprintf(dir, sizeof(dir), "/tmp/tbfs-mount.XXXXXX");
	if (mkdtemp(dir) == NULL)
		return -1;
	(void)snprintf(mountpoint, sizeof(mountpoint), "%s/m", dir);
	(void)snprintf(options, sizeof(options), "state_dir=%s/state", dir);
	return mkdir(mountpoint, 0755);
}

static int
teardown(void **state)
{
	char command[128];

	(void)state;
	while (umount2(mountpoint, MNT_DETACH) == 0)
		;
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", dir);
	return system(command);
}

/* Run a verb in a child; its exit code, and what it wrote in `said`. */
static char said[8192];

static int
run(int (*verb)(int argc, char **argv), ...)
{
	char *argv[16] = { strdup("verb") };
	int argc = 1, pipe_fd[2], status;
	const char *arg;
	ssize_t n;
	va_list ap;
	pid_t pid;

	va_start(ap, verb);
	while ((arg = va_arg(ap, const char *)) != NULL)
		argv[argc++] = strdup(arg);
	va_end(ap);
	assert_int_equal(pipe(pipe_fd), 0);
	pid = fork();
	if (pid == 0) {
		(void)close(pipe_fd[0]);
		(void)dup2(pipe_fd[1], STDOUT_FILENO);
		(void)dup2(pipe_fd[1], STDERR_FILENO);
		(void)close(pipe_fd[1]);
		status = verb(argc, argv);
		(void)fflush(NULL);
		_exit(status);
	}
	(void)close(pipe_fd[1]);
	/* To the end: the daemon must have let go of our pipe. */
	n = read_full(pipe_fd[0], said, sizeof(said) - 1);
	said[n > 0 ? n : 0] = '\0';
	(void)close(pipe_fd[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	while (argc > 0)
		free(argv[--argc]);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status);
}

static void
says(const char *part)
{
	if (strstr(said, part) == NULL)
		fail_msg("'%s' does not say '%s'", said, part);
}

static bool
mounted(void)
{
	struct locate_mount m;

	return locate_mount_at(mountpoint, &m);
}

static pid_t
holder(void)
{
	CLEANUP_FREE char *text = NULL;
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/state/lock", dir);
	assert_int_equal(read_file(AT_FDCWD, path, 100, &text, NULL), 0);
	return (pid_t)atol(text);
}

/* Until the kernel has let go of everything that the daemon had. */
static void
kill_daemon(void)
{
	struct stat st;
	char path[128];
	int fd;

	assert_int_equal(kill(holder(), SIGKILL), 0);
	(void)snprintf(path, sizeof(path), "%s/state", dir);
	fd = state_dir_lock(path, 10, NULL);
	assert_true(fd >= 0);
	(void)close(fd);
	while (stat(mountpoint, &st) == 0)	/* access() doesn't ask the daemon */
		(void)usleep(1000);
	assert_int_equal(errno, ENOTCONN);
}

static void
test_mount_and_umount(void **state)
{
	char path[128];
	pid_t pid;
	int fd;

	(void)state;
	assert_int_equal(run(cmd_mount, "-o", options, mountpoint, NULL), EXIT_DONE);
	assert_true(mounted());
	pid = holder();
	assert_int_equal(kill(pid, 0), 0);
	assert_int_equal(run(cmd_mount, "-o", options, mountpoint, NULL), EXIT_NOT_DONE);
	says("mounted already, by pid");
	assert_int_equal(run(cmd_umount, mountpoint, NULL), EXIT_DONE);
	assert_string_equal(said, "");
	assert_false(mounted());
	(void)snprintf(path, sizeof(path), "%s/state", dir);
	fd = state_dir_lock(path, 0, NULL);	/* gone, and not only detached */
	assert_true(fd >= 0);
	(void)close(fd);
}

static void
test_umount_tells_what_remains(void **state)
{
	(void)state;
	assert_int_equal(run(cmd_mount, "-o", options, mountpoint, NULL), EXIT_DONE);
	assert_int_equal(run(cmd_umount, "--timeout", "1", mountpoint, NULL), EXIT_NOT_DONE);
	says("3 files, 2.0 KiB remain staged in ");
	says("/state:");
	assert_false(mounted());
}

static void
test_umount_in_use(void **state)
{
	CLEANUP_CLOSE int fd = -1;

	(void)state;
	assert_int_equal(run(cmd_mount, "-o", options, mountpoint, NULL), EXIT_DONE);
	fd = open(mountpoint, O_PATH | O_CLOEXEC);
	assert_int_equal(run(cmd_umount, mountpoint, NULL), EXIT_NOT_DONE);
	says("is in use");
	assert_true(mounted());
	(void)close(TAKE_FD(fd));
	assert_int_equal(run(cmd_umount, mountpoint, NULL), EXIT_DONE);
}

static void
test_left_behind(void **state)
{
	struct stat st;

	(void)state;
	assert_int_equal(run(cmd_mount, "-o", options, mountpoint, NULL), EXIT_DONE);
	kill_daemon();
	assert_int_equal(run(cmd_status, mountpoint, NULL), EXIT_NOT_DONE);
	says("is dead");
	assert_int_equal(run(cmd_mount, "-o", options, mountpoint, NULL), EXIT_DONE);
	assert_int_equal(stat(mountpoint, &st), 0);
	kill_daemon();
	assert_int_equal(run(cmd_umount, mountpoint, NULL), EXIT_DONE);
	assert_false(mounted());
}

/* A daemon that answers nothing any more: no verb waits for ever. */
static void
test_hung(void **state)
{
	int64_t begin;
	struct stat st;
	char path[128];
	pid_t pid, child;

	(void)state;
	assert_int_equal(run(cmd_mount, "-o", options, mountpoint, NULL), EXIT_DONE);
	pid = holder();
	(void)snprintf(path, sizeof(path), "%s/hang", mountpoint);
	assert_int_equal(access(path, F_OK), -1);	/* from now on getattr hangs */
	child = fork();
	if (child == 0) {
		(void)stat(mountpoint, &st);
		_exit(0);
	}
	begin = clock_mono_ns();
	assert_int_equal(run(cmd_status, mountpoint, NULL), EXIT_NOT_DONE);
	says("does not answer");
	assert_true(clock_mono_ns() - begin < 20 * NSEC_PER_SEC);
	assert_int_equal(run(cmd_umount, "--lazy", mountpoint, NULL), EXIT_DONE);
	assert_false(mounted());
	assert_int_equal(kill(pid, SIGKILL), 0);
	(void)waitpid(child, NULL, 0);
}

static void
test_failures_reach_the_caller(void **state)
{
	char more[600];

	(void)state;
	(void)snprintf(more, sizeof(more), "%s,fault=fail", options);
	assert_int_equal(run(cmd_mount, "-o", more, mountpoint, NULL), EXIT_BACKEND);
	says("Input/output error");
	assert_int_equal(run(cmd_mount, "-f", "-o", more, mountpoint, NULL), EXIT_BACKEND);
	says("Input/output error");
	(void)snprintf(more, sizeof(more), "%s,fault=die", options);
	assert_int_equal(run(cmd_mount, "-o", more, mountpoint, NULL), EXIT_NOT_DONE);
	says("died while starting");
	assert_int_equal(run(cmd_mount, "-o", "nokey=1", mountpoint, NULL), EXIT_USAGE);
	says("nokey");
	assert_int_equal(run(cmd_mount, mountpoint, mountpoint, NULL), EXIT_USAGE);
	(void)snprintf(more, sizeof(more), "%s/absent", dir);
	assert_int_equal(run(cmd_mount, "-o", options, more, NULL), EXIT_USAGE);
	assert_int_equal(run(cmd_mount, "-c", more, mountpoint, NULL), EXIT_USAGE);
	says("can't be read");
}

static void
test_files_in_the_way(void **state)
{
	static const char *const names[] = { "one", "two", "three", "four" };
	char path[128];
	size_t i;

	(void)state;
	for (i = 0; i < 4; i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", mountpoint, names[i]);
		assert_int_equal(mkdir(path, 0755), 0);
	}
	assert_int_equal(run(cmd_mount, "-o", options, mountpoint, NULL), EXIT_NOT_DONE);
	says("has files in it");
	says(", ...)");
	says("rsync -a ");
	assert_false(mounted());
}

static void
test_state_dir(void **state)
{
	char path[128];
	struct error err;
	int fd;

	(void)state;
	(void)snprintf(path, sizeof(path), "%s/a/b/c", dir);
	assert_int_equal(state_dir_prepare(path, &err), 0);
	fd = state_dir_lock(path, 0, &err);
	assert_true(fd >= 0);
	assert_int_equal(state_dir_lock(path, 1, &err), -EBUSY);
	assert_non_null(strstr(err.text, path));
	(void)snprintf(said, sizeof(said), "pid %ld", (long)getpid());
	assert_non_null(strstr(err.text, said));
	(void)close(fd);
	fd = state_dir_lock(path, 0, &err);
	assert_true(fd >= 0);
	(void)close(fd);
	assert_int_equal(chmod(path, 0777), 0);
	assert_int_equal(state_dir_prepare(path, &err), -EPERM);
	(void)snprintf(path, sizeof(path), "%s/file", dir);
	assert_int_equal(close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600)), 0);
	assert_int_equal(state_dir_prepare(path, &err), -ENOTDIR);
}

/* A second mount of one state directory waits for the first to leave. */
static void
test_second_mount_waits(void **state)
{
	char other[128];
	pid_t pid;

	(void)state;
	(void)snprintf(other, sizeof(other), "%s/n", dir);
	assert_int_equal(mkdir(other, 0755), 0);
	assert_int_equal(run(cmd_mount, "-o", options, mountpoint, NULL), EXIT_DONE);
	pid = fork();
	if (pid == 0) {
		(void)usleep(500000);
		(void)umount2(mountpoint, MNT_DETACH);
		_exit(0);
	}
	assert_int_equal(run(cmd_mount, "-o", options, other, NULL), EXIT_DONE);
	(void)waitpid(pid, NULL, 0);
	assert_int_equal(run(cmd_umount, other, NULL), EXIT_DONE);
}

/* What the daemon is asked about: paths inside the file system, however they are named. */
static void
test_paths(void **state)
{
	char path[160], link[128], bound[128];

	(void)state;
	assert_int_equal(run(cmd_mount, "-o", options, mountpoint, NULL), EXIT_DONE);
	(void)snprintf(path, sizeof(path), "%s/d/", mountpoint);
	assert_int_equal(run(cmd_sync, path, mountpoint, NULL), EXIT_NOT_DONE);
	says("[\"/d\",\"/\"]");
	(void)snprintf(link, sizeof(link), "%s/link", dir);
	assert_int_equal(symlink(mountpoint, link), 0);
	(void)snprintf(path, sizeof(path), "%s/d/../d/.", link);
	assert_int_equal(run(cmd_sync, path, link, NULL), EXIT_NOT_DONE);
	says("[\"/d\",\"/\"]");
	(void)snprintf(bound, sizeof(bound), "%s/bound", dir);
	assert_int_equal(mkdir(bound, 0755), 0);
	(void)snprintf(path, sizeof(path), "%s/d", mountpoint);
	assert_int_equal(mount(path, bound, NULL, MS_BIND, NULL), 0);
	assert_int_equal(run(cmd_sync, bound, NULL), EXIT_NOT_DONE);
	says("[\"/d\"]");
	assert_int_equal(umount2(bound, 0), 0);
	(void)snprintf(path, sizeof(path), "%s/absent", mountpoint);
	assert_int_equal(run(cmd_sync, path, NULL), EXIT_USAGE);
	says("No such file");
	assert_int_equal(run(cmd_sync, dir, NULL), EXIT_NOT_DONE);
	says("not on a tbfs mount");
	(void)snprintf(path, sizeof(path), "%s/d", mountpoint);
	assert_int_equal(run(cmd_umount, path, NULL), EXIT_USAGE);
	says("is not a mountpoint");
	assert_int_equal(run(cmd_umount, link, NULL), EXIT_DONE);
}

static void
test_helper(void **state)
{
	char conf[128], more[600];
	struct locate_mount m;
	int fd;

	(void)state;
	(void)snprintf(more, sizeof(more), "rw,nofail,x-systemd.automount,%s", options);
	assert_int_equal(run(cmd_mount_helper, "media", mountpoint, "-o", more, NULL), EXIT_DONE);
	assert_true(locate_mount_at(mountpoint, &m));
	assert_int_equal(run(cmd_umount, mountpoint, NULL), EXIT_DONE);
	(void)snprintf(conf, sizeof(conf), "%s/x.conf", dir);
	fd = open(conf, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_int_equal(write_full(fd, options, strlen(options)), 0);
	(void)close(fd);
	assert_int_equal(run(cmd_mount_helper, conf, mountpoint, "-n", "-o", "defaults", NULL), EXIT_DONE);
	assert_int_equal(run(cmd_umount, mountpoint, NULL), EXIT_DONE);
	assert_int_equal(run(cmd_mount_helper, "x", mountpoint, "-o", "bogus=1", NULL), EXIT_USAGE);
	assert_int_equal(run(cmd_mount_helper, "x", mountpoint, "-sf", "-o", "bogus=1", NULL), EXIT_DONE);
	assert_false(mounted());
}

#define WITH_DIR(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_DIR(test_mount_and_umount),
		WITH_DIR(test_umount_tells_what_remains),
		WITH_DIR(test_umount_in_use),
		WITH_DIR(test_left_behind),
		WITH_DIR(test_hung),
		WITH_DIR(test_failures_reach_the_caller),
		WITH_DIR(test_files_in_the_way),
		WITH_DIR(test_state_dir),
		WITH_DIR(test_second_mount_waits),
		WITH_DIR(test_paths),
		WITH_DIR(test_helper),
	};

	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) < 0)
		return 77;		/* automake: skipped */
	return cmocka_run_group_tests_name("mount", tests, NULL, NULL);
}
