/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * MIME types by content.  Media are recognised here, by the signatures and
 * brands of their specifications, because the decoder that gets the file
 * follows from it; libmagic names everything else.
 *
 *  1. One table says what becomes of a type: which lane, which demuxer.
 *  2. Image, video and audio types that aren't in it are refused with a reason;
 *     other files are just files.
 *
 * The libmagic cookie is used by the worker's only thread.
 */
#include "extract/sniff.h"

#include "base/io.h"

#include <errno.h>
#include <magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static magic_t sniff_magic;

struct sniff_type {
	const char *mime;
	enum sniff_family family;
	const char *demuxer;
	const char *audio;		/* its type when it holds no video */
	const char *known_as;		/* reported instead of mime; NULL: mime */
};

static const struct sniff_type sniff_types[] = {
	{ "image/jpeg", SNIFF_JPEG },
	{ "image/png", SNIFF_PNG },
	{ "image/webp", SNIFF_WEBP },
	{ "image/gif", SNIFF_GIF },
	{ "image/tiff", SNIFF_TIFF },
	{ "image/heic", SNIFF_HEIF },
	{ "image/heif", SNIFF_HEIF },
	{ "image/avif", SNIFF_HEIF },
	{ "image/heic-sequence", SNIFF_HEIF },
	{ "image/heif-sequence", SNIFF_HEIF },
	{ "video/mp4", SNIFF_AV, "mov", "audio/mp4" },
	{ "video/x-m4v", SNIFF_AV, "mov", "audio/mp4" },
	{ "video/quicktime", SNIFF_AV, "mov", "audio/mp4" },
	{ "video/3gpp", SNIFF_AV, "mov", "audio/3gpp" },
	{ "video/3gpp2", SNIFF_AV, "mov", "audio/3gpp2" },
	{ "video/x-matroska", SNIFF_AV, "matroska", "audio/x-matroska" },
	{ "video/webm", SNIFF_AV, "matroska", "audio/webm" },
	{ "video/x-msvideo", SNIFF_AV, "avi", NULL },
	{ "video/mpeg", SNIFF_AV, "mpeg", "audio/mpeg" },
	{ "video/mpv", SNIFF_AV, "mpegvideo", NULL, "video/mpeg" },
	{ "video/mp4v-es", SNIFF_AV, "m4v", NULL },
	{ "video/h264", SNIFF_AV, "h264", NULL },
	{ "video/h265", SNIFF_AV, "hevc", NULL },
	{ "video/mp2t", SNIFF_AV, "mpegts", NULL },
	{ "video/x-flv", SNIFF_AV, "flv", NULL },
	{ "video/x-ms-asf", SNIFF_AV, "asf", "audio/x-ms-wma" },
	{ "video/ogg", SNIFF_AV, "ogg", "audio/ogg" },
	{ "audio/ogg", SNIFF_AV, "ogg" },
	{ "audio/mp4", SNIFF_AV, "mov" },
	{ "audio/mpeg", SNIFF_AV, "mp3" },
	{ "audio/flac", SNIFF_AV, "flac" },
	{ "audio/x-wav", SNIFF_AV, "wav" },
	{ "audio/x-aiff", SNIFF_AV, "aiff" },
	{ "audio/aac", SNIFF_AV, "aac" },
	{ "audio/amr", SNIFF_AV, "amr" },
};

/* libmagic's spellings of the types above. */
static const char *const sniff_aliases[][2] = {
	{ "audio/x-m4a", "audio/mp4" },
	{ "audio/x-hx-aac-adts", "audio/aac" },
	{ "audio/x-hx-aac-adif", "audio/aac" },
	{ "audio/x-flac", "audio/flac" },
	{ "audio/wav", "audio/x-wav" },
	{ "audio/vnd.wave", "audio/x-wav" },
	{ "audio/x-mp3", "audio/mpeg" },
	{ "audio/AMR", "audio/amr" },
	{ "application/ogg", "video/ogg" },
	{ "video/x-ms-wmv", "video/x-ms-asf" },
	{ "video/mpeg4-generic", "video/mp4v-es" },
	{ "video/H264", "video/h264" },
	{ "image/x-tiff", "image/tiff" },
	{ "application/x-empty", "inode/x-empty" },
};

/* Brands of ISO 14496-12 files, by prefix, in the order in which they decide. */
static const char *const sniff_brands[][2] = {
	{ "avif", "image/avif" },
	{ "avis", "image/avif" },
	{ "heic", "image/heic" }, { "heix", "image/heic" },
	{ "heim", "image/heic" }, { "heis", "image/heic" },
	{ "hevc", "image/heic-sequence" }, { "hevx", "image/heic-sequence" },
	{ "hevm", "image/heic-sequence" }, { "hevs", "image/heic-sequence" },
	{ "crx ", "image/x-canon-cr3" },
	{ "jpx ", "image/jpx" }, { "jp2 ", "image/jp2" }, { "jxl ", "image/jxl" },
	{ "qt  ", "video/quicktime" },
	{ "3g2", "video/3gpp2" },
	{ "3gp", "video/3gpp" }, { "3ge", "video/3gpp" }, { "3gg", "video/3gpp" },
	{ "3gs", "video/3gpp" }, { "3gr", "video/3gpp" },
	{ "M4A", "audio/mp4" }, { "M4B", "audio/mp4" }, { "M4P", "audio/mp4" },
	{ "M4V", "video/x-m4v" },
};

int
sniff_init(struct error *err)
{
	sniff_magic = magic_open(MAGIC_MIME_TYPE | MAGIC_NO_CHECK_COMPRESS | MAGIC_NO_CHECK_ELF |
	    MAGIC_NO_CHECK_APPTYPE | MAGIC_NO_CHECK_TOKENS);
	if (sniff_magic == NULL)
		return error_set(err, -errno, "libmagic: %s", strerror(errno));
	if (magic_load(sniff_magic, NULL) < 0)
		return error_set(err, -ENOENT, "libmagic: %s", magic_error(sniff_magic));
	return 0;
}

static bool
has(const uint8_t *p, size_t len, size_t off, const char *what, size_t n)
{
	return off <= len && n <= len - off && memcmp(p + off, what, n) == 0;
}

#define HAS(off, what) has(p, len, off, what, sizeof(what) - 1)

static const char *
sniff_brand(const uint8_t *brand)
{
	size_t i;

	for (i = 0; i < sizeof(sniff_brands) / sizeof(sniff_brands[0]); i++)
		if (memcmp(brand, sniff_brands[i][0], strlen(sniff_brands[i][0])) == 0)
			return sniff_brands[i][1];
	return NULL;
}

/*
 * Is it a box of that type, rather than a text with the same letters?  A box that
 * isn't huge has a size that begins with zeros.
 */
static bool
sniff_box(const uint8_t *p, size_t len, const char *type, bool small)
{
	size_t i;

	if (!has(p, len, 4, type, 4))
		return false;
	if (small)
		return p[0] == 0 && p[1] == 0;
	for (i = 0; i < 4; i++)
		if (p[i] < ' ' || p[i] > '~')
			return true;
	return false;
}

/* The major brand decides; a generic one of images leaves it to the compatible ones. */
static const char *
sniff_bmff(const uint8_t *p, size_t len)
{
	size_t size = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3], i;
	const char *mime = sniff_brand(p + 8);
	bool image = HAS(8, "mif1") || HAS(8, "mif2") || HAS(8, "miaf"), sequence = HAS(8, "msf1");

	if (mime != NULL)
		return mime;
	if (size > len)
		size = len;
	for (i = 16; i + 4 <= size; i += 4) {
		mime = sniff_brand(p + i);
		if ((image || sequence) && mime != NULL && strncmp(mime, "image/", 6) == 0)
			return mime;
	}
	return image ? "image/heif" : sequence ? "image/heif-sequence" : "video/mp4";
}

/* QuickTime files from before `ftyp` begin with any of its boxes. */
static bool
sniff_old_quicktime(const uint8_t *p, size_t len)
{
	return sniff_box(p, len, "moov", false) || sniff_box(p, len, "mdat", false) ||
	    sniff_box(p, len, "wide", true) || sniff_box(p, len, "pnot", true) ||
	    sniff_box(p, len, "free", true) || sniff_box(p, len, "skip", true);
}

/* Matroska's DocType (EBML id 0x4282) is within the first bytes. */
static const char *
sniff_ebml(const uint8_t *p, size_t len)
{
	size_t i;

	for (i = 4; i + 7 <= len && i < 128; i++)
		if (p[i] == 0x42 && p[i + 1] == 0x82)
			return has(p, len, i + 3, "webm", 4) ? "video/webm" : "video/x-matroska";
	return "video/x-matroska";
}

static const char *
sniff_riff(const uint8_t *p, size_t len)
{
	if (HAS(8, "WEBP"))
		return "image/webp";
	if (HAS(8, "WAVE"))
		return "audio/x-wav";
	if (HAS(8, "AVI "))
		return "video/x-msvideo";
	return NULL;
}

/* Does the first logical stream of an Ogg file, or one after it, hold video? */
static const char *
sniff_ogg(const uint8_t *p, size_t len)
{
	size_t i;

	for (i = 0; i + 36 <= len && HAS(i, "OggS") && (p[i + 5] & 2) != 0; ) {
		size_t table = 27 + (size_t)p[i + 26], body = 0, s;

		for (s = 27; s < table && i + s < len; s++)
			body += p[i + s];
		if (has(p, len, i + table, "\x80theora", 7) ||
		    has(p, len, i + table, "OVP80", 5))
			return "video/ogg";
		i += table + body;
	}
	return "audio/ogg";
}

/* Bytes of the MPEG audio frame (layers I–III) that begins at p, or 0. */
static size_t
sniff_mpeg_frame(const uint8_t *p)
{
	static const uint16_t rates[2][3][15] = {
		{ { 0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448 },
		  { 0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384 },
		  { 0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320 } },
		{ { 0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256 },
		  { 0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160 },
		  { 0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160 } },
	};
	static const unsigned hertz[3] = { 44100, 48000, 32000 };
	unsigned version = p[1] >> 3 & 3, layer = 4 - (p[1] >> 1 & 3), rate = p[2] >> 4;
	unsigned hz = p[2] >> 2 & 3, pad = p[2] >> 1 & 1, bits;

	if (p[0] != 0xff || (p[1] & 0xe0) != 0xe0 || version == 1 || layer == 4 || rate == 0 ||
	    rate == 15 || hz == 3)
		return 0;
	bits = rates[version != 3][layer - 1][rate] * 1000u;
	hz = hertz[hz] >> (version == 3 ? 0 : version == 2 ? 1 : 2);
	if (layer == 1)
		return (12 * (size_t)bits / hz + pad) * 4;
	return (layer == 3 && version != 3 ? 72 : 144) * (size_t)bits / hz + pad;
}

/* Raw audio has no signature, only frames: two in a row count. */
static const char *
sniff_frames(const uint8_t *p, size_t len)
{
	size_t n;

	if (len < 16 || p[0] != 0xff)
		return NULL;
	if ((p[1] & 0xf6) == 0xf0) {
		n = (size_t)(p[3] & 3) << 11 | (size_t)p[4] << 3 | p[5] >> 5;
		if (n > 7 && n + 2 <= len && p[n] == 0xff && (p[n + 1] & 0xf6) == 0xf0)
			return "audio/aac";
		return NULL;
	}
	n = sniff_mpeg_frame(p);
	return n > 4 && n + 4 <= len && sniff_mpeg_frame(p + n) > 0 ? "audio/mpeg" : NULL;
}

size_t
sniff_id3(const uint8_t *p, size_t len)
{
	if (!HAS(0, "ID3") || len < 10 || p[3] < 2 || p[3] > 4 || (p[5] & 15) != 0 ||
	    ((p[6] | p[7] | p[8] | p[9]) & 0x80) != 0)
		return 0;
	return 10 + ((size_t)p[6] << 21 | (size_t)p[7] << 14 | (size_t)p[8] << 7 | p[9]) +
	    ((p[5] & 0x10) != 0 ? 10 : 0);
}

/* What a tag may stand before. */
static const char *
sniff_tagged(const uint8_t *p, size_t len)
{
	const char *mime = HAS(0, "fLaC") ? "audio/flac" : sniff_frames(p, len);

	return mime != NULL ? mime : "audio/mpeg";
}

/* Is there a NAL unit with this first byte (but for `mask`'s zeros) near the start? */
static bool
sniff_nal(const uint8_t *p, size_t len, unsigned mask, unsigned first)
{
	size_t i;

	for (i = 0; i + 4 <= len && i < 4096; i++)
		if (p[i] == 0 && p[i + 1] == 0 && p[i + 2] == 1 && (p[i + 3] & mask) == first)
			return true;
	return false;
}

/* Streams without a container: MPEG-1 and 2, MPEG-4 part 2; H.264 and H.265, which begin with
 * a delimiter, a message or at once with a parameter set. */
static const char *
sniff_elementary(const uint8_t *p, size_t len)
{
	size_t at = HAS(0, "\x00\x00\x00\x01") ? 4 : HAS(0, "\x00\x00\x01") ? 3 : 0;
	unsigned nal = p[at];

	if (at == 0)
		return NULL;
	if (HAS(0, "\x00\x00\x01\xb3"))
		return "video/mpv";
	if (HAS(0, "\x00\x00\x01\xb0") ||
	    (at == 3 && nal < 0x20 && HAS(4, "\x00\x00\x01\x20")))
		return "video/mp4v-es";
	if (((nal & 0x9f) == 7 || nal == 9 || nal == 6) && sniff_nal(p, len, 0x9f, 7))
		return "video/h264";
	if ((nal == 0x40 || nal == 0x46 || nal == 0x4e) && p[at + 1] == 1 &&
	    sniff_nal(p, len, 0xff, 0x40))
		return "video/h265";
	return NULL;
}

/* Transport streams repeat 0x47 each 188 bytes, or 192 with AVCHD's time stamps. */
static bool
sniff_transport(const uint8_t *p, size_t len)
{
	if (len >= 4 * 188 + 1 && p[0] == 0x47 && p[188] == 0x47 && p[376] == 0x47)
		return true;
	return len >= 4 * 192 + 5 && p[4] == 0x47 && p[196] == 0x47 && p[388] == 0x47;
}

static const char *
sniff_signature(const uint8_t *p, size_t len)
{
	const char *mime;

	if (len < 12)
		return HAS(0, "GIF87a") || HAS(0, "GIF89a") ? "image/gif" : NULL;
	if (HAS(0, "\xff\xd8\xff"))
		return "image/jpeg";
	if (HAS(0, "\x89PNG\r\n\x1a\n"))
		return "image/png";
	if (HAS(0, "GIF87a") || HAS(0, "GIF89a"))
		return "image/gif";
	if (HAS(0, "RIFF"))
		return sniff_riff(p, len);
	if (sniff_box(p, len, "ftyp", true))
		return sniff_bmff(p, len);
	if (HAS(0, "\x1a\x45\xdf\xa3"))
		return sniff_ebml(p, len);
	if (HAS(0, "OggS\0"))
		return sniff_ogg(p, len);
	if (HAS(0, "fLaC") && (p[4] & 0x7f) == 0)
		return "audio/flac";
	if (HAS(0, "#!AMR\n") || HAS(0, "#!AMR-WB\n"))
		return "audio/amr";
	if (HAS(0, "FORM") && (HAS(8, "AIFF") || HAS(8, "AIFC")))
		return "audio/x-aiff";
	if (HAS(0, "FLV\x01"))
		return "video/x-flv";
	if (HAS(0, "\x30\x26\xb2\x75\x8e\x66\xcf\x11"))
		return "video/x-ms-asf";
	if (HAS(0, "\x00\x00\x01\xba"))
		return "video/mpeg";
	if (sniff_transport(p, len))
		return "video/mp2t";
	if (sniff_old_quicktime(p, len))
		return "video/quicktime";
	mime = sniff_elementary(p, len);
	return mime != NULL ? mime : sniff_frames(p, len);
}

static const struct sniff_type *
sniff_type(const char *mime)
{
	size_t i;

	for (i = 0; i < sizeof(sniff_types) / sizeof(sniff_types[0]); i++)
		if (strcmp(mime, sniff_types[i].mime) == 0)
			return &sniff_types[i];
	return NULL;
}

const char *
sniff_audio_mime(const char *mime)
{
	const struct sniff_type *type = sniff_type(mime);

	return type != NULL ? type->audio : NULL;
}

static const char *
sniff_library(const uint8_t *head, size_t len)
{
	const char *mime = len > 0 ? magic_buffer(sniff_magic, head, len) : "inode/x-empty";
	size_t i;

	if (mime == NULL || strchr(mime, '/') == NULL || strlen(mime) > 100)
		return "application/octet-stream";
	for (i = 0; i < sizeof(sniff_aliases) / sizeof(sniff_aliases[0]); i++)
		if (strcmp(mime, sniff_aliases[i][0]) == 0)
			return sniff_aliases[i][1];
	return mime;
}

/* Nothing but what a text has in it, and ASCII at that where a signature would be? */
static bool
sniff_is_text(const uint8_t *p, size_t len)
{
	size_t i;

	for (i = 0; i < len && i < 512; i++)
		if ((p[i] < ' ' && (p[i] == 0 || strchr("\t\n\v\f\r", p[i]) == NULL)) || p[i] == 0x7f ||
		    (i < 16 && p[i] > 0x7f))
			return false;
	return len >= 16;
}

/* A tag with pictures may be longer than what is looked at: behind it, then. */
static const char *
sniff_content(int fd, uint8_t *head, size_t len)
{
	size_t tag = sniff_id3(head, len);
	const char *mime;
	ssize_t n;

	if (tag > 0) {
		n = pread_full(fd, head, SNIFF_HEAD, tag);
		return sniff_tagged(head, n > 0 ? (size_t)n : 0);
	}
	mime = sniff_signature(head, len);
	if (mime == NULL)
		mime = sniff_library(head, len);
	/* Four letters make no container. */
	return sniff_type(mime) != NULL && sniff_is_text(head, len) ? "text/plain" : mime;
}

int
sniff(int fd, struct meta *m, struct sniffed *ret)
{
	uint8_t *head = malloc(SNIFF_HEAD);
	ssize_t n = head != NULL ? pread_full(fd, head, SNIFF_HEAD, 0) : -ENOMEM;
	const struct sniff_type *type;

	if (n < 0) {
		free(head);
		return (int)n;
	}
	(void)snprintf(m->mime, sizeof(m->mime), "%s", sniff_content(fd, head, (size_t)n));
	free(head);
	type = sniff_type(m->mime);
	if (strncmp(m->mime, "image/", 6) == 0)
		m->kind = META_PHOTO;
	else if (strncmp(m->mime, "video/", 6) == 0)
		m->kind = META_VIDEO;
	else if (strncmp(m->mime, "audio/", 6) == 0)
		m->kind = META_AUDIO;
	else
		m->kind = META_OTHER;
	*ret = (struct sniffed){ .family = SNIFF_OTHER };
	if (type != NULL && type->known_as != NULL)
		(void)snprintf(m->mime, sizeof(m->mime), "%s", type->known_as);
	if (type != NULL)
		*ret = (struct sniffed){ .family = type->family, .demuxer = type->demuxer };
	else if (m->kind != META_OTHER)
		ret->family = SNIFF_UNSUPPORTED;
	return 0;
}
