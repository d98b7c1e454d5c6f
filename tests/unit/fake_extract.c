/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A worker that misbehaves as the job's file tells it to, for the pool's tests.
 * The file's text is the behaviour; it isn't sandboxed, and says so.
 */
#include "base/extract_wire.h"
#include "base/frame.h"
#include "base/io.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static char buf[FRAME_MAX];

static void
say(uint32_t type, const void *data, size_t len)
{
	if (frame_send(EXTRACT_WIRE_FD, type, data, len, -1, 0) < 0)
		_exit(0);
}

static void
say_sum(void)
{
	uint8_t sum[32] = { 0xab };

	say(EXTRACT_SUM, sum, sizeof(sum));
}

static void
say_entry(const char *json)
{
	say(EXTRACT_ENTRY, json, strlen(json));
}

static void
say_thumb(uint32_t which, uint32_t side, uint64_t size)
{
	struct extract_thumb_head head = { .which = which, .width = side, .height = 1,
		.size = size };

	say(EXTRACT_THUMB, &head, sizeof(head));
}

/* Touch `mib` of memory and die as a library does that gets no more. */
static void
eat(size_t mib)
{
	size_t i;

	for (i = 0; i < mib; i++) {
		char *p = malloc(1 << 20);

		if (p != NULL)
			memset(p, (int)i, 1 << 20);
		__asm__ volatile("" : : "r"(p) : "memory");
	}
	abort();
}

static void
babble(const char *what)
{
	uint32_t stage = EXTRACT_AT_DECODE;
	char noise[300];

	if (strcmp(what, "bytes") == 0) {
		memset(noise, 0x5a, sizeof(noise));
		(void)send(EXTRACT_WIRE_FD, noise, sizeof(noise), MSG_NOSIGNAL);
	} else if (strcmp(what, "type") == 0) {
		say(4711, NULL, 0);
	} else if (strcmp(what, "stages") == 0) {
		for (;;)
			say(EXTRACT_STAGE, &stage, sizeof(stage));
	} else if (strcmp(what, "huge") == 0) {
		say_thumb(0, 256, 1ull << 60);
	} else if (strcmp(what, "wide") == 0) {
		say_thumb(0, 257, 100);
	} else if (strcmp(what, "which") == 0) {
		say_thumb(3, 100, 100);
	} else if (strcmp(what, "more") == 0) {
		say_thumb(0, 256, 20);
		for (;;)
			say(EXTRACT_DATA, "RIFFxxxxWEBPVP8 ", 16);
	} else if (strcmp(what, "signature") == 0) {
		say_thumb(0, 256, 20);
		say(EXTRACT_DATA, "<script>alert(1)</script>", 20);
	} else if (strcmp(what, "early") == 0) {
		say(EXTRACT_DONE, NULL, 0);
	} else if (strcmp(what, "descriptor") == 0) {
		(void)frame_send(EXTRACT_WIRE_FD, EXTRACT_STAGE, &stage, sizeof(stage), 0, 0);
	}
	(void)pause();
}

static void
lie(void)
{
	say_sum();
	say_entry("{\"mime\":\"image/jpeg\",\"kind\":\"photo\",\"width\":-4,\"height\":1e99,"
	    "\"orientation\":9,\"taken_at\":\"<b>\",\"camera\":{\"make\":\"a\\nb\","
	    "\"model\":\"fine\",\"evil\":1},\"gps\":{\"lat\":91,\"lon\":5,\"alt\":3},"
	    "\"sha256\":\"0\",\"thumbs\":[1],\"duration\":\"long\",\"__proto__\":{}}");
	say(EXTRACT_DONE, NULL, 0);
}

static void
behave(const char *what)
{
	uint32_t stage = EXTRACT_AT_DECODE;

	say(EXTRACT_STAGE, &stage, sizeof(stage));
	if (strcmp(what, "segv") == 0) {
		say_sum();
		say_entry("{\"mime\":\"image/png\",\"kind\":\"photo\",\"width\":7}");
		(void)raise(SIGSEGV);
	} else if (strcmp(what, "hang") == 0) {
		(void)pause();
	} else if (strcmp(what, "close") == 0) {
		(void)close(EXTRACT_WIRE_FD);
		(void)pause();
	} else if (strcmp(what, "spin") == 0) {
		for (;;)
			__asm__ volatile("" : : : "memory");
	} else if (strcmp(what, "memory") == 0) {
		eat(60);
	} else if (strcmp(what, "exit") == 0) {
		_exit(7);
	} else if (strcmp(what, "text") == 0) {
		say_sum();
		say_entry("this is no JSON");
		say(EXTRACT_DONE, NULL, 0);
	} else if (strcmp(what, "lie") == 0) {
		lie();
	} else if (strncmp(what, "babble ", 7) == 0) {
		babble(what + 7);
	} else {
		say_sum();
		say_entry("{\"mime\":\"image/jpeg\",\"kind\":\"photo\",\"width\":7,\"height\":0}");
		say(EXTRACT_DONE, NULL, 0);
	}
}

int
main(void)
{
	struct extract_ready ready = { .version = EXTRACT_WIRE_VERSION };
	uint32_t type;
	size_t len;
	int fd;

	if (frame_recv(EXTRACT_WIRE_FD, &type, buf, &len, NULL, 0) < 0)
		return 1;
	say(EXTRACT_READY, &ready, sizeof(ready));
	while (frame_recv(EXTRACT_WIRE_FD, &type, buf, &len, &fd, 0) == 0) {
		ssize_t n = pread_full(fd, buf, 64, 0);

		buf[n > 0 ? n : 0] = '\0';
		behave(buf);
		(void)close(fd);
	}
	return 0;
}
