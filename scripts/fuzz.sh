#!/bin/sh
# fuzz.sh [PYTHON]: sets up .fuzz (git ignores it), a virtual environment for the fuzzer. It has
# atheris, and takes all else from the environment of PYTHON, the project's .venv. If it is there
# already, this does nothing. atheris has wheels for Linux only.
set -eu
cd "$(dirname "$0")/.."

home=.fuzz
python=${1:-.venv/bin/python}
log=$home/install.log
wanted='atheris>=3,<4'

where=$("$python" -c 'import site; print(site.getsitepackages()[0])')
if [ "$(cat "$home/installed" 2>/dev/null)" = "$wanted $where" ]; then exit; fi
echo "fuzz.sh: installing $wanted into $home"
"$python" -m venv --clear "$home"
"$home/bin/python" -m pip install --progress-bar off "$wanted" >"$log" 2>&1 || {
    tail -n 20 "$log" >&2
    echo "fuzz.sh: pip could not install $wanted, see $log" >&2
    exit 1
}
# addsitedir reads the .pth files in there as well: an editable install is one.
own=$("$home/bin/python" -c 'import site; print(site.getsitepackages()[0])')
echo "import site; site.addsitedir('$where')" >"$own/project.pth"
echo "$wanted $where" >"$home/installed"
