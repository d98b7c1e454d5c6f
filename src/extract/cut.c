/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Is the end of a video or audio file missing?
 *
 *  1. Only what the container itself announces counts: a size, a number of samples.
 *  2. Bytes behind a complete container aren't its business: junk, a trailer of a
 *     phone's maker, a tag.
 */
#include "extract/cut.h"

#include "base/bytes.h"
#include "base/io.h"

#include <string.h>

#define CUT_BOXES_MAX 10000
#define CUT_XING_TOLERANCE 2048		/* bytes: more than a frame; tags are edited later */

/* Exactly len bytes at off. */
static bool
cut_read(const struct media *media, uint64_t off, void *buf, size_t len)
{
	return pread_full(media->job->fd, buf, len, off) == (ssize_t)len;
}

static bool
cut_is_box(const uint8_t *type)
{
	static const char known[] = "ftyp moov mdat moof mfra free skip wide pnot uuid meta sidx ssix "
	    "styp pdin udta emsg prft";
	size_t i;

	for (i = 0; i < sizeof(known) - 1; i += 5)
		if (memcmp(known + i, type, 4) == 0)
			return true;
	return false;
}

/* ISO 14496-12: a chain of boxes. */
static bool
cut_boxes(const struct media *media)
{
	uint64_t off = 0, size = media->job->size, n;
	bool index = false, data = false;
	unsigned i;

	for (i = 0; i < CUT_BOXES_MAX && off < size; i++) {
		uint8_t b[16] = { 0 };

		if (pread_full(media->job->fd, b, sizeof(b), off) < 8)
			return !index || !data;
		n = get_be(b, 4);
		if (n == 1)
			n = get_be(b + 8, 8);
		if (n < 8)
			return false;		/* 0: to the end of the file */
		if (n > size - off)
			return cut_is_box(b + 4) || !index || !data;
		index = index || memcmp(b + 4, "moov", 4) == 0;
		data = data || memcmp(b + 4, "mdat", 4) == 0 || memcmp(b + 4, "moof", 4) == 0;
		off += n;
	}
	return false;
}

/* RFC 8794: the size of the element at p, whose id has `id` bytes; all ones: unknown. */
static uint64_t
cut_ebml_size(const uint8_t *p, unsigned id, unsigned *ret_head)
{
	unsigned n = 1;
	uint64_t size;

	p += id;
	while (n < 8 && (*p & 0x80 >> (n - 1)) == 0)
		n++;
	*ret_head = id + n;
	size = get_be(p, n) & ((1ull << 7 * n) - 1);
	return size == (1ull << 7 * n) - 1 ? UINT64_MAX : size;
}

/* Matroska: the EBML header, then one segment. */
static bool
cut_segment(const struct media *media)
{
	uint8_t b[32];
	unsigned head;
	uint64_t at, n;

	if (!cut_read(media, 0, b, sizeof(b)))
		return true;
	at = cut_ebml_size(b, 4, &head);
	if (at > 4096)
		return false;
	at += head;
	if (!cut_read(media, at, b, sizeof(b)))
		return true;
	if (get_be(b, 4) != 0x18538067)
		return false;
	n = cut_ebml_size(b, 4, &head);
	return n != UINT64_MAX && n > media->job->size - at - head;
}

/*
 * RIFF, little-endian, and AIFF's FORM, big-endian.  A recorder that never came back
 * leaves 0 or -1 as a size; writers forget the padding of the last chunk, or to count it.
 */
static bool
cut_chunks(const struct media *media, bool big)
{
	uint64_t size = media->job->size, off = 12, n;
	uint8_t b[8];
	unsigned i;

	if (!cut_read(media, 0, b, sizeof(b)))
		return true;
	n = big ? get_be(b + 4, 4) : get_le(b + 4, 4);
	if (n >= 1u << 31 || 8 + n <= size)
		return false;
	for (i = 0; i < CUT_BOXES_MAX && cut_read(media, off, b, sizeof(b)); i++) {
		uint64_t chunk = big ? get_be(b + 4, 4) : get_le(b + 4, 4);

		if (chunk > size - off - 8)
			return true;
		off += 8 + chunk + (chunk & 1);
	}
	return 8 + n > size + 1;
}

/* MPEG audio: the Xing header in the first frame, after the tag, counts the bytes. */
static bool
cut_xing(const struct media *media)
{
	uint64_t off;
	size_t side;
	uint8_t b[64];

	if (!cut_read(media, 0, b, 10))
		return false;
	off = sniff_id3(b, 10);
	if (!cut_read(media, off, b, sizeof(b)) || b[0] != 0xff || (b[1] & 0xe0) != 0xe0)
		return false;
	/* Side information: MPEG-1 has 32 bytes, 17 in mono; MPEG-2 17, and 9. */
	if ((b[1] & 8) != 0)
		side = (b[3] & 0xc0) == 0xc0 ? 17 : 32;
	else
		side = (b[3] & 0xc0) == 0xc0 ? 9 : 17;
	if (memcmp(b + 4 + side, "Xing", 4) != 0 && memcmp(b + 4 + side, "Info", 4) != 0)
		return false;
	if ((b[11 + side] & 3) != 3)		/* frames and bytes are there */
		return false;
	return off + get_be(b + 16 + side, 4) > media->job->size + CUT_XING_TOLERANCE;
}

/* ASF: the data object, which follows the header; 0 if it was broadcast. */
static bool
cut_asf(const struct media *media)
{
	static const uint8_t data[16] = { 0x36, 0x26, 0xb2, 0x75, 0x8e, 0x66, 0xcf, 0x11, 0xa6, 0xd9,
		0x00, 0xaa, 0x00, 0x62, 0xce, 0x6c };
	uint64_t size = media->job->size, head;
	uint8_t b[24];

	if (!cut_read(media, 0, b, sizeof(b)))
		return true;
	head = get_le(b + 16, 8);
	if (head >= size || !cut_read(media, head, b, sizeof(b)))
		return true;
	return memcmp(b, data, sizeof(data)) == 0 && get_le(b + 16, 8) > size - head;
}

/* FLAC knows its samples: do they go on to the end? */
static bool
cut_samples(struct media *media)
{
	const AVStream *s;
	AVPacket *packet;
	int64_t second, end = 0;

	if (media->format == NULL || media->audio < 0)
		return false;
	s = media->format->streams[media->audio];
	if (s->duration == AV_NOPTS_VALUE || s->duration <= 0)
		return false;
	packet = av_packet_alloc();
	if (packet == NULL)
		return false;
	second = av_rescale_q(1, (AVRational){ 1, 1 }, s->time_base);
	(void)av_seek_frame(media->format, media->audio, s->duration - second, AVSEEK_FLAG_BACKWARD);
	while (!media_late(media) && av_read_frame(media->format, packet) >= 0) {
		if (packet->stream_index == media->audio && packet->pts != AV_NOPTS_VALUE &&
		    packet->pts + packet->duration > end)
			end = packet->pts + packet->duration;
		av_packet_unref(packet);
	}
	av_packet_free(&packet);
	return !media_late(media) && end < s->duration - second / 10;
}

bool
cut_short(struct media *media)
{
	const char *demuxer = media->job->type.demuxer;

	if (strcmp(demuxer, "mov") == 0)
		return cut_boxes(media);
	if (strcmp(demuxer, "matroska") == 0)
		return cut_segment(media);
	if (strcmp(demuxer, "avi") == 0 || strcmp(demuxer, "wav") == 0)
		return cut_chunks(media, false);
	if (strcmp(demuxer, "aiff") == 0)
		return cut_chunks(media, true);
	if (strcmp(demuxer, "mp3") == 0)
		return cut_xing(media);
	if (strcmp(demuxer, "asf") == 0)
		return cut_asf(media);
	return strcmp(demuxer, "flac") == 0 && cut_samples(media);
}
