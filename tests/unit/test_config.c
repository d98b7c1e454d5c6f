/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The option table and everything that reads it. */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "config.h"
#include "config/table.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static char dir[64];		/* a fresh directory for each test */

static int
setup(void **state)
{
	(void)state;
	(void)snprintf(dir, sizeof(dir), "/tmp/tbfs-config.XXXXXX");
	return mkdtemp(dir) == NULL ? -1 : 0;
}

static int
teardown(void **state)
{
	char command[128];

	(void)state;
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", dir);
	return system(command);
}

/* <dir>/<name> with this text and mode; static result. */
static const char *
file(const char *name, const char *text, mode_t mode)
{
	static char path[256];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write_full(fd, text, strlen(text)), 0);
	assert_int_equal(fchmod(fd, mode), 0);
	(void)close(fd);
	return path;
}

static int
set(struct config *cfg, const char *key, const char *value)
{
	return config_set(cfg, key, value, CONFIG_OPTION, "-o", NULL);
}

static void
has(const char *text, const char *part)
{
	if (strstr(text, part) == NULL)
		fail_msg("'%s' does not say '%s'", text, part);
}

static void
test_values(void **state)
{
	static const struct {
		const char *key, *value;
		bool ok;
	} cases[] = {
		{ "create_bucket", "yes", true }, { "create_bucket", "OFF", true },
		{ "create_bucket", "true", true }, { "create_bucket", "0", true },
		{ "create_bucket", "", false }, { "create_bucket", "2", false },
		{ "create_bucket", "ye", false },
		{ "upload_workers", "1", true }, { "upload_workers", "256", true },
		{ "upload_workers", "0", false }, { "upload_workers", "257", false },
		{ "upload_workers", "-1", false }, { "upload_workers", "8K", false },
		{ "upload_workers", " 8", false }, { "upload_workers", "", false },
		{ "upload_workers", "99999999999999999999", false },
		{ "upload.max_size", "9223372036854775807", true },
		{ "upload.max_size", "9223372036854775808", false },
		{ "upload.max_size", "8388608T", false }, { "upload.max_size", "20G", true },
		{ "upload.max_size", "20GB", false }, { "upload.max_size", "1.5G", false },
		{ "reserve", "1M", true }, { "reserve", "1023K", false },
		{ "quiet_period", "0", true }, { "quiet_period", "500ms", true },
		{ "quiet_period", "1h", true }, { "quiet_period", "3601", false },
		{ "quiet_period", "2 s", false }, { "quiet_period", "ms", false },
		{ "quiet_period", "9223372036854775807d", false },
		{ "backend", "minio", true }, { "backend", "MinIO", true },
		{ "backend", "gcs", false }, { "backend", "", false },
		{ "passthrough", "on", true }, { "passthrough", "auto", true },
		{ "passthrough", "no", true }, { "passthrough", "maybe", false },
		{ "derived", "hidden", true }, { "derived", "yes", false },
		{ "mode", "0755", true }, { "mode", "7777", true }, { "mode", "10000", false },
		{ "mode", "789", false }, { "mode", "", false }, { "mode", "-755", false },
		{ "uid", "root", true }, { "uid", "4294967294", true },
		{ "uid", "4294967295", false }, { "uid", "no-such-user", false },
		{ "gid", "root", true }, { "gid", "no-such-group", false }, { "gid", "12x", false },
		{ "state_dir", "/x", true }, { "state_dir", "x", false }, { "state_dir", "", true },
		{ "s3.endpoint", "anything", true },
	};
	struct config cfg;
	size_t i;

	(void)state;
	config_init(&cfg);
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		if ((set(&cfg, cases[i].key, cases[i].value) == 0) != cases[i].ok)
			fail_msg("%s=%s should be %s", cases[i].key, cases[i].value,
			    cases[i].ok ? "taken" : "refused");
	config_release(&cfg);
}

static void
test_typed_fields(void **state)
{
	struct config cfg;

	(void)state;
	config_init(&cfg);
	assert_int_equal(cfg.quiet_period, 2 * NSEC_PER_SEC);
	assert_int_equal(cfg.upload_workers, 16);
	assert_true(cfg.processor_workers >= 1);
	assert_int_equal(cfg.reserve, 64 << 20);
	assert_int_equal(cfg.mode, CONFIG_UNSET);
	assert_int_equal(cfg.control_group, CONFIG_UNSET);
	assert_int_equal(cfg.log_level, LOG_LEVEL_INFO);
	assert_int_equal(cfg.passthrough, CONFIG_AUTO);
	assert_null(cfg.s3_endpoint);
	assert_int_equal(set(&cfg, "quiet_period", "250ms"), 0);
	assert_int_equal(cfg.quiet_period, NSEC_PER_SEC / 4);
	assert_int_equal(set(&cfg, "quiet_period", "1m"), 0);
	assert_int_equal(cfg.quiet_period, 60 * NSEC_PER_SEC);
	assert_int_equal(set(&cfg, "upload.max_size", "3g"), 0);
	assert_int_equal(cfg.upload_max_size, 3LL << 30);
	assert_int_equal(set(&cfg, "mode", "750"), 0);
	assert_int_equal(cfg.mode, 0750);
	assert_int_equal(set(&cfg, "uid", "root"), 0);
	assert_int_equal(cfg.uid, 0);
	assert_int_equal(set(&cfg, "passthrough", "off"), 0);
	assert_int_equal(cfg.passthrough, CONFIG_NO);
	assert_int_equal(set(&cfg, "backend", "minio"), 0);
	assert_int_equal(cfg.backend, CONFIG_BACKEND_MINIO);
	assert_int_equal(set(&cfg, "log_level", "debug"), 0);
	assert_int_equal(cfg.log_level, LOG_LEVEL_DEBUG);
	/* A refused value leaves the last good one. */
	assert_int_equal(set(&cfg, "mode", "999"), -EINVAL);
	assert_int_equal(cfg.mode, 0750);
	config_release(&cfg);
}

/* Every pair of sources, in both orders: the higher one stays. */
static void
test_precedence(void **state)
{
	static const char *const values[] = { "x", "1m", "2m", "3m", "4m" };
	int low, high, order;

	(void)state;
	for (low = CONFIG_FILE; low <= CONFIG_OPTION; low++)
		for (high = low; high <= CONFIG_OPTION; high++)
			for (order = 0; order < 2; order++) {
				struct config cfg;
				enum config_source first = order ? high : low, second = order ? low : high;

				config_init(&cfg);
				assert_int_equal(config_set(&cfg, "quiet_period", values[first], first, "a", NULL), 0);
				assert_int_equal(config_set(&cfg, "quiet_period", values[second], second, "b", NULL), 0);
				assert_int_equal(cfg.quiet_period, high * 60 * NSEC_PER_SEC);
				config_release(&cfg);
			}
}

static void
test_loser_is_checked(void **state)
{
	struct config cfg;

	(void)state;
	config_init(&cfg);
	assert_int_equal(set(&cfg, "s3.bucket", "x"), 0);
	assert_int_equal(set(&cfg, "mode", "0700"), 0);
	assert_int_equal(config_set(&cfg, "mode", "9", CONFIG_FILE, "f:1", NULL), -EINVAL);
	assert_int_equal(config_set(&cfg, "s3.bucket", "y", CONFIG_FILE, "f:1", NULL), 0);
	assert_string_equal(cfg.s3_bucket, "x");
	assert_int_equal(cfg.mode, 0700);
	config_release(&cfg);
}

static void
test_unknown_key(void **state)
{
	static const struct {
		const char *key, *meant;
	} cases[] = {
		{ "s3.endpont", "s3.endpoint" }, { "endpoint", "s3.endpoint" },
		{ "upload-workers", "upload_workers" }, { "bakend", "backend" },
		{ "state_dri", "state_dir" }, { "group", "control.group" },
	};
	struct config cfg;
	struct error err;
	size_t i;

	(void)state;
	config_init(&cfg);
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(config_set(&cfg, cases[i].key, "1", CONFIG_FILE, "f:7", &err), -EINVAL);
		has(err.text, "f:7");
		has(err.text, cases[i].key);
		has(err.text, cases[i].meant);
	}
	assert_int_equal(config_set(&cfg, "zzzzzzzzzzz", "1", CONFIG_FILE, "f:7", &err), -EINVAL);
	assert_null(strstr(err.text, "did you mean"));
	config_release(&cfg);
}

static int
load(struct config *cfg, const char *text, mode_t mode, struct error *err)
{
	config_init(cfg);
	return config_load_file(cfg, file("x.conf", text, mode), err);
}

static void
test_file(void **state)
{
	struct config cfg;
	struct error err;

	(void)state;
	assert_int_equal(load(&cfg, "\xef\xbb\xbf# comment\r\nbackend = s3\r\n\n; more\n"
	    "s3.bucket=dotted\n[ s3 ]\n\tendpoint = \"http://h:1\"\nprefix = a ; b # c\n"
	    "[tbfs]\nmode=0711", 0644, &err), 0);
	assert_int_equal(cfg.backend, CONFIG_BACKEND_S3);
	assert_string_equal(cfg.s3_bucket, "dotted");
	assert_string_equal(cfg.s3_endpoint, "http://h:1");
	assert_string_equal(cfg.s3_prefix, "a ; b # c");
	assert_int_equal(cfg.mode, 0711);
	config_release(&cfg);
}

/* What libinih would cut at 200 bytes. */
static void
test_file_long_value(void **state)
{
	char text[3000];
	struct config cfg;
	size_t n;

	(void)state;
	strcpy(text, "[s3]\nsession_token = ");
	n = strlen(text);
	memset(text + n, 'A', 2000);
	strcpy(text + n + 2000, "==\n");
	assert_int_equal(load(&cfg, text, 0600, NULL), 0);
	assert_int_equal(strlen(cfg.s3_session_token), 2002);
	config_release(&cfg);
}

static void
test_file_errors_name_the_line(void **state)
{
	static const struct {
		const char *text, *line, *says;
	} cases[] = {
		{ "backend = local\n\nmode = rw\n", ":3", "octal" },
		{ "mode = rw", ":1", "'rw'" },
		{ "[s3]\ntimeout = 0\n", ":2", "1s to 1h" },
		{ "[s3]\nendpont = x\n", ":2", "s3.endpoint" },
		{ "backend = gcs\n", ":1", "local, s3 or minio" },
		{ "nonsense\n", ":1", "key = value" },
		{ "\n[s3\nbucket = x\n", ":2", "[name]" },
		{ "[]\n", ":1", "[name]" },
		{ "quiet_period = soon\n", ":1", "500ms" },
	};
	struct config cfg;
	struct error err;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(load(&cfg, cases[i].text, 0600, &err), -EINVAL);
		has(err.text, "/x.conf");
		has(err.text, cases[i].line);
		has(err.text, cases[i].says);
		config_release(&cfg);
	}
}

/* One of the two is a mistake, and nobody knows which. */
static void
test_a_key_is_set_once(void **state)
{
	const char *path = file("t.conf", "quiet_period = 1s\n[s3]\nregion = a\n[tbfs]\nquiet_period = 2s\n", 0600);
	struct config cfg;
	struct error err;

	(void)state;
	config_init(&cfg);
	assert_int_equal(config_load_file(&cfg, path, &err), -EINVAL);
	assert_non_null(strstr(err.text, "t.conf:5: quiet_period is set in line 1 already"));
	config_release(&cfg);
}

static void
test_file_unreadable(void **state)
{
	struct config cfg;
	struct error err;
	char path[200];

	(void)state;
	config_init(&cfg);
	(void)snprintf(path, sizeof(path), "%s/absent", dir);
	assert_int_equal(config_load_file(&cfg, path, &err), -ENOENT);
	has(err.text, path);
	assert_int_equal(config_load_file(&cfg, dir, &err), -EINVAL);
	assert_int_equal(mkfifo(path, 0600), 0);	/* must not wait for a writer */
	assert_int_equal(config_load_file(&cfg, path, &err), -EINVAL);
	config_release(&cfg);
}

static void
test_secrets_must_be_private(void **state)
{
	struct config cfg;
	struct error err;

	(void)state;
	assert_int_equal(load(&cfg, "[s3]\nsecret_key = hunter2\n", 0644, &err), -EACCES);
	has(err.text, "read by everyone");
	assert_null(strstr(err.text, "hunter2"));
	config_release(&cfg);
	assert_int_equal(load(&cfg, "s3.session_token = t\n", 0604, &err), -EACCES);
	config_release(&cfg);
	assert_int_equal(load(&cfg, "secrets_file = /x\n", 0644, &err), -EACCES);
	config_release(&cfg);
	assert_int_equal(load(&cfg, "[s3]\nsecret_key = hunter2\n", 0640, &err), 0);
	config_release(&cfg);
	assert_int_equal(load(&cfg, "backend = local\n", 0646, &err), -EACCES);
	has(err.text, "written by everyone");
	config_release(&cfg);
}

static void
test_secrets_file(void **state)
{
	struct config cfg;
	struct error err;

	(void)state;
	config_init(&cfg);
	cfg.config_dir = dir;
	assert_int_equal(set(&cfg, "backend", "s3"), 0);
	assert_int_equal(set(&cfg, "s3.bucket", "b"), 0);
	assert_int_equal(set(&cfg, "secrets_file",
	    file("secrets", "[s3]\naccess_key = A\nsecret_key = S\n", 0644)), 0);
	assert_int_equal(config_finish(&cfg, "/m", &err), -EACCES);
	(void)file("secrets", "[s3]\naccess_key = A\nsecret_key = S\nbucket = z\n", 0600);
	assert_int_equal(config_finish(&cfg, "/m", &err), -EINVAL);
	has(err.text, "/secrets:4");
	(void)file("secrets", "[s3]\naccess_key = A\nsecret_key = S\n", 0600);
	assert_int_equal(config_finish(&cfg, "/m", &err), 0);
	assert_string_equal(cfg.s3_secret_key, "S");
	config_release(&cfg);
}

static void
test_print_masks_secrets(void **state)
{
	CLEANUP_FREE char *text = NULL;
	struct config cfg;
	struct error err;
	size_t len;
	FILE *out;

	(void)state;
	config_init(&cfg);
	assert_int_equal(set(&cfg, "s3.secret_key", "hunter2"), 0);
	assert_int_equal(set(&cfg, "s3.bucket", "line\nbreak"), 0);
	assert_int_equal(config_load_file(&cfg, file("p.conf", "\nmode = 0700\n", 0600), &err), 0);
	out = open_memstream(&text, &len);
	config_print(&cfg, out);
	(void)fclose(out);
	assert_null(strstr(text, "hunter2"));
	has(text, "s3.secret_key = (set)\t# option: -o\n");
	has(text, "s3.session_token = \t# default\n");
	has(text, "s3.bucket = line?break");
	has(text, "/p.conf:2\n");
	has(text, "quiet_period = 2s\t# default\n");
	assert_null(strstr(text, "\nfault"));
	config_release(&cfg);
}

static void
test_mount_options(void **state)
{
	struct config cfg;
	struct error err;

	(void)state;
	config_init(&cfg);
	assert_int_equal(config_parse_mount_options(&cfg, "rw,noauto,nofail,_netdev,users,user=joe,"
	    "x-systemd.requires=minio.service,defaults,nosuid,nodev,noexec,relatime,noatime,ro,"
	    "s3.prefix=a\\,b\\\\c\\d,create_bucket,,comment=x,allow_other", false, &err), 0);
	assert_string_equal(cfg.mount_options, "rw,nosuid,nodev,noexec,noatime,ro");
	assert_false(cfg.remount);
	assert_string_equal(cfg.s3_prefix, "a,b\\c\\d");
	assert_true(cfg.create_bucket);
	assert_true(cfg.allow_other);
	assert_int_equal(config_parse_mount_options(&cfg, "s3.bucket=x=y", false, &err), 0);
	assert_string_equal(cfg.s3_bucket, "x=y");
	assert_int_equal(config_parse_mount_options(&cfg, "bukket=1", false, &err), -EINVAL);
	has(err.text, "bukket");
	assert_int_equal(config_parse_mount_options(&cfg, "bukket=1", true, &err), 0);
	assert_int_equal(config_parse_mount_options(&cfg, "s3.bucket", false, &err), -EINVAL);
	has(err.text, "needs a value");
	assert_int_equal(config_parse_mount_options(&cfg, "mode=x", true, &err), -EINVAL);
	config_release(&cfg);
}

static void
test_scrub(void **state)
{
	char text[] = "s3.secret_key=a\\,b,ro,s3.bucket=c,s3.session_token=tt";
	char empty[] = "s3.secret_key=";

	(void)state;
	config_scrub_options(text);
	assert_string_equal(text, "s3.secret_key=****,ro,s3.bucket=c,s3.session_token=**");
	config_scrub_options(empty);
	assert_string_equal(empty, "s3.secret_key=");
}

/* Vectors from systemd-escape --path. */
static void
test_escape(void **state)
{
	static const struct {
		const char *path, *name;
	} cases[] = {
		{ "/srv/my media", "srv-my\\x20media" }, { "/.hidden/x", "\\x2ehidden-x" },
		{ "/a//b/", "a-b" }, { "/", "-" }, { "//", "-" }, { "/a/.b", "a-.b" },
		{ "/\xc3\xbc-x:_.y", "\\xc3\\xbc\\x2dx:_.y" }, { "/a\nb", "a\\x0ab" },
		{ "/a\\b", "a\\x5cb" }, { "/mnt", "mnt" },
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		CLEANUP_FREE char *name = config_escape_path(cases[i].path);

		assert_string_equal(name, cases[i].name);
	}
}

static void
clear_environment(void)
{
	size_t i;
	char name[128];

	for (i = 0; i < config_option_count; i++) {
		config_env_name(config_options[i].key, name, sizeof(name));
		(void)unsetenv(name);
		if (config_options[i].env != NULL)
			(void)unsetenv(config_options[i].env);
		if (config_options[i].env_s3 != NULL)
			(void)unsetenv(config_options[i].env_s3);
		if (config_options[i].env_minio != NULL)
			(void)unsetenv(config_options[i].env_minio);
	}
}

static void
test_environment(void **state)
{
	struct config cfg;
	struct error err;

	(void)state;
	clear_environment();
	config_init(&cfg);
	cfg.config_dir = dir;
	(void)setenv("MEDIA_STORAGE_BACKEND", "minio", 1);
	(void)setenv("MINIO_ACCESS_KEY", "ak", 1);
	(void)setenv("MINIO_SECRET_KEY", "sk", 1);
	(void)setenv("AWS_ACCESS_KEY_ID", "wrong", 1);
	(void)setenv("AWS_STORAGE_BUCKET_NAME", "wrong", 1);
	(void)setenv("MINIO_BUCKET_NAME", "", 1);	/* empty is unset */
	(void)setenv("TBFS_QUIET_PERIOD", "7s", 1);
	(void)setenv("TBFS_S3_PREFIX", "p", 1);
	assert_int_equal(config_load_env(&cfg, &err), 0);
	assert_int_equal(config_finish(&cfg, "/m", &err), 0);
	assert_int_equal(cfg.backend, CONFIG_BACKEND_MINIO);
	assert_string_equal(cfg.s3_endpoint, "http://minio:9000");
	assert_string_equal(cfg.s3_bucket, "tinybeans-media");
	assert_string_equal(cfg.s3_access_key, "ak");
	assert_string_equal(cfg.s3_prefix, "p");
	assert_true(cfg.s3_path_style);
	assert_int_equal(cfg.quiet_period, 7 * NSEC_PER_SEC);
	config_release(&cfg);

	/* TBFS_BACKEND before the service's name; then the other service's names count. */
	config_init(&cfg);
	cfg.config_dir = dir;
	(void)setenv("TBFS_BACKEND", "s3", 1);
	(void)setenv("AWS_SECRET_ACCESS_KEY", "aws", 1);
	assert_int_equal(config_load_env(&cfg, &err), 0);
	assert_int_equal(config_finish(&cfg, "/m", &err), 0);
	assert_int_equal(cfg.backend, CONFIG_BACKEND_S3);
	assert_string_equal(cfg.s3_access_key, "wrong");
	assert_string_equal(cfg.s3_secret_key, "aws");
	assert_string_equal(cfg.s3_region, "us-east-1");
	assert_false(cfg.s3_path_style);
	config_release(&cfg);

	config_init(&cfg);
	(void)setenv("TBFS_MODE", "abc", 1);
	assert_int_equal(config_load_env(&cfg, &err), -EINVAL);
	has(err.text, "TBFS_MODE");
	config_release(&cfg);
	clear_environment();
}

static void
test_finish_defaults(void **state)
{
	struct config cfg;
	struct error err;
	char want[256];

	(void)state;
	config_init(&cfg);
	cfg.config_dir = dir;
	(void)setenv("XDG_STATE_HOME", dir, 1);
	assert_int_equal(config_finish(&cfg, "/srv/my media", &err), 0);
	(void)snprintf(want, sizeof(want), "%s/tbfs/srv-my\\x20media",
	    geteuid() == 0 ? "/var/lib" : dir);
	assert_string_equal(cfg.state_dir, want);
	(void)strcat(want, "/objects");
	assert_string_equal(cfg.local_root_path, want);
	assert_string_equal(cfg.mount_options, "");
	assert_string_equal(cfg.fsname, "tbfs");
	assert_int_equal(cfg.allow_other, geteuid() == 0);
	config_release(&cfg);
}

static void
test_default_file(void **state)
{
	struct config cfg;
	struct error err;

	(void)state;
	(void)file("m-a.conf", "mode = 0701\n", 0600);
	config_init(&cfg);
	cfg.config_dir = dir;
	assert_int_equal(config_finish(&cfg, "/m/a", &err), 0);
	assert_int_equal(cfg.mode, 0701);
	config_release(&cfg);

	config_init(&cfg);		/* a named file replaces it */
	cfg.config_dir = dir;
	assert_int_equal(config_load_file(&cfg, file("other", "uid = 5\n", 0600), &err), 0);
	assert_int_equal(config_finish(&cfg, "/m/a", &err), 0);
	assert_int_equal(cfg.mode, CONFIG_UNSET);
	assert_int_equal(cfg.uid, 5);
	config_release(&cfg);

	(void)file("m-a.conf", "mode = x\n", 0600);
	config_init(&cfg);
	cfg.config_dir = dir;
	assert_int_equal(config_finish(&cfg, "/m/a", &err), -EINVAL);
	has(err.text, "/m-a.conf:1");
	config_release(&cfg);
}

static void
test_finish_refuses(void **state)
{
	static const struct {
		const char *options, *says;
	} cases[] = {
		{ "state_dir=/m/x", "lies in the mountpoint" },
		{ "state_dir=/", "lies in state_dir" },
		{ "state_dir=/mm,local.root_path=/m", "one in the other" },
		{ "backend=s3,s3.access_key=a,s3.secret_key=b", "needs s3.bucket" },
		{ "backend=s3,s3.bucket=b", "s3.access_key and s3.secret_key" },
		{ "backend=minio,s3.access_key=b", "needs s3.secret_key" },
		{ "backend=minio,s3.access_key=b,s3.secret_key=c,s3.endpoint=minio:9000", "http://" },
		{ "backend=minio,s3.access_key=b,s3.secret_key=c,s3.endpoint=", "needs s3.endpoint" },
	};
	struct config cfg;
	struct error err;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		config_init(&cfg);
		cfg.config_dir = dir;
		assert_int_equal(config_parse_mount_options(&cfg, cases[i].options, false, &err), 0);
		assert_int_equal(config_finish(&cfg, "/m", &err), -EINVAL);
		has(err.text, cases[i].says);
		config_release(&cfg);
	}
}

static void
test_reload(void **state)
{
	CLEANUP_FREE char *note = NULL;
	struct config cfg;
	struct error err;
	const char *path = file("r.conf", "quiet_period = 3s\nmode = 0700\nlog_level = warn\n", 0600);

	(void)state;
	config_init(&cfg);
	assert_int_equal(config_load_file(&cfg, path, &err), 0);
	assert_int_equal(config_parse_mount_options(&cfg, "log_level=error,state_dir=/s", false, &err), 0);
	assert_int_equal(config_finish(&cfg, "/m", &err), 0);
	assert_int_equal(config_reload(&cfg, &note, &err), 0);
	assert_null(note);
	path = file("r.conf", "quiet_period = 4s\nmode = 0711\nlog_level = debug\n", 0600);
	assert_int_equal(config_reload(&cfg, &note, &err), 0);
	assert_string_equal(note, "taken over: quiet_period; needs a new mount: mode");
	assert_int_equal(cfg.quiet_period, 4 * NSEC_PER_SEC);
	assert_int_equal(cfg.mode, 0700);
	assert_int_equal(cfg.log_level, LOG_LEVEL_ERROR);	/* -o is still the higher source */
	path = file("r.conf", "quiet_period = 5s\nmode = rwx\n", 0600);
	assert_int_equal(config_reload(&cfg, &note, &err), -EINVAL);
	assert_int_equal(cfg.quiet_period, 4 * NSEC_PER_SEC);
	config_release(&cfg);
}

/* What the manual says of the keys is what the table says. */
static void
test_manual(void **state)
{
	CLEANUP_FREE char *section = NULL, *manual = NULL;
	const char *srcdir = getenv("srcdir");
	char path[4096];
	size_t len;
	FILE *out;

	(void)state;
	(void)snprintf(path, sizeof(path), "%s/man/tbfs.conf.5", srcdir != NULL ? srcdir : "..");
	assert_int_equal(read_file(AT_FDCWD, path, 1 << 20, &manual, NULL), 0);
	out = open_memstream(&section, &len);
	config_print_man(out);
	(void)fclose(out);
	if (strstr(manual, section) == NULL)
		fail_msg("the keys in %s are not those of the table: put in `tbfs config --man`", path);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_typed_fields),
		cmocka_unit_test(test_precedence),
		cmocka_unit_test(test_loser_is_checked),
		cmocka_unit_test(test_unknown_key),
		cmocka_unit_test_setup_teardown(test_file, setup, teardown),
		cmocka_unit_test_setup_teardown(test_file_long_value, setup, teardown),
		cmocka_unit_test_setup_teardown(test_file_errors_name_the_line, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_key_is_set_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_file_unreadable, setup, teardown),
		cmocka_unit_test_setup_teardown(test_secrets_must_be_private, setup, teardown),
		cmocka_unit_test_setup_teardown(test_secrets_file, setup, teardown),
		cmocka_unit_test_setup_teardown(test_print_masks_secrets, setup, teardown),
		cmocka_unit_test(test_mount_options),
		cmocka_unit_test(test_scrub),
		cmocka_unit_test(test_escape),
		cmocka_unit_test_setup_teardown(test_environment, setup, teardown),
		cmocka_unit_test_setup_teardown(test_finish_defaults, setup, teardown),
		cmocka_unit_test_setup_teardown(test_default_file, setup, teardown),
		cmocka_unit_test_setup_teardown(test_finish_refuses, setup, teardown),
		cmocka_unit_test_setup_teardown(test_reload, setup, teardown),
		cmocka_unit_test(test_manual),
	};

	return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
