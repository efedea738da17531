#!/usr/bin/env bash
# install.sh PYTHON FOLDER EXTRAS: installs this project, editable, in a virtual environment in
# FOLDER. Prints a line for each package; the whole output of pip is in FOLDER/install.log.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1 folder=$2 extras=$3

if [[ -z $python ]]; then
    echo "No suitable Python was found: 3.11 or newer is needed, with the module venv (Debian and" \
        "Ubuntu: python3-venv). Use make PYTHON=/path/to/python to choose another one." >&2
    exit 1
fi
"$python" - <<'END'
import sys

if sys.version_info < (3, 11):
    sys.exit(f"{sys.executable} is Python {sys.version.split()[0]}; 3.11 or newer is needed. "
             "Use make PYTHON=/path/to/python to choose another one.")
END

[[ -x $folder/bin/python ]] || "$python" -m venv "$folder"
log=$folder/install.log
echo "Installing into $folder: about a minute the first time, 1 GB"
progress() {
    awk '
        /^Collecting / { sub(/\(from.*/, ""); printf "  %3d  %s\n", ++n, $2; fflush() }
        /^Installing collected packages/ { print "  unpacking"; fflush() }'
}
if ! "$folder/bin/python" -m pip install --progress-bar off -e ".[$extras]" 2>&1 |
    tee "$log" | progress; then
    tail -n 20 "$log" >&2
    echo "The installation failed. The whole output of pip is in $log" >&2
    exit 1
fi
"$folder/bin/python" -m pip check
