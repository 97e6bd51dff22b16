"""Short pieces of a log: each begins in a state, goes on by actions that were taken, and ends in what was seen then.

What a segment compares is what is observed at its beginning, at its end and, where that is not too much, between; and
where the log has rewards, those of its steps but the first (what an engine derives is that of the beginning there).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from metarl.envs.family import Family
from metarl.identification.log import Log
from metarl.identification.states import Fields

STILL = 1e-4
"""Least change that counts as one, in an observation's own unit and in parts of its values' spread."""
NUMBERS = 150
"""Most numbers of a segment that are compared, where the first and the last observation are fewer."""
REWARDS = "reward"


@dataclass(frozen=True, kw_only=True)
class Segments:
    """S segments of H steps, with Q numbers that are compared, of C kinds."""

    states: Fields
    """In which they begin, [S, ...]."""
    slopes: Tensor
    """Change of the first observation by a change of these, in units of the change, [S, O, Z]; Z is 0 where states are
    exact."""
    actions: Tensor
    """[S, H, A]."""
    lead: Tensor
    """Actions before them, by which what the family carries (delays, lags) becomes what it was, [S, L, A]."""
    times: tuple[int, ...]
    """Steps after which observations are compared."""
    rewarded: bool
    """Whether rewards are compared, too: those of steps 2 to H."""
    wanted: Tensor
    """What is to come out, [S, Q]: the observations at these times, and then the rewards."""
    channels: Tensor
    """Of which of the C kinds each of the Q numbers is."""
    scale: Tensor
    """How much each of the C kinds changes in a segment, root mean square; of rewards, how much they differ."""
    moves: Tensor
    """Which of the C kinds change at all."""
    names: tuple[str, ...]
    """Of the C kinds."""
    units: tuple[str, ...]
    how: str
    """Where the states are from, in words."""

    def __len__(self) -> int:
        return len(self.wanted)

    @property
    def steps(self) -> int:
        """H."""
        return self.actions.shape[1]

    def some(self, rows: Tensor) -> Segments:
        """Return some of the segments."""
        return replace(
            self,
            states={name: value[rows] for name, value in self.states.items()},
            slopes=self.slopes[rows],
            actions=self.actions[rows],
            lead=self.lead[rows],
            wanted=self.wanted[rows],
        )


def at_rows(log: Log, family: Family, rows: np.ndarray, episodes: np.ndarray, steps: int, lead: int) -> Segments:
    """Return segments that begin at rows of a log, without their states."""
    size = family.observation_size
    count = max(2, min(steps + 1, NUMBERS // size))
    times = tuple(dict.fromkeys(np.linspace(0, steps, count).round().astype(int).tolist()))
    seen = torch.stack([_seen(log, rows + time, episodes) for time in times], dim=1)
    names, units = [row.meaning for row in family.observables], [row.unit for row in family.observables]
    change = (seen[:, -1] - seen[:, 0]).square().mean(0).sqrt()
    floor = STILL * (1.0 + seen[:, -1].std(0, correction=0))
    wanted, channels = seen.flatten(1), torch.arange(size).repeat(len(times))
    taken = rows[:, None] + np.arange(steps)
    rewarded = log.rewards is not None and steps > 1
    if rewarded:
        assert log.rewards is not None
        paid = tensor(log.rewards[taken[:, 1:]])
        wanted = torch.cat((wanted, paid), dim=1)
        channels = torch.cat((channels, torch.full((steps - 1,), size)))
        names, units = [*names, REWARDS], [*units, ""]
        change = torch.cat((change, paid.std(correction=0)[None]))
        floor = torch.cat((floor, torch.full((1,), STILL, dtype=torch.float64)))
    return Segments(
        states={},
        slopes=torch.zeros(len(rows), size, 0, dtype=torch.float64),
        actions=tensor(log.actions[taken]),
        lead=tensor(log.actions[rows[:, None] + np.arange(-lead, 0)]),
        times=times,
        rewarded=rewarded,
        wanted=wanted,
        channels=channels,
        scale=torch.maximum(change, floor),
        moves=change > floor,
        names=tuple(names),
        units=tuple(units),
        how="",
    )


def _seen(log: Log, rows: np.ndarray, episodes: np.ndarray) -> Tensor:
    """Return the observations before rows, which may be the one after an episode's last, [S, O]."""
    after = rows == log.firsts[episodes] + log.lengths[episodes]
    inside = np.minimum(rows, len(log.observations) - 1)
    return tensor(np.where(after[:, None], log.final_observations[episodes], log.observations[inside]))


def tensor(values: np.ndarray) -> Tensor:
    """Return a copy in torch's own memory."""
    return torch.from_numpy(values).clone()
