#!/bin/sh
# Installs the Autobahn test suite into .autobahn, which git ignores. The suite needs Python 2.7:
# that of the variable PYTHON2, else one of this machine, else that of Debian 11, which the script
# installs into .autobahn/root (Debian or a derivative with apt, and root; 355 MB, two minutes). If
# the suite is installed already, it does nothing.
set -eu

me=autobahn.sh
here=$(cd "$(dirname "$0")" && pwd)
project=$(dirname "$here")
home=$project/.autobahn
root=$home/root
log=$home/install.log
wanted=$project/tests/autobahn/requirements-py27.txt
# shellcheck source=scripts/debian.sh
. "$here/debian.sh"

# Prints a Python 2.7 of this machine that has pip.
own_python() {
    for python in "${PYTHON2:-python2.7}" "$HOME"/.pyenv/versions/2.7.*/bin/python2.7; do
        if "$python" -c 'import sys, pip; sys.exit(sys.version_info[:2] != (2, 7))' 2>/dev/null; then
            echo "$python"
            return
        fi
    done
}

# install FOLDER PYTHON...: installs the suite into FOLDER by the command PYTHON.
install() {
    folder=$1
    shift
    logged "pip could not install the suite" \
        "$@" -m pip install --no-deps --no-compile --target "$folder" -r "$wanted"
}

mkdir -p "$home"
stamp=$(cksum <"$wanted")
if [ "$(cat "$home/stamp" 2>/dev/null)" = "$stamp" ]; then exit; fi
rm -rf --one-file-system "$root" "$home/suite" "$home/python"
python=$(own_python)
if [ -n "$python" ]; then
    echo "$me: installing the suite into $home/suite, for $python"
    install "$home/suite" "$python"
    echo "$python" >"$home/python"
    suite=$home/suite
else
    echo "$me: installing Debian 11 with Python 2.7 and the suite into $root"
    bootstrap bullseye python2.7,python-setuptools,python-pip-whl,ca-certificates "$root.new"
    bring "$root.new" "$project/.venv/bin/python"
    cp "$wanted" "$root.new/requirements.txt"
    # shellcheck disable=SC2016 # for the inner shell
    logged "pip could not install the suite" chroot "$root.new" sh -c \
        'set -- /usr/share/python-wheels/pip-*.whl
        exec python2.7 "$1/pip" install --no-deps --no-compile --target /suite -r /requirements.txt'
    mv "$root.new" "$root"
    suite=$root/suite
fi
touch "$suite/zope/__init__.py" # its .pth file is read in site-packages only
cp "$project/tests/autobahn/wst.py" "$suite/"
echo "$stamp" >"$home/stamp"
