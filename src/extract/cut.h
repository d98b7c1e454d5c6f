/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_EXTRACT_CUT_H
#define TBFS_EXTRACT_CUT_H

/* Decoders are content with what they get; a user wants to know that half of it is missing. */
#include "extract/media.h"

/*
 * Does the file end before its container says?  Known for ISO media, Matroska,
 * RIFF, AIFF, ASF, FLAC, and MP3 with a Xing header; for others the answer is no.
 * The container needn't have been opened; if it was, it is read to its end.
 */
bool cut_short(struct media *media);

#endif
