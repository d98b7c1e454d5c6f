/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The libraries' state before the sandbox.
 *
 * libvips would load every module it has (ImageMagick, poppler, OpenSlide …):
 * tens of megabytes of parsers for formats that are refused anyway.  So it is
 * told to look for modules in a place that doesn't exist, and the one for HEIC
 * and AVIF is loaded here.
 */
#include "extract/libs.h"

#include "extract/sniff.h"

#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <libavutil/log.h>
#include <libavutil/mem.h>
#include <vips/vips.h>
#include <vips/vector.h>

/* An allocation that can't fail has failed: say so by the exit code. */
static void
libs_log(const gchar *domain, GLogLevelFlags level, const gchar *message, gpointer data)
{
	(void)domain;
	(void)data;
	if ((level & G_LOG_LEVEL_ERROR) != 0 && strstr(message, "allocat") != NULL)
		_exit(EXTRACT_EXIT_MEMORY);
}

/* Load libvips' HEIF module from where libvips itself is, unless it is built in. */
static void
libs_load_heif(void)
{
	char path[512];
	const void *(*init)(void *module);
	void *module, *call;
	Dl_info info;
	char *slash;
	int n;

	if (g_type_from_name("VipsForeignLoadHeif") != 0)
		return;
	if (dladdr((void *)(uintptr_t)vips_init, &info) == 0 || info.dli_fname == NULL)
		return;
	n = snprintf(path, sizeof(path), "%s", info.dli_fname);
	slash = strrchr(path, '/');
	if (n >= (int)sizeof(path) || slash == NULL)
		return;
	(void)snprintf(slash, sizeof(path) - (size_t)(slash - path),
	    "/vips-modules-%d.%d/vips-heif.so", vips_version(0), vips_version(1));
	module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (module == NULL)
		return;
	call = dlsym(module, "g_module_check_init");
	memcpy(&init, &call, sizeof(init));
	if (init != NULL)
		(void)init(NULL);
}

/* libheif loads its decoders, plug-ins in later versions, at this call. */
static void
libs_init_heif(void)
{
	int (*init)(void *unused);
	void *call = dlsym(RTLD_DEFAULT, "heif_init");

	if (call == NULL) {
		void *library = dlopen("libheif.so.1", RTLD_NOW | RTLD_NOLOAD);

		call = library != NULL ? dlsym(library, "heif_init") : NULL;
	}
	memcpy(&init, &call, sizeof(init));
	if (init != NULL)
		(void)init(NULL);
}

int
libs_init(struct error *err)
{
	int r;

	/* The same few megabytes again and again: keep them rather than fault them in anew. */
	(void)mallopt(M_MMAP_THRESHOLD, 32 << 20);
	(void)mallopt(M_TRIM_THRESHOLD, 64 << 20);
	tzset();
	(void)setenv("VIPSHOME", "/nonexistent", 1);
	(void)setenv("VIPS_CONCURRENCY", "1", 1);
	if (vips_init("tbfs-extract") != 0)
		return error_set(err, -ENOSYS, "libvips: %s", vips_error_buffer());
	(void)g_log_set_default_handler(libs_log, NULL);
	libs_load_heif();
	libs_init_heif();
	vips_block_untrusted_set(TRUE);
	/* Its just-in-time compiler wants temporary files and executable memory. */
	vips_vector_set_enabled(FALSE);
	vips_concurrency_set(1);
	vips_cache_set_max(0);
	av_log_set_level(AV_LOG_QUIET);
	r = sniff_init(err);
	return r;
}
