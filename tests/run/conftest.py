from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.run_folders import CONFIG, quiet
from tests.helpers.tiny_run import PAUSE, start


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    start(folder, replace(CONFIG, seconds=PAUSE), console=quiet())
    return folder
