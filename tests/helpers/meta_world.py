"""Meta-World for tests: a small package in its layout (fake_metaworld/), run by an interpreter that is not this one."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

FAKE = Path(__file__).with_name("fake_metaworld")


def interpreter(folder: Path, version: str = "3.1.1", package: Path = FAKE) -> Path:
    """Return a Python in a folder that has this one's packages, and the small Meta-World of a version."""
    about = folder / f"metaworld-{version}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: metaworld\nVersion: {version}\n")
    path = folder / "python"
    places = ":".join((str(package), str(folder)))
    path.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(places)} exec {shlex.quote(sys.executable)} "$@"\n')
    path.chmod(0o755)
    return path
