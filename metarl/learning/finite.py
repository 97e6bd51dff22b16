"""Where a number was first not finite: looked for only once a sum has shown that there is one.

Episodes are looked at when they have been played, with the one look at the device that tells how many steps they took;
what an update computes, where it looks at its figures anyway. So a training that ends says what came first: a reward or
an observation (the family's doing), a gradient, a parameter (the training's doing).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import pad

from metarl.errors import NotFiniteError, WorldNotFiniteError
from metarl.learning.playing import Playing
from metarl.types import Params, Tasks

MOST_RECORD = 200
"""Letters of a task in a line."""


def check_played(family: str, tasks: Tasks, playing: Playing) -> None:
    """Say which reward or observation of some episodes was the first that is not finite, if one is.

    Args:
        family: their family.
        tasks: M, of B / M worlds each, task-major.
        playing: the episodes, which may be in the middle.

    Raises:
        WorldNotFiniteError: names family, task, world, step and what it was.
    """
    seen, paid = torch.cat((playing.observations, playing.observation[None])), playing.rewards
    # What is paid at a step comes before what is seen after it: at the start nothing is paid.
    wrong = torch.stack((pad(~paid.isfinite(), (0, 0, 1, 0)), ~seen.isfinite().all(2)), dim=1)
    if not bool(wrong.any()):
        return
    step, observed, world = wrong.nonzero()[0].tolist()
    # The last observations stand behind all steps, and may be of an earlier one.
    if observed:
        number = int((~seen[step, world].isfinite()).nonzero()[0])
        value = f"the observation {seen[step, world, number].item()} (its number {number})"
    else:
        found = [name for name, total in playing.totals.items() if not bool(total[world].isfinite())]
        value = f"the reward {paid[step - 1, world].item()}{f' ({found[0]})' if found else ''}"
    task = world * len(tasks) // seen.shape[1]
    record = str(tasks.select(torch.tensor([task])).records()[0])
    record = record if len(record) <= MOST_RECORD else f"{record[:MOST_RECORD]} ..."
    when = f"after {step} steps" if step else "at the start"
    raise WorldNotFiniteError(f"{family} gave {value} {when} of an episode in world {world}, with the task {record}")


def check_parts(parts: Sequence[tuple[str, Params]], otherwise: str) -> None:
    """Say which of several things is not finite.

    Args:
        parts: what they are, in the order in which they were computed, with their tensors.
        otherwise: the error text where all of them are finite.

    Raises:
        NotFiniteError: always.
    """
    for what, tensors in parts:
        for name, value in tensors.items():
            if not bool(value.isfinite().all()):
                label = f" '{name}'" if len(tensors) > 1 else ""
                raise NotFiniteError(f"{what}{label} is not finite: its training has run away")
    raise NotFiniteError(otherwise)
