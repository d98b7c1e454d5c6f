/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_BASE_LOG_H
#define TBFS_BASE_LOG_H

/*
 * The log: one line an event, to stderr until log_open() names a file.  Any
 * thread.  The one who decides what to do logs, once, with path and object;
 * lower layers return.  Control characters in arguments are escaped.
 */
enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

void log_set_level(enum log_level level);
enum log_level log_get_level(void);

/* Append to `path` from now on (NULL: stderr).  Called again with the same path it reopens. */
int log_open(const char *path);

void log_write(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_err(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...) log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...) log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* Log at error level with ": <strerror>" appended; returns `code` (a negative errno). */
int log_errno(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
