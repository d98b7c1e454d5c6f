/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * tbfs VERB …; by other names the helper of mount(8) and umount(8), which look
 * for mount.tbfs, mount.fuse.tbfs and umount.fuse.tbfs.  Where those are not in
 * /sbin, `mount -t fuse.tbfs` ends up in libfuse's mount.fuse3, and that calls
 * `tbfs SOURCE MOUNTPOINT -o OPTIONS`.
 */
#include "build.h"
#include "cmd/cmd.h"

#include <string.h>

static int
help(FILE *out)
{
	const struct cmd *c;

	(void)fputs("usage: tbfs VERB [option ...] [argument ...]\n\n", out);
	for (c = cmd_table; c->name != NULL; c++)
		(void)fprintf(out, "  %-10s %s\n", c->name, c->summary);
	(void)fputs("\n`tbfs VERB --help` tells more; so do tbfs(1), tbfs-mount(8), tbfs.conf(5).\n", out);
	return out == stdout ? EXIT_DONE : EXIT_USAGE;
}

int
main(int argc, char **argv)
{
	const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
	const char *self = argc == 0 ? "tbfs" : slash != NULL ? slash + 1 : argv[0];
	const struct cmd *c;

	if (strncmp(self, "mount.", 6) == 0)
		return cmd_mount_helper(argc, argv);
	if (strncmp(self, "umount.", 7) == 0)
		return cmd_umount_helper(argc, argv);
	if (argc < 2)
		return help(stderr);
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0)
		return help(stdout);
	if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
		(void)printf("tbfs %s\n", PACKAGE_VERSION);
		return EXIT_DONE;
	}
	for (c = cmd_table; c->name != NULL; c++)
		if (strcmp(c->name, argv[1]) == 0)
			return c->run(argc - 1, argv + 1);
	if (argc == 5 && argv[2][0] == '/' && strcmp(argv[3], "-o") == 0)
		return cmd_mount_helper(argc, argv);
	return cmd_fail(EXIT_USAGE, "there is no verb '%.40s'; `tbfs --help` lists them", argv[1]);
}
