"""The folder of an exported policy: written beside its place and then renamed, so that it is whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from metarl.deployment import safetensors
from metarl.deployment.graph import to_onnx
from metarl.deployment.manifest import Exported
from metarl.deployment.policy import WEIGHTS
from metarl.errors import UserError
from metarl.files import Folder

RUNTIME = Path(__file__).with_name("policy.py")
"""What is copied into every folder."""


def check_place(out: Path) -> None:
    """Refuse a place where there is something already; an empty folder is nothing."""
    if os.path.lexists(out) and not (out.is_dir() and not out.is_symlink() and not any(out.iterdir())):
        raise UserError(f"{out} exists already. Remove it, or choose another folder with --out.")


def write_policy(policy: Exported, out: Path, *, onnx: bool) -> list[str]:
    """Write a policy's folder, and return the names of its files.

    Args:
        policy: what is written.
        out: the folder, which must not exist yet, or be empty.
        onnx: whether there is to be a model.onnx.

    Raises:
        UserError: there is something already.
    """
    files = {WEIGHTS: safetensors.encode(policy.arrays), RUNTIME.name: RUNTIME.read_bytes()}
    if onnx:
        files["model.onnx"] = to_onnx(policy)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    manifest = json.dumps(policy.manifest | {"files": hashes}, indent=2, allow_nan=False).encode() + b"\n"
    # As `sha256sum -c` reads it.
    files["manifest.sha256"] = f"{hashlib.sha256(manifest).hexdigest()}  manifest.json\n".encode()
    files["manifest.json"] = manifest
    check_place(out)
    with _beside(out) as folder:
        for name, content in files.items():
            folder.write(name, content)
        if out.is_dir():
            out.rmdir()
        folder.path.rename(out)
    return list(files)


@contextmanager
def _beside(out: Path) -> Iterator[Folder]:
    """Give a new folder beside a place; it is removed where it stays there."""
    whole = out.resolve()
    folder = Folder(whole.parent).below(f".{whole.name}-{secrets.token_hex(4)}.unfinished").make()
    try:
        yield folder
    except BaseException:
        for name in folder.entries():
            folder.remove(name)
        with suppress(OSError):
            folder.path.rmdir()
        raise
