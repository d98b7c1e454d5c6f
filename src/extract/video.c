/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "extract/job.h"

void
video_extract(struct job *j)
{
	meta_fail(&j->meta, EXTRACT_AT_VIDEO, "unsupported", "%s isn't decoded yet", j->meta.mime);
}
