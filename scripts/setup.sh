# shellcheck shell=bash
# Makes .venv in the repository ready. Sourced by scripts/test and scripts/quickstart; call `set_up EXTRAS`; and by
# scripts/metaworld, which makes another environment: `environment_in FOLDER`.
#
# The environment carries a stamp file per kind of set-up (plain, dev). A stamp holds a fingerprint of all that
# decides the content: pyproject.toml, scripts/constraints.txt, the Python and the folder. A stamp that matches means that
# nothing has to be done. It is written last, so a set-up that was interrupted has none and is made anew.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

# Says which folder of the repository is to be made ready.
environment_in() {
    VENV="$ROOT/$1"
    BIN="$VENV/bin"
    MARKER="$VENV/.metarl" # says that these scripts made the folder, hence may delete it
}
environment_in .venv

say() { printf '[set-up] %s\n' "$*"; }

fail() {
    printf '[set-up] %s\n' "$*" >&2
    exit 1
}

# Prints the path of a Python >= 3.11 that can make virtual environments. Where .venv is active its own Python comes
# first in the path, and that one is in the folder that may have to be emptied: it is passed over.
#   $1: the first 3.x that is too new; nothing where none is
find_python() {
    local candidate below="${1:-999}" PATH=":$PATH:"
    PATH="${PATH//:$BIN:/:}"
    PATH="${PATH#:}"
    PATH="${PATH%:}"
    for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3 python3.12 python3.13 python3.14 python; do
        "$candidate" - "$below" 2>/dev/null <<'PY' && return 0
import sys

if not (3, 11) <= sys.version_info < (3, int(sys.argv[1])):
    sys.exit(1)
import ensurepip, venv

print(getattr(sys, "_base_executable", None) or sys.executable)
PY
    done
    return 1
}

# Prints the fingerprint of a good set-up.
#   $1: the Python
#   $2...: the files that decide the content, from the repository's root
fingerprint() {
    local python="$1"
    shift
    "$python" - "$ROOT" "$@" <<'PY'
import hashlib
import pathlib
import platform
import sys

root = pathlib.Path(sys.argv[1])
content = [(root / name).read_bytes() for name in sys.argv[2:]]
content.append(f"{sys.version} {platform.platform()} {root}".encode())
print(hashlib.sha256(b"\0".join(content)).hexdigest())
PY
}

# Says whether stamp file $1 holds fingerprint $2 and the environment's Python still starts.
is_ready() {
    [ -f "$1" ] && [ "$(cat "$1")" = "$2" ] && "$BIN/python" -c '' 2>/dev/null
}

# Refuses a folder that stands where the environment is to be and that these scripts did not make.
check_ours() {
    if [ -e "$VENV" ] && [ ! -f "$MARKER" ]; then
        fail "$VENV exists but was not made by this script. Move it away, then run $0 again."
    fi
}

# Makes an empty virtual environment in the place of the one that is there.
#   $1: the Python
make_environment() {
    if [ -e "$VENV" ]; then
        say "$VENV is unfinished or out of date: making it anew."
        # The stamps go first and the marker stays, so that this can be interrupted at any point too.
        rm -f "$VENV"/.metarl-*
        find "$VENV" -mindepth 1 -maxdepth 1 ! -name "$(basename "$MARKER")" -exec rm -rf {} +
    else
        say "Making the virtual environment $VENV."
        mkdir "$VENV"
        : >"$MARKER"
    fi
    "$1" -m venv "$VENV" || fail "The virtual environment could not be made; the lines above say why."
}

# Installs into the environment. Modules are compiled when they are first imported: most never are.
#   $@: what pip install is told
pip_install() {
    local quiet=""
    [ -t 1 ] || quiet="-qq" # a log needs the errors, not the progress bars
    (cd "$ROOT" && "$BIN/python" -m pip install $quiet --no-compile --no-input --disable-pip-version-check "$@") </dev/null ||
        fail "pip could not install the packages; the lines above say why. Run $0 again to retry."
}

# Makes .venv ready with the package and its extras.
#   $1: extras, `dev` or nothing
set_up() {
    local extras="${1:-}" python want
    python="$(find_python)" || fail "No Python >= 3.11 with the venv module was found. Install one (on Debian and" \
        "Ubuntu: python3 and python3-venv), or name one: PYTHON=/path/to/python $0"
    want="$(fingerprint "$python" pyproject.toml scripts/constraints.txt)" ||
        fail "pyproject.toml or scripts/constraints.txt cannot be read in $ROOT."

    # A dev set-up has everything that the plain one has.
    if is_ready "$VENV/.metarl-dev" "$want" || { [ -z "$extras" ] && is_ready "$VENV/.metarl-plain" "$want"; }; then
        say "$VENV is up to date: nothing to install."
        return 0
    fi

    check_ours
    say "Python: $python ($("$python" -c 'import platform; print(platform.python_version())'))"
    if is_ready "$VENV/.metarl-plain" "$want"; then
        say "Adding the development tools to $VENV."
        rm "$VENV/.metarl-plain" # should this be interrupted, the environment is half-done
    else
        make_environment "$python"
    fi

    say "Installing metarl-suite${extras:+ with the extra '$extras'} and what it needs, in the versions of" \
        "scripts/constraints.txt. This takes a few minutes the first time (torch is large)."
    pip_install --constraint scripts/constraints.txt --editable ".${extras:+[$extras]}"
    printf '%s\n' "$want" >"$VENV/.metarl-${extras:-plain}"
    say "Done."
}
