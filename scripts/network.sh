#!/bin/sh
# Installs what tests/network needs: ip and tc, and root to use them. Needs Debian or a derivative.
set -eu

me=network.sh
log=$(mktemp)
# shellcheck source=scripts/debian.sh
. "$(dirname "$0")/debian.sh"
command -v tc >/dev/null || need iproute2
[ "$(id -u)" = 0 ] || fail "network namespaces need root: run this as root"
