/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Configuration files and the environment.
 *
 * The file format is ini: `key = value`, `[section]`, lines that begin with
 * `#` or `;` are comments, a value may stand in double quotes.  It is read here
 * and not by libinih because that one, as Debian builds it, cuts a line after
 * 200 bytes (an S3 session token has a thousand), takes " ;" inside a secret
 * for a comment and an indented line for a continuation, all without a word.
 *
 * A file is judged by its open descriptor: what was checked is what is read.
 */
#include "base/cleanup.h"
#include "base/io.h"
#include "config/table.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_MAX = 1 << 20, KEY_MAX_LEN = 128 };

extern char **environ;

struct reader {
	struct config *cfg;
	const char *path;
	bool secrets_only;		/* the secrets file */
	bool private;			/* saw a key that asks for a private file */
	unsigned line;
	char section[KEY_MAX_LEN];	/* "s3", or "" */
	unsigned lines[CONFIG_MAX_OPTIONS];	/* where each key was set; 0: not yet */
};

static char *
trim(char *s)
{
	size_t n;

	while (*s == ' ' || *s == '\t')
		s++;
	n = strlen(s);
	while (n > 0 && (s[n - 1] == ' ' || s[n - 1] == '\t' || s[n - 1] == '\r'))
		s[--n] = '\0';
	return s;
}

static int
read_section(struct reader *rd, char *text, struct error *err)
{
	size_t n = strlen(text);

	if (text[n - 1] != ']' || n < 3 || n - 2 >= sizeof(rd->section))
		return error_set(err, -EINVAL, "%s:%u: a section is written [name]", rd->path, rd->line);
	text[n - 1] = '\0';
	(void)snprintf(rd->section, sizeof(rd->section), "%s", trim(text + 1));
	if (strcmp(rd->section, "tbfs") == 0)
		rd->section[0] = '\0';	/* the keys without section */
	return 0;
}

static int
read_pair(struct reader *rd, char *text, struct error *err)
{
	char *equal = strchr(text, '='), *key, *value, full[2 * KEY_MAX_LEN], where[512];
	const struct config_option *opt;
	size_t n;

	if (equal == NULL)
		return error_set(err, -EINVAL, "%s:%u: a line is `key = value` or [section]", rd->path,
		    rd->line);
	*equal = '\0';
	key = trim(text);
	value = trim(equal + 1);
	n = strlen(value);
	if (n >= 2 && value[0] == '"' && value[n - 1] == '"') {
		value[n - 1] = '\0';
		value++;
	}
	(void)snprintf(full, sizeof(full), "%s%s%.127s", rd->section, rd->section[0] ? "." : "", key);
	(void)snprintf(where, sizeof(where), "%.400s:%u", rd->path, rd->line);
	opt = config_option_find(full);
	if (opt != NULL && (opt->flags & (OPTION_SECRET | OPTION_PRIVATE)))
		rd->private = true;
	if (rd->secrets_only && opt != NULL && !(opt->flags & OPTION_SECRET) &&
	    strcmp(full, "s3.access_key") != 0)
		return error_set(err, -EINVAL, "%s: %s does not belong into a secrets file; allowed: "
		    "s3.access_key, s3.secret_key, s3.session_token", where, full);
	if (opt != NULL && rd->lines[opt - config_options] != 0)
		return error_set(err, -EINVAL, "%s: %s is set in line %u already", where, full,
		    rd->lines[opt - config_options]);
	if (opt != NULL)
		rd->lines[opt - config_options] = rd->line;
	return config_set(rd->cfg, full, value, CONFIG_FILE, where, err);
}

static int
read_lines(struct reader *rd, char *text, struct error *err)
{
	char *line, *rest = text;
	int r = 0;

	if (strncmp(rest, "\xef\xbb\xbf", 3) == 0)
		rest += 3;
	while (r == 0 && (line = strsep(&rest, "\n")) != NULL) {
		rd->line++;
		line = trim(line);
		if (line[0] == '\0' || line[0] == '#' || line[0] == ';')
			continue;
		r = line[0] == '[' ? read_section(rd, line, err) : read_pair(rd, line, err);
	}
	return r;
}

static int
check_mode(const struct reader *rd, const struct stat *st, struct error *err)
{
	if (st->st_mode & S_IWOTH)
		return error_set(err, -EACCES, "%s can be written by everyone: chmod o-w it", rd->path);
	if (rd->private && (st->st_mode & S_IROTH))
		return error_set(err, -EACCES, "%s holds secrets and can be read by everyone: chmod 600 it",
		    rd->path);
	return 0;
}

static int
load(struct reader *rd, struct error *err)
{
	CLEANUP_CLOSE int fd = open(rd->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	char *text = NULL;
	struct stat st;
	ssize_t n;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0) {
		r = -errno;
		return error_set(err, r, "configuration %s can't be read: %s", rd->path, strerror(-r));
	}
	if (!S_ISREG(st.st_mode) || st.st_size > FILE_MAX)
		return error_set(err, -EINVAL, "configuration %s is not a file of at most 1 MiB", rd->path);
	text = malloc(FILE_MAX + 1);
	if (text == NULL)
		return error_set(err, -ENOMEM, "out of memory");
	n = read_full(fd, text, FILE_MAX);
	if (n < 0) {
		r = error_set(err, (int)n, "configuration %s can't be read: %s", rd->path, strerror((int)-n));
	} else if (memchr(text, '\0', (size_t)n) != NULL) {
		r = error_set(err, -EINVAL, "configuration %s is not text", rd->path);
	} else {
		text[n] = '\0';
		r = read_lines(rd, text, err);
		if (r == 0)
			r = check_mode(rd, &st, err);
	}
	if (n > 0)
		explicit_bzero(text, (size_t)n);
	free(text);
	return r;
}

/* The daemon changes its directory and may be told to read the file again.  Symlinks stay:
 * they are how some deployments replace a file. */
static char *
absolute(const char *path)
{
	CLEANUP_FREE char *cwd = NULL;
	char *full;

	if (path[0] == '/')
		return strdup(path);
	cwd = getcwd(NULL, 0);
	if (cwd == NULL || asprintf(&full, "%s/%s", cwd, path) < 0)
		return NULL;
	return full;
}

int
config_load_file(struct config *cfg, const char *path, struct error *err)
{
	struct reader rd = { .cfg = cfg, .path = path };
	char *copy;
	int r;

	r = load(&rd, err);
	if (r < 0)
		return r;
	copy = absolute(path);
	if (copy == NULL)
		return error_set(err, -ENOMEM, "out of memory");
	free(cfg->config_file);
	cfg->config_file = copy;
	return 0;
}

int
config_load_secrets(struct config *cfg, const char *path, struct error *err)
{
	struct reader rd = { .cfg = cfg, .path = path, .secrets_only = true, .private = true };

	return load(&rd, err);
}

void
config_env_name(const char *key, char *ret_name, size_t room)
{
	size_t i;

	(void)snprintf(ret_name, room, "TBFS_%s", key);
	for (i = 0; ret_name[i] != '\0'; i++)
		ret_name[i] = ret_name[i] == '.' ? '_' : (char)toupper((unsigned char)ret_name[i]);
}

static int
load_variable(struct config *cfg, const struct config_option *opt, const char *name,
    enum config_source source, struct error *err)
{
	const char *value = name != NULL ? getenv(name) : NULL;

	if (value == NULL || value[0] == '\0')	/* compose files pass empty ones for unset */
		return 0;
	return config_set(cfg, opt->key, value, source, name, err);
}

/* A TBFS_ variable that is nearly a key is a mistake to tell; others belong to somebody else. */
static void
warn_misspelled(void)
{
	char name[KEY_MAX_LEN], key[KEY_MAX_LEN];
	const char *closest;
	char **var;
	size_t i, j, n;

	for (var = environ; *var != NULL; var++) {
		if (strncmp(*var, "TBFS_", 5) != 0)
			continue;
		n = strcspn(*var, "=");
		if (n >= sizeof(name))
			continue;
		(void)snprintf(name, sizeof(name), "%.*s", (int)n, *var);
		for (i = 0; i < config_option_count; i++) {
			config_env_name(config_options[i].key, key, sizeof(key));
			if (strcmp(key, name) == 0)
				break;
		}
		if (i < config_option_count)
			continue;
		for (j = 5; j <= n; j++)
			key[j - 5] = (char)tolower((unsigned char)name[j]);
		closest = config_option_closest(key);
		if (closest == NULL)
			continue;
		config_env_name(closest, key, sizeof(key));
		log_warn("the environment has %s, which is no key: %s?", name, key);
	}
}

int
config_load_env(struct config *cfg, struct error *err)
{
	char name[KEY_MAX_LEN];
	size_t i;
	int r = 0;

	cfg->env_loaded = true;
	for (i = 0; i < config_option_count && r == 0; i++) {
		config_env_name(config_options[i].key, name, sizeof(name));
		r = load_variable(cfg, &config_options[i], config_options[i].env, CONFIG_SERVICE, err);
		if (r == 0)
			r = load_variable(cfg, &config_options[i], name, CONFIG_ENV, err);
	}
	if (r == 0)
		warn_misspelled();
	return r;
}

int
config_load_service_env(struct config *cfg, struct error *err)
{
	size_t i;
	int r = 0;

	for (i = 0; i < config_option_count && r == 0; i++) {
		const struct config_option *opt = &config_options[i];
		const char *name = cfg->backend == CONFIG_BACKEND_S3 ? opt->env_s3 :
		    cfg->backend == CONFIG_BACKEND_MINIO ? opt->env_minio : NULL;

		r = load_variable(cfg, opt, name, CONFIG_SERVICE, err);
	}
	return r;
}
