/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Is a profile sRGB?  Most are, under one name or other, and converting them costs as
 * much as the rest of a thumbnail.  Names prove nothing: phones ship "DCI-P3 D65 Gamut
 * with sRGB Transfer".  So the numbers decide: the three primaries, adapted to D50 as
 * ICC wants them, and the curve at three points of the signal.
 *
 * No state, no threads.
 */
#include "extract/icc.h"

#include "base/bytes.h"

#include <math.h>
#include <string.h>

#define ICC_HEADER 128
#define ICC_TAGS_MAX 100
/* Makers round differently; the nearest other space (BT.601 625 lines) is 0.005 away. */
#define ICC_NEAR 0.003

static double
icc_fixed(const uint8_t *p)
{
	return (int32_t)get_be32(p) / 65536.0;
}

/* The tag's data and its length; NULL: not there, or not within the profile. */
static const uint8_t *
icc_tag(const uint8_t *profile, size_t len, const char *name, size_t *ret_len)
{
	uint32_t n = get_be32(profile + ICC_HEADER), i;

	for (i = 0; i < n && i < ICC_TAGS_MAX && ICC_HEADER + 4 + 12 * ((size_t)i + 1) <= len; i++) {
		const uint8_t *entry = profile + ICC_HEADER + 4 + 12 * (size_t)i;
		uint32_t at = get_be32(entry + 4), size = get_be32(entry + 8);

		if (memcmp(entry, name, 4) != 0)
			continue;
		*ret_len = size;
		return at <= len && size <= len - at ? profile + at : NULL;
	}
	return NULL;
}

static bool
icc_primary_is(const uint8_t *profile, size_t len, const char *name, const double xyz[3])
{
	size_t n, i;
	const uint8_t *p = icc_tag(profile, len, name, &n);

	if (p == NULL || n < 20 || memcmp(p, "XYZ ", 4) != 0)
		return false;
	for (i = 0; i < 3; i++)
		if (fabs(icc_fixed(p + 8 + 4 * i) - xyz[i]) > ICC_NEAR)
			return false;
	return true;
}

/* The light that the signal x, well above black, stands for; -1: a kind of curve that sRGB
 * hasn't. */
static double
icc_curve_at(const uint8_t *p, size_t len, double x)
{
	uint32_t count;

	if (len >= 12 && memcmp(p, "curv", 4) == 0) {
		size_t i;

		count = get_be32(p + 8);
		if (count == 1 && len >= 14)
			return pow(x, get_be16(p + 12) / 256.0);
		if (count < 2 || count > (len - 12) / 2)
			return -1;
		i = (size_t)lrint(x * (count - 1));
		return get_be16(p + 12 + 2 * i) / 65535.0;
	}
	if (len >= 16 && memcmp(p, "para", 4) == 0) {
		double gamma = icc_fixed(p + 12);

		if (p[9] == 0)
			return pow(x, gamma);
		if ((p[9] == 3 || p[9] == 4) && len >= 24)
			return pow(icc_fixed(p + 16) * x + icc_fixed(p + 20), gamma);
	}
	return -1;
}

static bool
icc_curve_is_srgb(const uint8_t *profile, size_t len, const char *name)
{
	static const double points[3][2] = { { 0.25, 0.0509 }, { 0.5, 0.2140 }, { 0.75, 0.5225 } };
	size_t n, i;
	const uint8_t *p = icc_tag(profile, len, name, &n);

	for (i = 0; i < 3; i++)
		if (p == NULL || !(fabs(icc_curve_at(p, n, points[i][0]) - points[i][1]) <= 0.01))
			return false;
	return true;
}

bool
icc_is_srgb(const uint8_t *profile, size_t len)
{
	static const double red[3] = { 0.4361, 0.2225, 0.0139 };
	static const double green[3] = { 0.3851, 0.7169, 0.0971 };
	static const double blue[3] = { 0.1431, 0.0606, 0.7141 };
	size_t n;

	if (profile == NULL || len < ICC_HEADER + 4 || memcmp(profile + 16, "RGB XYZ ", 8) != 0)
		return false;
	/* Tables go before matrices. */
	return icc_tag(profile, len, "A2B0", &n) == NULL &&
	    icc_primary_is(profile, len, "rXYZ", red) &&
	    icc_primary_is(profile, len, "gXYZ", green) &&
	    icc_primary_is(profile, len, "bXYZ", blue) &&
	    icc_curve_is_srgb(profile, len, "rTRC") && icc_curve_is_srgb(profile, len, "gTRC") &&
	    icc_curve_is_srgb(profile, len, "bTRC");
}
