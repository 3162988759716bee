#!/bin/sh
# Makes or completes .venv from requirements.lock. Run by make; safe to run again after an interruption.
set -eu
cd "$(dirname "$0")/.."

need_gib=12            # 6.5 GiB installed, the rest for wheels on their way
[ "$(uname -s)" = Darwin ] && need_gib=5

say() { printf '%s\n' "$*" >&2; }

usable() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

if [ -x .venv/bin/python ] && usable .venv/bin/python; then
    python=.venv/bin/python
else
    python=
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
        if usable "$candidate"; then python=$candidate; break; fi
    done
    if [ -z "$python" ]; then
        say "memcomp needs Python 3.11, 3.12 or 3.13; none was found as: ${PYTHON:-python3, python3.13, python3.12, python3.11, python}."
        for candidate in ${PYTHON:-python3 python}; do
            version=$("$candidate" --version 2>&1) && say "  $candidate is $version"
        done
        say "Install one, or name it: make PYTHON=/path/to/python3.12"
        exit 1
    fi
fi

free_kib=$(df -Pk . | awk 'NR == 2 { print $4 }')
if [ "$free_kib" -lt $((need_gib * 1024 * 1024)) ]; then
    say "Too little disk space: installing memcomp's dependencies (PyTorch with CUDA among them) takes up to"
    say "$need_gib GiB in this folder, and $((free_kib / 1024 / 1024)) GiB are free. Free some space or clone onto a larger disk."
    exit 1
fi

started=$(date +%s)
if [ "$python" != .venv/bin/python ]; then
    say "Making .venv with $("$python" --version)"
    rm -rf .venv
    if ! "$python" -m venv .venv; then
        rm -rf .venv
        say "$python could not make a virtual environment. On Debian and Ubuntu, install the package python3-venv."
        exit 1
    fi
fi

say "Installing the $(grep -c '^[a-z].*==' requirements.lock) packages of requirements.lock (a few minutes, about 3 GiB to download on Linux)"
# Downloads wait beside the environment, so that one disk has to be large enough, not two.
mkdir -p .venv/tmp
TMPDIR=$PWD/.venv/tmp .venv/bin/python -m pip install --disable-pip-version-check --no-cache-dir --no-deps \
    --require-hashes --progress-bar "${PIP_PROGRESS_BAR:-on}" -r requirements.lock
.venv/bin/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
rm -rf .venv/tmp
touch .venv/installed
say "Installed in $(($(date +%s) - started)) s"
