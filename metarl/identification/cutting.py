"""Cuts a log into segments: where they begin, and in which states.

Where observations tell the state, segments begin anywhere, in a state that is known as well as sensors tell it; so they
do where the log has the states, which are then taken as exact. Else they begin where episodes do, in the exact states
that the log has of these.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from metarl.envs.family import Family
from metarl.envs.modifiers.apply import Modified
from metarl.envs.modifiers.delay import Delayed
from metarl.errors import UserError
from metarl.identification.log import Log
from metarl.identification.segments import Segments, at_rows, tensor
from metarl.identification.simulator import Simulator
from metarl.identification.states import Looking, states_seen

LEAD = 5
"""Steps before a segment whose actions are given to a family that carries fields; more where messages are later."""
MATTERS = 0.02
"""Part of the change of observations from which on it matters how a hidden part of the state was."""
NUDGE = 0.1
"""By how much hidden parts are changed, to find out: m, rad, m/s or rad/s."""


def cut(log: Log, looking: Looking, *, steps: int, most: int, generator: torch.Generator) -> Segments:
    """Cut a log into segments.

    Args:
        log: episodes of one system.
        looking: at its family.
        steps: H.
        most: largest number of segments; of more, a random choice that is spread over the log.
        generator: draws that choice.

    Raises:
        UserError: no episode is as long as a segment, or no state of the system can be had.
    """
    if looking.past_is_seen(generator):
        raise UserError(
            f"{looking.family.full_name}: what is observed depends on more than state and task, so that a log cannot "
            "be taken apart. Leave noise of sensors out (it is found by itself), and take +delay=action for delays "
            "both ways (only their sum can be told)."
        )
    lead = lead_of(looking.family)
    rows, episodes = _places(log, steps, lead)
    if len(rows) == 0:
        raise UserError(
            f"{log.where}: the longest episode has {log.lengths.max()} steps, and a segment needs {lead + steps}. Give "
            "longer episodes, or fewer --segment-steps."
        )
    chosen = torch.randperm(len(rows), generator=generator)[: 2 * most].sort().values.numpy()
    rows, episodes = rows[chosen], episodes[chosen]
    segments = at_rows(log, looking.family, rows, episodes, steps, lead)
    if set(looking.fields) <= set(log.states):
        states = {name: tensor(log.states[name][rows]) for name in looking.fields}
        return _fewer(replace(segments, states=states, how="states of the log"), most, generator)
    seen = states_seen(looking, log.observations[rows], generator)
    slopes = seen.slopes / segments.scale[: seen.slopes.shape[1], None]
    whole = replace(segments, states=seen.states, slopes=slopes, how="states told by observations")
    if bool(seen.right.any()) and not _hidden_matters(looking, whole, seen.hidden):
        return _fewer(whole.some(seen.right.nonzero().squeeze(1)), most, generator)
    return _from_starts(log, looking, steps=steps, most=most)


def lead_of(family: Family) -> int:
    """Return the steps after which what a family carries depends on the actions in them alone."""
    if not family.carried:
        return 0
    effects = family.effects if isinstance(family, Modified) else ()
    return max([LEAD, *(effect.longest + 1 for effect in effects if isinstance(effect, Delayed))])


def _places(log: Log, steps: int, lead: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows in which segments can begin, and their episodes; none shares an observation with another."""
    rows, episodes = [], []
    for number, (first, length) in enumerate(zip(log.firsts, log.lengths, strict=True)):
        begins = first + np.arange(lead, length - steps + 1, steps + 1)
        rows.append(begins)
        episodes.append(np.full(len(begins), number))
    return np.concatenate(rows), np.concatenate(episodes)


def _from_starts(log: Log, looking: Looking, *, steps: int, most: int) -> Segments:
    """Return segments that begin where episodes do."""
    names = looking.fields
    if not set(names) <= set(log.starts):
        raise UserError(
            f"{log.where}: the state of the system cannot be had from its observations, and the log has no "
            f"{', '.join(sorted(f'state.{name}' for name in names))} nor "
            f"{', '.join(sorted(f'start.{name}' for name in names))}. Record one of them."
        )
    episodes = np.flatnonzero(log.lengths >= steps)[:most]
    segments = at_rows(log, looking.family, log.firsts[episodes], episodes, steps, 0)
    states = {name: tensor(log.starts[name][episodes]) for name in names}
    return replace(segments, states=states, how="first states of the log's episodes")


def _fewer(segments: Segments, most: int, generator: torch.Generator) -> Segments:
    """Return as many of the segments as are wanted."""
    return segments.some(torch.randperm(len(segments), generator=generator)[:most].sort().values)


def _hidden_matters(looking: Looking, segments: Segments, hidden: Tensor) -> bool:
    """Tell whether what is seen in segments depends on what is hidden at their beginning."""
    simulator = Simulator(looking, segments)
    changes = torch.cat((torch.zeros_like(hidden[:1]), NUDGE * hidden))
    for change in changes[1:]:
        pair = torch.stack((torch.zeros_like(change), change))[:, None].expand(-1, len(segments), -1)
        plain, other = simulator.misses(looking.task.select([0, 0]), pair)
        # Contacts that are met or missed make single segments differ by much.
        if float((other - plain).abs().amax(1).median()) > MATTERS:
            return True
    return False
