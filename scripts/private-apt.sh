# Sourced by scripts that unpack Debian's packages and install none: an apt with a state of its own, so that the machine's
# sources, lists and packages stay as they are. Needs no root.
#
#   private_apt FOLDER ARCHITECTURE SUITE   sets `apt`, the flags, and fetches the lists; progress on standard error
#
# A suite whose name ends in -security is the security archive's.
private_apt() {
  local mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
  [[ $3 != *-security ]] || mirror+=-security
  mkdir -p "$1"/{state/lists/partial,cache/archives/partial,empty}
  touch "$1/state/status"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg arch=$2] $mirror $3 main" >"$1/sources.list"
  apt=(-qq -o Dir::State="$1/state" -o Dir::State::status="$1/state/status" -o Dir::Cache="$1/cache"
    -o Dir::Etc::sourcelist="$1/sources.list" -o Dir::Etc::sourceparts="$1/empty"
    -o APT::Architecture="$2" -o APT::Architectures="$2" -o APT::Sandbox::User=
    -o Acquire::Languages=none -o Acquire::Retries=3 -o Acquire::Check-Valid-Until=false)
  apt-get "${apt[@]}" update >&2
}
