/* SPDX-License-Identifier: GPL-3.0-or-later */
/* tbfs url: the daemon's verb "url" with path and expires (s); its answer has url. */
#include "cmd/cmd.h"

#include <getopt.h>

enum { EXPIRES_DEFAULT = 3600, EXPIRES_MAX = 7 * 86400 };

int
cmd_url(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "expires", required_argument, NULL, 'e' }, { "help", no_argument, NULL, 'h' }, { 0 },
	};
	double expires = EXPIRES_DEFAULT;
	struct location loc;
	json_t *answer = NULL;
	int c, code;

	while ((c = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
		if (c != 'e')
			return c == 'h' ? cmd_help("url") : cmd_usage("url");
		if (!cmd_seconds("--expires", optarg, &expires))
			return EXIT_USAGE;
	}
	if (argc - optind != 1)
		return cmd_usage("url");
	if (expires < 1 || expires > EXPIRES_MAX)
		return cmd_fail(EXIT_USAGE, "--expires is from 1s to 7d");
	code = cmd_locate(argv[optind], &loc);
	if (code != EXIT_DONE)
		return code;
	code = cmd_ask(&loc, json_pack("{s:s, s:o, s:i}", "verb", "url", "path",
	    control_path_encode(loc.path), "expires", (int)expires), NULL, NULL, &answer);
	locate_release(&loc);
	if (code == EXIT_DONE) {
		const char *url = json_string_value(json_object_get(answer, "url"));

		show_text(stdout, url != NULL ? url : "");
		(void)fputc('\n', stdout);
	}
	json_decref(answer);
	return code;
}
