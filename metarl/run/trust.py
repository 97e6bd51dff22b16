"""Who made a run: signatures with a key that only this user on this machine has.

A run that executes files of a user's says which ones (sources.py), and its config.yaml holds a signature (HMAC-SHA256)
of that list. The key is made when it is first needed: 32 random bytes in a file that its owner alone may read,

    $XDG_STATE_HOME/metarl/key; without that variable ~/.local/state/metarl/key, on Windows %LOCALAPPDATA%/metarl/key

so that a valid signature can only be by somebody who can read that file. It says who made the run and its list, not
that the files are still what they were: that is for admission.py. Whoever loses the key is asked for --trust once more.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import stat
from pathlib import Path
from typing import Any

from metarl.errors import UserError, tell
from metarl.files import Folder, open_regular
from metarl.system import POSIX

LENGTH = 64
"""Hexadecimal digits of a key."""
MOST = 1 << 20
"""Bytes that its file may have to be looked at."""


def key_file() -> Path:
    """Return where the key is, or is to be."""
    given = os.environ.get("XDG_STATE_HOME", "")
    # The specification of these folders has relative paths ignored.
    if Path(given).is_absolute():
        return Path(given) / "metarl" / "key"
    windows = os.environ.get("LOCALAPPDATA", "") if os.name == "nt" else ""
    return (Path(windows) if windows else Path.home() / ".local" / "state") / "metarl" / "key"


def sign(content: Any) -> str:
    """Return the signature of plain data; an empty one, and a line about it, where no key can be kept."""
    try:
        key = _read_key() or _make_key()
    # RuntimeError: there is no home folder.
    except (OSError, RuntimeError) as error:
        tell(f"no key can be kept here ({error}): evaluating or resuming this run will ask for --trust")
        return ""
    return _signature(key, content)


def is_signed(content: Any, signature: Any) -> bool:
    """Tell whether a signature of plain data is by this user on this machine."""
    try:
        key = _read_key()
    except (OSError, RuntimeError):
        return False
    return key is not None and isinstance(signature, str) and hmac.compare_digest(_signature(key, content), signature)


def _signature(key: bytes, content: Any) -> str:
    return hmac.new(key, json.dumps(content, sort_keys=True).encode(), hashlib.sha256).hexdigest()


def _read_key() -> bytes | None:
    """Return the key, None where there is none yet.

    Raises:
        UserError: others may read it, or it is damaged.
    """
    path = key_file()
    if not path.parent.is_dir():
        return None
    if path.is_symlink():
        raise UserError(f"The key {path} is a link, and may be one that others know. Remove it: a new one is made.")
    try:
        with open_regular(path, MOST) as file:
            key, state = file.read(), os.fstat(file.fileno())
    except FileNotFoundError:
        return None
    if POSIX and (stat.S_IMODE(state.st_mode) & 0o077 or state.st_uid != os.geteuid()):
        raise UserError(
            f"Others may read the key {path}, or made it, so that it proves nothing. Remove it: a new one is made."
        )
    if len(key) != LENGTH:
        raise UserError(f"The key {path} is damaged. Remove it: a new one is made.")
    return key


def _make_key() -> bytes:
    path = key_file()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    own = path.with_name(f"key.{secrets.token_hex(8)}")
    with Folder(path.parent).create(own.name, mode=0o600) as file:
        file.write(secrets.token_hex(LENGTH // 2).encode())
    try:
        # Of several processes that make one at the same time the first one's counts.
        os.link(own, path)
    except FileExistsError:
        pass
    finally:
        own.unlink()
    key = _read_key()
    assert key is not None, "it was just made, by this process or another one"
    return key
