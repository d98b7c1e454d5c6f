/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * tbfs url: asks the mount itself, not the daemon's socket: getxattr of user.tbfs.url.<seconds>,
 * which the kernel lets only those do who may read the file.
 */
#include "cmd/cmd.h"

#include <errno.h>
#include <getopt.h>
#include <string.h>
#include <sys/xattr.h>

enum { EXPIRES_DEFAULT = 3600, EXPIRES_MAX = 7 * 86400, URL_ROOM = 16384 };

static int
url_failed(const char *path, int error)
{
	switch (error) {
	case EACCES:
		return cmd_fail(EXIT_NOT_DONE, "%s: you may not read it", path);
	case ENODATA:
		return cmd_fail(EXIT_NOT_DONE, "%s is not in a store yet, or no file: `tbfs sync` it first", path);
	case EOPNOTSUPP:
		return cmd_fail(EXIT_NOT_DONE, "%s is in a store that gives no URLs: the local one has none of "
		    "its own", path);
	default:
		return cmd_fail(EXIT_NOT_DONE, "%s: %s", path, strerror(error));
	}
}

static int
url_of(const char *path, unsigned expires)
{
	char name[64], url[URL_ROOM];
	struct location loc;
	ssize_t n;
	int code = cmd_locate(path, &loc);

	if (code != EXIT_DONE)
		return code;
	locate_release(&loc);
	(void)snprintf(name, sizeof(name), "user.tbfs.url.%u", expires);
	n = lgetxattr(path, name, url, sizeof(url) - 1);
	if (n < 0)
		return url_failed(path, errno);
	url[n] = '\0';
	(void)puts(url);
	return EXIT_DONE;
}

int
cmd_url(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "expires", required_argument, NULL, 'e' }, { "help", no_argument, NULL, 'h' }, { 0 },
	};
	double expires = EXPIRES_DEFAULT;
	int c, code = EXIT_DONE;

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
	for (; code == EXIT_DONE && optind < argc; optind++)
		code = url_of(argv[optind], (unsigned)expires);
	return code;
}
