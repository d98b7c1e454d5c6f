/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What the benchmark times, as one program for the bare directory and the mount, so that
 * no interpreter stands between the clock and the file system.
 *
 *	bench_client write FILE BYTES		sequential, 1 MiB blocks
 *	bench_client read FILE
 *	bench_client make DIR COUNT PER SIZE	COUNT files of SIZE bytes: create, write, close
 *	bench_client reread DIR COUNT PER	open, read all, close
 *	bench_client rename DIR COUNT PER	within the directory
 *	bench_client unlink DIR COUNT PER	files that were renamed, or not
 *	bench_client copy DIR COUNT SOURCE ...	COUNT files, each a copy of the next SOURCE
 *	bench_client put DIR COUNT PER CONNECTIONS URLS	one PUT a file, to its line of URLS
 *	bench_client settle DIR			syncfs
 *
 * Files lie PER to a subdirectory of DIR; those are made before the clock starts.  The
 * answer is one line of JSON: seconds of wall and CPU between the first call and the
 * last, and for write those until fsync has returned as well.
 *
 * put is the yardstick for a drain: connections that stay open, a thread each, presigned
 * addresses made before the clock starts, nothing hashed, nothing recorded, the answer's
 * status looked at and no more.
 */
#include <curl/curl.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 1 << 20, PATH = 4096, CONNECTIONS_MAX = 256 };

static char block[BLOCK];

static void __attribute__((noreturn, format(printf, 1, 2)))
die(const char *fmt, ...)
{
	va_list ap;
	int e = errno;

	va_start(ap, fmt);
	(void)vfprintf(stderr, fmt, ap);
	va_end(ap);
	(void)fprintf(stderr, ": %s\n", strerror(e));
	exit(1);
}

static double
seconds(clockid_t clock)
{
	struct timespec ts;

	(void)clock_gettime(clock, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static double wall_begun, cpu_begun;

static void
begin(void)
{
	cpu_begun = seconds(CLOCK_PROCESS_CPUTIME_ID);
	wall_begun = seconds(CLOCK_MONOTONIC);
}

static void
end(const char *name)
{
	double wall = seconds(CLOCK_MONOTONIC) - wall_begun;

	(void)printf("\"%s\": %.6f, \"%s_cpu\": %.6f", name, wall, name,
	    seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu_begun);
}

static void
fill(uint64_t seed)
{
	uint64_t x = seed * 0x9e3779b97f4a7c15u + 1;
	size_t i;

	/* xorshift64 (Marsaglia 2003): nothing below can compress or share it. */
	for (i = 0; i < BLOCK; i += sizeof(x)) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		memcpy(block + i, &x, sizeof(x));
	}
}

static void
write_all(int fd, uint64_t size, const char *path)
{
	while (size > 0) {
		ssize_t n = write(fd, block, size < BLOCK ? (size_t)size : BLOCK);

		if (n <= 0)
			die("%s", path);
		size -= (uint64_t)n;
	}
}

static int
must_open(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC, 0644);

	if (fd < 0)
		die("%s", path);
	return fd;
}

/* ---- one large file ---- */

static void
do_write(const char *path, uint64_t size)
{
	int fd, again = -1;

	fill(size);
	(void)unlink(path);
	begin();
	fd = must_open(path, O_WRONLY | O_CREAT | O_TRUNC);
	write_all(fd, size, path);
	if (close(fd) < 0)
		die("%s", path);
	end("wall");
	(void)fputs(", ", stdout);
	again = must_open(path, O_RDONLY);
	if (fsync(again) < 0)
		die("fsync %s", path);
	end("durable");
	(void)close(again);
}

static void
read_all(const char *path)
{
	int fd = must_open(path, O_RDONLY);
	ssize_t n;

	while ((n = read(fd, block, BLOCK)) > 0)
		;
	if (n < 0 || close(fd) < 0)
		die("%s", path);
}

static void
do_read(const char *path)
{
	memset(block, 0, BLOCK);
	begin();
	read_all(path);
	end("wall");
}

/* ---- many files ---- */

struct set {
	const char *dir;
	unsigned count, per;
};

static void
name_of(const struct set *s, unsigned i, const char *kind, char path[PATH])
{
	(void)snprintf(path, PATH, "%s/%03u/%s%06u.jpg", s->dir, i / s->per, kind, i);
}

static void
make_folders(const struct set *s)
{
	char path[PATH];
	unsigned i;

	for (i = 0; i * s->per < s->count; i++) {
		(void)snprintf(path, sizeof(path), "%s/%03u", s->dir, i);
		if (mkdir(path, 0755) < 0 && errno != EEXIST)
			die("%s", path);
	}
}

static void
do_make(const struct set *s, uint64_t size)
{
	char path[PATH];
	unsigned i;

	make_folders(s);
	fill(size + 1);
	begin();
	for (i = 0; i < s->count; i++) {
		int fd;

		name_of(s, i, "a", path);
		memcpy(block, &i, sizeof(i));
		fd = must_open(path, O_WRONLY | O_CREAT | O_TRUNC);
		write_all(fd, size, path);
		if (close(fd) < 0)
			die("%s", path);
	}
	end("wall");
}

static void
do_each(const struct set *s, const char *verb)
{
	char path[PATH], to[PATH];
	bool renamed;
	unsigned i;

	name_of(s, 0, "b", path);
	renamed = access(path, F_OK) == 0;
	begin();
	for (i = 0; i < s->count; i++) {
		name_of(s, i, renamed ? "b" : "a", path);
		name_of(s, i, renamed ? "a" : "b", to);
		if (strcmp(verb, "reread") == 0)
			read_all(path);
		else if ((strcmp(verb, "rename") == 0 ? rename(path, to) : unlink(path)) < 0)
			die("%s %s", verb, path);
	}
	end("wall");
}

static void
do_copy(const char *dir, unsigned count, char **sources, int n)
{
	unsigned i;

	begin();
	for (i = 0; i < count; i++) {
		int in = must_open(sources[i % (unsigned)n], O_RDONLY), out;
		char path[PATH];
		ssize_t got;

		(void)snprintf(path, sizeof(path), "%s/IMG_%05u.jpg", dir, i);
		out = must_open(path, O_WRONLY | O_CREAT | O_TRUNC);
		while ((got = read(in, block, BLOCK)) > 0)
			write_all(out, (uint64_t)got, path);
		if (got < 0 || close(out) < 0)
			die("%s", path);
		(void)close(in);
	}
	end("wall");
}

/* ---- the plain S3 client ---- */

struct putter {
	struct set set;
	char **urls;
	atomic_uint next;
};

static size_t
read_file(char *buf, size_t size, size_t n, void *arg)
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

static void
put_one(struct putter *p, CURL *c, unsigned i)
{
	char path[PATH], why[CURL_ERROR_SIZE] = "";
	struct stat st;
	long status = 0;
	int fd;

	name_of(&p->set, i, "a", path);
	fd = must_open(path, O_RDONLY);
	if (fstat(fd, &st) < 0)
		die("%s", path);
	curl_easy_setopt(c, CURLOPT_URL, p->urls[i]);
	curl_easy_setopt(c, CURLOPT_READDATA, &fd);
	curl_easy_setopt(c, CURLOPT_INFILESIZE_LARGE, (curl_off_t)st.st_size);
	curl_easy_setopt(c, CURLOPT_ERRORBUFFER, why);
	if (curl_easy_perform(c) != CURLE_OK) {
		(void)fprintf(stderr, "%s: %s\n", path, why);
		exit(1);
	}
	(void)curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
	if (status != 200) {
		(void)fprintf(stderr, "%s: HTTP status %ld\n", path, status);
		exit(1);
	}
	(void)close(fd);
}

static void *
put_run(void *arg)
{
	struct putter *p = arg;
	struct curl_slist *headers;
	CURL *c = curl_easy_init();
	unsigned i;

	headers = curl_slist_append(NULL, "Expect:");
	curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(c, CURLOPT_UPLOAD, 1L);
	curl_easy_setopt(c, CURLOPT_UPLOAD_BUFFERSIZE, 256L * 1024);
	curl_easy_setopt(c, CURLOPT_READFUNCTION, read_file);
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, drop);
	while ((i = atomic_fetch_add(&p->next, 1)) < p->set.count)
		put_one(p, c, i);
	curl_easy_cleanup(c);
	curl_slist_free_all(headers);
	return NULL;
}

static char **
read_urls(const char *path, unsigned count)
{
	char **urls = calloc(count, sizeof(*urls));
	FILE *f = fopen(path, "re");
	size_t room = 0;
	unsigned i;

	if (urls == NULL || f == NULL)
		die("%s", path);
	for (i = 0; i < count; i++) {
		ssize_t n = getline(&urls[i], &room, f);

		if (n < 1)
			die("%s has %u lines", path, i);
		urls[i][n - 1] = '\0';
		room = 0;
	}
	(void)fclose(f);
	return urls;
}

static void
do_put(const struct set *s, unsigned connections, const char *urls)
{
	struct putter p = { .set = *s, .urls = read_urls(urls, s->count) };
	pthread_t threads[CONNECTIONS_MAX];
	unsigned i;

	if (connections == 0 || connections > CONNECTIONS_MAX) {
		errno = EINVAL;
		die("%u connections", connections);
	}
	(void)curl_global_init(CURL_GLOBAL_DEFAULT);
	begin();
	for (i = 0; i < connections; i++) {
		errno = pthread_create(&threads[i], NULL, put_run, &p);
		if (errno != 0)
			die("thread");
	}
	for (i = 0; i < connections; i++)
		(void)pthread_join(threads[i], NULL);
	end("wall");
}

static unsigned
number(const char *text)
{
	return (unsigned)strtoul(text, NULL, 10);
}

static int
run(int argc, char **argv)
{
	const char *verb = argv[1];
	struct set s = { .dir = argv[2], .count = argc > 3 ? number(argv[3]) : 0,
		.per = argc > 4 ? number(argv[4]) : 1 };

	if (strcmp(verb, "settle") == 0) {
		begin();
		if (syncfs(must_open(s.dir, O_RDONLY | O_DIRECTORY)) < 0)
			die("%s", s.dir);
		end("wall");
	} else if (strcmp(verb, "write") == 0 && argc == 4) {
		do_write(argv[2], strtoull(argv[3], NULL, 10));
	} else if (strcmp(verb, "read") == 0) {
		do_read(argv[2]);
	} else if (strcmp(verb, "make") == 0 && argc == 6) {
		do_make(&s, strtoull(argv[5], NULL, 10));
	} else if ((strcmp(verb, "reread") == 0 || strcmp(verb, "rename") == 0 ||
	    strcmp(verb, "unlink") == 0) && argc == 5) {
		do_each(&s, verb);
	} else if (strcmp(verb, "copy") == 0 && argc > 4) {
		do_copy(argv[2], s.count, argv + 4, argc - 4);
	} else if (strcmp(verb, "put") == 0 && argc == 7) {
		do_put(&s, number(argv[5]), argv[6]);
	} else {
		return 2;
	}
	return 0;
}

int
main(int argc, char **argv)
{
	int r;

	if (argc < 3)
		return 2;
	(void)putchar('{');
	r = run(argc, argv);
	(void)puts("}");
	return r;
}
