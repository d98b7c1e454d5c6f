/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A list of inode numbers that grows. */
#include "core/node.h"

#include <errno.h>
#include <stdlib.h>

int
inos_add(struct inos *l, uint64_t ino)
{
	if (l->n == l->room) {
		size_t room = l->room == 0 ? 256 : l->room * 2;
		uint64_t *inos = realloc(l->inos, room * sizeof(*inos));

		if (inos == NULL)
			return -ENOMEM;
		l->inos = inos;
		l->room = room;
	}
	l->inos[l->n++] = ino;
	return 0;
}
