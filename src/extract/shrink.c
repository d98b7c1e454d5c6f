/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A separable cubic filter (Catmull–Rom, widened by the ratio: Keys 1981).
 * libvips' own takes two thirds of a thumbnail's time unless it may write
 * machine code at run time, which the sandbox is not the place for; this one is
 * loops that a compiler turns into vector instructions, many times as fast.
 *
 * Rows first (weights times whole lines, in fixed point), then columns (four
 * channels at a time).  The weights of a pixel sum to one, so a flat picture
 * stays as it is.  Every sum has one order: equal input, equal bytes.
 *
 * No state, no threads.
 */
#include "extract/shrink.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define SHRINK_BITS 14
#define SHRINK_LOBES 2

/* Fast whatever the CFLAGS.  The hot one has integers only: both variants, same bytes. */
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && \
    !defined(__SANITIZE_ADDRESS__)
#define SHRINK_HOT __attribute__((optimize("O3"), target_clones("avx2", "default")))
#define SHRINK_WARM __attribute__((optimize("O3")))
#else
#define SHRINK_HOT
#define SHRINK_WARM
#endif

/* A pixel: up to four channels, on its way and as whole numbers. */
typedef float pixel __attribute__((vector_size(16)));
typedef int32_t channels __attribute__((vector_size(16)));

/* Which pixels make one, and how much of each. */
struct taps {
	int n;				/* weights for each pixel */
	int *first;			/* by pixel: the first source pixel */
	int16_t *weights;		/* by pixel: n weights */
};

static double
cubic(double x)
{
	x = fabs(x);
	if (x < 1)
		return (1.5 * x - 2.5) * x * x + 1;
	if (x < SHRINK_LOBES)
		return ((-0.5 * x + 2.5) * x - 4) * x + 2;
	return 0;
}

static void
taps_release(struct taps *t)
{
	free(t->first);
	free(t->weights);
}

/* The weights of target pixel i, as integers that sum to 1 << SHRINK_BITS. */
static void
taps_fill(struct taps *t, int i, int from, double scale)
{
	double centre = (i + 0.5) * scale - 0.5, sum = 0;
	int16_t *w = t->weights + (size_t)i * (size_t)t->n;
	int first = (int)ceil(centre - SHRINK_LOBES * scale), k, total = 0, most = 0;

	if (first > from - t->n)
		first = from - t->n;
	if (first < 0)
		first = 0;
	t->first[i] = first;
	for (k = 0; k < t->n; k++)
		sum += cubic((first + k - centre) / scale);
	for (k = 0; k < t->n; k++) {
		w[k] = (int16_t)lrint(cubic((first + k - centre) / scale) / sum *
		    (1 << SHRINK_BITS));
		total += w[k];
		if (w[k] > w[most])
			most = k;
	}
	w[most] = (int16_t)(w[most] + (1 << SHRINK_BITS) - total);
}

static bool
taps_init(struct taps *t, int from, int to)
{
	double scale = (double)from / to;
	int i;

	t->n = (int)ceil(2 * SHRINK_LOBES * scale) + 1;
	if (t->n > from)
		t->n = from;
	t->first = calloc((size_t)to, sizeof(*t->first));
	t->weights = calloc((size_t)to * (size_t)t->n, sizeof(*t->weights));
	if (t->first == NULL || t->weights == NULL)
		return false;
	for (i = 0; i < to; i++)
		taps_fill(t, i, from, scale);
	return true;
}

static uint8_t
clip(int32_t x)
{
	x = (x + (1 << (SHRINK_BITS - 1))) >> SHRINK_BITS;
	return (uint8_t)(x < 0 ? 0 : x > 255 ? 255 : x);
}

/* One line out of n lines, `len` bytes each. */
SHRINK_HOT static void
shrink_rows(const uint8_t *in, size_t len, const int16_t *weights, int n, int32_t *sums,
    uint8_t *out)
{
	size_t x;
	int k;

	memset(sums, 0, len * sizeof(*sums));
	for (k = 0; k < n; k++) {
		const uint8_t *line = in + (size_t)k * len;
		const int16_t w = weights[k];

		for (x = 0; x < len; x++)
			sums[x] += (int16_t)line[x] * w;
	}
	for (x = 0; x < len; x++)
		out[x] = clip(sums[x]);
}

/* A line as pixels of four channels; `from` pixels, three channels is what photos have. */
SHRINK_WARM static void
shrink_widen(const uint8_t *in, int from, int bands, pixel *out)
{
	int i, b;

	if (bands == 3) {
		for (i = 0; i < from; i++, in += 3)
			out[i] = (pixel){ in[0], in[1], in[2], 0 };
		return;
	}
	for (i = 0; i < from; i++) {
		out[i] = (pixel){ 0 };
		for (b = 0; b < bands; b++)
			out[i][b] = *in++;
	}
}

SHRINK_WARM static void
shrink_columns(const pixel *in, int bands, const struct taps *t, int to, uint8_t *out)
{
	const pixel half = { 0.5f, 0.5f, 0.5f, 0.5f };
	const float one = 1.0f / (1 << SHRINK_BITS);
	const int16_t *w = t->weights;
	int i, k, b;

	for (i = 0; i < to; i++) {
		const pixel *p = in + t->first[i];
		pixel sum = half;
		channels whole, over;

		for (k = 0; k < t->n; k++)
			sum += p[k] * ((float)*w++ * one);
		whole = __builtin_convertvector(sum, channels);
		whole &= whole > 0;
		over = whole > 255;
		whole = (over & 255) | (~over & whole);
		for (b = 0; b < bands; b++)
			*out++ = (uint8_t)whole[b];
	}
}

struct shrink_size
shrink_fit(struct shrink_size from, int side)
{
	int most = from.width > from.height ? from.width : from.height;
	struct shrink_size to = from;

	if (most <= side)
		return to;
	to.width = (int)lrint((double)from.width * side / most);
	to.height = (int)lrint((double)from.height * side / most);
	if (to.width < 1)
		to.width = 1;
	if (to.height < 1)
		to.height = 1;
	return to;
}

uint8_t *
shrink(const uint8_t *in, struct shrink_size from, int bands, struct shrink_size to)
{
	size_t line = (size_t)from.width * (size_t)bands, made = (size_t)to.width * (size_t)bands;
	struct taps rows = { .n = 0 }, columns = { .n = 0 };
	int32_t *sums = calloc(line, sizeof(*sums));
	pixel *wide = aligned_alloc(sizeof(*wide), (size_t)from.width * sizeof(*wide));
	uint8_t *mid = malloc(line), *out = malloc(made * (size_t)to.height);
	bool ready = taps_init(&rows, from.height, to.height) &&
	    taps_init(&columns, from.width, to.width) && sums != NULL && mid != NULL &&
	    wide != NULL && out != NULL;
	int y;

	for (y = 0; ready && y < to.height; y++) {
		shrink_rows(in + (size_t)rows.first[y] * line, line,
		    rows.weights + (size_t)y * (size_t)rows.n, rows.n, sums, mid);
		shrink_widen(mid, from.width, bands, wide);
		shrink_columns(wide, bands, &columns, to.width, out + (size_t)y * made);
	}
	taps_release(&rows);
	taps_release(&columns);
	free(sums);
	free(wide);
	free(mid);
	if (!ready) {
		free(out);
		return NULL;
	}
	return out;
}
