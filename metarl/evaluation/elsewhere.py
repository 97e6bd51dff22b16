"""Agents in other realities, beside themselves at home: what of their adaptation survives.

The agents, the tasks and the protocol are those of home (curve.py); the worlds differ in what the reality changes.
Floor and oracle are evaluated in every reality, where they are at home, so that

    gap closed there = (agent there - floor@0 there) / (oracle there - floor@0 there)
    survives = gap closed there / gap closed at home, at the last point of the curve

Nothing of it can be taken for a result at home: what was measured elsewhere stands under `realities` in
adaptation.json, has the reality's name in the column `reality` of adaptation.csv, and is called `AGENT in REALITY`
wherever it is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from metarl.errors import UserError
from metarl.evaluation.curve import REFERENCES, Evaluation
from metarl.evaluation.statistics import surviving
from metarl.evaluation.summary import summarise
from metarl.seeding import Streams

HOME = "home"
"""What the family's own physics is called beside others."""


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """An evaluation in another reality."""

    reality: Mapping[str, Any]
    """Its name, a summary, and what it changes, as plain data."""
    evaluation: Evaluation
    """What was measured there."""

    @property
    def name(self) -> str:
        """What the reality is called."""
        return str(self.reality["name"])


def label(agent: str, reality: str) -> str:
    """Return what an agent in a reality is called."""
    return f"{agent} in {reality}"


def summarise_elsewhere(home: Evaluation, there: Elsewhere) -> dict[str, Any]:
    """Return the result in a reality as plain data: as `summarise` does, with the reality and what survives there.

    `survives` of an agent is None where there is no oracle; where it is not defined `survives_note` says why.
    """
    generator = Streams(home.seed)["bootstrap elsewhere"]
    found = {"reality": dict(there.reality), **summarise(there.evaluation)}
    for described, entry, other in zip(found["agents"], there.evaluation.entries, home.entries, strict=True):
        described["agent"] = label(entry.agent, there.name)
        described |= {"reality": there.name, "survives": None, "survives_lower": None, "survives_upper": None}
        described["survives_note"] = None
        ours, theirs = there.evaluation.gap, home.gap
        if ours is None or theirs is None:
            continue
        try:
            share = surviving((entry.returns[-1], *ours), (other.returns[-1], *theirs), generator)
        except UserError as undefined:
            described["survives_note"] = str(undefined)
            continue
        figures = {"survives": share.estimate, "survives_lower": share.lower, "survives_upper": share.upper}
        described |= figures
    for name in REFERENCES:
        if found[name] is not None:
            found[name]["agent"] = label(found[name]["agent"], there.name)
    return found
