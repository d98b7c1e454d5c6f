/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The words after `-o`, and the name that a mountpoint gives to its state.
 *
 * mount(8) hands every option of fstab on to its helper: some mean something to
 * the kernel and go into the mount call, some mean something to others
 * (systemd, mount itself) and are ignored, the rest are keys.  libfuse refuses
 * what it does not know, so the list of the kept ones is the list of libfuse.
 */
#include "base/cleanup.h"
#include "config/table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* For the mount call: what libfuse 3.14 and fusermount3 understand. */
static const char *const kept_options[] = {
	"ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "async", "sync", "dirsync",
	"noatime", NULL,
};
/* For mount(8), fstab and systemd; a trailing '*' stands for any rest. */
static const char *const ignored_options[] = {
	"defaults", "auto", "noauto", "nofail", "fail", "_netdev", "user", "user=*", "nouser", "users",
	"nousers", "owner", "noowner", "group", "nogroup", "atime", "diratime", "relatime",
	"norelatime", "strictatime", "nostrictatime", "lazytime", "nolazytime", "iversion",
	"noiversion", "silent", "loud", "mand", "nomand", "comment=*", "x-*", "X-*", "_rnetdev",
	"default_permissions",
	/* What mount(8) reads from the mount itself for a remount. */
	"user_id=*", "group_id=*", "max_read=*", NULL,
};

static bool
listed(const char *const *list, const char *word)
{
	for (; *list != NULL; list++) {
		size_t n = strlen(*list);

		if ((*list)[n - 1] == '*' ? strncmp(*list, word, n - 1) == 0 : strcmp(*list, word) == 0)
			return true;
	}
	return false;
}

static int
keep_option(struct config *cfg, const char *word)
{
	const char *old = cfg->mount_options != NULL ? cfg->mount_options : "";
	char *joined;

	if (asprintf(&joined, "%s%s%s", old, old[0] != '\0' ? "," : "", word) < 0)
		return -ENOMEM;
	free(cfg->mount_options);
	cfg->mount_options = joined;
	return 0;
}

/* The next option of *text, unescaped into `word` (room for all of it); false at the end. */
static bool
next_option(const char **text, char *word)
{
	const char *p = *text;

	while (*p == ',')
		p++;
	if (*p == '\0')
		return false;
	for (; *p != '\0' && *p != ','; p++) {
		if (p[0] == '\\' && (p[1] == ',' || p[1] == '\\'))
			p++;
		*word++ = *p;
	}
	*word = '\0';
	*text = p;
	return true;
}

static int
take_option(struct config *cfg, char *word, bool sloppy, struct error *err)
{
	char *equal;

	/* The kernel leaves these times to a FUSE file system. */
	if (strcmp(word, "noatime") == 0 || strcmp(word, "ro") == 0)
		cfg->noatime = true;
	if (strcmp(word, "nodiratime") == 0) {
		cfg->nodiratime = true;
		return 0;
	}
	if (listed(kept_options, word)) {
		if (keep_option(cfg, word) < 0)
			return error_set(err, -ENOMEM, "out of memory");
		return 0;
	}
	if (listed(ignored_options, word))
		return 0;
	if (strcmp(word, "remount") == 0) {
		cfg->remount = true;
		return 0;
	}
	equal = strchr(word, '=');
	if (equal != NULL) {
		*equal = '\0';
	} else {
		const struct config_option *opt = config_option_find(word);

		if (opt != NULL && opt->type != TYPE_BOOL)
			return error_set(err, -EINVAL, "-o: %s needs a value", word);
	}
	if (sloppy && config_option_find(word) == NULL)
		return 0;
	return config_set(cfg, word, equal != NULL ? equal + 1 : "yes", CONFIG_OPTION, "-o", err);
}

/* Remembered for config_reload(). */
static int
remember(struct config *cfg, const char *text, bool sloppy)
{
	const char *old = cfg->option_text != NULL ? cfg->option_text : "";
	char *joined;

	if (asprintf(&joined, "%s%s%s", old, old[0] != '\0' ? "," : "", text) < 0)
		return -ENOMEM;
	if (cfg->option_text != NULL)
		explicit_bzero(cfg->option_text, strlen(cfg->option_text));
	free(cfg->option_text);
	cfg->option_text = joined;
	cfg->option_sloppy |= sloppy;
	return 0;
}

int
config_parse_mount_options(struct config *cfg, const char *text, bool sloppy, struct error *err)
{
	char *word = malloc(strlen(text) + 1);
	const char *rest = text;
	int r = 0;

	if (word == NULL || remember(cfg, text, sloppy) < 0) {
		free(word);
		return error_set(err, -ENOMEM, "out of memory");
	}
	while (r == 0 && next_option(&rest, word))
		r = take_option(cfg, word, sloppy, err);
	explicit_bzero(word, strlen(text));
	free(word);
	return r;
}

void
config_scrub_options(char *text)
{
	size_t i;

	for (i = 0; i < config_option_count; i++) {
		char needle[64], *p = text;

		if (!(config_options[i].flags & OPTION_SECRET))
			continue;
		(void)snprintf(needle, sizeof(needle), "%s=", config_options[i].key);
		while ((p = strstr(p, needle)) != NULL) {
			for (p += strlen(needle); *p != '\0' && *p != ','; p++) {
				if (p[0] == '\\' && p[1] != '\0')
					*p++ = '*';
				*p = '*';
			}
		}
	}
}

/*
 * systemd.unit(5), "String escaping for inclusion in unit names", with paths:
 * slashes at the ends go, several are one, "/" is "-"; a leading dot and every
 * byte but letters, digits, ':', '_', '.' become \xHH; '/' becomes '-'.
 */
char *
config_escape_path(const char *path)
{
	CLEANUP_STRBUF struct strbuf out = STRBUF_INIT;
	const char *p = path;

	while (*p == '/')
		p++;
	if (*p == '\0')
		return strdup("-");
	for (; *p != '\0'; p++) {
		unsigned char c = (unsigned char)*p;

		if (c == '/') {
			if (p[1] != '/' && p[1] != '\0')
				strbuf_addch(&out, '-');
		} else if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
		    c == ':' || c == '_' || (c == '.' && out.len > 0)) {
			strbuf_addch(&out, (char)c);
		} else {
			strbuf_addf(&out, "\\x%02x", c);
		}
	}
	return strbuf_ok(&out) ? TAKE_PTR(out.data) : NULL;
}
