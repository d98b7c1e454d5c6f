/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * tbfs url: the daemon's verb "url" with paths and expires_s; its answer has
 * urls, in the order of the paths.
 */
#include "cmd/cmd.h"

#include <getopt.h>

enum { EXPIRES_DEFAULT = 3600, EXPIRES_MAX = 7 * 86400 };

static void
on_line(void *arg, const json_t *line)
{
	const json_t *url;
	size_t i;

	(void)arg;
	json_array_foreach(json_object_get(line, "urls"), i, url) {
		show_text(stdout, json_is_string(url) ? json_string_value(url) : "");
		(void)fputc('\n', stdout);
	}
}

int
cmd_url(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "expires", required_argument, NULL, 'e' }, { "help", no_argument, NULL, 'h' }, { 0 },
	};
	double expires = EXPIRES_DEFAULT;
	json_t *extra;
	int c, code;

	while ((c = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
		if (c != 'e')
			return c == 'h' ? cmd_help("url") : cmd_usage("url");
		if (!cmd_seconds("--expires", optarg, &expires))
			return EXIT_USAGE;
	}
	if (argc == optind)
		return cmd_usage("url");
	if (expires < 1 || expires > EXPIRES_MAX)
		return cmd_fail(EXIT_USAGE, "--expires is from 1s to 7d");
	extra = json_pack("{s:f}", "expires_s", expires);
	code = cmd_each_mount("url", argv + optind, argc - optind, extra, on_line, NULL);
	json_decref(extra);
	return code;
}
