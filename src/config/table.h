/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_CONFIG_TABLE_H
#define TBFS_CONFIG_TABLE_H

/* The option table and the values in it.  Private to config.c and config/. */
#include "base/strbuf.h"
#include "config.h"

enum config_type {
	TYPE_STRING,		/* char * */
	TYPE_PATH,		/* char *, absolute */
	TYPE_BOOL,		/* bool */
	TYPE_INT,		/* unsigned; min, max */
	TYPE_SIZE,		/* uint64_t; min, max */
	TYPE_DURATION,		/* int64_t ns; min, max in ns */
	TYPE_ENUM,		/* an enum; words in its order */
	TYPE_MODE,		/* uint32_t, 0..07777 */
	TYPE_USER,		/* uint32_t uid, by name or number */
	TYPE_GROUP,		/* uint32_t gid, by name or number */
};

enum config_flag {
	OPTION_SECRET = 1 << 0,	/* never shown; its file must be private */
	OPTION_RELOAD = 1 << 1,	/* taken over by config_reload(): scalars only */
	OPTION_HIDDEN = 1 << 2,	/* in no help text */
	OPTION_PRIVATE = 1 << 3,	/* its file must be private, though the value may be shown */
};

struct config_option {
	const char *key;
	enum config_type type;
	size_t offset;		/* of the field in struct config */
	const char *def;	/* text; NULL: unset, or see config_finish() */
	const char *def_minio;	/* where backend = minio has another one */
	const char *shown;	/* default as the manual gives it where `def` can't */
	int64_t min, max;
	const char *const *words;	/* NULL-terminated */
	const char *env;	/* the service's name for any backend */
	const char *env_s3, *env_minio;	/* … for this one only */
	unsigned flags;		/* enum config_flag */
	const char *help;	/* one sentence */
};

extern const struct config_option config_options[];
extern const size_t config_option_count;

/* NULL when there is no such key. */
const struct config_option *config_option_find(const char *key);
/* The key that an unknown one was probably meant to be; NULL when none is close. */
const char *config_option_closest(const char *key);

/* Parse text into the option's field of cfg.  -EINVAL: not allowed, nothing changed; -ENOMEM. */
int config_value_parse(const struct config_option *opt, const char *text, struct config *cfg);
/* What is allowed, to follow "allowed: ". */
void config_value_allowed(const struct config_option *opt, struct strbuf *ret_text);
/* Set the field to what "unset" means for its type. */
void config_value_unset(const struct config_option *opt, struct config *cfg);

/* TBFS_S3_ENDPOINT of s3.endpoint. */
void config_env_name(const char *key, char *ret_name, size_t room);
/* The service's names for the backend now configured. */
int config_load_service_env(struct config *cfg, struct error *err);
/* As config_load_file(), for `secrets_file`: only what is secret may stand in it. */
int config_load_secrets(struct config *cfg, const char *path, struct error *err);

#endif
