/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * tbfs sync: the daemon's verb "sync" with paths, derived and timeout_s; its
 * answer may have files and bytes (stored), and remaining {files, bytes} and
 * failures [{path, error}] where it is not done.
 */
#include "cmd/cmd.h"

#include <getopt.h>
#include <string.h>

struct sync_state {
	struct show_progress progress;
	json_int_t files, bytes;
};

static void
show_failures(const json_t *failures)
{
	const json_t *one;
	size_t i;

	json_array_foreach((json_t *)(uintptr_t)failures, i, one) {
		const char *path = json_string_value(json_object_get(one, "path"));
		const char *error = json_string_value(json_object_get(one, "error"));

		(void)fputs("  ", stderr);
		show_text(stderr, path != NULL ? path : "?");
		(void)fputs(": ", stderr);
		show_text(stderr, error != NULL ? error : "not stored");
		(void)fputc('\n', stderr);
	}
}

static void
on_line(void *arg, const json_t *line)
{
	struct sync_state *s = arg;
	const json_t *remaining = json_object_get(line, "remaining");

	if (json_object_get(line, "exit") == NULL) {
		show_progress_line(&s->progress, line);
		return;
	}
	show_progress_end(&s->progress);
	s->files += json_integer_value(json_object_get(line, "files"));
	s->bytes += json_integer_value(json_object_get(line, "bytes"));
	if (json_integer_value(json_object_get(remaining, "files")) > 0)
		(void)fprintf(stderr, "tbfs: %lld files, %s are not stored yet\n",
		    (long long)json_integer_value(json_object_get(remaining, "files")),
		    show_size(json_integer_value(json_object_get(remaining, "bytes"))));
	show_failures(json_object_get(line, "failures"));
}

int
cmd_sync(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "derived", no_argument, NULL, 'd' }, { "timeout", required_argument, NULL, 't' },
		{ "help", no_argument, NULL, 'h' }, { 0 },
	};
	struct sync_state state = {0};
	json_t *extra = json_object();
	double seconds;
	int c, code;

	while ((c = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
		if (c == 'd') {
			(void)json_object_set_new(extra, "derived", json_true());
		} else if (c == 't' && cmd_seconds("--timeout", optarg, &seconds)) {
			(void)json_object_set_new(extra, "timeout_s", json_real(seconds));
		} else {
			json_decref(extra);
			return c == 'h' ? cmd_help("sync") : c == 't' ? EXIT_USAGE : cmd_usage("sync");
		}
	}
	show_progress_init(&state.progress);
	code = cmd_each_mount("sync", argv + optind, argc - optind, extra, on_line, &state);
	show_progress_end(&state.progress);
	json_decref(extra);
	if (code == EXIT_DONE && state.files > 0)
		(void)printf("stored: %lld files, %s\n", (long long)state.files, show_size(state.bytes));
	return code;
}
