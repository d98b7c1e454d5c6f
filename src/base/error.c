/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int
error_set(struct error *err, int code, const char *fmt, ...)
{
	va_list ap;
	char *p;

	if (err == NULL)
		return code;
	err->code = code;
	va_start(ap, fmt);
	(void)vsnprintf(err->text, sizeof(err->text), fmt, ap);
	va_end(ap);
	/* One line always: names may hold newlines, a log line may not. */
	for (p = err->text; *p != '\0'; p++)
		if ((unsigned char)*p < 0x20)
			*p = ' ';
	return code;
}

const char *
error_text(const struct error *err)
{
	if (err->text[0] != '\0')
		return err->text;
	return strerror(-err->code);
}
