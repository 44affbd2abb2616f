# shellcheck shell=sh
# common.sh
#   What the shell scripts of this project share: where things are, who runs
#   PostgreSQL, and messages.  Sourced, with $top set to the root of the checkout.

# Says something to the person who waits, without touching standard output.
say() {
	printf '%s\n' "$*" >&2
}

# Says why it cannot go on, and ends.
die() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# The user that PostgreSQL runs as, which must not be root: EVENTO_USER, else
# this user, else postgres, else a user evento that is made here.
unprivileged_user() {
	if [ "$(id -u)" != 0 ]; then
		id -un
	elif [ -n "${EVENTO_USER:-}" ]; then
		printf '%s\n' "$EVENTO_USER"
	elif id postgres >/dev/null 2>&1; then
		echo postgres
	else
		id evento >/dev/null 2>&1 || useradd --system --home-dir /nonexistent --shell /bin/sh evento
		echo evento
	fi
}

# Runs a command as that user, in the same process group; its environment is kept.
as_user() {
	if [ "$(id -u)" != 0 ]; then
		"$@"
	else
		_user=$(unprivileged_user)
		setpriv --reuid="$_user" --regid="$(id -g "$_user")" --init-groups -- "$@"
	fi
}

# The pg_config to use: PG_CONFIG as a command, or as the number of a major
# version at its place in Debian.
find_pg_config() {
	_wanted=${1:-${PG_CONFIG:-pg_config}}
	case $_wanted in
		[0-9]*) _wanted=/usr/lib/postgresql/$_wanted/bin/pg_config ;;
	esac
	command -v "$_wanted" >/dev/null 2>&1 || return 1
	printf '%s\n' "$_wanted"
}

# The archive that this machine's apt takes packages from, by its label, which is
# Debian (for which EVENTO_MIRROR may name another) or Debian-Security.
apt_mirror() {
	_label=$1
	if [ "$_label" = Debian ] && [ -n "${EVENTO_MIRROR:-}" ]; then
		printf '%s\n' "$EVENTO_MIRROR"
		return
	fi
	apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(CREATED_BY)|$(REPO_URI)' 2>/dev/null | sed -n "s/^Debian|$_label|Packages|//p" | head -n 1
}
