#!/bin/sh
# pipecat_envs.sh [PYTHON] [--upgrade]: real Pipecat for tests/pipecat, each release in a virtual
# environment of its own below .pipecat (git ignores it): the oldest that is supported, and the
# newest. Does nothing when they are there; --upgrade asks the package index for a newer newest.
# Nothing but Pipecat is in them: not this project, not Twisted. 1.5 GB, half a minute.
set -eu
cd "$(dirname "$0")/.."

home=.pipecat
python=.venv/bin/python
upgrade=
for argument; do
    case $argument in
    --upgrade) upgrade=--upgrade ;;
    *) python=$argument ;;
    esac
done

# Of 1.3 there is one release, 1.3.0. Its extras are those of every later one.
packages='pipecat-ai[websocket,runner]'

# environment NAME VERSIONS: a line that says what is in it, or status 1.
environment() {
    folder=$home/$1
    wanted="$packages$2"
    log=$home/$1.log
    if [ "$(cat "$folder/installed" 2>/dev/null)" != "$wanted" ]; then
        rm -rf "$folder"
        "$python" -m venv "$folder" || return 1
    elif [ -z "$upgrade" ] || [ "$1" != newest ]; then
        describe "$folder"
        return
    fi
    echo "pipecat_envs.sh: installing $wanted into $folder"
    "$folder/bin/python" -m pip install --progress-bar off $upgrade "$wanted" >"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        echo "pipecat_envs.sh: pip could not install $wanted, see $log" >&2
        return 1
    }
    echo "$wanted" >"$folder/installed"
    describe "$folder"
}

describe() {
    version=$("$1/bin/python" -c 'from importlib.metadata import version; print(version("pipecat-ai"))')
    echo "pipecat_envs.sh: Pipecat $version is in $1"
}

mkdir -p "$home"
environment 1.3 '~=1.3.0' &
oldest=$!
failed=0
environment newest '>1.3,<2' || failed=1
wait "$oldest" || failed=1
exit "$failed"
