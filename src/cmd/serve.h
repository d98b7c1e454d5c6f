/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_CMD_SERVE_H
#define TBFS_CMD_SERVE_H

/* The daemon's side of the verbs, each a control_verb of control.h: private to serve*.c. */
#include "cmd/daemon_private.h"

int verb_status(void *ctx, struct control_request *req);
int verb_sync(void *ctx, struct control_request *req);
int verb_umount(void *ctx, struct control_request *req);
int verb_info(void *ctx, struct control_request *req);
int verb_retry(void *ctx, struct control_request *req);
int verb_quota_set(void *ctx, struct control_request *req);
int verb_quota_show(void *ctx, struct control_request *req);

/* The inode that a path of the request names: relative to the mount, percent-escaped. */
int serve_resolve(struct daemon *d, const json_t *text, struct inode *ret_inode, struct error *err);
/* The other way round, without a leading slash; NULL when it has no name. */
json_t *serve_path_of(struct daemon *d, uint64_t ino);
/* A number among the arguments. */
double serve_number(const json_t *args, const char *name, double otherwise);

#endif
