/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The schema of a file's entry, as a table.  The worker's JSON is parsed with
 * bounds, and a new object is built from the rules: what has no rule, the wrong
 * type or a value out of range isn't carried over.  The order of the rules is
 * the order in meta.json, so equal files give equal bytes.
 *
 * No threads, no locks, no state.
 */
#include "processor/entry.h"

#include "base/digest.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum rule_type { RULE_TEXT, RULE_WORD, RULE_KIND, RULE_INT, RULE_REAL, RULE_OBJECT };

struct rule {
	const char *key;
	enum rule_type type;
	double low, high;		/* range of numbers; high: most bytes of a word */
	const struct rule *inner;	/* of an object */
};

static const struct rule camera_rules[] = {
	{ "make", RULE_TEXT },
	{ "model", RULE_TEXT },
	{ "lens", RULE_TEXT },
	{ NULL },
};

static const struct rule gps_rules[] = {
	{ "lat", RULE_REAL, -90, 90 },
	{ "lon", RULE_REAL, -180, 180 },
	{ "alt", RULE_REAL, -20000, 1e6 },
	{ NULL },
};

static const struct rule video_rules[] = {
	{ "codec", RULE_WORD, 0, 63 },
	{ "width", RULE_INT, 1, 4294967295.0 },
	{ "height", RULE_INT, 1, 4294967295.0 },
	{ "rotation", RULE_INT, 0, 270 },
	{ "frame_rate", RULE_REAL, 0, 1e6 },
	{ "bit_rate", RULE_INT, 1, 1e12 },
	{ NULL },
};

static const struct rule audio_rules[] = {
	{ "codec", RULE_WORD, 0, 63 },
	{ "channels", RULE_INT, 1, 1024 },
	{ "sample_rate", RULE_INT, 1, 1e8 },
	{ NULL },
};

static const struct rule error_rules[] = {
	{ "stage", RULE_WORD, 0, 15 },
	{ "code", RULE_WORD, 0, 31 },
	{ "message", RULE_TEXT },
	{ NULL },
};

static const struct rule entry_rules[] = {
	{ "mime", RULE_WORD, 0, 127 },
	{ "kind", RULE_KIND },
	{ "width", RULE_INT, 1, 4294967295.0 },
	{ "height", RULE_INT, 1, 4294967295.0 },
	{ "orientation", RULE_INT, 1, 8 },
	{ "taken_at", RULE_WORD, 0, 63 },
	{ "camera", RULE_OBJECT, 0, 0, camera_rules },
	{ "gps", RULE_OBJECT, 0, 0, gps_rules },
	{ "duration", RULE_REAL, 0, 1e9 },
	{ "video", RULE_OBJECT, 0, 0, video_rules },
	{ "audio", RULE_OBJECT, 0, 0, audio_rules },
	{ "error", RULE_OBJECT, 0, 0, error_rules },
	{ NULL },
};

/* Printable ASCII without quotes, backslash or space: names, dates, types. */
static bool
rule_word(const char *s, size_t len, double most)
{
	size_t i;

	for (i = 0; i < len; i++)
		if (s[i] <= 0x20 || s[i] >= 0x7f || s[i] == '"' || s[i] == '\\' || s[i] == '<')
			return false;
	return len > 0 && (double)len <= most;
}

/* Jansson has checked the UTF-8; controls and empty fields aren't text. */
static bool
rule_text(const char *s, size_t len, const struct extract_limits *limits)
{
	size_t i;

	for (i = 0; i < len; i++)
		if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f)
			return false;
	return len > 0 && len <= limits->text_bytes;
}

static bool
rule_kind(const char *s)
{
	return strcmp(s, "photo") == 0 || strcmp(s, "video") == 0 || strcmp(s, "audio") == 0 ||
	    strcmp(s, "other") == 0;
}

static json_t *rules_apply(const struct rule *rules, json_t *from,
    const struct extract_limits *limits);

/* A fresh value by the rule, or NULL: not carried over. */
static json_t *
rule_apply(const struct rule *rule, json_t *value, const struct extract_limits *limits)
{
	const char *s = json_string_value(value);
	size_t len = json_string_length(value);
	json_t *object;

	switch (rule->type) {
	case RULE_TEXT:
		return s != NULL && rule_text(s, len, limits) ? json_stringn(s, len) : NULL;
	case RULE_WORD:
		return s != NULL && rule_word(s, len, rule->high) ? json_stringn(s, len) : NULL;
	case RULE_KIND:
		return s != NULL && rule_kind(s) ? json_stringn(s, len) : NULL;
	case RULE_INT:
		if (!json_is_integer(value) || (double)json_integer_value(value) < rule->low ||
		    (double)json_integer_value(value) > rule->high)
			return NULL;
		return json_integer(json_integer_value(value));
	case RULE_REAL:
		if (!json_is_number(value) || !isfinite(json_number_value(value)) ||
		    json_number_value(value) < rule->low || json_number_value(value) > rule->high)
			return NULL;
		return json_is_integer(value) ? json_integer(json_integer_value(value)) :
		    json_real(json_real_value(value));
	case RULE_OBJECT:
		object = json_is_object(value) ? rules_apply(rule->inner, value, limits) : NULL;
		if (object != NULL && json_object_size(object) == 0) {
			json_decref(object);
			return NULL;
		}
		return object;
	}
	return NULL;
}

static json_t *
rules_apply(const struct rule *rules, json_t *from, const struct extract_limits *limits)
{
	json_t *to = json_object();

	for (; to != NULL && rules->key != NULL; rules++) {
		json_t *value = json_object_get(from, rules->key);

		if (value == NULL)
			continue;
		value = rule_apply(rules, value, limits);
		if (value != NULL)
			(void)json_object_set_new(to, rules->key, value);
	}
	return to;
}

static json_t *
entry_parse(const char *text, size_t len)
{
	json_error_t e;
	json_t *root;

	if (text == NULL)
		return NULL;
	root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &e);
	if (root != NULL && !json_is_object(root)) {
		json_decref(root);
		root = NULL;
	}
	return root;
}

bool
entry_valid(const char *text, size_t len)
{
	json_t *root = entry_parse(text, len);

	json_decref(root);
	return root != NULL;
}

/* Half a position is none. */
static void
entry_whole_gps(json_t *entry)
{
	json_t *gps = json_object_get(entry, "gps");

	if (gps == NULL)
		return;
	if ((json_object_get(gps, "lat") == NULL) != (json_object_get(gps, "lon") == NULL)) {
		(void)json_object_del(gps, "lat");
		(void)json_object_del(gps, "lon");
	}
	if (json_object_size(gps) == 0)
		(void)json_object_del(entry, "gps");
}

static int
entry_add_own(json_t *entry, const struct entry_options *o, json_t *fields)
{
	char hex[2 * SHA256_LEN + 1];
	int bad = 0;

	if (o->sum != NULL) {
		hex_encode(o->sum, SHA256_LEN, hex);
		bad |= json_object_set_new(entry, "sha256", json_string(hex));
	}
	if (json_object_get(fields, "mime") == NULL)
		bad |= json_object_set_new(entry, "mime", json_string("application/octet-stream"));
	if (json_object_get(fields, "kind") == NULL)
		bad |= json_object_set_new(entry, "kind", json_string("other"));
	bad |= json_object_update(entry, fields);
	if (o->code != NULL)
		bad |= json_object_set_new(entry, "error", json_pack("{s:s, s:s, s:s}", "stage",
		    o->stage, "code", o->code, "message", o->message));
	return bad ? -ENOMEM : 0;
}

int
entry_build(const char *text, size_t len, const struct entry_options *o,
    struct extract_result *ret)
{
	json_t *root = entry_parse(text, len);
	json_t *fields = rules_apply(entry_rules, root, o->limits);
	json_t *entry = json_object();
	int r = -ENOMEM;

	if (fields != NULL && entry != NULL) {
		entry_whole_gps(fields);
		r = entry_add_own(entry, o, fields);
	}
	if (r == 0) {
		ret->json = json_dumps(entry, JSON_COMPACT | JSON_REAL_PRECISION(12));
		r = ret->json != NULL ? 0 : -ENOMEM;
	}
	if (r == 0) {
		(void)snprintf(ret->mime, sizeof(ret->mime), "%s",
		    json_string_value(json_object_get(entry, "mime")));
		(void)snprintf(ret->kind, sizeof(ret->kind), "%s",
		    json_string_value(json_object_get(entry, "kind")));
		ret->failed = json_object_get(entry, "error") != NULL;
	}
	json_decref(root);
	json_decref(fields);
	json_decref(entry);
	return r;
}
