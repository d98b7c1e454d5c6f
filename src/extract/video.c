/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Video and audio: what the container says, and a poster.
 *
 *  1. kind follows from the streams: a container without video is audio,
 *     whatever its name or brand; a cover picture isn't video.
 *  2. Width and height are as displayed (square pixels, turned by the display
 *     matrix); those in "video" are as coded.
 *  3. Dates: QuickTime's creationdate has the place's own time and offset and
 *     wins; creation_time is UTC.  The zero of 1904 or 1970 is no date.
 */
#include "extract/cut.h"
#include "extract/media.h"
#include "extract/picture.h"
#include "extract/poster.h"
#include "extract/text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* The first of the names that has a value, in the container's tags. */
static const char *
video_tag(const struct media *media, const char *const *names)
{
	for (; *names != NULL; names++) {
		const AVDictionaryEntry *e = av_dict_get(media->format->metadata, *names, NULL, 0);

		if (e != NULL && e->value[0] != '\0')
			return e->value;
	}
	return NULL;
}

static void
video_read_text(const struct media *media, const char *const *names, char *ret)
{
	const char *value = video_tag(media, names);
	size_t most = media->job->limits->text_bytes;

	if (value != NULL)
		text_clean(value, strlen(value), most < META_TEXT_MAX ? most : META_TEXT_MAX, ret);
}

/* Containers count in whole seconds, FFmpeg prints six zeros. */
static void
video_cut_zeros(char *date)
{
	char *dot = strchr(date, '.');
	size_t n = dot != NULL ? strspn(dot + 1, "0") : 0;

	if (dot != NULL && (dot[1 + n] < '0' || dot[1 + n] > '9'))
		memmove(dot, dot + 1 + n, strlen(dot + 1 + n) + 1);
}

static void
video_set_date(struct meta *m, const char *value)
{
	char date[48];

	if (value == NULL || m->taken_at[0] != '\0' || !text_date(value, NULL, NULL, date))
		return;
	if (strncmp(date, "1904-01-01", 10) == 0 || strncmp(date, "1970-01-01", 10) == 0)
		return;
	video_cut_zeros(date);
	(void)snprintf(m->taken_at, sizeof(m->taken_at), "%s", date);
}

static void
video_read_tags(const struct media *media)
{
	static const char *const places[] = { "com.apple.quicktime.location.ISO6709",
		"location", "location-eng", "com.apple.quicktime.location.iso6709", NULL };
	static const char *const makes[] = { "com.apple.quicktime.make", "make",
		"com.android.manufacturer", NULL };
	static const char *const models[] = { "com.apple.quicktime.model", "model",
		"com.android.model", NULL };
	static const char *const lenses[] = { "com.apple.quicktime.camera.lens_model", NULL };
	static const char *const dates[] = { "com.apple.quicktime.creationdate", NULL };
	static const char *const times[] = { "creation_time", NULL };
	struct meta *m = &media->job->meta;
	const char *place = video_tag(media, places);
	unsigned i;

	video_read_text(media, makes, m->make);
	video_read_text(media, models, m->model);
	video_read_text(media, lenses, m->lens);
	video_set_date(m, video_tag(media, dates));
	video_set_date(m, video_tag(media, times));
	for (i = 0; i < media->format->nb_streams; i++) {
		const AVDictionaryEntry *e = av_dict_get(media->format->streams[i]->metadata,
		    "creation_time", NULL, 0);

		video_set_date(m, e != NULL ? e->value : NULL);
	}
	if (place != NULL)
		m->has_position = text_iso6709(place, &m->lat, &m->lon, &m->has_altitude, &m->alt);
	if (m->has_position && m->lat == 0 && m->lon == 0 && (!m->has_altitude || m->alt == 0))
		m->has_position = m->has_altitude = false;
}

static void
video_read_stream(const struct media *media)
{
	static const unsigned turns[9] = { [3] = 180, [4] = 180, [5] = 90, [6] = 90, [7] = 270,
		[8] = 270 };
	const AVStream *s = media->format->streams[media->video];
	const AVCodecParameters *p = s->codecpar;
	struct meta *m = &media->job->meta;
	AVRational rate = s->avg_frame_rate.num > 0 ? s->avg_frame_rate : s->r_frame_rate;
	uint32_t width;

	(void)snprintf(m->video.codec, sizeof(m->video.codec), "%s",
	    avcodec_get_name(p->codec_id));
	if (p->width > 0 && p->height > 0) {
		m->video.width = (uint32_t)p->width;
		m->video.height = (uint32_t)p->height;
	}
	m->video.rotation = turns[media_orientation(s)];
	width = (uint32_t)lrint(picture_square_width((int)m->video.width,
	    av_guess_sample_aspect_ratio(media->format, media->format->streams[media->video], NULL)));
	if (width == 0 && m->video.width > 0)
		width = 1;
	m->width = m->video.rotation % 180 != 0 ? m->video.height : width;
	m->height = m->video.rotation % 180 != 0 ? width : m->video.height;
	if (rate.num > 0 && rate.den > 0)
		m->video.frame_rate = av_q2d(rate);
	m->video.bit_rate = p->bit_rate;
}

static void
audio_read_stream(const struct media *media)
{
	const AVCodecParameters *p = media->format->streams[media->audio]->codecpar;
	struct meta *m = &media->job->meta;

	(void)snprintf(m->audio.codec, sizeof(m->audio.codec), "%s",
	    avcodec_get_name(p->codec_id));
	if (p->ch_layout.nb_channels > 0)
		m->audio.channels = (unsigned)p->ch_layout.nb_channels;
	if (p->sample_rate > 0)
		m->audio.sample_rate = (unsigned)p->sample_rate;
}

static void
video_set_kind(const struct media *media)
{
	struct meta *m = &media->job->meta;
	const char *mime;

	if (media->video >= 0) {
		if (strcmp(m->mime, "audio/mp4") == 0)
			(void)snprintf(m->mime, sizeof(m->mime), "video/mp4");
		m->kind = META_VIDEO;
	} else if (media->audio >= 0) {
		mime = sniff_audio_mime(m->mime);
		if (mime != NULL)
			(void)snprintf(m->mime, sizeof(m->mime), "%s", mime);
		m->kind = META_AUDIO;
	}
}

static bool
video_within_limits(const struct media *media)
{
	const struct extract_limits *l = media->job->limits;
	struct meta *m = &media->job->meta;

	if ((uint64_t)m->video.width * m->video.height > l->video_pixels)
		meta_fail(m, EXTRACT_AT_LIMIT, "too-large", "%u x %u pixels, more than %ju",
		    m->video.width, m->video.height, (uintmax_t)l->video_pixels);
	else if (m->has_duration && m->duration > l->video_s)
		meta_fail(m, EXTRACT_AT_LIMIT, "too-large", "%.0f s, more than %u", m->duration,
		    l->video_s);
	else
		return true;
	return false;
}

void
video_extract(struct job *j)
{
	struct meta *m = &j->meta;
	struct media media;

	job_stage(j, m->kind == META_AUDIO ? EXTRACT_AT_AUDIO : EXTRACT_AT_VIDEO);
	if (media_open(&media, j)) {
		if (media.format->duration != AV_NOPTS_VALUE && media.format->duration >= 0) {
			m->has_duration = true;
			m->duration = (double)media.format->duration / AV_TIME_BASE;
		}
		video_set_kind(&media);
		video_read_tags(&media);
		if (media.audio >= 0)
			audio_read_stream(&media);
		if (media.video >= 0)
			video_read_stream(&media);
		if (media.video < 0 && media.audio < 0)
			meta_fail(m, EXTRACT_AT_VIDEO, "corrupt", "neither video nor audio in it");
		job_send_entry(j);
		if (media.video >= 0 && video_within_limits(&media)) {
			job_stage(j, EXTRACT_AT_DECODE);
			poster_send(&media);
		}
	}
	/* What is there has been derived; that there was more has to be said. */
	if (cut_short(&media))
		meta_cut_short(m, m->kind == META_AUDIO ? EXTRACT_AT_AUDIO : EXTRACT_AT_VIDEO,
		    "the file ends before its container does");
	media_close(&media);
}
