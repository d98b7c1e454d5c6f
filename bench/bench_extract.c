/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Files through the worker pool: what a derivation costs, and what comes out.
 *
 *	bench_extract [-p program] [-w workers] [-n rounds] [-o folder] [-j] file …
 *
 * Each file is derived `rounds` times, `workers` at a time.  The last line
 * says files a second, CPU of the workers for each file and the largest
 * resident set of any worker.  -j prints each entry as a line of JSON, with
 * "file", -o writes the thumbnails to a folder.
 */
#include "base/clock.h"
#include "base/io.h"
#include "processor/pool.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

struct bench {
	struct extract_pool *pool;
	char **files;
	unsigned n_files, rounds;
	const char *folder;
	bool json;
	atomic_uint next;
	atomic_uint failed;
};

static void
bench_save(const struct bench *b, const char *file, const struct extract_result *r)
{
	const char *base = strrchr(file, '/') != NULL ? strrchr(file, '/') + 1 : file;
	char path[4096];
	unsigned i;

	for (i = 0; b->folder != NULL && i < r->n_thumbs; i++) {
		int out;

		(void)snprintf(path, sizeof(path), "%s/%.200s.%s", b->folder, base,
		    r->thumbs[i].name);
		out = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
		if (out >= 0) {
			(void)copy_range(r->thumbs[i].fd, 0, out, 0, r->thumbs[i].size);
			(void)close(out);
		}
	}
}

static void
bench_one(struct bench *b, const char *file)
{
	struct extract_result r;
	struct error err = { 0 };
	struct stat st;
	int fd = open(file, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st) < 0) {
		fprintf(stderr, "%s: %s\n", file, strerror(errno));
		exit(1);
	}
	if (extract_pool_run(b->pool, fd, (uint64_t)st.st_size, file, NULL, NULL, &r, &err) < 0) {
		fprintf(stderr, "%s: %s\n", file, error_text(&err));
		exit(1);
	}
	(void)close(fd);
	if (r.failed)
		atomic_fetch_add(&b->failed, 1);
	if (b->json) {
		const char *base = strrchr(file, '/') != NULL ? strrchr(file, '/') + 1 : file;

		printf("%s\t%u\t%s\n", base, r.n_thumbs, r.json);
	}
	bench_save(b, file, &r);
	extract_result_release(&r);
}

static void *
bench_run(void *arg)
{
	struct bench *b = arg;

	for (;;) {
		unsigned i = atomic_fetch_add(&b->next, 1);

		if (i >= b->rounds * b->n_files)
			return NULL;
		bench_one(b, b->files[i % b->n_files]);
	}
}

static void
bench_all(struct bench *b, unsigned workers)
{
	pthread_t threads[64];
	struct rusage u;
	int64_t start = clock_mono_ns();
	unsigned i, n = b->rounds * b->n_files;
	double s, cpu;

	for (i = 0; i < workers; i++)
		if (pthread_create(&threads[i], NULL, bench_run, b) != 0)
			exit(1);
	for (i = 0; i < workers; i++)
		(void)pthread_join(threads[i], NULL);
	s = (double)(clock_mono_ns() - start) / NSEC_PER_SEC;
	extract_pool_free(b->pool);
	(void)getrusage(RUSAGE_CHILDREN, &u);
	cpu = (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	    (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
	fprintf(stderr, "%u files, %u failed, %.1f files/s, %.0f ms CPU a file, peak %ld MiB\n",
	    n, atomic_load(&b->failed), n / s, 1000 * cpu / n, u.ru_maxrss / 1024);
}

int
main(int argc, char **argv)
{
	struct extract_pool_options o = { .program = "./tbfs-extract", .workers = 1 };
	struct bench b = { .rounds = 1 };
	struct error err = { 0 };
	int c;

	while ((c = getopt(argc, argv, "p:w:n:o:ju")) != -1) {
		if (c == 'p')
			o.program = optarg;
		else if (c == 'w')
			o.workers = (unsigned)atoi(optarg);
		else if (c == 'n')
			b.rounds = (unsigned)atoi(optarg);
		else if (c == 'o')
			b.folder = optarg;
		else if (c == 'j')
			b.json = true;
		else if (c == 'u')
			o.unguarded = true;
		else
			return 2;
	}
	b.files = argv + optind;
	b.n_files = (unsigned)(argc - optind);
	if (b.n_files == 0 || o.workers == 0 || o.workers > 64)
		return 2;
	if (extract_pool_new(&o, &b.pool, &err) < 0) {
		fprintf(stderr, "%s\n", error_text(&err));
		return 1;
	}
	bench_all(&b, o.workers);
	return 0;
}
