"""What the tests of the environments share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import pytest

from metarl.envs import registry

# Helpers that stand for a user's modules (own_envs.py): Python and the worker processes find them by their names.
sys.path.append(str(Path(__file__).parents[1] / "helpers"))


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget the families that a test registers: other tests go through all that there are."""
    copied = {name: dict(variants) for name, variants in registry._FAMILIES.items()}
    monkeypatch.setattr(registry, "_FAMILIES", copied)
    for name in ("_ORIGINS", "_MODIFIED"):
        monkeypatch.setattr(registry, name, dict(getattr(registry, name)))
    ids = set(gymnasium.registry)
    yield
    for name in set(gymnasium.registry) - ids:
        del gymnasium.registry[name]
