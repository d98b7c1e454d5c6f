/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_CONFIG_H
#define TBFS_CONFIG_H

/*
 * The configuration of one mount.  One table (config/table.c) names every key,
 * its type, range, default and help; the parser, the environment, `-o`, `tbfs
 * config`, the help texts and tbfs.conf(5) all come from it.  Whoever runs
 * reads typed fields only: no key is looked up by name at run time.
 *
 *	struct config cfg;
 *	config_init(&cfg);
 *	config_load_env(&cfg, &err);
 *	config_load_file(&cfg, path, &err);
 *	config_parse_mount_options(&cfg, "ro,s3.bucket=x", "-o", false, &err);
 *	config_finish(&cfg, "/srv/media", &err);
 *	…
 *	config_release(&cfg);
 *
 * The order of the calls does not matter: a value never replaces one from a
 * higher source (enum config_source), and of two from one source the later
 * wins.  Every value is checked, also one that loses.
 *
 * Not thread-safe.  After config_finish() everything is constant but for the
 * fields marked (reload), which config_reload() may change; those are aligned
 * scalars that threads may read at any time.
 */
#include "base/error.h"
#include "base/log.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

enum config_source {
	CONFIG_DEFAULT,
	CONFIG_FILE,		/* configuration or secrets file */
	CONFIG_SERVICE,		/* environment: the service's own names (AWS_*, MINIO_*, …) */
	CONFIG_ENV,		/* environment: TBFS_* */
	CONFIG_OPTION,		/* -o and the command line */
};

enum config_backend { CONFIG_BACKEND_LOCAL, CONFIG_BACKEND_S3, CONFIG_BACKEND_MINIO };
enum config_auto { CONFIG_AUTO, CONFIG_YES, CONFIG_NO };
enum config_derived { CONFIG_DERIVED_ON, CONFIG_DERIVED_HIDDEN, CONFIG_DERIVED_OFF };

#define CONFIG_UNSET UINT32_MAX	/* of uid, gid, mode and control_group */

enum { CONFIG_MAX_OPTIONS = 64 };

/* Where the value of one option came from. */
struct config_origin {
	enum config_source source;
	char *where;		/* "/etc/tbfs/x.conf:12", "-o", "TBFS_BACKEND"; NULL for defaults */
	char *text;		/* the value as given; NULL: unset */
};

/* Strings are NULL where unset.  Durations are ns, sizes are bytes. */
struct config {
	char *state_dir;		/* absolute; set by config_finish() at the latest */
	enum config_backend backend;

	char *local_root_path;		/* absolute; set by config_finish() at the latest */
	enum config_auto local_link;

	/* The keys s3.*: of backend s3 and of backend minio. */
	char *s3_endpoint, *s3_bucket, *s3_region;
	char *s3_access_key, *s3_secret_key, *s3_session_token;
	char *s3_prefix;
	bool s3_path_style, s3_allow_plaintext;
	char *s3_ca_file;
	int64_t s3_timeout;
	unsigned s3_retries, s3_part_workers;
	bool create_bucket;

	bool allow_other;		/* default: yes for root, no for users */
	uint32_t uid, gid, mode;	/* of the root directory; CONFIG_UNSET: the mountpoint's */

	int64_t quiet_period;		/* (reload) */
	int64_t temp_name_delay;	/* (reload) */
	unsigned upload_workers, processor_workers;
	uint32_t extract_uid, extract_gid;	/* of extract_user; gid is that user's own */
	enum config_derived derived;
	enum config_auto passthrough;
	bool inotify;
	int64_t sweep_interval;		/* 0: no sweep */
	/* Bounds of one derivation: see struct extract_limits. */
	uint64_t limit_still_pixels, limit_animation_pixels, limit_video_pixels;
	uint64_t limit_exif_size, limit_text_size, limit_memory;
	int64_t limit_duration, limit_deadline;
	unsigned limit_streams;
	uint64_t upload_max_size;	/* (reload) 0: no limit */
	uint64_t reserve;
	int64_t alert_age;		/* (reload) */
	uint32_t control_group;		/* CONFIG_UNSET: none */
	char *log_file;			/* NULL: stderr */
	enum log_level log_level;	/* (reload) */
	int64_t snapshot_interval;	/* (reload) 0: no snapshots */
	int64_t drain_timeout;		/* (reload) */
	char *secrets_file;
	char *fault;			/* tests only: the spec of backends/fault.h */

	/* Not keys. */
	char *mountpoint;		/* as given to config_finish() */
	char *name;			/* the mountpoint escaped as `systemd-escape --path` does */
	char *config_file;		/* the last file loaded; NULL: none */
	char *mount_options;		/* comma-separated, for the mount call: "ro,nosuid"; never NULL after finish */
	bool noatime, nodiratime;	/* reading moves no atime; that of directories */
	bool remount;			/* so is remount: they are for what is mounted */
	char *fsname;			/* source that /proc/mounts shows; "tbfs" */
	const char *config_dir;		/* where <name>.conf is looked for: /etc/tbfs (tests change it) */

	struct config_origin origin[CONFIG_MAX_OPTIONS];	/* by table position */
	char *option_text;		/* every `-o` so far, for config_reload() */
	bool env_loaded, option_sloppy;
};

void config_init(struct config *cfg);	/* all defaults */
void config_release(struct config *cfg);	/* also of a half-built one; afterwards as zeroed */

/* Set one key.  `where` is the place for messages.  -EINVAL: unknown key or bad value, with a
 * sentence naming place, key, value and what is allowed (never a secret's value). */
int config_set(struct config *cfg, const char *key, const char *value, enum config_source source,
    const char *where, struct error *err);

/* An ini file: `key = value`, `[section]` puts "section." before the keys.  -EINVAL as above,
 * -EACCES when it holds secrets that others can read or can be written by others; other
 * -errno when it can't be read. */
int config_load_file(struct config *cfg, const char *path, struct error *err);

/* TBFS_<KEY> now; the service's names in config_finish(), when the backend is known. */
int config_load_env(struct config *cfg, struct error *err);

/* `key=value,key,…`; a comma in a value is written `\,`, a backslash before one `\\`.  Options
 * that mount(8) passes are kept for the mount call or ignored; others are keys.  `sloppy`
 * (mount -s) ignores what it does not know. */
int config_parse_mount_options(struct config *cfg, const char *text, bool sloppy,
    struct error *err);

/* Overwrite the values of secret keys in an option string in place: argv is public. */
void config_scrub_options(char *text);

/* Everything that follows from the rest: the file <config_dir>/<name>.conf (unless one was
 * loaded), the secrets file, the service's environment names, the backend's defaults, state_dir;
 * then the checks that need more than one key.  `mountpoint` is absolute, without symlinks. */
int config_finish(struct config *cfg, const char *mountpoint, struct error *err);

/* Read all sources again and take over what may change while mounted.  On failure nothing has
 * changed.  *ret_note is malloc'd: one line naming what was taken over and what needs a new mount;
 * NULL when nothing differs. */
int config_reload(struct config *cfg, char **ret_note, struct error *err);

/* Was the key set by anybody, or has it its default? */
bool config_is_set(const struct config *cfg, const char *key);

/* "90", "500ms", "10m", "1h", "7d" as ns; -EINVAL. */
int config_parse_duration(const char *text, int64_t *ret_ns);
/* "4096", "10M", "2G" as bytes; -EINVAL. */
int config_parse_size(const char *text, int64_t *ret_bytes);

/* As `systemd-escape --path`: malloc'd, NULL without memory. */
char *config_escape_path(const char *path);

/* The socket that `tbfs status` and the others talk to: malloc'd. */
char *config_control_path(const struct config *cfg);

/* One `key = value` line each, with its origin as comment; secrets as "(set)". */
void config_print(const struct config *cfg, FILE *out);
/* One line a key with its default, for --help. */
void config_print_help(FILE *out);
/* The section OPTIONS of tbfs.conf(5), in mdoc.  A unit test holds the manual to it. */
void config_print_man(FILE *out);

const char *config_backend_name(enum config_backend backend);

#endif
