/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * tbfs url: asks the mount itself, not the daemon's socket: getxattr of user.tbfs.url, or of
 * user.tbfs.url.<seconds>, which the kernel lets only those do who may read the file.
 */
#include "backends/backend.h"
#include "cmd/cmd.h"

#include <errno.h>
#include <getopt.h>
#include <string.h>
#include <sys/xattr.h>

enum { URL_ROOM = 16384 };

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
url_of(const char *path, const char *name)
{
	char url[URL_ROOM];
	struct location loc;
	ssize_t n;
	int code = cmd_locate(path, &loc);

	if (code != EXIT_DONE)
		return code;
	locate_release(&loc);
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
	char name[64] = "user.tbfs.url";
	int c, code = EXIT_DONE;
	double expires;

	while ((c = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
		if (c != 'e')
			return c == 'h' ? cmd_help("url") : cmd_usage("url");
		if (!cmd_seconds("--expires", optarg, &expires))
			return EXIT_USAGE;
		if (expires < 1 || expires > BACKEND_URL_MAX)
			return cmd_fail(EXIT_USAGE, "--expires is from 1s to 7d");
		(void)snprintf(name, sizeof(name), "user.tbfs.url.%u", (unsigned)expires);
	}
	if (argc == optind)
		return cmd_usage("url");
	for (; code == EXIT_DONE && optind < argc; optind++)
		code = url_of(argv[optind], name);
	return code;
}
