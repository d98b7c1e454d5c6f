/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_CMD_CMD_H
#define TBFS_CMD_CMD_H

/*
 * The verbs.  Each is one file with one entry point that gets argv from its own
 * name on and returns the exit code of the process (enum exit_code).  Answers go
 * to stdout, complaints as one line to stderr.
 */
#include "base/error.h"
#include "cmd/control.h"
#include "cmd/locate.h"
#include "config.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

struct cmd {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *usage;		/* what follows the name */
	const char *summary;		/* one line for `tbfs --help` */
	const char *help;		/* what --help adds; may be NULL */
};

extern const struct cmd cmd_table[];	/* ends with a NULL name */

int cmd_mount(int argc, char **argv);
int cmd_mount_helper(int argc, char **argv);	/* as mount.tbfs SOURCE MOUNTPOINT … */
int cmd_umount(int argc, char **argv);
int cmd_umount_helper(int argc, char **argv);	/* as umount.fuse.tbfs MOUNTPOINT … */
int cmd_sync(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_info(int argc, char **argv);
int cmd_retry(int argc, char **argv);
int cmd_url(int argc, char **argv);
int cmd_quota(int argc, char **argv);
int cmd_config(int argc, char **argv);

/* "tbfs: sentence" on stderr; returns code. */
int cmd_fail(enum exit_code code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int cmd_fail_error(enum exit_code code, const struct error *err);
/* The usage of a verb on stderr; EXIT_USAGE. */
int cmd_usage(const char *name);
/* Its --help on stdout; EXIT_DONE. */
int cmd_help(const char *name);

/* A time from the command line in seconds; false (and told) when it is none. */
bool cmd_seconds(const char *option, const char *text, double *ret_seconds);

/* The locations that a verb's arguments name.  Without arguments the only mount. */
int cmd_locate(const char *path, struct location *ret);	/* NULL: the only one; exit code */

/* Ask the daemon at loc; tells failures.  Returns the exit code; *ret_answer may be NULL. */
int cmd_ask(const struct location *loc, json_t *request, control_line_fn *fn, void *arg,
    json_t **ret_answer);	/* request is consumed */

/* A verb with paths: sort them by mount, and ask each daemon once with
 * {"verb":verb, "paths":[…], and what `extra` has}.  fn gets progress lines and, as a last line,
 * the answer.  Without paths the only mount's root.  Returns the worst exit code. */
int cmd_each_mount(const char *verb, char *const *paths, int count, const json_t *extra,
    control_line_fn *fn, void *arg);

/* ---- output (cmd/show.c) ---- */

/* "1.4 GiB", static buffers, four at a time. */
const char *show_size(json_int_t bytes);
/* "3 d 4 h", "12 s". */
const char *show_age(double seconds);
/* A JSON string that may come from a file name: control characters never reach the terminal. */
void show_text(FILE *out, const char *text);
/* An object as aligned "key  value" lines, nested objects by dotted keys. */
void show_object(FILE *out, const json_t *object);

/* Progress of sync and umount: a bar on a terminal, otherwise a line every few seconds.  Lines
 * are {"files_done","files_total"}. */
struct show_progress {
	bool terminal, drawn;
	double next;			/* monotonic seconds of the next plain line */
};
void show_progress_init(struct show_progress *p);
void show_progress_line(void *progress, const json_t *line);	/* a control_line_fn */
void show_progress_end(struct show_progress *p);

#endif
