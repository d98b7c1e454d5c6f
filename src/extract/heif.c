/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The way to a picture's colour box (ISO 14496-12 for boxes, ISO 23008-12 for
 * properties), which libvips doesn't hand on:
 *
 *	meta ─ pitm            number of the primary item
 *	     └ iprp ─ ipco     the properties, counted from 1, colr among them
 *	            └ ipma     item → numbers of its properties
 *
 * Each walker moves forward only and looks at no byte past the end.  No state,
 * no threads.
 */
#include "extract/heif.h"

#include "base/bytes.h"

#include <string.h>

struct span {
	const uint8_t *p;
	size_t len;
};

/* Take `bytes` from the front; false: there aren't as many. */
static bool
heif_take(struct span *s, unsigned bytes, uint32_t *ret)
{
	if (s->len < bytes)
		return false;
	*ret = (uint32_t)get_be(s->p, bytes);
	s->p += bytes;
	s->len -= bytes;
	return true;
}

/* The next box of a chain: its type and content. */
static bool
heif_next(struct span *chain, const uint8_t **ret_type, struct span *ret)
{
	size_t head = 8, n;

	if (chain->len < 8)
		return false;
	n = get_be32(chain->p);
	*ret_type = chain->p + 4;
	if (n == 1 && chain->len >= 16 && get_be32(chain->p + 8) == 0) {
		n = get_be32(chain->p + 12);
		head = 16;
	} else if (n == 0) {
		n = chain->len;
	}
	if (n < head || n > chain->len)
		return false;
	*ret = (struct span){ chain->p + head, n - head };
	chain->p += n;
	chain->len -= n;
	return true;
}

static bool
heif_find(struct span chain, const char *type, struct span *ret)
{
	const uint8_t *found;

	while (heif_next(&chain, &found, ret))
		if (memcmp(found, type, 4) == 0)
			return true;
	return false;
}

/* Property `number` of ipco, if it is a colour box. */
static bool
heif_colour_box(struct span ipco, uint32_t number, struct span *ret)
{
	const uint8_t *type;

	while (heif_next(&ipco, &type, ret))
		if (--number == 0)
			return memcmp(type, "colr", 4) == 0 && ret->len >= 4;
	return false;
}

struct heif_found {
	bool profile, nclx;
	unsigned primaries, transfer;
};

static void
heif_look_at(struct span ipco, uint32_t number, struct heif_found *f)
{
	struct span colr;

	if (number == 0 || !heif_colour_box(ipco, number, &colr))
		return;
	if (memcmp(colr.p, "prof", 4) == 0 || memcmp(colr.p, "rICC", 4) == 0) {
		f->profile = true;
	} else if (memcmp(colr.p, "nclx", 4) == 0 && colr.len >= 8) {
		f->nclx = true;
		f->primaries = get_be16(colr.p + 4);
		f->transfer = get_be16(colr.p + 6);
	}
}

/* All properties of one item: 255 at most, for its first entry is the only one that counts. */
static void
heif_walk_item(struct span ipma, struct span ipco, uint32_t wanted, struct heif_found *f)
{
	uint32_t head, entries, item, count, number;

	if (!heif_take(&ipma, 4, &head) || !heif_take(&ipma, 4, &entries))
		return;
	while (entries-- > 0) {
		const unsigned wide = (head & 1) != 0 ? 2 : 1;

		if (!heif_take(&ipma, head >> 24 == 0 ? 2 : 4, &item) || !heif_take(&ipma, 1, &count))
			return;
		while (count-- > 0) {
			if (!heif_take(&ipma, wide, &number))
				return;
			if (item == wanted)
				heif_look_at(ipco, number & (wide == 2 ? 0x7fff : 0x7f), f);
		}
		if (item == wanted)
			return;
	}
}

bool
heif_colour(const uint8_t *data, size_t len, unsigned *ret_primaries, unsigned *ret_transfer)
{
	struct span meta, pitm, iprp, ipco, ipma;
	struct heif_found f = { .profile = false };
	uint32_t version, primary;

	if (!heif_find((struct span){ data, len }, "meta", &meta) || !heif_take(&meta, 4, &version))
		return false;
	if (!heif_find(meta, "pitm", &pitm) || !heif_take(&pitm, 4, &version) ||
	    !heif_take(&pitm, version >> 24 == 0 ? 2 : 4, &primary))
		return false;
	if (!heif_find(meta, "iprp", &iprp) || !heif_find(iprp, "ipco", &ipco) ||
	    !heif_find(iprp, "ipma", &ipma))
		return false;
	heif_walk_item(ipma, ipco, primary, &f);
	*ret_primaries = f.primaries;
	*ret_transfer = f.transfer;
	return f.nclx && !f.profile;
}
