/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_BASE_CLOCK_H
#define TBFS_BASE_CLOCK_H

/*
 * Time.  File times are nanoseconds since 1970 in an int64_t (1677..2262); what lies beyond is
 * taken for the last second on its side, as ext4 does at the ends of its own range.
 * Waits use the monotonic clock; what is kept in the index uses the wall clock,
 * and whoever compares a stored time must stand a clock that jumps.
 */
#include <stdint.h>
#include <time.h>

#define NSEC_PER_SEC 1000000000LL

static inline int64_t
timespec_to_ns(struct timespec ts)
{
	const int64_t last_s = INT64_MAX / NSEC_PER_SEC - 1;

	if (ts.tv_sec > last_s || ts.tv_sec < -last_s)
		return (ts.tv_sec > 0 ? last_s : -last_s) * NSEC_PER_SEC;
	return (int64_t)ts.tv_sec * NSEC_PER_SEC + ts.tv_nsec;
}

static inline struct timespec
ns_to_timespec(int64_t ns)
{
	struct timespec ts = { .tv_sec = ns / NSEC_PER_SEC, .tv_nsec = ns % NSEC_PER_SEC };

	if (ts.tv_nsec < 0) {
		ts.tv_sec--;
		ts.tv_nsec += NSEC_PER_SEC;
	}
	return ts;
}

/* Now, in ns: the wall clock and the monotonic one. */
int64_t clock_wall_ns(void);
int64_t clock_mono_ns(void);

#endif
