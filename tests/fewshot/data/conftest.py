from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.image_files import write_image


@pytest.fixture
def cache_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, and no folder of data."""
    monkeypatch.setenv("METARL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("METARL_DATA", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """<class>/<image>, ten classes of three images; image i of class c has red 20 * c + i."""
    root = tmp_path / "images"
    for c in range(10):
        for i in range(3):
            write_image(root / f"class{c}" / f"{i}.png", 20 * c + i)
    return root
