/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_BASE_ERROR_H
#define TBFS_BASE_ERROR_H

/*
 * Errors.  Functions return 0 or more on success and -errno on failure; only
 * -EAGAIN means "the same call may succeed later".  Where errno is too coarse
 * (configuration, backend, database) the last parameter is a `struct error *`
 * that receives one sentence a person can act on: what, where, what to do.
 * It is written on failure only and may be NULL.
 */
struct error {
	int code;		/* the -errno returned with it */
	char text[512];		/* one line, no newline at the end */
};

/* Fill *err (if not NULL) and return `code`, which is a negative errno. */
int error_set(struct error *err, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The text of err, or strerror of the code where no sentence was written. */
const char *error_text(const struct error *err);

/* Exit codes of every verb (documented in tbfs(1)). */
enum exit_code {
	EXIT_DONE = 0,
	EXIT_NOT_DONE = 1,	/* asked and answered: not done, not yet, or stuck */
	EXIT_USAGE = 2,		/* command line or configuration */
	EXIT_BACKEND = 3,	/* the object store refused or can't be reached */
	EXIT_STATE = 4,		/* the state directory: locked, full, read-only, corrupt */
};

#endif
