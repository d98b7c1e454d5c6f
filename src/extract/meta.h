/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_EXTRACT_META_H
#define TBFS_EXTRACT_META_H

/* What is known about one file, and its JSON.  An absent field is zero or empty. */
#include "base/extract_wire.h"
#include "base/strbuf.h"

#include <stdbool.h>
#include <stdint.h>

#define META_TEXT_MAX 4096

enum meta_kind { META_OTHER, META_PHOTO, META_VIDEO, META_AUDIO };

struct meta_error {
	const char *code;		/* static; NULL: none */
	enum extract_stage stage;
	char message[256];
};

struct meta {
	char mime[128];
	enum meta_kind kind;
	uint32_t width, height;		/* as displayed */
	unsigned orientation;		/* EXIF 1–8 */
	char taken_at[48];
	char make[META_TEXT_MAX + 1];
	char model[META_TEXT_MAX + 1];
	char lens[META_TEXT_MAX + 1];
	bool has_position, has_altitude;
	double lat, lon, alt;
	bool has_duration;
	double duration;		/* s */
	struct {
		char codec[64];		/* empty: no video stream */
		uint32_t width, height;	/* as coded */
		unsigned rotation;	/* clockwise, degrees */
		double frame_rate;
		int64_t bit_rate;
	} video;
	struct {
		char codec[64];		/* empty: no audio stream */
		unsigned channels, sample_rate;
	} audio;
	struct meta_error error;
};

/* Note what went wrong; the first error of a file stays. */
void meta_fail(struct meta *m, enum extract_stage stage, const char *code, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* The file is known to end too early: its error, or the reason for what looks corrupt. */
void meta_cut_short(struct meta *m, enum extract_stage stage, const char *message);

/* The entry without sha256. */
void meta_emit(const struct meta *m, struct strbuf *b);

#endif
