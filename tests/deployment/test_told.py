"""What a policy is told of its task is scaled outside as it is here, in every family and for every scale."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest

from metarl.deployment.policy import PolicyError, _told
from metarl.deployment.told import told
from metarl.envs import families
from metarl.space.parameter import Parameter, Scale
from metarl.space.parameter_space import ParameterSpace
from tests.helpers.toys import seeded

COMMON: dict[str, Any] = {"unit": "", "description": "made up"}
EXTRA = (
    Parameter(name="log", scale="log-uniform", low=0.1, high=10.0, size=2, **COMMON),
    Parameter(name="one", scale="choice", choices=(3.0,), **COMMON),
    Parameter(name="two", scale="choice", choices=(3.0, -1.0), **COMMON),
    Parameter(name="many", scale="choice", choices=(3.0, -1.0, 2.0), ood=(5.0,), **COMMON),
    Parameter(name="sphere", scale="sphere", size=3, **COMMON),
    Parameter(name="disc", scale="disc", radius=2.0, **COMMON),
    Parameter(name="simplex", scale="simplex", size=3, rows=2, **COMMON),
    Parameter(name="normal", scale="normal", mean=1.0, std=3.0, size=2, **COMMON),
    Parameter(name="uniform", scale="uniform", low=-1.0, high=3.0, **COMMON),
)
SPACES = [ParameterSpace("extra", EXTRA), *(found.space for variants in families().values() for found in variants)]


def test_every_scale_and_every_family() -> None:
    assert {parameter.scale for parameter in EXTRA} == set(get_args(Scale))
    for space in SPACES:
        parameters = [{"name": parameter.name} | told(parameter) for parameter in space.parameters]
        for split in ("train", "ood") if space.has_ood else ("train",):
            tasks = space.sample(3, split, seeded())
            for record, expected in zip(tasks.records(), space.features(tasks).numpy(), strict=True):
                np.testing.assert_allclose(_told(parameters, record), expected, rtol=1e-9, atol=1e-9)


def test_a_logarithm_of_nothing_is_refused() -> None:
    parameters = [{"name": "log"} | told(EXTRA[0])]
    with pytest.raises(PolicyError, match="It must be above 0"):
        _told(parameters, {"log": [0.0, 1.0]})
