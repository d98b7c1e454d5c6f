/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Cameras and phones write text in any encoding, dates in a handful of
 * spellings and places with or without minutes.  Everything here takes
 * untrusted bytes of a known length, and answers "absent" rather than guess.
 *
 * No state, no threads.
 */
#include "extract/text.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Bytes of the UTF-8 character at s (RFC 3629: no overlong forms, no surrogates), or 0. */
static size_t
utf8_char(const unsigned char *s, size_t len)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	uint32_t c;
	size_t n, i;

	if (s[0] < 0x80)
		return 1;
	n = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
	if (s[0] < 0xc2 || s[0] > 0xf4 || n > len)
		return 0;
	c = s[0] & (0xffu >> (n + 1));
	for (i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
		return 0;
	return n;
}

static bool
utf8_valid(const unsigned char *s, size_t len)
{
	size_t i = 0;

	while (i < len) {
		size_t n = utf8_char(s + i, len - i);

		if (n == 0)
			return false;
		i += n;
	}
	return true;
}

void
text_clean(const char *text, size_t len, size_t most, char *ret_text)
{
	const unsigned char *s = (const unsigned char *)text;
	bool utf8;
	size_t i, out = 0;

	len = strnlen(text, len);
	while (len > 0 && s[0] <= ' ') {
		s++;
		len--;
	}
	while (len > 0 && s[len - 1] <= ' ')
		len--;
	utf8 = utf8_valid(s, len);
	for (i = 0; i < len; ) {
		size_t n = utf8 ? utf8_char(s + i, len - i) : 1;

		if (out + (utf8 ? n : 2) > most)
			break;
		if (s[i] < 0x20 || s[i] == 0x7f) {
			ret_text[out++] = ' ';
		} else if (!utf8 && s[i] >= 0x80) {
			ret_text[out++] = (char)(0xc0 | s[i] >> 6);
			ret_text[out++] = (char)(0x80 | (s[i] & 0x3f));
		} else {
			memcpy(ret_text + out, s + i, n);
			out += n;
		}
		i += n;
	}
	ret_text[out] = '\0';
}

/* Exactly n digits, or -1. */
static int
text_digits(const char *s, int n)
{
	int i, value = 0;

	for (i = 0; i < n; i++) {
		if (s[i] < '0' || s[i] > '9')
			return -1;
		value = 10 * value + s[i] - '0';
	}
	return value;
}

/* "Z", "+02:00" or "+0200" → ret[8]; false: neither. */
static bool
text_offset(const char *s, char *ret)
{
	int h, m;

	if (s == NULL)
		return false;
	while (*s == ' ')
		s++;
	if (*s == 'Z') {
		strcpy(ret, "Z");
		return true;
	}
	if (*s != '+' && *s != '-')
		return false;
	h = text_digits(s + 1, 2);
	if (h < 0)
		return false;
	m = text_digits(s[3] == ':' ? s + 4 : s + 3, 2);
	if (h > 15 || m < 0 || m > 59)
		return false;
	(void)snprintf(ret, 8, "%c%02d:%02d", *s, h % 16, m % 60);
	return true;
}

/* The digits of a fraction, at most nine → ".57"; blanks → "". */
static void
text_fraction(const char *s, char *ret)
{
	size_t n = strspn(s, "0123456789");

	ret[0] = '\0';
	if (n > 9)
		n = 9;
	if (n > 0)
		(void)snprintf(ret, 12, ".%.*s", (int)n, s);
}

static bool
text_real_date(int year, int month, int day)
{
	static const int days[] = { 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

	if (year < 1 || month < 1 || month > 12 || day < 1 || day > days[month - 1])
		return false;
	return month != 2 || day < 29 || leap;
}

bool
text_date(const char *s, const char *sub, const char *offset, char *ret_text)
{
	char fraction[12] = "", zone[8] = "";
	int year, month, day, hour, minute, second = 0;

	while (*s == ' ')
		s++;
	if (strlen(s) < 16)
		return false;
	year = text_digits(s, 4);
	month = text_digits(s + 5, 2);
	day = text_digits(s + 8, 2);
	hour = text_digits(s + 11, 2);
	minute = text_digits(s + 14, 2);
	if (!text_real_date(year, month, day) || hour < 0 || hour > 23 || minute < 0 ||
	    minute > 59)
		return false;
	s += 16;
	if (*s == ':') {
		second = text_digits(s + 1, 2);
		if (second < 0 || second > 60)
			return false;
		s += 3;
	}
	if (*s == '.') {
		text_fraction(s + 1, fraction);
		s += 1 + strspn(s + 1, "0123456789");
	} else if (sub != NULL) {
		text_fraction(sub + strspn(sub, " "), fraction);
	}
	if (!text_offset(s, zone))
		(void)text_offset(offset, zone);
	/* The remainders only tell the compiler how long the numbers are. */
	(void)snprintf(ret_text, 48, "%04u-%02u-%02uT%02u:%02u:%02u%s%s", (unsigned)year % 10000,
	    (unsigned)month % 100, (unsigned)day % 100, (unsigned)hour % 100,
	    (unsigned)minute % 100, (unsigned)second % 100, fraction, zone);
	return true;
}

/* One signed number of ISO 6709 with `whole` digits of degrees; NaN: none.  *s moves on. */
static double
text_angle(const char **s, size_t whole)
{
	const char *p = *s;
	double sign = *p == '-' ? -1 : 1, value = 0, scale = 1;
	size_t n;

	if (*p != '+' && *p != '-')
		return NAN;
	p++;
	n = strspn(p, "0123456789");
	if (n == 0 || n > 12)
		return NAN;
	for (; *p >= '0' && *p <= '9'; p++)
		value = 10 * value + (*p - '0');
	if (*p == '.')
		for (p++; *p >= '0' && *p <= '9'; p++) {
			scale /= 10;
			value += (*p - '0') * scale;
		}
	*s = p;
	if (whole > 0 && n == whole + 2) {			/* degrees, minutes */
		double degrees = floor(value / 100);

		value = degrees + (value - 100 * degrees) / 60;
	} else if (whole > 0 && n == whole + 4) {		/* degrees, minutes, seconds */
		double degrees = floor(value / 10000), rest = value - 10000 * degrees;
		double minutes = floor(rest / 100);

		value = degrees + minutes / 60 + (rest - 100 * minutes) / 3600;
	}
	return sign * value;
}

bool
text_iso6709(const char *s, double *ret_lat, double *ret_lon, bool *ret_has_alt, double *ret_alt)
{
	double lat = text_angle(&s, 2), lon, alt;

	if (isnan(lat))
		return false;
	lon = text_angle(&s, 3);
	if (isnan(lon) || fabs(lat) > 90 || fabs(lon) > 180)
		return false;
	alt = text_angle(&s, 0);
	*ret_lat = lat;
	*ret_lon = lon;
	*ret_has_alt = !isnan(alt);
	if (!isnan(alt))
		*ret_alt = alt;
	return true;
}
