/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_BASE_STRBUF_H
#define TBFS_BASE_STRBUF_H

/*
 * A growing byte buffer, always NUL-terminated.  Running out of memory is
 * sticky: later appends do nothing and strbuf_ok() says so, so that a caller
 * checks once at the end.
 */
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

struct strbuf {
	char *data;		/* NULL until the first append */
	size_t len;
	size_t room;
	bool failed;
};

#define STRBUF_INIT { .data = NULL }

void strbuf_release(struct strbuf *b);
void strbuf_reset(struct strbuf *b);	/* keep the memory, forget the bytes */
void strbuf_add(struct strbuf *b, const void *data, size_t len);
void strbuf_addstr(struct strbuf *b, const char *s);
void strbuf_addch(struct strbuf *b, char c);
void strbuf_addf(struct strbuf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool strbuf_ok(const struct strbuf *b);

#define CLEANUP_STRBUF __attribute__((cleanup(strbuf_release)))

#endif
