#!/bin/sh
# Finds a Python for tools/environment.py, which makes or completes .venv. Run by make.
set -eu
CDPATH='' cd -- "$(dirname "$0")/.."

version() { "$1" -I -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true; }

if [ -n "${PYTHON:-}" ]; then
    case $PYTHON in "~/"*) PYTHON=${HOME:-}/${PYTHON#??} ;; esac
    set -- "$PYTHON"
else
    # The last one is enough where the Python that made .venv is no longer on the path.
    set -- python3 python3.13 python3.12 python3.11 python3.14 python .venv/bin/python
fi
untested=
for candidate; do
    case $(version "$candidate") in
        3.11 | 3.12 | 3.13) exec "$candidate" -I tools/environment.py ;;
        3.14) untested=${untested:-$candidate} ;;
    esac
done
[ -z "$untested" ] || exec "$untested" -I tools/environment.py

found=
for candidate; do
    told=$("$candidate" --version 2>&1) && found="${found:+$found, }$candidate is $told"
done
printf '%s\n' "memcomp needs Python 3.11 to 3.14, for which its packages are published (${found:-none was found as $*}): install Python 3.13 beside it and name it, make PYTHON=/path/to/python3.13" >&2
exit 1
