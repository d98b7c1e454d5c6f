/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The values of one mount's options and where each came from.
 *
 * Invariants:
 *  1. A value replaces another only from the same or a higher source, so the
 *     order in which file, environment and options are read does not matter.
 *  2. Every value is checked against the table, also one that loses to a
 *     higher source: a mistake is told when it is made, not when it is bared.
 *  3. No message holds the value of a secret.
 *
 * What depends on the backend (the service's environment names, MinIO's
 * defaults) waits for config_finish(), when the backend can't change any more.
 */
#include "config.h"

#include "base/cleanup.h"
#include "config/table.h"

#include <errno.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct config_origin *
origin_of(struct config *cfg, const struct config_option *opt)
{
	return &cfg->origin[opt - config_options];
}

/* Replace a string by a copy of another; NULL is allowed. */
static int
replace_string(char **field, const char *text)
{
	char *copy = NULL;

	if (text != NULL) {
		copy = strdup(text);
		if (copy == NULL)
			return -ENOMEM;
	}
	free(*field);
	*field = copy;
	return 0;
}

static int
set_parsed(struct config *cfg, const struct config_option *opt, const char *value,
    enum config_source source, const char *where)
{
	struct config_origin *origin = origin_of(cfg, opt);
	struct config trial;
	int r;

	if (source < origin->source) {		/* checked only */
		memset(&trial, 0, sizeof(trial));
		r = config_value_parse(opt, value, &trial);
		if (opt->type == TYPE_STRING || opt->type == TYPE_PATH)
			config_value_unset(opt, &trial);
		return r;
	}
	r = config_value_parse(opt, value, cfg);
	if (r < 0)
		return r;
	origin->source = source;
	r = replace_string(&origin->where, where);
	if (r < 0)
		return r;
	return replace_string(&origin->text, value[0] == '\0' ? NULL : value);
}

static int
complain(const struct config_option *opt, const char *value, const char *where, struct error *err)
{
	CLEANUP_STRBUF struct strbuf allowed = STRBUF_INIT;

	config_value_allowed(opt, &allowed);
	if (!strbuf_ok(&allowed))
		return error_set(err, -ENOMEM, "out of memory");
	if (opt->flags & OPTION_SECRET)
		return error_set(err, -EINVAL, "%s: bad value of %s; allowed: %s", where, opt->key,
		    allowed.data);
	return error_set(err, -EINVAL, "%s: bad value '%.80s' of %s; allowed: %s", where, value,
	    opt->key, allowed.data);
}

int
config_set(struct config *cfg, const char *key, const char *value, enum config_source source,
    const char *where, struct error *err)
{
	const struct config_option *opt = config_option_find(key);
	const char *closest;
	int r;

	if (opt == NULL) {
		closest = config_option_closest(key);
		if (closest != NULL)
			return error_set(err, -EINVAL, "%s: unknown key '%.80s'; did you mean %s?", where,
			    key, closest);
		return error_set(err, -EINVAL,
		    "%s: unknown key '%.80s'; `tbfs config` lists the keys there are", where, key);
	}
	r = set_parsed(cfg, opt, value, source, where);
	if (r == -EINVAL)
		return complain(opt, value, where, err);
	if (r < 0)
		return error_set(err, r, "%s: %s: %s", where, key, strerror(-r));
	return 0;
}

/* A default never fails but for want of memory or of the user `nobody`: then it stays unset. */
static void
set_default(struct config *cfg, const struct config_option *opt, const char *text)
{
	if (set_parsed(cfg, opt, text, CONFIG_DEFAULT, NULL) < 0)
		config_value_unset(opt, cfg);
}

void
config_init(struct config *cfg)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	char number[24];
	size_t i;

	memset(cfg, 0, sizeof(*cfg));
	cfg->config_dir = "/etc/tbfs";
	for (i = 0; i < config_option_count; i++) {
		const struct config_option *opt = &config_options[i];

		if (opt->def != NULL)
			set_default(cfg, opt, opt->def);
		else
			config_value_unset(opt, cfg);
	}
	(void)snprintf(number, sizeof(number), "%ld", cpus < 1 ? 1 : cpus > 256 ? 256 : cpus);
	set_default(cfg, config_option_find("processor_workers"), number);
	set_default(cfg, config_option_find("allow_other"), geteuid() == 0 ? "yes" : "no");
}

void
config_release(struct config *cfg)
{
	size_t i;

	for (i = 0; i < config_option_count; i++) {
		const struct config_option *opt = &config_options[i];
		struct config_origin *origin = origin_of(cfg, opt);

		if (opt->flags & OPTION_SECRET) {
			char **field = (char **)(void *)((char *)cfg + opt->offset);

			if (*field != NULL)
				explicit_bzero(*field, strlen(*field));
			if (origin->text != NULL)
				explicit_bzero(origin->text, strlen(origin->text));
		}
		if (opt->type == TYPE_STRING || opt->type == TYPE_PATH)
			config_value_unset(opt, cfg);
		free(origin->where);
		free(origin->text);
	}
	free(cfg->mountpoint);
	free(cfg->name);
	free(cfg->config_file);
	free(cfg->mount_options);
	free(cfg->fsname);
	if (cfg->option_text != NULL)
		explicit_bzero(cfg->option_text, strlen(cfg->option_text));
	free(cfg->option_text);
	memset(cfg, 0, sizeof(*cfg));
}

const char *
config_backend_name(enum config_backend backend)
{
	static const char *const names[] = { "local", "s3", "minio" };

	return names[backend];
}

char *
config_control_path(const struct config *cfg)
{
	char *path;

	return asprintf(&path, "%s/control.sock", cfg->state_dir) < 0 ? NULL : path;
}

/* <name>.conf, unless a file was named. */
static int
load_default_file(struct config *cfg, struct error *err)
{
	CLEANUP_FREE char *path = NULL;
	struct error trial = {0};
	int r;

	if (cfg->config_file != NULL)
		return 0;
	if (asprintf(&path, "%s/%s.conf", cfg->config_dir, cfg->name) < 0)
		return error_set(err, -ENOMEM, "out of memory");
	r = config_load_file(cfg, path, &trial);
	if (r == -ENOENT || r == -ENAMETOOLONG)
		return 0;
	if (r < 0 && err != NULL)
		*err = trial;
	return r;
}

/* /var/lib/tbfs/<name>, for users $XDG_STATE_HOME/tbfs/<name>. */
static int
derive_state_dir(struct config *cfg, struct error *err)
{
	CLEANUP_FREE char *dir = NULL;
	const char *xdg = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
	const struct passwd *pw;
	int n;

	if (geteuid() == 0) {
		n = asprintf(&dir, "/var/lib/tbfs/%s", cfg->name);
	} else if (xdg != NULL && xdg[0] == '/') {
		n = asprintf(&dir, "%s/tbfs/%s", xdg, cfg->name);
	} else {
		if (home == NULL || home[0] != '/') {
			pw = getpwuid(geteuid());
			home = pw != NULL ? pw->pw_dir : NULL;
		}
		if (home == NULL)
			return error_set(err, -EINVAL, "no home directory for the state: set state_dir");
		n = asprintf(&dir, "%s/.local/state/tbfs/%s", home, cfg->name);
	}
	if (n < 0) {
		dir = NULL;
		return error_set(err, -ENOMEM, "out of memory");
	}
	if (strlen(cfg->name) > 255)
		return error_set(err, -EINVAL,
		    "the mountpoint's name is too long to name a directory: set state_dir");
	set_default(cfg, config_option_find("state_dir"), dir);
	return cfg->state_dir == NULL ? error_set(err, -ENOMEM, "out of memory") : 0;
}

bool
config_is_set(const struct config *cfg, const char *key)
{
	return cfg->origin[config_option_find(key) - config_options].source != CONFIG_DEFAULT;
}

/* Defaults that follow from other values. */
static int
derive(struct config *cfg, struct error *err)
{
	CLEANUP_FREE char *objects = NULL;
	const struct passwd *pw;
	size_t i;
	int r;

	if (cfg->backend == CONFIG_BACKEND_MINIO)
		for (i = 0; i < config_option_count; i++)
			if (config_options[i].def_minio != NULL)
				set_default(cfg, &config_options[i], config_options[i].def_minio);
	if (cfg->state_dir == NULL) {
		r = derive_state_dir(cfg, err);
		if (r < 0)
			return r;
	}
	if (cfg->local_root_path == NULL) {
		if (asprintf(&objects, "%s/objects", cfg->state_dir) < 0) {
			objects = NULL;
			return error_set(err, -ENOMEM, "out of memory");
		}
		set_default(cfg, config_option_find("local.root_path"), objects);
	}
	cfg->extract_gid = cfg->extract_uid;
	pw = getpwuid(cfg->extract_uid);
	if (pw != NULL)
		cfg->extract_gid = pw->pw_gid;
	if (cfg->fsname == NULL && replace_string(&cfg->fsname, "tbfs") < 0)
		return error_set(err, -ENOMEM, "out of memory");
	if (cfg->mount_options == NULL && replace_string(&cfg->mount_options, "") < 0)
		return error_set(err, -ENOMEM, "out of memory");
	return 0;
}

/* Is `path` the directory `dir` or below it?  Both absolute, compared as text. */
static bool
is_below(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	while (n > 1 && dir[n - 1] == '/')
		n--;
	if (n == 1)
		return true;
	return strncmp(path, dir, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

static int
check_places(const struct config *cfg, struct error *err)
{
	const char *m = cfg->mountpoint;

	if (is_below(cfg->state_dir, m))
		return error_set(err, -EINVAL, "state_dir %s lies in the mountpoint %s: it needs another place",
		    cfg->state_dir, m);
	if (is_below(m, cfg->state_dir))
		return error_set(err, -EINVAL, "the mountpoint %s lies in state_dir %s", m, cfg->state_dir);
	if (cfg->backend != CONFIG_BACKEND_LOCAL)
		return 0;
	if (is_below(cfg->local_root_path, m) || is_below(m, cfg->local_root_path))
		return error_set(err, -EINVAL,
		    "local.root_path %s and the mountpoint %s lie one in the other", cfg->local_root_path, m);
	return 0;
}

static int
check_s3(const struct config *cfg, struct error *err)
{
	const char *name = config_backend_name(cfg->backend), *e = cfg->s3_endpoint;

	if (cfg->s3_bucket == NULL)
		return error_set(err, -EINVAL, "backend %s needs s3.bucket", name);
	if (cfg->backend == CONFIG_BACKEND_MINIO && e == NULL)
		return error_set(err, -EINVAL, "backend minio needs s3.endpoint");
	if (e != NULL && strncmp(e, "http://", 7) != 0 && strncmp(e, "https://", 8) != 0)
		return error_set(err, -EINVAL,
		    "bad value '%.80s' of s3.endpoint; allowed: http://host[:port] or https://host[:port]", e);
	if (cfg->s3_access_key == NULL || cfg->s3_secret_key == NULL)
		return error_set(err, -EINVAL, "backend %s needs %s: in a private file that secrets_file= "
		    "names, or in %s and %s", name,
		    cfg->s3_access_key != NULL ? "s3.secret_key" :
		    cfg->s3_secret_key != NULL ? "s3.access_key" : "s3.access_key and s3.secret_key",
		    cfg->backend == CONFIG_BACKEND_S3 ? "AWS_ACCESS_KEY_ID" : "MINIO_ACCESS_KEY",
		    cfg->backend == CONFIG_BACKEND_S3 ? "AWS_SECRET_ACCESS_KEY" : "MINIO_SECRET_KEY");
	return 0;
}

static int
check(const struct config *cfg, struct error *err)
{
	int r;

	if (geteuid() == 0 && cfg->extract_uid == CONFIG_UNSET)
		return error_set(err, -EINVAL, "there is no user nobody here: set extract_user");
	if (geteuid() == 0 && cfg->extract_uid == 0)
		return error_set(err, -EINVAL, "extract_user must not be root");
	r = check_places(cfg, err);
	if (r == 0 && cfg->backend != CONFIG_BACKEND_LOCAL)
		r = check_s3(cfg, err);
	return r;
}

int
config_finish(struct config *cfg, const char *mountpoint, struct error *err)
{
	int r;

	if (replace_string(&cfg->mountpoint, mountpoint) < 0)
		return error_set(err, -ENOMEM, "out of memory");
	free(cfg->name);
	cfg->name = config_escape_path(mountpoint);
	if (cfg->name == NULL)
		return error_set(err, -ENOMEM, "out of memory");
	r = load_default_file(cfg, err);
	if (r == 0 && cfg->env_loaded)
		r = config_load_service_env(cfg, err);
	if (r == 0 && cfg->secrets_file != NULL)
		r = config_load_secrets(cfg, cfg->secrets_file, err);
	if (r == 0)
		r = derive(cfg, err);
	if (r == 0)
		r = check(cfg, err);
	return r;
}
