/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The spelling e(name) of a name that is no UTF-8 is ASCII, with '%' only before two
 * upper-case digits that stand for '%' or a byte from 0x80 on.  A valid name that is
 * e(x) for an x that is spelt e(x) would be its double; so it is escaped too, and so is
 * in turn the name that this one is spelt as.  Undoing e() until it doesn't apply any
 * more tells which.
 */
#include "processor/plain_name.h"

#include "base/cleanup.h"

#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS_MAX = 8 };

/* jansson knows UTF-8. */
static bool
is_utf8(const char *text)
{
	json_t *string = json_string(text);

	json_decref(string);
	return string != NULL;
}

static int
hex_digit(char c)
{
	static const char digits[] = "0123456789ABCDEF";
	const char *p = c != '\0' ? strchr(digits, c) : NULL;

	return p != NULL ? (int)(p - digits) : -1;
}

/* Undo the escapes in place; false: nothing is escaped, or not as we do it. */
static bool
unescape(char *text)
{
	char *in, *out = text;
	bool any = false;

	for (in = text; *in != '\0'; in++) {
		int byte = (unsigned char)*in;

		if (byte >= 0x80)
			return false;
		if (byte == '%') {
			if (hex_digit(in[1]) < 0 || hex_digit(in[2]) < 0)
				return false;
			byte = hex_digit(in[1]) << 4 | hex_digit(in[2]);
			if (byte < 0x80 && byte != '%')
				return false;
			in += 2;
			any = true;
		}
		*out++ = (char)byte;
	}
	*out = '\0';
	return any;
}

/* Is the name spelt like one that isn't UTF-8?  One that was escaped over and over counts as
 * such, however that would end. */
static bool
reads_like_escaped(const char *name)
{
	CLEANUP_FREE char *text = strdup(name);
	unsigned rounds = 0;

	while (text != NULL && unescape(text))
		if (!is_utf8(text) || ++rounds == ROUNDS_MAX)
			return true;
	return false;
}

bool
plain_name(const char *name, struct strbuf *out)
{
	const unsigned char *p;

	if (is_utf8(name) && !reads_like_escaped(name)) {
		strbuf_addstr(out, name);
		return false;
	}
	for (p = (const unsigned char *)name; *p != '\0'; p++) {
		if (*p >= 0x80 || *p == '%')
			strbuf_addf(out, "%%%02X", *p);
		else
			strbuf_addch(out, (char)*p);
	}
	return true;
}

void
base64_name(const char *name, struct strbuf *out)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const unsigned char *p = (const unsigned char *)name;
	size_t len = strlen(name), i;

	for (i = 0; i < len; i += 3) {
		uint32_t v = (uint32_t)p[i] << 16 | (i + 1 < len ? (uint32_t)p[i + 1] << 8 : 0) |
		    (i + 2 < len ? p[i + 2] : 0);

		strbuf_addch(out, digits[v >> 18]);
		strbuf_addch(out, digits[v >> 12 & 63]);
		strbuf_addch(out, i + 1 < len ? digits[v >> 6 & 63] : '=');
		strbuf_addch(out, i + 2 < len ? digits[v & 63] : '=');
	}
}
