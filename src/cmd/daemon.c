/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The process behind a mount: puts the parts together, waits, takes them apart.
 *
 * Up: index, staging, core and its recovery, stores, syncer, processor, FUSE, control
 * socket.  Down, when the mount has gone or a signal asks for it: drain within a bound,
 * control, processor, syncer, FUSE, core, index last.
 */
#include "cmd/daemon.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "cmd/daemon_private.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DESCRIPTORS = 1 << 20 };		/* wanted; a hard limit above is taken as it is */

#define DRAINED_NS (10 * NSEC_PER_SEC)	/* for so long `tbfs umount`'s drain counts as ours */

/* ---- up ---- */

static int
open_index(struct daemon *d, enum index_end *ret_end, struct error *err)
{
	struct index_options opt = { .dir = d->cfg->state_dir, .reserve = d->cfg->reserve,
		.life = d->life };
	int r;

	staging_life(d->cfg->state_dir, d->life, sizeof(d->life));
	r = index_open(&opt, &d->index, ret_end, err);
	if (r == 0)
		r = staging_open_dir(d->cfg->state_dir, &d->staging, err);
	return r;
}

static int
make_core(struct daemon *d, enum index_end end, struct error *err)
{
	CLEANUP_FREE char *control = config_control_path(d->cfg);
	struct core_options opt = { .index = d->index, .staging = d->staging,
		.quiet_period = d->cfg->quiet_period, .temp_delay = d->cfg->temp_name_delay,
		.control_path = control, .noatime = d->cfg->noatime, .nodiratime = d->cfg->nodiratime,
		.hide_derived = d->cfg->derived == CONFIG_DERIVED_HIDDEN,
		.derive = d->cfg->derived != CONFIG_DERIVED_OFF };
	struct recovery rec;
	int r = core_new(&opt, &d->core);

	if (r == 0)
		r = core_recover(d->core, end, &rec, err);
	if (r == 0 && (end != INDEX_ENDED_WELL || rec.restored > 0))
		log_info("recovered after %s: %ju files not stored yet, %ju torn, %ju to be "
		    "fetched again, %ju never closed and dropped, %ju put back without the index",
		    end == INDEX_ENDED_WELL ? "the loss of the index" : end == INDEX_KILLED ?
		    "the death of the daemon" : "a power cut", (uintmax_t)rec.open, (uintmax_t)rec.torn, (uintmax_t)rec.rehydrate,
		    (uintmax_t)rec.dropped, (uintmax_t)rec.restored);
	return r;
}

/* The root belongs to whom the mountpoint belonged at the first mount, or to uid= and gid=. */
static int
set_root(struct daemon *d)
{
	struct inode to = { .ino = INDEX_ROOT }, root;
	struct stat st;
	unsigned mask = 0;

	if (index_is_new(d->index) && stat(d->mountpoint, &st) == 0) {
		to.uid = st.st_uid;
		to.gid = st.st_gid;
		to.mode = st.st_mode;
		mask = ATTR_UID | ATTR_GID | ATTR_MODE;
	}
	if (d->cfg->uid != CONFIG_UNSET) {
		to.uid = d->cfg->uid;
		mask |= ATTR_UID;
	}
	if (d->cfg->gid != CONFIG_UNSET) {
		to.gid = d->cfg->gid;
		mask |= ATTR_GID;
	}
	if (d->cfg->mode != CONFIG_UNSET) {
		to.mode = d->cfg->mode;
		mask |= ATTR_MODE;
	}
	return mask == 0 ? 0 : index_set_attr(d->index, INDEX_ROOT, mask, &to, &root);
}

/* /.tbfs/uploads: for Django's FILE_UPLOAD_TEMP_DIR. */
static int
make_own_dirs(struct daemon *d)
{
	struct caller root = { .uid = 0 };
	struct inode dir;
	struct attr attr;
	int r = index_lookup(d->index, INDEX_ROOT, ".tbfs", &dir);

	if (r == -ENOENT) {
		r = core_mkdir(d->core, INDEX_ROOT, ".tbfs", 0755, &root, &attr);
		if (r < 0)
			return r;
		core_forget(d->core, attr.inode.ino, 1);
		dir = attr.inode;
	}
	if (r == 0 && index_lookup(d->index, dir.ino, "uploads", &attr.inode) == -ENOENT) {
		r = core_mkdir(d->core, dir.ino, "uploads", 01777, &root, &attr);
		if (r == 0)
			core_forget(d->core, attr.inode.ino, 1);
	}
	return r;
}

/* A store that was never used must work now; one that was may be away for a while. */
static int
probe_store(struct daemon *d, struct error *err)
{
	int r = backend_probe(d->stores.store[0].backend, err);
	size_t i;

	for (i = 1; i < d->stores.n; i++)
		store_report(&d->stores.store[i], backend_probe(d->stores.store[i].backend, err), err);
	store_report(&d->stores.store[0], r, err);
	if (r == 0)
		return daemon_check_address(d, err);
	if (!index_backend_used(d->index, d->stores.store[0].name))
		return r;
	/* Away for a while it may be, but not elsewhere unseen. */
	if (!daemon_has_old_address(d))
		return r;
	log_warn("degraded: cached files and writes work, but %s", error_text(err));
	return 0;
}

/* Where the store is full, or away, what it had before is given its own blocks by who changes it,
 * and what was never confirmed is put again: but for what shares its blocks and can't be removed. */
static int
settle_one(struct daemon *d, struct store *local, const struct object *o, struct error *err)
{
	int r = backend_unshare(local->backend, o->key, err);
	struct stat st;

	if (r == 0)
		return 0;
	if (o->status == OBJECT_KEPT)
		return index_object_linked(d->index, o, true);
	if (staging_stat(d->staging, o->ino, &st) < 0 || st.st_nlink < 2)
		return 0;	/* it shares nothing */
	return r == -ENOSPC ? backend_remove(local->backend, o->key, err) : r;
}

/* What was being stored when we died may share its blocks with a staged file, without the index
 * knowing: nobody may write to that before. */
static int
settle_begun(struct daemon *d, struct error *err)
{
	struct store *local = stores_find(&d->stores, "local");
	struct object o[64];
	uint64_t after = 0;
	int n = 0, i, r = 0;

	while (local != NULL && r == 0 && (n = index_objects_begun(d->index, after, o, 64)) > 0) {
		for (i = 0; i < n && r == 0; i++) {
			if (strcmp(o[i].backend, "local") == 0 && o[i].status != OBJECT_REMOVING)
				r = settle_one(d, local, &o[i], err);
		}
		after = o[n - 1].id;
	}
	if (r == 0)
		r = index_uploads_cut_off(d->index, "local", clock_wall_ns());
	return r;
}

static int
make_workers(struct daemon *d, struct error *err)
{
	struct syncer_options sync = { .core = d->core, .stores = &d->stores,
		.workers = d->cfg->upload_workers, .max_size = d->cfg->upload_max_size,
		.link = d->cfg->backend == CONFIG_BACKEND_LOCAL && d->cfg->local_link != CONFIG_NO };
	struct processor_options proc = { .core = d->core, .workers = d->cfg->processor_workers,
		.uid = d->cfg->extract_uid, .gid = d->cfg->extract_gid, .inotify = d->cfg->inotify,
		.sweep_interval = d->cfg->sweep_interval, .program = getenv("TBFS_EXTRACT"),
		.limits = {
			.still_pixels = (uint64_t)d->cfg->limit_still_pixels,
			.animation_pixels = (uint64_t)d->cfg->limit_animation_pixels,
			.video_pixels = (uint64_t)d->cfg->limit_video_pixels,
			.memory_bytes = (uint64_t)d->cfg->limit_memory,
			.video_s = (uint32_t)(d->cfg->limit_duration / NSEC_PER_SEC),
			.exif_bytes = (uint32_t)d->cfg->limit_exif_size,
			.text_bytes = (uint32_t)d->cfg->limit_text_size,
			.streams = d->cfg->limit_streams,
			.cpu_s = (uint32_t)(d->cfg->limit_deadline / NSEC_PER_SEC * 2 / 3 + 1),
			.deadline_s = (uint32_t)(d->cfg->limit_deadline / NSEC_PER_SEC),
		} };
	struct core_events events = daemon_events(d);
	struct fetcher fetcher;
	int r = syncer_new(&sync, &d->syncer);

	if (r < 0)
		return error_set(err, r, "the syncer can't be started: %s", strerror(-r));
	syncer_fetcher(d->syncer, &fetcher);
	core_set_fetcher(d->core, &fetcher);
	core_set_events(d->core, &events);
	r = index_derive_switch(d->index, d->cfg->derived != CONFIG_DERIVED_OFF);
	if (r < 0 || d->cfg->derived == CONFIG_DERIVED_OFF)
		return r;
	return processor_new(&proc, &d->processor, err);
}

static int
mount_fs(struct daemon *d, struct error *err)
{
	struct fs_options opt = { .mountpoint = d->mountpoint,
		.source = d->cfg->fsname != NULL ? d->cfg->fsname : "tbfs",
		.mount_options = d->cfg->mount_options != NULL && d->cfg->mount_options[0] != '\0' ?
		    d->cfg->mount_options : NULL,
		.allow_other = d->cfg->allow_other,
		.passthrough = d->cfg->passthrough == CONFIG_NO ? PASSTHROUGH_OFF :
		    d->cfg->passthrough == CONFIG_YES ? PASSTHROUGH_ON : PASSTHROUGH_AUTO };
	CLEANUP_FREE char *control = config_control_path(d->cfg);
	struct control_options copt = { .path = control, .verbs = daemon_verbs, .ctx = d,
		.owner = geteuid(), .group = d->cfg->control_group == CONFIG_UNSET ? (gid_t)-1 :
		    d->cfg->control_group };
	int r = fs_mount(d->core, &opt, &d->fs, err);

	if (r == 0)
		r = control_start(&copt, &d->control, err);
	return r;
}

/* The end of the mount is told by a signal, like all that serve() waits for. */
static void *
gone_run(void *arg)
{
	struct daemon *d = arg;

	fs_wait(d->fs);
	(void)kill(getpid(), SIGUSR2);
	return NULL;
}

static int
start_threads(struct daemon *d)
{
	int r = care_start(&d->care, d->index, d->cfg);

	if (r == 0) {
		r = -pthread_create(&d->gone_thread, NULL, gone_run, d);
		d->gone_runs = r == 0;
	}
	return r;
}

/* ---- down ---- */

int
daemon_drain(struct daemon *d, int64_t deadline_mono_ns, struct sync_progress *ret_left)
{
	return syncer_drain(d->syncer, INDEX_ROOT, deadline_mono_ns, NULL, NULL, ret_left);
}

static void
last_drain(struct daemon *d)
{
	struct sync_progress left;
	int r;

	if (clock_mono_ns() - atomic_load(&d->drained_at) < DRAINED_NS && atomic_load(&d->drained_at) != 0)
		return;
	r = daemon_drain(d, clock_mono_ns() + d->cfg->drain_timeout, &left);
	if (r < 0)
		log_warn("leaving with %ju uploads and removals still to be done; they stay in %s and "
		    "go on at the next mount%s%s", (uintmax_t)left.remaining, d->cfg->state_dir,
		    left.error[0] != '\0' ? ": " : "", left.error);
}

static void
take_apart(struct daemon *d)
{
	bool synced;

	control_stop(d->control);
	care_stop(&d->care);
	if (d->gone_runs)
		(void)pthread_join(d->gone_thread, NULL);
	if (d->fs != NULL)
		fs_stop(d->fs);
	/* Each may tell the other something as long as it runs. */
	syncer_stop(d->syncer);
	processor_free(d->processor);
	d->processor = NULL;
	syncer_free(d->syncer);
	fs_free(d->fs);
	core_free(d->core);
	stores_release(&d->stores);
	/* A clean end says that what is staged is on the disk. */
	synced = d->staging == NULL || staging_sync_all(d->staging) == 0;
	if (!synced)
		log_err("what is staged can't be synced");
	staging_close_dir(d->staging);
	index_close(d->index, synced);
}

static void
reload(struct daemon *d)
{
	CLEANUP_FREE char *note = NULL;
	struct error err = { 0 };

	if (d->cfg->log_file != NULL)
		(void)log_open(d->cfg->log_file);
	if (config_reload(d->cfg, &note, &err) < 0)
		log_err("%s", error_text(&err));
	else
		log_info("reloaded%s%s", note != NULL ? ": " : "", note != NULL ? note : "");
	/* Others ask the configuration each time; these keep what they need. */
	log_set_level(d->cfg->log_level);
	core_set_quiet(d->core, d->cfg->quiet_period, d->cfg->temp_name_delay);
	syncer_set_max_size(d->syncer, d->cfg->upload_max_size);
}

static void
dump(struct daemon *d)
{
	json_t *status = daemon_status(d);
	char *text = status == NULL ? NULL : json_dumps(status, JSON_COMPACT);

	if (text != NULL)
		log_info("status %s", text);
	free(text);
	json_decref(status);
}

/* Until the mount has gone. */
static void
serve(struct daemon *d, const sigset_t *signals)
{
	bool asked = false;

	for (;;) {
		int sig;

		if (sigwait(signals, &sig) != 0)
			continue;
		if (sig == SIGUSR2)
			return;
		if (sig == SIGHUP) {
			reload(d);
		} else if (sig == SIGUSR1) {
			dump(d);
		} else if (!asked) {
			asked = true;
			last_drain(d);
			(void)fs_unmount(d->fs, true);
		}
	}
}

/* Where the daemon moves the bytes each open file takes a descriptor; who starts it is often allowed
 * 1,024. */
static void
want_descriptors(void)
{
	struct rlimit limit, more;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	more = (struct rlimit){ DESCRIPTORS, DESCRIPTORS };
	if (limit.rlim_max < DESCRIPTORS && setrlimit(RLIMIT_NOFILE, &more) == 0)
		return;
	more = (struct rlimit){ limit.rlim_max, limit.rlim_max };
	if (setrlimit(RLIMIT_NOFILE, &more) < 0)
		log_warn("no more than %ju open files: %s", (uintmax_t)limit.rlim_cur, strerror(errno));
}

int
daemon_run(struct config *cfg, const char *mountpoint, struct daemon_ready *ready)
{
	struct daemon d = { .cfg = cfg, .mountpoint = mountpoint, .started = clock_wall_ns() };
	enum exit_code code = EXIT_STATE;
	struct error err = { 0 };
	sigset_t signals;
	enum index_end end;
	int r;

	/* Objects and their directories are for other tools too; modes are set where they matter. */
	(void)umask(022);
	want_descriptors();
	(void)sigemptyset(&signals);
	(void)sigaddset(&signals, SIGTERM);
	(void)sigaddset(&signals, SIGINT);
	(void)sigaddset(&signals, SIGHUP);
	(void)sigaddset(&signals, SIGUSR1);
	(void)sigaddset(&signals, SIGUSR2);
	(void)pthread_sigmask(SIG_BLOCK, &signals, NULL);
	/* Sent when a lease that we hold for a moment is wanted. */
	(void)signal(SIGIO, SIG_IGN);
	stores_init(&d.stores);

	r = open_index(&d, &end, &err);
	if (r == 0)
		r = make_core(&d, end, &err);
	if (r == 0)
		r = set_root(&d);
	if (r == 0)
		r = make_own_dirs(&d);
	if (r == 0)
		r = index_recovered(d.index, d.life);
	if (r == 0) {
		code = EXIT_BACKEND;
		r = daemon_make_stores(&d, &err);
	}
	if (r == 0)
		r = probe_store(&d, &err);
	if (r == 0)
		r = settle_begun(&d, &err);
	if (r == 0) {
		code = EXIT_NOT_DONE;
		r = make_workers(&d, &err);
	}
	if (r == 0)
		r = mount_fs(&d, &err);
	if (r == 0)
		r = start_threads(&d);
	if (r < 0) {
		if (err.text[0] == '\0')
			(void)error_set(&err, r, "%s can't be mounted: %s", mountpoint, strerror(-r));
		if (d.fs != NULL)
			(void)fs_unmount(d.fs, true);
		take_apart(&d);
		return daemon_ready_failed(ready, code, &err);
	}
	log_info("%s is mounted: %s", mountpoint, config_backend_name(cfg->backend));
	if (daemon_ready_ok(ready) < 0)
		(void)fs_unmount(d.fs, true);
	serve(&d, &signals);
	last_drain(&d);
	take_apart(&d);
	log_info("%s is unmounted", mountpoint);
	return EXIT_DONE;
}
