/* SPDX-License-Identifier: GPL-3.0-or-later */
/* From the configuration to the backends: the only place that knows them all. */
#include "backends/fault.h"
#include "backends/local.h"
#include "backends/s3.h"
#include "cmd/daemon_private.h"

#include <errno.h>
#include <string.h>

static int
make_local(const struct config *cfg, struct backend **ret_b, struct error *err)
{
	struct local_options opt = { .root_path = cfg->local_root_path,
		.link = cfg->local_link != CONFIG_NO };

	return local_backend_new(&opt, ret_b, err);
}

static int
make_s3(const struct config *cfg, struct backend **ret_b, struct error *err)
{
	struct s3_options opt = { .name = config_backend_name(cfg->backend),
		.endpoint = cfg->s3_endpoint, .bucket = cfg->s3_bucket, .region = cfg->s3_region,
		.access_key = cfg->s3_access_key, .secret_key = cfg->s3_secret_key,
		.session_token = cfg->s3_session_token, .prefix = cfg->s3_prefix,
		.path_style = cfg->s3_path_style, .allow_plaintext = cfg->s3_allow_plaintext,
		.create_bucket = cfg->create_bucket, .ca_file = cfg->s3_ca_file,
		.timeout = (unsigned)(cfg->s3_timeout / 1000000000), .retries = cfg->s3_retries,
		.part_workers = cfg->s3_part_workers };

	return s3_backend_new(&opt, ret_b, err);
}

static int
add(struct daemon *d, const char *name, struct backend *b)
{
	int r = stores_add(&d->stores, name, b);

	if (r < 0)
		backend_free(b);
	return r;
}

int
daemon_make_stores(struct daemon *d, struct error *err)
{
	const struct config *cfg = d->cfg;
	struct backend *b, *wrapped;
	int r;

	r = cfg->backend == CONFIG_BACKEND_LOCAL ? make_local(cfg, &b, err) : make_s3(cfg, &b, err);
	if (r == 0 && cfg->fault != NULL) {
		r = fault_backend_new(b, cfg->fault, &wrapped, err);
		if (r < 0)
			backend_free(b);
		else
			b = wrapped;
	}
	if (r == 0)
		r = add(d, config_backend_name(cfg->backend), b);
	/* Objects of former days are read where they are. */
	if (r == 0 && cfg->backend != CONFIG_BACKEND_LOCAL &&
	    index_has_objects(d->index, "local") > 0) {
		r = make_local(cfg, &b, err);
		if (r == 0)
			r = add(d, "local", b);
	}
	return r;
}
