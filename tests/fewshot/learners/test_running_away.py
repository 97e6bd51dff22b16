"""Every learner whose training runs away ends in one line, and leaves no checkpoint of what it has become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from metarl.errors import UserError
from metarl.fewshot import FewShotRun
from metarl.fewshot.learners import LEARNERS, config_class
from metarl.fewshot.parts.optimiser import OptimiserConfig
from metarl.fewshot.training import train
from metarl.run.checkpoint import load
from metarl.run.state import check_finite
from tests.helpers.tiny_fewshot import RUN, vectors


@pytest.mark.parametrize("name", LEARNERS)
def test_rates_that_are_too_high_are_blamed(name: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"optimiser": OptimiserConfig(learning_rate=1e30)}
    # Reptile has no outer optimiser; matching networks bring all features to one length, however they grow.
    other = {"reptile": {"inner_rate": 1e30}, "matching": {"inverse_temperature": 1e30}, "baseline++": {"scale": 1e30}}
    settings = other.get(name, settings)
    config = config_class(name)(iterations=4, **settings)
    run = FewShotRun(**{**vars(RUN), "learner": name, "checkpoint_every": 1, "way": 2, "query": 2})
    with pytest.raises(UserError, match=r"^Iteration \d of .* failed, .*The rates may be too high") as caught:
        train(tmp_path / "run", run, vectors(), config, console=Console(quiet=True))
    assert "\n" not in str(caught.value)
    for file in (tmp_path / "run" / "checkpoints").glob("*.pt"):
        check_finite(load(file, {}), set())
