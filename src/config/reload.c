/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * SIGHUP: read every source again into a second configuration, and when that
 * one is whole and valid, take over what the table marks OPTION_RELOAD.  Those
 * fields are aligned scalars, written by one store, so that running threads
 * see the old value or the new one; strings never change under them.
 */
#include "base/cleanup.h"
#include "config/table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool
same_text(const char *a, const char *b)
{
	return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static void
take_over(const struct config_option *opt, struct config *cfg, const struct config *next)
{
	char *to = (char *)cfg + opt->offset;
	const char *from = (const char *)next + opt->offset;

	if (opt->type == TYPE_SIZE || opt->type == TYPE_DURATION)
		__atomic_store_n((uint64_t *)(void *)to, *(const uint64_t *)(const void *)from,
		    __ATOMIC_RELAXED);
	else
		__atomic_store_n((unsigned *)(void *)to, *(const unsigned *)(const void *)from,
		    __ATOMIC_RELAXED);
}

static void
swap_origin(struct config_origin *a, struct config_origin *b)
{
	struct config_origin t = *a;

	*a = *b;
	*b = t;
}

static int
read_again(const struct config *cfg, struct config *next, struct error *err)
{
	int r = 0;

	next->config_dir = cfg->config_dir;
	if (cfg->env_loaded)
		r = config_load_env(next, err);
	if (r == 0 && cfg->config_file != NULL)
		r = config_load_file(next, cfg->config_file, err);
	if (r == 0 && cfg->option_text != NULL)
		r = config_parse_mount_options(next, cfg->option_text, cfg->option_sloppy, err);
	if (r == 0)
		r = config_finish(next, cfg->mountpoint, err);
	return r;
}

int
config_reload(struct config *cfg, char **ret_note, struct error *err)
{
	CLEANUP_STRBUF struct strbuf taken = STRBUF_INIT, later = STRBUF_INIT;
	struct config next;
	char *note = NULL;
	size_t i;
	int r;

	config_init(&next);
	r = read_again(cfg, &next, err);
	for (i = 0; r == 0 && i < config_option_count; i++) {
		const struct config_option *opt = &config_options[i];
		struct strbuf *list = opt->flags & OPTION_RELOAD ? &taken : &later;

		if (same_text(cfg->origin[i].text, next.origin[i].text))
			continue;
		strbuf_addf(list, " %s", opt->key);
		if (opt->flags & OPTION_RELOAD) {
			take_over(opt, cfg, &next);
			swap_origin(&cfg->origin[i], &next.origin[i]);
		}
	}
	config_release(&next);
	if (r < 0)
		return r;
	if ((taken.len > 0 || later.len > 0) && asprintf(&note, "%s%s%s%s%s",
	    taken.len > 0 ? "taken over:" : "", taken.len > 0 ? taken.data : "",
	    taken.len > 0 && later.len > 0 ? "; " : "",
	    later.len > 0 ? "needs a new mount:" : "", later.len > 0 ? later.data : "") < 0)
		return error_set(err, -ENOMEM, "out of memory");
	*ret_note = note;
	return 0;
}
