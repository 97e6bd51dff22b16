from __future__ import annotations

from typing import Literal

import pytest
import torch

from metarl.fewshot.parts.optimiser import Optimiser, OptimiserConfig
from tests.helpers.toys import normal


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_an_outer_step_does_not_depend_on_the_layout_of_the_gradient(name: Literal["adam", "sgd"]) -> None:
    start, gradient = normal(4, 3, 5, 5), normal(4, 3, 5, 5, seed=1)
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        params = {"weight": start.clone()}
        optimiser = Optimiser(OptimiserConfig(optimiser=name, learning_rate=0.1), params)
        for number in range(3):
            optimiser.step({"weight": gradient.contiguous(memory_format=layout)}, number)
        found.append(params["weight"].detach())
    assert torch.equal(*found)
