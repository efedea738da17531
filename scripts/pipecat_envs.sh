#!/bin/sh
# pipecat_envs.sh [PYTHON] [--upgrade]: installs real Pipecat for tests/pipecat. The oldest
# supported release and the newest one each get a virtual environment below .pipecat, which git
# ignores. They have only Pipecat, not this project and not Twisted. This takes 1.5 GB and half a
# minute. If both are installed already, it does nothing; --upgrade asks the package index for a
# newer release.
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

# 1.3.0 is the only release of 1.3. All later releases have the same extras.
packages='pipecat-ai[websocket,runner]'

# environment NAME VERSIONS: installs one environment and prints its version; status 1 on failure.
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
