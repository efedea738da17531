#!/bin/sh
# Installs a real Asterisk 22 for the tests into .asterisk/root, which git ignores. Outside of this
# folder it installs only debootstrap. If Asterisk is installed already, it does nothing. It needs
# Debian or a derivative with apt, and root for debootstrap and chroot. See docs/asterisk.md.
set -eu

me=asterisk.sh
suite=sid # the only Debian suite that has an Asterisk with every AudioSocket rate
packages=asterisk,sip-tester
here=$(cd "$(dirname "$0")" && pwd)
home=$(dirname "$here")/.asterisk
root=$home/root
stamp=$home/stamp
log=$home/install.log

if [ -x "$root/usr/sbin/asterisk" ] && [ "$(head -n 1 "$stamp" 2>/dev/null)" = "$suite $packages" ]; then
    echo "$me: $(tail -n 1 "$stamp") is in $root"
    exit 0
fi

# shellcheck source=scripts/debian.sh
. "$here/debian.sh"
mkdir -p "$home"
echo "$me: installing $packages from Debian $suite into $root, which takes a minute or two"
rm -rf --one-file-system "$root" "$stamp"
bootstrap "$suite" "$packages" "$root.new"
version=$(chroot "$root.new" asterisk -V 2>>"$log") || fail "the installed Asterisk does not run, see $log"
mv "$root.new" "$root"
printf '%s\n%s\n' "$suite $packages" "$version" >"$stamp"
echo "$me: $version is in $root"
