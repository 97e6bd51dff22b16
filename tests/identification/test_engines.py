"""Identification on the GPU engine: Warp's CPU device where there is no GPU."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

import metarl
from tests.cli.test_identify import MASS, recorded
from tests.helpers.robot_files import small

if importlib.util.find_spec("mujoco_warp") is None:
    pytest.skip("mujoco_warp is not installed (the extra `gpu`)", allow_module_level=True)


@pytest.mark.slow
def test_the_gpu_engine_tells_the_same(tmp_path: Path) -> None:
    file = small(tmp_path, MASS)
    truth = recorded(tmp_path / "log.npz", str(file))
    found = metarl.identify(
        tmp_path / "log.npz",
        str(file),
        segments=6,
        segment_steps=2,
        population=20,
        draws=200,
        engine="gpu",
        device="cuda" if torch.cuda.is_available() else "cpu",
        progress=False,
    )
    (leg,) = (row for row in found.quantities if row.parameter == "leg")
    assert 0.97 * truth["leg"] < leg.median < 1.03 * truth["leg"]
    assert leg.told == "yes"
