#!/usr/bin/env bash
# Run the suite on every CPython from 3.10 to 3.14 found on this machine:
#
#     tests/all_pythons.sh [PYTEST ARGUMENTS]
#
# Each gets an environment of its own outside of the tree, in $K210_VENVS
# (default: ~/.cache/k210tasks-venvs), kept for the next time.
set -uo pipefail
cd "$(dirname "$0")/.."
venvs=${K210_VENVS:-${XDG_CACHE_HOME:-$HOME/.cache}/k210tasks-venvs}

# The path of a Python of that version that really starts: on PATH (a pyenv shim may be
# there and not start), in pyenv's folder, or among uv's.
find_python() {
    local candidate
    for candidate in "python$1" \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python \
        "$(command -v uv >/dev/null && uv python find --no-python-downloads "$1" 2>/dev/null)"; do
        [ -n "$candidate" ] || continue
        "$candidate" -c "import platform, sys
sys.exit((platform.python_implementation(), '%d.%d' % sys.version_info[:2]) != ('CPython', '$1'))" \
            2>/dev/null && { command -v "$candidate"; return; }
    done
    return 1
}

failed=() found=()
for version in 3.10 3.11 3.12 3.13 3.14; do
    if ! python=$(find_python "$version"); then
        echo "== Python $version: not found"
        continue
    fi
    echo "== Python $version: $python"
    found+=("$version")
    venv=$venvs/$version
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv" || { failed+=("$version"); continue; }
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e '.[test]' \
        && "$venv/bin/python" -m pytest -q -p no:cacheprovider "$@" \
        || failed+=("$version")
done

echo "== ran on: ${found[*]:-none}; failed on: ${failed[*]:-none}"
[ ${#found[@]} -gt 0 ] && [ ${#failed[@]} -eq 0 ]
