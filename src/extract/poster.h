/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_EXTRACT_POSTER_H
#define TBFS_EXTRACT_POSTER_H

/* The frame that stands for a video. */
#include "extract/media.h"

/* Choose it, convert it and send its thumbnails; what fails is the file's error. */
void poster_send(struct media *media);

#endif
