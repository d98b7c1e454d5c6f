/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * BT.2100 (PQ and HLG) and wide primaries (BT.2020, P3) to sRGB.
 *
 *	signal → light in units of diffuse white (203 cd/m², BT.2408)
 *	       → BT.709 primaries (BT.2087; P3 by the same rule)
 *	       → highlights rolled off, hue kept: all channels by one factor
 *	       → sRGB's transfer curve (IEC 61966-2-1)
 *
 * Up to half of diffuse white nothing changes, so that skin looks as it was
 * filmed; from there an extended Reinhard curve brings 1,000 cd/m² to white.  What
 * isn't HDR is white at its own white, and only cut.
 * FFmpeg's zscale and tonemap filters would do, but refuse frames whose matrix
 * isn't named, and drag in a hundred libraries.
 *
 * Tables are made at the first use, by the worker's only caller.
 */
#include "extract/tonemap.h"

#include <math.h>
#include <stdbool.h>

#define TONEMAP_WHITE 203.0f		/* cd/m² */
#define TONEMAP_PEAK (1000.0f / TONEMAP_WHITE)
#define TONEMAP_KNEE 0.5f
#define TONEMAP_STEPS 4096		/* of the sRGB table */

static float tonemap_light[3][65536];
static uint8_t tonemap_srgb[TONEMAP_STEPS + 1];
static bool tonemap_ready;

/* SMPTE ST 2084: signal 0–1 → cd/m². */
static double
tonemap_pq(double signal)
{
	const double m1 = 2610.0 / 16384, m2 = 2523.0 / 4096 * 128;
	const double c1 = 3424.0 / 4096, c2 = 2413.0 / 4096 * 32, c3 = 2392.0 / 4096 * 32;
	double p = pow(signal, 1 / m2);

	return 10000 * pow(fmax(p - c1, 0) / (c2 - c3 * p), 1 / m1);
}

/* ARIB STD-B67: signal 0–1 → scene light 0–1. */
static double
tonemap_hlg(double signal)
{
	const double a = 0.17883277, b = 1 - 4 * a, c = 0.5 - a * log(4 * a);

	return signal <= 0.5 ? signal * signal / 3 : (exp((signal - c) / a) + b) / 12;
}

/* IEC 61966-2-1: signal 0–1 → light 0–1. */
static double
tonemap_sdr(double signal)
{
	return signal <= 0.04045 ? signal / 12.92 : pow((signal + 0.055) / 1.055, 2.4);
}

static void
tonemap_fill_tables(void)
{
	int i;

	for (i = 0; i < 65536; i++) {
		tonemap_light[TONEMAP_SDR][i] = (float)tonemap_sdr(i / 65535.0);
		tonemap_light[TONEMAP_PQ][i] = (float)(tonemap_pq(i / 65535.0) / TONEMAP_WHITE);
		tonemap_light[TONEMAP_HLG][i] = (float)tonemap_hlg(i / 65535.0);
	}
	for (i = 0; i <= TONEMAP_STEPS; i++) {
		double x = (double)i / TONEMAP_STEPS;

		x = x * x;	/* the table is finer where the eye is */
		x = x <= 0.0031308 ? 12.92 * x : 1.055 * pow(x, 1 / 2.4) - 0.055;
		tonemap_srgb[i] = (uint8_t)lrint(255 * x);
	}
	tonemap_ready = true;
}

/* The factor that brings the brightest channel m into 0–1. */
static float
tonemap_factor(float m)
{
	const float most = (TONEMAP_PEAK - TONEMAP_KNEE) / (1 - TONEMAP_KNEE);
	float t;

	if (m <= TONEMAP_KNEE)
		return 1;
	t = (m - TONEMAP_KNEE) / (1 - TONEMAP_KNEE);
	t = t * (1 + t / (most * most)) / (1 + t);
	return (TONEMAP_KNEE + (1 - TONEMAP_KNEE) * fminf(t, 1)) / m;
}

static uint8_t
tonemap_encode(float x)
{
	return tonemap_srgb[(int)(sqrtf(fminf(fmaxf(x, 0), 1)) * TONEMAP_STEPS + 0.5f)];
}

bool
tonemap_needed(unsigned primaries, unsigned transfer, struct tonemap *ret)
{
	ret->curve = transfer == 16 ? TONEMAP_PQ : transfer == 18 ? TONEMAP_HLG : TONEMAP_SDR;
	switch (primaries) {
	case 9:
		ret->primaries = TONEMAP_BT2020;
		break;
	case 11:
	case 12:
		ret->primaries = TONEMAP_P3;
		break;
	case 2:					/* not said */
		ret->primaries = ret->curve == TONEMAP_SDR ? TONEMAP_BT709 : TONEMAP_BT2020;
		break;
	default:
		ret->primaries = TONEMAP_BT709;
	}
	return ret->curve != TONEMAP_SDR || ret->primaries != TONEMAP_BT709;
}

void
tonemap(const struct tonemap *from, const uint16_t *in, size_t n, uint8_t *ret)
{
	static const float to_bt709[][9] = {
		[TONEMAP_BT709] = { 1, 0, 0, 0, 1, 0, 0, 0, 1 },
		[TONEMAP_BT2020] = { 1.6605f, -0.5876f, -0.0728f, -0.1246f, 1.1329f, -0.0083f,
		    -0.0182f, -0.1006f, 1.1187f },
		[TONEMAP_P3] = { 1.2249f, -0.2247f, 0, -0.0420f, 1.0419f, 0, -0.0197f, -0.0786f,
		    1.0979f },
	};
	const float *m = to_bt709[from->primaries], *light = tonemap_light[from->curve];
	size_t i;

	if (!tonemap_ready)
		tonemap_fill_tables();
	for (i = 0; i < 3 * n; i += 3) {
		float r = light[in[i]], g = light[in[i + 1]], b = light[in[i + 2]];
		float k = 1, r7, g7, b7;

		/* HLG is scene light: its display curve, for 1,000 cd/m² (BT.2100, 1.2). */
		if (from->curve == TONEMAP_HLG)
			k = TONEMAP_PEAK * powf(0.2627f * r + 0.678f * g + 0.0593f * b, 0.2f);
		r7 = fmaxf(k * (m[0] * r + m[1] * g + m[2] * b), 0);
		g7 = fmaxf(k * (m[3] * r + m[4] * g + m[5] * b), 0);
		b7 = fmaxf(k * (m[6] * r + m[7] * g + m[8] * b), 0);
		k = from->curve == TONEMAP_SDR ? 1 : tonemap_factor(fmaxf(r7, fmaxf(g7, b7)));
		ret[i] = tonemap_encode(k * r7);
		ret[i + 1] = tonemap_encode(k * g7);
		ret[i + 2] = tonemap_encode(k * b7);
	}
}
