/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * How fast do objects reach a server?  `bench_put ours|signed|plain COUNT SIZE [THREADS]`
 *
 * ours: backend_put() of COUNT files of SIZE bytes on THREADS (16) threads.
 * plain: the same files and threads with nothing but libcurl: one kept connection a
 * thread, one PUT a file to a presigned URL whose payload isn't signed, no checksum,
 * no metadata, and the file sent as it is read.  That is the least a client
 * can do, so ours / plain is what tbfs's promises cost.
 *
 * signed: plain, but the file is read into memory, hashed and its hash signed, as
 * clients of S3 over http do (curl --aws-sigv4, boto3).
 *
 * The server comes from TBFS_TEST_S3_*, as for the contract tests:
 *	tests/contract/with-server minio .build/bench_put ours 500 3000000
 */
#include "backends/s3.h"
#include "backends/s3_sign.h"
#include "base/clock.h"
#include "base/io.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <curl/curl.h>

enum { THREADS_MAX = 256 };

static struct {
	bool plain, hash;
	unsigned count, threads;
	size_t size;
	char dir[64];
	struct backend *b;
	const char *endpoint, *bucket, *access_key, *secret_key;
	_Atomic unsigned next, failed;
} bench;

static int
open_file(unsigned i)
{
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/%u", bench.dir, i);
	return open(path, O_RDONLY | O_CLOEXEC);
}

static void
make_files(void)
{
	char *buf = malloc(bench.size), path[128];
	unsigned i;

	(void)snprintf(bench.dir, sizeof(bench.dir), "/var/tmp/tbfs-bench.XXXXXX");
	if (buf == NULL || mkdtemp(bench.dir) == NULL)
		abort();
	for (i = 0; i < bench.count; i++) {
		size_t at;
		int fd;

		for (at = 0; at + 4 <= bench.size; at += 4)
			*(uint32_t *)(void *)(buf + at) = (uint32_t)(i * 2654435761u + at * 40503u);
		(void)snprintf(path, sizeof(path), "%s/%u", bench.dir, i);
		fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
		if (fd < 0 || write_full(fd, buf, bench.size) < 0)
			abort();
		(void)close(fd);
	}
	free(buf);
	sync();
}

static void
remove_files(void)
{
	char path[128];
	unsigned i;

	for (i = 0; i < bench.count; i++) {
		(void)snprintf(path, sizeof(path), "%s/%u", bench.dir, i);
		(void)unlink(path);
	}
	(void)rmdir(bench.dir);
}

static bool
put_ours(unsigned i, int fd)
{
	struct object_put put = { .fd = fd, .size = bench.size,
		.meta = { .mtime_ns = 1, .mode = 0100644, .seq = i + 1, .object_id = i + 1, .generation = 1 } };
	struct error err = {0};
	char key[64];

	(void)snprintf(key, sizeof(key), "bench/ours/%03u/%u.jpg", i / 100, i);
	if (backend_put(bench.b, key, &put, NULL, NULL, &err) == 0)
		return true;
	fprintf(stderr, "%s\n", error_text(&err));
	return false;
}

static size_t
read_fd(char *buf, size_t size, size_t n, void *arg)
{
	ssize_t got = read(*(int *)arg, buf, size * n);

	return got < 0 ? CURL_READFUNC_ABORT : (size_t)got;
}

static size_t
drop(char *buf, size_t size, size_t n, void *arg)
{
	(void)buf, (void)arg;
	return size * n;
}

static bool
put_plain(CURL *c, unsigned i, int fd)
{
	struct s3_identity id = { .access_key = bench.access_key, .secret_key = bench.secret_key,
		.region = "us-east-1", .service = "s3" };
	struct s3_pair host = { "host", strstr(bench.endpoint, "://") + 3 };
	struct s3_to_sign what = { .method = "PUT", .headers = &host, .header_count = 1,
		.payload_hash = S3_UNSIGNED_PAYLOAD };
	CLEANUP_STRBUF struct strbuf url = STRBUF_INIT;
	char path[128];
	long status = 0;

	(void)snprintf(path, sizeof(path), "/%s/bench/plain/%03u/%u.jpg", bench.bucket, i / 100, i);
	what.path = path;
	strbuf_addf(&url, "%s%s?", bench.endpoint, path);
	s3_sign_query(&url, &id, &what, time(NULL), 3600);
	curl_easy_setopt(c, CURLOPT_URL, url.data);
	curl_easy_setopt(c, CURLOPT_UPLOAD, 1L);
	curl_easy_setopt(c, CURLOPT_INFILESIZE_LARGE, (curl_off_t)bench.size);
	curl_easy_setopt(c, CURLOPT_UPLOAD_BUFFERSIZE, 256L * 1024);
	curl_easy_setopt(c, CURLOPT_READFUNCTION, read_fd);
	curl_easy_setopt(c, CURLOPT_READDATA, &fd);
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, drop);
	curl_easy_setopt(c, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	if (curl_easy_perform(c) != CURLE_OK)
		return false;
	(void)curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
	return status == 200;
}

static bool
put_signed(CURL *c, unsigned i, int fd)
{
	struct s3_identity id = { .access_key = bench.access_key, .secret_key = bench.secret_key,
		.region = "us-east-1", .service = "s3" };
	char path[128], date[S3_DATE_LEN], hex[2 * SHA256_LEN + 1], line[512];
	struct s3_pair pairs[] = { { "host", strstr(bench.endpoint, "://") + 3 },
		{ "x-amz-content-sha256", hex }, { "x-amz-date", date } };
	struct s3_to_sign what = { .method = "PUT", .path = path, .headers = pairs, .header_count = 3,
		.payload_hash = hex };
	CLEANUP_STRBUF struct strbuf text = STRBUF_INIT;
	struct curl_slist *headers = curl_slist_append(NULL, "Expect:");
	char *buf = malloc(bench.size);
	uint8_t sum[SHA256_LEN];
	long status = 0;
	FILE *body;

	if (buf == NULL || read_full(fd, buf, bench.size) != (ssize_t)bench.size)
		abort();
	sha256(buf, bench.size, sum);
	hex_encode(sum, SHA256_LEN, hex);
	(void)snprintf(path, sizeof(path), "/%s/bench/signed/%03u/%u.jpg", bench.bucket, i / 100, i);
	s3_date(time(NULL), date);
	s3_sign_header(&text, &id, &what, time(NULL));
	(void)snprintf(line, sizeof(line), "authorization: %s", text.data);
	headers = curl_slist_append(headers, line);
	(void)snprintf(line, sizeof(line), "x-amz-content-sha256: %s", hex);
	headers = curl_slist_append(headers, line);
	(void)snprintf(line, sizeof(line), "x-amz-date: %s", date);
	headers = curl_slist_append(headers, line);
	strbuf_reset(&text);
	strbuf_addf(&text, "%s%s", bench.endpoint, path);
	body = fmemopen(buf, bench.size, "r");
	curl_easy_setopt(c, CURLOPT_URL, text.data);
	curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(c, CURLOPT_UPLOAD, 1L);
	curl_easy_setopt(c, CURLOPT_INFILESIZE_LARGE, (curl_off_t)bench.size);
	curl_easy_setopt(c, CURLOPT_UPLOAD_BUFFERSIZE, 256L * 1024);
	curl_easy_setopt(c, CURLOPT_READDATA, body);
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, drop);
	curl_easy_setopt(c, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	if (curl_easy_perform(c) == CURLE_OK)
		(void)curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
	(void)fclose(body);
	curl_slist_free_all(headers);
	free(buf);
	return status == 200;
}

static bool
put_one(CURL *c, unsigned i, int fd)
{
	return !bench.plain ? put_ours(i, fd) : bench.hash ? put_signed(c, i, fd) : put_plain(c, i, fd);
}

static void *
bench_run(void *arg)
{
	CURL *c = bench.plain ? curl_easy_init() : NULL;
	/* As ours: without it libcurl waits for the server before it sends a megabyte. */
	struct curl_slist *headers = curl_slist_append(NULL, "Expect:");
	unsigned i;

	(void)arg;
	if (c != NULL)
		curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
	while ((i = bench.next++) < bench.count) {
		int fd = open_file(i);

		if (fd < 0 || !put_one(c, i, fd))
			bench.failed++;
		(void)close(fd);
	}
	if (c != NULL)
		curl_easy_cleanup(c);
	curl_slist_free_all(headers);
	return NULL;
}

static int
set_up(void)
{
	struct s3_options opt = { .name = "s3", .create_bucket = true, .path_style = true };
	struct error err = {0};

	opt.endpoint = bench.endpoint = getenv("TBFS_TEST_S3_ENDPOINT");
	opt.bucket = bench.bucket = getenv("TBFS_TEST_S3_BUCKET");
	opt.access_key = bench.access_key = getenv("TBFS_TEST_S3_ACCESS_KEY");
	opt.secret_key = bench.secret_key = getenv("TBFS_TEST_S3_SECRET_KEY");
	if (!opt.endpoint || s3_backend_new(&opt, &bench.b, &err) < 0 || backend_probe(bench.b, &err) < 0) {
		fprintf(stderr, "no server (run by tests/contract/with-server): %s\n", err.text);
		return -1;
	}
	return 0;
}

int
main(int argc, char **argv)
{
	pthread_t threads[THREADS_MAX];
	int64_t begin;
	double seconds;
	unsigned i;

	if (argc < 4) {
		fprintf(stderr, "usage: bench_put ours|signed|plain COUNT SIZE [THREADS]\n");
		return 2;
	}
	bench.hash = strcmp(argv[1], "signed") == 0;
	bench.plain = bench.hash || strcmp(argv[1], "plain") == 0;
	bench.count = (unsigned)atoi(argv[2]);
	bench.size = (size_t)atol(argv[3]);
	bench.threads = argc > 4 ? (unsigned)atoi(argv[4]) : 16;
	if (bench.threads < 1 || bench.threads > THREADS_MAX || bench.size < 1 || set_up() < 0)
		return 2;
	make_files();
	begin = clock_mono_ns();
	for (i = 0; i < bench.threads; i++)
		if (pthread_create(&threads[i], NULL, bench_run, NULL) != 0)
			abort();
	for (i = 0; i < bench.threads; i++)
		(void)pthread_join(threads[i], NULL);
	seconds = (double)(clock_mono_ns() - begin) / NSEC_PER_SEC;
	printf("%s: %u x %zu bytes, %u at once: %.2f s, %.1f files/s, %.1f MB/s, %u failed\n", argv[1],
	    bench.count, bench.size, bench.threads, seconds, bench.count / seconds,
	    (double)bench.count * (double)bench.size / seconds / 1e6, bench.failed);
	remove_files();
	backend_free(bench.b);
	return bench.failed != 0;
}
