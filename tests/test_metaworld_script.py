"""scripts/metaworld, with a Python that only notes what it is told."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from metarl.envs.metaworld.asking import VERSION

ROOT = Path(__file__).resolve().parents[1]
Run = Callable[..., tuple[int, str, str]]
PYTHON = """#!/bin/sh
# Which Python, its fingerprint, a virtual environment, pip, a check.
echo "$*" >> "$NOTES"
case "$1 $2 $3" in
"- 14 ") echo "$0" ;;
"- /"*) echo fingerprint ;;
"-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
"-m pip "*) exit "${PIP:-0}" ;;
"-I - ") exit "${CHECK:-0}" ;;
esac
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return what runs a copy of the script, and gives its exit status, what it said and what Python was told."""
    (tmp_path / "scripts").mkdir()
    for name in ("metaworld", "metaworld.txt", "setup.sh"):
        shutil.copy(ROOT / "scripts" / name, tmp_path / "scripts")
    python, notes = tmp_path / "python", tmp_path / "notes"
    python.write_text(PYTHON)
    python.chmod(0o755)

    def go(*arguments: str, **variables: str) -> tuple[int, str, str]:
        notes.write_text("")
        done = subprocess.run(
            [tmp_path / "scripts" / "metaworld", *arguments],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHON": str(python), "NOTES": str(notes)} | variables,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr, notes.read_text()

    return go


def test_it_is_made_once_and_mended_where_it_is_half_made(run: Run, tmp_path: Path) -> None:
    status, said, told = run()
    assert status == 0, said
    assert "--requirement scripts/metaworld.txt" in told
    assert (tmp_path / ".venv-metaworld" / ".metarl-metaworld").is_file()
    status, said, told = run()
    assert (status, "nothing to install" in said, "pip" in told) == (0, True, False)
    # One that does not run any more, and one that was interrupted.
    status, said, told = run(PIP="1", CHECK="1")
    assert status == 1
    assert "pip could not install the packages" in said
    assert not (tmp_path / ".venv-metaworld" / ".metarl-metaworld").exists()
    status, said, told = run()
    assert (status, "making it anew" in said, "pip" in told) == (0, True, True)


def test_what_is_not_its_own_stays(run: Run, tmp_path: Path) -> None:
    (tmp_path / ".venv-metaworld").mkdir()
    status, said, told = run()
    assert (status, "pip" in told) == (1, False)
    assert "was not made by this script. Move it away" in said
    status, said, _ = run("--fast")
    assert (status, "takes nothing: leave it out" in said) == (1, True)
    assert run("--help")[0] == 0


def test_its_version_is_the_families() -> None:
    assert f"metaworld=={VERSION}" in (ROOT / "scripts" / "metaworld.txt").read_text().splitlines()
    assert f'VERSION = "{VERSION}"' in (ROOT / "envs" / "metaworld" / "worker.py").read_text()
