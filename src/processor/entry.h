/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_PROCESSOR_ENTRY_H
#define TBFS_PROCESSOR_ENTRY_H

/* A file's entry in meta.json, rebuilt from a worker's untrusted JSON. */
#include "processor/pool.h"

struct entry_options {
	const uint8_t *sum;		/* SHA-256, or NULL */
	const struct extract_limits *limits;
	const char *stage, *code, *message;	/* an error of ours that replaces the worker's;
						 * code NULL: none */
};

/* Is it a JSON object (within the bounds of the wire)? */
bool entry_valid(const char *text, size_t len);

/*
 * Keep the fields we know, in our order, with values in range; drop the rest
 * silently.  text NULL or no JSON: an entry with only what `o` says.  Sets
 * ret->json, mime, kind and failed.  -ENOMEM only.
 */
int entry_build(const char *text, size_t len, const struct entry_options *o,
    struct extract_result *ret);

#endif
