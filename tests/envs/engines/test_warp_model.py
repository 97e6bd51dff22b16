"""What the GPU engine changes of a model."""

from __future__ import annotations

import copy

import pytest

from metarl.envs import MujocoFamily, get
from metarl.envs.engines.warp_model import without_margins
from metarl.errors import UserError


def test_margins_on_height_fields_are_part_of_the_bodies() -> None:
    family = get("ant-terrain")
    assert isinstance(family, MujocoFamily)
    before, after = family.model, without_margins(family.model)
    assert not after.geom_margin.any()
    assert (after.geom_size[1:, 0] == before.geom_size[1:, 0] + 0.02).all()
    assert (after.geom_size[1:, 1] == before.geom_size[1:, 1]).all()
    several = copy.copy(family.model)
    several.geom_margin[2] = 0.5
    with pytest.raises(UserError, match=r"the same margin and no gap: got margins \[0.01, 0.5\]"):
        without_margins(several)
    with pytest.raises(UserError, match=r"of every world's own: geom_size\. Take the margins away"):
        without_margins(family.model, ("geom_pos", "geom_size"))
