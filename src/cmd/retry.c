/* SPDX-License-Identifier: GPL-3.0-or-later */
/* tbfs retry: the daemon's verb "retry" with paths; its answer has retried. */
#include "cmd/cmd.h"

#include <getopt.h>

static void
on_line(void *arg, const json_t *line)
{
	json_int_t *retried = arg;

	*retried += json_integer_value(json_object_get(line, "retried"));
}

int
cmd_retry(int argc, char **argv)
{
	static const struct option longs[] = { { "help", no_argument, NULL, 'h' }, { 0 } };
	json_int_t retried = 0;
	int c = getopt_long(argc, argv, "h", longs, NULL), code;

	if (c != -1)
		return c == 'h' ? cmd_help("retry") : cmd_usage("retry");
	code = cmd_each_mount("retry", argv + optind, argc - optind, NULL, on_line, &retried);
	if (code == EXIT_DONE)
		(void)printf("%lld tried again\n", (long long)retried);
	return code;
}
