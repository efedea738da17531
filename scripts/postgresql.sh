#!/bin/sh
# postgresql.sh: installs PostgreSQL from Debian, if it is not there, and prints the folder of its
# programs. No server of the system's is started or changed. Needs Debian or a derivative, and root.
set -eu
cd "$(dirname "$0")/.."

me=postgresql.sh
log=$(mktemp)
. scripts/debian.sh

programs() { ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -n 1; }

if [ -z "$(programs)" ]; then
    [ "$(id -u)" = 0 ] || fail "installing postgresql needs root: run this as root"
    command -v apt-get >/dev/null || fail "no apt-get here: postgresql is installed from Debian packages"
    echo "$me: installing postgresql" >&2
    # Without this the package makes a cluster of its own, and starts it.
    mkdir -p /etc/postgresql-common
    [ -e /etc/postgresql-common/createcluster.conf ] ||
        echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
    logged "apt-get update failed" flock /var/lib/apt apt-get update
    logged "apt-get could not install postgresql" \
        flock /var/lib/apt apt-get install -y --no-install-recommends postgresql
fi
rm -f "$log"
programs
