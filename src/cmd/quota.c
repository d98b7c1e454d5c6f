/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * tbfs quota: how much may be at and below a directory.  The daemon's verbs "quota_set" with
 * paths, bytes and files, and "quota_show" with paths (serve_quota.c).
 */
#include "cmd/cmd.h"

#include <getopt.h>
#include <string.h>

/* "none" takes a limit away, which the daemon knows as 0. */
static bool
parse_limit(const char *option, const char *text, json_t *extra, const char *name)
{
	int64_t value = 0;

	if (strcmp(text, "none") != 0 && (config_parse_size(text, &value) < 0 || value == 0)) {
		(void)cmd_fail(EXIT_USAGE, "bad value '%.40s' of %s; allowed: a number from 1 on, with K, M, G "
		    "or T, or none", text, option);
		return false;
	}
	(void)json_object_set_new(extra, name, json_integer(value));
	return true;
}

static int
quota_set(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "bytes", required_argument, NULL, 'b' }, { "files", required_argument, NULL, 'f' },
		{ "help", no_argument, NULL, 'h' }, { 0 },
	};
	json_t *extra = json_object();
	int c, code = EXIT_DONE;

	while (code == EXIT_DONE && (c = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
		if (c == 'h') {
			json_decref(extra);
			return cmd_help("quota");
		}
		if (c == 'b')
			code = parse_limit("--bytes", optarg, extra, "bytes") ? EXIT_DONE : EXIT_USAGE;
		else if (c == 'f')
			code = parse_limit("--files", optarg, extra, "files") ? EXIT_DONE : EXIT_USAGE;
		else
			code = cmd_usage("quota");
	}
	if (code == EXIT_DONE && (json_object_size(extra) == 0 || optind == argc))
		code = cmd_usage("quota");
	if (code == EXIT_DONE)
		code = cmd_each_mount("quota_set", argv + optind, argc - optind, extra, NULL, NULL);
	json_decref(extra);
	return code;
}

/* "1.5 GiB of 2.0 GiB", "3 of 10", "3". */
static void
show_amount(const json_t *amount, bool bytes)
{
	json_int_t used = json_integer_value(json_object_get(amount, "used"));
	json_int_t limit = json_integer_value(json_object_get(amount, "limit"));

	if (bytes)
		(void)printf("%s%s%s", show_size(used), limit > 0 ? " of " : "",
		    limit > 0 ? show_size(limit) : "");
	else
		(void)printf("%lld%s", (long long)used, limit > 0 ? " of " : "");
	if (!bytes && limit > 0)
		(void)printf("%lld", (long long)limit);
}

struct shown {
	bool json;
	size_t count;
};

static void
on_line(void *arg, const json_t *line)
{
	struct shown *s = arg;
	const json_t *quota;
	size_t i;

	json_array_foreach(json_object_get(line, "quotas"), i, quota) {
		const char *path = json_string_value(json_object_get(quota, "path"));

		s->count++;
		if (s->json) {
			(void)json_dumpf(quota, stdout, JSON_COMPACT);
			(void)fputc('\n', stdout);
			continue;
		}
		(void)fputc('/', stdout);
		show_text(stdout, path != NULL ? path : "");
		(void)fputs("  ", stdout);
		show_amount(json_object_get(quota, "bytes"), true);
		(void)fputs(", ", stdout);
		show_amount(json_object_get(quota, "files"), false);
		(void)fputs(" files\n", stdout);
	}
}

static int
quota_show(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "json", no_argument, NULL, 'j' }, { "help", no_argument, NULL, 'h' }, { 0 },
	};
	struct shown s = { 0 };
	int c, code;

	while ((c = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
		if (c != 'j')
			return c == 'h' ? cmd_help("quota") : cmd_usage("quota");
		s.json = true;
	}
	code = cmd_each_mount("quota_show", argv + optind, argc - optind, NULL, on_line, &s);
	if (code == EXIT_DONE && s.count == 0 && !s.json)
		(void)puts("no quota");
	return code;
}

int
cmd_quota(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (strcmp(what, "set") == 0)
		return quota_set(argc - 1, argv + 1);
	if (strcmp(what, "show") == 0)
		return quota_show(argc - 1, argv + 1);
	return strcmp(what, "--help") == 0 || strcmp(what, "-h") == 0 ? cmd_help("quota") :
	    cmd_usage("quota");
}
