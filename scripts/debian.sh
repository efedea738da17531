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

# pip_files PYTHON: prints the configuration files of its pip, the files and folders that they name,
# and the certificates. An index in a folder .../simple refers to packages beside that folder, so
# its parent is printed.
pip_files() {
    "$1" -m pip config debug | sed -n 's/^ *\(\/.*\), exists: True$/\1/p'
    "$1" -m pip config list | sed "s/^[^=]*='\(.*\)'$/\1/; s/\\\\n/ /g; s/file:\/\///g" |
        tr ' ' '\n' | sed -n 's/\/simple\/*$//; /^\//p'
    printf '%s\n' /etc/ssl/certs/ca-certificates.crt "${SSL_CERT_FILE:-}" "${REQUESTS_CA_BUNDLE:-}"
}

# bring FOLDER PYTHON: copies what the pip of PYTHON needs to find packages into FOLDER, at the same
# places as here. A folder of packages may be large, so it is made of hard links where the file
# system allows it.
bring() {
    cp -L /etc/resolv.conf /etc/hosts "$1/etc/"
    pip_files "$2" | sort -u | while read -r path; do
        [ -e "$path" ] || continue
        mkdir -p "$1$(dirname "$path")"
        if [ -d "$path" ] && cp -Rl "$path" "$1$(dirname "$path")/" 2>/dev/null; then continue; fi
        cp -RL "$path" "$1$(dirname "$path")/"
    done
}
