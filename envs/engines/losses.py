"""What `mujoco_warp` had no room for in its buffers, and dropped."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from metarl.envs.engines.buffers import Room


class Losses:
    """Contacts and constraint rows that were lost in B worlds since their last resets.

    Args:
        warp: the module.
        mjw: `mujoco_warp`.
        data: its `Data`.
    """

    def __init__(self, warp: Any, mjw: Any, data: Any) -> None:
        kind = mjw.OverflowType
        # What there is to be more room for. Other flags tell of iterations, or of a contact on a height field or of
        # EPA's that is less exact for one step, since mujoco_warp looks at so many triangles and edges only, whatever
        # room there is.
        self._kinds = {
            int(kind.NEFC): "constraints",
            int(kind.NJMAX_NNZ): "constraints",
            int(kind.BROADPHASE): "contacts",
            int(kind.NARROWPHASE): "contacts",
            int(kind.CCD): "convex",
        }
        self.flags: Tensor = warp.to_torch(data.overflow)
        self._rows, self._found, self._close = (warp.to_torch(x) for x in (data.nefc, data.nacon, data.ncollision))

    def worlds(self) -> Bool[Tensor, " B"]:
        """Return which worlds lost something in a step; the host does not wait."""
        return (self.flags & sum(self._kinds)) != 0

    def found(self, room: Room) -> tuple[set[str], int]:
        """Look what there was no room for, and in how many worlds."""
        flags = torch.tensor(list(self._kinds), dtype=self.flags.dtype, device=self.flags.device)
        lost = (self.flags[:, None] & flags) != 0
        # Flags of rows and contacts are set at the end of a step only: a start is looked at itself.
        rows = self._rows > room.constraints
        shared = torch.maximum(self._found, self._close) > len(self.flags) * room.contacts
        worlds = (lost.any(1) | rows | shared).sum()
        looked = torch.cat((lost.any(0), rows.any()[None], shared)).tolist()
        names = [*self._kinds.values(), "constraints", "contacts"]
        return {name for name, short in zip(names, looked, strict=True) if short}, int(worlds)
