/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * One value: from text into its typed field.  The field is written only when
 * the whole text is understood and in range.
 */
#include "base/clock.h"
#include "config/table.h"

#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

struct unit {
	const char *suffix;
	int64_t factor;
};

static const struct unit duration_units[] = {
	{ "d", 86400 * NSEC_PER_SEC }, { "h", 3600 * NSEC_PER_SEC }, { "m", 60 * NSEC_PER_SEC },
	{ "s", NSEC_PER_SEC }, { "ms", NSEC_PER_SEC / 1000 }, { NULL, 0 },
};
static const struct unit size_units[] = {
	{ "T", 1LL << 40 }, { "G", 1LL << 30 }, { "M", 1LL << 20 }, { "K", 1LL << 10 }, { NULL, 0 },
};

/* Decimal digits at *text, without sign or space; moves *text behind them. */
static int
parse_digits(const char **text, int64_t *ret_value)
{
	const char *p = *text;
	int64_t value = 0;

	if (*p < '0' || *p > '9')
		return -EINVAL;
	for (; *p >= '0' && *p <= '9'; p++)
		if (__builtin_mul_overflow(value, 10, &value) ||
		    __builtin_add_overflow(value, *p - '0', &value))
			return -EINVAL;
	*text = p;
	*ret_value = value;
	return 0;
}

/* Digits and one of the suffixes; without suffix times `plain`. */
static int
parse_unit(const char *text, const struct unit *units, int64_t plain, int64_t *ret_value)
{
	int64_t value;

	if (parse_digits(&text, &value) < 0)
		return -EINVAL;
	if (*text == '\0')
		return __builtin_mul_overflow(value, plain, ret_value) ? -EINVAL : 0;
	for (; units->suffix != NULL; units++)
		if (strcasecmp(text, units->suffix) == 0)
			return __builtin_mul_overflow(value, units->factor, ret_value) ? -EINVAL : 0;
	return -EINVAL;
}

int
config_parse_duration(const char *text, int64_t *ret_ns)
{
	return parse_unit(text, duration_units, NSEC_PER_SEC, ret_ns);
}

int
config_parse_size(const char *text, int64_t *ret_bytes)
{
	return parse_unit(text, size_units, 1, ret_bytes);
}

static int
parse_bool(const char *text, bool *ret_value)
{
	static const char *const words[] = { "no", "yes", "off", "on", "false", "true", "0", "1" };
	size_t i;

	for (i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (strcasecmp(text, words[i]) == 0) {
			*ret_value = i & 1;
			return 0;
		}
	}
	return -EINVAL;
}

static int
parse_mode(const char *text, uint32_t *ret_value)
{
	uint32_t value = 0;
	const char *p;

	if (*text == '\0' || strlen(text) > 5)
		return -EINVAL;
	for (p = text; *p != '\0'; p++) {
		if (*p < '0' || *p > '7')
			return -EINVAL;
		value = value * 8 + (uint32_t)(*p - '0');
	}
	if (value > 07777)
		return -EINVAL;
	*ret_value = value;
	return 0;
}

static int
parse_id(const struct config_option *opt, const char *text, uint32_t *ret_value)
{
	const char *p = text;
	int64_t value;

	if (parse_digits(&p, &value) == 0 && *p == '\0') {
		if (value >= CONFIG_UNSET)
			return -EINVAL;
		*ret_value = (uint32_t)value;
		return 0;
	}
	if (opt->type == TYPE_USER) {
		const struct passwd *pw = getpwnam(text);

		if (pw == NULL)
			return -EINVAL;
		*ret_value = pw->pw_uid;
	} else {
		const struct group *gr = getgrnam(text);

		if (gr == NULL)
			return -EINVAL;
		*ret_value = gr->gr_gid;
	}
	return 0;
}

/* The three types whose value is a number within min and max. */
static int
parse_ranged(const struct config_option *opt, const char *text, void *field)
{
	int64_t value;
	int r;

	if (opt->type == TYPE_DURATION)
		r = parse_unit(text, duration_units, NSEC_PER_SEC, &value);
	else
		r = parse_unit(text, opt->type == TYPE_SIZE ? size_units : size_units + 4, 1, &value);
	if (r < 0 || value < opt->min || value > opt->max)
		return -EINVAL;
	if (opt->type == TYPE_INT)
		*(unsigned *)field = (unsigned)value;
	else if (opt->type == TYPE_SIZE)
		*(uint64_t *)field = (uint64_t)value;
	else
		*(int64_t *)field = value;
	return 0;
}

/* An empty string means unset, so that a file can take a value back. */
static int
parse_string(const struct config_option *opt, const char *text, char **field)
{
	char *copy = NULL;

	if (opt->type == TYPE_PATH && text[0] != '\0' && text[0] != '/')
		return -EINVAL;
	if (text[0] != '\0') {
		copy = strdup(text);
		if (copy == NULL)
			return -ENOMEM;
	}
	free(*field);
	*field = copy;
	return 0;
}

static int
parse_word(const struct config_option *opt, const char *text, unsigned *ret_value)
{
	unsigned i;
	bool yes;

	for (i = 0; opt->words[i] != NULL; i++) {
		if (strcasecmp(text, opt->words[i]) == 0) {
			*ret_value = i;
			return 0;
		}
	}
	/* auto/yes/no and auto/on/off also take the other spellings of a bool. */
	if (strcmp(opt->words[0], "auto") == 0 && parse_bool(text, &yes) == 0) {
		*ret_value = yes ? CONFIG_YES : CONFIG_NO;
		return 0;
	}
	return -EINVAL;
}

int
config_value_parse(const struct config_option *opt, const char *text, struct config *cfg)
{
	void *field = (char *)cfg + opt->offset;

	switch (opt->type) {
	case TYPE_STRING:
	case TYPE_PATH:
		return parse_string(opt, text, field);
	case TYPE_BOOL:
		return parse_bool(text, field);
	case TYPE_INT:
	case TYPE_SIZE:
	case TYPE_DURATION:
		return parse_ranged(opt, text, field);
	case TYPE_ENUM:
		return parse_word(opt, text, field);
	case TYPE_MODE:
		return parse_mode(text, field);
	case TYPE_USER:
	case TYPE_GROUP:
		return parse_id(opt, text, field);
	}
	return -EINVAL;
}

void
config_value_unset(const struct config_option *opt, struct config *cfg)
{
	void *field = (char *)cfg + opt->offset;

	switch (opt->type) {
	case TYPE_STRING:
	case TYPE_PATH:
		free(*(char **)field);
		*(char **)field = NULL;
		break;
	case TYPE_MODE:
	case TYPE_USER:
	case TYPE_GROUP:
		*(uint32_t *)field = CONFIG_UNSET;
		break;
	default:
		break;			/* the others always have a default */
	}
}

static void
add_unit(struct strbuf *b, int64_t value, const struct unit *units)
{
	for (; value != 0 && units->suffix != NULL; units++) {
		if (value % units->factor == 0) {
			strbuf_addf(b, "%" PRId64 "%s", value / units->factor, units->suffix);
			return;
		}
	}
	strbuf_addf(b, "%" PRId64, value);
}

static void
add_range(struct strbuf *b, const struct config_option *opt, const struct unit *units)
{
	strbuf_addstr(b, " from ");
	add_unit(b, opt->min, units);
	if (opt->max != INT64_MAX) {
		strbuf_addstr(b, " to ");
		add_unit(b, opt->max, units);
	}
}

void
config_value_allowed(const struct config_option *opt, struct strbuf *ret_text)
{
	size_t i;

	switch (opt->type) {
	case TYPE_STRING:
		strbuf_addstr(ret_text, "text");
		break;
	case TYPE_PATH:
		strbuf_addstr(ret_text, "an absolute path");
		break;
	case TYPE_BOOL:
		strbuf_addstr(ret_text, "yes or no");
		break;
	case TYPE_INT:
		strbuf_addstr(ret_text, "a number");
		add_range(ret_text, opt, size_units + 4);
		break;
	case TYPE_SIZE:
		strbuf_addstr(ret_text, "bytes, or a size such as 64K, 512M, 20G, 2T,");
		add_range(ret_text, opt, size_units);
		break;
	case TYPE_DURATION:
		strbuf_addstr(ret_text, "seconds, or a time such as 500ms, 2s, 10m, 1h, 7d,");
		add_range(ret_text, opt, duration_units);
		break;
	case TYPE_ENUM:
		for (i = 0; opt->words[i] != NULL; i++)
			strbuf_addf(ret_text, "%s%s", i == 0 ? "" : opt->words[i + 1] ? ", " : " or ",
			    opt->words[i]);
		break;
	case TYPE_MODE:
		strbuf_addstr(ret_text, "an octal mode from 0 to 7777");
		break;
	case TYPE_USER:
		strbuf_addstr(ret_text, "a user of this machine, by name or number");
		break;
	case TYPE_GROUP:
		strbuf_addstr(ret_text, "a group of this machine, by name or number");
		break;
	}
}
