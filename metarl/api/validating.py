"""The validation of a training: its tasks, its worlds, and what is said of it at the start.

Its tasks are drawn anew from the training distribution, with a seed of their own. So they are none of the tasks that
an agent is trained on, be these drawn in every iteration, once for all, or a finite set of the family. Where all tasks
of a family are a few choices there are no others: they are trained on, tested, and validated too.
"""

from __future__ import annotations

from typing import Any

from metarl.envs.family import Family
from metarl.evaluation.curve import parallel_episodes
from metarl.evaluation.validation import VALIDATION_SEED, trained_steps
from metarl.run.settings import RunConfig
from metarl.seeding import Streams
from metarl.types import MetaAgent, Tasks


def validation_worlds(agent: MetaAgent, count: int) -> int:
    """Return how many worlds a validation with so many tasks takes."""
    return count * parallel_episodes([agent], count)


def validation_tasks(family: Family, count: int) -> Tasks:
    """Return the tasks of a validation; of a family that has a few only, each as often as any other."""
    return family.space.unfixed.sample(count, "train", Streams(VALIDATION_SEED)["validation tasks"])


def validation_said(family: Family, agent: MetaAgent, run: RunConfig) -> list[str]:
    """Return in words what is validated, and what of it is not as it should be.

    Args:
        family: what is trained on.
        agent: what is trained.
        run: the run's settings, with a validation.
    """
    episodes, steps = parallel_episodes([agent], run.validation), trained_steps(agent)
    if agent.pools or not steps:
        adapted = f", after {_some(steps, 'adaptation step')} on as many" if steps else ""
        how = f"{_some(episodes, 'episode')} of each{adapted}"
    else:
        how = f"{_some(episodes, 'trial')} of each, the last of {agent.trial} episodes"
    few = family.space.train_tasks if family.space.coincide else None
    if few is None:
        said = [f"Validation: {run.validation} tasks of the training distribution, none of those trained on; {how}."]
    else:
        said = [
            f"Validation: {run.validation} times a task of {family.full_name}, which has {few}: those trained on and "
            f"tested too; {how}."
        ]
    config: Any = agent.config
    rates = getattr(config, "learning_rate", None), getattr(config, "final_learning_rate", None)
    if run.patience and None not in rates and rates[0] != rates[1]:
        said.append(
            f"The learning rate goes from {rates[0]} to {rates[1]} over {config.iterations} iterations: a plateau "
            f"before their end may be one of that rate. A new run keeps it with --final-learning-rate {rates[0]}"
        )
    if not getattr(agent, "begun", True):
        said.append("It begins when that which acts at test is trained; before, there are no figures of it.")
    return said


def _some(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"
