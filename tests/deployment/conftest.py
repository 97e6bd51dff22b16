"""What tests of exported policies share: three small ones, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.exported import trained, written
from tests.helpers.trials import Ragged


@pytest.fixture(scope="session")
def remembering(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a policy with a memory, of 2 observations and 2 actions, and trials of 3 episodes of 5 steps."""
    agent = trained("rl2", Ragged(), core="transformer")
    return written(agent, Ragged(), tmp_path_factory.mktemp("exported") / "remembering")


@pytest.fixture(scope="session")
def stepping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a policy that takes gradient steps."""
    agent = trained("maml-trpo", Ragged(), scale_observations=False)
    return written(agent, Ragged(), tmp_path_factory.mktemp("exported") / "stepping")


@pytest.fixture(scope="session")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a policy that is told its task, a number `gain`."""
    return written(trained("oracle", Ragged()), Ragged(), tmp_path_factory.mktemp("exported") / "told")
