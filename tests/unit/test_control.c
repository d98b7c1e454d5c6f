/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Both ends of the control socket, and clients that don't keep to the rules. */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "cmd/control.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

struct rig {
	char dir[300], path[400];
	struct control_server *server;
	_Atomic int waiting;		/* handlers in verb_wait */
	_Atomic int cancelled;		/* … that ended by -ECANCELED */
};

static int
verb_echo(void *ctx, struct control_request *req)
{
	(void)ctx;
	(void)control_progress(req, json_pack("{s:i}", "step", 1));
	(void)control_progress(req, json_pack("{s:i}", "step", 2));
	control_answer(req, json_pack("{s:O}", "said", json_object_get(control_args(req), "say")));
	return 0;
}

static int
verb_fail(void *ctx, struct control_request *req)
{
	(void)ctx;
	return error_set(control_error(req), -EIO, "bucket\n on fire %s", "\xff%");
}

static int
verb_exit3(void *ctx, struct control_request *req)
{
	(void)ctx;
	(void)error_set(control_error(req), -EIO, "no bucket");
	return EXIT_BACKEND;
}

static int
verb_wait(void *ctx, struct control_request *req)
{
	struct rig *rig = ctx;
	int r;

	atomic_fetch_add(&rig->waiting, 1);
	while ((r = control_cancelled(req)) == 0)
		(void)usleep(2000);
	if (r == -ECANCELED)
		atomic_fetch_add(&rig->cancelled, 1);
	atomic_fetch_sub(&rig->waiting, 1);
	return r;
}

/* More than a socket holds, to a client that may not read it. */
static int
verb_flood(void *ctx, struct control_request *req)
{
	struct rig *rig = ctx;
	char text[4096];
	int i, r = 0;

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	atomic_fetch_add(&rig->waiting, 1);
	for (i = 0; i < 1000 && r == 0; i++)
		r = control_progress(req, json_pack("{s:s}", "text", text));
	atomic_fetch_sub(&rig->waiting, 1);
	if (r < 0)
		atomic_fetch_add(&rig->cancelled, 1);
	return 0;
}

static const struct control_verb verbs[] = {
	{ "echo", verb_echo }, { "fail", verb_fail }, { "exit3", verb_exit3 }, { "wait", verb_wait },
	{ "flood", verb_flood }, { NULL, NULL },
};

static void
rig_up_in(struct rig *rig, const char *base, gid_t group)
{
	struct control_options opt = { .verbs = verbs, .ctx = rig, .owner = geteuid(), .group = group };
	struct error err;

	memset(rig, 0, sizeof(*rig));
	(void)snprintf(rig->dir, sizeof(rig->dir), "%s.XXXXXX", base);
	assert_non_null(mkdtemp(rig->dir));
	(void)snprintf(rig->path, sizeof(rig->path), "%s/control.sock", rig->dir);
	opt.path = rig->path;
	if (control_start(&opt, &rig->server, &err) < 0)
		fail_msg("%s", err.text);
}

static void
rig_up(struct rig *rig)
{
	rig_up_in(rig, "/tmp/tbfs-control", (gid_t)-1);
}

static void
rig_down(struct rig *rig)
{
	control_stop(rig->server);
	assert_int_equal(access(rig->path, F_OK), -1);
	assert_int_equal(rmdir(rig->dir), 0);
}

static void
wait_until(_Atomic int *value, int want)
{
	int64_t until = clock_mono_ns() + 15 * NSEC_PER_SEC;

	while (atomic_load(value) != want) {
		if (clock_mono_ns() > until)
			fail_msg("still %d, not %d", atomic_load(value), want);
		(void)usleep(1000);
	}
}

static int
call(struct rig *rig, const char *request, json_t **ret_answer, struct error *err)
{
	json_t *json = json_loads(request, 0, NULL);
	int r;

	assert_non_null(json);
	r = control_call(rig->path, json, NULL, NULL, ret_answer, err);
	json_decref(json);
	return r;
}

static void
count_steps(void *arg, const json_t *line)
{
	int *steps = arg;

	if (json_integer_value(json_object_get(line, "step")) == *steps + 1)
		++*steps;
}

static void
test_answer_and_progress(void **state)
{
	json_t *request = json_pack("{s:s, s:s}", "verb", "echo", "say", "h\xc3\xa9"), *answer;
	struct error err;
	struct rig rig;
	int steps = 0;

	(void)state;
	rig_up(&rig);
	assert_int_equal(control_call(rig.path, request, count_steps, &steps, &answer, &err), 0);
	assert_int_equal(steps, 2);
	assert_string_equal(json_string_value(json_object_get(answer, "said")), "h\xc3\xa9");
	json_decref(answer);
	json_decref(request);
	rig_down(&rig);
}

static void
test_failures(void **state)
{
	struct error err;
	struct rig rig;

	(void)state;
	rig_up(&rig);
	assert_int_equal(call(&rig, "{\"verb\":\"fail\"}", NULL, &err), EXIT_NOT_DONE);
	assert_string_equal(err.text, "bucket  on fire %FF%25");
	assert_int_equal(call(&rig, "{\"verb\":\"exit3\"}", NULL, &err), EXIT_BACKEND);
	assert_string_equal(err.text, "no bucket");
	assert_int_equal(call(&rig, "{\"verb\":\"nothing\"}", NULL, &err), EXIT_USAGE);
	assert_non_null(strstr(err.text, "'nothing'"));
	assert_int_equal(call(&rig, "{\"verb\":7}", NULL, &err), EXIT_USAGE);
	assert_int_equal(call(&rig, "{\"verb\":\"wait\",\"timeout_s\":\"x\"}", NULL, &err), EXIT_USAGE);
	assert_int_equal(call(&rig, "{\"verb\":\"wait\",\"timeout_s\":-1}", NULL, &err), EXIT_USAGE);
	rig_down(&rig);
}

static void
test_deadline(void **state)
{
	int64_t begin = clock_mono_ns();
	struct error err;
	struct rig rig;

	(void)state;
	rig_up(&rig);
	assert_int_equal(call(&rig, "{\"verb\":\"wait\",\"timeout_s\":0.2}", NULL, &err), EXIT_NOT_DONE);
	assert_true(clock_mono_ns() - begin >= NSEC_PER_SEC / 5);
	assert_int_equal(atomic_load(&rig.cancelled), 0);
	rig_down(&rig);
}

/* A connection without the client's manners. */
static int
dial(const struct rig *rig)
{
	struct control_client c;

	assert_int_equal(control_connect(rig->path, &c, NULL), 0);
	assert_int_equal(c.pid, getpid());
	assert_true(c.pidfd >= 0);
	(void)close(c.pidfd);
	return c.fd;
}

static void
send_text(int fd, const char *text)
{
	size_t len = strlen(text);

	while (len > 0) {
		ssize_t n = send(fd, text, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EAGAIN) {
			(void)usleep(1000);
			continue;
		}
		if (n < 0)
			return;		/* the server has had enough */
		text += n;
		len -= (size_t)n;
	}
}

/* All until the server closes; static result. */
static const char *
receive_all(int fd)
{
	static char text[8192];
	size_t len = 0;

	for (;;) {
		ssize_t n = recv(fd, text + len, sizeof(text) - 1 - len, 0);

		if (n < 0 && errno == EAGAIN) {
			(void)usleep(1000);
			continue;
		}
		if (n <= 0)
			break;
		len += (size_t)n;
	}
	text[len] = '\0';
	(void)close(fd);
	return text;
}

static void
test_garbage(void **state)
{
	static const char *const lines[] = {
		"\n", "hello\n", "[]\n", "\"verb\"\n", "{\"verb\":\n", "{\"verb\":\"echo\",\"verb\":\"wait\"}\n",
		"{\"verb\":\"\xff\"}\n", "GET / HTTP/1.1\r\n\r\n",
	};
	struct error err;
	struct rig rig;
	size_t i;

	(void)state;
	rig_up(&rig);
	for (i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		int fd = dial(&rig);

		send_text(fd, lines[i]);
		assert_non_null(strstr(receive_all(fd), "\"exit\":2"));
	}
	assert_int_equal(call(&rig, "{\"verb\":\"echo\",\"say\":1}", NULL, &err), 0);
	rig_down(&rig);
}

static void
test_oversize_request(void **state)
{
	size_t len = CONTROL_REQUEST_MAX + 65536;
	CLEANUP_FREE char *text = malloc(len + 1);
	struct error err;
	struct rig rig;
	int fd;

	(void)state;
	rig_up(&rig);
	memset(text, 'a', len);
	text[len] = '\0';
	fd = dial(&rig);
	send_text(fd, text);
	assert_non_null(strstr(receive_all(fd), "longer than 1048576"));
	assert_int_equal(call(&rig, "{\"verb\":\"echo\",\"say\":1}", NULL, &err), 0);
	rig_down(&rig);
}

/* Sends nothing, or half a line: told off after CONTROL_READ_S, others served meanwhile. */
static void
test_slow_client(void **state)
{
	int64_t begin = clock_mono_ns();
	struct error err;
	struct rig rig;
	int silent, half;

	(void)state;
	rig_up(&rig);
	silent = dial(&rig);
	half = dial(&rig);
	send_text(half, "{\"verb\":");
	assert_int_equal(call(&rig, "{\"verb\":\"echo\",\"say\":1}", NULL, &err), 0);
	assert_true(clock_mono_ns() - begin < 4 * NSEC_PER_SEC);
	assert_non_null(strstr(receive_all(silent), "no request came"));
	assert_non_null(strstr(receive_all(half), "no request came"));
	assert_true(clock_mono_ns() - begin >= CONTROL_READ_S * NSEC_PER_SEC);
	rig_down(&rig);
}

static void
test_disconnect_cancels(void **state)
{
	struct rig rig;
	int fd;

	(void)state;
	rig_up(&rig);
	fd = dial(&rig);
	send_text(fd, "{\"verb\":\"wait\"}\n");
	wait_until(&rig.waiting, 1);
	(void)shutdown(fd, SHUT_WR);	/* only half gone: it still waits for the answer */
	(void)usleep(50000);
	assert_int_equal(atomic_load(&rig.waiting), 1);
	(void)close(fd);
	wait_until(&rig.waiting, 0);
	wait_until(&rig.cancelled, 1);
	rig_down(&rig);
}

/* A client that asks and doesn't read: its handler is free again after CONTROL_WRITE_S. */
static void
test_reader_that_stops(void **state)
{
	struct rig rig;
	int fd;

	(void)state;
	rig_up(&rig);
	fd = dial(&rig);
	send_text(fd, "{\"verb\":\"flood\"}\n");
	wait_until(&rig.cancelled, 1);
	(void)close(fd);
	rig_down(&rig);
}

static void
test_too_many(void **state)
{
	int fds[CONTROL_HANDLERS], i;
	struct error err;
	struct rig rig;

	(void)state;
	rig_up(&rig);
	for (i = 0; i < CONTROL_HANDLERS; i++) {
		fds[i] = dial(&rig);
		send_text(fds[i], "{\"verb\":\"wait\"}\n");
	}
	wait_until(&rig.waiting, CONTROL_HANDLERS);
	assert_int_equal(call(&rig, "{\"verb\":\"echo\",\"say\":1}", NULL, &err), EXIT_NOT_DONE);
	assert_non_null(strstr(err.text, "busy"));
	for (i = 0; i < CONTROL_HANDLERS; i++)
		(void)close(fds[i]);
	wait_until(&rig.waiting, 0);
	do {		/* the slots come back a moment after their handlers */
		i = call(&rig, "{\"verb\":\"echo\",\"say\":1}", NULL, &err);
	} while (i != 0 && strstr(err.text, "busy") != NULL);
	assert_int_equal(i, 0);
	rig_down(&rig);
}

static void
test_stop_cancels(void **state)
{
	struct rig rig;
	int waiting, silent;

	(void)state;
	rig_up(&rig);
	silent = dial(&rig);
	waiting = dial(&rig);
	send_text(waiting, "{\"verb\":\"wait\"}\n");
	wait_until(&rig.waiting, 1);
	rig_down(&rig);
	assert_int_equal(atomic_load(&rig.cancelled), 1);
	assert_non_null(strstr(receive_all(waiting), "\"exit\":1"));
	(void)close(silent);
}

/* In a child: become somebody else and ask; its exit code says what came of it. */
static int
ask_as(const struct rig *rig, uid_t uid, gid_t gid, gid_t extra)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		struct error err = {0};
		int r;

		if (setgroups(extra != (gid_t)-1, &extra) < 0 || setgid(gid) < 0 || setuid(uid) < 0)
			_exit(99);
		json_t *request = json_pack("{s:s, s:i}", "verb", "echo", "say", 1);
		r = control_call(rig->path, request, NULL, NULL, NULL, &err);
		_exit(r == 0 ? 0 : strstr(err.text, "not allowed") != NULL ? 50 : 51);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void
test_permission(void **state)
{
	enum { STRANGER = 54321, FAMILY = 54322 };
	struct rig rig;

	(void)state;
	if (geteuid() != 0)
		skip();
	log_set_level(LOG_LEVEL_ERROR);
	rig_up(&rig);
	assert_int_equal(ask_as(&rig, STRANGER, STRANGER, (gid_t)-1), 50);	/* by the directory */
	assert_int_equal(chmod(rig.dir, 0755), 0);
	assert_int_equal(chmod(rig.path, 0666), 0);
	assert_int_equal(ask_as(&rig, STRANGER, STRANGER, (gid_t)-1), 50);	/* by the server */
	assert_int_equal(ask_as(&rig, STRANGER, STRANGER, FAMILY), 50);
	assert_int_equal(ask_as(&rig, 0, 0, (gid_t)-1), 0);
	rig_down(&rig);

	rig_up_in(&rig, "/tmp/tbfs-control", FAMILY);
	assert_int_equal(ask_as(&rig, STRANGER, STRANGER, FAMILY), 0);
	assert_int_equal(ask_as(&rig, STRANGER, FAMILY, (gid_t)-1), 0);
	assert_int_equal(ask_as(&rig, STRANGER, STRANGER, STRANGER), 50);
	rig_down(&rig);
}

static void
test_nobody_there(void **state)
{
	struct control_client c;
	struct error err;
	struct rig rig;
	int fd;

	(void)state;
	rig_up(&rig);
	control_stop(rig.server);
	assert_int_equal(control_connect(rig.path, &c, &err), -ENOENT);
	assert_non_null(strstr(err.text, "no daemon listens"));
	/* What a killed daemon leaves: a socket that nobody listens on; the next server takes it. */
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	(void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%.100s", rig.path);
	assert_int_equal(bind(fd, (const struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(control_connect(rig.path, &c, &err), -ECONNREFUSED);
	struct control_options opt = { .path = rig.path, .verbs = verbs, .ctx = &rig,
	    .owner = geteuid(), .group = (gid_t)-1 };
	assert_int_equal(control_start(&opt, &rig.server, &err), 0);
	assert_int_equal(call(&rig, "{\"verb\":\"echo\",\"say\":1}", NULL, &err), 0);
	(void)close(fd);
	rig_down(&rig);
}

/* A state directory whose path is longer than sun_path. */
static void
test_long_path(void **state)
{
	struct error err;
	struct rig rig;
	char base[201];

	(void)state;
	memset(base, 'd', sizeof(base));
	memcpy(base, "/tmp/tbfs-", 10);
	base[200] = '\0';
	rig_up_in(&rig, base, (gid_t)-1);
	assert_int_equal(call(&rig, "{\"verb\":\"echo\",\"say\":1}", NULL, &err), 0);
	rig_down(&rig);
}

static void
test_paths(void **state)
{
	static const char *const paths[] = {
		"", "/a b", "/\xc3\xa9\xf0\x9f\x98\x80", "/\xff\xfe", "/new\nline\x7f", "/100%", "/%41",
		"/\xed\xa0\x80", "/\xc0\xaf", "/\xf4\x90\x80\x80", "/\xe2\x82",
	};
	char *back;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		json_t *json = control_path_encode(paths[i]);

		assert_non_null(json);
		assert_int_equal(control_path_decode(json_string_value(json), &back), 0);
		assert_string_equal(back, paths[i]);
		free(back);
		json_decref(json);
	}
	assert_int_equal(control_path_decode("/%0", &back), -EINVAL);
	assert_int_equal(control_path_decode("/%", &back), -EINVAL);
	assert_int_equal(control_path_decode("/%zz", &back), -EINVAL);
	assert_int_equal(control_path_decode("/%00", &back), -EINVAL);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answer_and_progress),
		cmocka_unit_test(test_failures),
		cmocka_unit_test(test_deadline),
		cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_oversize_request),
		cmocka_unit_test(test_slow_client),
		cmocka_unit_test(test_disconnect_cancels),
		cmocka_unit_test(test_reader_that_stops),
		cmocka_unit_test(test_too_many),
		cmocka_unit_test(test_stop_cancels),
		cmocka_unit_test(test_permission),
		cmocka_unit_test(test_nobody_there),
		cmocka_unit_test(test_long_path),
		cmocka_unit_test(test_paths),
	};

	return cmocka_run_group_tests_name("control", tests, NULL, NULL);
}
