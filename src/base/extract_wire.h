/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_BASE_EXTRACT_WIRE_H
#define TBFS_BASE_EXTRACT_WIRE_H

/*
 * What the daemon and its sandboxed worker (tbfs-extract) say to each other.
 * It lives in base because it is the one thing both sides include; it needs
 * nothing itself.
 *
 *	daemon			worker
 *	HELLO limits, uid	(libraries are loaded, then the sandbox is entered)
 *				READY
 *	JOB size + descriptor
 *				STAGE …		what it is about to do
 *				SUM		32 bytes; absent if the file can't be read
 *				ENTRY		the JSON so far; a later one replaces it
 *				THUMB, DATA …	for each size, as many bytes as announced
 *				DONE
 *
 * What the worker sends is untrusted: the daemon bounds and checks all of it
 * (processor/protocol.c, processor/entry.c).
 */
#include <stdint.h>

#define EXTRACT_WIRE_VERSION 1
#define EXTRACT_WIRE_FD 3		/* the worker's end of the socketpair */
#define EXTRACT_ENTRY_MAX (60 * 1024)	/* bytes of JSON */
#define EXTRACT_THUMB_MAX (16u << 20)	/* bytes of one thumbnail */
#define EXTRACT_THUMBS 3

/* Exit codes of the worker that the daemon tells apart. */
#define EXTRACT_EXIT_SANDBOX 90		/* the sandbox can't be entered */
#define EXTRACT_EXIT_MEMORY 91		/* an allocation failed */

enum extract_frame {
	EXTRACT_HELLO = 1,
	EXTRACT_READY,
	EXTRACT_JOB,
	EXTRACT_STAGE,
	EXTRACT_SUM,
	EXTRACT_ENTRY,
	EXTRACT_THUMB,
	EXTRACT_DATA,
	EXTRACT_DONE,
	EXTRACT_REFUSED,		/* instead of READY: a sentence why */
};

/* "stage" of an error: where it happened.  extract_stage_name() spells it. */
enum extract_stage {
	EXTRACT_AT_WORKER,
	EXTRACT_AT_HASH,
	EXTRACT_AT_SNIFF,
	EXTRACT_AT_LIMIT,
	EXTRACT_AT_EXIF,
	EXTRACT_AT_DECODE,
	EXTRACT_AT_VIDEO,
	EXTRACT_AT_AUDIO,
	EXTRACT_AT_THUMB,
	EXTRACT_STAGES,
};

static inline const char *
extract_stage_name(enum extract_stage stage)
{
	static const char *const names[EXTRACT_STAGES] = {
		"worker", "hash", "sniff", "limit", "exif", "decode", "video", "audio", "thumb",
	};

	return (unsigned)stage < EXTRACT_STAGES ? names[stage] : names[0];
}

/* Bounds of one job.  They stop derivation, never storage. */
struct extract_limits {
	uint64_t still_pixels;		/* width × height of a still */
	uint64_t animation_pixels;	/* summed over the frames of an animation */
	uint64_t video_pixels;		/* of one frame */
	uint64_t memory_bytes;		/* what a worker may allocate for a job */
	uint32_t video_s;		/* longest video or audio */
	uint32_t exif_bytes;		/* largest EXIF block that is read */
	uint32_t text_bytes;		/* longest text field */
	uint32_t streams;		/* of a container */
	uint32_t cpu_s;			/* CPU time of one job */
	uint32_t deadline_s;		/* wall time of one job, plus a second for each
					 * EXTRACT_HASH_RATE bytes that are hashed */
};

#define EXTRACT_HASH_RATE (32u << 20)

/* The field's defaults: 250 MP is above the 200 MP of today's phones, 8K is 36 MP. */
#define EXTRACT_LIMITS_DEFAULT { \
	.still_pixels = 250000000, \
	.animation_pixels = 50000000, \
	.video_pixels = 36000000, \
	.memory_bytes = 2ull << 30, \
	.video_s = 4 * 3600, \
	.exif_bytes = 1u << 20, \
	.text_bytes = 4096, \
	.streams = 64, \
	.cpu_s = 60, \
	.deadline_s = 90, \
}

struct extract_hello {
	uint32_t version;
	uint32_t uid, gid;		/* taken on when the worker starts as root */
	uint32_t parent;		/* pid of the daemon: the worker dies with it */
	struct extract_limits limits;
};

struct extract_ready {
	uint32_t version;
	uint32_t guards;		/* EXTRACT_GUARD_… that are in force */
};

enum extract_guard {
	EXTRACT_GUARD_USER = 1 << 0,		/* not root, no supplementary groups */
	EXTRACT_GUARD_CAPS = 1 << 1,		/* no capability in any set */
	EXTRACT_GUARD_NO_NEW_PRIVS = 1 << 2,
	EXTRACT_GUARD_RLIMITS = 1 << 3,
	EXTRACT_GUARD_SECCOMP = 1 << 4,
	EXTRACT_GUARD_LANDLOCK = 1 << 5,	/* best effort from here on */
	EXTRACT_GUARD_EMPTY_ROOT = 1 << 6,	/* own mount namespace, empty root */
	EXTRACT_GUARD_NO_NET = 1 << 7,		/* own, empty network namespace */
};

struct extract_job {
	uint64_t size;
};

struct extract_thumb_head {
	uint32_t which;			/* index into extract_thumb_sizes */
	uint32_t width, height;
	uint32_t zero;
	uint64_t size;			/* bytes of DATA that follow */
};

struct extract_thumb_size {
	const char *name;		/* file name in thumbs/<original>/ */
	const char *mime;
	uint32_t side;			/* longest side, pixels */
	int quality;
};

static const struct extract_thumb_size extract_thumb_sizes[EXTRACT_THUMBS] = {
	{ "256.webp", "image/webp", 256, 80 },
	{ "720.webp", "image/webp", 720, 80 },
	{ "1600.jpg", "image/jpeg", 1600, 82 },
};

#endif
