/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_BASE_FRAME_H
#define TBFS_BASE_FRAME_H

/*
 * Frames over a SOCK_SEQPACKET socketpair: a type and up to FRAME_MAX bytes in
 * one packet, so that a peer which lies about lengths can't shift the next
 * frame.  Both ends run on one machine: numbers are in host order.
 */
#include <stddef.h>
#include <stdint.h>

#define FRAME_MAX (64 * 1024)

/* A pair of connected sockets, close-on-exec.  0 or -errno. */
int frame_pair(int ret_socks[2]);

/*
 * Send one frame; with fd >= 0 the descriptor travels along and stays the
 * caller's.  `flags` are send flags (MSG_DONTWAIT); never raises SIGPIPE.
 * -EMSGSIZE above FRAME_MAX, -EPIPE when the peer is gone, -EAGAIN only with
 * MSG_DONTWAIT.
 */
int frame_send(int sock, uint32_t type, const void *data, size_t len, int fd, int flags);

/*
 * Receive one frame into buf (room for FRAME_MAX bytes).  ret_fd NULL: a frame
 * that carries a descriptor is refused and the descriptor dropped by the
 * kernel; else it receives the descriptor or -1.  -EPIPE when the peer is
 * gone, -EPROTO for anything that isn't one whole frame.
 */
int frame_recv(int sock, uint32_t *ret_type, void *buf, size_t *ret_len, int *ret_fd, int flags);

#endif
