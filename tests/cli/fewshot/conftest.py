from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.tiny_fewshot import store, train_by_command


@pytest.fixture(scope="package")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return store(tmp_path_factory.mktemp("data") / "mine")


@pytest.fixture(scope="package")
def runs(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny runs; tests write only to their evaluation folders."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        "proto": train_by_command(root, folder / "proto"),
        "other-seed": train_by_command(root, folder / "other-seed", "proto", "--seed", "1"),
        "maml": train_by_command(root, folder / "maml", "maml", "--inner-steps", "2"),
    }
