/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A backend that misbehaves on request; see fault.h for the spec.
 *
 * A spec is parsed into rules.  Each call counts itself in every rule that names
 * its operation, and then does what the rules say: wait, fail without doing
 * anything, or be carried out and fail nevertheless (the answer was lost).
 *
 *   1. Rules and counters change under `mutex` only; nothing is called and no time
 *      is spent while it is held.
 *   2. fault_fail_nth() and the rules count independently of each other.
 *   3. What a call whose answer is lost gave is thrown away: outputs stay as they were.
 */
#include "backends/fault.h"

#include "base/clock.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RULES_MAX = 32 };

enum rule_kind { RULE_NTH, RULE_EVERY, RULE_LOST, RULE_DELAY, RULE_CUT };

struct rule {
	enum rule_kind kind;
	int call;			/* enum backend_call, or -1 for all */
	uint64_t n;			/* which call, how many ms or bytes */
	int code;
	uint64_t seen;			/* matching calls so far */
};

struct fault {
	struct backend b;
	struct backend *inner;
	pthread_mutex_t mutex;
	struct rule rules[RULES_MAX];
	size_t count;
	uint64_t nth;			/* fault_fail_nth(): 0 is disarmed */
	int nth_code;
	uint64_t calls;
};

/* What is to happen to one call. */
struct verdict {
	int code;			/* fail with it, without doing anything */
	int lost_code;			/* carry out, then fail with it */
	uint64_t delay_ms;
	uint64_t cut;			/* UINT64_MAX: whole */
	int cut_code;
};

static const struct {
	const char *name;
	int code;
} codes[] = {
	{ "ENOENT", -ENOENT }, { "ENODEV", -ENODEV }, { "EACCES", -EACCES }, { "EAGAIN", -EAGAIN },
	{ "ENOSPC", -ENOSPC }, { "ECANCELED", -ECANCELED }, { "EIO", -EIO }, { "ENOTSUP", -ENOTSUP },
	{ "EEXIST", -EEXIST }, { "EINVAL", -EINVAL },
};

static const char *const kinds[] = {
	[RULE_NTH] = "nth", [RULE_EVERY] = "every", [RULE_LOST] = "lost", [RULE_DELAY] = "delay",
	[RULE_CUT] = "cut",
};

static const char *const calls[CALL_COUNT] = {
	[CALL_PUT] = "put", [CALL_GET] = "get", [CALL_STAT] = "stat", [CALL_REMOVE] = "remove",
	[CALL_LIST] = "list", [CALL_COPY] = "copy", [CALL_URL] = "url",
	[CALL_UNSHARE] = "unshare", [CALL_PROBE] = "probe",
};

static struct fault *
to_fault(struct backend *b)
{
	return (struct fault *)b;
}

/* ---- the spec ---- */

static int
find_name(const char *const *names, size_t count, const char *text, size_t len)
{
	size_t i;

	for (i = 0; i < count; i++)
		if (strlen(names[i]) == len && memcmp(names[i], text, len) == 0)
			return (int)i;
	return -1;
}

static bool
parse_code(const char *text, int *ret)
{
	size_t i;

	for (i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
		if (strcmp(codes[i].name, text) == 0) {
			*ret = codes[i].code;
			return true;
		}
	}
	return false;
}

/* One rule, "[op:]kind=value[:ERRNO]". */
static bool
parse_rule(const char *text, struct rule *ret)
{
	const char *eq = strchr(text, '='), *op = strchr(text, ':');
	char *end;
	int kind;

	*ret = (struct rule){ .call = -1, .code = -EAGAIN };
	if (eq == NULL)
		return false;
	if (op != NULL && op < eq) {
		ret->call = find_name(calls, CALL_COUNT, text, (size_t)(op - text));
		if (ret->call < 0)
			return false;
		text = op + 1;
	}
	kind = find_name(kinds, sizeof(kinds) / sizeof(kinds[0]), text, (size_t)(eq - text));
	if (kind < 0)
		return false;
	ret->kind = (enum rule_kind)kind;
	if (kind == RULE_EVERY)
		return parse_code(eq + 1, &ret->code);
	if (eq[1] < '0' || eq[1] > '9')
		return false;
	ret->n = strtoull(eq + 1, &end, 10);
	if (*end == '\0')
		return true;
	return *end == ':' && (kind == RULE_NTH || kind == RULE_LOST) && parse_code(end + 1, &ret->code);
}

static int
parse_spec(const char *spec, struct rule *ret_rules, size_t *ret_count, struct error *err)
{
	size_t count = 0;

	while (*spec != '\0') {
		size_t len = strcspn(spec, ",");
		char one[64];

		if (count == RULES_MAX || len >= sizeof(one))
			return error_set(err, -EINVAL, "fault: more than %d rules, or one too long", RULES_MAX);
		memcpy(one, spec, len);
		one[len] = '\0';
		if (!parse_rule(one, &ret_rules[count]))
			return error_set(err, -EINVAL, "fault: \"%s\" is no rule; they look like put:nth=3:EAGAIN, "
			    "every=EIO, put:lost=2, get:delay=200, get:cut=1000", one);
		count++;
		spec += len;
		if (*spec == ',')
			spec++;
	}
	*ret_count = count;
	return 0;
}

/* ---- what happens to a call ---- */

static void
judge(struct fault *f, enum backend_call call, struct verdict *v)
{
	size_t i;

	*v = (struct verdict){ .cut = UINT64_MAX };
	(void)pthread_mutex_lock(&f->mutex);
	f->calls++;
	if (f->nth != 0 && f->calls == f->nth)
		v->code = f->nth_code;
	for (i = 0; i < f->count; i++) {
		struct rule *rule = &f->rules[i];

		if (rule->call >= 0 && rule->call != (int)call)
			continue;
		rule->seen++;
		if (rule->kind == RULE_EVERY || (rule->kind == RULE_NTH && rule->seen == rule->n))
			v->code = rule->code;
		else if (rule->kind == RULE_LOST && rule->seen == rule->n)
			v->lost_code = rule->code;
		else if (rule->kind == RULE_DELAY)
			v->delay_ms += rule->n;
		else if (rule->kind == RULE_CUT && call == CALL_GET)
			v->cut = rule->n;
	}
	(void)pthread_mutex_unlock(&f->mutex);
}

/* Before the call: wait, and perhaps fail. */
static int
begin(struct backend *b, enum backend_call call, struct verdict *v, struct error *err)
{
	struct timespec ts;

	judge(to_fault(b), call, v);
	if (v->delay_ms > 0) {
		ts = ns_to_timespec((int64_t)v->delay_ms * 1000000);
		while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
			;
	}
	if (v->code != 0)
		return error_set(err, v->code, "fault: this %s fails by request", calls[call]);
	return 0;
}

/* After the call: is the answer lost? */
static int
end(const struct verdict *v, enum backend_call call, int r, struct error *err)
{
	if (r == 0 && v->lost_code != 0)
		return error_set(err, v->lost_code, "fault: the answer to this %s is lost by request",
		    calls[call]);
	return r;
}

/* ---- operations ---- */

static int
fault_put(struct backend *b, const char *key, const struct object_put *put,
    struct backend_tag *ret_tag, bool *ret_linked, struct error *err)
{
	struct verdict v;
	int r = begin(b, CALL_PUT, &v, err);

	if (r == 0)
		r = end(&v, CALL_PUT, backend_put(to_fault(b)->inner, key, put, ret_tag, ret_linked, err),
		    err);
	return r;
}

static int
fault_get(struct backend *b, const char *key, uint64_t off, uint64_t len, int fd, uint64_t fd_off,
    struct error *err)
{
	struct verdict v;
	int r = begin(b, CALL_GET, &v, err);

	if (r == 0 && v.cut < len) {
		r = backend_get(to_fault(b)->inner, key, off, v.cut, fd, fd_off, err);
		if (r == 0)
			r = error_set(err, -EAGAIN, "fault: this get ends after %ju bytes by request",
			    (uintmax_t)v.cut);
	} else if (r == 0) {
		r = end(&v, CALL_GET, backend_get(to_fault(b)->inner, key, off, len, fd, fd_off, err), err);
	}
	return r;
}

static int
fault_stat(struct backend *b, const char *key, struct backend_tag *ret_tag, struct error *err)
{
	struct verdict v;
	int r = begin(b, CALL_STAT, &v, err);

	if (r == 0)
		r = end(&v, CALL_STAT, backend_stat(to_fault(b)->inner, key, ret_tag, err), err);
	return r;
}

static int
fault_remove(struct backend *b, const char *key, struct error *err)
{
	struct verdict v;
	int r = begin(b, CALL_REMOVE, &v, err);

	if (r == 0)
		r = end(&v, CALL_REMOVE, backend_remove(to_fault(b)->inner, key, err), err);
	return r;
}

static int
fault_list(struct backend *b, const char *prefix, backend_list_fn *fn, void *arg, struct error *err)
{
	struct verdict v;
	int r = begin(b, CALL_LIST, &v, err);

	if (r == 0)
		r = end(&v, CALL_LIST, backend_list(to_fault(b)->inner, prefix, fn, arg, err), err);
	return r;
}

static int
fault_copy(struct backend *b, const char *from, const char *to, struct backend_tag *ret_tag,
    struct error *err)
{
	struct verdict v;
	int r = begin(b, CALL_COPY, &v, err);

	if (r == 0)
		r = end(&v, CALL_COPY, backend_copy(to_fault(b)->inner, from, to, ret_tag, err), err);
	return r;
}

static int
fault_get_url(struct backend *b, const char *key, unsigned expires, char **ret_url,
    struct error *err)
{
	struct verdict v;
	int r = begin(b, CALL_URL, &v, err);

	if (r == 0) {
		r = end(&v, CALL_URL, backend_get_url(to_fault(b)->inner, key, expires, ret_url, err), err);
		if (r < 0) {
			free(*ret_url);		/* the wrapper's own variable, NULL before the call */
			*ret_url = NULL;
		}
	}
	return r;
}

static int
fault_unshare(struct backend *b, const char *key, struct error *err)
{
	struct verdict v;
	int r = begin(b, CALL_UNSHARE, &v, err);

	if (r == 0)
		r = end(&v, CALL_UNSHARE, backend_unshare(to_fault(b)->inner, key, err), err);
	return r;
}

static int
fault_probe(struct backend *b, struct error *err)
{
	struct verdict v;
	int r = begin(b, CALL_PROBE, &v, err);

	if (r == 0)
		r = end(&v, CALL_PROBE, backend_probe(to_fault(b)->inner, err), err);
	return r;
}

static void
fault_free(struct backend *b)
{
	struct fault *f = to_fault(b);

	backend_free(f->inner);
	(void)pthread_mutex_destroy(&f->mutex);
	free(f);
}

static const struct backend_ops fault_ops = {
	.name = "fault",
	.put = fault_put,
	.get = fault_get,
	.stat = fault_stat,
	.remove = fault_remove,
	.list = fault_list,
	.copy = fault_copy,
	.get_url = fault_get_url,
	.unshare = fault_unshare,
	.probe = fault_probe,
	.free = fault_free,
};

int
fault_backend_new(struct backend *inner, const char *spec, struct backend **ret_b,
    struct error *err)
{
	struct fault *f = calloc(1, sizeof(*f));
	int r;

	if (f == NULL)
		return error_set(err, -EAGAIN, "out of memory");
	r = parse_spec(spec == NULL ? "" : spec, f->rules, &f->count, err);
	if (r < 0) {
		free(f);
		return r;
	}
	f->b.ops = &fault_ops;
	f->inner = inner;
	(void)pthread_mutex_init(&f->mutex, NULL);
	*ret_b = &f->b;
	return 0;
}

void
fault_fail_nth(struct backend *b, uint64_t n, int code)
{
	struct fault *f = to_fault(b);

	(void)pthread_mutex_lock(&f->mutex);
	f->nth = n;
	f->nth_code = code;
	f->calls = 0;
	(void)pthread_mutex_unlock(&f->mutex);
}

uint64_t
fault_calls(struct backend *b)
{
	struct fault *f = to_fault(b);
	uint64_t n;

	(void)pthread_mutex_lock(&f->mutex);
	n = f->calls;
	(void)pthread_mutex_unlock(&f->mutex);
	return n;
}

void
fault_set(struct backend *b, const char *spec)
{
	struct fault *f = to_fault(b);
	struct rule rules[RULES_MAX];
	struct error err = {0};
	size_t count;

	if (parse_spec(spec, rules, &count, &err) < 0) {
		fprintf(stderr, "%s\n", error_text(&err));
		abort();
	}
	(void)pthread_mutex_lock(&f->mutex);
	memcpy(f->rules, rules, count * sizeof(rules[0]));
	f->count = count;
	(void)pthread_mutex_unlock(&f->mutex);
}
