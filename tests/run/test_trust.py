"""The key that tells one's own runs from others."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from metarl.errors import UserError
from metarl.run.trust import is_signed, key_file, sign


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without a key."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def test_what_one_signed_is_told_from_all_else(state: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    content = [{"path": "../reach.py", "sha256": "ab"}]
    assert not is_signed(content, "")
    assert not state.exists()
    signature = sign(content)
    assert is_signed([{"sha256": "ab", "path": "../reach.py"}], signature)
    assert sign(content) == signature
    for other in ([{"path": "../evil.py", "sha256": "ab"}], [], None):
        assert not is_signed(other, signature)
    for forged in ("", None, 7, signature[:-1], signature.upper()):
        assert not is_signed(content, forged)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "of-somebody-else"))
    assert not is_signed(content, signature)
    assert sign(content) != signature


def test_its_owner_alone_may_read_the_key(state: Path) -> None:
    signature = sign("x")
    assert key_file() == state / "metarl" / "key"
    assert stat.S_IMODE(key_file().stat().st_mode) == 0o600
    assert stat.S_IMODE(key_file().parent.stat().st_mode) == 0o700
    assert [file.name for file in key_file().parent.iterdir()] == ["key"]
    key_file().chmod(0o644)
    for use in (lambda: sign("x"), lambda: is_signed("x", signature)):
        with pytest.raises(UserError, match=r"Others may read the key .*Remove it"):
            use()
    key_file().unlink()
    assert is_signed("x", sign("x"))
    key_file().write_bytes(b"short")
    with pytest.raises(UserError, match=r"is damaged\. Remove it"):
        sign("x")


def test_a_key_that_is_a_link_proves_nothing(state: Path, tmp_path: Path) -> None:
    signature = sign("x")
    known = key_file().rename(tmp_path / "known")
    key_file().symlink_to(known)
    for use in (lambda: sign("x"), lambda: is_signed("x", signature)):
        with pytest.raises(UserError, match=r"is a link.*Remove it"):
            use()
    key_file().unlink()
    assert not is_signed("x", signature)
    assert is_signed("x", sign("x"))


def test_of_several_processes_the_first_key_counts(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def late(own: Path, path: Path) -> None:
        path.write_bytes(b"k" * 64)
        path.chmod(0o600)
        link(own, path)

    monkeypatch.setattr("metarl.run.trust.os.link", late)
    signature = sign("x")
    assert key_file().read_bytes() == b"k" * 64
    assert is_signed("x", signature)


def test_where_no_key_can_be_kept_one_is_told(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state.write_text("a file where the folder should be")
    assert sign("x") == ""
    assert "no key can be kept here" in capsys.readouterr().err
    assert not is_signed("x", "")


def test_without_the_variable_it_is_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for given in ("", "relative/folder"):
        monkeypatch.setenv("XDG_STATE_HOME", given)
        assert key_file() == tmp_path / ".local" / "state" / "metarl" / "key"
