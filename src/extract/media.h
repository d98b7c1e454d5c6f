/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_EXTRACT_MEDIA_H
#define TBFS_EXTRACT_MEDIA_H

/* A container opened by FFmpeg on the job's descriptor alone. */
#include "extract/job.h"

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>

struct media {
	struct job *job;
	AVFormatContext *format;
	AVIOContext *io;
	int64_t pos;			/* of io in the file */
	int video, audio;		/* stream numbers, or -1 */
};

/* Open and probe; false with the file's error noted.  media_close in both cases. */
bool media_open(struct media *media, struct job *j);
void media_close(struct media *media);

/* The decoder for a stream, one thread, within the limits; NULL with the error noted. */
AVCodecContext *media_open_decoder(struct media *media, int stream);

/* Past the time at which the job gives up by itself? */
bool media_late(const struct media *media);

/* Note FFmpeg's error r as the file's. */
void media_fail(struct media *media, enum extract_stage stage, int r, const char *what);

/* The stream's display matrix as an EXIF orientation 1–8. */
unsigned media_orientation(const AVStream *stream);

#endif
