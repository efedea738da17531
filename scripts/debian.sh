# shellcheck shell=sh disable=SC2154 # me and log are the caller's
# Functions for scripts that install something from Debian. Such a script sets `me`, its name, and
# `log`, a file for the output of the tools, and sources this file. Needs Debian or a derivative with
# apt, and root.

fail() {
    echo "$me: $1" >&2
    exit 1
}

# logged TEXT COMMAND...: runs COMMAND. If it fails, prints the end of its output and TEXT, and ends.
logged() {
    text=$1
    shift
    "$@" >"$log" 2>&1 || { tail -n 20 "$log" >&2; fail "$text, see $log"; }
}

# need COMMAND: installs the Debian package of that name when there is no such command.
need() {
    if command -v "$1" >/dev/null; then return; fi
    [ "$(id -u)" = 0 ] || fail "installing $1 needs root: run this as root"
    command -v apt-get >/dev/null || fail "no apt-get here: $1 is installed from Debian packages"
    echo "$me: installing $1"
    # Another of these scripts may install something at the same time, and apt does not wait.
    logged "apt-get update failed" flock /var/lib/apt apt-get update
    logged "apt-get could not install $1" \
        flock /var/lib/apt apt-get install -y --no-install-recommends "$1"
}

# Prints the mirrors that this machine's apt takes Debian itself from.
mirrors() {
    # shellcheck disable=SC2016 # the dollars are apt's
    apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' 'Created-By: Packages' |
        sed -n 's/^Debian|Debian|//p'
}

# bootstrap SUITE PACKAGES FOLDER: installs a Debian with PACKAGES (a,b,c) into FOLDER.
bootstrap() {
    [ "$(id -u)" = 0 ] || fail "debootstrap and chroot need root: run this as root"
    need debootstrap
    mirror=$(mirrors | head -n 1)
    if [ -z "$mirror" ]; then # apt knows the labels once it has fetched a list
        logged "apt-get update failed" flock /var/lib/apt apt-get update
        mirror=$(mirrors | head -n 1)
    fi
    [ -n "$mirror" ] || fail "apt is not configured with a Debian mirror: nothing to install from"
    rm -rf --one-file-system "$3"
    logged "debootstrap failed (more is in $3/debootstrap/debootstrap.log)" \
        debootstrap --variant=minbase --include="$2" "$1" "$3" "$mirror"
    rm -f "$3"/var/cache/apt/archives/*.deb
}
