/* SPDX-License-Identifier: GPL-3.0-or-later */
/* tbfs sync: the daemon's verb "sync" with paths, derived and timeout_s. */
#include "cmd/cmd.h"

#include <getopt.h>

int
cmd_sync(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "derived", no_argument, NULL, 'd' }, { "timeout", required_argument, NULL, 't' },
		{ "help", no_argument, NULL, 'h' }, { 0 },
	};
	struct show_progress progress;
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
	show_progress_init(&progress);
	code = cmd_each_mount("sync", argv + optind, argc - optind, extra, show_progress_line, &progress);
	show_progress_end(&progress);
	json_decref(extra);
	return code;
}
