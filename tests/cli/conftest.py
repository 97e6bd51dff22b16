from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.commands import remember, train


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One tiny run of every agent that is trained; tests write only to their evaluation folders."""
    root = tmp_path_factory.mktemp("runs")
    trained = {agent: train(root / agent, agent) for agent in ("maml-trpo", "multitask", "oracle")}
    trained["other-seed"] = train(root / "other-seed", "maml-trpo", "--seed", "1")
    trained["rl2"] = remember(root / "rl2")
    trained["rl2-other-seed"] = remember(root / "rl2-other-seed", "--seed", "1")
    return trained
