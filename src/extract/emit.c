/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A file's entry as JSON.  The daemon checks and rebuilds it (processor/entry.c),
 * so this only has to be well-formed: texts are valid UTF-8 without controls
 * by then (text.c).
 */
#include "extract/meta.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void
meta_fail(struct meta *m, enum extract_stage stage, const char *code, const char *fmt, ...)
{
	va_list ap;
	char *p;

	if (m->error.code != NULL)
		return;
	m->error.stage = stage;
	m->error.code = code;
	va_start(ap, fmt);
	(void)vsnprintf(m->error.message, sizeof(m->error.message), fmt, ap);
	va_end(ap);
	/* Libraries put anything into their messages. */
	for (p = m->error.message; *p != '\0'; p++)
		if (*p < 0x20 || *p >= 0x7f)
			*p = ' ';
	while (p > m->error.message && p[-1] == ' ')
		*--p = '\0';
}

void
meta_cut_short(struct meta *m, enum extract_stage stage, const char *message)
{
	if (m->error.code != NULL && strcmp(m->error.code, "corrupt") == 0)
		m->error.code = "truncated";
	meta_fail(m, stage, "truncated", "%s", message);
}

static void
emit_string(struct strbuf *b, const char *s)
{
	strbuf_addch(b, '"');
	for (; *s != '\0'; s++) {
		if (*s == '"' || *s == '\\')
			strbuf_addch(b, '\\');
		strbuf_addch(b, *s);
	}
	strbuf_addch(b, '"');
}

/* `"key":`, after a comma unless it is the first of its object. */
static void
emit_key(struct strbuf *b, const char *key)
{
	if (b->len > 0 && b->data[b->len - 1] != '{')
		strbuf_addch(b, ',');
	strbuf_addf(b, "\"%s\":", key);
}

static void
emit_text(struct strbuf *b, const char *key, const char *text)
{
	if (text[0] == '\0')
		return;
	emit_key(b, key);
	emit_string(b, text);
}

static void
emit_uint(struct strbuf *b, const char *key, uint64_t value)
{
	if (value == 0)
		return;
	emit_key(b, key);
	strbuf_addf(b, "%ju", (uintmax_t)value);
}

/* A number with at most `digits` decimals and no trailing zeros. */
static void
emit_real(struct strbuf *b, const char *key, double value, int digits)
{
	char text[64];
	size_t n;

	if (!isfinite(value) || fabs(value) > 1e15)
		return;
	(void)snprintf(text, sizeof(text), "%.*f", digits, value);
	n = strlen(text);
	while (n > 0 && text[n - 1] == '0')
		n--;
	if (n > 0 && text[n - 1] == '.')
		n--;
	text[n] = '\0';
	emit_key(b, key);
	strbuf_addstr(b, strcmp(text, "-0") == 0 ? "0" : text);
}

static void
emit_open(struct strbuf *b, const char *key)
{
	emit_key(b, key);
	strbuf_addch(b, '{');
}

static void
emit_camera(const struct meta *m, struct strbuf *b)
{
	if (m->make[0] == '\0' && m->model[0] == '\0' && m->lens[0] == '\0')
		return;
	emit_open(b, "camera");
	emit_text(b, "make", m->make);
	emit_text(b, "model", m->model);
	emit_text(b, "lens", m->lens);
	strbuf_addch(b, '}');
}

static void
emit_gps(const struct meta *m, struct strbuf *b)
{
	if (!m->has_position && !m->has_altitude)
		return;
	emit_open(b, "gps");
	if (m->has_position) {
		emit_real(b, "lat", m->lat, 8);
		emit_real(b, "lon", m->lon, 8);
	}
	if (m->has_altitude)
		emit_real(b, "alt", m->alt, 4);
	strbuf_addch(b, '}');
}

static void
emit_streams(const struct meta *m, struct strbuf *b)
{
	if (m->has_duration)
		emit_real(b, "duration", m->duration, 3);
	if (m->video.codec[0] != '\0') {
		emit_open(b, "video");
		emit_text(b, "codec", m->video.codec);
		emit_uint(b, "width", m->video.width);
		emit_uint(b, "height", m->video.height);
		emit_key(b, "rotation");
		strbuf_addf(b, "%u", m->video.rotation);
		if (m->video.frame_rate > 0)
			emit_real(b, "frame_rate", m->video.frame_rate, 3);
		if (m->video.bit_rate > 0)
			emit_uint(b, "bit_rate", (uint64_t)m->video.bit_rate);
		strbuf_addch(b, '}');
	}
	if (m->audio.codec[0] != '\0') {
		emit_open(b, "audio");
		emit_text(b, "codec", m->audio.codec);
		emit_uint(b, "channels", m->audio.channels);
		emit_uint(b, "sample_rate", m->audio.sample_rate);
		strbuf_addch(b, '}');
	}
}

void
meta_emit(const struct meta *m, struct strbuf *b)
{
	static const char *const kinds[] = { "other", "photo", "video", "audio" };

	strbuf_addch(b, '{');
	emit_text(b, "mime", m->mime);
	emit_text(b, "kind", kinds[m->kind]);
	emit_uint(b, "width", m->width);
	emit_uint(b, "height", m->height);
	emit_uint(b, "orientation", m->orientation);
	emit_text(b, "taken_at", m->taken_at);
	emit_camera(m, b);
	emit_gps(m, b);
	emit_streams(m, b);
	if (m->error.code != NULL) {
		emit_open(b, "error");
		emit_text(b, "stage", extract_stage_name(m->error.stage));
		emit_text(b, "code", m->error.code);
		emit_text(b, "message", m->error.message);
		strbuf_addch(b, '}');
	}
	strbuf_addch(b, '}');
}
