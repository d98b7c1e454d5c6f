/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The table of verbs and what they share: complaints, finding the daemon,
 * asking it.
 */
#include "cmd/cmd.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

const struct cmd cmd_table[] = {
	{ "mount", cmd_mount, "[-f] [-c FILE] [-o KEY=VALUE,...] MOUNTPOINT",
	    "mount; returns when the mount is ready",
	    "  -f, --foreground   stay, log to standard error\n"
	    "  -c, --config FILE  instead of /etc/tbfs/<name>.conf\n"
	    "  -o, --options LIST keys of tbfs.conf(5), and ro, noexec, ... as for mount(8)\n" },
	{ "umount", cmd_umount, "[--timeout TIME] [--lazy] MOUNTPOINT",
	    "store what is left, unmount, wait for the daemon to end",
	    "  --timeout TIME     store for so long, then leave the rest staged [drain_timeout]\n"
	    "  --lazy             detach even while files are open\n" },
	{ "sync", cmd_sync, "[--derived] [--timeout TIME] [PATH ...]",
	    "return when the files are in the backend",
	    "  --derived          and their thumbnails and metadata too\n"
	    "  --timeout TIME     give up after so long\n"
	    "A mountpoint means all of it; no PATH the only mount.\n" },
	{ "status", cmd_status, "[--json] [--watch] [--check] [MOUNTPOINT]",
	    "what is stored, staged, waiting, failing",
	    "  --json             as the daemon has it\n"
	    "  --watch            again every two seconds\n"
	    "  --check            one line; exit 1 when something is stuck or older than alert.age\n" },
	{ "info", cmd_info, "[--json] PATH ...", "all about a file", NULL },
	{ "retry", cmd_retry, "[PATH ...]", "try again now what failed; no PATH: all of the only mount",
	    NULL },
	{ "url", cmd_url, "[--expires TIME] PATH ...", "an address that lets anybody read the file for a time",
	    "  --expires TIME     at most 7d [1h]\n" },
	{ "quota", cmd_quota, "set [--bytes SIZE] [--files COUNT] PATH ... | show [--json] [PATH ...]",
	    "how much may be at and below a directory",
	    "  --bytes SIZE       the sizes of all files together; K, M, G, T; none takes it away\n"
	    "  --files COUNT      all that are no directories; none takes it away\n"
	    "  --json             one document a line\n"
	    "What tbfs derives (thumbs/, meta.json) does not count.  show tells the quotas that hold where\n"
	    "a path stands and those below it; no PATH: all of the only mount.\n" },
	{ "config", cmd_config, "[-c FILE] [-o KEY=VALUE,...] [MOUNTPOINT]",
	    "every option, its value and where that comes from", NULL },
	{ NULL },
};

int
cmd_fail(enum exit_code code, const char *fmt, ...)
{
	va_list ap;

	(void)fputs("tbfs: ", stderr);
	va_start(ap, fmt);
	(void)vfprintf(stderr, fmt, ap);
	va_end(ap);
	(void)fputc('\n', stderr);
	return (int)code;
}

int
cmd_fail_error(enum exit_code code, const struct error *err)
{
	return cmd_fail(code, "%s", error_text(err));
}

static const struct cmd *
find(const char *name)
{
	const struct cmd *c = cmd_table;

	while (c->name != NULL && strcmp(c->name, name) != 0)
		c++;
	return c;
}

int
cmd_usage(const char *name)
{
	(void)fprintf(stderr, "usage: tbfs %s %s\n", name, find(name)->usage);
	return EXIT_USAGE;
}

int
cmd_help(const char *name)
{
	const struct cmd *c = find(name);

	(void)printf("usage: tbfs %s %s\n%s.\n", name, c->usage, c->summary);
	if (c->help != NULL)
		(void)fputs(c->help, stdout);
	if (strcmp(name, "mount") == 0 || strcmp(name, "config") == 0) {
		(void)puts("\nKeys (see tbfs.conf(5)):");
		config_print_help(stdout);
	}
	return EXIT_DONE;
}

bool
cmd_seconds(const char *option, const char *text, double *ret_seconds)
{
	int64_t ns;

	if (config_parse_duration(text, &ns) < 0) {
		(void)cmd_fail(EXIT_USAGE, "bad value '%.40s' of %s; allowed: seconds, or a time such as "
		    "500ms, 2s, 10m, 1h", text, option);
		return false;
	}
	*ret_seconds = (double)ns / 1e9;
	return true;
}

int
cmd_locate(const char *path, struct location *ret)
{
	struct error err;
	int r = path != NULL ? locate_path(path, ret, &err) : locate_only(ret, &err);

	if (r == 0)
		return EXIT_DONE;
	locate_release(ret);
	return cmd_fail_error(r == -ENOENT ? EXIT_USAGE : EXIT_NOT_DONE, &err);
}

int
cmd_ask(const struct location *loc, json_t *request, control_line_fn *fn, void *arg,
    json_t **ret_answer)
{
	struct error err;
	int r;

	if (request == NULL)
		return cmd_fail(EXIT_NOT_DONE, "out of memory");
	r = control_call(loc->socket, request, fn, arg, ret_answer, &err);
	json_decref(request);
	if (r < 0)
		return cmd_fail_error(EXIT_NOT_DONE, &err);
	if (r != EXIT_DONE)
		(void)cmd_fail_error(EXIT_NOT_DONE, &err);
	return r;
}

/* The paths of one mount among all arguments. */
struct group {
	struct location loc;
	json_t *paths;
};

static void
groups_free(struct group *groups, int count)
{
	int i;

	for (i = 0; i < count; i++) {
		locate_release(&groups[i].loc);
		json_decref(groups[i].paths);
	}
	free(groups);
}

/* Put the path to its mount's others; exit code. */
static int
group_add(struct group *groups, int *count, const char *path)
{
	struct location loc;
	int code = cmd_locate(path, &loc), i;
	json_t *text;

	if (code != EXIT_DONE)
		return code;
	text = control_path_encode(loc.path);
	for (i = 0; i < *count; i++)
		if (strcmp(groups[i].loc.socket, loc.socket) == 0)
			break;
	if (i == *count) {
		groups[i].loc = loc;
		groups[i].paths = json_array();
		++*count;
	} else {
		locate_release(&loc);
	}
	if (text == NULL || json_array_append_new(groups[i].paths, text) < 0)
		return cmd_fail(EXIT_NOT_DONE, "out of memory");
	return EXIT_DONE;
}

static int
group_ask(const struct group *group, const char *verb, const json_t *extra, control_line_fn *fn,
    void *arg)
{
	json_t *request = json_pack("{s:s, s:O}", "verb", verb, "paths", group->paths), *answer = NULL;
	int code;

	if (request != NULL && extra != NULL)
		(void)json_object_update(request, (json_t *)(uintptr_t)extra);
	code = cmd_ask(&group->loc, request, fn, arg, &answer);
	if (answer != NULL && fn != NULL)
		fn(arg, answer);
	json_decref(answer);
	return code;
}

int
cmd_each_mount(const char *verb, char *const *paths, int count, const json_t *extra,
    control_line_fn *fn, void *arg)
{
	struct group *groups = calloc((size_t)count + 1, sizeof(*groups));
	int i, group_count = 0, code = EXIT_DONE, worst = EXIT_DONE;

	if (groups == NULL)
		return cmd_fail(EXIT_NOT_DONE, "out of memory");
	if (count == 0)
		code = group_add(groups, &group_count, NULL);
	for (i = 0; i < count && code == EXIT_DONE; i++)
		code = group_add(groups, &group_count, paths[i]);
	worst = code;
	for (i = 0; i < group_count && code == EXIT_DONE; i++) {
		int one = group_ask(&groups[i], verb, extra, fn, arg);

		if (one > worst)
			worst = one;
	}
	groups_free(groups, group_count);
	return worst;
}
