/* SPDX-License-Identifier: GPL-3.0-or-later */
/* How answers look on a terminal and in a pipe. */
#include "base/clock.h"
#include "cmd/cmd.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *
show_size(json_int_t bytes)
{
	static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB" };
	static char text[4][32];
	static unsigned next;
	char *out = text[next++ % 4];
	double value = (double)bytes;
	size_t i = 0;

	while (value >= 1024 && i + 1 < sizeof(units) / sizeof(units[0])) {
		value /= 1024;
		i++;
	}
	(void)snprintf(out, sizeof(text[0]), i == 0 ? "%.0f %s" : "%.1f %s", value, units[i]);
	return out;
}

const char *
show_age(double seconds)
{
	static char text[4][32];
	static unsigned next;
	char *out = text[next++ % 4];
	long s = seconds < 0 ? 0 : (long)seconds;

	if (s < 60)
		(void)snprintf(out, sizeof(text[0]), "%ld s", s);
	else if (s < 3600)
		(void)snprintf(out, sizeof(text[0]), "%ld min %ld s", s / 60, s % 60);
	else if (s < 86400)
		(void)snprintf(out, sizeof(text[0]), "%ld h %ld min", s / 3600, s / 60 % 60);
	else
		(void)snprintf(out, sizeof(text[0]), "%ld d %ld h", s / 86400, s / 3600 % 24);
	return out;
}

void
show_text(FILE *out, const char *text)
{
	for (; *text != '\0'; text++) {
		unsigned char c = (unsigned char)*text;

		if (c < 0x20 || c == 0x7f)
			(void)fprintf(out, "%%%02X", c);
		else if (c == 0xc2 && ((unsigned char)text[1] & 0xe0) == 0x80)
			/* U+0080..9F: a terminal takes them for controls. */
			(void)fprintf(out, "%%C2%%%02X", (unsigned char)*++text);
		else
			(void)fputc(c, out);
	}
}

static void
show_member(FILE *out, const char *prefix, const char *key, const json_t *value)
{
	char name[128];
	char *text;

	(void)snprintf(name, sizeof(name), "%s%s%s", prefix, prefix[0] != '\0' ? "." : "", key);
	if (json_is_object(value)) {
		const char *member;
		json_t *inner;

		json_object_foreach((json_t *)(uintptr_t)value, member, inner)
			show_member(out, name, member, inner);
		return;
	}
	(void)fprintf(out, "%-16s ", name);
	if (json_is_string(value)) {
		show_text(out, json_string_value(value));
	} else {
		text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
		show_text(out, text != NULL ? text : "?");
		free(text);
	}
	(void)fputc('\n', out);
}

void
show_object(FILE *out, const json_t *object)
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)(uintptr_t)object, key, value)
		if (strcmp(key, "exit") != 0 && strcmp(key, "error") != 0)
			show_member(out, "", key, value);
}

enum { BAR_WIDTH = 30, PLAIN_LINE_S = 5 };

static double
now_s(void)
{
	return (double)clock_mono_ns() / 1e9;
}

void
show_progress_init(struct show_progress *p)
{
	p->terminal = isatty(STDERR_FILENO);
	p->drawn = false;
	p->next = now_s() + 1;
}

static void
draw_bar(struct show_progress *p, double part, const char *text)
{
	char bar[BAR_WIDTH + 1];
	int i;

	for (i = 0; i < BAR_WIDTH; i++)
		bar[i] = (i + 0.5) / BAR_WIDTH < part ? '#' : '-';
	bar[BAR_WIDTH] = '\0';
	(void)fprintf(stderr, "\r[%s] %3.0f%% %s\033[K", bar, part * 100, text);
	(void)fflush(stderr);
	p->drawn = true;
}

void
show_progress_line(void *progress, const json_t *line)
{
	struct show_progress *p = progress;
	const json_t *total = json_object_get(line, "files_total");
	json_int_t files;
	char text[160];
	double part;

	if (total == NULL)
		return;
	files = json_integer_value(json_object_get(line, "files_done"));
	(void)snprintf(text, sizeof(text), "%lld of %lld files", (long long)files,
	    (long long)json_integer_value(total));
	part = json_integer_value(total) > 0 ? (double)files / (double)json_integer_value(total) : 1;
	part = part < 0 ? 0 : part > 1 ? 1 : part;
	if (p->terminal) {
		draw_bar(p, part, text);
	} else if (now_s() >= p->next) {
		(void)fprintf(stderr, "%s\n", text);
		p->next = now_s() + PLAIN_LINE_S;
	}
}

void
show_progress_end(struct show_progress *p)
{
	if (p->drawn)
		(void)fputs("\r\033[K", stderr);
	p->drawn = false;
}
