"""Meta-World's protocol for the agents of an evaluation: which tasks, and what came of them."""

from __future__ import annotations

from typing import Any

from metarl.api.meeting import Meeting
from metarl.api.memory import check_playing
from metarl.envs import make_worlds
from metarl.errors import UserError
from metarl.evaluation import protocol
from metarl.seeding import Streams
from metarl.types import Tasks

MOST_GOALS = 1000
"""Tasks of a class."""


def protocol_tasks(meeting: Meeting, goals: int) -> tuple[Tasks, list[str]]:
    """Draw the tasks of the protocol, as many of each class; return their classes too.

    Args:
        meeting: the agents, the family and the split.
        goals: tasks of each class.

    Raises:
        UserError: too few or too many goals, or no room for the episodes.
    """
    space = meeting.family.space
    if not 1 <= goals <= MOST_GOALS:
        raise UserError(f"Got --protocol-goals {goals}. Allowed: from 1 to {MOST_GOALS}.")
    for group in meeting.groups:
        meeting.check_memory(group, protocol.ADAPTING + protocol.SCORED, "leave --protocol out, or lower")
    count = goals * space.classes(meeting.split)
    check_playing(
        meeting.family, count * protocol.ADAPTING, "--protocol-goals", engine=meeting.engine, device=meeting.device
    )
    tasks = space.sample(count, meeting.split, Streams(meeting.seed)["protocol-tasks"])
    choice = next((parameter for parameter in space.parameters if parameter.is_choice), None)
    if choice is None:
        return tasks, ["all"] * count
    return tasks, [choice.in_words(value).removeprefix(f"{choice.name} ") for value in tasks[choice.name]]


def protocol_results(meeting: Meeting, tasks: Tasks, classes: list[str]) -> list[dict[str, Any]]:
    """Score every agent by the protocol, on the same tasks and, as far as their actions allow, the same starts."""

    def make(count: int) -> Any:
        return make_worlds(meeting.family, count, threads=meeting.threads, engine=meeting.engine, device=meeting.device)

    results = []
    for group in meeting.groups:
        scores = [protocol.score(run.agent, make, tasks, Streams(meeting.seed)["protocol"]) for run in group.runs]
        described = protocol.describe(scores, classes, Streams(meeting.seed)["bootstrap"])
        results.append(
            {
                "agent": group.label,
                "family": meeting.family.full_name,
                "split": meeting.split,
                "runs": [str(run.folder) for run in group.runs],
                "training_seeds": [run.seed for run in group.runs],
                "adapting": protocol.ADAPTING,
                "scored": protocol.SCORED,
                **described,
            }
        )
    return results
