"""Optimisers are brought to a stored state that could be theirs, and to no other."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch

from metarl.learning.optimisers import load_optimiser


def stepped(kind: Callable[..., torch.optim.Optimizer], **settings: Any) -> torch.optim.Optimizer:
    """Return an optimiser that has taken a step."""
    optimiser = kind([torch.zeros(2), torch.zeros(3)], lr=0.1, **settings)
    for param in optimiser.param_groups[0]["params"]:
        param.grad = torch.ones_like(param)
    optimiser.step()
    return optimiser


KINDS: list[tuple[Any, dict[str, Any]]] = [
    (torch.optim.Adam, {}),
    (torch.optim.AdamW, {}),
    (torch.optim.SGD, {"momentum": 0.9}),
    (torch.optim.RMSprop, {}),
]


@pytest.mark.parametrize(("kind", "settings"), KINDS)
def test_it_is_as_it_was_and_keeps_its_own_settings(kind: Any, settings: dict[str, Any]) -> None:
    before = stepped(kind, weight_decay=0.5, **settings)
    after = kind([torch.zeros(2), torch.zeros(3)], lr=0.7, weight_decay=0.25, **settings)
    load_optimiser(after, before.state_dict())
    assert after.param_groups[0]["lr"] == 0.1
    assert after.param_groups[0]["weight_decay"] == 0.25
    state, stored = after.state_dict()["state"], before.state_dict()["state"]
    assert state[1].keys() == stored[1].keys()
    assert all(torch.equal(state[1][name], stored[1][name]) for name in stored[1])


@pytest.mark.parametrize("name", ["step", "exp_avg", "exp_avg_sq"])
def test_what_lacks_something_of_a_parameter_is_refused(name: str) -> None:
    state = deepcopy(stepped(torch.optim.AdamW).state_dict())
    del state["state"][1][name]
    with pytest.raises(ValueError, match=r"the stored optimiser has .* where .*'step'.* are needed"):
        load_optimiser(stepped(torch.optim.AdamW), state)


def test_a_group_without_its_rate_or_parameters_is_refused() -> None:
    for name in ("lr", "params"):
        state = deepcopy(stepped(torch.optim.Adam).state_dict())
        del state["param_groups"][0][name]
        with pytest.raises(ValueError, match="other settings"):
            load_optimiser(stepped(torch.optim.Adam), state)


def test_a_group_that_lacks_what_is_not_taken_from_it_is_none_the_less_one() -> None:
    state = deepcopy(stepped(torch.optim.Adam).state_dict())
    del state["param_groups"][0]["betas"]
    after = stepped(torch.optim.Adam)
    load_optimiser(after, state)
    assert after.param_groups[0]["betas"] == (0.9, 0.999)


@pytest.mark.parametrize(("name", "value"), [("betas", 3), ("betas", [0.9]), ("lr", "0.1"), ("lr", float("nan"))])
def test_settings_that_are_none_are_refused(name: str, value: Any) -> None:
    state = deepcopy(stepped(torch.optim.Adam).state_dict())
    state["param_groups"][0][name] = value
    with pytest.raises(ValueError, match="other settings"):
        load_optimiser(stepped(torch.optim.Adam), state)


def test_a_rate_with_more_digits_than_a_float_has_is_refused() -> None:
    state = deepcopy(stepped(torch.optim.Adam).state_dict())
    state["param_groups"][0]["lr"] = 10**400
    with pytest.raises(ValueError, match="other settings"):
        load_optimiser(stepped(torch.optim.Adam), state)
