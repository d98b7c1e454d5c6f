/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Frames between the daemon and a process it doesn't trust.
 *
 *  1. One packet is one frame: what a peer does to a frame never reaches the
 *     next one.
 *  2. The head repeats the length.  A packet that disagrees, is cut short or
 *     brings descriptors nobody asked for is -EPROTO, and the caller drops the
 *     peer.
 *  3. No state: any thread, one frame at a time for each socket and direction.
 */
#include "base/frame.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define FRAME_MAGIC 0x74626631u		/* "tbf1" */

struct frame_head {
	uint32_t magic;
	uint32_t type;
	uint32_t len;
	uint32_t zero;
};

union frame_control {
	char room[CMSG_SPACE(sizeof(int))];
	struct cmsghdr align;
};

int
frame_pair(int ret_socks[2])
{
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ret_socks) < 0 ? -errno : 0;
}

int
frame_send(int sock, uint32_t type, const void *data, size_t len, int fd, int flags)
{
	struct frame_head head = { .magic = FRAME_MAGIC, .type = type, .len = (uint32_t)len };
	struct iovec iov[2] = { { &head, sizeof(head) }, { (void *)(uintptr_t)data, len } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = len > 0 ? 2 : 1 };
	union frame_control control = { .room = { 0 } };
	ssize_t n;

	if (len > FRAME_MAX)
		return -EMSGSIZE;
	if (fd >= 0) {
		struct cmsghdr *c;

		msg.msg_control = control.room;
		msg.msg_controllen = sizeof(control.room);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(int));
	}
	do
		n = sendmsg(sock, &msg, MSG_NOSIGNAL | flags);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == ECONNRESET ? -EPIPE : -errno;
	return 0;
}

/* The descriptor in a received message, or -1; more than one can't fit the room given. */
static int
frame_take_fd(struct msghdr *msg)
{
	struct cmsghdr *c = CMSG_FIRSTHDR(msg);
	int fd;

	if (c == NULL || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS ||
	    c->cmsg_len != CMSG_LEN(sizeof(int)))
		return -1;
	memcpy(&fd, CMSG_DATA(c), sizeof(int));
	return fd;
}

int
frame_recv(int sock, uint32_t *ret_type, void *buf, size_t *ret_len, int *ret_fd, int flags)
{
	struct frame_head head = { 0 };
	struct iovec iov[2] = { { &head, sizeof(head) }, { buf, FRAME_MAX } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
	union frame_control control = { .room = { 0 } };
	int fd = -1;
	ssize_t n;

	if (ret_fd != NULL) {
		msg.msg_control = control.room;
		msg.msg_controllen = sizeof(control.room);
	}
	do
		n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC | flags);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == ECONNRESET ? -EPIPE : -errno;
	if (n == 0)
		return -EPIPE;
	if (ret_fd != NULL)
		fd = frame_take_fd(&msg);
	if ((msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 || (size_t)n < sizeof(head) ||
	    head.magic != FRAME_MAGIC || head.zero != 0 ||
	    head.len != (size_t)n - sizeof(head)) {
		if (fd >= 0)
			(void)close(fd);
		return -EPROTO;
	}
	*ret_type = head.type;
	*ret_len = head.len;
	if (ret_fd != NULL)
		*ret_fd = fd;
	return 0;
}
