/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * From the configuration to the backends: the only place that knows them all.
 *
 * New objects go to the backend that is configured; those of former days are read, and removed,
 * where they are.  For that the index remembers each backend's address, never its secrets: those
 * come from the configuration where that is about the same backend or has no other use for them,
 * else from the service's own variables.  An address that changed must show what was stored.
 */
#include "backends/fault.h"
#include "backends/local.h"
#include "backends/s3.h"
#include "cmd/daemon_private.h"

#include "base/cleanup.h"
#include "base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What of the configuration says where the objects are. */
struct address {
	const char *root, *endpoint, *bucket, *region, *prefix;
	bool path_style;
};

static json_t *
text_or_null(const char *text)
{
	return text != NULL ? json_string(text) : json_null();
}

static char *
address_to_text(const struct address *a)
{
	json_t *o = json_pack("{s:o, s:o, s:o, s:o, s:o, s:b}", "root", text_or_null(a->root), "endpoint",
	    text_or_null(a->endpoint), "bucket", text_or_null(a->bucket), "region", text_or_null(a->region),
	    "prefix", text_or_null(a->prefix), "path_style", a->path_style);
	char *text = o == NULL ? NULL : json_dumps(o, JSON_COMPACT | JSON_SORT_KEYS);

	json_decref(o);
	return text;
}

/* *ret points into o. */
static void
address_from_json(const json_t *o, struct address *ret)
{
	*ret = (struct address){
		.root = json_string_value(json_object_get(o, "root")),
		.endpoint = json_string_value(json_object_get(o, "endpoint")),
		.bucket = json_string_value(json_object_get(o, "bucket")),
		.region = json_string_value(json_object_get(o, "region")),
		.prefix = json_string_value(json_object_get(o, "prefix")),
		.path_style = json_is_true(json_object_get(o, "path_style")) };
}

static struct address
configured(const struct config *cfg)
{
	if (cfg->backend == CONFIG_BACKEND_LOCAL)
		return (struct address){ .root = cfg->local_root_path };
	return (struct address){ .endpoint = cfg->s3_endpoint, .bucket = cfg->s3_bucket,
		.region = cfg->s3_region, .prefix = cfg->s3_prefix, .path_style = cfg->s3_path_style };
}

static bool
same(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

/* A server may have another name by now. */
static bool
is_where_it_was(struct index *ix, const char *name, const struct address *now)
{
	CLEANUP_FREE char *text = NULL;
	struct address was;
	json_t *o;
	bool r;

	/* Older indexes don't know. */
	if (index_backend_address(ix, name, &text) < 0)
		return true;
	o = json_loads(text, 0, NULL);
	address_from_json(o, &was);
	r = same(now->root, was.root) && same(now->bucket, was.bucket) && same(now->prefix, was.prefix);
	json_decref(o);
	return r;
}

static int
make_local(struct daemon *d, const struct address *a, struct backend **ret_b, struct error *err)
{
	struct local_options opt = { .root_path = a->root, .link = d->cfg->local_link != CONFIG_NO };
	struct object ends[2];
	int r;

	r = index_object_ends(d->index, "local", ends);
	if (r < 0)
		return error_set(err, r, "the index can't be read: %s", strerror(-r));
	opt.used = r > 0 && is_where_it_was(d->index, "local", a);

	return local_backend_new(&opt, ret_b, err);
}

struct keys {
	const char *access, *secret, *token;
};

static int
make_s3(struct daemon *d, const char *name, const struct address *a, const struct keys *k,
    struct backend **ret_b, struct error *err)
{
	const struct config *cfg = d->cfg;
	struct s3_options opt = { .name = name, .endpoint = a->endpoint, .bucket = a->bucket,
		.region = a->region, .access_key = k->access, .secret_key = k->secret,
		.session_token = k->token, .prefix = a->prefix, .path_style = a->path_style,
		.allow_plaintext = cfg->s3_allow_plaintext, .create_bucket = cfg->create_bucket,
		.ca_file = cfg->s3_ca_file, .timeout = (unsigned)(cfg->s3_timeout / 1000000000),
		.retries = cfg->s3_retries, .part_workers = cfg->s3_part_workers };

	return s3_backend_new(&opt, ret_b, err);
}

static int
make(struct daemon *d, const char *name, const struct address *a, const struct keys *k,
    struct backend **ret_b, struct error *err)
{
	return strcmp(name, "local") == 0 ? make_local(d, a, ret_b, err) :
	    make_s3(d, name, a, k, ret_b, err);
}

static int
add(struct daemon *d, const char *name, struct backend *b)
{
	int r = stores_add(&d->stores, name, b);

	if (r < 0)
		backend_free(b);
	return r;
}

/* ---- the one that is configured ---- */

static int
make_current(struct daemon *d, struct error *err)
{
	const struct config *cfg = d->cfg;
	struct address a = configured(cfg);
	struct keys k = { cfg->s3_access_key, cfg->s3_secret_key, cfg->s3_session_token };
	struct backend *b, *wrapped;
	int r = make(d, config_backend_name(cfg->backend), &a, &k, &b, err);

	if (r == 0 && cfg->fault != NULL) {
		r = fault_backend_new(b, cfg->fault, &wrapped, err);
		if (r < 0)
			backend_free(b);
		else
			b = wrapped;
	}
	return r < 0 ? r : add(d, config_backend_name(cfg->backend), b);
}

bool
daemon_has_old_address(struct daemon *d)
{
	struct address now = configured(d->cfg);

	return is_where_it_was(d->index, d->stores.store[0].name, &now);
}

/* What was stored first and last is there. */
static int
has_objects(struct daemon *d, const struct store *st, struct error *err)
{
	struct object o[2];
	int r = index_object_ends(d->index, st->name, o), i;

	for (i = 0; i < r; i++) {
		int s = backend_stat(st->backend, o[i].key, NULL, err);

		if (s < 0)
			return s;
	}
	return r < 0 ? r : 0;
}

static int
keep_first(void *arg, const char *key, uint64_t size, int64_t mtime_ns)
{
	char **ret_key = arg;

	(void)size, (void)mtime_ns;
	*ret_key = strdup(key);
	return 1;
}

/* A store that is used for the first time, by this index: whose are the objects in it? */
static void
warn_of_strangers(const struct store *st)
{
	CLEANUP_FREE char *key = NULL;
	struct error err = { 0 };

	if (backend_list(st->backend, "", keep_first, &key, &err) == 1)
		log_warn("store %s already holds objects that are not known here (%.200s): what is stored under the "
		    "same names replaces them. Were they stored from another state directory, mount with that one",
		    st->name, key != NULL ? key : "?");
}

int
daemon_check_address(struct daemon *d, struct error *err)
{
	const struct store *current = &d->stores.store[0];
	struct address a = configured(d->cfg);
	CLEANUP_FREE char *now = address_to_text(&a);
	CLEANUP_FREE char *was = NULL;
	struct error why = { 0 };
	int r;

	if (now == NULL)
		return -ENOMEM;
	if (index_backend_address(d->index, current->name, &was) == 0) {
		if (strcmp(was, now) == 0)
			return 0;
		r = has_objects(d, current, &why);
		if (r < 0)
			return error_set(err, r, "backend %s is not where it was when it was used last, %.300s, and %s "
			    "does not have what was stored there (%.200s): set it back, or bring the objects to the "
			    "new place first", current->name, was, now, error_text(&why));
	} else if (!index_backend_used(d->index, current->name)) {
		warn_of_strangers(current);
	}
	return index_mark_backend_used(d->index, current->name, now);
}

/* ---- those of former days ---- */

/* Where the configuration is about this backend, or about none like it, its keys are taken. */
static struct keys
former_keys(const struct config *cfg, const char *name)
{
	bool minio = strcmp(name, "minio") == 0;
	struct keys k = { getenv(minio ? "MINIO_ACCESS_KEY" : "AWS_ACCESS_KEY_ID"),
		getenv(minio ? "MINIO_SECRET_KEY" : "AWS_SECRET_ACCESS_KEY"),
		minio ? NULL : getenv("AWS_SESSION_TOKEN") };

	if (cfg->backend == CONFIG_BACKEND_LOCAL && cfg->s3_access_key != NULL)
		k = (struct keys){ cfg->s3_access_key, cfg->s3_secret_key, cfg->s3_session_token };
	return k;
}

static int
make_former(struct daemon *d, const char *name)
{
	CLEANUP_FREE char *text = NULL;
	struct keys k = former_keys(d->cfg, name);
	struct error err = { 0 };
	struct address a = { 0 };
	struct backend *b;
	json_t *o = NULL;
	int r = index_backend_address(d->index, name, &text);

	if (r == 0)
		o = json_loads(text, 0, NULL);
	address_from_json(o, &a);
	/* Indexes from before addresses were remembered; and a directory may have moved. */
	if (strcmp(name, "local") == 0 && (a.root == NULL || config_is_set(d->cfg, "local.root_path")))
		a.root = d->cfg->local_root_path;
	if (strcmp(name, "local") != 0 && (k.access == NULL || k.secret == NULL || a.bucket == NULL))
		r = error_set(&err, -EACCES, "its address or its keys are not known: set %s and %s in the "
		    "environment", strcmp(name, "minio") == 0 ? "MINIO_ACCESS_KEY" : "AWS_ACCESS_KEY_ID",
		    strcmp(name, "minio") == 0 ? "MINIO_SECRET_KEY" : "AWS_SECRET_ACCESS_KEY");
	else
		r = make(d, name, &a, &k, &b, &err);
	if (r == 0)
		r = add(d, name, b);
	json_decref(o);
	if (r < 0)
		log_warn("objects of former days are in store %s%s%s, and can be neither read nor removed there: "
		    "%s", name, text != NULL ? ", " : "", text != NULL ? text : "", error_text(&err));
	else
		log_info("objects of former days are still in store %s and are read there; `tbfs migrate` "
		    "is to move them", name);
	return 0;
}

int
daemon_make_stores(struct daemon *d, struct error *err)
{
	static const char *const names[] = { "local", "s3", "minio" };
	size_t i;
	int r = make_current(d, err);

	for (i = 0; i < sizeof(names) / sizeof(names[0]) && r == 0; i++)
		if (strcmp(names[i], config_backend_name(d->cfg->backend)) != 0 &&
		    index_has_objects(d->index, names[i]) > 0)
			r = make_former(d, names[i]);
	return r;
}
