#!/bin/sh
# Installs a real Asterisk 22 for the tests into .asterisk/root (git ignores it), and nothing
# outside of it but debootstrap. Does nothing when it is there. Needs Debian or a derivative with
# apt, and root (debootstrap and chroot). See docs/asterisk.md.
set -eu

suite=sid # the only Debian suite that has an Asterisk with every AudioSocket rate
packages=asterisk,sip-tester
home=$(cd "$(dirname "$0")/.." && pwd)/.asterisk
root=$home/root
stamp=$home/stamp
log=$home/install.log

fail() {
    echo "asterisk.sh: $1" >&2
    exit 1
}

if [ -x "$root/usr/sbin/asterisk" ] && [ "$(head -n 1 "$stamp" 2>/dev/null)" = "$suite $packages" ]; then
    echo "asterisk.sh: $(tail -n 1 "$stamp") is in $root"
    exit 0
fi

[ "$(id -u)" = 0 ] || fail "debootstrap and chroot need root: run this as root"
command -v apt-get >/dev/null || fail "no apt-get here: Asterisk is installed from Debian packages"
mkdir -p "$home"

if ! command -v debootstrap >/dev/null; then
    echo "asterisk.sh: installing debootstrap"
    { apt-get update && apt-get install -y --no-install-recommends debootstrap; } >"$log" 2>&1 ||
        { tail -n 20 "$log" >&2; fail "apt-get could not install debootstrap, see $log"; }
fi

# The mirror is the one that this machine's apt takes Debian itself from.
# shellcheck disable=SC2016 # the dollars are apt's
mirror=$(apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' 'Created-By: Packages' |
    sed -n 's/^Debian|Debian|//p' | head -n 1)
if [ -z "$mirror" ]; then # no list fetched yet: then apt does not know the labels
    apt-get update >"$log" 2>&1 || { tail -n 20 "$log" >&2; fail "apt-get update failed, see $log"; }
    mirror=$(apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' 'Created-By: Packages' |
        sed -n 's/^Debian|Debian|//p' | head -n 1)
fi
[ -n "$mirror" ] || fail "apt is not configured with a Debian mirror: nothing to install Asterisk from"

echo "asterisk.sh: installing $packages from Debian $suite into $root, which takes a minute or two"
rm -rf --one-file-system "$root" "$root.new" "$stamp"
debootstrap --variant=minbase --include="$packages" "$suite" "$root.new" "$mirror" >"$log" 2>&1 ||
    { tail -n 20 "$log" >&2; fail "debootstrap failed, see $log and $root.new/debootstrap/debootstrap.log"; }
rm -f "$root.new"/var/cache/apt/archives/*.deb
version=$(chroot "$root.new" asterisk -V 2>>"$log") || fail "the installed Asterisk does not run, see $log"
mv "$root.new" "$root"
printf '%s\n%s\n' "$suite $packages" "$version" >"$stamp"
echo "asterisk.sh: $version is in $root"
