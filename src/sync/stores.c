/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "sync/stores.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Three failures in a row open the circuit: 1 s, 2 s, 4 s … up to 15 s between attempts. */
enum { FAILURES_TO_OPEN = 3, WAIT_MAX_S = 15 };

void
stores_init(struct stores *s)
{
	*s = (struct stores){ .n = 0 };
}

void
stores_release(struct stores *s)
{
	size_t i;

	for (i = 0; i < s->n; i++) {
		backend_free(s->store[i].backend);
		lock_release(&s->store[i].lock);
	}
	s->n = 0;
}

int
stores_add(struct stores *s, const char *name, struct backend *b)
{
	if (s->n == STORES_MAX)
		return -ENOSPC;
	s->store[s->n].name = name;
	s->store[s->n].backend = b;
	lock_init(&s->store[s->n].lock, RANK_QUEUE);
	s->n++;
	return 0;
}

struct store *
stores_find(struct stores *s, const char *name)
{
	size_t i;

	for (i = 0; i < s->n; i++)
		if (strcmp(s->store[i].name, name) == 0)
			return &s->store[i];
	return NULL;
}

void
store_report(struct store *st, int r, const struct error *err)
{
	bool opened = false, healed = false;

	lock_take(&st->lock);
	if (r == -EAGAIN || r == -EACCES || r == -ENODEV || r == -ENOSPC) {
		unsigned shift = ++st->failures - FAILURES_TO_OPEN;

		(void)snprintf(st->last_error, sizeof(st->last_error), "%s", error_text(err));
		if (st->failures >= FAILURES_TO_OPEN) {
			int64_t wait = shift > 4 ? WAIT_MAX_S : 1 << shift;

			st->retry_at = clock_mono_ns() + (wait < WAIT_MAX_S ? wait : WAIT_MAX_S) * NSEC_PER_SEC;
			opened = st->failed_since == 0;
			if (opened)
				st->failed_since = clock_wall_ns();
		}
	} else if (r != -ECANCELED && r != -EINPROGRESS) {
		healed = st->failed_since != 0;
		st->failures = 0;
		st->retry_at = 0;
		st->failed_since = 0;
	}
	lock_drop(&st->lock);
	if (opened)
		log_warn("store %s is failing, files stay staged: %s", st->name,
		    error_text(err));
	if (healed)
		log_info("store %s works again", st->name);
}

int64_t
store_wait(struct store *st)
{
	int64_t wait;

	lock_take(&st->lock);
	wait = st->retry_at == 0 ? 0 : st->retry_at - clock_mono_ns();
	lock_drop(&st->lock);
	return wait > 0 ? wait : 0;
}
