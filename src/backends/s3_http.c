/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * HTTP for the S3 backend: a pool of libcurl easy handles.
 *
 * A call takes an idle handle (the last one used, its connection is the warmest),
 * makes its exchange and puts it back; connections stay open inside the handles.
 *
 *   1. The pool's lock is held to push and pop only, never during an exchange.
 *   2. Bodies stream: pread into libcurl's buffer, pwrite out of it; nothing is
 *      allocated for a chunk.  What is kept in memory is bounded.
 *   3. `cancelled` is asked after each read of the body and before its bytes go on,
 *      and about once a second while nothing moves.
 *   4. Every exchange ends: a bound on connecting, one on the time without progress,
 *      and one on the whole, by its size.
 *   5. Redirects are never followed: the signature would go to someone else.
 *   6. An address is checked when it is connected to, so that a name can't lead
 *      unencrypted bytes out of the private network.
 */
#include "backends/s3_http.h"

#include "base/io.h"
#include "base/lock.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include <curl/curl.h>

enum {
	IDLE_MAX = 64,			/* handles kept */
	CONNECT_TIMEOUT = 10,		/* seconds */
	SLOWEST = 16 * 1024,		/* bytes a second that the total bound allows for */
	BUFFER = 256 * 1024,
	HEADERS_MAX = 64 * 1024,
	BODY_MAX = 16 << 20,		/* a listing page of 1,000 escaped keys takes 4 MB at most */
};

struct s3_http {
	struct lock lock;
	CURL *idle[IDLE_MAX];		/* lock */
	size_t count;			/* lock */
	char *ca_file;
	bool plain_private_only;
	unsigned timeout;
};

/* One exchange, known to libcurl's callbacks. */
struct exchange {
	const struct s3_http *h;
	const struct s3_http_request *req;
	struct s3_http_reply *reply;
	CURL *curl;
	uint64_t sent;			/* position in the body */
	int local_error;		/* why a callback ended it */
	bool refused;			/* invariant 6 */
};

void
s3_http_reply_release(struct s3_http_reply *reply)
{
	strbuf_release(&reply->headers);
	strbuf_release(&reply->body);
	*reply = (struct s3_http_reply){0};
}

bool
s3_http_header(const struct s3_http_reply *reply, const char *name, char *ret_value, size_t room)
{
	const char *line = reply->headers.data, *end;
	size_t len = strlen(name);

	for (; line != NULL && *line != '\0'; line = end + 1) {
		end = strchr(line, '\n');
		if (end == NULL)
			return false;
		if (strncmp(line, name, len) == 0 && line[len] == ':') {
			line += len + 1;
			while (*line == ' ' || *line == '\t')
				line++;
			if ((size_t)(end - line) >= room)
				return false;
			memcpy(ret_value, line, (size_t)(end - line));
			ret_value[end - line] = '\0';
			return true;
		}
	}
	return false;
}

/* ---- addresses ---- */

static bool
ipv4_private(uint32_t a)
{
	return a >> 24 == 127 || a >> 24 == 10 || a >> 20 == 0xac1 || a >> 16 == 0xc0a8 ||
	    a >> 16 == 0xa9fe;		/* RFC 1122, 1918, 3927 */
}

static bool
ipv6_private(const struct in6_addr *a)
{
	uint32_t v4;

	if (IN6_IS_ADDR_V4MAPPED(a)) {
		memcpy(&v4, a->s6_addr + 12, 4);
		return ipv4_private(ntohl(v4));
	}
	/* RFC 4291 loopback and link-local, RFC 4193 unique local. */
	return IN6_IS_ADDR_LOOPBACK(a) || IN6_IS_ADDR_LINKLOCAL(a) || (a->s6_addr[0] & 0xfe) == 0xfc;
}

static bool
address_private(const struct sockaddr *addr)
{
	if (addr->sa_family == AF_INET)
		return ipv4_private(ntohl(((const struct sockaddr_in *)addr)->sin_addr.s_addr));
	if (addr->sa_family == AF_INET6)
		return ipv6_private(&((const struct sockaddr_in6 *)addr)->sin6_addr);
	return false;
}

int
s3_http_address_private(const char *host)
{
	struct in_addr v4;
	struct in6_addr v6;
	char bare[64];
	size_t len = strlen(host);

	if (strcmp(host, "localhost") == 0)
		return 1;
	if (inet_pton(AF_INET, host, &v4) == 1)
		return ipv4_private(ntohl(v4.s_addr));
	if (host[0] != '[' || len < 3 || len - 2 >= sizeof(bare))
		return -EINVAL;
	memcpy(bare, host + 1, len - 2);
	bare[len - 2] = '\0';
	return inet_pton(AF_INET6, bare, &v6) == 1 ? ipv6_private(&v6) : -EINVAL;
}

/* ---- libcurl's callbacks ---- */

static curl_socket_t
open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *addr)
{
	struct exchange *x = arg;

	(void)purpose;
	if (x->h->plain_private_only && strncmp(x->req->url, "http:", 5) == 0 &&
	    !address_private(&addr->addr)) {
		x->refused = true;
		return CURL_SOCKET_BAD;
	}
	return socket(addr->family, addr->socktype | SOCK_CLOEXEC, addr->protocol);
}

static bool
is_cancelled(struct exchange *x)
{
	if (x->req->cancelled == NULL || !x->req->cancelled(x->req->cancelled_arg))
		return false;
	x->local_error = -ECANCELED;
	return true;
}

static size_t
read_body(char *buf, size_t size, size_t n, void *arg)
{
	struct exchange *x = arg;
	const struct s3_http_request *req = x->req;
	uint64_t left = req->body_len - x->sent;
	size_t want = size * n < left ? size * n : (size_t)left;
	ssize_t got;

	if (req->body_fd < 0) {
		if (want > 0)
			memcpy(buf, (const char *)req->body_data + x->sent, want);
		got = (ssize_t)want;
	} else {
		got = pread_full(req->body_fd, buf, want, req->body_off + x->sent);
	}
	if (is_cancelled(x))
		return CURL_READFUNC_ABORT;
	if (got < 0 || (size_t)got < want) {
		x->local_error = got < 0 ? (int)got : -EIO;
		return CURL_READFUNC_ABORT;
	}
	x->sent += want;
	return want;
}

static int
seek_body(void *arg, curl_off_t off, int origin)
{
	struct exchange *x = arg;

	if (origin != SEEK_SET || off < 0 || (uint64_t)off > x->req->body_len)
		return CURL_SEEKFUNC_FAIL;
	x->sent = (uint64_t)off;
	return CURL_SEEKFUNC_OK;
}

static size_t
write_body(char *buf, size_t size, size_t n, void *arg)
{
	struct exchange *x = arg;
	struct s3_http_reply *reply = x->reply;
	size_t len = size * n;
	long status = 0;
	int r;

	(void)curl_easy_getinfo(x->curl, CURLINFO_RESPONSE_CODE, &status);
	if (x->req->sink_fd >= 0 && status / 100 == 2) {
		if (len > x->req->sink_len - reply->sunk) {
			x->local_error = -EPROTO;
			return 0;
		}
		r = pwrite_full(x->req->sink_fd, buf, len, x->req->sink_off + reply->sunk);
		if (r < 0) {
			x->local_error = r;
			return 0;
		}
		reply->sunk += len;
		return len;
	}
	if (len > BODY_MAX - reply->body.len) {
		x->local_error = -EPROTO;
		return 0;
	}
	strbuf_add(&reply->body, buf, len);
	return strbuf_ok(&reply->body) ? len : 0;
}

static size_t
take_header(char *buf, size_t size, size_t n, void *arg)
{
	struct exchange *x = arg;
	struct strbuf *b = &x->reply->headers;
	size_t len = size * n, i, colon = len;

	/* A status line begins a new answer: an earlier one was "100 Continue". */
	if (len > 5 && strncmp(buf, "HTTP/", 5) == 0) {
		strbuf_reset(b);
		return len;
	}
	if (len > HEADERS_MAX - b->len) {
		x->local_error = -EPROTO;
		return 0;
	}
	for (i = 0; i < len && buf[i] != '\r' && buf[i] != '\n'; i++) {
		if (buf[i] == ':' && colon == len)
			colon = i;
		strbuf_addch(b, i < colon ? (char)tolower((unsigned char)buf[i]) : buf[i]);
	}
	strbuf_addch(b, '\n');
	return strbuf_ok(b) ? len : 0;
}

static int
progress(void *arg, curl_off_t dltotal, curl_off_t dlnow, curl_off_t ultotal, curl_off_t ulnow)
{
	(void)dltotal, (void)dlnow, (void)ultotal, (void)ulnow;
	return is_cancelled(arg);
}

/* ---- one exchange ---- */

static void
set_deadlines(CURL *c, const struct s3_http *h, const struct s3_http_request *req)
{
	uint64_t bytes = req->body_len + (req->sink_fd >= 0 ? req->sink_len : 0);
	long connect = h->timeout < CONNECT_TIMEOUT ? (long)h->timeout : CONNECT_TIMEOUT;

	curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, connect);
	curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 1L);
	curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, (long)h->timeout);
	curl_easy_setopt(c, CURLOPT_TIMEOUT, (long)(connect + 10 * h->timeout + bytes / SLOWEST));
	curl_easy_setopt(c, CURLOPT_TCP_KEEPALIVE, 1L);
}

static void
set_transport(CURL *c, const struct s3_http *h, const char *url)
{
	curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(c, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(c, CURLOPT_PATH_AS_IS, 1L);
	curl_easy_setopt(c, CURLOPT_BUFFERSIZE, (long)BUFFER);
	curl_easy_setopt(c, CURLOPT_UPLOAD_BUFFERSIZE, (long)BUFFER);
	/* Debian's libcurl trusts the system's directory (CAPATH) besides this file. */
	if (h->ca_file != NULL)
		curl_easy_setopt(c, CURLOPT_CAINFO, h->ca_file);
	/* A proxy from the environment is for https; unencrypted bytes stay where they belong. */
	if (strncmp(url, "http:", 5) == 0)
		curl_easy_setopt(c, CURLOPT_NOPROXY, "*");
}

static void
set_request(CURL *c, struct exchange *x, struct curl_slist *headers)
{
	const struct s3_http_request *req = x->req;

	curl_easy_setopt(c, CURLOPT_URL, req->url);
	curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(c, CURLOPT_OPENSOCKETFUNCTION, open_socket);
	curl_easy_setopt(c, CURLOPT_OPENSOCKETDATA, x);
	curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, take_header);
	curl_easy_setopt(c, CURLOPT_HEADERDATA, x);
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, write_body);
	curl_easy_setopt(c, CURLOPT_WRITEDATA, x);
	curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, progress);
	curl_easy_setopt(c, CURLOPT_XFERINFODATA, x);
	curl_easy_setopt(c, CURLOPT_NOPROGRESS, req->cancelled == NULL ? 1L : 0L);
	if (strcmp(req->method, "PUT") == 0 || strcmp(req->method, "POST") == 0) {
		curl_easy_setopt(c, CURLOPT_UPLOAD, 1L);
		curl_easy_setopt(c, CURLOPT_INFILESIZE_LARGE, (curl_off_t)req->body_len);
		curl_easy_setopt(c, CURLOPT_READFUNCTION, read_body);
		curl_easy_setopt(c, CURLOPT_READDATA, x);
		curl_easy_setopt(c, CURLOPT_SEEKFUNCTION, seek_body);
		curl_easy_setopt(c, CURLOPT_SEEKDATA, x);
		curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, req->method);
	} else if (strcmp(req->method, "HEAD") == 0) {
		curl_easy_setopt(c, CURLOPT_NOBODY, 1L);
	} else if (strcmp(req->method, "GET") != 0) {
		curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, req->method);
	}
}

/* libcurl's verdict as one of ours. */
static int
explain(struct exchange *x, CURLcode code, const char *detail, struct error *err)
{
	/* A PUT whose last byte was handed on may arrive whole, whether its answer is waited for or not. */
	if (x->local_error == -ECANCELED && strcmp(x->req->method, "PUT") == 0 &&
	    x->sent == x->req->body_len)
		return error_set(err, -EINPROGRESS, "cancelled when all was sent");
	if (x->local_error == -ECANCELED)
		return error_set(err, -ECANCELED, "cancelled");
	if (x->local_error == -EPROTO)
		return error_set(err, -EAGAIN, "the answer is longer than it may be");
	if (x->local_error != 0 && x->reply->status / 100 == 2)
		return error_set(err, x->local_error, "writing what was read: %s", strerror(-x->local_error));
	if (x->local_error != 0)
		return error_set(err, x->local_error, "reading the file: %s", strerror(-x->local_error));
	if (x->refused)
		return error_set(err, -EACCES, "plain http to an address beyond loopback and private ranges is "
		    "refused: use https, or set s3.allow_plaintext=yes");
	x->reply->timed_out = code == CURLE_OPERATION_TIMEDOUT;
	if (code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CACERT_BADFILE)
		return error_set(err, -EACCES, "its certificate is not trusted (%s): check s3.endpoint, or name "
		    "the authority in s3.ca_file", detail);
	return error_set(err, -EAGAIN, "%s", detail);
}

static CURL *
take_handle(struct s3_http *h)
{
	CURL *c = NULL;

	lock_take(&h->lock);
	if (h->count > 0)
		c = h->idle[--h->count];
	lock_drop(&h->lock);
	return c != NULL ? c : curl_easy_init();
}

static void
put_handle(struct s3_http *h, CURL *c)
{
	lock_take(&h->lock);
	if (h->count < IDLE_MAX) {
		h->idle[h->count++] = c;
		c = NULL;
	}
	lock_drop(&h->lock);
	if (c != NULL)
		curl_easy_cleanup(c);
}

static struct curl_slist *
make_headers(const struct s3_http_request *req)
{
	struct curl_slist *list = curl_slist_append(NULL, "Expect:");
	CLEANUP_STRBUF struct strbuf line = STRBUF_INIT;
	size_t i;

	for (i = 0; list != NULL && i < req->header_count; i++) {
		struct curl_slist *more;

		strbuf_reset(&line);
		/* A header without value is given with a semicolon. */
		strbuf_addf(&line, req->headers[i].value[0] != '\0' ? "%s: %s" : "%s;%s",
		    req->headers[i].name, req->headers[i].value);
		more = strbuf_ok(&line) ? curl_slist_append(list, line.data) : NULL;
		if (more == NULL)
			curl_slist_free_all(list);
		list = more;
	}
	return list;
}

int
s3_http_send(struct s3_http *h, const struct s3_http_request *req, struct s3_http_reply *reply,
    struct error *err)
{
	struct exchange x = { .h = h, .req = req, .reply = reply };
	struct curl_slist *headers = make_headers(req);
	char detail[CURL_ERROR_SIZE] = "";
	CURL *c = take_handle(h);
	CURLcode code;
	int r = 0;

	s3_http_reply_release(reply);
	if (c == NULL || headers == NULL) {
		curl_slist_free_all(headers);
		if (c != NULL)
			put_handle(h, c);
		return error_set(err, -EAGAIN, "out of memory");
	}
	x.curl = c;
	set_transport(c, h, req->url);
	set_deadlines(c, h, req);
	set_request(c, &x, headers);
	curl_easy_setopt(c, CURLOPT_ERRORBUFFER, detail);
	code = curl_easy_perform(c);
	(void)curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &reply->status);
	if (code != CURLE_OK)
		r = explain(&x, code, detail[0] != '\0' ? detail : curl_easy_strerror(code), err);
	/* Keeps the connections, forgets everything that points into this frame. */
	curl_easy_reset(c);
	put_handle(h, c);
	curl_slist_free_all(headers);
	return r;
}

/* ---- the pool ---- */

static void
init_once(void)
{
	struct sigaction sa;

	(void)curl_global_init(CURL_GLOBAL_DEFAULT);
	/* OpenSSL writes without MSG_NOSIGNAL: a connection the server closed must not end us. */
	if (sigaction(SIGPIPE, NULL, &sa) == 0 && sa.sa_handler == SIG_DFL) {
		sa.sa_handler = SIG_IGN;
		(void)sigaction(SIGPIPE, &sa, NULL);
	}
}

int
s3_http_new(const struct s3_http_options *opt, struct s3_http **ret_h, struct error *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct s3_http *h = calloc(1, sizeof(*h));

	(void)pthread_once(&once, init_once);
	if (h == NULL)
		return error_set(err, -EAGAIN, "out of memory");
	if (opt->ca_file != NULL) {
		if (access(opt->ca_file, R_OK) < 0) {
			free(h);
			return error_set(err, -EINVAL, "s3.ca_file %s can't be read: %s", opt->ca_file,
			    strerror(errno));
		}
		h->ca_file = strdup(opt->ca_file);
	}
	h->plain_private_only = opt->plain_private_only;
	h->timeout = opt->timeout;
	lock_init(&h->lock, RANK_QUEUE);
	*ret_h = h;
	return 0;
}

void
s3_http_free(struct s3_http *h)
{
	if (h == NULL)
		return;
	while (h->count > 0)
		curl_easy_cleanup(h->idle[--h->count]);
	lock_release(&h->lock);
	free(h->ca_file);
	free(h);
}
