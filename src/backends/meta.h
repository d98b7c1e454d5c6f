/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_BACKENDS_META_H
#define TBFS_BACKENDS_META_H

/*
 * How what travels with an object is spelled, the same in every store: short
 * names, US-ASCII values.  S3 puts them into x-amz-meta-<name> headers, local
 * into one extended attribute with a line `name=value` for each.
 *
 *	mtime            seconds.nnnnnnnnn since 1970, as rclone writes it
 *	mode, uid, gid   decimal, as rclone and s3fs write them; absent when mode is 0
 *	sha256           hex, of the whole object
 *	tbfs-seq, tbfs-id, tbfs-generation   decimal; absent when 0
 *	tbfs-path        percent-escaped; absent when unset or longer than the room
 */
#include "backends/backend.h"

/* The sum of all names (with S3's prefix) and values stays below S3's 2,048 bytes. */
enum { META_MAX = 2000 };

/* Called for each field; non-zero ends it. */
typedef int meta_field_fn(void *arg, const char *name, const char *value);

/* Each field of m in turn.  Returns 0, fn's value or -ENOMEM.  *ret_path_left_out says whether
 * tbfs-path was set but didn't fit (may be NULL). */
int meta_each(const struct object_meta *m, const uint8_t sha256[SHA256_LEN], meta_field_fn *fn,
    void *arg, bool *ret_path_left_out);

/* Take one field into the tag.  Unknown names and values that can't be read are ignored: anyone
 * may write an object's metadata. */
void meta_parse(struct backend_tag *tag, const char *name, const char *value);

/* The tag of an object that was just stored with this metadata. */
void meta_to_tag(const struct object_meta *m, uint64_t size, const uint8_t sha256[SHA256_LEN],
    struct backend_tag *ret_tag);

#endif
