/* SPDX-License-Identifier: GPL-3.0-or-later */
/* tbfs info: the daemon's verb "info" with path; every member of its answer is shown. */
#include "cmd/cmd.h"

#include <getopt.h>

int
cmd_info(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "json", no_argument, NULL, 'j' }, { "help", no_argument, NULL, 'h' }, { 0 },
	};
	struct location loc;
	json_t *answer = NULL;
	bool json = false;
	int c, code;

	while ((c = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
		if (c != 'j')
			return c == 'h' ? cmd_help("info") : cmd_usage("info");
		json = true;
	}
	if (argc - optind != 1)
		return cmd_usage("info");
	code = cmd_locate(argv[optind], &loc);
	if (code != EXIT_DONE)
		return code;
	code = cmd_ask(&loc, json_pack("{s:s, s:o}", "verb", "info", "path",
	    control_path_encode(loc.path)), NULL, NULL, &answer);
	locate_release(&loc);
	if (code == EXIT_DONE && json) {
		(void)json_object_del(answer, "exit");
		(void)json_dumpf(answer, stdout, JSON_INDENT(2));
		(void)fputc('\n', stdout);
	} else if (code == EXIT_DONE) {
		show_object(stdout, answer);
	}
	json_decref(answer);
	return code;
}
