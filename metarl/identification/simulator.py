"""Plays segments of a log under many tasks, on any engine, in batches of as many worlds as there are."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.identification.segments import Segments
from metarl.identification.states import Looking
from metarl.types import Tasks

LARGEST = 1e3
"""Misses are cut off here, in units of an observation's change in a segment; those of failed simulations too."""


class Simulator:
    """Plays segments.

    Args:
        looking: at the family; the tasks and states of its worlds are overwritten.
        segments: S of them.

    Attributes:
        simulated: control steps until now.
    """

    def __init__(self, looking: Looking, segments: Segments) -> None:
        self.looking, self.worlds, self.segments = looking, looking.worlds, segments
        self.scale = segments.scale[segments.channels]
        self.simulated = 0

    def misses(self, tasks: Tasks, starts: Float[Tensor, "N S Z"]) -> Float[Tensor, "N S Q"]:
        """Return what comes out less what was to, in units of the change; of failures `LARGEST`.

        Args:
            tasks: N.
            starts: by what the segments' states are changed, m, rad, m/s or rad/s; Z is 0 where they are exact.
        """
        count, size = len(self.segments), self.worlds.num_worlds
        changes = starts.reshape(len(tasks) * count, -1)
        pairs = torch.arange(len(changes))
        parts = []
        for first in range(0, len(pairs), size):
            some = pairs[first : first + size]
            full = torch.cat((some, some[-1:].expand(size - len(some))))
            parts.append(self._batch(tasks.select(full // count), full % count, changes[full])[: len(some)])
        return torch.cat(parts).unflatten(0, (len(tasks), count))

    def _batch(self, tasks: Tasks, rows: Tensor, changes: Tensor) -> Tensor:
        """Return the misses of a segment in every world, [B, Q]."""
        worlds, segments = self.worlds, self.segments
        family, drive = worlds.family, worlds.drive
        states = {name: value[rows] for name, value in segments.states.items()}
        if changes.shape[1]:
            states = self.looking.moved(states, changes)
        drive.physics.apply(tasks, None)
        there = tasks.to(worlds.device)
        self.looking.begin(states, segments.lead[rows], there)
        actions = segments.actions[rows].to(worlds.device)
        failed = torch.zeros(len(rows), dtype=torch.bool, device=worlds.device)
        seen, paid = [family.observe(drive.state, there).double()], []
        for step in range(segments.steps):
            before = {name: drive.state[name].clone() for name in family.remember}
            broken = drive.advance(actions[:, step], None, there)
            if broken is not None:
                failed = failed | broken
            if step + 1 in segments.times:
                seen.append(family.observe(drive.state, there).double())
            if segments.rewarded and step > 0:
                terms = family.reward_terms(before, drive.state, actions[:, step], there)
                paid.append(torch.stack(tuple(terms.values())).sum(0)[:, None].double())
        self.simulated += len(rows) * (segments.steps + segments.lead.shape[1])
        missed = (torch.cat((*seen, *paid), dim=1).cpu() - segments.wanted[rows]) / self.scale
        missed = torch.where(failed.cpu()[:, None], LARGEST, missed)
        return missed.nan_to_num(LARGEST).clamp(-LARGEST, LARGEST)
