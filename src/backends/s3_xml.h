/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_BACKENDS_S3_XML_H
#define TBFS_BACKENDS_S3_XML_H

/*
 * The XML documents that S3 answers with.  Input is hostile: size, depth and text
 * are bounded, document types (and so entities) are refused.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* <Error>: whatever is absent is "". */
struct s3_xml_error {
	char code[64];
	char message[200];		/* control characters made blanks */
	char region[64];
};

/* One page of ListObjectsV2. */
struct s3_xml_object {
	char *key;			/* decoded */
	uint64_t size;
	int64_t mtime_ns;
};

struct s3_xml_page {
	struct s3_xml_object *objects;
	size_t count, room;
	char *next_token;		/* NULL: the last page */
};

/* Results of CreateMultipartUpload, CompleteMultipartUpload, CopyObject, UploadPartCopy. */
struct s3_xml_result {
	char root[64];			/* name of the document's element */
	char etag[96];			/* without quotes */
	char sha256[64];		/* ChecksumSHA256: base64, with "-N" if composite; "" if absent */
	char *upload_id;		/* NULL if absent; free() it */
};

/* -EBADMSG: not well-formed, not this document, or over a bound.  -ENOMEM. */
int s3_xml_error(const char *text, size_t len, struct s3_xml_error *ret);
int s3_xml_list(const char *text, size_t len, struct s3_xml_page *ret);
int s3_xml_result(const char *text, size_t len, struct s3_xml_result *ret);

void s3_xml_page_release(struct s3_xml_page *page);

/* "2013-05-24T00:00:00.000Z" or "Fri, 24 May 2013 00:00:00 GMT"; INT64_MIN if neither. */
int64_t s3_time(const char *text);

#endif
