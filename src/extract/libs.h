/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_EXTRACT_LIBS_H
#define TBFS_EXTRACT_LIBS_H

#include "base/error.h"

/*
 * Load and set up every library, module and table that a file may need, for
 * after the sandbox nothing more can be loaded.  Starts no thread.  0 or
 * -errno with a sentence.
 */
int libs_init(struct error *err);

#endif
