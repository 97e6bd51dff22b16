"""From a family to its worlds: which engine steps them."""

from __future__ import annotations

import pytest
import torch

from metarl.envs import make_worlds
from metarl.envs.engines.in_torch import TorchPhysics
from metarl.envs.making import choose_engine, describe_engine
from metarl.envs.physics import CPU
from metarl.errors import UserError

CHEETAH = "half-cheetah-vel@v5"


def test_engines_are_chosen() -> None:
    pytest.importorskip("mujoco_warp")
    assert choose_engine("auto", CHEETAH, CPU) == "cpu"
    assert choose_engine("auto", CHEETAH, torch.device("cuda")) == "gpu"
    assert choose_engine("auto", "point-nav", torch.device("cuda")) == "gpu"
    assert choose_engine("gpu", CHEETAH, CPU) == "gpu"
    assert isinstance(make_worlds("point-nav", 2, engine="gpu").physics, TorchPhysics)
    assert describe_engine(make_worlds(CHEETAH, 2, engine="gpu")) == "mujoco_warp on CPU"
    with pytest.raises(UserError, match="unknown engine 'gpus'"):
        choose_engine("gpus", CHEETAH, CPU)


def test_a_training_says_which_gpu_steps_its_worlds(monkeypatch: pytest.MonkeyPatch) -> None:
    worlds = make_worlds("point-nav", 2)
    worlds.device = torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"the GPU {device}")
    assert describe_engine(worlds) == "torch on the GPU cuda:1"
