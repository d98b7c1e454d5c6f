/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The poster of a video.
 *
 * A time that depends on the duration, and from there the frame whose colours
 * are nearest to the average of its neighbours (the idea of FFmpeg's
 * `thumbnail` filter: neither a flash nor a half-done cut).  Every POSTER_STRIDE-th
 * of some hundred frames is a candidate, for its neighbours look like it.
 * Black and one-coloured frames aren't candidates while there are others.
 *
 *  1. Candidates are references to decoded frames, at most POSTER_BYTES of
 *     them: larger frames mean fewer candidates, down to one.
 *  2. The budget of time ends the search, not the poster: what was found by
 *     then is used.
 */
#include "extract/poster.h"

#include "extract/picture.h"
#include "extract/thumb.h"

#include <math.h>
#include <string.h>

#include <libavcodec/avcodec.h>
#include <libavutil/imgutils.h>
#include <libavutil/mem.h>

#define POSTER_STRIDE 8
#define POSTER_CANDIDATES 12
#define POSTER_BYTES (64 << 20)
#define POSTER_SKIP_MAX 600		/* frames decoded on the way to the time asked for */
#define SKETCH 32			/* side of the picture that is compared */
#define BINS 16				/* of each colour */

struct candidate {
	AVFrame *frame;
	float bins[3 * BINS];
	float mean, deviation;		/* of brightness, 0–255 */
};

struct poster {
	struct media *media;
	AVCodecContext *decoder;
	AVStream *stream;
	int64_t from;			/* first time stamp wanted, in the stream's units */
	struct candidate candidates[POSTER_CANDIDATES];
	unsigned n, most;
	unsigned seen;			/* frames since `from` */
	unsigned skipped;		/* frames before it */
	int error;			/* last one of the decoder */
	AVFrame *first;			/* whatever was decoded first: better than nothing */
};

/* Where a video of `s` seconds has something to show. */
static double
poster_time(double s)
{
	static const double times[][2] = {
		{ 3600, 150 }, { 600, 60 }, { 180, 30 }, { 60, 9 }, { 3.1, 3 },
	};
	size_t i;

	for (i = 0; i < sizeof(times) / sizeof(times[0]); i++)
		if (s > times[i][0])
			return times[i][1];
	return 0.001;
}

static int
poster_measure(struct candidate *c)
{
	uint8_t sketch[SKETCH * SKETCH * 3 + 64];
	double sum = 0, square = 0;
	int i, r = picture_sketch(c->frame, SKETCH, SKETCH, sketch);

	if (r < 0)
		return r;
	memset(c->bins, 0, sizeof(c->bins));
	for (i = 0; i < SKETCH * SKETCH; i++) {
		const uint8_t *p = sketch + 3 * i;
		double y = 0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2];

		c->bins[p[0] * BINS / 256]++;
		c->bins[BINS + p[1] * BINS / 256]++;
		c->bins[2 * BINS + p[2] * BINS / 256]++;
		sum += y;
		square += y * y;
	}
	c->mean = (float)(sum / (SKETCH * SKETCH));
	c->deviation = (float)sqrt(fmax(square / (SKETCH * SKETCH) -
	    (double)c->mean * c->mean, 0));
	return 0;
}

/* Black, or one colour all over. */
static bool
candidate_blank(const struct candidate *c)
{
	return c->mean < 12 || c->deviation < 4;
}

static const AVFrame *
poster_choose(const struct poster *p)
{
	float average[3 * BINS] = { 0 };
	const struct candidate *best = NULL;
	double least = INFINITY;
	unsigned i, b, used = 0;

	for (i = 0; i < p->n; i++) {
		const struct candidate *c = &p->candidates[i];

		if (candidate_blank(c))
			continue;
		for (b = 0; b < 3 * BINS; b++)
			average[b] += c->bins[b];
		used++;
	}
	for (i = 0; i < p->n; i++) {
		const struct candidate *c = &p->candidates[i];
		double distance = 0;

		if (used > 0 && candidate_blank(c))
			continue;
		/* Nothing but blanks: the one with most in it. */
		for (b = 0; b < 3 * BINS && used > 0; b++)
			distance += pow(c->bins[b] - average[b] / used, 2);
		if (used == 0)
			distance = -(double)c->deviation;
		if (distance < least) {
			least = distance;
			best = c;
		}
	}
	return best != NULL ? best->frame : p->first;
}

/* How many frames of this size may be kept. */
static unsigned
poster_room(const AVFrame *f)
{
	int bytes = av_image_get_buffer_size((enum AVPixelFormat)f->format, f->width, f->height, 1);

	if (bytes <= 0 || bytes > POSTER_BYTES)
		return 1;
	return POSTER_BYTES / bytes < POSTER_CANDIDATES ? (unsigned)(POSTER_BYTES / bytes) :
	    POSTER_CANDIDATES;
}

/* Take a decoded frame.  1: enough; 0: more; FFmpeg's error. */
static int
poster_take(struct poster *p, const AVFrame *f)
{
	struct candidate *c = &p->candidates[p->n];
	int64_t at = f->best_effort_timestamp;

	if (p->first == NULL) {
		p->first = av_frame_clone(f);
		p->most = poster_room(f);
	}
	if (at != AV_NOPTS_VALUE && at < p->from && p->skipped < POSTER_SKIP_MAX) {
		p->skipped++;
		return 0;
	}
	if (p->seen++ % POSTER_STRIDE != 0)
		return 0;
	c->frame = av_frame_clone(f);
	if (c->frame == NULL)
		return AVERROR(ENOMEM);
	if (poster_measure(c) < 0) {
		av_frame_free(&c->frame);
		return 0;
	}
	/* With little room, blanks don't take it. */
	if (candidate_blank(c) && p->seen < POSTER_STRIDE * POSTER_CANDIDATES &&
	    p->n + 1 >= p->most) {
		av_frame_free(&c->frame);
		return 0;
	}
	return ++p->n >= p->most;
}

/* Everything the decoder has ready.  1: enough; 0: it wants more; FFmpeg's error. */
static int
poster_drain(struct poster *p, AVFrame *frame)
{
	for (;;) {
		int r = avcodec_receive_frame(p->decoder, frame);

		if (r == AVERROR(EAGAIN))
			return 0;
		if (r < 0)
			return r;
		r = poster_take(p, frame);
		av_frame_unref(frame);
		if (r != 0)
			return r;
	}
}

static void
poster_decode(struct poster *p)
{
	AVPacket *packet = av_packet_alloc();
	AVFrame *frame = av_frame_alloc();
	int r = packet == NULL || frame == NULL ? AVERROR(ENOMEM) : 0;

	while (r == 0 && !media_late(p->media)) {
		int got = av_read_frame(p->media->format, packet);

		if (got >= 0 && packet->stream_index != p->stream->index) {
			av_packet_unref(packet);
			continue;
		}
		/* A damaged packet is skipped; the frames after it may be good. */
		r = avcodec_send_packet(p->decoder, got >= 0 ? packet : NULL);
		if (r < 0 && r != AVERROR(EAGAIN) && r != AVERROR_EOF)
			p->error = r;
		av_packet_unref(packet);
		r = poster_drain(p, frame);
		if (r < 0 && r != AVERROR_EOF && r != AVERROR(ENOMEM)) {
			p->error = r;
			r = 0;
		}
		if (got < 0 && r == 0) {
			p->error = got;
			break;
		}
	}
	if (r < 0 && r != AVERROR_EOF)
		p->error = r;
	av_packet_free(&packet);
	av_frame_free(&frame);
}

static void
poster_seek(struct poster *p)
{
	const AVFormatContext *f = p->media->format;
	double s = f->duration != AV_NOPTS_VALUE ? (double)f->duration / AV_TIME_BASE : 0;
	int64_t at = (int64_t)(poster_time(s) * AV_TIME_BASE);

	if (f->start_time != AV_NOPTS_VALUE)
		at += f->start_time;
	p->from = av_rescale_q(at, AV_TIME_BASE_Q, p->stream->time_base);
	if (s > 3.1 && avformat_seek_file(p->media->format, p->stream->index, INT64_MIN, p->from,
	    p->from, 0) >= 0)
		avcodec_flush_buffers(p->decoder);
	if (s <= 3.1)
		p->from = INT64_MIN;
}

static void
poster_send_frame(struct poster *p, const AVFrame *frame)
{
	AVRational aspect = av_guess_sample_aspect_ratio(p->media->format, p->stream,
	    (AVFrame *)(uintptr_t)frame);
	int side = (int)extract_thumb_sizes[EXTRACT_THUMBS - 1].side, w, h;
	VipsImage *raw, *picture = NULL;
	uint8_t *pixels;
	int r = picture_convert(frame, aspect, side, &pixels, &w, &h);

	if (r < 0) {
		media_fail(p->media, EXTRACT_AT_THUMB, r, "poster");
		return;
	}
	raw = vips_image_new_from_memory(pixels, 3 * (size_t)w * (size_t)h, w, h, 3,
	    VIPS_FORMAT_UCHAR);
	r = raw == NULL || vips_copy(raw, &picture, "interpretation", VIPS_INTERPRETATION_sRGB,
	    NULL) != 0 ? -1 : thumb_send_all(p->media->job, picture, NULL,
	    media_orientation(p->stream));
	if (r != 0)
		thumb_fail(p->media->job, EXTRACT_AT_THUMB);
	g_clear_object(&picture);
	g_clear_object(&raw);
	av_free(pixels);
}

void
poster_send(struct media *media)
{
	struct poster p = { .media = media, .most = POSTER_CANDIDATES };
	const AVFrame *best;
	unsigned i;

	p.stream = media->format->streams[media->video];
	p.decoder = media_open_decoder(media, media->video);
	if (p.decoder == NULL)
		return;
	for (i = 0; i < media->format->nb_streams; i++)
		if ((int)i != media->video)
			media->format->streams[i]->discard = AVDISCARD_ALL;
	poster_seek(&p);
	poster_decode(&p);
	best = poster_choose(&p);
	if (best != NULL)
		poster_send_frame(&p, best);
	else
		media_fail(media, EXTRACT_AT_DECODE, p.error != 0 ? p.error : AVERROR_INVALIDDATA,
		    "no frame can be decoded");
	for (i = 0; i < POSTER_CANDIDATES; i++)
		av_frame_free(&p.candidates[i].frame);
	av_frame_free(&p.first);
	avcodec_free_context(&p.decoder);
}
