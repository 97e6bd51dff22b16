"""Meta-World's interpreter, as tests have it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from metarl.envs.metaworld import asking
from metarl.envs.metaworld.family import make
from tests.helpers.meta_world import interpreter


@pytest.fixture(scope="session")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where what the small Meta-World has answered is kept: it is asked once for all tests."""
    return tmp_path_factory.mktemp("answers")


@pytest.fixture
def small(tmp_path: Path, answers: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Have the small Meta-World answer."""
    path = interpreter(tmp_path / "small")
    monkeypatch.setenv("METARL_METAWORLD", str(path))
    monkeypatch.setenv("METARL_CACHE", str(answers))
    make.cache_clear()
    yield path
    make.cache_clear()


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Have Meta-World itself answer."""
    if not asking.BESIDE.is_file():
        pytest.skip("needs Meta-World: scripts/metaworld makes .venv-metaworld")
    monkeypatch.delenv("METARL_METAWORLD", raising=False)
    make.cache_clear()
    yield asking.BESIDE
    make.cache_clear()
