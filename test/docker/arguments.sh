# arguments.sh
#   Sourced, where common.sh was: sets the positional parameters to what builds of
#   images are given, so that they fetch packages as this machine's apt does.

set --
_mirror=$(apt_mirror Debian)
[ -z "$_mirror" ] || set -- "$@" --build-arg "APT_MIRROR=${_mirror%/}"
_mirror=$(apt_mirror Debian-Security)
[ -z "$_mirror" ] || set -- "$@" --build-arg "APT_SECURITY=${_mirror%/}"
for _scheme in http https; do
	_proxy=$(apt-config dump --format '%v' "Acquire::$_scheme::Proxy" 2>/dev/null)
	[ -z "$_proxy" ] || set -- "$@" --build-arg "${_scheme}_proxy=$_proxy"
done
