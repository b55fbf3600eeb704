#!/usr/bin/env bash
# firewalld, ufw, Docker and the CNI plugins for the tests of rules, from Debian's packages: unpacked into ~/.cache/kubectl-genainet/firewalls,
# never installed, so that no firewall is put to work on this machine. Prints the folder.
#
# usr/ and etc/ of it are laid over those of a mount namespace (tests/rules_programs.py). What the machine has already of
# what they depend on is not fetched.
set -euo pipefail

folder=${XDG_CACHE_HOME:-$HOME/.cache}/kubectl-genainet/firewalls
programs=(ufw firewalld docker.io containernetworking-plugins)

say() { echo "firewalls: $*" >&2; }

unpack() {
  local work=$folder.part deb
  rm -rf "$work" && mkdir -p "$work"/apt/archives/partial
  say "fetching ${programs[*]}"
  local apt=(-qq -o Dir::Cache="$work/apt" -o APT::Sandbox::User= -o Acquire::Retries=3)
  # Ones that are installed are fetched, too: the folder has all of them, whatever the machine has.
  apt-get "${apt[@]}" install -y --download-only --reinstall --no-install-recommends "${programs[@]}" >&2
  for deb in "$work"/apt/archives/*.deb; do dpkg -x "$deb" "$work"; done
  rm -rf "$work/apt"
  for part in lib bin sbin; do # usr/ has them on a merged system
    [[ ! -d $work/$part ]] || { cp -a "$work/$part" "$work/usr/" && rm -rf "${work:?}/$part"; }
  done
  cp "$work"/usr/share/ufw/iptables/*.rules "$work/etc/ufw/" # what its package does when it is installed
  ln -s org.fedoraproject.FirewallD1.server.policy.choice \
    "$work/usr/share/polkit-1/actions/org.fedoraproject.FirewallD1.policy"
  cp "$work"/usr/share/ufw/*.init "$work/usr/share/ufw/ufw.conf" "$work/etc/ufw/"
  rm -rf "$folder" && mv "$work" "$folder"
}

mkdir -p "$(dirname "$folder")"
exec 9>"$folder.lock"
flock 9
[[ -x $folder/usr/lib/cni/portmap ]] || unpack
echo "$folder"
