/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * tbfs info: the daemon's verb "info" with paths; its answer has files, one
 * object a path, every member of which is shown.
 */
#include "cmd/cmd.h"

#include <getopt.h>

struct info_state {
	bool json, first;
};

static void
on_line(void *arg, const json_t *line)
{
	struct info_state *s = arg;
	const json_t *file;
	size_t i;

	json_array_foreach(json_object_get(line, "files"), i, file) {
		if (s->json) {
			(void)json_dumpf(file, stdout, JSON_INDENT(2));
			(void)fputc('\n', stdout);
			continue;
		}
		if (!s->first)
			(void)fputc('\n', stdout);
		s->first = false;
		show_object(stdout, file);
	}
}

int
cmd_info(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "json", no_argument, NULL, 'j' }, { "help", no_argument, NULL, 'h' }, { 0 },
	};
	struct info_state state = { .first = true };
	int c;

	while ((c = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
		if (c != 'j')
			return c == 'h' ? cmd_help("info") : cmd_usage("info");
		state.json = true;
	}
	if (argc == optind)
		return cmd_usage("info");
	return cmd_each_mount("info", argv + optind, argc - optind, NULL, on_line, &state);
}
