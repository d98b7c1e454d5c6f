/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_EXTRACT_TEXT_H
#define TBFS_EXTRACT_TEXT_H

/* Texts of files made fit for JSON: clean UTF-8, dates, places. */
#include <stdbool.h>
#include <stddef.h>

/*
 * Copy at most `len` bytes up to the first NUL, trimmed, as valid UTF-8
 * without controls, at most `most` bytes, cut between characters.  What isn't
 * UTF-8 is taken for Latin-1.  ret_text holds most + 1; empty when nothing is
 * left.
 */
void text_clean(const char *s, size_t len, size_t most, char *ret_text);

/*
 * "2019:05:04 12:33:10" and the like of EXIF and XMP → "2019-05-04T12:33:10",
 * with `sub` ("57", digits of a fraction) and `offset` ("+02:00", "Z") where
 * those are given and well-formed; either may be NULL.  What the date itself
 * brings of both wins.  False: no real date ("0000:00:00 00:00:00", blanks,
 * month 13).  ret_text is 48 bytes.
 */
bool text_date(const char *s, const char *sub, const char *offset, char *ret_text);

/* ISO 6709 as QuickTime writes it ("+51.5334-000.1255+026.756/"; degrees, or degrees and
 * minutes, or degrees, minutes and seconds).  False: not a position. */
bool text_iso6709(const char *s, double *ret_lat, double *ret_lon, bool *ret_has_alt,
    double *ret_alt);

#endif
