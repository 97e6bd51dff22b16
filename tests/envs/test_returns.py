from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from metarl.envs.engines.in_torch import TorchPhysics
from metarl.envs.families.point_nav import PointNav
from metarl.envs.worlds import Worlds
from metarl.errors import UserError
from metarl.seeding import Streams

ZEROS = torch.zeros(3)


@dataclass(frozen=True, kw_only=True)
class Returning(PointNav):
    """Point navigation in which one function returns something else."""

    variant: str = "own"
    returned: dict[str, Any] = field(default_factory=dict)

    def reset_state(self, generator: Any, tasks: Any) -> Any:
        return self.returned.get("reset_state", super().reset_state(generator, tasks))

    def advance(self, state: Any, action: Any, tasks: Any) -> Any:
        return self.returned.get("advance", super().advance(state, action, tasks))

    def observe(self, state: Any, tasks: Any) -> Any:
        return self.returned.get("observe", super().observe(state, tasks))

    def reward_terms(self, before: Any, state: Any, action: Any, tasks: Any) -> Any:
        return self.returned.get("reward_terms", super().reward_terms(before, state, action, tasks))

    def terminated(self, state: Any, tasks: Any) -> Any:
        return self.returned.get("terminated", super().terminated(state, tasks))

    def truncated(self, state: Any, tasks: Any) -> Any:
        return self.returned.get("truncated")

    def success(self, state: Any, tasks: Any) -> Any:
        return self.returned.get("success")


def stepped(**returned: Any) -> Worlds:
    """Take two steps in three worlds."""
    family = Returning(returned=returned)
    worlds = Worlds(family, 3, TorchPhysics(family, 3))
    streams = Streams(0)
    worlds.set_tasks(family.space.sample(3, "train", streams["tasks"]))
    worlds.reset(streams["starts"])
    worlds.step(torch.zeros(3, 2))
    worlds.step(torch.zeros(3, 2))
    return worlds


@pytest.mark.parametrize(
    ("function", "returned", "said"),
    [
        ("reset_state", None, "returned None. It has to return a dict: name of a state field -> tensor [3, ...]."),
        ("reset_state", {"position": torch.zeros(2, 2)}, "returned float32 [2, 2] for 'position'."),
        ("reset_state", {1: torch.zeros(3, 2)}, "returned float32 [3, 2] for 1."),
        ("reset_state", {"position": [0.0]}, "returned [0.0] for 'position'."),
        ("reset_state", {}, "returned {}. It has to return a dict"),
        ("reset_state", {"position": torch.zeros(3, 2).to_sparse()}, "returned sparse float32 [3, 2] for 'position'."),
        ("advance", None, "returned None. It has to return a dict with all fields of the state, position, each"),
        ("advance", {}, "returned nothing for 'position'."),
        ("advance", {"position": torch.zeros(3, 2), "x": ZEROS}, "a field that reset_state did not, for 'x'."),
        ("advance", {"position": torch.zeros(3, 1)}, "returned float32 [3, 1] for 'position'."),
        ("advance", {"position": torch.zeros(3, 2, device="meta")}, "returned meta float32 [3, 2] for 'position'."),
        ("observe", torch.zeros(3, 2, device="meta"), "returned meta float32 [3, 2]."),
        ("reward_terms", {"distance": ZEROS.to_sparse()}, "returned sparse float32 [3] for 'distance'."),
        ("reward_terms", {"distance": ZEROS.to("meta")}, "returned meta float32 [3] for 'distance'."),
        ("terminated", torch.zeros(3, dtype=torch.bool).to_sparse(), "returned sparse bool [3]."),
        ("observe", None, "returned None. It has to return floats [3, 2]: a row a world"),
        ("observe", torch.zeros(3, 1), "returned float32 [3, 1]."),
        ("observe", torch.zeros(3, 2, dtype=torch.long), "returned int64 [3, 2]."),
        ("observe", "x" * 60, "returned a str."),
        ("reward_terms", None, "returned None. It has to return a dict: name -> floats [3]"),
        ("reward_terms", {}, "returned {}."),
        ("reward_terms", {"distance": 1.0}, "returned 1.0 for 'distance'."),
        ("reward_terms", {"distance": torch.zeros(3, 1)}, "returned float32 [3, 1] for 'distance'."),
        ("reward_terms", {"distance": ZEROS.to(torch.complex64)}, "returned complex64 [3] for 'distance'."),
        ("reward_terms", {"a/b c": ZEROS}, "returned float32 [3] for 'a/b c'."),
        ("reward_terms", {1: ZEROS}, "returned float32 [3] for 1."),
        ("terminated", True, "returned True. It has to return booleans [3], or None."),
        ("terminated", ZEROS, "returned float32 [3]."),
        ("truncated", torch.tensor(True), "returned bool []."),
        ("success", "no", "returned 'no'."),
    ],
)
def test_what_a_function_must_not_return_is_refused_in_words(function: str, returned: Any, said: str) -> None:
    with pytest.raises(UserError, match=f"^point-nav@own: {function} ") as refused:
        stepped(**{function: returned})
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_functions_may_return_is_taken() -> None:
    ends = ZEROS > 1.0
    stepped(reward_terms={"near": ZEROS, "far": ZEROS.double()}, terminated=ends, truncated=ends, success=ends)
    stepped(terminated=None, observe=torch.zeros(3, 2))
