"""Validation of an agent in training: the same tasks, starts and noise at every checkpoint.

The tasks are of the training distribution, never of the test split. They are met by the protocol of curve.py, at the
point that the training adapts to. A checkpoint raises the validation where it is better, task by task, than the one
that raised it last:

    d_m = R_m(now) - R_m(the checkpoint that raised it last),    the 95% bootstrap interval of mean_m d_m lies above 0

with R_m the mean return of task m over its parallel episodes. The first checkpoint raises it. What a checkpoint is
compared with is replaced by nothing but a rise: a slow creep counts once it has added up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from metarl.errors import NotFiniteError
from metarl.evaluation.curve import adaptation_curve, parallel_episodes
from metarl.evaluation.statistics import bootstrap_interval, mean
from metarl.ranks import ALONE, Ranks
from metarl.run.standing import Standing
from metarl.seeding import Streams
from metarl.types import BatchEnv, MetaAgent, Metrics, Tasks

VALIDATION_SEED = 0
"""Seed of the validation: the same tasks, starts and noise for all runs."""


def rises(returns: Sequence[float], reference: Sequence[float]) -> bool:
    """Tell whether returns are higher than those of a reference, by the rule above.

    Args:
        returns: of M tasks.
        reference: of the same tasks.
    """
    difference = torch.tensor(returns, dtype=torch.float64) - torch.tensor(reference, dtype=torch.float64)
    return bootstrap_interval(difference, mean, Streams(VALIDATION_SEED)["plateau"]).lower > 0.0


def count(standing: Standing, returns: Sequence[float]) -> None:
    """Take one more checkpoint into the count of those that did not raise the validation.

    Args:
        standing: where the run stands; changed in place.
        returns: of the M validation tasks.
    """
    if standing.reference and not rises(returns, standing.reference):
        standing.waited += 1
        return
    standing.rises += bool(standing.reference)
    standing.reference, standing.waited = list(returns), 0


def trained_steps(agent: MetaAgent) -> int:
    """Return after how many steps of adaptation an agent is as good as its training makes it.

    An agent with a memory: in the last episode of a trial. One that learns from parallel episodes: after the
    `inner_steps` of its config; where that has none, as it begins.
    """
    return int(getattr(agent.config, "inner_steps", 0)) if agent.pools else agent.trial - 1


class Validation:
    """The validation of one training.

    Args:
        agent: being trained; it is not changed.
        tasks: M tasks.
        env: M * K worlds of its own, K being `parallel_episodes([agent], M)`; None where this is not the first rank.
        ranks: the processes that train the agent: the first one validates it.
    """

    def __init__(self, agent: MetaAgent, tasks: Tasks, env: BatchEnv | None, ranks: Ranks = ALONE) -> None:
        self.agent, self.tasks, self.env, self.ranks = agent, tasks, env, ranks

    def __call__(self, standing: Standing, counts: bool) -> Metrics:
        """Measure the agent as it is now.

        Args:
            standing: where the run stands; its count is changed in place.
            counts: whether the checkpoint is one of those that are counted.

        Returns:
            The figures; none where what acts at test is not trained yet.

        Raises:
            NotFiniteError: a return is not finite.
        """
        # An agent that is trained in phases may say so.
        if not getattr(self.agent, "begun", True):
            return {}
        returns, figures = self.ranks.once(self._measure)
        if counts:
            count(standing, returns)
        return {**figures, "validation/waited": float(standing.waited)}

    def _measure(self) -> tuple[list[float], Metrics]:
        """Return the return of every task, and the figures."""
        assert self.env is not None
        curve = adaptation_curve(
            self.agent,
            self.env,
            self.tasks,
            steps=trained_steps(self.agent),
            episodes=parallel_episodes([self.agent], len(self.tasks)),
            # Fresh at every checkpoint: all meet the same starts and noise.
            generator=Streams(VALIDATION_SEED)["validation"],
        )
        figures = {"validation/return": float(curve.returns[-1].mean())}
        if not math.isfinite(figures["validation/return"]):
            raise NotFiniteError(f"validation/return is {figures['validation/return']}")
        if curve.success is not None:
            figures["validation/success"] = float(curve.success[-1].mean())
        return curve.returns[-1].tolist(), {**figures, "validation/failures": float(curve.failures)}
