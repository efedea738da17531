#!/bin/sh
# busy.sh COMMAND...: runs COMMAND while two `stress-ng --cpu 2` keep this machine busy, and ends both
# of them afterwards. Installs stress-ng if it is missing (Debian, root).
set -eu

me=busy.sh
log=$(mktemp)
# shellcheck source=scripts/debian.sh
. "$(dirname "$0")/debian.sh"
children=
# shellcheck disable=SC2086 # one word for each
trap '[ -z "$children" ] || { kill $children 2>/dev/null; wait; } || true; rm -f "$log"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

need stress-ng
for _ in 1 2; do
    # If this script is killed, the kernel ends stress-ng.
    setpriv --pdeathsig TERM stress-ng --quiet --cpu 2 &
    children="$children $!"
done
status=0
"$@" || status=$?
# shellcheck disable=SC2086
for child in $children; do
    kill -0 "$child" 2>/dev/null || { echo "$me: stress-ng ended before the command" >&2; status=1; }
done
exit "$status"
