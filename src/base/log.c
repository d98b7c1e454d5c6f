/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "base/log.h"

#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static _Atomic enum log_level log_threshold = LOG_LEVEL_INFO;
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = STDERR_FILENO;		/* log_lock */

void
log_set_level(enum log_level level)
{
	atomic_store(&log_threshold, level);
}

enum log_level
log_get_level(void)
{
	return atomic_load(&log_threshold);
}

int
log_open(const char *path)
{
	int fd = STDERR_FILENO, old;

	if (path != NULL) {
		fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
		if (fd < 0)
			return -errno;
	}
	pthread_mutex_lock(&log_lock);
	old = log_fd;
	log_fd = fd;
	pthread_mutex_unlock(&log_lock);
	if (old != STDERR_FILENO)
		(void)close(old);
	return 0;
}

static void
log_emit(enum log_level level, const char *text)
{
	static const char *const names[] = { "error", "warning", "info", "debug" };
	char line[1400], stamp[32];
	struct timespec ts;
	struct tm tm;
	size_t i;
	int n;

	(void)clock_gettime(CLOCK_REALTIME, &ts);
	(void)gmtime_r(&ts.tv_sec, &tm);
	(void)strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &tm);
	n = snprintf(line, sizeof(line) - 1, "%s.%03ldZ %s: %s", stamp, ts.tv_nsec / 1000000,
	    names[level], text);
	if (n > (int)sizeof(line) - 2)
		n = (int)sizeof(line) - 2;
	for (i = 0; i < (size_t)n; i++)
		if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
			line[i] = '?';
	line[n++] = '\n';
	pthread_mutex_lock(&log_lock);
	(void)write_full(log_fd, line, (size_t)n);
	pthread_mutex_unlock(&log_lock);
}

void
log_write(enum log_level level, const char *fmt, ...)
{
	char text[1280];
	va_list ap;

	if (level > atomic_load(&log_threshold))
		return;
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_emit(level, text);
}

int
log_errno(int code, const char *fmt, ...)
{
	char text[1280];
	va_list ap;
	size_t n;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	n = strlen(text);
	(void)snprintf(text + n, sizeof(text) - n, ": %s", strerror(-code));
	log_emit(LOG_LEVEL_ERROR, text);
	return code;
}
