/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * tbfs status: the daemon's verb "status" answers with one document:
 *
 *	{"mountpoint", "version", "uptime_s", "alert_age_s",
 *	 "files": {"open": {"count","bytes"}, "dirty", "stored", "remote"},
 *	 "oldest_unstored_s", "queue": {"upload","remove","relocate","derive"},
 *	 "stuck": {"count","paths":[]}, "failures": [{"path","error","attempts","next_try_s"}],
 *	 "backends": [{"name","healthy","last_error","requests"}],
 *	 "derive": {"pending","failed"}, "space": {…}, "open_files_older_than_1d": []}
 *
 * What is absent is not shown.
 */
#include "cmd/cmd.h"

#include <getopt.h>
#include <string.h>
#include <unistd.h>

enum { WATCH_S = 2 };

static json_int_t
number(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

static const char *
string(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text != NULL ? text : "";
}

static void
show_files(const json_t *files)
{
	static const char *const states[] = { "open", "dirty", "stored", "remote" };
	size_t i;

	for (i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
		const json_t *state = json_object_get(files, states[i]);

		if (state != NULL)
			(void)printf("  %-8s %9lld files %12s\n", states[i], (long long)number(state, "count"),
			    show_size(number(state, "bytes")));
	}
}

static void
show_counts(const char *title, const json_t *counts)
{
	const char *key, *comma = "";
	json_t *value;

	if (!json_is_object(counts))
		return;
	(void)printf("%-11s", title);
	json_object_foreach((json_t *)(uintptr_t)counts, key, value) {
		(void)printf("%s%s %lld", comma, key, (long long)json_integer_value(value));
		comma = ", ";
	}
	(void)putchar('\n');
}

static void
show_backends(const json_t *backends)
{
	const json_t *b;
	size_t i;

	json_array_foreach((json_t *)(uintptr_t)backends, i, b) {
		(void)printf("backend    %s: %s", string(b, "name"),
		    json_is_true(json_object_get(b, "healthy")) ? "healthy" : "FAILING");
		if (string(b, "last_error")[0] != '\0') {
			(void)fputs(", last error: ", stdout);
			show_text(stdout, string(b, "last_error"));
		}
		(void)putchar('\n');
	}
}

static void
show_space(const json_t *space)
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)(uintptr_t)space, key, value)
		(void)printf("space      %s: %s\n", key, show_size(json_integer_value(value)));
}

static void
show_trouble(const json_t *status)
{
	const json_t *stuck = json_object_get(status, "stuck"), *one;
	size_t i;

	if (number(stuck, "count") > 0)
		(void)printf("STUCK      %lld files; `tbfs retry` tries them again\n",
		    (long long)number(stuck, "count"));
	json_array_foreach(json_object_get(stuck, "paths"), i, one) {
		(void)fputs("  ", stdout);
		show_text(stdout, json_is_string(one) ? json_string_value(one) : "?");
		(void)putchar('\n');
	}
	json_array_foreach(json_object_get(status, "failures"), i, one) {
		(void)fputs("failed     ", stdout);
		show_text(stdout, string(one, "path"));
		(void)printf(" (%lld attempts, next in %s): ", (long long)number(one, "attempts"),
		    show_age(json_number_value(json_object_get(one, "next_try_s"))));
		show_text(stdout, string(one, "error"));
		(void)putchar('\n');
	}
	json_array_foreach(json_object_get(status, "open_files_older_than_1d"), i, one) {
		const char *path = json_is_string(one) ? json_string_value(one) : string(one, "path");

		(void)fputs("open >1 d  ", stdout);
		show_text(stdout, path);
		(void)putchar('\n');
	}
}

static void
show_status(const json_t *status)
{
	const json_t *oldest = json_object_get(status, "oldest_unstored_s");

	show_text(stdout, string(status, "mountpoint"));
	(void)printf("  tbfs %s, up %s\n", string(status, "version"),
	    show_age(json_number_value(json_object_get(status, "uptime_s"))));
	show_files(json_object_get(status, "files"));
	if (json_is_number(oldest) && json_number_value(oldest) > 0)
		(void)printf("oldest     unstored for %s\n", show_age(json_number_value(oldest)));
	show_counts("queue", json_object_get(status, "queue"));
	show_counts("derive", json_object_get(status, "derive"));
	show_backends(json_object_get(status, "backends"));
	show_space(json_object_get(status, "space"));
	show_trouble(status);
}

/* One line, and 1 when somebody should look. */
static int
check(const json_t *status)
{
	const json_t *files = json_object_get(status, "files");
	json_int_t stuck = number(json_object_get(status, "stuck"), "count");
	double oldest = json_number_value(json_object_get(status, "oldest_unstored_s"));
	double limit = json_number_value(json_object_get(status, "alert_age_s"));
	long long unstored = (long long)(number(json_object_get(files, "open"), "count") +
	    number(json_object_get(files, "dirty"), "count"));

	if (stuck > 0) {
		(void)printf("STUCK: %lld files can't be stored; `tbfs status` names them\n", (long long)stuck);
		return EXIT_NOT_DONE;
	}
	if (limit > 0 && oldest > limit) {
		(void)printf("LATE: the oldest of %lld unstored files has waited for %s\n", unstored,
		    show_age(oldest));
		return EXIT_NOT_DONE;
	}
	(void)printf("OK: %lld files unstored%s%s\n", unstored, oldest > 0 ? ", the oldest for " : "",
	    oldest > 0 ? show_age(oldest) : "");
	return EXIT_DONE;
}

struct status_request {
	const char *mountpoint;		/* NULL: the only one */
	bool json, watch, check;
};

static int
status_once(const struct status_request *req)
{
	struct location loc;
	json_t *answer = NULL;
	int code = cmd_locate(req->mountpoint, &loc);

	if (code != EXIT_DONE)
		return code;
	code = cmd_ask(&loc, json_pack("{s:s}", "verb", "status"), NULL, NULL, &answer);
	locate_release(&loc);
	if (code == EXIT_DONE) {
		(void)json_object_del(answer, "exit");
		if (req->check) {
			code = check(answer);
		} else if (req->json) {
			(void)json_dumpf(answer, stdout, req->watch ? JSON_COMPACT : JSON_INDENT(2));
			(void)putchar('\n');
		} else {
			show_status(answer);
		}
	}
	json_decref(answer);
	return code;
}

/* Until interrupted, or until nobody reads. */
static int
status_watch(const struct status_request *req)
{
	bool clear = !req->json && isatty(STDOUT_FILENO);

	for (;;) {
		if (clear)
			(void)fputs("\033[H\033[2J", stdout);
		(void)status_once(req);
		if (fflush(stdout) != 0)
			return EXIT_NOT_DONE;
		(void)sleep(WATCH_S);
	}
}

int
cmd_status(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "json", no_argument, NULL, 'j' }, { "watch", no_argument, NULL, 'w' },
		{ "check", no_argument, NULL, 'k' }, { "help", no_argument, NULL, 'h' }, { 0 },
	};
	struct status_request req = {0};
	int c;

	while ((c = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
		if (c == 'j')
			req.json = true;
		else if (c == 'w')
			req.watch = true;
		else if (c == 'k')
			req.check = true;
		else
			return c == 'h' ? cmd_help("status") : cmd_usage("status");
	}
	if (argc - optind > 1)
		return cmd_usage("status");
	req.mountpoint = argv[optind];
	return req.watch ? status_watch(&req) : status_once(&req);
}
