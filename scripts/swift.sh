#!/bin/sh
# swift.sh: installs OpenStack Swift from Debian, if it is not there: a store that speaks the protocol
# of Amazon's S3. No server of the system's is started. Needs Debian or a derivative, and root.
set -eu
cd "$(dirname "$0")/.."

me=swift.sh
log=$(mktemp)
. scripts/debian.sh

servers="swift-proxy swift-account swift-container swift-object"
policy=/usr/sbin/policy-rc.d

if [ ! -e /usr/bin/swift-proxy-server ]; then
    [ "$(id -u)" = 0 ] || fail "installing swift needs root: run this as root"
    command -v apt-get >/dev/null || fail "no apt-get here: swift is installed from Debian packages"
    echo "$me: installing swift" >&2
    # Without this the packages start their servers.
    own=
    [ -e $policy ] || { own=yes && printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy; }
    trap '[ -z "$own" ] || rm -f $policy' EXIT
    logged "apt-get update failed" flock /var/lib/apt apt-get update
    logged "apt-get could not install swift" \
        flock /var/lib/apt apt-get install -y --no-install-recommends $servers
fi
rm -f "$log"
