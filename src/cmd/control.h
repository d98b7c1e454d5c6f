/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_CMD_CONTROL_H
#define TBFS_CMD_CONTROL_H

/*
 * How the verbs talk to a running daemon: a unix stream socket in the state
 * directory.  One connection carries one request,
 *
 *	{"verb":"sync","paths":["/circles/12"],"timeout_s":60}\n
 *
 * and is answered by lines of JSON: any number of progress lines, "{}" now and
 * then as a sign of life, and one last line with "exit" (enum exit_code) and,
 * where that isn't 0, "error".
 *
 * Paths travel percent-escaped (control_path_encode): a file name is bytes, a
 * JSON string is UTF-8.
 *
 * Only root, the mounting user and members of one group are answered.
 */
#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum {
	CONTROL_HANDLERS = 16,		/* requests at once; more are refused with a sentence */
	CONTROL_REQUEST_MAX = 1 << 20,	/* bytes of a request line */
	CONTROL_ANSWER_MAX = 64 << 20,	/* bytes of an answer line that a client takes */
	CONTROL_READ_S = 5,		/* a client has so long to send its request */
	CONTROL_WRITE_S = 10,		/* … and so long to take a line from a full socket */
	CONTROL_ALIVE_S = 5,		/* sign of life during a request */
	CONTROL_SILENCE_S = 30,		/* a client gives a silent daemon up after this */
};

/* ---- server ---- */

struct control_server;
struct control_request;

/*
 * One verb.  `run` is called on a handler thread, up to CONTROL_HANDLERS at
 * once, no lock held.  It returns an enum exit_code, or -errno (then the answer
 * has exit 1, for -EINVAL 2, with the sentence in control_error() or strerror).
 * While it waits it asks control_cancelled() at least every second.
 */
struct control_verb {
	const char *name;		/* NULL ends a table */
	int (*run)(void *ctx, struct control_request *req);
};

struct control_options {
	const char *path;		/* of the socket; a stale one is replaced: the caller holds the lock
					 * of the state directory */
	const struct control_verb *verbs;
	void *ctx;			/* handed to run */
	uid_t owner;			/* besides root */
	gid_t group;			/* besides owner; (gid_t)-1: none.  The socket's directory becomes
					 * searchable (0710) for it */
};

/* Bind, listen and start the thread that accepts.  -errno with a sentence. */
int control_start(const struct control_options *opt, struct control_server **ret_s,
    struct error *err);
/* Refuse new requests, cancel the running ones, wait for their handlers, remove the socket.
 * NULL is fine.  Not from a handler. */
void control_stop(struct control_server *s);

/* The request object; lives as long as run(). */
const json_t *control_args(const struct control_request *req);
/* 0, or why the work should end: -ECANCELED (client gone, server stopping), -ETIMEDOUT (the
 * request's own timeout_s).  Any thread. */
int control_cancelled(const struct control_request *req);
/* Monotonic ns of the deadline; 0: none. */
int64_t control_deadline(const struct control_request *req);
/* Send a line now; `line` is consumed.  -EPIPE or -ETIMEDOUT: the request counts as cancelled. */
int control_progress(struct control_request *req, json_t *line);
/* Members of the last line besides exit and error; `answer` is consumed.  May be called again. */
void control_answer(struct control_request *req, json_t *answer);
/* Where run() puts the sentence of a failure. */
struct error *control_error(struct control_request *req);

/* ---- client ---- */

struct control_client {
	int fd;
	int pidfd;			/* of the daemon; -1: its pid can't be seen from here */
	pid_t pid;
};

/* Called for each line but the last; `line` is borrowed. */
typedef void control_line_fn(void *arg, const json_t *line);

/* Never waits: -ENOENT, -ECONNREFUSED (daemon dead), -EAGAIN (daemon hung), -EACCES. */
int control_connect(const char *path, struct control_client *ret_c, struct error *err);
void control_disconnect(struct control_client *c);
/* Send one request and read to the last line.  Returns its exit code, with *err filled when that
 * isn't 0, and *ret_answer (may be NULL) the caller's; -errno when the daemon is silent for
 * CONTROL_SILENCE_S, goes away, or talks nonsense. */
int control_ask(struct control_client *c, const json_t *request, control_line_fn *fn, void *arg,
    json_t **ret_answer, struct error *err);
/* All three. */
int control_call(const char *path, const json_t *request, control_line_fn *fn, void *arg,
    json_t **ret_answer, struct error *err);

/* ---- both ---- */

/* The bytes of a path as a JSON string: what isn't valid UTF-8, control characters and '%' as
 * %XX.  NULL without memory. */
json_t *control_path_encode(const char *path);
/* malloc'd; -EINVAL for a bad escape or %00. */
int control_path_decode(const char *text, char **ret_path);

/* A descriptor that names the socket however long its path is: its directory, and the name to
 * use with it in ret_path.  For bind and connect. */
int control_socket_dir(const char *path, char *ret_path, size_t room);

#endif
