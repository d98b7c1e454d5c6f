/* SPDX-License-Identifier: GPL-3.0-or-later */
/* tbfs config: what a mount there would use, and where each value comes from. */
#include "base/cleanup.h"
#include "cmd/cmd.h"
#include "cmd/mountpoint.h"

#include <getopt.h>

/* Everything that was understood is printed, also when something is wrong: then exit 2. */
static int
print(struct config *cfg, const char *mountpoint)
{
	CLEANUP_FREE char *resolved = NULL;
	struct error err;
	int r = config_load_env(cfg, &err);

	if (r == 0 && mountpoint != NULL) {
		r = mountpoint_resolve(mountpoint, &resolved, &err);
		if (r == 0)
			r = config_finish(cfg, resolved, &err);
	}
	config_print(cfg, stdout);
	return r < 0 ? cmd_fail_error(EXIT_USAGE, &err) : EXIT_DONE;
}

int
cmd_config(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "config", required_argument, NULL, 'c' }, { "options", required_argument, NULL, 'o' },
		{ "help", no_argument, NULL, 'h' }, { "man", no_argument, NULL, 'm' }, { 0 },
	};
	struct config cfg;
	struct error err;
	int c, code = EXIT_DONE;

	config_init(&cfg);
	while (code == EXIT_DONE && (c = getopt_long(argc, argv, "c:o:h", longs, NULL)) != -1) {
		if (c == 'm') {
			config_print_man(stdout);
			config_release(&cfg);
			return EXIT_DONE;
		}
		if (c == 'h')
			code = -1;
		else if (c == '?')
			code = cmd_usage("config");
		else if (c == 'c' && config_load_file(&cfg, optarg, &err) < 0)
			code = cmd_fail_error(EXIT_USAGE, &err);
		else if (c == 'o' && config_parse_mount_options(&cfg, optarg, false, &err) < 0)
			code = cmd_fail_error(EXIT_USAGE, &err);
		if (c == 'o')
			config_scrub_options(optarg);
	}
	if (code == -1)
		code = cmd_help("config");
	else if (code == EXIT_DONE)
		code = argc - optind > 1 ? cmd_usage("config") : print(&cfg, argv[optind]);
	config_release(&cfg);
	return code;
}
