/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * FFmpeg, held short:
 *
 *  1. It reads by pread on one descriptor; protocols are off, and a container
 *     that asks for another file is refused one.
 *  2. The demuxer is the one that follows from the sniffed type, the decoders
 *     are on a list; nothing is probed by content twice.
 *  3. Streams, pixels of a frame, bytes of an allocation and time are bounded.
 *  4. One thread: the sandbox has no use for more, and results don't depend on
 *     their order.
 */
#include "extract/media.h"

#include "base/clock.h"
#include "base/io.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <libavcodec/avcodec.h>
#include <libavutil/display.h>
#include <libavutil/mem.h>
#include <libavutil/opt.h>

#define MEDIA_IO_BUFFER (64 * 1024)

static const char media_demuxers[] =
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegvideo,mpegts,m4v,h264,hevc,flv,asf,ogg,"
    "mp3,flac,wav,aiff,aac,amr";

/* Camcorders, phones and what the web made of them.  No playlists, no text, no games. */
static const char media_decoders[] =
    "h264,hevc,libdav1d,libaom-av1,av1,vp8,vp9,mpeg4,h263,h263i,h263p,mpeg1video,mpeg2video,"
    "mjpeg,mjpegb,theora,prores,dvvideo,msmpeg4v1,msmpeg4v2,msmpeg4,wmv1,wmv2,wmv3,vc1,flv,"
    "svq1,svq3,cinepak,rpza,qtrle,rawvideo,png,huffyuv,ffv1,dnxhd,cfhd,vp6,vp6a,vp6f,msvideo1,"
    "aac,aac_latm,mp3,mp3float,mp2,mp2float,mp1float,ac3,eac3,opus,vorbis,flac,alac,amrnb,"
    "amrwb,dca,truehd,mlp,s302m,pcm_bluray,pcm_dvd,"
    "pcm_s16le,pcm_s16be,pcm_s24le,pcm_s24be,pcm_s32le,pcm_s32be,pcm_u8,pcm_s8,"
    "pcm_f32le,pcm_alaw,pcm_mulaw,adpcm_ima_wav,adpcm_ima_qt,adpcm_ms,wmav1,wmav2,wmapro,qdm2,qdmc";

static int
media_io_read(void *arg, uint8_t *buf, int len)
{
	struct media *media = arg;
	int64_t left = (int64_t)media->job->size - media->pos;
	ssize_t n;

	if (left <= 0)
		return AVERROR_EOF;
	n = pread_full(media->job->fd, buf, left < len ? (size_t)left : (size_t)len,
	    (uint64_t)media->pos);
	if (n < 0)
		return AVERROR(-(int)n);
	if (n == 0)
		return AVERROR_EOF;
	media->pos += n;
	return (int)n;
}

static int64_t
media_io_seek(void *arg, int64_t off, int whence)
{
	struct media *media = arg;

	whence &= ~AVSEEK_FORCE;
	if (whence == AVSEEK_SIZE)
		return (int64_t)media->job->size;
	if (whence == SEEK_CUR)
		off += media->pos;
	else if (whence == SEEK_END)
		off += (int64_t)media->job->size;
	if (off < 0)
		return AVERROR(EINVAL);
	media->pos = off;
	return off;
}

/* A container wants another file. */
static int
media_io_refuse(AVFormatContext *format, AVIOContext **pb, const char *url, int flags,
    AVDictionary **options)
{
	(void)format;
	(void)pb;
	(void)url;
	(void)flags;
	(void)options;
	return AVERROR(EACCES);
}

bool
media_late(const struct media *media)
{
	return clock_mono_ns() > media->job->until_ns;
}

static int
media_interrupted(void *arg)
{
	return media_late(arg);
}

void
media_fail(struct media *media, enum extract_stage stage, int r, const char *what)
{
	char text[AV_ERROR_MAX_STRING_SIZE] = "";
	const char *code = "corrupt";

	(void)av_strerror(r, text, sizeof(text));
	if (media_late(media))
		code = "timeout";
	else if (r == AVERROR(ENOMEM))
		code = "memory";
	else if (r == AVERROR_EOF || r == AVERROR(EIO))
		code = "truncated";
	else if (r == AVERROR_DECODER_NOT_FOUND || r == AVERROR_DEMUXER_NOT_FOUND ||
	    r == AVERROR_PATCHWELCOME || r == AVERROR(ENOSYS))
		code = "unsupported";
	meta_fail(&media->job->meta, stage, code, "%s: %s", what, text);
}

static bool
media_prepare(struct media *media)
{
	const struct extract_limits *l = media->job->limits;
	uint8_t *buffer = av_malloc(MEDIA_IO_BUFFER);

	av_max_alloc((size_t)(l->memory_bytes / 2));
	if (buffer == NULL)
		return false;
	media->io = avio_alloc_context(buffer, MEDIA_IO_BUFFER, 0, media, media_io_read, NULL,
	    media_io_seek);
	if (media->io == NULL) {
		av_free(buffer);
		return false;
	}
	media->format = avformat_alloc_context();
	if (media->format == NULL)
		return false;
	media->format->pb = media->io;
	media->format->flags |= AVFMT_FLAG_CUSTOM_IO | AVFMT_FLAG_BITEXACT;
	media->format->io_open = media_io_refuse;
	media->format->interrupt_callback = (AVIOInterruptCB){ media_interrupted, media };
	media->format->max_streams = (int)l->streams + 1;
	return true;
}

static int
media_probe_streams(struct media *media)
{
	unsigned i, n = media->format->nb_streams;
	AVDictionary **options = av_calloc(n > 0 ? n : 1, sizeof(*options));
	int r;

	if (options == NULL)
		return AVERROR(ENOMEM);
	for (i = 0; i < n; i++) {
		(void)av_dict_set(&options[i], "threads", "1", 0);
		(void)av_dict_set_int(&options[i], "max_pixels",
		    (int64_t)media->job->limits->video_pixels * 4, 0);
	}
	r = avformat_find_stream_info(media->format, options);
	for (i = 0; i < n; i++)
		av_dict_free(&options[i]);
	av_free(options);
	return r;
}

static void
media_choose_streams(struct media *media)
{
	media->video = av_find_best_stream(media->format, AVMEDIA_TYPE_VIDEO, -1, -1, NULL, 0);
	/* The cover of an album is a picture, not a video. */
	if (media->video >= 0 && (media->format->streams[media->video]->disposition &
	    AV_DISPOSITION_ATTACHED_PIC) != 0)
		media->video = -1;
	media->audio = av_find_best_stream(media->format, AVMEDIA_TYPE_AUDIO, -1, -1, NULL, 0);
	if (media->video < 0)
		media->video = -1;
	if (media->audio < 0)
		media->audio = -1;
}

/* Where FFmpeg's errors belong. */
static enum extract_stage
media_stage(const struct media *media)
{
	return media->job->meta.kind == META_AUDIO ? EXTRACT_AT_AUDIO : EXTRACT_AT_VIDEO;
}

bool
media_open(struct media *media, struct job *j)
{
	const AVInputFormat *demuxer = av_find_input_format(j->type.demuxer);
	AVDictionary *options = NULL;
	int r;

	*media = (struct media){ .job = j, .video = -1, .audio = -1 };
	if (!media_prepare(media)) {
		meta_fail(&j->meta, media_stage(media), "memory", "out of memory");
		return false;
	}
	(void)av_dict_set(&options, "format_whitelist", media_demuxers, 0);
	(void)av_dict_set(&options, "codec_whitelist", media_decoders, 0);
	(void)av_dict_set(&options, "protocol_whitelist", "", 0);
	/* Transport streams: or the video's size may be missed, as ffprobe knows. */
	(void)av_dict_set(&options, "scan_all_pmts", "1", 0);
	r = avformat_open_input(&media->format, NULL, demuxer, &options);
	av_dict_free(&options);
	if (r < 0) {
		media_fail(media, media_stage(media), r, "can't be opened");
		return false;
	}
	if (media->format->nb_streams > j->limits->streams) {
		meta_fail(&j->meta, EXTRACT_AT_LIMIT, "too-large", "more than %u streams",
		    j->limits->streams);
		return false;
	}
	r = media_probe_streams(media);
	if (r < 0) {
		media_fail(media, media_stage(media), r, "no streams");
		return false;
	}
	media_choose_streams(media);
	return true;
}

void
media_close(struct media *media)
{
	if (media->format != NULL)
		avformat_close_input(&media->format);
	if (media->io != NULL) {
		av_freep(&media->io->buffer);
		avio_context_free(&media->io);
	}
}

/* Is the decoder on our list? */
static bool
media_decoder_allowed(const AVCodec *codec)
{
	const char *p = media_decoders;
	size_t n = strlen(codec->name);

	while ((p = strstr(p, codec->name)) != NULL) {
		if ((p == media_decoders || p[-1] == ',') && (p[n] == ',' || p[n] == '\0'))
			return true;
		p += n;
	}
	return false;
}

static const AVCodec *
media_find_decoder(enum AVCodecID id)
{
	const AVCodec *codec;
	void *at = NULL;

	while ((codec = av_codec_iterate(&at)) != NULL)
		if (codec->id == id && av_codec_is_decoder(codec) && media_decoder_allowed(codec))
			return codec;
	return NULL;
}

AVCodecContext *
media_open_decoder(struct media *media, int number)
{
	AVStream *stream = media->format->streams[number];
	const AVCodec *codec = media_find_decoder(stream->codecpar->codec_id);
	AVCodecContext *ctx;
	int r;

	if (codec == NULL) {
		media_fail(media, EXTRACT_AT_VIDEO, AVERROR_DECODER_NOT_FOUND,
		    avcodec_get_name(stream->codecpar->codec_id));
		return NULL;
	}
	ctx = avcodec_alloc_context3(codec);
	if (ctx == NULL) {
		media_fail(media, EXTRACT_AT_VIDEO, AVERROR(ENOMEM), "decoder");
		return NULL;
	}
	r = avcodec_parameters_to_context(ctx, stream->codecpar);
	ctx->thread_count = 1;
	ctx->max_pixels = (int64_t)media->job->limits->video_pixels;
	ctx->pkt_timebase = stream->time_base;
	if (r >= 0)
		r = avcodec_open2(ctx, codec, NULL);
	if (r < 0) {
		media_fail(media, EXTRACT_AT_VIDEO, r, codec->name);
		avcodec_free_context(&ctx);
	}
	return ctx;
}

static const int32_t *
media_display_matrix(const AVStream *stream)
{
#if LIBAVFORMAT_VERSION_INT >= AV_VERSION_INT(60, 15, 100)
	const AVPacketSideData *side = av_packet_side_data_get(stream->codecpar->coded_side_data,
	    stream->codecpar->nb_coded_side_data, AV_PKT_DATA_DISPLAYMATRIX);

	return side != NULL && side->size >= 36 ? (const int32_t *)(const void *)side->data : NULL;
#else
	size_t size;
	const uint8_t *side = av_stream_get_side_data(stream, AV_PKT_DATA_DISPLAYMATRIX, &size);

	return side != NULL && size >= 36 ? (const int32_t *)(const void *)side : NULL;
#endif
}

unsigned
media_orientation(const AVStream *stream)
{
	const int32_t *m = media_display_matrix(stream);
	int64_t a, b, c, d;

	if (m == NULL)
		return 1;
	/* x' = a x + c y, y' = b x + d y (ISO 14496-12, tkhd) */
	a = m[0];
	b = m[1];
	c = m[3];
	d = m[4];
	if (llabs(a) + llabs(d) >= llabs(b) + llabs(c)) {
		if (a < 0)
			return d < 0 ? 3 : 2;
		return d < 0 ? 4 : 1;
	}
	if (b > 0)
		return c > 0 ? 5 : 6;
	return c > 0 ? 8 : 7;
}
