"""Worlds that step together, as on a GPU, on the engines of the CPU: for tests of what a GPU launches as one."""

from __future__ import annotations

from torch import Tensor

from metarl.envs.engines.cpu import MujocoPhysics
from metarl.envs.engines.in_torch import TorchPhysics
from metarl.envs.family import LARGEST_VALID, Family, MujocoFamily, TorchFamily
from metarl.envs.worlds import Worlds
from metarl.launches import Launches, apart
from tests.helpers.recorder import Recorder


class MujocoTogether(MujocoPhysics):
    """MuJoCo on the CPU as `WarpPhysics` presents it: all worlds step, apart from what torch does, and a mask tells."""

    lockstep = True

    def advance(self, action: Tensor, worlds: Tensor | None) -> Tensor:
        self._control.copy_(action)
        apart(lambda: self.batch.step(None, nstep=self.family.frame_skip))
        valid = [(self.state[name].abs() < LARGEST_VALID).all(1) for name in ("qpos", "qvel")]
        return ~(valid[0] & valid[1])


def worlds_together(family: Family, count: int, recorder: Recorder | None = None) -> Worlds:
    """Return worlds in lockstep on the CPU.

    Args:
        family: on MuJoCo, or in torch.
        count: B.
        recorder: what their steps are captured by; None: they are not.
    """
    if isinstance(family, MujocoFamily):
        physics = MujocoTogether(family, count, 1)
    else:
        assert isinstance(family, TorchFamily)
        physics = TorchPhysics(family, count)
        physics.lockstep = True
    physics.launches = None if recorder is None else Launches(recorder)
    return Worlds(family, count, physics)
