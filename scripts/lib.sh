# SPDX-License-Identifier: GPL-3.0-or-later
# Shared by the scripts here; sourced, never run.  Expects bash and `set -eu`.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
jobs=$(nproc)

say() { printf '%s\n' "== $*"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# Go on as root: mounting, loop devices and other users' files need it.
as_root() {
	[ "$(id -u)" = 0 ] && return
	command -v sudo >/dev/null || die "must run as root, or sudo must be installed"
	exec sudo --preserve-env "$0" "$@"
}

need_fuse() {
	[ -c /dev/fuse ] ||
		die "/dev/fuse is missing: load the kernel's module (modprobe fuse), or give the container the device (--device /dev/fuse --cap-add SYS_ADMIN)"
	# A device node whose driver is absent, or that a sandbox forbids, fails to open.
	(exec 3<>/dev/fuse) 2>/dev/null ||
		die "/dev/fuse is there but cannot be opened: the kernel has no FUSE, or this container is not allowed to use it"
}

# retry N COMMAND…: networks and package locks come and go.
retry() {
	local left=$1
	shift
	until "$@"; do
		left=$((left - 1))
		[ "$left" -gt 0 ] || return 1
		say "failed, once more: $*"
		sleep 5
	done
}

# build DIR CONFIGURE-ARGUMENT…: configure (once per set of arguments) and make, out of tree.
build() {
	local dir=$1
	shift
	mkdir -p "$dir"
	if [ ! -x "$top/configure" ] || [ -n "$(find "$top/configure.ac" "$top/Makefile.am" \
	    "$top"/*/Makefile.inc "$top"/*/*/Makefile.inc -newer "$top/configure" 2>/dev/null)" ]; then
		(cd "$top" && autoreconf -i) || return 1
	fi
	if [ ! -f "$dir/Makefile" ] || [ "$*" != "$(cat "$dir/.arguments" 2>/dev/null)" ] ||
	    [ "$top/configure" -nt "$dir/config.status" ]; then
		(cd "$dir" && "$top/configure" --quiet "$@") || return 1
		printf '%s\n' "$*" >"$dir/.arguments"
	fi
	make -C "$dir" --no-print-directory -j"$jobs"
}
