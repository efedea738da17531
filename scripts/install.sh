#!/usr/bin/env bash
# install.sh PYTHON FOLDER EXTRAS: a virtual environment with this project, editable, in FOLDER.
# One line for each package as pip comes to it; the whole of what pip says is in FOLDER/install.log.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1 folder=$2 extras=$3

if [[ -z $python ]]; then
    echo "No Python that fits: 3.11 or newer is needed, with its venv module" \
        "(Debian and Ubuntu: python3-venv). make PYTHON=/path/to/python names another." >&2
    exit 1
fi
"$python" - <<'END'
import sys

if sys.version_info < (3, 11):
    sys.exit(f"{sys.executable} is Python {sys.version.split()[0]}; 3.11 or newer is needed. "
             "make PYTHON=/path/to/python names another.")
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
    echo "The installation failed; all that pip said is in $log" >&2
    exit 1
fi
"$folder/bin/python" -m pip check
