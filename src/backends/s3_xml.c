/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Reading S3's XML by expat.
 *
 * A reader walks the document and gives each element's text together with its
 * path ("ListBucketResult/Contents/Key") to the document's own function; what
 * that doesn't know is skipped.  Nothing of a document is kept that was not
 * asked for, and a document that isn't complete gives nothing at all.
 *
 *   1. A document type declaration ends the parse: there are no entities to expand.
 *   2. Depth <= DEPTH_MAX, an element's text <= TEXT_MAX, a page <= PAGE_MAX objects.
 */
#include "backends/s3_xml.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/strbuf.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <expat.h>

enum {
	DEPTH_MAX = 8,
	TEXT_MAX = 8192,		/* a key of 1,024 bytes, escaped, and a continuation token */
	PAGE_MAX = 10000,
};

struct reader {
	XML_Parser parser;
	struct strbuf path;		/* names from the root, with slashes between */
	size_t begin[DEPTH_MAX];	/* where each level's name begins in path */
	int depth;
	struct strbuf text;		/* of the innermost element */
	int r;
	/* Called at the end of each element; non-zero ends the parse. */
	int (*element)(void *arg, const char *path, const char *text);
	void *arg;
};

static void
stop(struct reader *rd, int r)
{
	rd->r = r;
	(void)XML_StopParser(rd->parser, XML_FALSE);
}

static void XMLCALL
on_start(void *arg, const XML_Char *name, const XML_Char **attributes)
{
	struct reader *rd = arg;

	(void)attributes;
	if (rd->depth == DEPTH_MAX) {
		stop(rd, -EBADMSG);
		return;
	}
	rd->begin[rd->depth++] = rd->path.len;
	if (rd->path.len > 0)
		strbuf_addch(&rd->path, '/');
	strbuf_addstr(&rd->path, name);
	strbuf_reset(&rd->text);
	if (rd->path.len > TEXT_MAX || !strbuf_ok(&rd->path))
		stop(rd, -EBADMSG);
}

static void XMLCALL
on_end(void *arg, const XML_Char *name)
{
	struct reader *rd = arg;
	int r;

	(void)name;
	strbuf_addstr(&rd->text, "");
	if (!strbuf_ok(&rd->text)) {
		stop(rd, -ENOMEM);
		return;
	}
	r = rd->element(rd->arg, rd->path.data, rd->text.data);
	if (r != 0) {
		stop(rd, r);
		return;
	}
	rd->path.len = rd->begin[--rd->depth];
	rd->path.data[rd->path.len] = '\0';
	strbuf_reset(&rd->text);
}

static void XMLCALL
on_text(void *arg, const XML_Char *text, int len)
{
	struct reader *rd = arg;

	if (rd->text.len + (size_t)len > TEXT_MAX)
		stop(rd, -EBADMSG);
	else
		strbuf_add(&rd->text, text, (size_t)len);
}

static void XMLCALL
on_doctype(void *arg, const XML_Char *name, const XML_Char *system, const XML_Char *public, int internal)
{
	(void)name, (void)system, (void)public, (void)internal;
	stop(arg, -EBADMSG);
}

static int
parse(const char *text, size_t len, int (*element)(void *, const char *, const char *), void *arg)
{
	struct reader rd = { .element = element, .arg = arg };

	if (len == 0 || len > INT32_MAX)
		return -EBADMSG;
	rd.parser = XML_ParserCreate(NULL);
	if (rd.parser == NULL)
		return -ENOMEM;
	XML_SetUserData(rd.parser, &rd);
	XML_SetElementHandler(rd.parser, on_start, on_end);
	XML_SetCharacterDataHandler(rd.parser, on_text);
	XML_SetStartDoctypeDeclHandler(rd.parser, on_doctype);
	if (XML_Parse(rd.parser, text, (int)len, 1) != XML_STATUS_OK && rd.r == 0)
		rd.r = -EBADMSG;
	XML_ParserFree(rd.parser);
	strbuf_release(&rd.path);
	strbuf_release(&rd.text);
	return rd.r;
}

/* Copy what fits, control characters made blanks. */
static void
take(char *ret, size_t room, const char *text)
{
	size_t i;

	for (i = 0; i + 1 < room && text[i] != '\0'; i++)
		ret[i] = iscntrl((unsigned char)text[i]) ? ' ' : text[i];
	ret[i] = '\0';
}

static void
take_etag(char *ret, size_t room, const char *text)
{
	size_t len = strlen(text);

	if (len >= 2 && text[0] == '"' && text[len - 1] == '"') {
		text++;
		len -= 2;
	}
	if (len < room) {
		memcpy(ret, text, len);
		ret[len] = '\0';
	}
}

/* ---- errors ---- */

static int
error_element(void *arg, const char *path, const char *text)
{
	struct s3_xml_error *e = arg;

	if (strcmp(path, "Error/Code") == 0)
		take(e->code, sizeof(e->code), text);
	else if (strcmp(path, "Error/Message") == 0)
		take(e->message, sizeof(e->message), text);
	else if (strcmp(path, "Error/Region") == 0)
		take(e->region, sizeof(e->region), text);
	return 0;
}

int
s3_xml_error(const char *text, size_t len, struct s3_xml_error *ret)
{
	struct s3_xml_error e = {0};
	int r = parse(text, len, error_element, &e);

	if (r == 0 && e.code[0] == '\0')
		r = -EBADMSG;
	if (r == 0)
		*ret = e;
	return r;
}

/* ---- results ---- */

static int
result_element(void *arg, const char *path, const char *text)
{
	struct s3_xml_result *res = arg;
	const char *name = strrchr(path, '/');

	if (name == NULL) {
		take(res->root, sizeof(res->root), path);
		return 0;
	}
	name++;
	if (strcmp(name, "ETag") == 0)
		take_etag(res->etag, sizeof(res->etag), text);
	else if (strcmp(name, "ChecksumSHA256") == 0)
		take(res->sha256, sizeof(res->sha256), text);
	else if (strcmp(name, "UploadId") == 0 && res->upload_id == NULL)
		res->upload_id = strdup(text);
	return 0;
}

int
s3_xml_result(const char *text, size_t len, struct s3_xml_result *ret)
{
	struct s3_xml_result res = {0};
	int r = parse(text, len, result_element, &res);

	if (r == 0)
		*ret = res;
	else
		free(res.upload_id);
	return r;
}

/* ---- listings ---- */

struct list_reader {
	struct s3_xml_page page;
	struct s3_xml_object current;
	bool escaped, truncated, is_list;
};

int64_t
s3_time(const char *text)
{
	struct tm tm = {0};
	const char *end = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);

	if (end == NULL) {
		memset(&tm, 0, sizeof(tm));
		end = strptime(text, "%a, %d %b %Y %H:%M:%S", &tm);
	}
	return end == NULL ? INT64_MIN : (int64_t)timegm(&tm) * NSEC_PER_SEC;
}

static int
list_add(struct list_reader *lr)
{
	struct s3_xml_page *page = &lr->page;

	if (lr->current.key == NULL || page->count == PAGE_MAX)
		return -EBADMSG;
	if (page->count == page->room) {
		size_t room = page->room ? 2 * page->room : 256;
		struct s3_xml_object *more = realloc(page->objects, room * sizeof(*more));

		if (more == NULL)
			return -ENOMEM;
		page->objects = more;
		page->room = room;
	}
	page->objects[page->count++] = lr->current;
	lr->current = (struct s3_xml_object){0};
	return 0;
}

static int
list_element(void *arg, const char *path, const char *text)
{
	struct list_reader *lr = arg;

	if (strncmp(path, "ListBucketResult", 16) != 0)
		return -EBADMSG;
	if (path[16] == '\0') {
		lr->is_list = true;
		return 0;
	}
	path += 17;
	if (strcmp(path, "Contents") == 0)
		return list_add(lr);
	if (strcmp(path, "Contents/Key") == 0) {
		free(lr->current.key);
		lr->current.key = strdup(text);
		return lr->current.key == NULL ? -ENOMEM : 0;
	}
	if (strcmp(path, "Contents/Size") == 0)
		lr->current.size = strtoull(text, NULL, 10);
	else if (strcmp(path, "Contents/LastModified") == 0)
		lr->current.mtime_ns = s3_time(text);
	else if (strcmp(path, "EncodingType") == 0)
		lr->escaped = strcmp(text, "url") == 0;
	else if (strcmp(path, "IsTruncated") == 0)
		lr->truncated = strcmp(text, "true") == 0;
	else if (strcmp(path, "NextContinuationToken") == 0 && lr->page.next_token == NULL)
		lr->page.next_token = strdup(text);
	return 0;
}

static int
hex_value(char c)
{
	return isdigit((unsigned char)c) ? c - '0' : isxdigit((unsigned char)c) ?
	    tolower((unsigned char)c) - 'a' + 10 : -1;
}

/* encoding-type=url is a form's: blanks are '+'. */
static int
unescape(char *text)
{
	char *out = text;

	for (; *text != '\0'; text++) {
		if (*text == '+') {
			*out++ = ' ';
		} else if (*text == '%') {
			int hi = hex_value(text[1]), lo = hi < 0 ? -1 : hex_value(text[2]);

			if (lo < 0 || (hi == 0 && lo == 0))
				return -EBADMSG;
			*out++ = (char)(hi << 4 | lo);
			text += 2;
		} else {
			*out++ = *text;
		}
	}
	*out = '\0';
	return 0;
}

int
s3_xml_list(const char *text, size_t len, struct s3_xml_page *ret)
{
	struct list_reader lr = {0};
	int r = parse(text, len, list_element, &lr);
	size_t i;

	if (r == 0 && (!lr.is_list || (lr.truncated && lr.page.next_token == NULL)))
		r = -EBADMSG;
	/* MinIO says whether keys are escaped after them. */
	for (i = 0; r == 0 && lr.escaped && i < lr.page.count; i++)
		r = unescape(lr.page.objects[i].key);
	free(lr.current.key);
	if (r == 0 && !lr.truncated) {
		free(lr.page.next_token);
		lr.page.next_token = NULL;
	}
	if (r == 0)
		*ret = lr.page;
	else
		s3_xml_page_release(&lr.page);
	return r;
}

void
s3_xml_page_release(struct s3_xml_page *page)
{
	size_t i;

	for (i = 0; i < page->count; i++)
		free(page->objects[i].key);
	free(page->objects);
	free(page->next_token);
	*page = (struct s3_xml_page){0};
}
