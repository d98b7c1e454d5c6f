/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_CMD_CONTROL_PRIVATE_H
#define TBFS_CMD_CONTROL_PRIVATE_H

/* What the accepting thread (control.c) and the handlers (control_request.c) share. */
#include "cmd/control.h"

#include <pthread.h>
#include <stdatomic.h>

enum slot_state { SLOT_FREE, SLOT_RUNNING, SLOT_ENDED };

struct control_request {
	struct control_server *server;
	int fd;				/* set before the handler starts */
	pthread_t thread;		/* accepting thread */
	_Atomic enum slot_state state;	/* handler: RUNNING → ENDED; accepting thread: the others */
	_Atomic bool cancelled;
	_Atomic bool working;		/* the request is read: signs of life may go out */
	bool gone;			/* accepting thread: hang-up seen */
	json_t *args;			/* handler */
	json_t *answer;			/* handler */
	struct error error;		/* handler */
	int64_t deadline;		/* handler, set before working */
	pthread_mutex_t write_lock;
};

struct control_server {
	struct control_options opt;
	char *path;
	int dir_fd;			/* holds the socket's directory */
	int listen_fd;
	int wake_fd;			/* eventfd: a handler ended, or stop */
	_Atomic bool stopping;
	pthread_t thread;
	struct control_request slots[CONTROL_HANDLERS];
};

/* The body of a handler's thread; arg is its struct control_request. */
void *control_handler_run(void *arg);
/* Send all of it; a full socket is waited for until `until` (monotonic ns; 0: not at all).
 * -ETIMEDOUT, -EPIPE. */
int control_send(int fd, const char *data, size_t len, int64_t until);
/* End the accepting thread's sleep. */
void control_wake(struct control_server *s);

#endif
