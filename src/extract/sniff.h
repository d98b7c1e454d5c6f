/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_EXTRACT_SNIFF_H
#define TBFS_EXTRACT_SNIFF_H

/* What a file is, by its bytes; its name isn't asked. */
#include "base/error.h"
#include "extract/meta.h"

#include <stddef.h>

#define SNIFF_HEAD (256 * 1024)		/* bytes that are looked at */

enum sniff_family {
	SNIFF_OTHER,			/* not decoded, and nothing is missing for that */
	SNIFF_UNSUPPORTED,		/* media that isn't decoded: said so */
	SNIFF_JPEG,
	SNIFF_PNG,
	SNIFF_WEBP,
	SNIFF_GIF,
	SNIFF_TIFF,
	SNIFF_HEIF,
	SNIFF_AV,			/* FFmpeg's, by `demuxer` */
};

struct sniffed {
	enum sniff_family family;
	const char *demuxer;		/* FFmpeg's short name; static */
};

/* Load libmagic's database.  Before the sandbox.  0 or -errno. */
int sniff_init(struct error *err);

/* Judge a file by its first SNIFF_HEAD bytes, and those behind a tag: sets m->mime and
 * m->kind.  0 or -errno. */
int sniff(int fd, struct meta *m, struct sniffed *ret);

/* Bytes of the ID3 tag (v2.2–2.4) that begins at p, or 0; `len` of at least 10 is enough. */
size_t sniff_id3(const uint8_t *p, size_t len);

/* The audio form of a container's MIME type ("video/mp4" → "audio/mp4"), or NULL. */
const char *sniff_audio_mime(const char *mime);

#endif
