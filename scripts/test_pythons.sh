#!/bin/sh
# test_pythons.sh PYTHON [ARGUMENT...]: runs the unit tests on the oldest and the newest Python that
# the classifiers in setup.cfg promise. PYTHON is that of the project's .venv, and ARGUMENTs are
# pytest's. The version of .venv is left out: `make test` and `make trial` run the tests on it.
# Each other version comes from the Debian release that has it. The script installs it into
# .pythons/VERSION (git ignores it), with all extras of the project, and installs nothing outside of
# it but debootstrap. What is there already is used again.
# There is no C compiler in it: these tests are also those of what runs without the compiled module.
# Needs Debian or a derivative with apt, and root (debootstrap and chroot). 1.2 GB, three minutes.
set -eu
python=$1
shift

me=test_pythons.sh
here=$(cd "$(dirname "$0")" && pwd)
project=$(dirname "$here")
# shellcheck source=scripts/debian.sh
. "$here/debian.sh"

# These tests read /proc, which is missing where mounting is forbidden.
without_proc="--deselect tests/unit/tools/load/test_command.py
    --deselect tests/unit/web/test_metrics.py::PageTests::test_over_http"

suite_with() {
    case $1 in
    3.11) echo bookworm ;;
    3.13) echo trixie ;;
    3.14) echo forky ;;
    *) fail "no Debian release with Python $1 is known here: put it into suite_with in $0" ;;
    esac
}

# inside FOLDER COMMAND...: runs COMMAND with FOLDER as its root, and with /proc where mounting is
# allowed. The mount ends with COMMAND.
inside() {
    proc=$1/proc
    set -- env -u TMPDIR -u PYTHONPATH PIP_NO_CACHE_DIR=1 chroot "$@"
    if has_proc "$proc"; then
        # shellcheck disable=SC2016 # for the inner shell
        set -- unshare --mount sh -c 'mount --bind /proc "$0" && exec "$@"' "$proc" "$@"
    fi
    "$@"
}

has_proc() {
    unshare --mount mount --bind /proc "$1" 2>/dev/null
}

# python_env VERSION: installs that Python into .pythons/VERSION/root, and an environment into
# root/venv. Sets `root`.
python_env() {
    suite=$(suite_with "$1")
    packages=python$1-venv,ca-certificates
    home=$project/.pythons/$1
    root=$home/root
    log=$home/install.log
    mkdir -p "$home"
    if [ "$(cat "$home/stamp" 2>/dev/null)" != "$suite $packages" ]; then
        echo "$me: installing Python $1 from Debian $suite into $root"
        rm -rf --one-file-system "$root" "$home/stamp"
        bootstrap "$suite" "$packages" "$root.new"
        chroot "$root.new" "python$1" -V >>"$log" 2>&1 ||
            fail "the installed Python does not run, see $log"
        bring "$root.new" "$python"
        mv "$root.new" "$root"
        echo "$suite $packages" >"$home/stamp"
    fi
    copy_project "$root/project"
    wanted=$(cat "$project/setup.cfg" "$project/setup.py" "$project/pyproject.toml" "$here/install.sh" | cksum)
    if [ "$(cat "$home/installed" 2>/dev/null)" != "$wanted" ]; then
        inside "$root" /project/scripts/install.sh "python$1" /venv bot,demo,dev
        echo "$wanted" >"$home/installed"
    fi
}

# copy_project FOLDER: the project as it is now. A copy needs no mount, and the tests leave nothing
# in the project.
copy_project() {
    rm -rf --one-file-system "$1"
    mkdir "$1"
    tar -c -C "$project" --exclude='.[a-z]*' --exclude=__pycache__ --exclude='*.egg-info' \
        --exclude=./build --exclude=./dist --exclude=./demo --exclude=./htmlcov --exclude=./bench \
        --exclude='*.so' . |
        tar -x -C "$1" --no-same-owner
}

promised=$(sed -n 's/.*Python :: \(3\.[0-9]*\)$/\1/p' "$project/setup.cfg" | sort -V)
[ -n "$promised" ] || fail "setup.cfg has no classifier with a version of Python"
own=$("$python" -c 'import sys; print("{}.{}".format(*sys.version_info))')
failed=0
for version in $(printf '%s\n' "$promised" | sed -n '1p;$p' | uniq); do
    if [ "$version" = "$own" ]; then
        echo "$me: Python $version is that of .venv: make test and make trial have it"
        continue
    fi
    python_env "$version"
    echo "$me: the unit tests on $(chroot "$root" /venv/bin/python -V)"
    inside "$root" /venv/bin/python -c 'from pipecat_bridge.native import *; exit(COMPILED)' ||
        fail "the compiled module was built there, so its twins in Python would not be tested"
    less=
    has_proc "$root/proc" || { less=$without_proc; echo "$me: no /proc here: without the tests that need it"; }
    # Tests marked `tools` measure in real time, and this may run beside other steps.
    # shellcheck disable=SC2016,SC2086 # for the inner shell; words
    inside "$root" sh -c 'cd /project && exec /venv/bin/python -m pytest tests/unit -m "not tools" "$@"' sh \
        -p no:cacheprovider $less "$@" || failed=1
done
exit "$failed"
