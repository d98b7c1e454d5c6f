/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Every key there is.  To add one: a field in struct config, a line here, and
 * the manual's section anew from `tbfs config --man` (a test compares them).
 */
#include "config/table.h"

#include "base/clock.h"

#include <stddef.h>
#include <string.h>

#define FIELD(name) .offset = offsetof(struct config, name)
#define SECONDS(n) ((int64_t)(n) * NSEC_PER_SEC)
#define MINUTES(n) SECONDS((n) * 60)
#define HOURS(n) MINUTES((n) * 60)
#define DAYS(n) HOURS((n) * 24)

static const char *const backend_words[] = { "local", "s3", "minio", NULL };
static const char *const link_words[] = { "auto", "yes", "no", NULL };
static const char *const switch_words[] = { "auto", "on", "off", NULL };
static const char *const derived_words[] = { "on", "hidden", "off", NULL };
static const char *const level_words[] = { "error", "warn", "info", "debug", NULL };

const struct config_option config_options[] = {
	{ "state_dir", TYPE_PATH, FIELD(state_dir),
	    .shown = "/var/lib/tbfs/<name>; for users $XDG_STATE_HOME/tbfs/<name>",
	    .help = "Directory of the index and the staging cache; one mount at a time." },
	{ "backend", TYPE_ENUM, FIELD(backend), "local", .words = backend_words,
	    .env = "MEDIA_STORAGE_BACKEND",
	    .help = "Where the objects go: a directory, S3, or MinIO." },
	{ "local.root_path", TYPE_PATH, FIELD(local_root_path), .shown = "<state_dir>/objects",
	    .help = "Directory that holds the objects of backend local." },
	{ "local.link", TYPE_ENUM, FIELD(local_link), "auto", .words = link_words,
	    .help = "Let a stored object share its blocks with the staged file where both are on one "
	    "file system." },

	{ "s3.endpoint", TYPE_STRING, FIELD(s3_endpoint), .def_minio = "http://minio:9000",
	    .shown = "https://s3.<region>.amazonaws.com; minio: http://minio:9000",
	    .env_minio = "MINIO_ENDPOINT",
	    .help = "Address of the store: http://host[:port] or https://host[:port]." },
	{ "s3.bucket", TYPE_STRING, FIELD(s3_bucket), .def_minio = "tinybeans-media",
	    .shown = "none; minio: tinybeans-media",
	    .env_s3 = "AWS_STORAGE_BUCKET_NAME", .env_minio = "MINIO_BUCKET_NAME",
	    .help = "The bucket." },
	{ "s3.region", TYPE_STRING, FIELD(s3_region), "us-east-1", .env_s3 = "AWS_DEFAULT_REGION",
	    .help = "The bucket's region." },
	{ "s3.access_key", TYPE_STRING, FIELD(s3_access_key),
	    .env_s3 = "AWS_ACCESS_KEY_ID", .env_minio = "MINIO_ACCESS_KEY",
	    .help = "Access key ID." },
	{ "s3.secret_key", TYPE_STRING, FIELD(s3_secret_key), .flags = OPTION_SECRET,
	    .env_s3 = "AWS_SECRET_ACCESS_KEY", .env_minio = "MINIO_SECRET_KEY",
	    .help = "Secret access key." },
	{ "s3.session_token", TYPE_STRING, FIELD(s3_session_token), .flags = OPTION_SECRET,
	    .env_s3 = "AWS_SESSION_TOKEN",
	    .help = "Session token of temporary credentials." },
	{ "s3.prefix", TYPE_STRING, FIELD(s3_prefix),
	    .help = "Put before every key, to share a bucket." },
	{ "s3.path_style", TYPE_BOOL, FIELD(s3_path_style), "no", .def_minio = "yes",
	    .shown = "no; minio: yes",
	    .help = "Address the bucket as http://host/bucket instead of http://bucket.host." },
	{ "s3.allow_plaintext", TYPE_BOOL, FIELD(s3_allow_plaintext), "no",
	    .help = "Allow http beyond loopback and private addresses." },
	{ "s3.ca_file", TYPE_PATH, FIELD(s3_ca_file),
	    .help = "Certificates (PEM) to trust besides the system's." },
	{ "s3.timeout", TYPE_DURATION, FIELD(s3_timeout), "30s", .min = SECONDS(1), .max = HOURS(1),
	    .help = "A request without progress for so long is given up." },
	{ "s3.retries", TYPE_INT, FIELD(s3_retries), "4", .min = 1, .max = 20,
	    .help = "Further attempts at a request before it counts as failed." },
	{ "s3.part_workers", TYPE_INT, FIELD(s3_part_workers), "4", .min = 1, .max = 64,
	    .help = "Parts of one large upload that are sent at once." },
	{ "create_bucket", TYPE_BOOL, FIELD(create_bucket), "no",
	    .help = "Make the bucket, private, when it does not exist." },

	{ "allow_other", TYPE_BOOL, FIELD(allow_other), .shown = "yes for root, no for users",
	    .help = "Let other users than the mounting one in; permissions are checked either way." },
	{ "uid", TYPE_USER, FIELD(uid), .shown = "the mountpoint's, at the first mount",
	    .help = "Owner that the root directory is given, by name or number." },
	{ "gid", TYPE_GROUP, FIELD(gid), .shown = "the mountpoint's, at the first mount",
	    .help = "Group that the root directory is given, by name or number." },
	{ "mode", TYPE_MODE, FIELD(mode), .shown = "the mountpoint's, at the first mount",
	    .help = "Mode that the root directory is given, octal." },

	{ "quiet_period", TYPE_DURATION, FIELD(quiet_period), "2s", .max = HOURS(1),
	    .flags = OPTION_RELOAD,
	    .help = "A file is uploaded after so long without writer or rename." },
	{ "temp_name_delay", TYPE_DURATION, FIELD(temp_name_delay), "1h", .max = DAYS(30),
	    .flags = OPTION_RELOAD,
	    .help = "A file with a temporary name (.*.??????, tmp*.upload.*, *.part, *.tmp, .~*) waits so "
	    "long, or for its rename." },
	{ "upload_workers", TYPE_INT, FIELD(upload_workers), "16", .min = 1, .max = 256,
	    .help = "Uploads at once." },
	{ "processor_workers", TYPE_INT, FIELD(processor_workers), .shown = "number of CPUs",
	    .min = 1, .max = 256,
	    .help = "Extraction workers at once." },
	{ "extract_user", TYPE_USER, FIELD(extract_uid), "nobody",
	    .help = "User that extraction workers run as when the daemon is root." },
	{ "derived", TYPE_ENUM, FIELD(derived), "on", .words = derived_words,
	    .help = "Make thumbnails and meta.json, make them but keep them out of listings, or don't." },
	{ "passthrough", TYPE_ENUM, FIELD(passthrough), "auto", .words = switch_words,
	    .help = "Let the kernel move the bytes of cached files; on refuses to mount where it can't." },
	{ "inotify", TYPE_BOOL, FIELD(inotify), "on",
	    .help = "Notice closed files at once instead of at the next sweep." },
	{ "sweep_interval", TYPE_DURATION, FIELD(sweep_interval), "60s", .max = DAYS(1),
	    .help = "Ask the index for forgotten work so often; 0 never." },
	{ "limit.still_pixels", TYPE_SIZE, FIELD(limit_still_pixels), "250000000", .min = 1, .max = 1ll << 40,
	    .help = "Width times height of the largest still that is decoded." },
	{ "limit.animation_pixels", TYPE_SIZE, FIELD(limit_animation_pixels), "50000000", .min = 1,
	    .max = 1ll << 40, .help = "The same of an animation, summed over its frames." },
	{ "limit.video_pixels", TYPE_SIZE, FIELD(limit_video_pixels), "36000000", .min = 1, .max = 1ll << 30,
	    .help = "The same of a frame of a video." },
	{ "limit.duration", TYPE_DURATION, FIELD(limit_duration), "4h", .min = SECONDS(1), .max = DAYS(30),
	    .help = "The longest video or audio of which more than the facts are looked at." },
	{ "limit.streams", TYPE_INT, FIELD(limit_streams), "64", .min = 1, .max = 1024,
	    .help = "Most streams of a container." },
	{ "limit.exif_size", TYPE_SIZE, FIELD(limit_exif_size), "1M", .min = 1, .max = 1 << 30,
	    .help = "The largest EXIF block that is read." },
	{ "limit.text_size", TYPE_SIZE, FIELD(limit_text_size), "4K", .min = 1, .max = 16384,
	    .help = "The longest text that is taken from a file." },
	{ "limit.memory", TYPE_SIZE, FIELD(limit_memory), "2G", .min = 256ll << 20, .max = 1ll << 40,
	    .help = "Memory of one extraction worker." },
	{ "limit.deadline", TYPE_DURATION, FIELD(limit_deadline), "90s", .min = SECONDS(1), .max = DAYS(1),
	    .help = "Time for one file, besides that for reading it once." },
	{ "upload.max_size", TYPE_SIZE, FIELD(upload_max_size), "10G", .max = INT64_MAX,
	    .flags = OPTION_RELOAD,
	    .help = "A larger file stays local and is stuck until tbfs retry; 0 no limit." },
	{ "reserve", TYPE_SIZE, FIELD(reserve), "64M", .min = 1 << 20, .max = INT64_MAX,
	    .help = "Set aside for the index, so that removing, truncating and uploading work on a full "
	    "disk." },
	{ "alert.age", TYPE_DURATION, FIELD(alert_age), "1h", .min = SECONDS(1), .max = DAYS(365),
	    .flags = OPTION_RELOAD,
	    .help = "tbfs status --check complains about files that have been unstored for longer." },
	{ "control.group", TYPE_GROUP, FIELD(control_group), .shown = "none",
	    .help = "Members may use sync, status and the other verbs, besides root and the mounting "
	    "user." },
	{ "log_file", TYPE_PATH, FIELD(log_file), .shown = "<state_dir>/tbfs.log; with -f standard error",
	    .help = "The daemon's log." },
	{ "log_level", TYPE_ENUM, FIELD(log_level), "info", .words = level_words,
	    .flags = OPTION_RELOAD,
	    .help = "The least important messages that are logged." },
	{ "snapshot_interval", TYPE_DURATION, FIELD(snapshot_interval), "1h", .max = DAYS(30),
	    .flags = OPTION_RELOAD,
	    .help = "A verified copy of the index is taken so often while there are changes; 0 never." },
	{ "drain_timeout", TYPE_DURATION, FIELD(drain_timeout), "30s", .max = DAYS(1),
	    .flags = OPTION_RELOAD,
	    .help = "SIGTERM and tbfs umount wait so long for uploads; the rest stays staged." },
	{ "secrets_file", TYPE_PATH, FIELD(secrets_file), .flags = OPTION_PRIVATE,
	    .help = "File with s3.access_key, s3.secret_key and s3.session_token, readable by its owner "
	    "and group only." },
	{ "fault", TYPE_STRING, FIELD(fault), .flags = OPTION_HIDDEN,
	    .help = "Tests only: make the backend fail." },
};
const size_t config_option_count = sizeof(config_options) / sizeof(config_options[0]);
_Static_assert(sizeof(config_options) / sizeof(config_options[0]) <= CONFIG_MAX_OPTIONS,
    "struct config has room for the origin of every option");

const struct config_option *
config_option_find(const char *key)
{
	size_t i;

	for (i = 0; i < config_option_count; i++)
		if (strcmp(config_options[i].key, key) == 0)
			return &config_options[i];
	return NULL;
}

/* Levenshtein's distance; both shorter than KEY_ROOM. */
enum { KEY_ROOM = 64 };

static unsigned
edit_distance(const char *a, const char *b)
{
	unsigned row[KEY_ROOM + 1];
	size_t la = strlen(a), lb = strlen(b), i, j;

	for (j = 0; j <= lb; j++)
		row[j] = (unsigned)j;
	for (i = 1; i <= la; i++) {
		unsigned diagonal = row[0];

		row[0] = (unsigned)i;
		for (j = 1; j <= lb; j++) {
			unsigned best = diagonal + (a[i - 1] != b[j - 1]);

			diagonal = row[j];
			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			row[j] = best;
		}
	}
	return row[lb];
}

const char *
config_option_closest(const char *key)
{
	const char *closest = NULL;
	unsigned least = 4;
	size_t i;

	if (strlen(key) >= KEY_ROOM)
		return NULL;
	if (strlen(key) / 2 + 1 < least)
		least = (unsigned)strlen(key) / 2 + 1;
	for (i = 0; i < config_option_count; i++) {
		const struct config_option *opt = &config_options[i];
		const char *dot = strchr(opt->key, '.');
		unsigned distance = edit_distance(key, opt->key);

		if (opt->flags & OPTION_HIDDEN)
			continue;
		if (dot != NULL && strcmp(dot + 1, key) == 0)
			return opt->key;	/* only the section is missing */
		if (distance < least) {
			least = distance;
			closest = opt->key;
		}
	}
	return closest;
}
