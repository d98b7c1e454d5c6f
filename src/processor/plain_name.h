/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TBFS_PROCESSOR_PLAIN_NAME_H
#define TBFS_PROCESSOR_PLAIN_NAME_H

/* File names, which are bytes, in JSON, which is UTF-8. */
#include "base/strbuf.h"

#include <stdbool.h>

/*
 * Append the name as meta.json spells it: itself where it is UTF-8, else with
 * each byte from 0x80 on and each '%' as %XX.  No two names are spelt alike:
 * one that reads like an escaped one is escaped as well.  True: it was escaped,
 * and base64 of the bytes should go along.
 */
bool plain_name(const char *name, struct strbuf *out);

/* Append the base64 (RFC 4648) of the name's bytes. */
void base64_name(const char *name, struct strbuf *out);

#endif
