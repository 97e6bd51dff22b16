from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from metarl.errors import NotFiniteError, UserError
from metarl.run.checkpoint import load
from metarl.run.state import check_finite, infinite
from metarl.types import Metrics
from tests.helpers import tiny_run
from tests.helpers.tiny_run import Follower, FollowerConfig, start


def state(**parts: float) -> dict[str, Any]:
    return {"params": {name: torch.tensor([0.0, value]) for name, value in parts.items()}, "count": torch.tensor(3)}


def test_numbers_pass_and_what_is_no_number_is_named() -> None:
    check_finite(state(w=1e38), set())
    # Its sum is not finite, but it is.
    check_finite({"params": torch.full((4,), 3e38)}, set())
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(NotFiniteError, match="'params/b' of what is trained is not finite, and no checkpoint"):
            check_finite(state(w=1.0, b=value), set())
    with pytest.raises(NotFiniteError, match="'moments/1/0'"):
        check_finite({"moments": [0.0, (torch.tensor(math.nan),)]}, set())


def test_infinities_of_a_mask_may_stay() -> None:
    allowed = infinite(state(mask=-math.inf, w=0.0))
    assert allowed == {"params/mask"}
    check_finite(state(mask=-math.inf, w=0.0), allowed)
    with pytest.raises(NotFiniteError, match="params/mask"):
        check_finite(state(mask=math.nan, w=0.0), allowed)


@pytest.mark.parametrize("what", ["velocity", "return/post"])
def test_a_checkpoint_is_never_of_what_is_not_finite(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, played = Follower.train_iteration, []

    def spoilt(self: Follower, *given: Any) -> Metrics:
        metrics = trained(self, *given)
        played.append(metrics)
        if what == "velocity" and len(played) == 8:
            self.velocity[0] = math.nan
        if what == "return/post" and len(played) == 5:
            metrics["return/post"] = math.nan
        return metrics

    monkeypatch.setattr(tiny_run.Follower, "train_iteration", spoilt)
    named = "'velocity' of what is trained" if what == "velocity" else "return/post is nan"
    number = 8 if what == "velocity" else 5
    with pytest.raises(UserError, match=rf"Iteration {number} of .* failed, {named}.*rates"):
        start(tmp_path / "run", FollowerConfig())
    kept = load(tmp_path / "run" / "checkpoints" / "last.pt", {})
    assert kept["iteration"] == 4
    assert kept["agent"]["velocity"].isfinite().all()
