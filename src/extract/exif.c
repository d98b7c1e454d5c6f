/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * EXIF, read by our own reader: libexif looks at the first 64 KiB only, which
 * misses the directories of a TIFF file and large HEIC blocks, and parses
 * maker notes nobody asked for.
 *
 *  1. Every access goes through exif_at(), which knows the end of the data.
 *  2. IFD0 → EXIF, GPS and the directories below it: no link is followed
 *     further, so there are no loops.
 *  3. What a camera writes for "I don't know" is absent: 0/0, blanks,
 *     0000:00:00, an empty position.  A real zero stands.
 *
 * No state, no threads.
 */
#include "extract/exif.h"

#include "base/bytes.h"
#include "extract/text.h"

#include <stdio.h>
#include <string.h>

#define EXIF_ENTRIES_MAX 1024
#define EXIF_SUB_MAX 16

enum exif_tag {
	TAG_SUBFILE_TYPE = 0x00fe,
	TAG_WIDTH = 0x0100,
	TAG_HEIGHT = 0x0101,
	TAG_PHOTOMETRIC = 0x0106,
	TAG_MAKE = 0x010f,
	TAG_MODEL = 0x0110,
	TAG_ORIENTATION = 0x0112,
	TAG_SUB_IFDS = 0x014a,
	TAG_EXIF_IFD = 0x8769,
	TAG_GPS_IFD = 0x8825,
	TAG_DATE_ORIGINAL = 0x9003,
	TAG_DATE_DIGITIZED = 0x9004,
	TAG_OFFSET_ORIGINAL = 0x9011,
	TAG_OFFSET_DIGITIZED = 0x9012,
	TAG_SUBSEC_ORIGINAL = 0x9291,
	TAG_SUBSEC_DIGITIZED = 0x9292,
	TAG_LENS_MODEL = 0xa434,
	TAG_DNG_VERSION = 0xc612,
	TAG_GPS_LAT_REF = 1,
	TAG_GPS_LAT = 2,
	TAG_GPS_LON_REF = 3,
	TAG_GPS_LON = 4,
	TAG_GPS_ALT_REF = 5,
	TAG_GPS_ALT = 6,
	TAG_GPS_DATE = 0x1d,
};

struct exif {
	const uint8_t *data;
	size_t len;
	bool big;			/* big-endian */
	uint32_t text_bytes;
	struct meta *meta;
};

/* One directory entry: where its value is and how much of it there is. */
struct exif_value {
	unsigned type;			/* 1 byte, 2 ASCII, 3 short, 4 long, 5 rational, … */
	uint32_t count;
	const uint8_t *data;
};

/* What the GPS directory says before it is judged. */
struct exif_gps {
	char lat_ref, lon_ref;
	double lat, lon;		/* valid if has_ */
	bool has_lat, has_lon, has_alt, below;
	double alt;
	bool dated;			/* a real GPSDateStamp */
};

static const uint8_t *
exif_at(const struct exif *x, uint64_t off, uint64_t len)
{
	return off <= x->len && len <= x->len - off ? x->data + off : NULL;
}

static uint32_t
exif_u16(const struct exif *x, const uint8_t *p)
{
	return x->big ? get_be16(p) : get_le16(p);
}

static uint32_t
exif_u32(const struct exif *x, const uint8_t *p)
{
	return x->big ? get_be32(p) : get_le32(p);
}

/* The first number of a value of an integer type; 0 if it is none. */
static uint32_t
exif_number(const struct exif *x, const struct exif_value *v)
{
	if (v->count == 0)
		return 0;
	switch (v->type) {
	case 1:
	case 7:
		return v->data[0];
	case 3:
		return exif_u16(x, v->data);
	case 4:
	case 13:
		return exif_u32(x, v->data);
	default:
		return 0;
	}
}

static void
exif_text(const struct exif *x, const struct exif_value *v, size_t most, char *ret)
{
	ret[0] = '\0';
	if (v->type == 2 || v->type == 7 || v->type == 1 || v->type == 129)
		text_clean((const char *)v->data, v->count,
		    most < x->text_bytes ? most : x->text_bytes, ret);
}

/* The i-th rational of a value; false: not there or its denominator is 0. */
static bool
exif_rational(const struct exif *x, const struct exif_value *v, uint32_t i, double *ret)
{
	const uint8_t *p;
	uint32_t low;

	if ((v->type != 5 && v->type != 10) || i >= v->count)
		return false;
	p = v->data + 8 * (size_t)i;
	low = exif_u32(x, p + 4);
	if (low == 0)
		return false;
	if (v->type == 10)
		*ret = (double)(int32_t)exif_u32(x, p) / (double)(int32_t)low;
	else
		*ret = (double)exif_u32(x, p) / (double)low;
	return true;
}

/* Degrees, minutes, seconds; missing smaller parts are zero. */
static bool
exif_angle(const struct exif *x, const struct exif_value *v, double most, double *ret)
{
	double part[3] = { 0, 0, 0 };
	uint32_t i;

	if (!exif_rational(x, v, 0, &part[0]))
		return false;
	for (i = 1; i < 3; i++)
		(void)exif_rational(x, v, i, &part[i]);
	*ret = part[0] + part[1] / 60 + part[2] / 3600;
	return *ret >= 0 && *ret <= most;
}

/* Entry number i of the directory at off; false: outside of the data or of an unknown type. */
static bool
exif_entry(const struct exif *x, uint64_t off, uint32_t i, uint32_t *ret_tag,
    struct exif_value *ret)
{
	static const uint8_t sizes[] = { 0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4 };
	const uint8_t *p = exif_at(x, off + 2 + 12 * (uint64_t)i, 12);
	uint64_t bytes;

	if (p == NULL)
		return false;
	*ret_tag = exif_u16(x, p);
	ret->type = exif_u16(x, p + 2);
	ret->count = exif_u32(x, p + 4);
	if (ret->type == 129)			/* UTF-8, EXIF 3.0 */
		bytes = ret->count;
	else if (ret->type < sizeof(sizes))
		bytes = (uint64_t)sizes[ret->type] * ret->count;
	else
		return false;
	ret->data = bytes <= 4 ? p + 8 : exif_at(x, exif_u32(x, p + 8), bytes);
	return ret->data != NULL;
}

static uint32_t
exif_entries(const struct exif *x, uint64_t off)
{
	const uint8_t *p = exif_at(x, off, 2);
	uint32_t n = p != NULL ? exif_u16(x, p) : 0;

	return n < EXIF_ENTRIES_MAX ? n : EXIF_ENTRIES_MAX;
}

static void
exif_gps_judge(const struct exif_gps *g, struct meta *m)
{
	bool north = strchr("NSns", g->lat_ref) != NULL && g->lat_ref != '\0';
	bool east = strchr("EWew", g->lon_ref) != NULL && g->lon_ref != '\0';

	if (!g->has_lat || !g->has_lon || !north || !east)
		return;
	/* 0°, 0° with nothing else: a receiver that never had a fix. */
	if (g->lat == 0 && g->lon == 0 && !g->dated && (!g->has_alt || g->alt == 0))
		return;
	m->has_position = true;
	m->lat = g->lat_ref == 'S' || g->lat_ref == 's' ? -g->lat : g->lat;
	m->lon = g->lon_ref == 'W' || g->lon_ref == 'w' ? -g->lon : g->lon;
	m->has_altitude = g->has_alt;
	m->alt = g->below ? -g->alt : g->alt;
}

static void
exif_read_gps(const struct exif *x, uint64_t off)
{
	struct exif_gps g = { .lat_ref = '\0' };
	uint32_t i, tag, n = exif_entries(x, off);
	struct exif_value v;

	for (i = 0; i < n; i++) {
		if (!exif_entry(x, off, i, &tag, &v) || v.count == 0)
			continue;
		if (tag == TAG_GPS_LAT_REF)
			g.lat_ref = (char)v.data[0];
		else if (tag == TAG_GPS_LAT)
			g.has_lat = exif_angle(x, &v, 90, &g.lat);
		else if (tag == TAG_GPS_LON_REF)
			g.lon_ref = (char)v.data[0];
		else if (tag == TAG_GPS_LON)
			g.has_lon = exif_angle(x, &v, 180, &g.lon);
		else if (tag == TAG_GPS_ALT_REF)
			/* 0, 1: above and below the ellipsoid; 2, 3: the sea (EXIF 3.0) */
			g.below = exif_number(x, &v) % 2 != 0;
		else if (tag == TAG_GPS_ALT)
			g.has_alt = exif_rational(x, &v, 0, &g.alt);
		else if (tag == TAG_GPS_DATE)
			g.dated = v.count >= 10 && memcmp(v.data, "1970", 4) > 0 &&
			    v.data[0] <= '9';
	}
	exif_gps_judge(&g, x->meta);
}

static void
exif_read_photo(const struct exif *x, uint64_t off)
{
	char original[48] = "", digitized[48] = "", sub[2][16] = { "", "" };
	char offset[2][16] = { "", "" };
	uint32_t i, tag, n = exif_entries(x, off);
	struct exif_value v;

	for (i = 0; i < n; i++) {
		if (!exif_entry(x, off, i, &tag, &v))
			continue;
		if (tag == TAG_DATE_ORIGINAL)
			exif_text(x, &v, sizeof(original) - 1, original);
		else if (tag == TAG_DATE_DIGITIZED)
			exif_text(x, &v, sizeof(digitized) - 1, digitized);
		else if (tag == TAG_SUBSEC_ORIGINAL || tag == TAG_SUBSEC_DIGITIZED)
			exif_text(x, &v, 15, sub[tag - TAG_SUBSEC_ORIGINAL]);
		else if (tag == TAG_OFFSET_ORIGINAL || tag == TAG_OFFSET_DIGITIZED)
			exif_text(x, &v, 15, offset[tag - TAG_OFFSET_ORIGINAL]);
		else if (tag == TAG_LENS_MODEL)
			exif_text(x, &v, META_TEXT_MAX, x->meta->lens);
	}
	if (!text_date(original, sub[0], offset[0], x->meta->taken_at))
		(void)text_date(digitized, sub[1], offset[1], x->meta->taken_at);
}

/* What a directory says of the page that it describes. */
struct exif_page {
	uint32_t width, height;
	uint32_t photometric;
	bool reduced, dng;
	struct exif_value sub;		/* where further directories are; count 0: none */
};

static void
exif_read_page(const struct exif *x, uint64_t off, struct exif_page *ret)
{
	uint32_t i, tag, n = exif_entries(x, off);
	struct exif_value v;

	*ret = (struct exif_page){ .width = 0 };
	for (i = 0; i < n; i++) {
		if (!exif_entry(x, off, i, &tag, &v))
			continue;
		if (tag == TAG_WIDTH)
			ret->width = exif_number(x, &v);
		else if (tag == TAG_HEIGHT)
			ret->height = exif_number(x, &v);
		else if (tag == TAG_PHOTOMETRIC)
			ret->photometric = exif_number(x, &v);
		else if (tag == TAG_SUBFILE_TYPE)
			ret->reduced = (exif_number(x, &v) & 1) != 0;
		else if (tag == TAG_DNG_VERSION)
			ret->dng = true;
		else if (tag == TAG_SUB_IFDS && (v.type == 4 || v.type == 13))
			ret->sub = v;
	}
}

/*
 * Raw files are TIFF files whose first page is marked as a reduced copy of another one, or
 * holds what the sensor saw (colour filter array, linear raw).  The size is then the largest.
 */
static void
exif_read_picture(const struct exif *x, uint64_t off, struct exif_picture *ret)
{
	struct exif_page page, sub;
	uint32_t i;

	exif_read_page(x, off, &page);
	*ret = (struct exif_picture){ .width = page.width, .height = page.height, .dng = page.dng,
		.raw = page.dng || (page.reduced && page.sub.count > 0) || page.photometric == 32803 ||
		    page.photometric == 34892 };
	for (i = 0; ret->raw && i < page.sub.count && i < EXIF_SUB_MAX; i++) {
		exif_read_page(x, exif_u32(x, page.sub.data + 4 * (size_t)i), &sub);
		if ((uint64_t)sub.width * sub.height > (uint64_t)ret->width * ret->height) {
			ret->width = sub.width;
			ret->height = sub.height;
		}
	}
}

static void
exif_read_first(const struct exif *x, uint64_t off)
{
	uint32_t i, tag, value, n = exif_entries(x, off), photo = 0, gps = 0;
	struct exif_value v;

	for (i = 0; i < n; i++) {
		if (!exif_entry(x, off, i, &tag, &v))
			continue;
		value = exif_number(x, &v);
		if (tag == TAG_ORIENTATION && value >= 1 && value <= 8)
			x->meta->orientation = value;
		else if (tag == TAG_MAKE)
			exif_text(x, &v, META_TEXT_MAX, x->meta->make);
		else if (tag == TAG_MODEL)
			exif_text(x, &v, META_TEXT_MAX, x->meta->model);
		else if (tag == TAG_EXIF_IFD)
			photo = value;
		else if (tag == TAG_GPS_IFD)
			gps = value;
	}
	if (photo != 0)
		exif_read_photo(x, photo);
	if (gps != 0)
		exif_read_gps(x, gps);
}

bool
exif_read(const uint8_t *data, size_t len, uint32_t text_bytes, struct meta *m,
    struct exif_picture *ret)
{
	struct exif x = { .text_bytes = text_bytes, .meta = m };
	uint32_t first;

	if (len >= 6 && memcmp(data, "Exif\0", 5) == 0) {
		data += 6;
		len -= 6;
	}
	if (len < 8 || (memcmp(data, "II\x2a", 4) != 0 && memcmp(data, "MM\0\x2a", 4) != 0))
		return false;
	x.data = data;
	x.len = len;
	x.big = data[0] == 'M';
	first = exif_u32(&x, data + 4);
	exif_read_first(&x, first);
	if (ret != NULL)
		exif_read_picture(&x, first, ret);
	return true;
}

/* IPTC-IIM datasets 2:55 (CCYYMMDD) and 2:60 (HHMMSS±HHMM). */
static void
exif_iptc_date(const uint8_t *p, size_t len, struct meta *m)
{
	const uint8_t *date = NULL, *time = NULL;
	size_t time_len = 0, i = 0;
	char text[48];

	while (i + 5 <= len && p[i] == 0x1c) {
		size_t n = (size_t)p[i + 3] << 8 | p[i + 4];

		if (n > len - i - 5)
			break;
		if (p[i + 1] == 2 && p[i + 2] == 55 && n >= 8) {
			date = p + i + 5;
		} else if (p[i + 1] == 2 && p[i + 2] == 60 && n >= 6) {
			time = p + i + 5;
			time_len = n;
		}
		i += 5 + n;
	}
	if (date == NULL || time == NULL)
		return;
	(void)snprintf(text, sizeof(text), "%.4s:%.2s:%.2s %.2s:%.2s:%.2s%.*s",
	    (const char *)date, (const char *)date + 4, (const char *)date + 6,
	    (const char *)time, (const char *)time + 2, (const char *)time + 4,
	    time_len >= 11 ? 5 : 0, (const char *)time + 6);
	(void)text_date(text, NULL, NULL, m->taken_at);
}

void
exif_read_iptc(const uint8_t *data, size_t len, struct meta *m)
{
	size_t i = 0;

	if (m->taken_at[0] != '\0')
		return;
	/* "8BIM", id, Pascal name padded to even, length, data padded to even */
	while (i + 12 <= len && memcmp(data + i, "8BIM", 4) == 0) {
		unsigned id = (unsigned)data[i + 4] << 8 | data[i + 5];
		size_t name = ((size_t)data[i + 6] + 2) & ~(size_t)1;
		size_t at = i + 6 + name, n;

		if (at + 4 > len)
			return;
		n = (size_t)data[at] << 24 | (size_t)data[at + 1] << 16 |
		    (size_t)data[at + 2] << 8 | data[at + 3];
		at += 4;
		if (n > len - at)
			return;
		if (id == 0x0404)
			exif_iptc_date(data + at, n, m);
		i = at + ((n + 1) & ~(size_t)1);
	}
}
